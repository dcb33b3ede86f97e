//! Every reason for which a frame is dropped.

/// Declares the reasons once: variant, name for people and machines, meaning.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame or a datagram was not passed on. Names are stable: `status` and scripts rely on them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name in `status` and in JSON, snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than an Ethernet header.
    Runt = "runt",
    /// The frame ends inside an 802.1Q tag.
    TruncatedTag = "truncated_tag",
    /// The datagram is shorter than a VXLAN header.
    TruncatedVxlan = "truncated_vxlan",
    /// The datagram is shorter than a probe.
    TruncatedProbe = "truncated_probe",
    /// The kernel had more of a datagram or frame than the buffer could hold; the rest is lost.
    TruncatedReceive = "truncated_receive",
    /// The source address is a group address or zero: no station has such an address.
    GroupSource = "group_source",
    /// The source address is the gateway's, which no station may use.
    GatewaySource = "gateway_source",
    /// The destination is a group address that bridges never forward (IEEE 802.1Q section 8.6.3).
    ReservedGroup = "reserved_group",
    /// This host has no network with this VNI.
    UnknownVni = "unknown_vni",
    /// The datagram comes from an address that is no peer's and no VTEP's.
    UnknownSource = "unknown_source",
    /// The sender is known, but takes no part in this network.
    NotOnNetwork = "not_on_network",
    /// A VXLAN header without the I flag (RFC 7348 section 5).
    VxlanFlags = "vxlan_flags",
    /// VXLAN-GPE, which may carry other things than Ethernet.
    Gpe = "gpe",
    /// A datagram on the data port that is neither VXLAN nor of a type this host knows.
    NotOurs = "not_ours",
    /// An answer to no probe of ours, or one that came too late.
    StaleProbe = "stale_probe",
    /// More probes than are answered in a second.
    ProbeLimit = "probe_limit",
    /// The frame is larger than the network's MTU and cannot be cut.
    TooBig = "too_big",
    /// The virtio-net header contradicts the frame.
    BadOffload = "bad_offload",
    /// The destination is behind the port the frame came from.
    HairpinSamePort = "hairpin_same_port",
    /// From one remote for another: hosts reach each other directly, nobody relays.
    SplitHorizon = "split_horizon",
    /// The destination is on a host to which no data path is known.
    NoPath = "no_path",
    /// More floods from one port than are let through.
    StormLimit = "storm_limit",
    /// The port is not, or no longer, on this host.
    PortGone = "port_gone",
    /// The device took no more frames.
    TapFull = "tap_full",
    /// The socket took no more datagrams.
    SocketFull = "socket_full",
    /// More for a port than its rate limit lets through.
    RateLimit = "rate_limit",
    /// The kernel refused to send; the worker counts and goes on.
    SendFailed = "send_failed",
    /// The kernel refused to take a frame on a device; the worker counts and goes on.
    WriteFailed = "write_failed",
    /// A sealed frame for no session of this host, or one that has ended.
    UnknownSession = "unknown_session",
    /// A sealed frame that its sender did not seal, or a broken header.
    BadSealed = "bad_sealed",
    /// A sealed frame that was opened before, or is too old to tell.
    Replayed = "replayed",
    /// A frame in clear on a network whose frames are sealed.
    PlainOnSealed = "plain_on_sealed",
    /// For a host with which there is no session yet; one is begun.
    NoSession = "no_session",
    /// The session has sealed as much as its cipher allows under one key; a new one is begun.
    SessionUsedUp = "session_used_up",
    /// A handshake datagram of no known form, or not made for this host.
    BadHandshake = "bad_handshake",
    /// A handshake of somebody who is no peer, or with another secret.
    StrangerHandshake = "stranger_handshake",
    /// A handshake that is not newer than one before, or answers none that waits.
    StaleHandshake = "stale_handshake",
    /// More handshakes than are answered in a second.
    HandshakeLimit = "handshake_limit",
    /// More frames for the gateway, or of it, than wait at a time.
    GatewayFull = "gateway_full",
    /// From another host for the gateway, which every host has for its own containers.
    GatewayRemote = "gateway_remote",
    /// Broken headers or a wrong checksum in a frame for the gateway, or no IP at all.
    GatewayMalformed = "gateway_malformed",
    /// A fragment for the gateway, which joins none.
    GatewayFragment = "gateway_fragment",
    /// A packet that the gateway should pass on: it leads nowhere.
    GatewayNoRoute = "gateway_no_route",
    /// For a port or a protocol of the gateway where nobody listens; its sender is told, within limits.
    GatewayClosed = "gateway_closed",
    /// More TCP connections to the gateway than it keeps.
    GatewayStreams = "gateway_streams",
    /// Something at the DNS port of the gateway that is no question.
    GatewayNoQuestion = "gateway_no_question",
    /// The frame with which the gateway failed.
    GatewayFault = "gateway_fault",
    /// A flood on a network where nobody else is.
    NoReceiver = "no_receiver",
    /// From a container, with another source address than the MAC address of its port.
    SpoofedMac = "spoofed_mac",
    /// From a container, with a source address that its port was not given.
    SpoofedIp = "spoofed_ip",
    /// From a container, ARP or neighbour discovery that speaks for another station.
    SpoofedNeighbour = "spoofed_neighbour",
    /// From a container, with an 802.1Q tag.
    TaggedFrame = "tagged_frame",
    /// From a container, neither IPv4, IPv6 nor ARP.
    Ethertype = "ethertype",
    /// From a container, IP whose headers cannot be followed up to the transport.
    HiddenHeader = "hidden_header",
    /// From a container, what a DHCP server answers.
    DhcpAnswer = "dhcp_answer",
    /// From a container, what a router says of itself.
    RouterAdvertisement = "router_advertisement",
    /// From a container, what a router says of better ways.
    Redirect = "redirect",
    /// From a container, the question who wants which multicast groups.
    GroupQuery = "group_query",
    /// From another host, with the source address of a container of this one.
    LocalSource = "local_source",
    /// A report of multicast groups that is for this switch alone: taken note of.
    GroupReport = "group_report",
    /// A report of more multicast groups than are kept.
    GroupLimit = "group_limit",
    /// For a multicast group that nobody has joined.
    NoMember = "no_member",
    /// The question for a router, on a network that has none.
    RouterSolicitation = "router_solicitation",
    /// An announcement of what every host of the network has been told already.
    ToldAlready = "told_already",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}
