//! A daemon that cannot start says why, by whose fault and what to do; what a crash left never stops it.

use std::os::unix::fs::PermissionsExt;

use netns_tests::{Host, Outcome, Result, Tool, Topology, ensure, meshnet_binary, secs, wait_for};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::ReusePort,
};

fn hosts() -> Result<Topology> {
    Topology::new("start")?.hosts(2)
}

/// Fails unless the launch failed with one line that has all of `words`, and left nothing running.
fn refused(host: &Host, outcome: Outcome, words: &[&str]) -> Result<()> {
    let line = outcome.fails_with(1)?;
    ensure!(line.trim_end().lines().count() == 1, "not one line: {line}");
    for word in words {
        ensure!(line.contains(word), "{word:?} is not in: {line}");
    }
    host.wait_gone(secs(5)).map(drop)
}

#[test]
fn a_data_port_that_is_taken() -> Result<()> {
    let net = hosts()?;
    let holder = net.host(0).namespace().hold_port(4789)?;
    refused(net.host(0), net.host(0).try_launch(&[])?, &["4789", &std::process::id().to_string()])?;
    drop(holder);
    net.host(0).launch(&[])
}

#[test]
fn a_control_port_that_is_taken() -> Result<()> {
    let net = hosts()?;
    let holder = net.host(0).namespace().hold_port(6783)?;
    refused(net.host(0), net.host(0).try_launch(&[])?, &["6783", &std::process::id().to_string()])?;
    net.host(0).launch(&["--port", "6790"])?;
    drop(holder);
    Ok(())
}

#[test]
fn a_port_whose_holder_would_share_it() -> Result<()> {
    let net = hosts()?;
    let holder = net.host(0).namespace().run(|| -> nix::Result<_> {
        let held = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None)?;
        setsockopt(&held, ReusePort, &true)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&held), &SockaddrIn::new(0, 0, 0, 0, 4789))?;
        Ok(held)
    })??;
    refused(net.host(0), net.host(0).try_launch(&[])?, &["4789"])?;
    drop(holder);
    Ok(())
}

#[test]
fn a_port_that_the_kernel_holds() -> Result<()> {
    let net = hosts()?;
    net.host(0).namespace().ip("link add name vx0 type vxlan id 7 dstport 4789 dev eth0")?;
    net.host(0).namespace().ip("link set dev vx0 up")?;
    refused(net.host(0), net.host(0).try_launch(&[])?, &["4789"])
}

#[test]
fn without_root() -> Result<()> {
    let net = hosts()?;
    // Where anybody may execute it.
    let binary = net.directory().join("meshnet");
    std::fs::copy(meshnet_binary()?, &binary)?;
    std::fs::set_permissions(net.directory(), PermissionsExt::from_mode(0o755))?;
    let anybody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let directories = ["--run-dir", "/tmp/meshnet-nobody/run", "--state-dir", "/tmp/meshnet-nobody/state"];
    let tool = net.host(0).tool("setpriv").args(anybody).args([&*binary.to_string_lossy(), "launch"]);
    refused(net.host(0), tool.args(directories).outcome()?, &["root"])?;

    net.host(0).launch(&[])?;
    let run = net.host(0).run_dir().display().to_string();
    let tool =
        net.host(0).tool("setpriv").args(anybody).args([&*binary.to_string_lossy(), "ps", "--run-dir", &run]);
    tool.outcome()?.fails_with(1).map(drop)
}

#[test]
fn without_the_tun_device() -> Result<()> {
    let net = hosts()?;
    let hidden = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let (run, state) = (net.host(0).run_dir(), net.host(0).state_dir());
    let tool =
        net.host(0).tool("unshare").args(["--mount", "--propagation", "private", "sh", "-c", hidden, "sh"]);
    let tool =
        tool.args([&*meshnet_binary()?.to_string_lossy(), "launch", "--run-dir", &run.to_string_lossy()]);
    refused(net.host(0), tool.args(["--state-dir", &state.to_string_lossy()]).outcome()?, &["/dev/net/tun"])
}

#[test]
fn a_second_launch() -> Result<()> {
    let net = hosts()?;
    net.host(0).launch(&[])?;
    let pid = net.host(0).daemon_pid();
    let line = net.host(0).try_launch(&["node02"])?.fails_with(1)?;
    ensure!(line.contains("connect") && line.contains("running"), "it says: {line}");
    ensure!(net.host(0).daemon_pid() == pid && net.host(0).status().is_ok(), "the first one suffered");
    Ok(())
}

#[test]
fn a_state_directory_in_use() -> Result<()> {
    let net = hosts()?;
    net.host(0).launch(&[])?;
    let state = net.host(0).state_dir().display().to_string();
    let run = net.directory().join("elsewhere").display().to_string();
    let tool = net.host(1).tool(&meshnet_binary()?.to_string_lossy());
    let tool = tool.args(["launch", "--run-dir", &run, "--state-dir", &state]);
    refused(net.host(1), tool.outcome()?, &[&state])
}

#[test]
fn socket_and_lock_of_a_crash_are_taken_over() -> Result<()> {
    let net = hosts()?;
    let host = net.host(0);
    for _ in 0..3 {
        host.launch(&[])?;
        host.kill_dead()?;
    }
    // Whatever else may lie there.
    std::fs::write(host.run_dir().join("lock"), "no pid at all\n")?;
    let _ = std::fs::remove_file(host.run_dir().join("meshnet.sock"));
    std::fs::write(host.run_dir().join("meshnet.sock"), "not a socket\n")?;
    host.launch(&[])?;
    host.attach("web").map(drop)
}

#[test]
fn launch_returns_to_a_shell_that_waits_for_its_output() -> Result<()> {
    let net = hosts()?;
    let host = net.host(0);
    let (run, state) = (host.run_dir().display().to_string(), host.state_dir().display().to_string());
    let line = "out=$(\"$1\" launch --run-dir \"$2\" --state-dir \"$3\" 2>&1) && echo \"returned: $out\"";
    let binary = meshnet_binary()?.display().to_string();
    let tool = host.tool("sh").args(["-c", line, "sh", &binary, &run, &state]).limit(secs(15));
    ensure!(tool.run()?.contains("returned"));
    host.status().map(drop)
}

#[test]
fn in_the_foreground_it_tells_systemd_and_ends_on_sigterm() -> Result<()> {
    let net = hosts()?;
    let host = net.host(0);
    let path = host.directory().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(secs(10)))?;
    let tool: Tool = host.launch_command(&["--foreground"])?.env("NOTIFY_SOCKET", path.to_string_lossy());
    let daemon = tool.start()?;
    let mut buffer = [0; 4096];
    let mut told = String::new();
    while !told.contains("READY=1") {
        let count = match socket.recv(&mut buffer) {
            // Any signal to this process does that, and says nothing of the daemon.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        told.push_str(&String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()));
    }
    let _web = host.attach("web")?;
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    ensure!(daemon.wait(secs(10))?.code == Some(0), "SIGTERM is a good end");
    wait_for("no socket stays", secs(1), || !host.run_dir().join("meshnet.sock").exists()).map(drop)
}
