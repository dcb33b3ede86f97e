//! Attach and detach.
//!
//! A port is made in steps, and whatever step fails, or whoever loses patience, the ones before it are undone:
//! reserved, addresses, intent on disk, device, engine, endpoint record.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use blake2::{Blake2s256, Digest};
use engine::io::nftables::Forwarding;
use engine::io::socket;
use engine::rate::Rate;
use engine::types::{MacAddr, NetworkId, PeerId, PortId};
use peering::mesh::{AllocError, AllocRequest, NetworkView};
use tokio::sync::oneshot;

use super::Daemon;
use super::containers::{self, Found};
use super::devices::endpoint;
use super::networks::unknown;
use super::ports::{Intent, Source};
use crate::failure::{Failure, code};
use crate::shape::{AttachRequest, Attachment, DetachRequest, Detached};

/// What to do about a founding that does not end.
pub(super) const STUCK: &str = "see `meshnet status ipam` and `meshnet status targets`; a cluster is founded once all hosts that it \
                                waits for answer, over IPv4 or IPv6, or by `meshnet launch --found` on one of them";

/// How long the settings of a network may take after an address in it was given.
const SETTINGS: Duration = Duration::from_secs(2);

/// Who waits for an answer; closed when they have gone away.
pub(super) type Caller = oneshot::Sender<Result<Attachment, Failure>>;

/// Who gets a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    /// The container that the request names.
    Container,
    /// This host itself, which passes so much on.
    Host(Forwarding),
}

/// Attaches a container, or this host, and tells the caller, or undoes everything when the caller has gone away.
pub(super) async fn attach(
    daemon: Arc<Daemon>,
    request: AttachRequest,
    subject: Subject,
    mut caller: Caller,
) {
    let outcome = perform(&daemon, &request, subject, &mut caller).await;
    let (answer, made) = match outcome {
        Ok((intent, made)) => (Ok(attachment(&intent)), made.then_some(intent)),
        Err(failure) => (Err(failure), None),
    };
    let heard = caller.send(answer).is_ok();
    match made {
        Some(intent) if !heard => {
            tracing::info!(container = intent.container, "nobody waits for the attachment any more: undone");
            let _turn = daemon.turn.lock().await;
            daemon.remove_port(&intent, None).await;
        }
        // The name of the interface is known only now; to lose it in a crash costs nothing, since the device has it.
        Some(intent) => daemon.keep(intent).await.unwrap_or_else(|e| tracing::warn!("{e}")),
        None => {}
    }
}

/// Finds or makes the port; true when it was made.
async fn perform(
    daemon: &Arc<Daemon>,
    request: &AttachRequest,
    subject: Subject,
    caller: &mut Caller,
) -> Result<(Intent, bool), Failure> {
    daemon.refuse_when_stopping()?;
    let network = daemon.network(&request.network)?;
    let found = match subject {
        Subject::Container => containers::resolve(&daemon.docker, daemon.own, &request.container).await?,
        Subject::Host(_) => Found::host(&daemon.hello.nickname)?,
    };
    let patience = tokio::time::Instant::now() + patience(request);
    loop {
        let changed = daemon.changed.notified();
        let turn = daemon.turn.lock().await;
        match daemon.port_of(network.id, &found) {
            None => {
                let intent = reserve(daemon, request, subject, &network, &found).await?;
                drop(turn);
                return build(daemon, request, found, intent, caller).await.map(|intent| (intent, true));
            }
            Some(intent) if !intent.addresses.is_empty() => {
                compare(request, subject, &intent)?;
                return daemon.start_port(intent, &found.netns).await.map(|intent| (intent, false));
            }
            // Somebody else is about to attach it: their result is ours.
            Some(_) => drop(turn),
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(patience) => return Err(too_slow(daemon, request).await),
            () = caller.closed() => return Err(left()),
        }
    }
}

fn patience(request: &AttachRequest) -> Duration {
    Duration::try_from_secs_f64(request.timeout_s).unwrap_or(Duration::MAX).min(Duration::from_secs(86_400))
}

