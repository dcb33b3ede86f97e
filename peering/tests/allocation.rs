//! Addresses, over real QUIC and a real disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test panics, waits by the clock and opens sockets"
)]

mod hosts;

use std::time::Duration;

use hosts::{Host, config, endpoint, ip, request, within};
use peering::io::Peering;
use peering::mesh::{AllocError, PeerState, Target, TargetState};
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test]
async fn all_at_once_with_one_list_settle_on_one_connection_each() {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    // The ports are known before any host runs, as 6783 is.
    let ports: Vec<u16> = (1..=3)
        .map(|index| std::net::UdpSocket::bind((ip(index), 0)).unwrap().local_addr().unwrap().port())
        .collect();
    let list: Vec<Target> = (1..=3)
        .map(|index| Target { host: ip(index).to_string(), port: ports[usize::from(index) - 1] })
        .collect();
    let mut hosts = Vec::new();
    for (dir, index) in dirs.into_iter().zip(1..=3) {
        let port = ports[usize::from(index) - 1];
        let (peering, events) = Peering::start(config(dir.path(), index, port, list.clone())).await.unwrap();
        hosts.push(Host { dir, index, port, peering, events });
    }
    for host in &hosts {
        within("two peers, two connections", 5, async || {
            let status = host.status().await;
            let alive = status.peers.iter().filter(|peer| peer.state == PeerState::Alive).count();
            let connected =
                status.connections.iter().filter(|row| row.state == TargetState::Established).count();
            (alive, connected) == (2, 2)
        })
        .await;
    }
    let (a, b) = (&hosts[0], &hosts[1]);
    let mine = timeout(Duration::from_secs(5), a.peering.allocate(request(a, 1))).await.unwrap().unwrap();
    let theirs = timeout(Duration::from_secs(5), b.peering.allocate(request(b, 2))).await.unwrap().unwrap();
    assert_ne!(mine, theirs);
    let clusters: Vec<_> = [a.status().await.cluster_id, b.status().await.cluster_id].to_vec();
    assert!(clusters[0].is_some() && clusters[0] == clusters[1], "{clusters:?}");
}

#[tokio::test]
async fn a_restart_keeps_who_one_is_and_what_one_had() {
    let a = Host::start(1, &[]).await;
    let b = Host::start(2, &[&a]).await;
    within("both alive", 3, async || a.sees(&b, PeerState::Alive).await).await;
    let address = timeout(Duration::from_secs(5), b.peering.allocate(request(&b, 7))).await.unwrap().unwrap();
    let before = b.id();
    // As a crash ends it: nobody is told.
    let b = b.start_again().await;
    assert_eq!(b.id(), before);
    within("alive again", 5, async || {
        a.sees(&b, PeerState::Alive).await && b.sees(&a, PeerState::Alive).await
    })
    .await;
    let again = timeout(Duration::from_secs(5), b.peering.allocate(request(&b, 7))).await.unwrap().unwrap();
    assert_eq!(again, address);
    b.peering.put_endpoint(endpoint(&b, "db")).await;
    within("the endpoint", 2, async || a.knows_endpoint("db").await).await;
}

#[tokio::test]
async fn a_waiting_request_can_be_given_up() {
    // The only target does not answer, so the closure is not complete and nobody founds.
    let a = Host::start(1, &[]).await;
    a.peering.connect(vec![Target { host: ip(9).to_string(), port: 1 }], false).await;
    let waiting = timeout(Duration::from_millis(300), a.peering.allocate(request(&a, 1))).await;
    assert!(waiting.is_err(), "{waiting:?}");
    a.peering.connect(Vec::new(), true).await;
    let got = timeout(Duration::from_secs(5), a.peering.allocate(request(&a, 2))).await.unwrap().unwrap();
    assert_eq!(got[0].to_string(), "10.32.0.2/12", "what was given up took an address");
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_until_it_can() {
    let a = Host::start(1, &[]).await;
    let within_5s =
        async |port| timeout(Duration::from_secs(5), a.peering.allocate(request(&a, port))).await.unwrap();
    within_5s(1).await.unwrap();
    // A directory is in the way of the file, for root too.
    let beside = a.dir.path().join("state.new");
    std::fs::create_dir(&beside).unwrap();
    let refused = within_5s(2).await.unwrap_err();
    assert!(matches!(refused, AllocError::StoreFailed { .. }), "{refused}");
    let state = a.dir.path().join("state");
    let why = format!("cannot write {}: is a directory", state.display());
    assert!(refused.to_string().contains(&why), "{refused}");
    assert_eq!(a.status().await.peer_id, a.id().to_string());
    std::fs::remove_dir(&beside).unwrap();
    within_5s(3).await.unwrap();
}
