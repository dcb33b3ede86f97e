//! The arguments of `meshnet launch`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::{IpNet, Ipv4Net};
use peering::mesh::Target;

use super::Format;
use super::value::{duration, name, range, subnet};

#[derive(Args, Clone, Debug)]
pub(crate) struct LaunchArgs {
    /// Peers to connect to, as HOST[:PORT]; this host itself may be among them
    #[arg(value_name = "PEER")]
    pub(crate) peers: Vec<Target>,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Where identity, addresses and ports are kept
    #[arg(long, value_name = "DIR", env = "MESHNET_STATE_DIR", default_value = "/var/lib/meshnet")]
    pub(crate) state_dir: PathBuf,
    /// What people call this host [default: its host name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) nickname: Option<String>,
    /// UDP port of the control plane
    #[arg(long, value_name = "PORT", default_value_t = 6783, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// UDP port of the data plane
    #[arg(long, value_name = "PORT", default_value_t = 4789, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) data_port: u16,
    /// The one address both ports are bound to [default: all]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<IpAddr>,
    /// The address other hosts are told for both ports
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise_addr: Option<IpAddr>,
    /// The address other hosts are told for the data port alone
    #[arg(long, value_name = "ADDR")]
    pub(crate) data_addr: Option<IpAddr>,
    /// The file with the secret that all hosts of the cluster have; MESHNET_SECRET may hold the secret itself [default: the
    /// cluster is open]
    #[arg(long, value_name = "FILE", env = "MESHNET_SECRET_FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The file with the peer ids of the only hosts to talk to, one on each line [default: all]
    #[arg(long, value_name = "FILE")]
    pub(crate) allow_peers: Option<PathBuf>,
    /// Whether what containers send other hosts is to be sealed; `auto`: when there is a secret
    #[arg(long, value_name = "WISH", default_value = "auto")]
    pub(crate) encryption: Wish,
    /// The one cipher to seal with [default: the fastest that both hosts have]
    #[arg(long, value_name = "CIPHER", default_value = "auto")]
    pub(crate) cipher: Cipher,
    /// Subnets of the underlay in which everybody is trusted, as 10.1.0.0/16,fd00::/8: where two hosts both say so, frames
    /// between two addresses there are not sealed
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = subnet)]
    pub(crate) trusted_subnets: Vec<IpNet>,
    /// The age at which the initiator of a session renews it, for tests: docs/contributing.md
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub(crate) rekey_after: u64,
    /// Addresses of the network `mesh`, decided by the host that founds the cluster [default: 10.32.0.0/12]
    #[arg(long, value_name = "CIDR", value_parser = range)]
    pub(crate) ipalloc_range: Option<Ipv4Net>,
    /// How long a host is down before the others may take its address space, as 30s, 90m or 24h; decided by the host
    /// that founds the cluster [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) reclaim_after: Option<Duration>,
    /// Connect only to peers that were named, not to those heard of
    #[arg(long)]
    pub(crate) no_discovery: bool,
    /// Found a new cluster at once, without asking the peers
    #[arg(long)]
    pub(crate) found: bool,
    /// Largest packet of the overlay in bytes, decided by the founding host [default: 1450]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=65_000))]
    pub(crate) mtu: Option<u16>,
    /// How long containers may keep an answer about a name of the overlay, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(crate) dns_ttl: u32,
    /// The file with the name servers of this host, which are asked for all other names
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// The group that may use the daemon, beside root: the socket is given to it
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Serve counters to Prometheus, as ADDR:PORT over HTTP [default: not at all]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// Threads of the data plane [default: half of the cores, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Option<u16>,
    /// From how many UDP ports flows are sent, so that the underlay spreads them; 0: the data port alone
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(0..=16))]
    pub(crate) source_ports: u16,
    /// Cut every super-frame here, also where the underlay's device could do it
    #[arg(long)]
    pub(crate) no_tunnel_gso: bool,
    /// How much is logged
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
    /// How it is logged
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Format,
    /// Set in the daemon by the `launch` that waits for it: standard input is the way back
    #[arg(long, hide = true, env = "MESHNET_DETACHED", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub(crate) detached: bool,
}

/// Whether frames are to be sealed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// When there is a secret.
    Auto,
    On,
    Off,
}

/// What frames are sealed with.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cipher {
    /// By the processors of both hosts.
    Auto,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    Chacha20Poly1305,
}

/// The least severe events that are logged.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}