/// Makes it known that there will be a port, so that nobody else takes its name or attaches the container.
async fn reserve(
    daemon: &Arc<Daemon>,
    request: &AttachRequest,
    subject: Subject,
    network: &NetworkView,
    found: &Found,
) -> Result<Intent, Failure> {
    let port = PortId(rand::random());
    let name = request.name.clone().unwrap_or_else(|| found.name.clone());
    let mac = match &request.mac {
        Some(text) => text.parse().map_err(Failure::internal)?,
        None => mac_of(daemon.peering.peer_id(), port),
    };
    refuse_taken(daemon, network.id, &name, mac)?;
    daemon.refuse_given(network.id, &name, &network.name).await?;
    daemon.refuse_unusable_range(network).await?;
    let id = found.netns.id();
    let intent = Intent {
        port,
        network: network.id,
        network_name: network.name.clone(),
        vni: network.vni,
        mtu: network.mtu,
        container: found.container.clone(),
        source: found.source.clone(),
        netns: (id.dev, id.ino),
        name,
        mac,
        addresses: Vec::new(),
        explicit: !request.ip.is_empty(),
        former: Vec::new(),
        ifname: request.ifname.clone(),
        rate: rate_of(request)?,
        forwarding: match subject {
            Subject::Container => Forwarding::None,
            Subject::Host(forwarding) => forwarding,
        },
        no_spoof_check: request.no_spoof_check,
        running: true,
        aliases: unique(request.aliases.clone()),
        links: unique(request.links.clone()),
        dns: request.dns,
        order: daemon.ports().next_order(),
    };
    daemon.keep(intent.clone()).await?;
    Ok(intent)
}

/// Sorted, each once.
fn unique<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort_unstable();
    items.dedup();
    items
}

fn refuse_taken(daemon: &Daemon, network: NetworkId, name: &str, mac: MacAddr) -> Result<(), Failure> {
    let ports = daemon.ports();
    let mut others = ports.all().filter(|other| other.network == network);
    let Some(other) = others.find(|other| other.name == name || other.mac == mac) else { return Ok(()) };
    let Intent { container, network_name, .. } = other;
    Err(if other.name == name {
        Failure::new(code::NAME_IN_USE, format!("{container} is called {name} on the network {network_name}"))
            .hint("choose another name with --name")
    } else {
        Failure::new(code::MAC_IN_USE, format!("{container} has the MAC address {mac} on {network_name}"))
            .hint("choose another one with --mac")
    })
}

/// Makes the port of a reserved intent, or undoes the reservation.
async fn build(
    daemon: &Arc<Daemon>,
    request: &AttachRequest,
    found: Found,
    intent: Intent,
    caller: &mut Caller,
) -> Result<Intent, Failure> {
    let netns = found.netns.clone();
    let result = match allocate(daemon, request, &intent, caller).await {
        Ok(intent) => {
            let _turn = daemon.turn.lock().await;
            finish(daemon, intent, found, caller).await
        }
        Err(failure) => Err(failure),
    };
    if result.is_err() {
        let _turn = daemon.turn.lock().await;
        daemon.remove_port(&intent, Some(netns)).await;
    }
    result
}

/// Gets the addresses and the settings of the network.
async fn allocate(
    daemon: &Arc<Daemon>,
    request: &AttachRequest,
    intent: &Intent,
    caller: &mut Caller,
) -> Result<Intent, Failure> {
    let ask = AllocRequest {
        port: intent.port,
        network: intent.network,
        holder: intent.name.clone(),
        wanted: request.ip.clone(),
        without_ipv6: daemon.gives_ipv4_alone(intent.network),
    };
    daemon.peering.use_network(intent.network, true).await.map_err(|_| unknown(&intent.network_name))?;
    // It is asked for until it is told whom it waited for.
    let mut asked = std::pin::pin!(daemon.peering.allocate(ask));
    let addresses = tokio::select! {
        answer = &mut asked => answer.map_err(|e| refused(&e))?,
        () = tokio::time::sleep(patience(request)) => return Err(too_slow(daemon, request).await),
        () = caller.closed() => return Err(left()),
    };
    let network = daemon.settings(intent.network, SETTINGS).await?;
    Ok(Intent { addresses, mtu: network.mtu, ..intent.clone() })
}

