//! What goes into a [`Mesh`](super::Mesh) and what comes out of it.

use std::net::{IpAddr, SocketAddr};

use engine::types::{Claim, IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};

use super::config::Target;
use crate::records::ServiceRecord;
use crate::sealing::{Agreement, Trust};

/// A connection, numbered by the shell; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// An attempt to connect, numbered by the mesh; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// A request for addresses or for a network, numbered by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Whom to dial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialTarget {
    /// A peer named by people: resolve it and try every address; whoever answers is the peer.
    Named(Target),
    /// A peer known by its id: another one that answers there is an error.
    Addr {
        /// Where it was seen or says it is, best first.
        addrs: Vec<SocketAddr>,
        /// Who must answer.
        peer: PeerId,
    },
}

/// What the shell must do. Taken out only when what it rests on is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a message, in order, on the stream of a connection.
    Transmit {
        /// The connection.
        conn: ConnId,
        /// One message.
        bytes: Vec<u8>,
    },
    /// Send a datagram on a connection; it may be lost.
    Datagram {
        /// The connection.
        conn: ConnId,
        /// At most 1400 bytes.
        bytes: Vec<u8>,
    },
    /// Connect; the answer is `handle_established` or `handle_dial_failed` with the same number.
    Dial {
        /// The number of the attempt.
        dial: DialId,
        /// Whom to dial.
        target: DialTarget,
    },
    /// Close a connection after what was sent on it; `handle_closed` need not follow.
    Close {
        /// The connection.
        conn: ConnId,
        /// Told to the other side, and to people.
        reason: String,
    },
    /// The answer to `allocate`.
    Allocated {
        /// The request.
        request: RequestId,
        /// The addresses, with the prefix length of the network.
        result: Result<Vec<IpPrefix>, super::AllocError>,
    },
    /// The answer to `create_network`.
    Created {
        /// The request.
        request: RequestId,
        /// The network, or why there is none.
        result: Result<Box<super::NetworkView>, super::NetworkError>,
    },
    /// The answer to `reset`.
    Left {
        /// This host has left and stopped, or goes on as before.
        result: Result<(), LeaveError>,
    },
}

/// This host cannot leave its cluster in good order.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaveError {
    /// Nobody is alive who could take its address space.
    #[error("no other host is alive to take the address space of this one")]
    NobodyTakes,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl LeaveError {
    /// One word for programs, listed in `docs/cli.md`.
    pub fn code(&self) -> &'static str {
        match self {
            LeaveError::NobodyTakes => "nobody_takes_space",
            LeaveError::Stopping => "stopping",
        }
    }
}

/// What the daemon wants to know, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MeshEvent {
    /// Another host is alive, or what it says of itself changed.
    HostUp(HostView),
    /// The host is down: its endpoints were taken down before.
    HostDown {
        /// The host.
        peer: PeerId,
    },
    /// An endpoint of this host must change its addresses to these: another one keeps the one that is missing. The daemon
    /// changes the interface and puts the endpoint again; told again until it did.
    Readdress {
        /// Its port.
        port: PortId,
        /// All addresses that it has from then on.
        addresses: Vec<IpPrefix>,
    },
    /// An endpoint of a live host, or of this one, runs or changed.
    EndpointUp(EndpointView),
    /// The endpoint stopped, was removed, or its host is down.
    EndpointDown {
        /// Its host.
        peer: PeerId,
        /// Its port there.
        port: PortId,
        /// The network it was on.
        vni: Vni,
        /// The MAC address it had.
        mac: MacAddr,
    },
    /// Names are answered with these addresses, or that changed: those of a running endpoint of a live host, or some that
    /// people gave.
    NameUp(NameView),
    /// The names are not answered any more: their holder is gone, or its host is down.
    NameDown {
        /// The host.
        peer: PeerId,
        /// The holder there.
        id: [u8; 8],
        /// The network it was on.
        vni: Vni,
    },
    /// Other hosts know an endpoint of this one that it does not remember, or remembers otherwise. What is not put again
    /// is given up.
    EndpointRecalled(Endpoint),
    /// A network exists, or something about it changed: its number and whether this host uses it too. Endpoints and
    /// external endpoints are told of networks only that this host uses; what was told of the others before is taken
    /// back first.
    NetworkChanged(Box<super::NetworkView>),
    /// This network is the same as another one, which is told of before or after: the ports of this host that were on it
    /// are on that one. Told once in each life of the daemon; [`MeshEvent::NetworkGone`] follows if it was shown.
    NetworkMerged {
        /// What it was.
        network: NetworkId,
        /// What it is.
        into: NetworkId,
    },
    /// A network was removed, or has another number from now on: then [`MeshEvent::NetworkChanged`] follows at once.
    NetworkGone {
        /// The network.
        network: NetworkId,
        /// The number it had.
        vni: Vni,
    },
    /// An external VXLAN endpoint was declared.
    VtepUp {
        /// The network.
        vni: Vni,
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The external VXLAN endpoint was removed.
    VtepDown {
        /// The network.
        vni: Vni,
        /// As it was declared.
        addr: SocketAddr,
    },
    /// The secrets that this host takes are others from now on.
    SecretsChanged,
    /// Something people should know.
    Notice {
        /// One word for programs, in snake case.
        kind: &'static str,
        /// One line for people.
        message: String,
    },
}

