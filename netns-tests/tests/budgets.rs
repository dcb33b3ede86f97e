//! What a daemon may cost while nothing happens.

use netns_tests::{Result, Topology, ensure, pause, secs};

#[test]
fn ten_ports_and_ten_peers_cost_next_to_nothing_at_rest() -> Result<()> {
    let net = Topology::new("an idle daemon")?.hosts(11)?;
    net.host(0).launch(&[])?;
    for host in &net.all()[1..] {
        host.launch(&["node01"])?;
    }
    let ports: Vec<_> =
        (0..10).map(|number| net.host(0).attach(&format!("c{number}"))).collect::<Result<_>>()?;
    net.wait_converged(secs(20))?;
    pause(secs(5));

    let rest = secs(15);
    let (before, _) = net.host(0).usage()?;
    pause(rest);
    let (after, memory) = net.host(0).usage()?;
    let share = (after - before).as_secs_f64() / rest.as_secs_f64();
    ensure!(share < 0.005, "{:.2} % of a core with {} ports", share * 100.0, ports.len());
    ensure!(memory < 30 * 1024 * 1024, "{} KiB", memory / 1024);
    Ok(())
}
