//! WireGuard in userspace: its TUN device is moved into the container, the socket stays on the host.
//!
//! Both programs are configured by `wg` over the same kind of socket; they differ in how they are started.

use std::path::Path;

use anyhow::{Context, Result};
use netns_tests::{Container, Host, Process, Tool, Topology, secs, wait_for};

use super::{End, Lane, Leftover, Route, move_into, pair, program};

/// What WireGuard leaves of 1500 bytes (wg(8)).
const MTU: u16 = 1420;

const PORT: u16 = 51_820;

/// Where they listen to be configured; shared by all network namespaces.
const SOCKETS: &str = "/var/run/wireguard";

/// What their devices are called, followed by the process id of whoever made them.
const PREFIX: &str = "wgb";

/// A program that speaks WireGuard.
pub(super) struct WireGuard {
    program: &'static str,
    install: &'static str,
    /// What keeps it in the foreground, before the name of the device.
    options: &'static str,
    /// Tells the devices of the two programs apart.
    letter: char,
}

/// Threads beyond one cost more than they give on two processors.
pub(super) const BORINGTUN: WireGuard = WireGuard {
    program: "boringtun-cli",
    install: "cargo install boringtun-cli, and name the directory of the program in MESHNET_PEERS",
    options: "--foreground --disable-drop-privileges --threads 1",
    letter: 'b',
};

pub(super) const WIREGUARD_GO: WireGuard = WireGuard {
    program: "wireguard-go",
    install: "apt-get install wireguard-go",
    options: "--foreground",
    letter: 'g',
};

/// One host's end of the tunnel.
struct Site {
    device: String,
    private: String,
    public: String,
    process: Process,
    socket: Leftover,
}

impl WireGuard {
    /// Fails when it is not installed.
    pub(super) fn check(&self) -> Result<()> {
        program(self.program, self.install)?;
        program("wg", "apt-get install wireguard-tools").map(drop)
    }

    /// Two hosts that are each other's only peer.
    pub(super) fn lane(&self, topology: Topology) -> Result<Lane> {
        sweep();
        let (a, b) = (topology.host(0), topology.host(1));
        let sites = [self.start(a, 1)?, self.start(b, 2)?];
        configure(a, &sites[0], &sites[1], b)?;
        configure(b, &sites[1], &sites[0], a)?;
        let containers = pair()?;
        let ends = vec![
            join(a, &sites[0], &containers[0], "10.99.0.1")?,
            join(b, &sites[1], &containers[1], "10.99.0.2")?,
        ];
        containers[0].ping_within(&ends[1].address, secs(20))?;
        let (daemons, sockets) = sites.into_iter().map(|site| (site.process, site.socket)).unzip();
        let lane = Lane::new(topology, Route::through(ends)).with_daemons(daemons, 2);
        Ok(lane.with_containers(containers).with_files(sockets))
    }

    fn start(&self, host: &Host, number: u8) -> Result<Site> {
        // Names of interfaces have 15 characters at most; the socket's directory is common to all.
        let device = format!("{PREFIX}{}{}{number}", std::process::id(), self.letter);
        let program = program(self.program, self.install)?;
        let socket = Leftover(Path::new(SOCKETS).join(format!("{device}.sock")));
        let process = host.tool(&program).words(self.options).args([&device]).start()?;
        let listens = || socket.0.exists() && host.namespace().has_interface(&device);
        wait_for(&format!("{} listens", self.program), secs(10), listens)?;
        let private = Tool::new("wg").args(["genkey"]).run()?.trim().to_owned();
        let public = Tool::new("wg").args(["pubkey"]).input(format!("{private}\n")).run()?.trim().to_owned();
        Ok(Site { device, private, public, process, socket })
    }
}

/// Removes the sockets of runs whose process is gone.
fn sweep() {
    let entries = std::fs::read_dir(SOCKETS).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(char::is_alphabetic));
        if maker.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            drop(Leftover(path));
        }
    }
}

fn configure(host: &Host, own: &Site, other: &Site, other_host: &Host) -> Result<()> {
    let key = host.directory().join("private-key");
    std::fs::write(&key, &own.private).context("cannot write the key")?;
    let line = format!(
        "set {} listen-port {PORT} private-key {} peer {} endpoint {}:{PORT} allowed-ips 0.0.0.0/0",
        own.device,
        key.display(),
        other.public,
        other_host.address()
    );
    host.tool("wg").words(&line).run().map(drop)
}

fn join(host: &Host, site: &Site, container: &Container, address: &str) -> Result<End> {
    move_into(host, &site.device, container, address, MTU)
}
