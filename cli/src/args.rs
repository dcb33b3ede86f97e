//! The command line: what may be typed, and what it means.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use engine::rate::Rate;
use engine::types::MacAddr;
use ipnet::{IpNet, Ipv4Net};
use peering::mesh::Target;
use peering::records::MAX_TRUSTED;

pub(crate) mod naming;

use naming::{DnsAddArgs, DnsLookupArgs, DnsRemoveArgs, NamingArgs};

pub(crate) mod network;
mod words;

use network::{Contradiction, NetworkCommand};

/// The port of a VTEP that is given without one (RFC 7348 section 5).
const VXLAN_PORT: u16 = 4789;

/// One flat network for the containers of several hosts.
#[derive(Parser, Debug)]
#[command(name = "meshnet", version, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What these words mean.
    ///
    /// # Errors
    /// They cannot be read, contradict each other, or are more than a host may tell the others.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(words::with_options(words.into_iter().collect()))?.checked()
    }

    /// Looks at what no value shows alone.
    fn checked(self) -> Result<Self, clap::Error> {
        let trusted = match &self.command {
            Command::Launch(launch) => launch.trusted_subnets.len(),
            _ => 0,
        };
        if trusted > MAX_TRUSTED {
            let why = format!("--trusted-subnets takes at most {MAX_TRUSTED} subnets, not {trusted}");
            return Err(Cli::command().error(ErrorKind::TooManyValues, why));
        }
        if let Command::Network(command) = &self.command
            && let Err(Contradiction { argument, reason }) = command.check()
        {
            let why = format!("'{argument}' makes no sense: {reason}");
            return Err(Cli::command().error(ErrorKind::ValueValidation, why));
        }
        Ok(self)
    }
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Where the daemon's socket and lock are
    #[arg(long, value_name = "DIR", env = "MESHNET_RUN_DIR", default_value = "/run/meshnet", global = true)]
    pub(crate) run_dir: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) output: Format,
}

/// How an answer is printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start the daemon on this host, and return when it is ready
    Launch(Box<LaunchArgs>),
    /// Add peers to connect to
    Connect(ConnectArgs),
    /// Stop connecting to peers
    Forget(ForgetArgs),
    /// Give a container a port on the overlay, and print its address
    Attach(AttachArgs),
    /// Take a container off the overlay
    Detach(DetachArgs),
    /// Give this host itself an address on the overlay, and print it
    Expose(ExposeArgs),
    /// Take this host off the overlay
    Hide(HideArgs),
    /// List the containers on the overlay, of all hosts
    Ps,
    /// Give addresses a name on a network; it goes with this host
    DnsAdd(DnsAddArgs),
    /// Take a name back that was given on this host
    DnsRemove(DnsRemoveArgs),
    /// Print what a name stands for, or what an address is called, as containers are told
    DnsLookup(DnsLookupArgs),
    /// Networks: isolated from each other, each with addresses of its own
    #[command(subcommand)]
    Network(NetworkCommand),
    /// External VXLAN endpoints: kernel, Open vSwitch, hardware
    #[command(subcommand)]
    Vtep(VtepCommand),
    /// The secret that closes a cluster
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Show how this host and the cluster are, or wait until they are
    Status(StatusArgs),
    /// Print everything that helps to find a fault, as one JSON document; no key and no secret is in it
    Report(ReportArgs),
    /// Watch the frames of a port of this host, or without one the datagrams of the underlay
    Capture(CaptureArgs),
    /// Remove a host that will not return; the space it had is taken over
    Rmpeer(RmpeerArgs),
    /// Cut a host off everywhere, for good; nobody talks to its key again
    Revoke(RevokeArgs),
    /// Stop the daemon; containers keep their interfaces and addresses
    Stop,
    /// Leave the cluster for good: hand the address space over, stop, and remove all there is of meshnet on this host
    Reset(ResetArgs),
    /// Print the version of this program and of the running daemon
    Version,
    /// Show the overlay at work on this machine alone, in network namespaces
    Demo(crate::demo::Args),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// The state directory whose disk is looked at while no daemon runs
    #[arg(long, value_name = "DIR", env = "MESHNET_STATE_DIR", default_value = "/var/lib/meshnet")]
    pub(crate) state_dir: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ResetArgs {
    /// Also when nobody can take the address space of this host
    #[arg(long)]
    pub(crate) force: bool,
    /// What to remove when no daemon runs; a daemon knows its own
    #[arg(long, value_name = "DIR", env = "MESHNET_STATE_DIR", default_value = "/var/lib/meshnet")]
    pub(crate) state_dir: PathBuf,
}

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

