//! The daemon holds no more rights than its work needs, and shows nobody what is its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use netns_tests::{
    Container, Host, Outcome, Process, Result, Tool, Topology, Value, anyhow, ensure, json, meshnet_binary,
    secs, wait_for,
};

/// CAP_DAC_READ_SEARCH (2), CAP_NET_ADMIN (12), CAP_SYS_PTRACE (19), CAP_SYS_ADMIN (21) (linux/capability.h).
const KEPT: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21;
/// CAP_NET_BIND_SERVICE.
const LOW_PORTS: u64 = 1 << 10;
/// A user and a group without any rights.
const NOBODY: [&str; 4] = ["--reuid", "65534", "--regid", "65534"];

/// Fails unless all threads of the daemon have exactly these capabilities, and can get no others.
fn holds(host: &Host, expected: u64) -> Result<usize> {
    let pid = host.daemon_pid().ok_or_else(|| anyhow!("no daemon"))?;
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        for (key, bits) in [
            ("CapPrm:", expected),
            ("CapEff:", expected),
            ("CapBnd:", expected),
            ("CapInh:", 0),
            ("CapAmb:", 0),
        ] {
            let found = u64::from_str_radix(value(key).unwrap_or_default(), 16)?;
            ensure!(found == bits, "{key} {found:x} instead of {bits:x}: {status}");
        }
        ensure!(value("NoNewPrivs:") == Some("1"), "{status}");
        threads += 1;
    }
    Ok(threads)
}

