//! What becomes of a container's resolv.conf(5): pointed at our gateway, pointed again, put back, or left to whoever
//! changed it.
//!
//! What will be written is written down first, so that whoever comes after a crash knows what was there and goes on.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::conf::{pointed, servers};

/// How far a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// About to be written, or written in part.
    Writing,
    /// Written.
    Written,
    /// About to be put back, or put back in part.
    Restoring,
}

/// A file that names our gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Pointed {
    /// What was there before; null: no file was.
    pub(crate) former: Option<String>,
    /// What is there from us.
    pub(crate) written: String,
    pub(crate) phase: Phase,
}

/// What a container's file shall say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    /// Of the first network of the container.
    pub(crate) gateway: IpAddr,
    /// All its networks, in the order in which it was attached.
    pub(crate) networks: Vec<String>,
}

/// What is to be done with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It is as it shall be, or it is not ours to change.
    Nothing,
    /// It is somebody else's now: nothing of it is remembered.
    Forget,
    /// This is to be written down, then the file is to be written.
    Write(Pointed),
    /// This is to be written down, then the file is to be put back, then nothing of it is remembered.
    Restore(Pointed),
}

impl Pointed {
    /// The name servers that the container had.
    pub(crate) fn former_servers(&self) -> Vec<IpAddr> {
        self.former.as_deref().map(servers).unwrap_or_default()
    }

    /// Written, as far as anybody can tell.
    pub(crate) fn done(self) -> Self {
        Pointed { phase: Phase::Written, ..self }
    }

    /// True when the file says what was written, or something between that and what was there.
    fn is_ours(&self, content: Option<&str>) -> bool {
        self.phase != Phase::Written || content == Some(self.written.as_str())
    }
}

/// Decides what to do with a file that says `content`, if it is there. `base` stands for what a new file is made of; `again`:
/// who changed it meanwhile has no better right to it.
pub(crate) fn step(
    known: Option<&Pointed>,
    content: Option<&str>,
    wish: Option<&Wish>,
    (base, again): (&str, bool),
) -> Step {
    let former = match (known, wish) {
        (None, None) => return Step::Nothing,
        (Some(known), None) if known.is_ours(content) => {
            return Step::Restore(Pointed { phase: Phase::Restoring, ..known.clone() });
        }
        (Some(_), None) => return Step::Forget,
        (Some(known), Some(_)) if known.is_ours(content) => known.former.clone(),
        (Some(_), Some(_)) if !again => return Step::Nothing,
        (_, Some(_)) => content.map(str::to_owned),
    };
    let Some(Wish { gateway, networks }) = wish else { return Step::Nothing };
    let written = pointed(former.as_deref().unwrap_or(base), *gateway, networks);
    let next = Pointed { former, written, phase: Phase::Writing };
    match known {
        Some(known)
            if known.phase == Phase::Written
                && known.written == next.written
                && content == Some(&next.written) =>
        {
            Step::Nothing
        }
        _ => Step::Write(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMER: &str = "search a.example\nnameserver 192.0.2.53\n";

    fn wish(networks: &[&str]) -> Wish {
        let networks = networks.iter().map(|name| (*name).to_owned()).collect();
        Wish { gateway: [10, 32, 0, 1].into(), networks }
    }

    fn write(step: Step) -> Pointed {
        match step {
            Step::Write(pointed) => pointed,
            other => panic!("{other:?}"),
        }
    }

    fn first() -> Pointed {
        write(step(None, Some(FORMER), Some(&wish(&["mesh"])), ("", false))).done()
    }

    #[test]
    fn a_file_is_pointed_once_and_put_back() {
        let known = first();
        assert_eq!(known.former.as_deref(), Some(FORMER));
        assert_eq!(known.former_servers(), [IpAddr::from([192, 0, 2, 53])]);
        let again = step(Some(&known), Some(&known.written), Some(&wish(&["mesh"])), ("", true));
        assert_eq!(again, Step::Nothing);
        let back = step(Some(&known), Some(&known.written), None, ("", false));
        assert_eq!(back, Step::Restore(Pointed { phase: Phase::Restoring, ..known }));
        assert_eq!(step(None, Some(FORMER), None, ("", false)), Step::Nothing);
    }

    #[test]
    fn another_network_is_searched_too() {
        let known = first();
        let next =
            write(step(Some(&known), Some(&known.written), Some(&wish(&["mesh", "blue"])), ("", false)));
        assert!(next.written.contains("search mesh.mesh.internal blue.mesh.internal a.example\n"));
        assert_eq!(next.former.as_deref(), Some(FORMER), "it is made of what was there at first");
    }

    #[test]
    fn what_others_wrote_is_theirs_unless_it_is_pointed_again() {
        let (known, theirs) = (first(), "nameserver 127.0.0.11\n");
        assert_eq!(step(Some(&known), Some(theirs), None, ("", false)), Step::Forget);
        assert_eq!(step(Some(&known), None, None, ("", false)), Step::Forget);
        assert_eq!(step(Some(&known), Some(theirs), Some(&wish(&["mesh"])), ("", false)), Step::Nothing);
        let next = write(step(Some(&known), Some(theirs), Some(&wish(&["mesh"])), ("", true)));
        assert_eq!(next.former.as_deref(), Some(theirs));
    }

    #[test]
    fn a_crash_between_loses_nothing() {
        // Written in part: it is written again, and made of what was there.
        let half = Pointed { phase: Phase::Writing, ..first() };
        let next = write(step(Some(&half), Some("# Writ"), Some(&wish(&["mesh"])), ("", false)));
        assert_eq!(next, half);
        // Also when all of it had been written.
        assert_eq!(write(step(Some(&half), Some(&half.written), Some(&wish(&["mesh"])), ("", false))), half);
        // Put back in part: it is put back, or pointed after all.
        let half = Pointed { phase: Phase::Restoring, ..first() };
        assert_eq!(step(Some(&half), Some("search a.ex"), None, ("", false)), Step::Restore(half.clone()));
        let next = write(step(Some(&half), Some("search a.ex"), Some(&wish(&["mesh"])), ("", false)));
        assert_eq!(next.former.as_deref(), Some(FORMER));
    }

    #[test]
    fn a_file_that_was_not_there_is_made_of_the_hosts() {
        let known = write(step(None, None, Some(&wish(&["mesh"])), (FORMER, false)));
        assert_eq!(known.former, None);
        assert!(known.written.contains("search mesh.mesh.internal a.example\n"));
        assert!(known.former_servers().is_empty());
    }
}
