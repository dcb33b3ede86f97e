//! Names on the command line: further ones of a container, links, and those that people give to addresses.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;

/// Longest label of a name, and longest name, in bytes (RFC 1035 section 2.3.4); behind a name comes its network.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 180;

/// What a container is called beside its name, and whether it asks this host for names.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NamingArgs {
    /// A further name on the network, which others may have too; may be given several times
    #[arg(long, value_name = "NAME", value_parser = dns_name)]
    pub(crate) alias: Vec<String>,
    /// A name for another one, for this container alone; may be given several times
    #[arg(long, value_name = "NAME:ALIAS")]
    pub(crate) link: Vec<Link>,
    /// Leave the container's resolv.conf alone
    #[arg(long)]
    pub(crate) no_dns: bool,
}

/// Another name for a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Link {
    /// What exists.
    pub(crate) name: String,
    /// What it is called too.
    pub(crate) alias: String,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (name, alias) = s.split_once(':').ok_or("expected NAME:ALIAS, as db:database")?;
        Ok(Link { name: dns_name(name)?, alias: dns_name(alias)? })
    }
}

#[derive(Args, Debug)]
pub(crate) struct DnsAddArgs {
    /// The name
    #[arg(value_name = "NAME", value_parser = dns_name)]
    pub(crate) name: String,
    /// What it stands for, on the overlay or elsewhere
    #[arg(value_name = "ADDR", required = true)]
    pub(crate) addresses: Vec<IpAddr>,
    /// Something that is offered there, as `_http._tcp:8080`, for those who ask for SRV records; may be given several times
    #[arg(long, value_name = "SERVICE:PORT")]
    pub(crate) service: Vec<Offer>,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

/// A service and where it listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Offer {
    pub(crate) service: String,
    pub(crate) port: u16,
}

impl FromStr for Offer {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || "expected SERVICE:PORT, as _http._tcp:8080".to_owned();
        let (service, port) = s.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let labels: Vec<&str> = service.split('.').collect();
        match labels.as_slice() {
            // RFC 2782: the service, then the protocol.
            [_, _] if labels.iter().all(|label| label.starts_with('_') && is_label(&label[1..])) => {
                Ok(Offer { service: service.to_ascii_lowercase(), port })
            }
            _ => Err(wrong()),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct DnsRemoveArgs {
    /// As it was given with `dns-add` on this host
    #[arg(value_name = "NAME", value_parser = dns_name)]
    pub(crate) name: String,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

#[derive(Args, Debug)]
pub(crate) struct DnsLookupArgs {
    /// A name, as a container on the network may ask for it, or an address
    #[arg(value_name = "NAME|ADDR")]
    pub(crate) what: String,
    /// The network
    #[arg(long, value_name = "NET", default_value = "mesh")]
    pub(crate) network: String,
}

/// A name relative to a network, in lower case: labels of letters, digits, `-` and `_`, none of which begins or ends with `-`.
pub(crate) fn dns_name(s: &str) -> Result<String, String> {
    if s.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} characters"));
    }
    match s.split('.').find(|label| !is_label(label)) {
        None => Ok(s.to_ascii_lowercase()),
        Some(label) => Err(format!(
            "{label:?} is no label of a name: expected 1 to {MAX_LABEL} letters, digits, `-`, `_`, no `-` at its ends"
        )),
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=MAX_LABEL).contains(&label.len())
        && label.chars().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        assert_eq!(dns_name("Web.Front_1").unwrap(), "web.front_1");
        let long = "a".repeat(64);
        for wrong in ["", ".", "a..b", "a.", "-a", "a-", "a b", "é", &long, &"a.".repeat(100)] {
            assert!(dns_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn links_and_services_have_two_parts() {
        let link: Link = "C5:foo".parse().unwrap();
        assert_eq!((link.name.as_str(), link.alias.as_str()), ("c5", "foo"));
        for wrong in ["c5", "c5:", ":foo", "c5:a:b"] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
        let offer: Offer = "_HTTP._tcp:8080".parse().unwrap();
        assert_eq!((offer.service.as_str(), offer.port), ("_http._tcp", 8080));
        for wrong in
            ["_http._tcp", "_http._tcp:0", "http._tcp:1", "_http:1", "_a._b._c:1", "_http._tcp:70000"]
        {
            assert!(wrong.parse::<Offer>().is_err(), "{wrong}");
        }
    }
}
