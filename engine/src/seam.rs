//! The whole seam between the planes: tables pushed in, reports out.
//!
//! The control plane says what is; the engine says what it saw. Nothing else crosses, except
//! that the daemon opens and closes the devices of its own host (`engine::io`).

use std::net::{IpAddr, SocketAddr};

use crate::session::suite::Suite;
use crate::types::{Claim, Holder, IpPrefix, Location, MacAddr, PeerId, PeerKeys, PortId, Vni};

/// A change of the tables, told by the control plane. Applying one twice changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Update {
    /// A network exists on this host, or its settings changed.
    SetNetwork {
        /// Its number on the wire.
        vni: Vni,
        /// What it is called: `name.NETWORK` is a name on it.
        name: String,
        /// The largest packet of the overlay, in bytes, without the Ethernet header.
        mtu: u16,
        /// Whether its frames go between hosts sealed only: what comes in clear is dropped, and nothing leaves so.
        sealed: bool,
        /// The address of the gateway in each of its subnets, with the prefix of that subnet. The switch answers for them.
        gateways: Vec<IpPrefix>,
    },
    /// The network is gone from this host, with all its pins and VTEPs.
    RemoveNetwork {
        /// The network.
        vni: Vni,
    },
    /// Another host is alive: where it may be reached, and what it takes part in.
    SetPeer {
        /// The host.
        peer: PeerId,
        /// Its data addresses, best first; the first that answers a probe becomes the path. Datagrams
        /// from any of them are accepted.
        candidates: Vec<SocketAddr>,
        /// The candidate that it does not advertise but was seen at, if there is one: an address of something that
        /// translates, which may let only what comes from the data port through.
        unadvertised: Option<SocketAddr>,
        /// The networks it has: where floods go to, and whose frames are accepted from it.
        networks: Vec<Vni>,
        /// What sessions with it need; none: there are none.
        keys: Option<PeerKeys>,
        /// The subnets of the underlay that this host and the peer both trust: between two addresses in them frames go in
        /// clear, also those of sealed networks.
        trusted: Vec<IpPrefix>,
    },
    /// The host is down or unknown: its path and its sessions end and its datagrams are dropped.
    RemovePeer {
        /// The host.
        peer: PeerId,
    },
    /// An external VXLAN endpoint takes part in a network.
    AddVtep {
        /// The network.
        vni: Vni,
        /// Where it listens; datagrams are accepted from this IP address with any source port.
        addr: SocketAddr,
    },
    /// The external endpoint takes no part any more.
    RemoveVtep {
        /// The network.
        vni: Vni,
        /// As it was added.
        addr: SocketAddr,
    },
    /// An endpoint owns a MAC address. Of two claims on one MAC the winner is used
    /// ([`Claim::beats`]); the loser is kept for the day the winner goes.
    Pin {
        /// The network.
        vni: Vni,
        /// The endpoint's MAC address.
        mac: MacAddr,
        /// The claim; at most one pin per (network, MAC, claiming peer).
        claim: Claim,
        /// Where it lives.
        location: Location,
        /// Its addresses: ARP requests for them are answered by the switch.
        addrs: Vec<IpAddr>,
    },
    /// The claim of `peer` on a MAC address ends.
    Unpin {
        /// The network.
        vni: Vni,
        /// The MAC address.
        mac: MacAddr,
        /// The host whose claim ends.
        peer: PeerId,
    },
    /// What an endpoint or an entry of people is called on a network, in place of what was said of it before.
    SetNames {
        /// The network.
        vni: Vni,
        /// Who.
        holder: Holder,
        /// Its names, relative to the network: `web`, or `_http._tcp.web`. Others may have the same.
        names: Vec<String>,
        /// Its addresses; a holder without one is known all the same.
        addrs: Vec<IpAddr>,
        /// What it offers: questions for SRV.
        services: Vec<Service>,
        /// Its host does not answer for the moment: other holders of a name are told first.
        suspected: bool,
    },
    /// It has no names any more.
    RemoveNames {
        /// The network.
        vni: Vni,
        /// Who.
        holder: Holder,
    },
    /// What a port may ask for. Until it is told: names of the network it is on. Forgotten when the port is closed.
    SetAsker {
        /// The port.
        port: PortId,
        /// All networks that its container is on, its own first.
        networks: Vec<Vni>,
        /// Names that exist for this port alone and are looked up first, each with the name that it stands for.
        links: Vec<(String, String)>,
        /// Whether names that are not ours become an [`Event::Question`]; else they are refused.
        forwards: bool,
    },
    /// How names are answered.
    SetDns {
        /// For how many seconds an answer may be kept.
        ttl_s: u32,
    },
    /// The answer to an [`Event::Question`]. One that comes too late is dropped.
    Answer {
        /// Which one.
        question: u64,
        /// The whole DNS message; its id is set here.
        message: Vec<u8>,
    },
}

/// Something that an endpoint offers, as it is asked for by SRV (RFC 2782).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Service {
    /// What it is called, relative to the network: `_http._tcp.web`.
    pub name: String,
    /// Where it listens.
    pub port: u16,
}

/// What the engine saw, for the control plane and for `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A candidate address of a peer answered a probe and now carries its frames.
    PathUp {
        /// The peer.
        peer: PeerId,
        /// The address in use.
        addr: SocketAddr,
        /// The largest overlay packet that was shown to pass, in bytes.
        mtu: u16,
    },
    /// No candidate of the peer answers.
    PathDown {
        /// The peer.
        peer: PeerId,
        /// What was tried, for people.
        reason: String,
    },
    /// Frames to the peer are sealed in a session from now on; told once, not for each renewal.
    SessionUp {
        /// The peer.
        peer: PeerId,
        /// How they are sealed.
        suite: Suite,
    },
    /// There is no session with the peer any more, or none could be begun.
    SessionDown {
        /// The peer.
        peer: PeerId,
        /// Why, for people.
        reason: String,
    },
    /// How frames of sealed networks go to the peer from now on: in clear, as both hosts trust the way, or sealed, as they do
    /// until this is told.
    InClear {
        /// The peer.
        peer: PeerId,
        /// In clear.
        clear: bool,
    },
    /// An address or a route of this host has changed.
    UnderlayChanged,
    /// A port asks for a name that is not ours. Whoever knows tells an [`Update::Answer`], or nothing.
    Question {
        /// Names the question in the answer.
        question: u64,
        /// Who asks.
        port: PortId,
        /// The whole DNS message.
        message: Vec<u8>,
        /// It came over TCP: an answer of any length can be passed on.
        tcp: bool,
    },
    /// The gateway of this host failed, and has begun anew: TCP connections to it and open questions are lost.
    GatewayFault {
        /// What went wrong, for people.
        reason: String,
    },
    /// The device of a port is gone: its namespace died or somebody deleted it.
    PortGone {
        /// The port.
        port: PortId,
        /// What was seen, for people.
        reason: String,
    },
}
