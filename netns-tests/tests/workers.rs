//! Several workers: each flow stays in order, across hosts and within one, and no worker ever waits for another.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test sends datagrams at a pace")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netns_tests::{
    Addressed, Attached, Context, Host, IperfServer, Namespace, Result, Tool, Topology, Transport, Wire,
    anyhow, ensure, pause, secs,
};

/// Workers of each host: more than the machine has processors.
const WORKERS: [&str; 2] = ["--workers", "4"];
/// A wire with one queue. On one without GRO, packets wait in the backlog of whatever processor the sender ran on, and
/// one that is moved to another while the first is busy overtakes itself.
const ORDERLY: Wire = Wire::Nic;
/// Flows of numbered datagrams between two containers.
const FLOWS: usize = 24;
/// Datagrams of each flow.
const DATAGRAMS: u64 = 3000;

#[test]
fn numbered_datagrams_arrive_in_order_within_each_flow() -> Result<()> {
    let net = Topology::new("numbered datagrams over four workers")?.wire(ORDERLY).hosts(2)?;
    let (web, app, db) = three(&net)?;
    for (from, to) in [(&web, &db), (&db, &app), (&web, &app)] {
        let counted = numbered(from, to)?;
        ensure!(counted.len() == FLOWS, "{} of {FLOWS} flows arrived", counted.len());
        let (least, all) = (counted.values().min().copied().unwrap_or(0), counted.values().sum::<u64>());
        let arrived = all as f64 / (FLOWS as u64 * DATAGRAMS) as f64;
        ensure!(
            least > DATAGRAMS / 4 && arrived > 0.5,
            "{arrived:.2} arrived, of one flow {least}: {counted:?}"
        );
    }
    Ok(())
}

#[test]
fn tcp_sees_no_reordering() -> Result<()> {
    let net = Topology::new("TCP over four workers")?.wire(ORDERLY).hosts(2)?;
    let (web, app, db) = three(&net)?;
    let all = [&web, &app, &db];
    for (from, to) in [(&web, &db), (&web, &app)] {
        let server = IperfServer::start(to.namespace(), to)?;
        for options in ["", "-R"] {
            server.measure(from.namespace(), Transport::Tcp { streams: 8 }, secs(2), options)?;
        }
    }
    for container in all {
        let reordered: u64 = ["TCPSACKReorder", "TCPTSReorder", "TCPRenoReorder"]
            .iter()
            .map(|counter| tcp_counter(container.namespace(), counter))
            .sum::<Result<u64>>()?;
        ensure!(reordered == 0, "{} saw {reordered} segments out of order", container.name());
    }
    let busy = busy_workers(net.host(0))?;
    ensure!(busy > 1, "one worker did everything: nothing was shown");
    Ok(())
}

/// Under load a worker makes system calls to read, to write and to sleep, but none that waits for a lock or wakes
/// another thread that waits for one.
#[test]
fn no_worker_waits_for_another() -> Result<()> {
    let net = Topology::new("system calls of workers under load")?.hosts(2)?;
    let (web, app, db) = three(&net)?;
    let servers = [IperfServer::start(db.namespace(), &db)?, IperfServer::start(app.namespace(), &app)?];
    let streams = [
        servers[0].stream_from(web.namespace(), Transport::Tcp { streams: 8 }, secs(6))?,
        servers[1].stream_from(db.namespace(), Transport::Tcp { streams: 8 }, secs(6))?,
    ];
    pause(secs(1));
    let calls = calls_of_workers(net.host(0), &net)?;
    let count = |name: &str| calls.iter().filter(|call| call.as_str() == name).count();
    for stream in streams {
        stream.finish()?;
    }
    let work: usize =
        ["read", "writev", "sendmsg", "sendmmsg", "recvmmsg"].iter().map(|call| count(call)).sum();
    ensure!(count("epoll_wait") > 50 && work > 500, "the workers were not seen at work: {}", calls.len());
    ensure!(count("futex") == 0, "{} times a worker waited or woke", count("futex"));
    let foreign: Vec<_> = ["brk", "mmap", "munmap", "madvise", "mprotect", "sched_yield", "nanosleep"]
        .iter()
        .filter(|call| count(call) > 0)
        .collect();
    ensure!(foreign.is_empty(), "memory or time is asked for on the path: {foreign:?}");
    Ok(())
}

