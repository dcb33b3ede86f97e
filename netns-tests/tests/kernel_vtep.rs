//! A kernel VXLAN device, declared as a VTEP, is a part of the network like any host.

use netns_tests::{
    Attached, Capture, Host, IperfReport, IperfServer, KernelContainer, KernelVtep, Namespace, Result,
    Topology, Transport, Wire, ensure, secs,
};

/// What must arrive in a second at least, however busy the machine: TCP whose segments are thrown away for their
/// checksums or sizes lives on retransmissions, and does not get there.
const LEAST_BITS_PER_SECOND: f64 = 200e6;

#[test]
fn ping_and_tcp_both_ways_over_veth() -> Result<()> {
    both_ways(Wire::Veth)
}

#[test]
fn ping_and_tcp_both_ways_over_nic() -> Result<()> {
    both_ways(Wire::Nic)
}

#[test]
fn ping_and_tcp_both_ways_over_cut() -> Result<()> {
    both_ways(Wire::Cut)
}

fn both_ways(wire: Wire) -> Result<()> {
    let net = Topology::new("a kernel VTEP beside a meshnet host")?.wire(wire).hosts(2)?;
    let (web, kernel) = pair(&net)?;
    web.ping(&kernel)?;
    kernel.ping(&web)?;
    web.ping_whole(&kernel, 1422)?;
    kernel.ping_whole(&web, 1422)?;
    ensure!(web.ping_whole(&kernel, 1423).is_err(), "1451 bytes fit an overlay MTU of 1450");

    let server = IperfServer::start(kernel.namespace(), &kernel)?;
    fast_enough("meshnet to kernel", &server.measure(web.namespace(), Transport::TCP, secs(2), "")?)?;
    fast_enough("kernel to meshnet", &server.measure(web.namespace(), Transport::TCP, secs(2), "-R")?)
}

#[test]
fn every_checksum_is_right_on_veth() -> Result<()> {
    checksums(Wire::Veth)
}

#[test]
fn every_checksum_is_right_on_nic() -> Result<()> {
    checksums(Wire::Nic)
}

#[test]
fn every_checksum_is_right_on_cut() -> Result<()> {
    checksums(Wire::Cut)
}

/// Captures each direction where it leaves its host, after the kernel has cut and completed what it was given.
fn checksums(wire: Wire) -> Result<()> {
    let net = Topology::new("checksums of the wire")?.wire(wire).hosts(2)?;
    net.all().iter().try_for_each(Host::checksum_in_software)?;
    let (web, kernel) = pair(&net)?;
    web.ping(&kernel)?;
    let server = IperfServer::start(kernel.namespace(), &kernel)?;
    for (sender, options) in [(0, ""), (1, "-R")] {
        let host = net.host(sender);
        let filter = format!("udp port 4789 and src host {}", host.address());
        let capture = Capture::start(host.namespace(), host.interface(), &filter, net.directory())?;
        limited(&server, web.namespace(), options)?;
        let udp = Transport::Udp { payload_bytes: 1000, bits_per_second: 50_000_000 };
        server.measure(web.namespace(), udp, secs(1), options)?;
        capture.checksums_are_right()?;
    }
    Ok(())
}

#[test]
fn a_vtep_reaches_containers_of_every_host_and_goes_when_removed() -> Result<()> {
    let net = Topology::new("one VTEP, two hosts")?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    let vtep = KernelVtep::new(net.host(2), &[net.host(0), net.host(1)])?;
    let kernel = vtep.container("kernel", "10.47.0.9/12")?;
    // Declared on one host, known on both.
    net.host(0).vtep_add("node03")?;
    web.ping(&kernel)?;
    db.ping(&kernel)?;

    net.host(1).run(&["vtep", "rm", "node03"])?;
    let gone = |from: &Attached| from.no_ping(&kernel, secs(1));
    netns_tests::wait_until("the VTEP is gone everywhere", secs(10), || gone(&web).and_then(|()| gone(&db)))?;
    web.ping(&db)
}

/// A container on a meshnet host, and one behind a kernel VTEP on the other.
fn pair(net: &Topology) -> Result<(Attached, KernelContainer)> {
    let (meshnet, kernel) = (net.host(0), net.host(1));
    meshnet.launch(&[])?;
    let web = meshnet.attach("web")?;
    let vtep = KernelVtep::new(kernel, &[meshnet])?;
    meshnet.vtep_add("node02")?;
    Ok((web, vtep.container("kernel", "10.47.0.9/12")?))
}

/// A stream short enough for a capture to hold all of it.
fn limited(server: &IperfServer, from: &Namespace, options: &str) -> Result<()> {
    server.measure(from, Transport::TCP, secs(1), &format!("-b 200M {options}")).map(drop)
}

fn fast_enough(which: &str, report: &IperfReport) -> Result<()> {
    let speed = report.bits_per_second()?;
    ensure!(
        speed > LEAST_BITS_PER_SECOND,
        "{which}: {speed:.0} bit/s, {:?} retransmits",
        report.retransmits()
    );
    Ok(())
}