#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// Peers as HOST[:PORT]
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<Target>,
    /// Forget all peers given earlier
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// Peers as they were given
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<Target>,
}

#[derive(Args, Debug)]
pub(crate) struct RmpeerArgs {
    /// Its nickname, its peer id, or the first digits of that
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
    /// Also if it is alive: it comes back by itself, with its containers but without its address space
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// Its nickname, its peer id, or the first digits of that
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,
}

#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// A Docker name or id, pid:N, netns:NAME, or a path to a network namespace
    pub(crate) container: String,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
    /// An address it shall have; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip: Vec<IpAddr>,
    /// Its name on the network [default: the container's or the namespace's]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// Its MAC address [default: made from the ids of host and port]
    #[arg(long, value_parser = mac)]
    pub(crate) mac: Option<MacAddr>,
    /// Name of the interface in the container [default: mesh0, or the next number that is free]
    #[arg(long, value_name = "IF", value_parser = ifname)]
    pub(crate) ifname: Option<String>,
    /// Most it may send, and most it is given, in bits per second as `100mbit` [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<Rate>,
    /// Let it send from any address, tagged frames and what routers and servers say
    #[arg(long)]
    pub(crate) no_spoof_check: bool,
    #[command(flatten)]
    pub(crate) naming: NamingArgs,
    /// How long to wait for an address, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct DetachArgs {
    /// As it was attached
    pub(crate) container: String,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