/// Two containers on the first host, one on the other.
fn three(net: &Topology) -> Result<(Attached, Attached, Attached)> {
    net.host(0).launch(&WORKERS)?;
    net.host(1).launch(&["node01", WORKERS[0], WORKERS[1]])?;
    let (web, app) = (net.host(0).attach("web")?, net.host(0).attach("app")?);
    let db = net.host(1).attach("db")?;
    web.ping(&db)?;
    app.ping(&web)?;
    Ok((web, app, db))
}

/// Sends numbered datagrams in many flows and counts those of each that arrive; fails when one comes after a later one.
fn numbered(from: &Attached, to: &Attached) -> Result<BTreeMap<SocketAddr, u64>> {
    let at = SocketAddr::new(to.address(), 7000);
    let socket = to.namespace().run(|| UdpSocket::bind(at))??;
    socket.set_read_timeout(Some(secs(0.5)))?;
    let sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, &sent));
        let done = from.namespace().run(|| send(at));
        sent.store(true, Ordering::Relaxed);
        let received = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        done??;
        received
    })
}

fn send(to: SocketAddr) -> Result<()> {
    let bind = || UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(to).map(|()| socket));
    let sockets: Vec<UdpSocket> = (0..FLOWS).map(|_| bind()).collect::<std::io::Result<_>>()?;
    for number in 0..DATAGRAMS {
        for (flow, socket) in sockets.iter().enumerate() {
            // Of several sizes, so that some can be joined and some cannot.
            let mut datagram = vec![0; 64 + (flow % 3) * 200 + number as usize % 2];
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            // A full buffer here loses a datagram, and reorders none.
            let _ = socket.send(&datagram);
        }
        if number.is_multiple_of(4) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, sent: &AtomicBool) -> Result<BTreeMap<SocketAddr, u64>> {
    let mut flows: BTreeMap<SocketAddr, (u64, Option<u64>)> = BTreeMap::new();
    let mut buffer = [0; 2048];
    loop {
        let from = match socket.recv_from(&mut buffer) {
            Ok((_, from)) => from,
            Err(_) if sent.load(Ordering::Relaxed) => break,
            Err(_) => continue,
        };
        let number = buffer.first_chunk().copied().map(u64::from_be_bytes);
        let (count, last) = flows.entry(from).or_default();
        ensure!(*last < number, "of {from} {number:?} came after {last:?}");
        (*count, *last) = (*count + 1, number);
    }
    Ok(flows.into_iter().map(|(from, (count, _))| (from, count)).collect())
}

/// A counter of the kernel's TCP in a namespace (linux/snmp.h, shown in /proc/net/netstat).
fn tcp_counter(namespace: &Namespace, name: &str) -> Result<u64> {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (rows.next().context("no TcpExt")?, rows.next().context("no TcpExt")?);
    let value = names.zip(values).find(|(known, _)| *known == name).map(|(_, value)| value);
    Ok(value.with_context(|| format!("no counter {name}"))?.parse()?)
}

/// How many workers of a host have carried frames from containers or from other hosts.
fn busy_workers(host: &Host) -> Result<usize> {
    let status = host.status()?;
    let workers = status.pointer("/dataplane/workers").and_then(|w| w.as_array()).context("no workers")?;
    let number = |worker: &netns_tests::Value, key| worker.get(key).and_then(|n| n.as_u64()).unwrap_or(0);
    let busy = |worker: &&netns_tests::Value| {
        number(worker, "port_frames_in") + number(worker, "remote_frames_in") > 1000
    };
    Ok(workers.iter().filter(busy).count())
}

/// The names of all system calls that the workers of a host make within two seconds.
fn calls_of_workers(host: &Host, net: &Topology) -> Result<Vec<String>> {
    let pid = host.daemon_pid().context("no daemon")?;
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.starts_with("worker-") {
            threads.push(format!("-p {}", task.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
    ensure!(threads.len() == 4, "four workers were asked for: {threads:?}");
    let file = net.directory().join("calls");
    // Without -f: only the threads named are traced.
    let line =
        format!("--preserve-status -s INT 2 strace -qq -s 0 -o {} {}", file.display(), threads.join(" "));
    Tool::new("timeout").words(&line).outcome()?;
    let text = std::fs::read_to_string(&file).context("strace wrote nothing: apt-get install strace")?;
    let name = |line: &str| {
        let call = line.split_whitespace().find(|word| word.contains('('))?;
        Some(call.split('(').next()?.to_owned())
    };
    Ok(text.lines().filter_map(name).collect())
}
