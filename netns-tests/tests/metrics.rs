//! `launch --metrics-addr` serves the counters to Prometheus, and nothing else.

use std::net::SocketAddr;

use netns_tests::{Host, Result, Topology, anyhow, ensure};

/// Where the metrics are.
fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9100))
}

/// Asks inside the namespace of a host; the whole answer.
fn ask(host: &Host, request: &str) -> Result<String> {
    host.namespace().http(addr(), request)
}

/// The value of a sample.
fn sample(text: &str, start: &str) -> Result<u64> {
    let line = text.lines().find(|line| line.starts_with(start));
    let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    value.ok_or_else(|| anyhow!("no number {start} in {text}"))
}

#[test]
fn counters_are_served_where_asked_for() -> Result<()> {
    let net = Topology::new("metrics")?.hosts(2)?;
    net.host(0).launch(&["--metrics-addr", &addr().to_string()])?;
    net.host(1).launch(&["node01"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;

    let answer = ask(net.host(0), "GET /metrics")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    ensure!(answer.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
    ensure!(sample(&answer, "meshnet_peers{state=\"alive\"}")? == 1, "{answer}");
    ensure!(sample(&answer, "meshnet_ipam_used{")? >= 1, "{answer}");
    let port = format!("container=\"{}\",network=\"mesh\",interface=\"mesh0\"", web.reference());
    let line = answer.lines().find(|line| {
        line.starts_with("meshnet_port_frames_total")
            && line.contains(&port)
            && line.contains("direction=\"in\"")
    });
    ensure!(line.is_some_and(|line| !line.ends_with(" 0")), "no frames of {port}: {answer}");
    ensure!(answer.contains("# TYPE meshnet_worker_frames_total counter"), "{answer}");

    let before = sample(&answer, "meshnet_control_datagrams_total")?;
    web.ping(&db)?;
    let later = ask(net.host(0), "GET /metrics")?;
    ensure!(sample(&later, "meshnet_control_datagrams_total")? >= before, "{later}");
    ensure!(ask(net.host(0), "GET /status")?.starts_with("HTTP/1.1 404 "), "only metrics");
    ensure!(ask(net.host(0), "POST /metrics")?.starts_with("HTTP/1.1 405 "), "only reading");
    ensure!(ask(net.host(1), "GET /metrics").is_err(), "off unless asked for");
    Ok(())
}

#[test]
fn an_address_that_cannot_be_had_is_told_at_launch() -> Result<()> {
    let net = Topology::new("no metrics")?.hosts(1)?;
    let host = net.host(0);
    let holder = host.namespace().hold_address(addr())?;
    let taken = host.try_launch(&["--metrics-addr", &addr().to_string(), "-o", "json"])?;
    ensure!(taken.stderr.contains("\"port_in_use\"") && taken.stderr.contains("--metrics-addr"), "{taken:?}");
    taken.fails_with(1)?;
    drop(holder);
    let foreign = host.try_launch(&["--metrics-addr", "203.0.113.9:9100", "-o", "json"])?;
    ensure!(foreign.stderr.contains("\"address_not_local\""), "{foreign:?}");
    foreign.fails_with(1)?;
    host.launch(&["--metrics-addr", &addr().to_string()])
}
