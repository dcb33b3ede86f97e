//! What a daemon may cost at rest, and how long a command may take. Few tests, so that they do not disturb each other.

use netns_tests::{Container, Result, Stopwatch, Topology, ensure, pause, secs};

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

#[test]
fn attaching_is_quick() -> Result<()> {
    let net = Topology::new("attach takes less than a tenth of a second")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let _first = net.host(0).attach("first")?;
    let mut times = Vec::new();
    for number in 0..9 {
        let container = Container::new(&format!("c{number}"))?;
        let reference = container.reference();
        let clock = Stopwatch::start();
        net.host(0).run(&["attach", &reference])?;
        times.push(clock.elapsed());
        net.host(0).detach(&container)?;
    }
    times.sort();
    ensure!(times[4] < secs(0.1), "the median of nine is {:?}: {times:?}", times[4]);
    Ok(())
}
