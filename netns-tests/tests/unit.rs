//! The unit in `dist/`: systemd takes it, and the daemon needs nothing that it forbids.

use std::collections::BTreeSet;
use std::path::PathBuf;

use netns_tests::{Result, Tool, Topology, anyhow, ensure, meshnet_binary, secs};

const UNIT: &str = include_str!("../../dist/meshnet.service");

/// What `systemd-analyze security` may count at most, in tenths: 100 is a service without any sandbox.
const EXPOSURE: &str = "40";

/// The unit as it would be installed, but for the place of the program.
fn installed(net: &Topology) -> Result<PathBuf> {
    let path = net.directory().join("meshnet.service");
    let binary = meshnet_binary()?.canonicalize()?;
    ensure!(UNIT.contains("/usr/local/bin/meshnet"), "the program has another place");
    std::fs::write(&path, UNIT.replace("/usr/local/bin/meshnet", &binary.to_string_lossy()))?;
    Ok(path)
}

fn analyze(args: &[&str]) -> Tool {
    // Whoever runs the tests may have units and a pager of its own.
    Tool::new("systemd-analyze").args(args).env("SYSTEMD_PAGER", "cat").env("SYSTEMD_COLORS", "0")
}

#[test]
fn systemd_finds_no_fault_in_it() -> Result<()> {
    let net = Topology::new("the unit")?.hosts(1)?;
    let path = installed(&net)?;
    let verified = analyze(&["verify", &path.to_string_lossy()]).outcome()?;
    ensure!(verified.code == Some(0) && verified.stderr.is_empty(), "{verified:?}");
    let threshold = format!("--threshold={EXPOSURE}");
    analyze(&["security", "--offline=true", "--no-pager", &threshold, &path.to_string_lossy()]).run()?;
    Ok(())
}

/// The system calls of a group of systemd, with those of the groups in it.
fn group(name: &str, calls: &mut BTreeSet<String>) -> Result<()> {
    for line in analyze(&["syscall-filter", name]).run()?.lines().skip(1).map(str::trim) {
        match line {
            "" => {}
            comment if comment.starts_with('#') => {}
            inner if inner.starts_with('@') => group(inner, calls)?,
            call => _ = calls.insert(call.to_owned()),
        }
    }
    Ok(())
}

/// What the filter of the unit lets through.
fn allowed() -> Result<BTreeSet<String>> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("SystemCallFilter="));
    let mut calls = BTreeSet::new();
    for word in line.ok_or_else(|| anyhow!("the unit has no filter"))?.split(' ') {
        match word.starts_with('@') {
            true => group(word, &mut calls)?,
            false => _ = calls.insert(word.to_owned()),
        }
    }
    Ok(calls)
}

/// The names in the summary of `strace -c`, the last word of each line between the rules.
fn called(summary: &str) -> BTreeSet<String> {
    let rows = summary.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    let rows = rows.take_while(|line| !line.starts_with("---"));
    rows.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn the_daemon_makes_no_system_call_that_it_forbids() -> Result<()> {
    let net = Topology::new("system calls of the daemon")?.hosts(2)?;
    let (host, file) = (net.host(0), net.directory().join("calls"));
    let strace = ["strace", "--follow-forks", "--summary-only", "-qq", "-o", &*file.to_string_lossy()];
    let daemon = host
        .launch_command(&["--foreground", "--metrics-addr", "127.0.0.1:9100"])?
        .through(&strace)
        .start()?;
    host.wait("ready", secs(30))?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = (host.attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    host.namespace().http(([127, 0, 0, 1], 9100).into(), "GET /metrics")?;
    host.run(&["report"])?;
    host.detach(&web)?;
    let _again = host.attach("again")?;
    host.stop()?;
    daemon.wait(secs(20))?.ok()?;

    let (allowed, called) = (allowed()?, called(&std::fs::read_to_string(&file)?));
    ensure!(called.contains("setns") && called.contains("bpf") && called.len() > 40, "{called:?}");
    let forbidden: Vec<_> = called.difference(&allowed).collect();
    ensure!(forbidden.is_empty(), "the unit forbids {forbidden:?}");
    ensure!(!allowed.contains("mount") && !allowed.contains("ptrace"), "the filter is none");
    Ok(())
}
