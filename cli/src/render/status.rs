//! The text of `status`: keys aligned on the right, one block per service.

mod dataplane;

use std::collections::BTreeMap;
use std::fmt::Write;

use peering::mesh::{
    EventStatus, HolderStatus, IpamState, IpamStatus, OwnerStatus, PeerState, RotationStatus, TargetState,
    TargetStatus,
};

use super::Table;
use crate::shape::{ControlPort, Dataplane, DnsForwarded, DnsStatus, NetworkStatus, Peer, Status};

/// Column at which keys end.
const KEY: usize = 15;
/// How many events the overview shows.
const LATEST: usize = 5;

/// The overview.
pub(crate) fn whole(status: &Status) -> String {
    let mut blocks = vec![host(status)];
    // Of the networks that this host does not use there may be thousands.
    let used = |ipam: &&IpamStatus| status.networks.iter().any(|n| n.used && n.network == ipam.network);
    blocks.extend(status.ipam.iter().filter(used).map(addresses));
    blocks.extend(status.dns.as_ref().map(answering));
    blocks.push(switch(&status.dataplane));
    if !status.warnings.is_empty() {
        let lines = status.warnings.iter();
        blocks.push(lines.fold(Block::default(), |block, w| block.line("Warning", &w.message)).done());
    }
    if !status.events.is_empty() {
        blocks.push(events(&status.events));
    }
    format!("\n{}\n", blocks.join("\n"))
}

/// Lines of `key: value`, keys aligned on the right.
#[derive(Default)]
struct Block {
    text: String,
}

impl Block {
    fn line(mut self, key: &str, value: impl AsRef<str>) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{key:>KEY$}: {}", value.as_ref());
        self
    }

    fn lines(self, key: &str, values: impl IntoIterator<Item = String>) -> Self {
        values.into_iter().fold(self, |block, value| block.line(key, value))
    }

    fn done(self) -> String {
        self.text
    }
}

fn host(status: &Status) -> String {
    let cluster = status.cluster_id.as_deref().unwrap_or("none yet");
    let access = match status.open {
        true => "open: there is no secret, and anyone who can reach the control port may join",
        false => "closed: hosts join with the secret alone",
    };
    let encryption = match status.encryption.as_str() {
        "off" => "off (what containers send each other travels in clear)",
        other => other,
    };
    let ControlPort { received, foreign, refused } = &status.control_port;
    let refused: u64 = refused.values().sum();
    Block::default()
        .line("Version", &status.version)
        .line("Host", format!("{} ({})", status.peer_id, status.nickname))
        .line("Cluster", cluster)
        .line("State", &status.state_hash)
        .line("Access", access)
        .line("Encryption", encryption)
        .lines("Secret", status.rotation.as_ref().map(rotation))
        .line("Ready", if status.ready { "yes" } else { "no" })
        .line("Networks", networks(&status.networks))
        .line("Targets", counted(status.targets.iter().map(|t| target_state(t.state))))
        .line("Connections", counted(status.connections.iter().map(|c| target_state(c.state))))
        .line("Peers", peer_count(&status.peers))
        .line(
            "Control port",
            format!("{received} datagrams, {foreign} of them foreign; {refused} hosts refused"),
        )
        .done()
}

/// `3 (2 used here)`.
fn networks(networks: &[NetworkStatus]) -> String {
    let used = networks.iter().filter(|network| network.used).count();
    format!("{} ({used} used here)", networks.len())
}

/// How far the cluster is on its way to another secret.
fn rotation(rotation: &RotationStatus) -> String {
    let RotationStatus { to, hosts, .. } = rotation;
    let has = hosts.iter().filter(|host| host.has).count();
    let others = |missing: fn(&HolderStatus) -> bool| {
        hosts.iter().filter(|host| missing(host)).map(holder).collect::<Vec<_>>().join(", ")
    };
    let all = hosts.len();
    match rotation.phase.as_str() {
        _ if rotation.lost => {
            format!("the way to {to} was given up: no host has it. Another `meshnet secret rotate` may begin")
        }
        "done" if has == all => format!("{to}, since the last rotation on all {all} hosts"),
        "done" => format!("{to}, since the last rotation; left behind: {}", others(|host| !host.has)),
        "spread" => {
            format!("going over to {to}: {has} of {all} hosts have it, not yet {}", others(|host| !host.has))
        }
        _ => format!(
            "going over to {to}: {has} of {all} hosts have it, and it is used; waiting for {}",
            others(|host| host.member && !host.uses)
        ),
    }
}

