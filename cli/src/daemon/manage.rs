//! `network create`, `ls`, `inspect`, `rm` and `prune`: what people ask of networks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::types::NetworkId;
use peering::mesh::{EndpointView, NetworkError, NetworkSpec, NetworkView};
use peering::records::SubnetRecord;

use super::Daemon;
use super::attach::STUCK;
use super::networks::unknown;
use super::status::{Nicknames, attachment, state};
use crate::failure::{Failure, code};
use crate::shape::{CreateRequest, Inspected, Listed, Member, Network, NetworkPeer, RemovedNetworks, Subnet};
use crate::spec::spec;

/// What its networks are called where Docker tells drivers apart.
const DRIVER: &str = "meshnet";
/// Every network is on all hosts.
const SCOPE: &str = "global";
/// How long the founding of the cluster is awaited: without addresses there are no networks.
const FOUNDING: Duration = Duration::from_secs(30);

impl Daemon {
    /// Makes a network.
    pub(super) async fn create_network(self: &Arc<Self>, request: CreateRequest) -> Result<Network, Failure> {
        self.refuse_when_stopping()?;
        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let spec = spec(request).map_err(|error| refused(&error))?;
        let spec = NetworkSpec { avoid: self.elsewhere().await?, created_s, ..spec };
        self.refuse_swallowing(&spec).await?;
        let name = spec.name.clone();
        // It is asked for until it is told whom it waited for.
        let mut made = std::pin::pin!(self.peering.create_network(spec));
        let view = match tokio::time::timeout(FOUNDING, &mut made).await {
            Ok(made) => made.map_err(|error| refused(&error))?,
            Err(_) => return Err(self.not_founded(&name).await),
        };
        tracing::info!(network = view.name, id = %view.id, vni = %view.vni, "network is made");
        Ok(shown(&view, 0, &self.nicknames().await))
    }

    async fn not_founded(&self, name: &str) -> Failure {
        let status = self.peering.status().await;
        let waiting: Vec<String> = status.ipam.into_iter().flat_map(|ipam| ipam.waiting_for).collect();
        let whom = if waiting.is_empty() { "other hosts".to_owned() } else { waiting.join(", ") };
        let message = format!(
            "the network {name} was not made within {} s: the cluster is not founded, waiting for {whom}",
            FOUNDING.as_secs()
        );
        Failure::new(code::TIMEOUT, message).hint(STUCK)
    }

    /// All networks.
    pub(super) async fn list_networks(&self) -> Vec<Network> {
        let mut users: BTreeMap<NetworkId, usize> = BTreeMap::new();
        for endpoint in self.peering.endpoints().await {
            *users.entry(endpoint.endpoint.network).or_default() += 1;
        }
        let nicknames = self.nicknames().await;
        let views = self.peering.networks().await;
        let count = |view: &NetworkView| users.get(&view.id).copied().unwrap_or(0);
        views.iter().map(|view| shown(view, count(view), &nicknames)).collect()
    }

    /// Networks with whoever is on them.
    pub(super) async fn inspect_networks(&self, texts: &[String]) -> Result<Vec<Inspected>, Failure> {
        let views: Vec<NetworkView> =
            texts.iter().map(|text| self.network(text)).collect::<Result<_, _>>()?;
        let nicknames = self.nicknames().await;
        let endpoints = self.peering.endpoints().await;
        let inspected = views.iter().map(|view| {
            let on_it = endpoints.iter().filter(|endpoint| endpoint.endpoint.network == view.id);
            let mut members: Vec<Member> = on_it.map(|e| member(e, &view.name, &nicknames)).collect();
            members.sort();
            Inspected { network: shown(view, members.len(), &nicknames), members }
        });
        Ok(inspected.collect())
    }

    /// Removes networks that nobody uses.
    pub(super) async fn remove_networks(&self, texts: &[String]) -> Result<RemovedNetworks, Failure> {
        self.refuse_when_stopping()?;
        let mut removed = Vec::new();
        for text in texts {
            removed.push(self.remove_network(&self.network(text)?).await?);
        }
        removed.sort();
        Ok(RemovedNetworks { removed })
    }

