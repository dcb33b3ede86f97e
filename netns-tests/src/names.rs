//! Names that are unique on the machine and tell whose they are.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What every namespace and directory of these tests starts with.
pub(crate) const PREFIX: &str = "mn";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A new name of this process: `mn-<pid>-<count><random>`.
pub(crate) fn unique() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Every `RandomState` has its own random keys.
    let random = RandomState::new().hash_one(count) & 0xffff;
    format!("{PREFIX}-{}-{count:x}{random:04x}", std::process::id())
}

/// The process id in a name made by [`unique`] (or in one that continues it).
pub(crate) fn maker(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    if parts.next()? != PREFIX {
        return None;
    }
    parts.next()?.parse().ok()
}

/// True when the maker of `name` is known and no longer runs.
pub(crate) fn is_orphan(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Where `ip netns` keeps its names.
pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_maker() {
        let name = unique();
        assert_eq!(maker(&name), Some(std::process::id()));
        assert_eq!(maker(&format!("{name}-node01")), Some(std::process::id()));
        assert_ne!(name, unique());
        assert!(!is_orphan(&name));
        assert!(is_orphan("mn-4194305-0abcd"));
        assert!(!is_orphan("web"));
        assert!(!is_orphan("mn-web"));
    }
}
