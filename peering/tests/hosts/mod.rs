//! Real hosts in one process: QUIC on loopback addresses, state directories that last as long as a test.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use engine::types::{MacAddr, PeerId, PortId};
use peering::io::{Peering, PeeringConfig};
use peering::mesh::{AllocRequest, Endpoint, MESH_NETWORK, MeshEvent, MeshStatus, PeerState, Target};
use peering::records::Encryption;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

/// A host that listens on 127.0.0.`index`.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    pub(crate) index: u8,
    pub(crate) port: u16,
    pub(crate) peering: Peering,
    pub(crate) events: UnboundedReceiver<MeshEvent>,
}

impl Host {
    pub(crate) async fn start(index: u8, targets: &[&Host]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), index, 0, targets.iter().map(|host| host.target()).collect());
        let (peering, events) = Peering::start(config).await.unwrap();
        Host { dir, index, port: peering.local_addr().port(), peering, events }
    }

    /// The same host after its end: same directory, same port, no targets given.
    pub(crate) async fn start_again(self) -> Host {
        let Host { dir, index, port, peering, events } = self;
        drop((peering, events));
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            match Peering::start(config(dir.path(), index, port, Vec::new())).await {
                Ok((peering, events)) => return Host { dir, index, port, peering, events },
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.peering.peer_id()
    }

    pub(crate) fn target(&self) -> Target {
        Target { host: ip(self.index).to_string(), port: self.port }
    }

    pub(crate) async fn status(&self) -> MeshStatus {
        self.peering.status().await
    }

    pub(crate) async fn sees(&self, other: &Host, state: PeerState) -> bool {
        let id = other.id().to_string();
        self.status().await.peers.iter().any(|peer| peer.peer_id == id && peer.state == state)
    }

    pub(crate) async fn knows_endpoint(&self, name: &str) -> bool {
        self.peering.endpoints().await.iter().any(|view| view.endpoint.name == name)
    }
}

pub(crate) fn ip(index: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, index).into()
}

pub(crate) fn config(dir: &Path, index: u8, port: u16, targets: Vec<Target>) -> PeeringConfig {
    PeeringConfig {
        state_dir: dir.to_owned(),
        nickname: format!("node{index:02}"),
        listen: Some(ip(index)),
        port,
        data_port: 4789,
        advertise_addr: None,
        data_addr: None,
        targets,
        range: None,
        reclaim_after: None,
        discovery: true,
        found: false,
        mtu: None,
        version: "test".to_owned(),
        secret: None,
        allowed: None,
        encryption: Encryption::Auto,
        suites: Vec::new(),
        trusted: Vec::new(),
    }
}

pub(crate) async fn within<F: Future<Output = bool>>(what: &str, seconds: u64, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn endpoint(host: &Host, name: &str) -> Endpoint {
    Endpoint {
        port: PortId([host.index; 8]),
        network: MESH_NETWORK,
        name: name.to_owned(),
        aliases: Vec::new(),
        container: format!("netns:{name}"),
        mac: MacAddr::local([host.index; 6]),
        addresses: Vec::new(),
        ifname: "mesh0".to_owned(),
        running: true,
        docker_id: None,
        explicit: false,
    }
}

pub(crate) fn request(host: &Host, port: u8) -> AllocRequest {
    AllocRequest {
        port: PortId([port; 8]),
        network: MESH_NETWORK,
        holder: format!("c{port} on node{:02}", host.index),
        wanted: Vec::new(),
        without_ipv6: false,
    }
}
