//! The file of the only hosts to talk to.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the shell: files")]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use engine::types::PeerId;
use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;

use crate::failure::{Failure, code};

/// What others may not do with the file: whoever writes it decides who is let in.
const WRITABLE: u32 = 0o022;
/// More than enough for any cluster.
const LONGEST_BYTES: u64 = 1 << 20;

/// The peer ids in a file: one on each line; what follows a `#` is for people.
///
/// # Errors
/// The file cannot be read, others may write it, or a line is no peer id.
pub(crate) fn load(path: &Path) -> Result<BTreeSet<PeerId>, Failure> {
    let shown = path.display();
    let failed = |e: io::Error| unusable(format!("{shown} cannot be read: {e}"));
    // A pipe without a writer must not hold the launch up.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unusable(format!("{shown} is no file")));
    }
    if meta.mode() & WRITABLE != 0 || meta.uid() != geteuid().as_raw() {
        return Err(unusable(format!("others may write {shown}, and so decide who is let in"))
            .hint("`chown root` and `chmod 644` it"));
    }
    let mut text = String::new();
    file.take(LONGEST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST_BYTES {
        // Whoever stands behind that would be kept out without a word.
        return Err(unusable(format!("{shown} is longer than {LONGEST_BYTES} bytes")));
    }
    parse(&text).map_err(|line| {
        unusable(format!("line {line} of {shown} is no peer id"))
            .hint("`meshnet status` shows the id of a host")
    })
}

/// Fails with the number of a line that is wrong.
fn parse(text: &str) -> Result<BTreeSet<PeerId>, usize> {
    let mut peers = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if !word.is_empty() {
            peers.insert(word.parse().map_err(|_| number + 1)?);
        }
    }
    Ok(peers)
}

fn unusable(message: String) -> Failure {
    Failure::new(code::ALLOW_PEERS_UNUSABLE, message)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_line_is_a_peer_id_and_words_for_people() {
        let text =
            format!("# who may join\n{}  # node01\n\n{}\n", "0a".repeat(16), "0B".repeat(16).to_lowercase());
        assert_eq!(parse(&text), Ok([PeerId([10; 16]), PeerId([11; 16])].into()));
        assert_eq!(parse("# nobody"), Ok(BTreeSet::new()));
        assert_eq!(parse("\nnode01"), Err(2));
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers");
        std::fs::write(&path, "0a".repeat(16)).unwrap();
        for (mode, good) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(load(&path).is_ok(), good, "{mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "# nobody\n".repeat(200_000)).unwrap();
        assert_eq!(load(&path).unwrap_err().code, code::ALLOW_PEERS_UNUSABLE, "too long");
        assert_eq!(load(&dir.path().join("none")).unwrap_err().code, code::ALLOW_PEERS_UNUSABLE);
    }
}
