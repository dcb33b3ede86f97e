//! Network namespaces on a real kernel: naming, finding, entering, and the errors.

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests use processes and files")]

mod devices_support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use devices_support::{Container, namespace};
use engine::io::netlink::Netlink;
use engine::io::netns::{Netns, NetnsError};
use engine::io::tap::{Tap, TapError};
use engine::io::watch::Watcher;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[test]
fn a_process_leads_to_its_namespace() {
    let netns = namespace();
    assert_ne!(netns, Netns::current().unwrap());
    let container = Container::start(&netns);
    let (id, pid) = (netns.id(), container.pid());
    drop(netns);
    let found = Netns::of_pid(pid).unwrap();
    assert_eq!(found.id(), id);
    assert!(Netns::all().contains(&found));
    assert_eq!(Netns::find(id), Some(found.clone()));
    assert_eq!(found.run(|| Netns::current().unwrap()).unwrap(), found);
    assert_ne!(Netns::current().unwrap(), found, "the caller stays where it was");
}

#[test]
fn only_namespaces_are_entered() {
    let not_found = |path: &str| matches!(Netns::open(Path::new(path)), Err(NetnsError::NotFound { .. }));
    assert!(not_found("/run/netns/no-such-namespace-here"));
    assert!(not_found("/etc/passwd/x"));
    assert!(not_found(""));
    for foreign in
        ["/etc/passwd", "/", "/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/user", "/proc/self/status"]
    {
        let e = Netns::open(Path::new(foreign)).unwrap_err();
        assert!(matches!(e, NetnsError::NotNetns { .. }), "{e}");
        assert_eq!(e.to_string(), format!("{foreign} is not a network namespace"));
    }
    for name in ["", "no-such-namespace-here", "../../proc/self/ns/net", ".."] {
        assert!(matches!(Netns::named(name), Err(NetnsError::NotFound { .. })), "{name}");
    }
}

#[test]
fn a_dead_process_is_named() {
    let mut child = Command::new("true").stdout(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    devices_support::eventually("a zombie", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tZ")
    });
    let zombie = Netns::of_pid(pid);
    assert!(matches!(zombie, Err(NetnsError::DeadPid { pid: p }) if p == pid), "{zombie:?}");
    child.wait().unwrap();
    for gone in [pid, 0, u32::MAX] {
        let e = Netns::of_pid(gone).unwrap_err();
        assert_eq!(e.to_string(), format!("process {gone} does not run"));
    }
}

#[test]
fn a_named_namespace_lives_by_its_mount() {
    let inner = Netns::create().unwrap();
    // A mount namespace of its own, so that nothing is seen or left outside.
    inner
        .run(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
            std::fs::create_dir_all("/run/netns").unwrap();
            for place in ["/run/netns/blue", "/run/a place"] {
                std::fs::write(place, "").unwrap();
            }
            let id = {
                let netns = Netns::create().unwrap();
                let file = netns.run(|| {
                    mount(Some("/proc/thread-self/ns/net"), "/run/netns/blue", none, MsFlags::MS_BIND, none)
                });
                file.unwrap().unwrap();
                netns.id()
            };
            assert_eq!(Netns::named("blue").unwrap().id(), id);
            assert_eq!(Netns::find(id).unwrap().id(), id);
            assert!(Netns::all().iter().any(|netns| netns.id() == id));
            let (tell, told) = mpsc::channel();
            let watcher = Watcher::start(move |id| tell.send(id).unwrap()).unwrap();
            watcher.add(id);
            // A second mount elsewhere takes over from the first.
            mount(Some("/run/netns/blue"), "/run/a place", none, MsFlags::MS_BIND, none).unwrap();
            umount2("/run/netns/blue", MntFlags::MNT_DETACH).unwrap();
            assert!(matches!(Netns::named("blue"), Err(NetnsError::NotNetns { .. })));
            assert!(told.recv_timeout(Duration::from_millis(600)).is_err());
            assert_eq!(Netns::find(id).unwrap().id(), id);
            umount2("/run/a place", MntFlags::MNT_DETACH).unwrap();
            assert_eq!(told.recv_timeout(Duration::from_secs(1)), Ok(id));
        })
        .unwrap();
}

#[test]
fn a_panic_inside_goes_on_outside() {
    let netns = namespace();
    let panic = std::panic::catch_unwind(|| netns.run(|| panic!("inside"))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"inside"));
}

/// Runs again as another user, by [`without_root_the_errors_say_so`].
#[test]
fn as_nobody() {
    if std::env::var_os("AS_NOBODY").is_none() {
        return;
    }
    let permission = |result: Result<Netns, NetnsError>| {
        let e = result.unwrap_err();
        assert!(matches!(&e, NetnsError::Permission { .. }), "{e}");
        assert!(e.to_string().ends_with("root is needed"), "{e}");
    };
    permission(Netns::create());
    permission(Netns::of_pid(1));
    permission(Netns::current().and_then(|netns| netns.run(|| netns.clone())));
    let e = Tap::create("x", false).unwrap_err();
    assert!(matches!(e, TapError::Permission { .. }), "{e}");
    let netlink = Netlink::open().unwrap();
    let e = netlink.add_bridge("x").unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EPERM));
}

#[test]
fn without_root_the_errors_say_so() {
    let dir = std::env::temp_dir().join(format!("meshnet-nobody-{}", std::process::id()));
    // A copy, because the way to this program may be closed to others.
    std::fs::copy(std::env::current_exe().unwrap(), &dir).unwrap();
    let mut child = Command::new(&dir);
    child.args(["--exact", "as_nobody"]).env("AS_NOBODY", "1").uid(65_534).gid(65_534);
    let output = child.output();
    std::fs::remove_file(&dir).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
