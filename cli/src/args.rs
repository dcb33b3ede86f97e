//! The command line: what may be typed, and what it means.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use engine::rate::Rate;
use engine::types::MacAddr;
use peering::mesh::Target;
use peering::records::MAX_TRUSTED;

mod launch;
pub(crate) mod naming;
pub(crate) mod network;
mod value;
mod words;

use naming::{DnsAddArgs, DnsLookupArgs, DnsRemoveArgs, NamingArgs};
use network::{Contradiction, NetworkCommand};
use value::{ifname, mac, rate, seconds, vtep};

pub(crate) use launch::{Cipher, LaunchArgs, LogLevel, Wish};
pub(crate) use value::name;

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
    /// Name of the interface in the container [default: mesh0, or the next number that is free]
    #[arg(long, value_name = "IF", value_parser = ifname)]
    pub(crate) ifname: Option<String>,
    /// Most it may send, and most it is given, in bits per second as `100mbit` [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) rate: Option<Rate>,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
}

/// What a container is on any network.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// Its name on the network [default: the container's or the namespace's]
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// Its MAC address there [default: made from the ids of host and port]
    #[arg(long, value_parser = mac)]
    pub(crate) mac: Option<MacAddr>,
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

#[cfg(test)]
mod tests;
