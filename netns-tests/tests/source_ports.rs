//! Datagrams of different flows leave from different UDP ports, those of one flow from one, so that an underlay can
//! spread flows and keeps each in order.

use std::collections::{BTreeMap, BTreeSet};

use netns_tests::{Capture, Host, IperfServer, KernelVtep, Result, Topology, Transport, Wire, ensure, secs};

/// For each inner flow, as `10.32.0.1.40000 > 10.32.0.2.5201`, the outer source ports it was seen from.
type Sources = BTreeMap<String, BTreeSet<String>>;

#[test]
fn each_connection_has_its_port_and_keeps_it() -> Result<()> {
    let net = Topology::new("source ports of flows")?.wire(Wire::Nic).hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let capture = capture(&net, net.host(0))?;
    server.measure(web.namespace(), Transport::Tcp { streams: 12 }, secs(1), "-b 10M")?;
    let sources = sources(capture)?;
    one_port_each(&sources)?;
    let ports: BTreeSet<_> = sources.values().flatten().collect();
    ensure!(sources.len() >= 13, "twelve connections and one that controls them: {sources:?}");
    ensure!(ports.len() >= 5 && !ports.contains(&"4789".to_owned()), "{ports:?}");
    Ok(())
}

#[test]
fn udp_flows_keep_their_ports_too() -> Result<()> {
    let net = Topology::new("source ports of UDP flows")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let capture = capture(&net, net.host(0))?;
    let udp = Transport::Udp { payload_bytes: 500, bits_per_second: 2_000_000 };
    server.measure(web.namespace(), udp, secs(3), "-P 8")?;
    let sources = sources(capture)?;
    one_port_each(&sources)?;
    let ports: BTreeSet<_> = sources.values().flatten().collect();
    ensure!(ports.len() >= 2, "{sources:?}");
    Ok(())
}

#[test]
fn with_no_source_ports_everything_leaves_from_the_data_port() -> Result<()> {
    let net = Topology::new("--source-ports 0")?.hosts(2)?;
    let (web, db) = net.web_and_db(&["--source-ports", "0"])?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let capture = capture(&net, net.host(0))?;
    server.measure(web.namespace(), Transport::Tcp { streams: 4 }, secs(1), "-b 10M")?;
    let sources = sources(capture)?;
    let data_port = BTreeSet::from(["4789".to_owned()]);
    ensure!(sources.len() >= 5 && sources.values().all(|ports| *ports == data_port), "{sources:?}");
    Ok(())
}

#[test]
fn a_kernel_vtep_takes_them_all() -> Result<()> {
    let net = Topology::new("source ports towards a kernel VTEP")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let vtep = KernelVtep::new(net.host(1), &[net.host(0)])?;
    net.host(0).vtep_add("node02")?;
    let kernel = vtep.container("kernel", "10.47.0.9/12")?;
    web.ping(&kernel)?;
    let server = IperfServer::start(kernel.namespace(), &kernel)?;
    let capture = capture(&net, net.host(0))?;
    server.measure(web.namespace(), Transport::Tcp { streams: 8 }, secs(1), "-b 10M")?;
    let sources = sources(capture)?;
    one_port_each(&sources)?;
    ensure!(sources.values().flatten().collect::<BTreeSet<_>>().len() >= 3, "{sources:?}");
    Ok(())
}

/// What `host` sends as VXLAN.
fn capture(net: &Topology, host: &Host) -> Result<Capture> {
    let filter = format!("udp dst port 4789 and src host {}", host.address());
    Capture::start(host.namespace(), host.interface(), &filter, net.directory())
}

/// tcpdump tells of a datagram in two lines, the outer headers in the first and the frame in the second.
fn sources(capture: Capture) -> Result<Sources> {
    let text = capture.stop_with("-t")?;
    let mut sources = Sources::new();
    let mut outer = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = words
            .iter()
            .position(|&word| word == ">")
            .and_then(|at| Some((*words.get(at.checked_sub(1)?)?, words.get(at + 1)?.trim_end_matches(':'))));
        let Some((from, to)) = ends else { continue };
        if to.ends_with(".4789") {
            outer = from.rsplit('.').next().map(str::to_owned);
        } else if let Some(port) = outer.take().filter(|_| line.contains("Flags [") || line.contains("UDP")) {
            sources.entry(format!("{from} > {to}")).or_default().insert(port);
        }
    }
    Ok(sources)
}

fn one_port_each(sources: &Sources) -> Result<()> {
    ensure!(!sources.is_empty(), "nothing was captured");
    let torn = sources.iter().find(|(_, ports)| ports.len() != 1);
    ensure!(torn.is_none(), "a flow left from several ports: {torn:?}");
    Ok(())
}
