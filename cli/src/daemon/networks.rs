//! The networks of the cluster: what the control plane told of them, by what people call them, and which of them this
//! host's switch has.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Update;
use engine::io::device;
use engine::types::{IpPrefix, NetworkId, PeerId, Vni};
use ipnet::IpNet;
use peering::mesh::{MESH_NETWORK, NetworkView};
use peering::records::SubnetRecord;

use super::Daemon;
use super::devices::endpoint;
use super::ports::Intent;
use super::reattach::reopen;
use crate::failure::{Failure, code};

/// Fewest digits of an id that name a network.
const MIN_DIGITS: usize = 4;

/// All networks, used here or not.
#[derive(Debug, Default)]
pub(super) struct Networks {
    all: BTreeMap<NetworkId, NetworkView>,
    /// The numbers under which the switch has those that this host uses.
    plumbed: BTreeMap<NetworkId, Vni>,
}

impl Networks {
    /// A network is as `view` says. What the tables of the host `own`, which seals or does not, must say of it.
    pub(super) fn change(&mut self, view: &NetworkView, own: PeerId, seals: bool) -> Vec<Update> {
        self.all.insert(view.id, view.clone());
        let used = view.is_used_by(own);
        let mut updates = match used && self.plumbed.get(&view.id) == Some(&view.vni) {
            true => Vec::new(),
            false => self.unplumb(view.id),
        };
        if used {
            self.plumbed.insert(view.id, view.vni);
            updates.push(set_network(view, seals));
        }
        updates
    }

    /// A network is no more. What the tables must say of it.
    pub(super) fn remove(&mut self, network: NetworkId) -> Vec<Update> {
        self.all.remove(&network);
        self.unplumb(network)
    }

    /// The number of a network is another one's already when two change at once.
    fn unplumb(&mut self, network: NetworkId) -> Vec<Update> {
        let Some(vni) = self.plumbed.remove(&network) else { return Vec::new() };
        match self.plumbed.values().any(|other| *other == vni) {
            true => Vec::new(),
            false => vec![Update::RemoveNetwork { vni }],
        }
    }

    pub(super) fn get(&self, network: NetworkId) -> Option<&NetworkView> {
        self.all.get(&network)
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<&NetworkView> {
        let mut all: Vec<&NetworkView> = self.all.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The one network that people mean: by its id, its name, or the first digits of its id.
    pub(super) fn find(&self, text: &str) -> Result<&NetworkView, Failure> {
        let exact = |view: &&NetworkView| view.id.to_string() == text || view.name == text;
        if let Some(view) = self.all.values().find(exact) {
            return Ok(view);
        }
        let digits = text.len() >= MIN_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
        let begins = |view: &&NetworkView| digits && view.id.to_string().starts_with(&text.to_lowercase());
        let mut meant = self.all.values().filter(begins);
        match (meant.next(), meant.next()) {
            (Some(view), None) => Ok(view),
            (Some(one), Some(other)) => Err(ambiguous(text, [one, other])),
            (None, _) => Err(unknown(text)),
        }
    }
}

/// There is no such network.
pub(super) fn unknown(text: &str) -> Failure {
    Failure::new(code::UNKNOWN_NETWORK, format!("there is no network {text}"))
        .hint("see `meshnet network ls`, or make it with `meshnet network create`")
}

fn ambiguous(text: &str, meant: [&NetworkView; 2]) -> Failure {
    let [one, other] = meant.map(|view| &view.name);
    Failure::new(code::AMBIGUOUS_NETWORK, format!("the ids of {one} and {other} begin with {text}"))
        .hint("give more digits, or the name")
}

/// What the switch needs to know of a network. A host that seals does so on `mesh` whatever its founder wished.
pub(super) fn set_network(view: &NetworkView, seals: bool) -> Update {
    let sealed = view.encrypted || (seals && view.id == MESH_NETWORK);
    let gateway = |subnet: &SubnetRecord| IpPrefix { addr: subnet.gateway, len: subnet.subnet.prefix_len() };
    let gateways = view.subnets.iter().map(gateway).collect();
    let NetworkView { vni, name, mtu, .. } = view;
    Update::SetNetwork { vni: *vni, name: name.clone(), mtu: *mtu, sealed, gateways }
}

/// The subnets of a network, as far as they are known.
pub(super) fn subnets(view: &NetworkView) -> impl Iterator<Item = IpNet> + '_ {
    view.subnets.iter().map(|subnet| subnet.subnet)
}

impl Daemon {
    /// The network that people call `text`.
    pub(super) fn network(&self, text: &str) -> Result<NetworkView, Failure> {
        self.networks.borrow().find(text).cloned()
    }

    /// Its id.
    pub(super) fn network_id(&self, text: &str) -> Result<NetworkId, Failure> {
        self.network(text).map(|view| view.id)
    }

    /// What people call a network.
    pub(super) fn network_name(&self, id: NetworkId) -> String {
        self.networks.borrow().get(id).map_or_else(|| id.to_string(), |view| view.name.clone())
    }

    /// Ports of this host that were on `from` are on `into`, whatever its name and number are now.
    pub(super) async fn follow_network(self: Arc<Self>, from: NetworkId, into: NetworkId) {
        let _turn = self.turn.lock().await;
        let Some(view) = self.networks.borrow().get(into).cloned() else { return };
        let follows = |i: &&Intent| i.network == from && (from != into || i.is_behind(&view));
        let behind: Vec<Intent> = self.ports().all().filter(follows).cloned().collect();
        for intent in behind {
            let container = intent.container.clone();
            if let Err(failure) = self.move_port(intent, &view).await {
                let message = format!("the port of {container} could not follow its network: {failure}");
                self.tell("port_lost", message);
            }
        }
    }

