//! External VTEPs of different makers are parts of one network beside the hosts.

use std::net::IpAddr;

use netns_tests::{
    Addressed, Attached, Container, Host, IperfServer, KernelVtep, OvsVtep, Result, Topology, Transport,
    Wire, ensure, secs, wait_until,
};

/// What must arrive in a second at least. Segments thrown away for their checksums bring nothing, those of a wrong size a tenth of a
/// megabit on retransmissions. Open vSwitch, its cables and both ends share the processors with all else: on two of them it is
/// 450 megabits and more, and 18 beside twenty busy processes.
const LEAST_BITS_PER_SECOND: f64 = 10e6;

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

#[test]
fn a_kernel_device_on_a_network_of_another_number() -> Result<()> {
    on_another_network("a VTEP of another network", 1422, |host, hosts| {
        Ok((KernelVtep::of_network(7777, host, hosts)?, host.address().to_string()))
    })
}

#[test]
fn a_kernel_device_on_a_network_of_another_number_over_ipv6() -> Result<()> {
    on_another_network("a VTEP of another network, IPv6", 1402, |host, hosts| {
        Ok((KernelVtep::of_network_over_ipv6(7777, host, hosts)?, host.address6().to_string()))
    })
}

/// Makes a device on the third host, for these two, and tells its address.
type Make = for<'net> fn(&'net Host, &[&Host]) -> Result<(KernelVtep<'net>, String)>;

fn on_another_network(promise: &str, whole: usize, make: Make) -> Result<()> {
    let net = Topology::new(promise)?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    net.host(0).run_line(
        "network create blue --vni 7777 --subnet 10.99.0.0/16 --ip-range 10.99.0.0/24 --subnet fd00:99::/64 \
         --ip-range fd00:99::/120",
    )?;
    let attach = |index: usize, name| {
        let container = Container::new(name)?;
        wait_until("the network is known", secs(5), || net.host(index).attach_to(&container, "blue", &[]))
    };
    let (web, db, stranger) = (attach(0, "web")?, attach(1, "db")?, net.host(0).attach("stranger")?);
    let (device, address) = make(net.host(2), &[net.host(0), net.host(1)])?;
    let kernel = device.container("kernel", "10.99.200.9/16")?;
    kernel.namespace().ip("address add fd00:99::c8:9/64 dev eth0 nodad")?;
    net.host(0).run(&["vtep", "add", &address, "--network", "blue"])?;

    let sixth: IpAddr = "fd00:99::c8:9".parse()?;
    for container in [&web, &db] {
        container.ping(&kernel)?;
        container.ping(&sixth)?;
        kernel.ping(container)?;
        container.ping_whole(&kernel, whole)?;
    }
    carries(&web, kernel.namespace(), &kernel)?;
    carries(&db, kernel.namespace(), &sixth)?;
    // On that network alone, whatever addresses are set.
    let stranger = net.host(0).lift_spoof_check(&stranger)?;
    stranger.namespace().ip(&format!("address add 10.99.200.7/16 dev {}", stranger.ifname))?;
    stranger.no_ping(&kernel, secs(1))?;
    ensure!(
        net.host(1).run(&["vtep", "ls", "--network", "mesh"])?.lines().count() <= 1,
        "it is one of mesh too"
    );

    net.host(1).run(&["vtep", "rm", &address, "--network", "blue"])?;
    wait_until("the device is out", secs(10), || web.no_ping(&kernel, secs(1)))?;
    web.ping(&db)
}

/// TCP passes in both directions.
fn carries(from: &Attached, namespace: &netns_tests::Namespace, to: &impl Addressed) -> Result<()> {
    let server = IperfServer::start(namespace, to)?;
    for options in ["", "-R"] {
        let speed = server.measure(from.namespace(), Transport::TCP, secs(1), options)?.bits_per_second()?;
        ensure!(speed > LEAST_BITS_PER_SECOND, "{options:?}: {speed:.0} bit/s");
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
