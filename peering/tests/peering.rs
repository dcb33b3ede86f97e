//! What a host does with others, over real QUIC.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test panics, waits by the clock and opens sockets"
)]

mod hosts;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hosts::{Host, config, endpoint, ip, request, within};
use peering::io::{Peering, StartError};
use peering::mesh::{AllocError, MeshEvent, PeerState, Target, TargetState};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_host_starts_alone_and_stops_without_a_trace() {
    let host = Host::start(1, &[]).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&host.dir.path().join("identity")), 0o600);

    let again = Peering::start(config(host.dir.path(), 2, 0, Vec::new())).await.unwrap_err();
    assert_eq!(again.code(), "state_dir_in_use");
    assert!(again.to_string().contains(&format!("(pid {})", std::process::id())), "{again}");
    let other = tempfile::tempdir().unwrap();
    let taken = Peering::start(config(other.path(), 1, host.port, Vec::new())).await.unwrap_err();
    assert!(matches!(taken, StartError::Bind(_)) && taken.code() == "port_in_use", "{taken}");
    assert!(taken.to_string().contains(&format!("(pid {})", std::process::id())), "{taken}");

    let start = Instant::now();
    host.peering.stop().await;
    host.peering.stop().await;
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(!host.dir.path().join("lock").exists());
    std::net::UdpSocket::bind((ip(1), host.port)).expect("the port is free");
    assert_eq!(host.status().await.peer_id, host.id().to_string());
    assert_eq!(host.peering.allocate(request(&host, 1)).await, Err(AllocError::Stopping));
}

#[tokio::test]
async fn two_hosts_learn_of_each_other_and_of_a_stop_at_once() {
    let mut a = Host::start(1, &[]).await;
    let b = Host::start(2, &[&a]).await;
    within("both alive", 3, async || {
        a.sees(&b, PeerState::Alive).await && b.sees(&a, PeerState::Alive).await
    })
    .await;
    let target = b.status().await.targets[0].clone();
    assert_eq!((target.state, target.peer_id), (TargetState::Established, Some(a.id().to_string())));
    let up = timeout(Duration::from_secs(3), async {
        loop {
            if let MeshEvent::HostUp(view) = a.events.recv().await.unwrap() {
                break view;
            }
        }
    });
    let up = up.await.unwrap();
    assert_eq!((up.peer, up.nickname.as_str()), (b.id(), "node02"));
    assert_eq!(up.candidates, [SocketAddr::new(ip(2), 4789)]);

    b.peering.put_endpoint(endpoint(&b, "db")).await;
    a.peering.put_endpoint(endpoint(&a, "web")).await;
    within("endpoints", 2, async || a.knows_endpoint("db").await && b.knows_endpoint("web").await).await;
    let (status_a, status_b) = (a.status().await, b.status().await);
    assert_eq!(status_a.state_hash, status_b.state_hash);

    b.peering.stop().await;
    within("down", 1, async || a.sees(&b, PeerState::Down).await).await;
}