    /// A port goes over to another number. Its interface stays; frames wait for the moment that it takes.
    async fn move_port(self: &Arc<Self>, intent: Intent, view: &NetworkView) -> Result<(), Failure> {
        let renumbered = intent.vni != view.vni;
        let moved = intent.moved_to(view);
        self.keep(moved.clone()).await?;
        if moved.addresses.is_empty() {
            return Ok(());
        }
        if renumbered && self.opened().remove(&moved.port) {
            self.engine.remove_device(moved.port);
            self.tell_askers();
            let port = moved.port;
            let found = self.blocking(move |_| device::find(&[port]).pop()).await?;
            let gone = || Failure::new(code::DEVICE_FAILED, "its interface is gone");
            return reopen(self, moved, found.ok_or_else(gone)?).await;
        }
        self.peering.put_endpoint(endpoint(&moved)).await;
        Ok(())
    }
}

impl Intent {
    /// The network of the port has another number or name by now.
    pub(super) fn is_behind(&self, view: &NetworkView) -> bool {
        self.network == view.id && (self.vni != view.vni || self.network_name != view.name)
    }

    /// The same port on a network as that is now.
    pub(super) fn moved_to(&self, view: &NetworkView) -> Intent {
        Intent { network: view.id, network_name: view.name.clone(), vni: view.vni, ..self.clone() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const OWN: PeerId = PeerId([1; 16]);

    /// A network whose id has this byte everywhere, used by this host.
    pub(in crate::daemon) fn view(id: u8, vni: u32) -> NetworkView {
        NetworkView {
            id: NetworkId([id; 32]),
            name: format!("net{id}"),
            vni: Vni::new(vni).unwrap(),
            subnets: Vec::new(),
            mtu: 1450,
            encrypted: false,
            internal: false,
            labels: Vec::new(),
            options: Vec::new(),
            created_s: 0,
            peers: vec![OWN],
            founded: true,
        }
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    #[test]
    fn a_network_is_in_the_switch_while_this_host_uses_it() {
        let mut networks = Networks::default();
        let elsewhere = NetworkView { peers: vec![PeerId([2; 16])], ..view(1, 5000) };
        assert_eq!(networks.change(&elsewhere, OWN, false), []);
        let used = view(1, 5000);
        assert_eq!(networks.change(&used, OWN, false), [set_network(&used, false)]);
        assert_eq!(networks.change(&elsewhere, OWN, false), [Update::RemoveNetwork { vni: vni(5000) }]);
        assert_eq!(networks.remove(used.id), []);
        networks.change(&used, OWN, false);
        assert_eq!(networks.remove(used.id), [Update::RemoveNetwork { vni: vni(5000) }]);
    }

    #[test]
    fn a_number_that_goes_over_to_another_network_is_not_taken_from_it() {
        let mut networks = Networks::default();
        networks.change(&view(2, 5000), OWN, false);
        let (winner, loser) = (view(1, 5000), view(2, 5001));
        assert_eq!(networks.change(&winner, OWN, false), [set_network(&winner, false)]);
        assert_eq!(networks.change(&loser, OWN, false), [set_network(&loser, false)]);
        let renumbered = view(1, 5002);
        let expected = [Update::RemoveNetwork { vni: vni(5000) }, set_network(&renumbered, false)];
        assert_eq!(networks.change(&renumbered, OWN, false), expected);
    }

    #[test]
    fn a_network_is_found_by_id_name_and_first_digits() {
        let mut networks = Networks::default();
        for id in [0xab, 0xac] {
            networks.change(&view(id, 4096 + u32::from(id)), OWN, false);
        }
        let mut odd = view(0x11, 4100);
        odd.name = "abab".to_owned();
        networks.change(&odd, OWN, false);
        let found = |text: &str| networks.find(text).map(|view| view.id.0[0]);
        assert_eq!(found("net171"), Ok(0xab));
        assert_eq!(found(&"ac".repeat(32)), Ok(0xac));
        assert_eq!((found("ABABa"), found("acac")), (Ok(0xab), Ok(0xac)));
        // A name counts for more than the beginning of an id.
        assert_eq!(found("abab"), Ok(0x11));
        for text in ["ab", "net", "red", "", "abac"] {
            assert_eq!(found(text).unwrap_err().code, code::UNKNOWN_NETWORK, "{text}");
        }
        let mut twin = view(0xac, 4200);
        twin.id.0[31] = 0;
        networks.change(&twin, OWN, false);
        assert_eq!(networks.find("acac").unwrap_err().code, code::AMBIGUOUS_NETWORK);
    }

    #[test]
    fn a_network_is_sealed_as_it_says_and_mesh_also_as_this_host_wishes() {
        let sealed = |id: NetworkId, seals, encrypted| {
            let view = NetworkView { id, encrypted, ..view(1, 5000) };
            matches!(set_network(&view, seals), Update::SetNetwork { sealed: true, .. })
        };
        let all = [(false, false), (false, true), (true, false), (true, true)];
        let of = |id| all.map(|(seals, encrypted)| sealed(id, seals, encrypted));
        assert_eq!(of(MESH_NETWORK), [false, true, true, true]);
        assert_eq!(of(NetworkId([1; 32])), [false, true, false, true]);
    }
}