#[test]
fn every_thread_holds_what_the_page_lists_and_the_report_says_so() -> Result<()> {
    let net = Topology::new("capabilities")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    for host in net.all() {
        ensure!(holds(host, KEPT)? > 2, "workers were counted too");
    }
    let report = net.host(0).run_json(&["report"])?;
    let names = json!(["CAP_DAC_READ_SEARCH", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
    let expected = json!({"capabilities": names, "bounding": names, "no_new_privs": true, "dumpable": false});
    let told = report.pointer("/daemon/process/privileges");
    ensure!(told == Some(&expected), "{told:?}");
    // Taken up again by the next daemon, through the container's namespace.
    net.host(0).kill_dead()?;
    net.host(0).launch(&["node02"])?;
    web.ping(&db)?;
    holds(net.host(0), KEPT)?;
    net.host(0).detach(&web)
}

#[test]
fn ports_of_the_privileged_cost_one_capability_more() -> Result<()> {
    let net = Topology::new("low ports")?.hosts(1)?;
    net.host(0).launch(&["--port", "443", "--metrics-addr", "127.0.0.1:80"])?;
    holds(net.host(0), KEPT | LOW_PORTS)?;
    ensure!(
        net.host(0).namespace().http(([127, 0, 0, 1], 80).into(), "GET /metrics")?.contains("meshnet_ready")
    );
    Ok(())
}

/// A container of another user, as engines make them that do not run as root.
fn of_nobody(net: &Topology) -> Result<(Process, Container)> {
    let container = Container::named("nobodys")?;
    let process = net.host(0).tool("setpriv").args(NOBODY).args(["--clear-groups", "sleep", "1000"]);
    Ok((process.inside(container.namespace()).start()?, container))
}

#[test]
fn containers_of_other_users_are_attached_and_their_death_is_noticed() -> Result<()> {
    let net = Topology::new("containers of others")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let (process, container) = of_nobody(&net)?;
    // By its process alone.
    let pid = format!("pid:{}", process.pid());
    let address = host.run(&["attach", &pid])?;
    ensure!(address.starts_with("10."), "{address}");
    // The next daemon keeps the namespace open itself, and sees by others' processes whether it still has to.
    host.kill_dead()?;
    host.launch(&[])?;
    ensure!(!container.namespace().ports()?.is_empty(), "it was not taken up");
    container.kill()?;
    ensure!(host.ps()?.len() == 1, "its process still runs");
    drop(process);
    wait_for("the endpoint is gone", secs(5), || host.ps().is_ok_and(|rows| rows.is_empty())).map(drop)
}

#[test]
fn a_namespace_in_a_closed_directory_is_attached() -> Result<()> {
    let net = Topology::new("rootless containers")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let container = Container::new("rootless")?;
    let closed = net.directory().join("closed");
    fs::create_dir(&closed)?;
    let file = closed.join("ns");
    fs::write(&file, "")?;
    Tool::new("mount")
        .args(["--bind", &container.namespace().path().to_string_lossy(), &file.to_string_lossy()])
        .run()?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&closed, Some(65534), Some(65534))?;
    host.run(&["attach", &file.to_string_lossy(), "--name", "rootless"])?;
    ensure!(container.namespace().ports()?.len() == 1, "it has no port");
    Ok(())
}

/// Launches with these capabilities, and no way to more.
fn launch_with(host: &Host, capabilities: &str, more: &[&str]) -> Result<Outcome> {
    let launch = host.launch_command(more)?;
    launch.through(&["setpriv", "--bounding-set", capabilities, "--inh-caps", "-all"]).outcome()
}

#[test]
fn the_capabilities_of_the_unit_are_enough_and_missing_ones_are_told() -> Result<()> {
    let net = Topology::new("no more than the unit gives")?.hosts(1)?;
    let host = net.host(0);
    let said = launch_with(host, "-all,+sys_admin,+sys_ptrace,+dac_read_search", &[])?.fails_with(1)?;
    ensure!(said.contains("CAP_NET_ADMIN"), "{said}");
    let said = launch_with(host, "-sys_admin", &["-o", "json"])?.fails_with(1)?;
    ensure!(said.contains("CAP_SYS_ADMIN") && said.contains("\"not_permitted\""), "{said}");
    launch_with(host, "-all,+net_admin,+sys_admin,+sys_ptrace,+dac_read_search", &[])?.ok()?;
    holds(host, KEPT)?;
    let (_process, container) = of_nobody(&net)?;
    host.attach_with(&container, &[]).map(drop)
}

#[test]
fn a_crash_leaves_no_image_of_the_memory() -> Result<()> {
    let net = Topology::new("core dumps")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    let pid = host.daemon_pid().ok_or_else(|| anyhow!("no daemon"))?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    // That it is not dumpable at all, whatever is done to its limits, is in its report.
    let environ = format!("/proc/{pid}/environ");
    let look =
        |drop: &str| host.tool("setpriv").args(["--bounding-set", drop, "head", "-c1", &environ]).outcome();
    ensure!(look("-sys_ptrace,-perfmon,-sys_admin")?.stdout.is_empty(), "its memory is open");
    ensure!(!look("-chown")?.stdout.is_empty(), "this test would always pass");
    Ok(())
}

#[test]
fn files_are_closed_whatever_the_umask() -> Result<()> {
    let net = Topology::new("modes of files")?.hosts(2)?;
    for (host, umask) in net.all().iter().zip(["0000", "0077"]) {
        let launch = host.launch_command(&[])?;
        launch.through(&["sh", "-c", &format!("umask {umask} && exec \"$@\""), "sh"]).run()?;
        let _web = host.attach("web")?;
        let mode = |path: &Path| fs::metadata(path).map(|meta| meta.mode() & 0o7777);
        ensure!(mode(&host.run_dir())? == 0o755 && mode(&host.state_dir())? == 0o700, "umask {umask}");
        ensure!(mode(&host.run_dir().join("meshnet.sock"))? == 0o660, "umask {umask}");
        ensure!(mode(&host.run_dir().join("lock"))? == 0o640, "umask {umask}");
        let files: Vec<_> = fs::read_dir(host.state_dir())?.collect::<Result<_, _>>()?;
        ensure!(files.len() >= 5, "{files:?}");
        for file in files {
            ensure!(mode(&file.path())? == 0o600, "{} with umask {umask}", file.path().display());
        }
    }
    Ok(())
}

#[test]
fn what_lies_in_the_way_is_not_written_to() -> Result<()> {
    let net = Topology::new("links in the way")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&[])?;
    host.stop()?;
    let precious = net.directory().join("precious");
    fs::write(&precious, "precious")?;
    for name in ["state.new", "ports.new", "identity.new", "noise.new"] {
        symlink(&precious, host.state_dir().join(name))?;
    }
    host.launch(&[])?;
    let _web = host.attach("web")?;
    host.stop()?;
    let log = host.state_dir().join("meshnet.log");
    fs::remove_file(&log)?;
    symlink(&precious, &log)?;
    host.launch(&[])?;
    ensure!(host.run_dir().join("meshnet.log").exists(), "where is the log?");
    host.stop()?;
    let lock = host.run_dir().join("lock");
    symlink(&precious, &lock)?;
    host.try_launch(&[])?.fails_with(1)?;
    fs::remove_file(&lock)?;
    ensure!(fs::read_to_string(&precious)? == "precious", "it was written to");
    host.launch(&[])
}