    /// Removes those of these networks that nobody uses.
    pub(super) async fn prune_networks(&self, ids: &[String]) -> Result<RemovedNetworks, Failure> {
        self.refuse_when_stopping()?;
        let mut removed = Vec::new();
        for id in ids {
            // Removed meanwhile by somebody else.
            let Ok(view) = self.network(id) else { continue };
            match self.remove_network(&view).await {
                Ok(name) => removed.push(name),
                Err(failure) if failure.code == "network_in_use" || failure.code == code::UNKNOWN_NETWORK => {
                }
                Err(failure) => return Err(failure),
            }
        }
        removed.sort();
        Ok(RemovedNetworks { removed })
    }

    async fn remove_network(&self, view: &NetworkView) -> Result<String, Failure> {
        let coming = {
            let ports = self.ports();
            // Everybody else is in the records.
            let mut coming = ports.all().filter(|i| i.network == view.id && i.addresses.is_empty());
            coming.next().map(|intent| format!("{} on {}", intent.name, self.hello.nickname))
        };
        if let Some(users) = coming {
            return Err(refused(&NetworkError::InUse { name: view.name.clone(), users }));
        }
        self.peering.remove_network(view.id).await.map_err(|error| match error {
            NetworkError::Unknown => unknown(&view.name),
            other => refused(&other),
        })?;
        tracing::info!(network = view.name, id = %view.id, "network is removed");
        Ok(view.name.clone())
    }
}

/// A network as it is told.
fn shown(view: &NetworkView, endpoints: usize, nicknames: &Nicknames) -> Network {
    Network {
        network: view.name.clone(),
        network_id: view.id.to_string(),
        driver: DRIVER.to_owned(),
        scope: SCOPE.to_owned(),
        vni: view.vni.get(),
        mtu: view.mtu,
        encrypted: view.encrypted,
        internal: view.internal,
        subnets: view.subnets.iter().map(subnet).collect(),
        labels: view.labels.iter().cloned().collect(),
        options: view.options.iter().cloned().collect(),
        created_s: view.created_s,
        endpoints,
        peers: view.peers.iter().map(|peer| nicknames.peer(*peer)).collect(),
    }
}

fn subnet(record: &SubnetRecord) -> Subnet {
    let SubnetRecord { subnet, range, gateway, aux } = record;
    Subnet { subnet: *subnet, range: *range, gateway: *gateway, aux: aux.iter().cloned().collect() }
}

fn member(view: &EndpointView, network: &str, nicknames: &Nicknames) -> Member {
    let NetworkPeer { peer_id, nickname, .. } = nicknames.peer(view.peer);
    let listed = Listed {
        attachment: attachment(&view.endpoint, network),
        peer_id,
        nickname: Some(nickname),
        state: state(view.endpoint.running),
    };
    Member { listed, port: view.endpoint.port.to_string(), docker_id: view.endpoint.docker_id.clone() }
}

fn refused(error: &NetworkError) -> Failure {
    let failure = Failure::new(error.code(), error.to_string());
    match error {
        NetworkError::Exists { .. } => failure.hint("choose another name; `meshnet network ls` lists them"),
        NetworkError::Overlap { .. } => failure.hint("choose another subnet, or none to have a free one"),
        NetworkError::VniInUse { .. } => failure.hint("choose another number, or none to have a free one"),
        NetworkError::NoSubnet => failure.hint("remove networks that nobody uses: `meshnet network prune`"),
        NetworkError::TooMany { .. } => {
            failure.hint("remove those that nobody uses: `meshnet network prune`")
        }
        NetworkError::Unknown => failure.hint("see `meshnet network ls`"),
        NetworkError::InUse { name, .. } => {
            failure.hint(format!("`meshnet network disconnect {name} CONTAINER` where it runs"))
        }
        NetworkError::StoreFailed { .. } => failure.hint("make room in the state directory"),
        NetworkError::Clone { .. } => failure.hint("run it on another host, or stop one of the two"),
        NetworkError::Stopping => failure.hint("start it again with `meshnet launch`"),
        NetworkError::Argument { .. } | NetworkError::Predefined { .. } => failure,
    }
}