/// Makes the device and tells everybody. Under the daemon's turn.
async fn finish(
    daemon: &Arc<Daemon>,
    intent: Intent,
    found: Found,
    caller: &Caller,
) -> Result<Intent, Failure> {
    if caller.is_closed() || daemon.ports().by_id(intent.port).is_none() {
        return Err(left());
    }
    // It may have another number by now, and has none other while this goes on.
    let now = daemon.networks.borrow().get(intent.network).map(|view| intent.moved_to(view));
    let intent = now.unwrap_or(intent);
    if intent.source == Source::Host {
        daemon.refuse_overlaps(intent.network).await?;
    }
    daemon.keep(intent.clone()).await?;
    let intent = daemon.make_device(intent, found.netns).await?;
    daemon.peering.put_endpoint(endpoint(&intent)).await;
    daemon.point(&intent.source, true).await;
    tracing::info!(container = intent.container, port = %intent.port, address = %first(&intent), "attached");
    Ok(intent)
}

/// Takes a container off a network. One that is not on it is fine.
pub(super) async fn detach(daemon: &Arc<Daemon>, request: DetachRequest) -> Result<Detached, Failure> {
    let network = daemon.network(&request.network)?;
    let intent = find_attached(daemon, network.id, &request.container).await;
    if request.must && intent.is_none() {
        let message = format!("{} is not on the network {}", request.container, network.name);
        return Err(Failure::new(code::NOT_CONNECTED, message).hint("`meshnet ps` shows who is"));
    }
    if let Some(intent) = &intent {
        daemon.detach_port(intent).await?;
    }
    let container = intent.as_ref().map_or(request.container, |i| i.container.clone());
    Ok(Detached { container, network: network.name, detached: intent.is_some() })
}

/// The port of what people call `text`, also when it can be asked about no more.
async fn find_attached(daemon: &Arc<Daemon>, network: NetworkId, text: &str) -> Option<Intent> {
    let called = |i: &&Intent| i.network == network && i.is_called(text);
    let known = daemon.ports().all().find(called).cloned();
    if known.is_some() {
        return known;
    }
    // Another name for the same container: a shorter id, a process in it, a path to its namespace.
    if let Ok(found) = containers::resolve(&daemon.docker, daemon.own, text).await {
        return daemon.port_of(network, &found);
    }
    let Ok(Some(container)) = daemon.docker.inspect(text).await else { return None };
    let source = Source::Docker { id: container.id };
    daemon.ports().all().find(|i| i.network == network && i.source == source).cloned()
}

impl Daemon {
    /// Removes a port that people want no more.
    pub(super) async fn detach_port(self: &Arc<Self>, intent: &Intent) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        // Detached is detached also after a crash, so it is not done while it cannot be written.
        self.can_keep().await?;
        self.remove_port(intent, None).await;
        tracing::info!(container = intent.container, port = %intent.port, "detached");
        Ok(())
    }

    /// The port of a container on a network, if it has one.
    fn port_of(&self, network: NetworkId, found: &Found) -> Option<Intent> {
        let id = found.netns.id();
        let same = |i: &&Intent| {
            let lasting =
                matches!(i.source, Source::Docker { .. } | Source::Host) && i.source == found.source;
            i.network == network && (lasting || (i.running && i.netns_id() == id))
        };
        self.ports().all().find(same).cloned()
    }
}

/// The rate that is asked for, if any.
fn rate_of(request: &AttachRequest) -> Result<Option<Rate>, Failure> {
    request.rate.as_deref().map(str::parse).transpose().map_err(Failure::internal)
}

/// An attached container asked for again: what was given must be what it has.
fn compare(request: &AttachRequest, subject: Subject, intent: &Intent) -> Result<(), Failure> {
    let differs = |option: &Option<String>, value: &str| option.as_deref().is_some_and(|o| o != value);
    let different = match () {
        () if !has_just(intent, &request.ip) => "--ip",
        () if differs(&request.name, &intent.name) => "--name",
        () if differs(&request.mac, &intent.mac.to_string()) => "--mac",
        () if differs(&request.ifname, intent.ifname.as_deref().unwrap_or_default()) => "--ifname",
        () if request.no_spoof_check && !intent.no_spoof_check => "--no-spoof-check",
        () if request.rate.is_some() && rate_of(request)? != intent.rate => "--rate",
        () if !request.aliases.is_empty() && unique(request.aliases.clone()) != intent.aliases => "--alias",
        () if !request.links.is_empty() && unique(request.links.clone()) != intent.links => "--link",
        () if !request.dns && intent.dns => "--no-dns",
        () => match subject {
            Subject::Host(Forwarding::Routed) if intent.forwarding != Forwarding::Routed => "--route",
            Subject::Host(Forwarding::Masqueraded) if intent.forwarding != Forwarding::Masqueraded => {
                "--masquerade"
            }
            Subject::Host(_) | Subject::Container => return Ok(()),
        },
    };
    let undo = match subject {
        Subject::Container => format!("detach {}", intent.container),
        Subject::Host(_) => format!("hide --network {}", intent.network_name),
    };
    let Intent { container, network_name, name, .. } = intent;
    let message = format!(
        "{container} is attached to the network {network_name} already, as {name} with {}, and {different} differs",
        first(intent)
    );
    Err(Failure::new(code::ALREADY_ATTACHED, message).hint(format!("`meshnet {undo}` first")))
}

