//! vpncloud as a switch, without encryption: the fastest it has. Its TAP device is moved into the container, so that
//! nothing stands in between.

use anyhow::Result;
use netns_tests::{Container, Host, Process, Topology, secs, wait_for};

use super::{End, Lane, Route, move_into, pair, program};

/// What its own header, nonce and tag leave of 1500 bytes for an inner packet, rounded down.
const MTU: u16 = 1400;

const DEVICE: &str = "vpn0";

/// Fails when it is not installed.
pub(super) fn check() -> Result<()> {
    program("vpncloud", "cargo install vpncloud, and name the directory of the program in MESHNET_PEERS")
        .map(drop)
}

/// Two hosts that know each other by address and password.
pub(super) fn lane(topology: Topology) -> Result<Lane> {
    let (a, b) = (topology.host(0), topology.host(1));
    let daemons = vec![start(a, b)?, start(b, a)?];
    let containers = pair()?;
    let ends = vec![join(a, &containers[0], "10.99.0.1")?, join(b, &containers[1], "10.99.0.2")?];
    containers[0].ping_within(&ends[1].address, secs(20))?;
    Ok(Lane::new(topology, Route::through(ends)).with_daemons(daemons, 2).with_containers(containers))
}

fn start(host: &Host, other: &Host) -> Result<Process> {
    // It asks the kernel which of its addresses reaches the world, and ends when none does.
    host.namespace().ip(&format!("route add default dev {}", host.interface()))?;
    let line = format!(
        "--type tap --mode switch --device {DEVICE} --password benchmark --algorithm plain \
         --no-port-forwarding --listen {}:3210 --peer {}:3210",
        host.address(),
        other.address()
    );
    host.tool(&program("vpncloud", "")?).words(&line).start()
}

fn join(host: &Host, container: &Container, address: &str) -> Result<End> {
    wait_for("vpncloud has its device", secs(10), || host.namespace().has_interface(DEVICE))?;
    move_into(host, DEVICE, container, address, MTU)
}
