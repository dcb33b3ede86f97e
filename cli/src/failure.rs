//! Why a command failed: a code for scripts; what, why and what to do for people.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A failure as it crosses the socket and is printed: one line, or `{"error": {...}}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// One of [`code`], never renamed.
    pub(crate) code: Cow<'static, str>,
    /// What went wrong, and why.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

/// The envelope of a failure in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FailureBody {
    pub(crate) error: Failure,
}

impl Failure {
    /// A failure without advice.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Failure { code: Cow::Borrowed(code), message: message.into(), hint: None }
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Something that should not happen.
    pub(crate) fn internal(error: impl fmt::Display) -> Self {
        Failure::new(code::INTERNAL, error.to_string())
    }

    /// One JSON object, as `-o json` prints it.
    pub(crate) fn json(&self) -> String {
        let body = FailureBody { error: self.clone() };
        serde_json::to_string(&body).unwrap_or_else(|e| format!("{{\"error\":{:?}}}", e.to_string()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.replace('\n', " ");
        match &self.hint {
            Some(hint) => write!(f, "{message}; {}", hint.replace('\n', " ")),
            None => f.write_str(&message),
        }
    }
}

impl std::error::Error for Failure {}

/// Every failure code. They are listed in `docs/cli.md`.
pub(crate) mod code {
    /// The command line does not make sense (exit code 2).
    pub(crate) const BAD_USAGE: &str = "bad_usage";
    /// No daemon answers on the socket.
    pub(crate) const NOT_RUNNING: &str = "not_running";
    /// A daemon holds the lock already.
    pub(crate) const ALREADY_RUNNING: &str = "already_running";
    /// The daemon has begun to stop.
    pub(crate) const STOPPING: &str = "stopping";
    /// The daemon did not end in time.
    pub(crate) const STILL_RUNNING: &str = "still_running";
    /// Nobody is alive who could take the address space of this host.
    pub(crate) const NOBODY_TAKES_SPACE: &str = "nobody_takes_space";
    /// The caller is not root, or may not open the socket.
    pub(crate) const NOT_PERMITTED: &str = "not_permitted";
    /// The daemon answers as many callers as it can.
    pub(crate) const BUSY: &str = "busy";
    /// The group of `--group` is not there.
    pub(crate) const UNKNOWN_GROUP: &str = "unknown_group";
    /// /dev/net/tun cannot be opened.
    pub(crate) const NO_TUN: &str = "no_tun";
    /// Somebody else has a port that is needed.
    pub(crate) const PORT_IN_USE: &str = "port_in_use";
    /// The address to listen on is not this host's.
    pub(crate) const ADDRESS_NOT_LOCAL: &str = "address_not_local";
    /// The range cannot be used here.
    pub(crate) const RANGE_UNUSABLE: &str = "range_unusable";
    /// The range overlaps a route of this host.
    pub(crate) const RANGE_OVERLAPS: &str = "range_overlaps";
    /// The kernel does not take the firewall rules of an exposed host.
    pub(crate) const RULES_FAILED: &str = "rules_failed";
    /// Another process uses the state directory.
    pub(crate) const STATE_DIR_IN_USE: &str = "state_dir_in_use";
    /// Others may write in the run directory.
    pub(crate) const RUN_DIR_OPEN: &str = "run_dir_open";
    /// The state directory cannot be used.
    pub(crate) const STATE_DIR_UNUSABLE: &str = "state_dir_unusable";
    /// The daemon could not start for another reason.
    pub(crate) const START_FAILED: &str = "start_failed";
    /// Docker knows no such container.
    pub(crate) const UNKNOWN_CONTAINER: &str = "unknown_container";
    /// The container has no process.
    pub(crate) const CONTAINER_NOT_RUNNING: &str = "container_not_running";
    /// Docker does not answer.
    pub(crate) const DOCKER_UNAVAILABLE: &str = "docker_unavailable";
    /// The process is gone.
    pub(crate) const NO_SUCH_PROCESS: &str = "no_such_process";
    /// No file there, or not a network namespace.
    pub(crate) const NOT_A_NAMESPACE: &str = "not_a_namespace";
    /// The container uses the host's own namespace.
    pub(crate) const HOST_NETWORK: &str = "host_network";
    /// Another container of this host and network has the name.
    pub(crate) const NAME_IN_USE: &str = "name_in_use";
    /// Nothing has the name or the address.
    pub(crate) const UNKNOWN_NAME: &str = "unknown_name";
    /// The name was given on another host.
    pub(crate) const NAME_ELSEWHERE: &str = "name_elsewhere";
    /// The container is attached with other options.
    pub(crate) const ALREADY_ATTACHED: &str = "already_attached";
    /// Another container of this host and network has the MAC address.
    pub(crate) const MAC_IN_USE: &str = "mac_in_use";
    /// The attachment was undone before it was done.
    pub(crate) const CANCELLED: &str = "cancelled";
    /// The container has an interface of that name.
    pub(crate) const IFNAME_IN_USE: &str = "ifname_in_use";
    /// Another host with the key of this one was there before.
    pub(crate) const CLONE: &str = "clone";
    /// There is no such network.
    pub(crate) const UNKNOWN_NETWORK: &str = "unknown_network";
    /// The ids of several networks begin so.
    pub(crate) const AMBIGUOUS_NETWORK: &str = "ambiguous_network";
    /// The container is not on the network.
    pub(crate) const NOT_CONNECTED: &str = "not_connected";
    /// The network has no way out.
    pub(crate) const NETWORK_INTERNAL: &str = "network_internal";
    /// External endpoints cannot take part in the network: its frames are sealed.
    pub(crate) const NETWORK_SEALED: &str = "network_sealed";
    /// No address space came in time.
    pub(crate) const TIMEOUT: &str = "timeout";
    /// The device could not be made.
    pub(crate) const DEVICE_FAILED: &str = "device_failed";
    /// State could not be written.
    pub(crate) const STORE_FAILED: &str = "store_failed";
    /// This host has no open port that is called so, or several.
    pub(crate) const UNKNOWN_PORT: &str = "unknown_port";
    /// As many captures run as may.
    pub(crate) const TOO_MANY_CAPTURES: &str = "too_many_captures";
    /// The capture has ended.
    pub(crate) const NO_SUCH_CAPTURE: &str = "no_such_capture";
    /// A file could not be written.
    pub(crate) const WRITE_FAILED: &str = "write_failed";
    /// The secret is missing, unreadable or no secret.
    pub(crate) const SECRET_UNUSABLE: &str = "secret_unusable";
    /// Others than the daemon's user may know the secret.
    pub(crate) const SECRET_OPEN: &str = "secret_open";
    /// The cluster goes over to a secret that was given elsewhere at the same time.
    pub(crate) const ROTATION_SUPERSEDED: &str = "rotation_superseded";
    /// The list of allowed hosts cannot be used.
    pub(crate) const ALLOW_PEERS_UNUSABLE: &str = "allow_peers_unusable";
    /// The secret that was given is the one in use.
    pub(crate) const SECRET_IN_USE: &str = "secret_in_use";
    /// The secret that was given was in use before.
    pub(crate) const SECRET_RETIRED: &str = "secret_retired";
    /// This host was started just now, and does not know the others yet.
    pub(crate) const TOO_EARLY: &str = "too_early";
    /// The file for a new secret exists.
    pub(crate) const SECRET_EXISTS: &str = "secret_exists";
    /// The operating system gives no random numbers.
    pub(crate) const NO_RANDOM_NUMBERS: &str = "no_random_numbers";
    /// The demo could not be shown.
    pub(crate) const DEMO_FAILED: &str = "demo_failed";
    /// A bug or a broken host.
    pub(crate) const INTERNAL: &str = "internal";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_one_object() {
        let failure = Failure::new(code::NO_TUN, "no\ntun").hint("load it");
        assert_eq!(failure.to_string(), "no tun; load it");
        let json = r#"{"error":{"code":"no_tun","message":"no\ntun","hint":"load it"}}"#;
        assert_eq!(failure.json(), json);
        assert_eq!(serde_json::from_str::<FailureBody>(json).unwrap().error, failure);
        assert!(Failure::internal("x").json().contains(r#""hint":null"#));
    }

    /// The files of Rust below a directory of the workspace.
    fn sources(directory: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let of = |path: std::path::PathBuf| match path.is_dir() {
            true => sources(&path),
            false => vec![std::fs::read_to_string(path).unwrap()],
        };
        entries.flat_map(of).collect()
    }

    #[test]
    fn every_event_is_documented() {
        let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let docs = include_str!("../../docs/cli.md").split("## Events").nth(1).unwrap();
        let docs = docs.split("\n## ").next().unwrap();
        let mut kinds = 0;
        for source in ["peering/src", "cli/src"].iter().flat_map(|part| sources(&workspace.join(part))) {
            let source: String = source.split_whitespace().collect();
            // The calls that make events, without spaces; those of these tests have none.
            for call in [
                "self.note(\"",
                "self.tell(\"",
                "daemon.tell(\"",
                "IpamOutput::Notice{kind:\"",
                "warnings.push((\"",
                "store.warn(\"",
            ] {
                for kind in source.split(call).skip(1).filter_map(|rest| rest.split('"').next()) {
                    assert!(docs.contains(&format!("`{kind}`")), "{kind} is missing in docs/cli.md");
                    kinds += 1;
                }
            }
        }
        assert!(kinds > 15, "only {kinds} were found");
    }

    #[test]
    fn every_code_is_documented() {
        let source = include_str!("failure.rs");
        let docs = include_str!("../../docs/cli.md");
        let codes =
            source.lines().filter_map(|l| l.trim().strip_prefix("pub(crate) const ")?.split('"').nth(1));
        for code in codes {
            assert!(docs.contains(&format!("`{code}`")), "{code} is missing in docs/cli.md");
        }
    }
}
