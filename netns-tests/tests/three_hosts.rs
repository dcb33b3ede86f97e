//! Any host leads to all others: three commands put containers of three hosts on one network.

use netns_tests::{Result, Stopwatch, Topology, all_differ, ensure, ping_all_pairs, secs};

#[test]
fn launch_connect_and_attach_join_three_hosts() -> Result<()> {
    let net = Topology::new("launch, launch node01, connect node03, attach")?.hosts(3)?;
    net.host(0).launch(&[])?;
    net.host(2).launch(&[])?;

    let clock = Stopwatch::start();
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    db.ping_within(&web, secs(2))?;
    ensure!(clock.elapsed() < secs(2), "the first ping came {:?} after `launch node01`", clock.elapsed());

    net.host(0).connect(&["node03"])?;
    // At once: `connect` returned with the connection, so node03 knows the cluster and founds none of its own.
    let shell = net.host(2).attach("shell")?;
    ping_all_pairs(&[&web, &db, &shell])?;
    all_differ(&[&web, &db, &shell])?;
    net.wait_converged(secs(5))
}

#[test]
fn the_ends_of_a_chain_find_each_other() -> Result<()> {
    let net = Topology::new("A-B and B-C given, A-C found")?.hosts(3)?;
    net.host(0).launch(&["node02"])?;
    net.host(1).launch(&[])?;
    net.host(2).launch(&["node02"])?;
    net.wait_converged(secs(10))?;
    let web = net.host(0).attach("web")?;
    let shell = net.host(2).attach("shell")?;
    ping_all_pairs(&[&web, &shell])?;

    // What they found is direct: the middle may go.
    net.host(1).stop()?;
    ping_all_pairs(&[&web, &shell])
}

#[test]
fn all_at_once_with_the_same_list() -> Result<()> {
    let net = Topology::new("all three launched at once with the same list of three")?.hosts(3)?;
    net.launch_together(&["node01", "node02", "node03"])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    let shell = net.host(2).attach("shell")?;
    all_differ(&[&web, &db, &shell])?;
    ping_all_pairs(&[&web, &db, &shell])?;
    net.wait_converged(secs(10))
}

#[test]
fn one_host_is_a_network_too() -> Result<()> {
    let net = Topology::new("two containers of one host")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(0).attach("db")?;
    all_differ(&[&web, &db])?;
    ping_all_pairs(&[&web, &db])
}

#[test]
fn an_underlay_of_ipv6_alone_carries_the_overlay() -> Result<()> {
    let net = Topology::new("IPv6 underlay")?.hosts(2)?;
    for host in net.all() {
        host.namespace().ip("-4 address flush dev eth0")?;
    }
    net.host(0).launch(&["--mtu", "1430"])?;
    net.host(1).launch(&[&format!("[{}]", net.host(0).address6())])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    ping_all_pairs(&[&web, &db])?;
    web.ping_whole(&db, 1402)
}