/// Whether a port has the addresses that people name, and of their families no other.
fn has_just(intent: &Intent, wanted: &[IpAddr]) -> bool {
    let named = |ip: &&IpAddr| wanted.iter().any(|other| other.is_ipv4() == ip.is_ipv4());
    let has: BTreeSet<IpAddr> = intent.addresses.iter().map(|a| &a.addr).filter(named).copied().collect();
    has == wanted.iter().copied().collect()
}

fn refused(error: &AllocError) -> Failure {
    let hint = match error {
        AllocError::InUse { .. } | AllocError::Reserved { .. } => {
            "choose another address, or none to be given one"
        }
        AllocError::OutsideRange { .. } => "choose an address of the range, or none to be given one",
        AllocError::Exhausted { .. } => {
            "detach what is not needed; `meshnet status ipam` says who holds the space"
        }
        AllocError::MajorityMissed { .. } => {
            "bring the other hosts back; those that are gone for good go with `meshnet rmpeer`"
        }
        AllocError::OwnerDown { .. } => "choose another address, or bring that host back",
        AllocError::StoreFailed { .. } => "make room in the state directory",
        AllocError::UnknownNetwork { .. } => "see `meshnet network ls`",
        AllocError::Clone { .. } => {
            "stop one of the two, or give this one an empty state directory, and with it a key of its own"
        }
        AllocError::Stopping => "start it again with `meshnet launch`",
    };
    Failure::new(error.code(), error.to_string()).hint(hint)
}

impl Daemon {
    /// True where the kernel has no IPv6 at all, so that a port on a network of both families can have an address of IPv4 alone.
    fn gives_ipv4_alone(&self, network: NetworkId) -> bool {
        let networks = self.networks.borrow();
        let subnets = networks.get(network).map(|view| view.subnets.as_slice()).unwrap_or_default();
        subnets.iter().any(|subnet| subnet.gateway.is_ipv4()) && !socket::kernel_has_ipv6()
    }
}

/// No address came in time: says whom it waits for.
async fn too_slow(daemon: &Daemon, request: &AttachRequest) -> Failure {
    let status = daemon.peering.status().await;
    let name = daemon.network(&request.network).map_or_else(|_| request.network.clone(), |view| view.name);
    let ipam = status.ipam.into_iter().filter(|ipam| ipam.network == name);
    let waiting: BTreeSet<String> = ipam.flat_map(|ipam| ipam.waiting_for).collect();
    let waiting: Vec<String> = waiting.into_iter().collect();
    let whom =
        if waiting.is_empty() { String::new() } else { format!(": waiting for {}", waiting.join(", ")) };
    let message = format!("no address on the network {name} within {} s{whom}", request.timeout_s);
    Failure::new(code::TIMEOUT, message).hint(STUCK)
}

/// Said to nobody: the caller is gone.
fn left() -> Failure {
    Failure::new(code::CANCELLED, "the container was detached, or the caller left, before it was attached")
}

/// The MAC address of a port that was given none.
pub(super) fn mac_of(peer: PeerId, port: PortId) -> MacAddr {
    let hash = Blake2s256::new().chain_update(peer.0).chain_update(port.0).finalize();
    let mut octets = [0; 6];
    octets.copy_from_slice(&hash[..6]);
    MacAddr::local(octets)
}

/// What people are told of a port.
fn attachment(intent: &Intent) -> Attachment {
    super::status::attachment(&endpoint(intent), &intent.network_name)
}

fn first(intent: &Intent) -> String {
    intent.addresses.first().map_or_else(|| "no address".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests;
