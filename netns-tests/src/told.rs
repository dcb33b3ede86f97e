//! What a daemon tells of itself, and of why it does not do something.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::Host;

impl Host {
    /// The id of this host.
    pub fn peer_id(&self) -> Result<String> {
        let status = self.status()?;
        Ok(text(&status, "peer_id").context("no peer id")?.to_owned())
    }

    /// What the events of this kind say, oldest first.
    pub fn events(&self, kind: &str) -> Result<Vec<String>> {
        self.told("events", kind)
    }

    /// What the warnings of this kind say.
    pub fn warnings(&self, kind: &str) -> Result<Vec<String>> {
        self.told("warnings", kind)
    }

    /// True when there is an event of this kind.
    pub fn tells(&self, kind: &str) -> bool {
        self.events(kind).is_ok_and(|told| !told.is_empty())
    }

    /// True when there is a warning of this kind.
    pub fn warns(&self, kind: &str) -> bool {
        self.warnings(kind).is_ok_and(|told| !told.is_empty())
    }

    /// Runs a command that must fail with exit code 1 and this code; what it says.
    pub fn fails_with(&self, args: &[&str], code: &str) -> Result<String> {
        let said = self.meshnet(&[args, &["-o", "json"]].concat())?.fails_with(1)?;
        let object: Value = serde_json::from_str(&said)?;
        let error = object.get("error").with_context(|| format!("{args:?}: {said}"))?;
        ensure!(text(error, "code") == Some(code), "{args:?}: expected {code}: {said}");
        Ok(text(error, "message").context("no message")?.to_owned())
    }

    fn told(&self, list: &str, kind: &str) -> Result<Vec<String>> {
        let status = self.status()?;
        let entries = status.get(list).and_then(Value::as_array).with_context(|| format!("no {list}"))?;
        let of_kind = entries.iter().filter(|entry| text(entry, "kind") == Some(kind));
        Ok(of_kind.filter_map(|entry| text(entry, "message")).map(str::to_owned).collect())
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}