#[derive(Args, Debug)]
pub(crate) struct ExposeArgs {
    /// An address it shall have
    #[arg(value_name = "ADDR")]
    pub(crate) addresses: Vec<IpAddr>,
    /// The same, as `attach` has it
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip: Vec<IpAddr>,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
    /// Its name on the network [default: the nickname of this host]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// Name of the interface [default: mesh0, or the next number that is free]
    #[arg(long, value_name = "IF", value_parser = ifname)]
    pub(crate) ifname: Option<String>,
    /// Pass packets between the network and elsewhere, as they are: routes there and back are for you to set
    #[arg(long, conflicts_with = "masquerade")]
    pub(crate) route: bool,
    /// Pass packets between the network and elsewhere under an address of this host: no route back is needed
    #[arg(long)]
    pub(crate) masquerade: bool,
    /// How long to wait for an address, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct HideArgs {
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

#[derive(Subcommand, Debug)]
pub(crate) enum VtepCommand {
    /// Declare an external endpoint; every host with the network exchanges frames with it
    Add(VtepArgs),
    /// Remove it
    Rm(VtepArgs),
    /// List them
    Ls {
        /// Only those of this network
        #[arg(long, value_name = "NET")]
        network: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct VtepArgs {
    /// ADDR[:PORT], port 4789 unless given; an IPv6 address with a port in brackets
    #[arg(value_name = "ADDR", value_parser = vtep)]
    pub(crate) addr: SocketAddr,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

#[derive(Args, Debug)]
pub(crate) struct CaptureArgs {
    /// A container, as it was attached, the name or interface of its endpoint, or the id of a port [default: the underlay]
    pub(crate) port: Option<String>,
    /// Write pcapng to this file, `-` for standard output, instead of one line for each frame
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// End after so many frames
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Keep at most so many bytes of each frame
    #[arg(long, value_name = "BYTES", default_value_t = 65_600, value_parser = clap::value_parser!(u32).range(14..=65_600))]
    pub(crate) snaplen: u32,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SecretCommand {
    /// Make a secret, for all hosts of a cluster
    Generate {
        /// Write it to this file, which must not exist [default: to standard output]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Have all hosts of the cluster go over to a new secret, or go on with that; no packet is lost to it
    Rotate(RotateArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    /// The file with the new secret, `-` for standard input; made if it does not exist [default: beside the file that this host was launched with, with `.new`]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Do not wait for hosts that are down: they are cut off until they are launched with the new secret
    #[arg(long)]
    pub(crate) leave_behind: bool,
    /// How long to wait until it is done, in seconds; it goes on without this command
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// One part alone
    pub(crate) part: Option<Part>,
    /// Wait for a condition instead: `ready`, `ipam` (address space is there), `peers=N` (N other hosts are alive)
    #[arg(long, value_name = "CONDITION", conflicts_with = "part")]
    pub(crate) wait: Option<Condition>,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, requires = "wait")]
    pub(crate) timeout: Duration,
}

/// A part of the status.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Peers,
    Connections,
    Targets,
    Ipam,
    Dns,
    Dataplane,
}

/// What `status --wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    /// The daemon answers and carries traffic.
    Ready,
    /// This host has address space of `mesh`.
    Ipam,
    /// So many other hosts are alive.
    Peers(usize),
}

impl std::str::FromStr for Condition {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match (s, s.strip_prefix("peers=").map(str::parse)) {
            ("ready", _) => Ok(Condition::Ready),
            ("ipam", _) => Ok(Condition::Ipam),
            (_, Some(Ok(n))) => Ok(Condition::Peers(n)),
            _ => Err("expected ready, ipam or peers=N".to_owned()),
        }
    }
}

/// A span of time from a number of seconds, fractions allowed.
fn seconds(s: &str) -> Result<Duration, String> {
    let number: f64 = s.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string())
}

/// A span of time after which space is taken: at least five seconds, since a death is known in less than ten.
fn duration(s: &str) -> Result<Duration, String> {
    match span(s)? {
        span if span < Duration::from_secs(5) => Err("expected at least 5s".to_owned()),
        span if span > Duration::from_secs(366 * 86_400) => Err("expected at most 366d".to_owned()),
        span => Ok(span),
    }
}

/// A span of time as people write it: a whole number and s, m, h or d.
fn span(s: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and s, m, h or d, as 24h".to_owned();
    let unit = s.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = s.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A name of a host or an endpoint: what Docker takes for a container, at most 63 characters (RFC 1035 section 2.3.4).
pub(crate) fn name(s: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = s.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && s.len() <= 63 && s.chars().all(allowed) {
        Ok(s.to_owned())
    } else {
        Err("expected up to 63 letters, digits, `.`, `_`, `-`, the first a letter or digit".to_owned())
    }
}

/// A MAC address that a station may have.
fn mac(s: &str) -> Result<MacAddr, String> {
    let mac: MacAddr =
        s.parse().map_err(|_| "expected six pairs of hex digits, as 02:00:00:00:00:01".to_owned())?;
    match mac {
        m if m.is_group() => Err("a group address cannot be a station's".to_owned()),
        m if m.is_zero() => Err("the zero address cannot be a station's".to_owned()),
        m if m.0[..3] == [0x02, 0x6d, 0x65] => Err("02:6d:65 is kept for gateways".to_owned()),
        m => Ok(m),
    }
}

/// A rate as tc(8) writes it.
fn rate(s: &str) -> Result<Rate, String> {
    s.parse()
        .map_err(|_| "expected a number and bit, kbit, mbit or gbit, as 100mbit; at least 8kbit".to_owned())
}

/// An interface name the kernel accepts (`dev_valid_name` in net/core/dev.c; 15 characters).
fn ifname(s: &str) -> Result<String, String> {
    let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    match s {
        "" | "." | ".." => Err("not an interface name".to_owned()),
        s if s.len() > 15 => Err("an interface name has at most 15 characters".to_owned()),
        s if s.contains(wrong) || s.contains('%') => Err("not an interface name".to_owned()),
        s => Ok(s.to_owned()),
    }
}

/// An IPv4 range with room for a gateway and a container, host bits clear.
fn range(s: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = s.parse().map_err(|_| "expected a range as 10.32.0.0/12".to_owned())?;
    if net.trunc() != net {
        return Err(format!("host bits are set: did you mean {}?", net.trunc()));
    }
    if net.prefix_len() > 29 || net.prefix_len() < 8 {
        Err("expected a prefix from /8 to /29".to_owned())
    } else {
        Ok(net)
    }
}

/// A subnet of the underlay, host bits clear.
fn subnet(s: &str) -> Result<IpNet, String> {
    let net: IpNet = s.parse().map_err(|_| "expected a subnet as 10.1.0.0/16 or fd00::/8".to_owned())?;
    if net.trunc() != net {
        return Err(format!("host bits are set: did you mean {}?", net.trunc()));
    }
    Ok(net)
}

/// `ADDR[:PORT]` of a VTEP.
fn vtep(s: &str) -> Result<SocketAddr, String> {
    let bare = s.trim_start_matches('[').trim_end_matches(']');
    let addr = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, VXLAN_PORT),
        Err(_) => s.parse().map_err(|_| "expected ADDR or ADDR:PORT".to_owned())?,
    };
    let ip = addr.ip();
    if ip.is_unspecified() || ip.is_multicast() || addr.port() == 0 {
        Err("expected the address of one machine and a port above 0".to_owned())
    } else {
        Ok(engine::types::canonical(addr))
    }
}

#[cfg(test)]
mod tests;
