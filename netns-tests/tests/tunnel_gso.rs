//! Where the underlay's device segments tunnelled TCP, super-frames leave whole; where it does not, they are cut here,
//! and a change of the device or of the route is followed.

use netns_tests::{
    Context, Host, IperfServer, KernelVtep, Result, Topology, Transport, Wire, ensure, secs, wait_until,
};

/// Longer than the daemon takes to look at features again, of whose changes the kernel says nothing.
const NOTICED_S: u32 = 15;

#[test]
fn super_frames_leave_whole_where_the_device_cuts_them() -> Result<()> {
    let net = Topology::new("tunnel segmentation by the device")?.wire(Wire::Veth).hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(1), "")?.bytes()?;
    let cut = nearly_all_whole(net.host(0))?;

    let features = format!("-K {} tx-udp_tnl-segmentation off", net.host(0).interface());
    net.host(0).tool("ethtool").words(&features).run()?;
    wait_until("super-frames are cut here", secs(NOTICED_S), || {
        server.measure(web.namespace(), Transport::TCP, secs(0.5), "")?.bytes()?;
        let now = sent(net.host(0))?;
        ensure!(now.1 > cut + 100, "{} whole, {} cut", now.0, now.1);
        Ok(())
    })
}

#[test]
fn what_leaves_whole_follows_the_route() -> Result<()> {
    let net = Topology::new("whole super-frames and a route that changes")?.wire(Wire::Veth).hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(0.5), "")?.bytes()?;
    let host = net.host(0);
    let far = net.host(1).address();
    // A second way that leads nowhere, and back: the stream must live through both.
    host.tool("ip").words("link add nowhere type veth peer name nowhere-far").run()?;
    host.tool("ip").words("link set nowhere up").run()?;
    let stream = server.stream_with(web.namespace(), Transport::TCP, secs(4), "")?;
    netns_tests::pause(secs(0.5));
    host.tool("ip").words(&format!("route add {far}/32 dev nowhere")).run()?;
    netns_tests::pause(secs(0.3));
    host.tool("ip").words(&format!("route del {far}/32 dev nowhere")).run()?;
    netns_tests::pause(secs(1));
    let before = sent(host)?.0;
    stream.finish()?.bytes()?;
    ensure!(sent(host)?.0 > before + 100, "nothing leaves whole any more");
    Ok(())
}

#[test]
fn where_the_device_does_not_they_are_cut_here() -> Result<()> {
    let net = Topology::new("no tunnel segmentation")?.wire(Wire::Nic).hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(1), "")?.bytes()?;
    all_cut(net.host(0))
}

#[test]
fn it_can_be_switched_off() -> Result<()> {
    let net = Topology::new("--no-tunnel-gso")?.wire(Wire::Veth).hosts(2)?;
    let (web, db) = net.web_and_db(&["--no-tunnel-gso"])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    server.measure(web.namespace(), Transport::TCP, secs(1), "")?.bytes()?;
    all_cut(net.host(0))
}

#[test]
fn a_kernel_vtep_takes_them() -> Result<()> {
    let net = Topology::new("whole super-frames towards a kernel VTEP")?.wire(Wire::Veth).hosts(2)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let vtep = KernelVtep::new(net.host(1), &[net.host(0)])?;
    net.host(0).vtep_add("node02")?;
    let kernel = vtep.container("kernel", "10.47.0.9/12")?;
    web.ping(&kernel)?;
    let server = IperfServer::start(kernel.namespace(), &kernel)?;
    for way in ["", "-R"] {
        let report = server.measure(web.namespace(), Transport::TCP, secs(1), way)?;
        ensure!(report.bits_per_second()? > 5e8, "{way:?}: {} bit/s", report.bits_per_second()?);
    }
    nearly_all_whole(net.host(0)).map(drop)
}

/// What `host` sent left whole, but for what came before its way was known: so many.
fn nearly_all_whole(host: &Host) -> Result<u64> {
    let (whole, cut) = sent(host)?;
    ensure!(whole > 100 && cut < whole / 10, "{whole} whole, {cut} cut");
    Ok(cut)
}

fn all_cut(host: &Host) -> Result<()> {
    let (whole, cut) = sent(host)?;
    ensure!(whole == 0 && cut > 100, "{whole} whole, {cut} cut");
    Ok(())
}

/// How many super-frames `host` has sent whole, and how many cut.
fn sent(host: &Host) -> Result<(u64, u64)> {
    let status = host.status()?;
    let workers = status["dataplane"]["workers"].as_array().context("no workers")?;
    let sum = |name: &str| workers.iter().filter_map(|worker| worker[name].as_u64()).sum();
    Ok((sum("super_frames_whole"), sum("super_frames_cut")))
}
