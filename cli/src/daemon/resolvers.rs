//! The containers of this host whose resolv.conf(5) names our gateway, on disk before the file is touched.

use std::path::Path;

use peering::io::{Contents, StateFile, StoreError};
use serde::{Deserialize, Serialize};

use super::ports::{Lost, Source};
use crate::resolver::plan::Pointed;

/// Name of the file in the state directory.
const FILE: &str = "resolvers";
/// Version of its format.
const VERSION: u32 = 1;

/// The file of one container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The container.
    pub(super) source: Source,
    /// What was there, and what is there now.
    pub(super) pointed: Pointed,
}

/// All of them, in memory and on disk.
#[derive(Debug)]
pub(super) struct Resolvers {
    file: StateFile,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    resolvers: Vec<Entry>,
}

impl Resolvers {
    /// Reads those in `state_dir`, whose lock must be held. A file that cannot be understood is set aside.
    pub(super) fn load(state_dir: &Path) -> Result<(Self, Option<Lost>), StoreError> {
        let file = StateFile::new(state_dir, FILE);
        let reason = match file.read()? {
            Contents::Absent => return Ok((Resolvers { file, entries: Vec::new() }, None)),
            Contents::Damaged(reason) => reason,
            Contents::Whole(text) => match parse(&text) {
                Some(entries) => return Ok((Resolvers { file, entries }, None)),
                None => "it is no list of resolvers".to_owned(),
            },
        };
        let kept = match file.set_aside() {
            Ok(aside) => format!("it is kept as {}", aside.display()),
            Err(error) => error.to_string(),
        };
        let message = format!(
            "what containers had in resolv.conf, in {}, is damaged ({reason}): {kept}",
            file.path().display()
        );
        Ok((Resolvers { file, entries: Vec::new() }, Some(Lost { message })))
    }

    /// The file of a container.
    pub(super) fn get(&self, source: &Source) -> Option<&Pointed> {
        self.entries.iter().find(|entry| entry.source == *source).map(|entry| &entry.pointed)
    }

    /// All containers.
    pub(super) fn sources(&self) -> Vec<Source> {
        self.entries.iter().map(|entry| entry.source.clone()).collect()
    }

    /// Adds or replaces the file of a container, on disk first.
    pub(super) fn put(&mut self, source: &Source, pointed: Pointed) -> Result<(), StoreError> {
        let mut next = self.entries.clone();
        next.retain(|entry| entry.source != *source);
        next.push(Entry { source: source.clone(), pointed });
        self.write(&next)?;
        self.entries = next;
        Ok(())
    }

    /// Strikes the file of a container out, whatever the disk says.
    pub(super) fn remove(&mut self, source: &Source) -> Result<(), StoreError> {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.source != *source);
        if self.entries.len() == before { Ok(()) } else { self.write(&self.entries) }
    }

    fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let stored = Stored { version: VERSION, resolvers: entries.to_vec() };
        // Texts and numbers always have a form in JSON.
        self.file.replace(&serde_json::to_vec(&stored).unwrap_or_default())
    }
}

fn parse(text: &[u8]) -> Option<Vec<Entry>> {
    let stored: Stored = serde_json::from_slice(text).ok()?;
    (stored.version == VERSION).then_some(stored.resolvers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::plan::Phase;

    fn pointed(former: Option<&str>) -> Pointed {
        let former = former.map(str::to_owned);
        Pointed { former, written: "nameserver 10.32.0.1\n".to_owned(), phase: Phase::Written }
    }

    #[test]
    fn what_was_there_outlives_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (blue, docker) =
            (Source::File { path: "/run/netns/blue".into() }, Source::Docker { id: "c0ffee".into() });
        let (mut resolvers, lost) = Resolvers::load(dir.path()).unwrap();
        assert!(lost.is_none());
        resolvers.put(&blue, pointed(None)).unwrap();
        resolvers.put(&docker, pointed(Some("nameserver 127.0.0.11\n"))).unwrap();
        resolvers.put(&blue, Pointed { phase: Phase::Writing, ..pointed(None) }).unwrap();
        let (mut again, _) = Resolvers::load(dir.path()).unwrap();
        assert_eq!(again.get(&blue).map(|p| p.phase), Some(Phase::Writing));
        assert_eq!(again.get(&docker), Some(&pointed(Some("nameserver 127.0.0.11\n"))));
        again.remove(&blue).unwrap();
        again.remove(&blue).unwrap();
        let (again, _) = Resolvers::load(dir.path()).unwrap();
        assert_eq!(again.sources(), [docker]);
    }

    #[test]
    fn a_damaged_list_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        StateFile::new(dir.path(), FILE).replace(b"{\"version\":2,\"resolvers\":[]}").unwrap();
        let (resolvers, lost) = Resolvers::load(dir.path()).unwrap();
        assert!(resolvers.sources().is_empty());
        assert!(lost.unwrap().message.contains("resolvers.corrupt-"));
    }
}