/// A host on the way to another secret, as far as it matters to those who wait.
pub(crate) fn holder(host: &HolderStatus) -> String {
    let HolderStatus { nickname, .. } = host;
    match host.state {
        _ if !host.member => format!("{nickname} (joined later: it needs the file)"),
        PeerState::Down => format!("{nickname} (down)"),
        PeerState::Alive | PeerState::Suspect => nickname.clone(),
    }
}

fn peer_count(peers: &[Peer]) -> String {
    let without = peers.iter().filter(|p| p.state == PeerState::Alive && p.path.is_none()).count();
    let alarm = if without == 0 { String::new() } else { format!(", {without} without a data path") };
    counted(peers.iter().map(|p| peer_state(p.state))) + &alarm
}

/// `3 (2 alive, 1 down)`.
fn counted<'a>(states: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    states.for_each(|state| *counts.entry(state).or_default() += 1);
    let total: usize = counts.values().sum();
    let parts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}

fn addresses(ipam: &IpamStatus) -> String {
    let state = match (ipam_state(ipam.state), ipam.waiting_for.as_slice()) {
        (state, []) => state.to_owned(),
        (state, hosts) => format!("{state} (for {})", hosts.join(", ")),
    };
    let space = format!("{} owned, {} used, {} free", ipam.owned, ipam.used, ipam.free);
    Block::default()
        .line("Service", "ipam")
        .line("Network", &ipam.network)
        .line("Status", state)
        .line("Range", &ipam.range)
        .line("Addresses", space)
        .done()
}

fn switch(dataplane: &Dataplane) -> String {
    let dropped: u64 = dataplane.drops.values().sum();
    let block = Block::default()
        .line("Service", "dataplane")
        .line("Workers", dataplane.workers.len().to_string())
        .line("Ports", counted(dataplane.ports.iter().map(|p| p.state.as_str())))
        .line("Dropped", format!("{dropped} segments"));
    let refused: Vec<&str> =
        dataplane.offloads.iter().filter(|o| !o.granted).map(|o| o.name.as_str()).collect();
    let block = if refused.is_empty() { block } else { block.line("No offload", refused.join(", ")) };
    match dataplane.unclaimed.len() {
        0 => block.done(),
        n => block.line("Unclaimed", format!("{n} interfaces, see `meshnet status dataplane`")).done(),
    }
}

fn events(events: &[EventStatus]) -> String {
    let latest = &events[events.len().saturating_sub(LATEST)..];
    let lines =
        latest.iter().map(|e| ("Event", format!("{} s ago, {}: {}", e.age_s as u64, e.kind, e.message)));
    lines.fold(Block::default(), |block, (key, value)| block.line(key, value)).done()
}

/// `status peers`.
pub(crate) fn peers(peers: &[Peer]) -> String {
    let mut table = Table::new(&["PEER", "NICKNAME", "ADDRESS", "STATE", "PATH"]);
    for peer in peers {
        let path = match (&peer.path, &peer.reason) {
            (Some(path), _) => format!("{} {} mtu={}", path.kind, path.address, path.mtu),
            (None, Some(reason)) => format!("no data path: {reason}"),
            (None, None) => String::new(),
        };
        let address = peer.address.map_or_else(String::new, |a| a.to_string());
        table.row([&peer.peer_id, &peer.nickname, &address, peer_state(peer.state), &path]);
    }
    table.to_string()
}

