//! Strangers and greedy callers hold a bounded part of the daemon, and keep nobody else from it.

use std::net::SocketAddr;

use netns_tests::{Host, Process, Result, Stopwatch, Topology, anyhow, ensure, secs, wait_for, wait_until};

/// How many connections the greedy open.
const MANY: usize = 10_000;
/// Callers that a socket answers at the same time, and those that it refuses in words.
const SEATS: usize = 256 + 16;
/// What the daemon may have open beside.
const OTHERS: usize = 64;
/// What it may take for all that, in bytes.
const GROWTH: u64 = 24 << 20;
/// How long somebody who says nothing may sit there.
const ARRIVAL: f64 = 5.0;

/// Opens so many connections to a socket, says nothing on any, and keeps them.
const SIT: &str = r#"
    use Socket;
    my @all;
    for (1 .. $ARGV[1]) {
        socket(my $one, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
        connect($one, sockaddr_un($ARGV[0])) or die "connect: $!";
        push @all, $one;
    }
    $| = 1;
    print "sitting\n";
    <STDIN>;
"#;

fn descriptors(host: &Host) -> Result<usize> {
    let pid = host.daemon_pid().ok_or_else(|| anyhow!("no daemon"))?;
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A member of the socket's group who takes all it can get.
fn sit(host: &Host) -> Result<Process> {
    let socket = host.run_dir().join("meshnet.sock").display().to_string();
    let member = ["setpriv", "--reuid", "65534", "--regid", "65534", "--groups", "4711"];
    let tool = host.tool("perl").args(["-e", SIT, &socket, &MANY.to_string()]).through(&member);
    let sitter = tool.through(&["sh", "-c", "ulimit -n 20000 && exec \"$@\"", "sh"]).start()?;
    wait_for("all have connected", secs(20), || sitter.stdout().contains("sitting"))?;
    Ok(sitter)
}

#[test]
fn ten_thousand_connections_to_the_socket_keep_nobody_else_out() -> Result<()> {
    let net = Topology::new("a crowd at the socket")?.hosts(1)?;
    let host = net.host(0);
    host.launch(&["--group", "4711"])?;
    for directory in [net.directory(), host.directory()] {
        std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let (before, (_, memory)) = (descriptors(host)?, host.usage()?);
    let clock = Stopwatch::start();
    let sitter = sit(host)?;
    let (during, (_, more)) = (descriptors(host)?, host.usage()?);
    ensure!(during <= before + SEATS + OTHERS, "{before} descriptors became {during}");
    ensure!(more <= memory + GROWTH, "{memory} bytes became {more}");
    // Root has places of its own.
    host.status()?;
    let _web = host.attach("web")?;
    // Who says nothing is sent away, and its place is free again.
    wait_until("nobody sits there any more", secs(ARRIVAL + 3.0), || {
        let now = descriptors(host)?;
        ensure!(now < before + OTHERS, "{now} descriptors after {:?}", clock.elapsed());
        Ok(())
    })?;
    drop(sitter);
    host.status().map(drop)
}

#[test]
fn ten_thousand_connections_to_the_metrics_keep_nobody_out() -> Result<()> {
    let net = Topology::new("a crowd at the metrics")?.hosts(1)?;
    let host = net.host(0);
    let addr = SocketAddr::from(([127, 0, 0, 1], 9100));
    host.launch(&["--metrics-addr", &addr.to_string()])?;
    let (before, (_, memory)) = (descriptors(host)?, host.usage()?);
    let mut sitting = Vec::new();
    for _ in 0..MANY / 200 {
        sitting = host.namespace().connections(addr, 200)?;
        let answer = host.namespace().http(addr, "GET /metrics")?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let (during, (_, more)) = (descriptors(host)?, host.usage()?);
    ensure!(during <= before + 32 + OTHERS, "{before} descriptors became {during}");
    ensure!(more <= memory + GROWTH, "{memory} bytes became {more}");
    drop(sitting);
    // A head without an end.
    let long = format!("GET /metrics?{}", "x".repeat(64 << 10));
    let refused = host.namespace().http(addr, &long);
    ensure!(!refused.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")), "a head of 64 KiB was read");
    ensure!(host.namespace().http(addr, "GET /metrics")?.contains("meshnet_ready"), "it answers no more");
    Ok(())
}

/// First packets of QUIC (RFC 9000 section 17.2.2), each of another connection, with noise where the handshake should be.
fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let packet = |number: usize| {
        let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
        packet.extend((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0x44, 0x96]);
        packet.extend((0..0x496).map(|at| (at * 31 + number) as u8));
        packet
    };
    (0..count).map(packet).collect()
}

#[test]
fn ten_thousand_first_packets_from_a_stranger_are_forgotten() -> Result<()> {
    let net = Topology::new("a crowd at the control port")?.hosts(3)?;
    net.host(0).launch(&[])?;
    let (_, memory) = net.host(0).usage()?;
    let to = SocketAddr::from((net.host(0).address(), 6783));
    for packets in first_packets(MANY).chunks(500) {
        net.host(2).namespace().send_datagrams(to, packets)?;
    }
    // Hosts still find each other.
    net.host(1).launch(&["node01"])?;
    net.host(0).wait("peers=1", secs(10))?;
    let (_, more) = net.host(0).usage()?;
    ensure!(more <= memory + GROWTH, "{memory} bytes became {more}");
    Ok(())
}

#[test]
fn a_log_is_put_aside_before_it_is_long() -> Result<()> {
    let net = Topology::new("a long log")?.hosts(1)?;
    let host = net.host(0);
    std::fs::create_dir(host.state_dir())?;
    let (log, aside) = (host.state_dir().join("meshnet.log"), host.state_dir().join("meshnet.log.1"));
    // A few bytes short: the launch lets it be, the daemon comes to its end.
    std::fs::write(&log, vec![b'x'; (4 << 20) - 10])?;
    host.launch(&["--log-level", "debug"])?;
    let _web = host.attach("web")?;
    wait_for("the log is put aside", secs(5), || aside.exists())?;
    ensure!(std::fs::metadata(&aside)?.len() < (4 << 20) + 4096, "it went on there");
    host.stop()?;
    let text = std::fs::read_to_string(&log)?;
    ensure!(text.contains("stopped") && !text.contains('\0'), "where did it go on? {text}");
    Ok(())
}