#[test]
fn a_run_directory_of_others_is_refused() -> Result<()> {
    let net = Topology::new("run directories of others")?.hosts(1)?;
    let host = net.host(0);
    fs::create_dir(host.run_dir())?;
    let refused = || -> Result<()> {
        let said = host.try_launch(&["-o", "json"])?.fails_with(1)?;
        ensure!(said.contains("\"run_dir_open\""), "{said}");
        Ok(())
    };
    fs::set_permissions(host.run_dir(), fs::Permissions::from_mode(0o777))?;
    refused()?;
    fs::set_permissions(host.run_dir(), fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::chown(host.run_dir(), Some(65534), None)?;
    refused()?;
    std::os::unix::fs::chown(host.run_dir(), Some(0), None)?;
    host.launch(&[])
}

/// Runs `ps` on a host as another user, in these groups.
fn ps_as_nobody(net: &Topology, groups: &[&str]) -> Result<Outcome> {
    let binary = net.directory().join("meshnet");
    if !binary.exists() {
        // Where anybody may execute it.
        fs::copy(meshnet_binary()?, &binary)?;
        fs::set_permissions(net.directory(), fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(net.host(0).directory(), fs::Permissions::from_mode(0o755))?;
    }
    let run = net.host(0).run_dir().display().to_string();
    let tool = net.host(0).tool("setpriv").args(NOBODY).args(groups.iter().copied());
    tool.args([&*binary.to_string_lossy(), "ps", "-o", "json", "--run-dir", &run]).outcome()
}

#[test]
fn the_group_uses_the_daemon_and_others_do_not() -> Result<()> {
    let net = Topology::new("the group of the socket")?.hosts(1)?;
    let host = net.host(0);
    let said = host.try_launch(&["--group", "no-such-group", "-o", "json"])?.fails_with(1)?;
    ensure!(said.contains("\"unknown_group\""), "{said}");
    host.launch(&["--group", "4711"])?;
    holds(host, KEPT)?;
    ensure!(fs::metadata(host.run_dir().join("meshnet.sock"))?.gid() == 4711, "whose is the socket?");
    let rows: Value = serde_json_of(&ps_as_nobody(&net, &["--groups", "4711"])?.ok()?)?;
    ensure!(rows == json!([]), "{rows}");
    let said = ps_as_nobody(&net, &["--clear-groups"])?.fails_with(1)?;
    ensure!(said.contains("\"not_permitted\"") && said.contains("may not open"), "the kernel: {said}");
    // The daemon itself asks too, and for the group that the socket has now.
    let socket = host.run_dir().join("meshnet.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    let said = ps_as_nobody(&net, &["--clear-groups"])?.fails_with(1)?;
    ensure!(said.contains("\"not_permitted\"") && said.contains("user 65534"), "the daemon: {said}");
    ps_as_nobody(&net, &["--groups", "4000,4711"])?.ok()?;
    std::os::unix::fs::chown(&socket, None, Some(4712))?;
    ps_as_nobody(&net, &["--groups", "4711"])?.fails_with(1)?;
    ps_as_nobody(&net, &["--groups", "4712"])?.ok()?;
    // The group that a process has first.
    std::os::unix::fs::chown(&socket, None, Some(65534))?;
    ps_as_nobody(&net, &["--clear-groups"])?.ok().map(drop)
}

fn serde_json_of(text: &str) -> Result<Value> {
    text.parse().map_err(|error| anyhow!("{text:?}: {error}"))
}
