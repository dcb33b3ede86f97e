//! The arguments of `meshnet network`, and what they may not say together.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{Args, Subcommand};
use engine::types::Vni;
use ipnet::IpNet;
use peering::mesh::NetworkError;

use super::value::subnet;
use super::{EndpointArgs, name};
use crate::render::template::Template;
use crate::shape::{CreateRequest, SubnetRequest};
use crate::spec::spec;

pub(crate) use filter::{Filter, PruneFilter};

mod filter;

#[derive(Subcommand, Debug)]
pub(crate) enum NetworkCommand {
    /// Make a network, on all hosts at once, and print its id
    Create(Box<CreateArgs>),
    /// List the networks
    Ls(LsArgs),
    /// Print everything about networks, as one JSON array in the shape of Docker
    Inspect {
        /// Networks, by name, id, or the first digits of that
        #[arg(value_name = "NET", required = true)]
        networks: Vec<String>,
    },
    /// Put a container on a further network, and print its addresses there
    Connect(JoinArgs),
    /// Take a container off a network
    Disconnect(LeaveArgs),
    /// Remove networks that nobody uses
    Rm {
        /// Networks, by name, id, or the first digits of that
        #[arg(value_name = "NET", required = true)]
        networks: Vec<String>,
    },
    /// Remove all networks that nobody uses
    Prune {
        /// Only those: `label=KEY[=VALUE]`, `label!=KEY[=VALUE]` or `until=DURATION` (older than that, as 24h)
        #[arg(long, value_name = "FILTER")]
        filter: Vec<PruneFilter>,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CreateArgs {
    /// What people call it
    #[arg(value_name = "NAME", value_parser = network_name)]
    pub(crate) name: String,
    /// A subnet of its addresses, as 10.99.0.0/16 or fd00:99::/64; may be given several times [default: one that is free]
    #[arg(long, value_name = "CIDR", value_parser = pool)]
    pub(crate) subnet: Vec<IpNet>,
    /// The part of a subnet from which addresses are given [default: all of it]
    #[arg(long, value_name = "CIDR", value_parser = subnet, requires = "subnet")]
    pub(crate) ip_range: Vec<IpNet>,
    /// The address of the gateway of a subnet [default: its first]
    #[arg(long, value_name = "ADDR", requires = "subnet")]
    pub(crate) gateway: Vec<IpAddr>,
    /// An address that is never given, and whose it is
    #[arg(long, value_name = "NAME=ADDR", value_parser = aux, requires = "subnet")]
    pub(crate) aux_address: Vec<(String, IpAddr)>,
    /// Its number on the wire [default: one that is free]
    #[arg(long, value_name = "N", value_parser = vni)]
    pub(crate) vni: Option<Vni>,
    /// Its largest packet in bytes [default: what the paths between the hosts carry]
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u16>,
    /// Without a way out of the overlay
    #[arg(long)]
    pub(crate) internal: bool,
    /// Also with IPv6 addresses, of a free subnet unless one is given
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// Whether its frames are sealed between hosts [default: as those of `mesh`]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) encrypted: Option<bool>,
    /// A label, for people and filters
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// An option, kept and shown as it is; `-o KEY=VALUE` is the same
    #[arg(long, value_name = "KEY=VALUE", value_parser = option)]
    pub(crate) opt: Vec<(String, String)>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LsArgs {
    /// Only those: `name=TEXT`, `id=DIGITS`, `label=KEY[=VALUE]`, `driver=NAME`, `scope=NAME`, `type=builtin|custom`,
    /// `dangling=true|false` (nobody uses it)
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<Filter>,
    /// How to print each: `json`, or a text with `{{.Name}}` and the like; after `table ` with titles
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    pub(crate) format: Option<Template>,
    /// The ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct JoinArgs {
    /// By name, id, or the first digits of that
    #[arg(value_name = "NET")]
    pub(crate) network: String,
    /// A Docker name or id, pid:N, netns:NAME, or a path to a network namespace
    pub(crate) container: String,
    /// The IPv4 address it shall have there
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// The IPv6 address it shall have there
    #[arg(long, value_name = "ADDR")]
    pub(crate) ip6: Option<Ipv6Addr>,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LeaveArgs {
    /// By name, id, or the first digits of that
    #[arg(value_name = "NET")]
    pub(crate) network: String,
    /// As it was attached
    pub(crate) container: String,
    /// It is fine if the container is not there, or there is no such container
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Arguments that do not go together: the one to blame, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contradiction {
    /// As it was typed, `--gateway 10.9.0.1`, or by its name alone.
    pub(crate) argument: String,
    /// Why it makes no sense.
    pub(crate) reason: String,
}

fn blame(argument: &str, value: impl Display, reason: impl Into<String>) -> Contradiction {
    Contradiction { argument: format!("--{argument} {value}"), reason: reason.into() }
}

impl NetworkCommand {
    /// Looks for arguments that contradict each other.
    pub(crate) fn check(&self) -> Result<(), Contradiction> {
        match self {
            NetworkCommand::Create(args) => args.check(),
            NetworkCommand::Ls(_)
            | NetworkCommand::Inspect { .. }
            | NetworkCommand::Connect(_)
            | NetworkCommand::Disconnect(_)
            | NetworkCommand::Rm { .. }
            | NetworkCommand::Prune { .. } => Ok(()),
        }
    }
}

impl CreateArgs {
    fn check(&self) -> Result<(), Contradiction> {
        unique("label", &self.label)?;
        unique("opt", &self.opt)?;
        match spec(self.request()?) {
            Err(NetworkError::Argument { argument, reason }) => {
                Err(Contradiction { argument: argument.to_owned(), reason })
            }
            // All else depends on the networks there are.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What the daemon is asked for.
    ///
    /// # Errors
    /// Something belongs to none of the subnets, or two things are in one place.
    pub(crate) fn request(&self) -> Result<CreateRequest, Contradiction> {
        Ok(CreateRequest {
            name: self.name.clone(),
            subnets: self.subnets()?,
            ipv6: self.ipv6,
            vni: self.vni.map(Vni::get),
            mtu: self.mtu,
            internal: self.internal,
            encrypted: self.encrypted,
            labels: self.label.iter().cloned().collect(),
            options: self.opt.iter().cloned().collect(),
        })
    }

    /// The subnets, each with the range, gateway and addresses that belong to it.
    fn subnets(&self) -> Result<Vec<SubnetRequest>, Contradiction> {
        let subnets = self.subnet.iter().map(|&subnet| {
            let aux = BTreeMap::new();
            SubnetRequest { subnet, range: None, gateway: None, aux }
        });
        let mut subnets: Vec<SubnetRequest> = subnets.collect();
        for range in &self.ip_range {
            let of = subnets.iter_mut().find(|s| s.subnet.contains(range));
            let of = of.ok_or_else(|| nowhere("ip-range", range))?;
            no_second("ip-range", of.subnet, of.range.replace(*range), range)?;
        }
        for gateway in &self.gateway {
            let of = subnets.iter_mut().find(|s| s.subnet.contains(gateway));
            let of = of.ok_or_else(|| nowhere("gateway", gateway))?;
            no_second("gateway", of.subnet, of.gateway.replace(*gateway), gateway)?;
        }
        for (name, addr) in &self.aux_address {
            let said = format!("{name}={addr}");
            if subnets.iter().any(|s| s.aux.contains_key(name)) {
                return Err(blame("aux-address", &said, format!("{name} is given twice")));
            }
            let of = subnets.iter_mut().find(|s| s.subnet.contains(addr));
            of.ok_or_else(|| nowhere("aux-address", &said))?.aux.insert(name.clone(), *addr);
        }
        Ok(subnets)
    }
}

fn nowhere(argument: &str, value: impl Display) -> Contradiction {
    blame(argument, value, "it lies in none of the subnets")
}

/// Of each there is one in a subnet.
fn no_second<T: Display>(
    argument: &str,
    subnet: IpNet,
    other: Option<T>,
    value: &T,
) -> Result<(), Contradiction> {
    let there = |other: T| format!("the subnet {subnet} has --{argument} {other} already");
    other.map_or(Ok(()), |other| Err(blame(argument, value, there(other))))
}

fn unique(argument: &str, pairs: &[(String, String)]) -> Result<(), Contradiction> {
    let again = pairs.iter().enumerate().find(|(at, (key, _))| pairs[..*at].iter().any(|(k, _)| k == key));
    again.map_or(Ok(()), |(_, (key, value))| {
        Err(blame(argument, format!("{key}={value}"), format!("{key} is given twice")))
    })
}

/// A name of a network: one label of the names of its containers (RFC 1035 section 2.3.4), so without dots.
fn network_name(s: &str) -> Result<String, String> {
    match name(s) {
        Ok(name) if !name.contains('.') => Ok(name),
        _ => Err("expected up to 63 letters, digits, `_`, `-`, the first a letter or digit".to_owned()),
    }
}

/// A subnet for a network: unicast, host bits clear.
fn pool(s: &str) -> Result<IpNet, String> {
    let example = |reason: String| reason.replace("10.1.0.0/16 or fd00::/8", "10.99.0.0/16 or fd00:99::/64");
    let net = subnet(s).map_err(example)?;
    match is_unicast(net.network()) {
        true => Ok(net),
        false => Err("containers cannot have such addresses".to_owned()),
    }
}

/// Neither loopback, multicast, link-local nor reserved (RFC 6890).
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_link_local() || matches!(ip.octets()[0], 0 | 224..)),
        IpAddr::V6(ip) => {
            let mapped = ip.to_ipv4_mapped().is_some() || ip.segments()[0] == 0;
            !(mapped || ip.is_multicast() || ip.is_unicast_link_local())
        }
    }
}

/// A number on the wire (RFC 7348 section 5); that of `mesh` is taken for good.
fn vni(s: &str) -> Result<Vni, String> {
    let number: u32 = s.parse().map_err(|_| "expected a number from 2 to 16777215".to_owned())?;
    match Vni::new(number) {
        Some(Vni::MESH) => Err("1 is the number of the network mesh".to_owned()),
        Some(vni) if number > 0 => Ok(vni),
        _ => Err("expected a number from 2 to 16777215".to_owned()),
    }
}

fn pair(s: &str, expected: &str) -> Result<(String, String), String> {
    match s.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("expected {expected}")),
    }
}

fn aux(s: &str) -> Result<(String, IpAddr), String> {
    let (key, value) = pair(s, "NAME=ADDR, as printer=10.99.0.7")?;
    let addr = value.parse().map_err(|_| "expected NAME=ADDR, as printer=10.99.0.7".to_owned())?;
    Ok((key, addr))
}

/// A label may have no value, as Docker has it.
fn label(s: &str) -> Result<(String, String), String> {
    match s.contains('=') {
        false if !s.is_empty() => Ok((s.to_owned(), String::new())),
        _ => pair(s, "KEY=VALUE"),
    }
}

fn option(s: &str) -> Result<(String, String), String> {
    pair(s, "KEY=VALUE")
}

#[cfg(test)]
mod tests;
