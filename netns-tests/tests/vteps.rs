//! External VTEPs of different makers are parts of one network beside the hosts.

use netns_tests::{
    Addressed, Attached, Host, IperfServer, KernelVtep, OvsVtep, Result, Topology, Transport, Wire, ensure,
    secs, wait_until,
};

#[test]
fn a_kernel_device_and_an_open_vswitch_bridge_beside_two_hosts() -> Result<()> {
    // As cards do: the userspace datapath of Open vSwitch takes neither super-frames nor checksums that are to be completed.
    let net = Topology::new("Open vSwitch, a kernel and two hosts")?.wire(Wire::Cut).hosts(4)?;
    net.all().iter().try_for_each(Host::checksum_in_software)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    let hosts = [net.host(0), net.host(1)];
    let (switch, device) = (OvsVtep::new(net.host(2), &hosts)?, KernelVtep::new(net.host(3), &hosts)?);
    let (bridged, kernel) =
        (switch.container("bridged", "10.47.0.8/12")?, device.container("kernel", "10.47.0.9/12")?);
    // Declared on one host each, known on both.
    net.host(0).vtep_add("node03")?;
    net.host(1).vtep_add("node04:4789")?;
    for container in [&web, &db] {
        container.ping_within(&bridged, secs(20))?;
        container.ping_within(&kernel, secs(10))?;
        bridged.ping(container)?;
        kernel.ping(container)?;
        container.ping_whole(&bridged, 1422)?;
    }
    carries(&web, bridged.namespace(), &bridged)?;
    carries(&db, kernel.namespace(), &kernel)?;
    let listed = net.host(1).run(&["vtep", "ls", "--network", "mesh"])?;
    ensure!(listed.contains("192.0.2.3:4789") && listed.contains("192.0.2.4:4789"), "{listed}");

    // Removed where it was not declared; again is fine.
    net.host(1).run(&["vtep", "rm", "node03"])?;
    net.host(1).run(&["vtep", "rm", "node03"])?;
    wait_until("the bridge is out", secs(10), || web.no_ping(&bridged, secs(1)))?;
    db.ping(&kernel)
}

/// TCP passes in both directions.
fn carries(from: &Attached, namespace: &netns_tests::Namespace, to: &impl Addressed) -> Result<()> {
    let server = IperfServer::start(namespace, to)?;
    for options in ["", "-R"] {
        let speed = server.measure(from.namespace(), Transport::TCP, secs(1), options)?.bits_per_second()?;
        // Wrong checksums or sizes leave next to nothing of it.
        ensure!(speed > 2e6, "{options:?}: {speed:.0} bit/s");
    }
    Ok(())
}

#[test]
fn addresses_that_are_none_are_refused() -> Result<()> {
    let net = Topology::new("wrong VTEPs")?.hosts(2)?;
    net.host(0).launch(&[])?;
    for wrong in ["nowhere", "192.0.2.9:0", "[::]", "224.0.0.1", "2001:db8::1:4789:x", "[2001:db8::1]:70000"]
    {
        net.host(0).meshnet(&["vtep", "add", wrong])?.fails_with(2)?;
    }
    let said = net.host(0).meshnet(&["vtep", "add", "192.0.2.9", "--network", "nowhere"])?.fails_with(1)?;
    ensure!(said.contains("nowhere"), "it says: {said}");
    // The same address in other words is the same VTEP.
    for same in ["2001:db8::9", "[2001:db8::9]", "[2001:db8:0:0::9]:4789"] {
        net.host(0).vtep_add(same)?;
    }
    let listed = net.host(0).run(&["vtep", "ls"])?;
    ensure!(listed.matches("[2001:db8::9]:4789").count() == 1 && listed.lines().count() == 2, "{listed}");
    Ok(())
}
