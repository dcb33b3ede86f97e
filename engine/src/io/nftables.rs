//! The firewall rules of exposed interfaces, in tables of our own: `ip meshnet` and `ip6 meshnet`.
//!
//! An exposed interface makes this host a neighbour of the containers. Whether it is also a way from one network to
//! another is for its [`Forwarding`] to say, not for the host's routing alone. Nobody else's rules are read or touched:
//! each change replaces our two tables as a whole, in one transaction of the kernel.

mod message;

use std::io;
use std::net::IpAddr;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::types::IpPrefix;
use message::{ACCEPT_ALL, Batch, Expression, FORWARD, Family, POSTROUTING};

/// What the host does with packets of others that come from an exposed interface, or would go there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Forwarding {
    /// It drops them.
    #[default]
    None,
    /// It passes them on as they are, if it forwards at all.
    Routed,
    /// The same, under an address of its own: nobody needs a route back.
    Masqueraded,
}

/// An exposed interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlet {
    /// Its name.
    pub ifname: String,
    /// The subnets behind it.
    pub subnets: Vec<IpPrefix>,
    /// What passes.
    pub forwarding: Forwarding,
}

/// The kernel did not take the rules.
#[derive(Debug, thiserror::Error)]
#[error("the firewall rules of exposed interfaces cannot be set: {0}")]
pub struct NftablesError(#[from] io::Error);

/// Makes our tables in the namespace of the calling thread what these interfaces need; without any, removes them.
///
/// # Errors
/// What the kernel said, which has then changed nothing of the family at hand.
pub fn replace(outlets: &[Outlet]) -> Result<(), NftablesError> {
    send(batch(Family::V4, outlets))?;
    match send(batch(Family::V6, outlets)) {
        // A kernel without IPv6 has nothing to be kept from.
        Err(error) if lacks_family(&error) => Ok(()),
        result => Ok(result?),
    }
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT))
}

/// All of one family: the table, emptied if it is there, then chains and rules.
fn batch(family: Family, outlets: &[Outlet]) -> Batch {
    let mut batch = Batch::new(family);
    // A table that is not there cannot be deleted, so it is made first.
    batch.add_table();
    batch.delete_table();
    if outlets.is_empty() {
        return batch;
    }
    batch.add_table();
    batch.add_chain(&FORWARD, ACCEPT_ALL);
    for rule in outlets.iter().flat_map(|outlet| forward_rules(outlet, outlets)) {
        batch.add_rule(&FORWARD, &rule);
    }
    let masqueraded = outlets.iter().filter(|outlet| outlet.forwarding == Forwarding::Masqueraded);
    let mut rules = masqueraded.flat_map(|outlet| masquerade_rules(family, outlet)).peekable();
    if rules.peek().is_some() {
        batch.add_chain(&POSTROUTING, ACCEPT_ALL);
    }
    rules.for_each(|rule| batch.add_rule(&POSTROUTING, &rule));
    batch
}

/// Nothing passes an interface that is not to forward, and nothing passes from one network of ours to another.
fn forward_rules(outlet: &Outlet, all: &[Outlet]) -> Vec<Vec<Expression>> {
    let own = &outlet.ifname;
    if outlet.forwarding == Forwarding::None {
        return vec![
            vec![Expression::comes_by(own), Expression::Drop],
            vec![Expression::leaves_by(own, true), Expression::Drop],
        ];
    }
    let others = all.iter().filter(|other| other.ifname != *own);
    let between = |other: &Outlet| {
        vec![Expression::comes_by(own), Expression::leaves_by(&other.ifname, true), Expression::Drop]
    };
    others.map(between).collect()
}

/// What leaves a network gets an address of the way out; what enters it from elsewhere, that of the interface.
fn masquerade_rules(family: Family, outlet: &Outlet) -> impl Iterator<Item = Vec<Expression>> + '_ {
    let of_family = outlet.subnets.iter().filter(move |subnet| match subnet.addr {
        IpAddr::V4(_) => family == Family::V4,
        IpAddr::V6(_) => family == Family::V6,
    });
    of_family.flat_map(|subnet| {
        [false, true].map(|inwards| {
            vec![
                Expression::leaves_by(&outlet.ifname, inwards),
                Expression::is_from(*subnet, !inwards),
                Expression::Masquerade,
            ]
        })
    })
}

fn send(batch: Batch) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let (bytes, last) = batch.finish();
    socket.send(&bytes, 0)?;
    loop {
        let (reply, _) = socket.recv_from_full()?;
        if let Some(outcome) = message::outcome(&reply, last) {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::io::netns::Netns;

    fn outlet(ifname: &str, subnet: &str, len: u8, forwarding: Forwarding) -> Outlet {
        let subnets = vec![IpPrefix { addr: subnet.parse().unwrap(), len }];
        Outlet { ifname: ifname.to_owned(), subnets, forwarding }
    }

    fn ruleset() -> String {
        let listed = Command::new("nft").args(["list", "ruleset"]).output().expect("nftables is installed");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        String::from_utf8(listed.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_tables_say_what_passes_and_leave_others_alone() {
        let netns = Netns::create().expect("needs root");
        let (exposed, gone) = netns
            .run(|| {
                let theirs = Command::new("nft").args(["add", "table", "ip", "theirs"]).status().unwrap();
                assert!(theirs.success());
                let inside = outlet("mesh0", "10.32.0.0", 12, Forwarding::None);
                let masqueraded = outlet("mesh1", "10.99.0.0", 16, Forwarding::Masqueraded);
                let sixth = outlet("mesh2", "fd00:7::", 64, Forwarding::Masqueraded);
                replace(std::slice::from_ref(&inside)).unwrap();
                replace(&[inside, masqueraded, sixth]).unwrap();
                let exposed = ruleset();
                replace(&[]).unwrap();
                (exposed, ruleset())
            })
            .unwrap();
        for rule in [
            "table ip meshnet { chain forward { type filter hook forward priority filter; policy accept; iifname \"mesh0\" drop oifname \"mesh0\" drop",
            "iifname \"mesh1\" oifname \"mesh0\" drop iifname \"mesh1\" oifname \"mesh2\" drop",
            "chain postrouting { type nat hook postrouting priority srcnat; policy accept; oifname != \"mesh1\" ip saddr 10.99.0.0/16 masquerade",
            "oifname \"mesh1\" ip saddr != 10.99.0.0/16 masquerade",
            "table ip6 meshnet { chain forward",
            "oifname != \"mesh2\" ip6 saddr fd00:7::/64 masquerade oifname \"mesh2\" ip6 saddr != fd00:7::/64 masquerade",
        ] {
            assert!(exposed.contains(rule), "{rule} is not in {exposed}");
        }
        assert_eq!(gone, "table ip theirs { }");
    }
}