/// Another host as the data plane needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostView {
    /// The host.
    pub peer: PeerId,
    /// Its name for people.
    pub nickname: String,
    /// Its data addresses, best first.
    pub candidates: Vec<SocketAddr>,
    /// The one among them that it does not advertise but was seen at.
    pub unadvertised: Option<SocketAddr>,
    /// The networks that it and this host know under the same number.
    pub networks: Vec<(NetworkId, Vni)>,
    /// Its X25519 public key for sessions.
    pub noise_key: [u8; 32],
    /// The suites it can seal with, best first.
    pub suites: Vec<u16>,
    /// Whether frames between it and this host are sealed.
    pub agreement: Agreement,
    /// Whether both trust the underlay between them.
    pub trust: Trust,
    /// The subnets that both trust: between two addresses in them frames go in clear.
    pub trusted: Vec<IpPrefix>,
}

/// An attachment of a container of this host to a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its port, and its id.
    pub port: PortId,
    /// The network.
    pub network: NetworkId,
    /// Its name on the network.
    pub name: String,
    /// Further names, which others may have too.
    pub aliases: Vec<String>,
    /// The container as it was named to `attach`.
    pub container: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpPrefix>,
    /// The interface inside the container.
    pub ifname: String,
    /// False while the container is stopped: the record stays, the name is not answered.
    pub running: bool,
    /// The full id, if it is a Docker container.
    pub docker_id: Option<String>,
    /// People asked for just these addresses: of two endpoints with the same one, this one keeps it.
    pub explicit: bool,
}

/// An endpoint of any host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointView {
    /// Its host.
    pub peer: PeerId,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The number of its network on the wire.
    pub vni: Vni,
    /// Its host's claim on the MAC address.
    pub claim: Claim,
}

/// Names on a network, and what they stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameView {
    /// The host of their holder.
    pub peer: PeerId,
    /// The holder there: the port of an endpoint, or the key of what people gave.
    pub id: [u8; 8],
    /// The network.
    pub network: NetworkId,
    /// The number of the network on the wire.
    pub vni: Vni,
    /// The names, in lower case and relative to the network; the first one is what an address is called.
    pub names: Vec<String>,
    /// What they stand for.
    pub addresses: Vec<IpAddr>,
    /// What is offered there.
    pub services: Vec<ServiceRecord>,
    /// The host does not answer, and nobody knows yet whether it is down.
    pub suspected: bool,
}

/// Why people cannot give a name, or take it back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// There is no such network.
    #[error("there is no such network")]
    UnknownNetwork,
    /// Something of this host has it on the network.
    #[error("{holder} has the name {name} on this network already")]
    Taken {
        /// The name.
        name: String,
        /// Who has it, for people.
        holder: String,
    },
    /// What is asked for breaks a limit of the records.
    #[error("{0} has too many addresses or services, or is too long")]
    TooLong(String),
    /// Another host with the key of this one was there before.
    #[error("this host is a clone: {0}")]
    Clone(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why an external VXLAN endpoint cannot be declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VtepError {
    /// There is no such network.
    #[error("there is no such network")]
    UnknownNetwork,
    /// The frames of the network are sealed, and external endpoints know nothing of that.
    #[error("the frames of the network are sealed")]
    Sealed,
}

/// An external VXLAN endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VtepView {
    /// The network.
    pub network: NetworkId,
    /// Its number on the wire.
    pub vni: Vni,
    /// Where it listens.
    pub addr: SocketAddr,
}