#[tokio::test]
async fn hosts_with_a_common_peer_find_each_other() {
    let b = Host::start(2, &[]).await;
    let a = Host::start(1, &[&b]).await;
    let c = Host::start(3, &[]).await;
    b.peering.connect(vec![c.target()], false).await;
    a.peering.put_endpoint(endpoint(&a, "web")).await;
    within("a and c", 5, async || a.sees(&c, PeerState::Alive).await && c.sees(&a, PeerState::Alive).await)
        .await;
    within("the endpoint", 3, async || c.knows_endpoint("web").await).await;
    within("one connection each", 5, async || {
        a.status().await.connections.iter().filter(|row| row.state == TargetState::Established).count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_crash_and_a_start_later_it_is_the_same_host() {
    let a = Host::start(1, &[]).await;
    let b = Host::start(2, &[&a]).await;
    within("both alive", 3, async || a.sees(&b, PeerState::Alive).await).await;
    b.peering.put_endpoint(endpoint(&b, "db")).await;
    let before = b.id();
    // As a crash ends it: nobody is told.
    let b = b.start_again().await;
    assert_eq!(b.id(), before);
    assert!(b.knows_endpoint("db").await);
    within("alive again", 5, async || {
        a.sees(&b, PeerState::Alive).await && b.sees(&a, PeerState::Alive).await
    })
    .await;
    b.peering.put_endpoint(endpoint(&b, "cache")).await;
    within("the endpoint", 2, async || a.knows_endpoint("cache").await).await;
}

#[tokio::test]
async fn a_torn_state_is_set_aside_and_the_identity_goes_on() {
    let a = Host::start(1, &[]).await;
    let b = Host::start(2, &[&a]).await;
    within("both alive", 3, async || a.sees(&b, PeerState::Alive).await).await;
    b.peering.put_endpoint(endpoint(&b, "db")).await;
    within("the endpoint", 2, async || a.knows_endpoint("db").await).await;
    let (before, path) = (b.id(), b.dir.path().join("state"));
    b.peering.stop().await;
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let mut b = b.start_again().await;
    assert_eq!(b.id(), before);
    let told = loop {
        if let MeshEvent::Notice { kind: "state_set_aside", message } = b.events.recv().await.unwrap() {
            break message;
        }
    };
    assert!(told.contains("is damaged (its length is wrong)"), "{told}");
    assert!(b.status().await.events.iter().any(|event| event.message == told));
    assert!(b.dir.path().join("state.corrupt-1").exists());
    b.peering.connect(vec![a.target()], false).await;
    within("alive again", 5, async || a.sees(&b, PeerState::Alive).await).await;
    // Its records of before are older than those of now, although it has forgotten them.
    b.peering.put_endpoint(endpoint(&b, "cache")).await;
    within("the new endpoint", 5, async || a.knows_endpoint("cache").await).await;
}

#[tokio::test]
async fn targets_that_do_not_answer_have_a_reason_and_a_next_try() {
    let a = Host::start(1, &[]).await;
    let name = "x".repeat(64);
    let nobody = Target { host: ip(9).to_string(), port: 1 };
    a.peering.connect(vec![nobody.clone(), Target { host: name.clone(), port: 6783 }], false).await;
    let row = async |target: String| {
        let targets = a.status().await.targets;
        targets.into_iter().find(|row| row.target == target).unwrap()
    };
    within("reasons", 5, async || {
        row(nobody.to_string()).await.reason.as_deref() == Some("connection refused")
            && row(name.clone()).await.reason.as_deref() == Some(&format!("name {name} not found"))
    })
    .await;
    within("a next try", 2, async || row(nobody.to_string()).await.next_try_s.is_some()).await;
    let itself = a.target();
    a.peering.connect(vec![itself.clone()], true).await;
    within("only itself", 2, async || {
        let targets = a.status().await.targets;
        targets.len() == 1 && targets[0].reason.as_deref() == Some("self")
    })
    .await;
    assert!(a.status().await.peers.is_empty());
    a.peering.forget(vec![itself]).await;
    assert!(a.status().await.targets.is_empty());
}

#[tokio::test]
async fn garbage_is_counted_and_changes_nothing() {
    let a = Host::start(1, &[]).await;
    let b = Host::start(2, &[&a]).await;
    within("both alive", 3, async || a.sees(&b, PeerState::Alive).await).await;
    let scanner = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in 1..=1400_usize {
        let garbage: Vec<u8> = (0..len).map(|at| (at * 31 + len * 7) as u8).collect();
        scanner.send_to(&garbage, a.peering.local_addr()).unwrap();
        if len % 100 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    within("it is counted", 2, async || a.peering.port_counters().foreign > 1000).await;
    b.peering.put_endpoint(endpoint(&b, "db")).await;
    within("life goes on", 2, async || a.knows_endpoint("db").await).await;
}
