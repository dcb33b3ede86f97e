//! What the daemon may do: no more than its work needs, from before its second thread on, and for good.

use std::fs;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, getegid, getgroups, setgroups};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use crate::args::LaunchArgs;
use crate::failure::{Failure, code};
use crate::shape::Privileges;

/// Without these there are no devices and no way into a container.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_ADMIN);
/// What the daemon keeps. docs/security.md says what for; the unit in dist/ has the same list.
const KEPT: CapabilitySet = NEEDED.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::DAC_READ_SEARCH);
/// Ports below this one are for the privileged (ip(7)).
const FIRST_FREE_PORT: u16 = 1024;
const NOTHING: CapabilitySet = CapabilitySet::empty();

/// Gives up everything else, and returns the group that may use the daemon. Capabilities belong to threads and are
/// inherited by those that they start: the caller is the only one.
pub(crate) fn give_up(launch: &LaunchArgs) -> Result<Option<Gid>, Failure> {
    umask(Mode::from_bits_truncate(0o077));
    let group = launch.group.as_deref().map(group).transpose()?;
    join(group)?;
    let had = capabilities(None).map_err(refused)?.permitted;
    let wanted = wanted(launch);
    let lacking = wanted.difference(had);
    if lacking.intersects(NEEDED) {
        let message = format!("the daemon lacks {}", names(lacking).join(" and "));
        return Err(Failure::new(code::NOT_PERMITTED, message)
            .hint("run it as root with the capabilities that docs/security.md lists"));
    }
    if !lacking.is_empty() {
        tracing::warn!("without {} not every container can be found", names(lacking).join(" and "));
    }
    narrow(wanted.intersection(had)).map_err(refused)?;
    hide_memory()?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
    Ok(group)
}

/// Nobody without rights of their own looks into this process from now on, and it leaves no core dump (prctl(2)).
pub(crate) fn hide_memory() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)
}

fn group(name: &str) -> Result<Gid, Failure> {
    let number = name.parse().ok().map(Gid::from_raw);
    let named = || Group::from_name(name).ok().flatten().map(|group| group.gid);
    number.or_else(named).ok_or_else(|| {
        Failure::new(code::UNKNOWN_GROUP, format!("there is no group {name}"))
            .hint("make it with `groupadd --system`, or choose another with --group")
    })
}

/// Becomes a member of this group alone: members may give it their files without being privileged (chown(2)).
fn join(group: Option<Gid>) -> Result<(), Failure> {
    match (setgroups(group.as_slice()), group) {
        (Ok(()), _) | (Err(_), None) => Ok(()),
        (Err(_), Some(group)) if getegid() == group => Ok(()),
        (Err(_), Some(group)) if getgroups().is_ok_and(|groups| groups.contains(&group)) => Ok(()),
        (Err(error), Some(group)) => {
            let message = format!("the daemon cannot become a member of group {group}: {error}");
            Err(Failure::new(code::NOT_PERMITTED, message)
                .hint("under systemd, set SupplementaryGroups= too"))
        }
    }
}

fn wanted(launch: &LaunchArgs) -> CapabilitySet {
    let metrics = launch.metrics_addr.map(|addr| addr.port());
    let mut ports = [launch.port, launch.data_port].into_iter().chain(metrics);
    match ports.any(|port| port != 0 && port < FIRST_FREE_PORT) {
        true => KEPT | CapabilitySet::NET_BIND_SERVICE,
        false => KEPT,
    }
}

fn narrow(kept: CapabilitySet) -> Result<(), Errno> {
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: NOTHING })?;
    set_no_new_privs(true)
}

fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

fn refused(error: impl std::error::Error) -> Failure {
    Failure::new(code::START_FAILED, format!("the daemon cannot give up what it does not need: {error}"))
}

/// What the threads of this process may do, all taken together (proc(5), `status`).
pub(super) fn held() -> Privileges {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads: Vec<String> =
        tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok()).collect();
    let together = |keys: &[&str]| {
        let sets = threads.iter().flat_map(|status| keys.iter().map(|key| set(status, key)));
        names(sets.fold(NOTHING, CapabilitySet::union))
    };
    Privileges {
        capabilities: together(&["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"]),
        bounding: together(&["CapBnd:"]),
        no_new_privs: threads.iter().all(|status| value(status, "NoNewPrivs:") == Some("1")),
        dumpable: dumpable_behavior() != Ok(DumpableBehavior::NotDumpable),
    }
}

fn set(status: &str, key: &str) -> CapabilitySet {
    let bits = value(status, key).and_then(|text| u64::from_str_radix(text, 16).ok());
    // What cannot be read is not claimed to be little.
    bits.map_or(CapabilitySet::all(), CapabilitySet::from_bits_retain)
}

fn value<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn launch(words: &str) -> LaunchArgs {
        match Cli::try_parse_from(words.split(' ')).unwrap().command {
            Command::Launch(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn low_ports_need_one_capability_more() {
        let more = |words: &str| wanted(&launch(words)).difference(KEPT);
        assert_eq!(more("meshnet launch --metrics-addr 127.0.0.1:9100"), NOTHING);
        assert_eq!(more("meshnet launch --port 443"), CapabilitySet::NET_BIND_SERVICE);
        assert_eq!(more("meshnet launch --metrics-addr 127.0.0.1:80"), CapabilitySet::NET_BIND_SERVICE);
    }

    /// `CapabilityBoundingSet=` of the unit, the table of docs/security.md and the code say the same.
    #[test]
    fn unit_and_page_list_what_is_kept() {
        let unit = include_str!("../../../dist/meshnet.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let mut listed: Vec<_> = line.split(' ').map(str::to_owned).collect();
        listed.sort();
        let mut kept = names(KEPT);
        kept.sort();
        assert_eq!(listed, kept);
        let page = include_str!("../../../docs/security.md");
        for (name, _) in CapabilitySet::all().iter_names() {
            let row = page.contains(&format!("| `CAP_{name}` |"));
            let is_kept =
                wanted(&launch("meshnet launch --port 80")).contains(CapabilitySet::from_name(name).unwrap());
            assert_eq!(row, is_kept, "CAP_{name}");
        }
    }

    #[test]
    fn a_group_is_a_name_or_a_number() {
        assert_eq!(group("root").unwrap().as_raw(), 0);
        assert_eq!(group("4711").unwrap().as_raw(), 4711);
        assert_eq!(group("no-such-group").unwrap_err().code, code::UNKNOWN_GROUP);
    }
}
