//! The test bed itself, without a daemon: wires, cuts, captures and clean-up do what their names say.

use std::net::IpAddr;

use netns_tests::{
    Addressed, Capture, Container, Docker, IperfServer, KernelVtep, Result, Topology, Transport, Wire,
    ensure, secs, wait_for,
};

#[test]
fn hosts_reach_each_other_until_the_wire_is_cut() -> Result<()> {
    let net = Topology::new("three hosts, one underlay")?.hosts(3)?;
    let (near, far) = (net.host(0), net.host(2));
    let to_far = IpAddr::from(far.address());
    near.namespace().ping_within(&to_far, secs(2))?;
    near.namespace().ping_within(&IpAddr::from(far.address6()), secs(2))?;

    near.cut_from(far)?;
    near.namespace().no_ping(&to_far, secs(1))?;
    near.namespace().ping_within(&IpAddr::from(net.host(1).address()), secs(2))?;
    net.mend()?;
    near.namespace().ping_within(&to_far, secs(2)).map(drop)
}

#[test]
fn everything_goes_with_the_topology() -> Result<()> {
    let net = Topology::new("clean-up")?.hosts(2)?;
    let directory = net.directory().to_owned();
    let paths: Vec<_> = net.all().iter().map(|host| host.namespace().path().to_owned()).collect();
    let container = Container::named("shell")?;
    let named = container.namespace().path().to_owned();
    let mut child = net.host(0).tool("cat").start()?;
    ensure!(child.is_running() && named.exists());
    drop(net);
    drop(container);
    ensure!(!directory.exists() && !named.exists(), "left behind");
    ensure!(paths.iter().all(|path| !path.exists()), "left behind: {paths:?}");
    ensure!(!child.is_running(), "a process outlived its host");
    Ok(())
}

#[test]
fn a_namespace_goes_with_the_process_of_its_container() -> Result<()> {
    let net = Topology::new("a container dies")?.hosts(2)?;
    let container = Container::new("web")?;
    let witness = container.witness(net.host(0))?;
    ensure!(!witness.is_gone());
    container.kill()?;
    wait_for("the namespace is gone", secs(2), || witness.is_gone()).map(drop)
}

#[test]
fn the_kernel_talks_vxlan_to_itself_on_every_wire() -> Result<()> {
    for wire in Wire::ALL {
        let net = Topology::new("two kernel VTEPs")?.wire(wire).hosts(2)?;
        let (left, right) = (net.host(0), net.host(1));
        let here = KernelVtep::new(left, &[right])?.container("here", "10.47.0.1/12")?;
        let there = KernelVtep::new(right, &[left])?.container("there", "10.47.0.2/12")?;
        here.ping(&there)?;
        here.ping_whole(&there, 1422)?;
        let server = IperfServer::start(there.namespace(), &there)?;
        let report = server.measure(here.namespace(), Transport::TCP, secs(1), "")?;
        ensure!(report.bits_per_second()? > 1e8, "{wire:?}: {} bit/s", report.bits_per_second()?);
    }
    Ok(())
}

#[test]
fn a_capture_on_a_cut_wire_holds_whole_datagrams_with_right_checksums() -> Result<()> {
    let net = Topology::new("a capture")?.wire(Wire::Cut).hosts(2)?;
    let (left, right) = (net.host(0), net.host(1));
    left.checksum_in_software()?;
    right.checksum_in_software()?;
    let here = KernelVtep::new(left, &[right])?.container("here", "10.47.0.1/12")?;
    let there = KernelVtep::new(right, &[left])?.container("there", "10.47.0.2/12")?;
    here.ping(&there)?;
    let capture = Capture::start(right.namespace(), right.interface(), "udp port 4789", net.directory())?;
    IperfServer::start(there.namespace(), &there)?.measure(here.namespace(), Transport::TCP, secs(1), "")?;
    capture.checksums_are_right()
}

#[test]
fn docker_runs_here() -> Result<()> {
    let net = Topology::new("an engine of our own")?.hosts(2)?;
    let docker = Docker::start(net.host(0))?;
    let web = docker.run("web")?;
    web.namespace()?.ip("link add name mark type bridge")?;
    web.restart()?;
    ensure!(!web.namespace()?.has_interface("mark"), "a restart makes a new namespace");
    let loopback = IpAddr::from([127, 0, 0, 1]);
    web.namespace()?.ping_within(&loopback.address(), secs(2)).map(drop)
}