/// `status targets` and `status connections`.
pub(crate) fn connections(connections: &[TargetStatus]) -> String {
    let mut table = Table::new(&["TARGET", "STATE", "PEER", "NEXT TRY", "REASON"]);
    for c in connections {
        let next = c.next_try_s.map_or_else(String::new, |s| format!("in {s:.1} s"));
        let (peer, reason) =
            (c.peer_id.as_deref().unwrap_or_default(), c.reason.as_deref().unwrap_or_default());
        table.row([&c.target, target_state(c.state), peer, &next, reason]);
    }
    table.to_string()
}

/// `status ipam`.
pub(crate) fn ipam(networks: &[IpamStatus]) -> String {
    let blocks: Vec<String> = networks.iter().map(|n| addresses(n) + "\n" + &owners(n)).collect();
    blocks.join("\n")
}

fn owners(ipam: &IpamStatus) -> String {
    let total: u64 = ipam.owners.iter().map(|o| o.size).sum();
    let mut table = Table::new(&["OWNER", "NICKNAME", "ADDRESSES", "SHARE", "USED", "STATE"]);
    for OwnerStatus { peer_id, nickname, size, used, state } in &ipam.owners {
        let share = format!("{:.1} %", *size as f64 * 100.0 / total.max(1) as f64);
        table.row([peer_id, nickname, &size.to_string(), &share, &used.to_string(), peer_state(*state)]);
    }
    table.to_string()
}

/// `status dns`.
pub(crate) fn dns(status: &Status) -> String {
    let Some(dns) = &status.dns else { return String::new() };
    let mut table = Table::new(&["NETWORK", "NAME", "ALIASES", "ADDRESSES", "SERVICES", "HOST", "STATE"]);
    for name in &dns.names {
        let addresses: Vec<String> = name.addresses.iter().map(ToString::to_string).collect();
        let services: Vec<String> =
            name.services.iter().map(|(service, port)| format!("{service}:{port}")).collect();
        let state = if name.suspected { "suspect" } else { "alive" };
        let (aliases, addresses, services) =
            (name.aliases.join(","), addresses.join(","), services.join(","));
        let host = host_name(status, &name.peer_id);
        table.row([&name.network, &name.name, &aliases, &addresses, &services, host, state]);
    }
    format!("{}\n{table}", answering(dns))
}

/// What people call a host.
fn host_name<'a>(status: &'a Status, id: &'a str) -> &'a str {
    let peer = status.peers.iter().find(|peer| peer.peer_id == id).map(|peer| peer.nickname.as_str());
    peer.unwrap_or(if id == status.peer_id { &status.nickname } else { id })
}

fn answering(dns: &DnsStatus) -> String {
    let DnsForwarded { answered, failed, refused, from_cache, asked, kept } = &dns.forwarded;
    let upstreams: Vec<String> = dns.upstreams.iter().map(ToString::to_string).collect();
    let forwarded = format!(
        "{answered} answered, {from_cache} of them from the {kept} answers that are kept; {failed} failed, {refused} refused; {asked} asked"
    );
    Block::default()
        .line("Service", "dns")
        .line("Domain", &dns.domain)
        .line("TTL", format!("{} s", dns.ttl_s))
        .line("Upstream", if upstreams.is_empty() { "none".to_owned() } else { upstreams.join(", ") })
        .line("Forwarded", forwarded)
        .line("Names", dns.names.len().to_string())
        .done()
}

/// `status dataplane`.
pub(crate) fn dataplane(dataplane: &Dataplane) -> String {
    format!("{}\n{}", switch(dataplane), dataplane::tables(dataplane))
}

pub(super) fn peer_state(state: PeerState) -> &'static str {
    match state {
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Down => "down",
    }
}

fn target_state(state: TargetState) -> &'static str {
    match state {
        TargetState::Resolving => "resolving",
        TargetState::Connecting => "connecting",
        TargetState::Established => "established",
        TargetState::Waiting => "waiting",
        TargetState::Refused => "refused",
    }
}

fn ipam_state(state: IpamState) -> &'static str {
    match state {
        IpamState::Unfounded => "unfounded",
        IpamState::Waiting => "waiting",
        IpamState::Ready => "ready",
        IpamState::Full => "full",
    }
}

#[cfg(test)]
pub(crate) mod tests;
