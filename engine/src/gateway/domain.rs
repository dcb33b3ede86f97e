//! What a name stands for, for one who asks.
//!
//! Names on the networks of the asker are answered here, and everything below `mesh.internal` and in the reverse zones
//! of subnets is, also when there is nothing: such questions go nowhere else. Names here are in lower case, without
//! the final dot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::{Asker, Entry, Names, Zone};

/// Below it are the names of all networks: `name.network.mesh.internal`. `internal` is reserved for such use.
pub const DOMAIN: &str = "mesh.internal";
/// The server that the domain is told to have: the gateway.
pub const SERVER: &str = "ns.mesh.internal";

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Place<'a> {
    /// It is not ours.
    Foreign,
    /// It would be ours, and does not exist.
    Absent,
    /// It exists, and has no records of its own: a network.
    Bare,
    /// The domain itself.
    Apex,
    /// The gateway, as the server of the domain.
    Server,
    /// Somebody is called so.
    Held {
        /// On which network.
        zone: &'a Zone,
        /// The name, relative to the network.
        name: String,
        /// Who, in order.
        holders: Vec<&'a Entry>,
    },
    /// It is the reverse name of an address in a subnet of a network.
    Reverse {
        /// The network.
        zone: &'a Zone,
        /// Who has the address, in order; nobody, or nobody whom the asker may know.
        holders: Vec<&'a Entry>,
    },
}

/// What `name` stands for when `asker` asks.
pub fn place<'a>(names: &'a Names, asker: &Asker, name: &str) -> Place<'a> {
    if let Some(inner) = strip(name, DOMAIN) {
        return inside(names, asker, inner);
    }
    if let Some(addr) = reverse_address(name) {
        return reverse(names, asker, addr);
    }
    linked(names, asker, name).or_else(|| anywhere(names, asker, name)).unwrap_or(Place::Foreign)
}

/// What is before `domain` and its dot; empty for the domain itself.
fn strip<'n>(name: &'n str, domain: &str) -> Option<&'n str> {
    let before = name.strip_suffix(domain)?;
    if before.is_empty() { Some(before) } else { before.strip_suffix('.') }
}

/// A name below the domain, which was cut off.
fn inside<'a>(names: &'a Names, asker: &Asker, inner: &str) -> Place<'a> {
    match inner {
        "" => return Place::Apex,
        "ns" => return Place::Server,
        _ => {}
    }
    let zones = || zones(names, asker);
    if zones().any(|zone| zone.name() == inner) {
        return Place::Bare;
    }
    let on = |zone: &'a Zone| Some((zone, strip(inner, zone.name()).filter(|name| !name.is_empty())?));
    let link = zones().filter_map(on).find_map(|(_, name)| linked(names, asker, name));
    let held = || zones().filter_map(on).find_map(|(zone, name)| held(zone, name));
    link.or_else(held).unwrap_or(Place::Absent)
}

/// The private alias of the asker, which is looked up before everything else. Where it leads nowhere there is nothing.
fn linked<'a>(names: &'a Names, asker: &Asker, alias: &str) -> Option<Place<'a>> {
    let mut links = asker.links.iter().filter(|(known, _)| known == alias).peekable();
    links.peek()?;
    let found = links.find_map(|(_, name)| {
        let name = strip(name, DOMAIN).unwrap_or(name);
        anywhere(names, asker, name)
    });
    Some(found.unwrap_or(Place::Absent))
}

/// `name` on a network of the asker, its own first, or `name.network`.
fn anywhere<'a>(names: &'a Names, asker: &Asker, name: &str) -> Option<Place<'a>> {
    let relative = zones(names, asker).find_map(|zone| held(zone, name));
    relative.or_else(|| {
        let qualified = |zone: &'a Zone| strip(name, zone.name()).and_then(|name| held(zone, name));
        zones(names, asker).find_map(qualified)
    })
}

/// The networks of the asker, as far as they are known.
fn zones<'a>(names: &'a Names, asker: &Asker) -> impl Iterator<Item = &'a Zone> {
    let zones = asker.networks.iter().filter_map(|&vni| names.zone(vni));
    zones.filter(|zone| !zone.name().is_empty())
}

fn held<'a>(zone: &'a Zone, name: &str) -> Option<Place<'a>> {
    let holders: Vec<_> = zone.holders(name).collect();
    (!holders.is_empty()).then(|| Place::Held { zone, name: name.to_owned(), holders })
}

/// Who has an address. Those of networks that the asker is not on exist for nobody outside.
fn reverse<'a>(names: &'a Names, asker: &Asker, addr: IpAddr) -> Place<'a> {
    let mut own = zones(names, asker).filter(|zone| zone.covers(addr) || zone.at(addr).next().is_some());
    if let Some(zone) = own.next() {
        return Place::Reverse { zone, holders: zone.at(addr).collect() };
    }
    match names.zones().find(|(_, zone)| zone.covers(addr)) {
        Some((_, zone)) => Place::Reverse { zone, holders: Vec::new() },
        None => Place::Foreign,
    }
}

/// The address whose reverse name this is (RFC 1035 section 3.5, RFC 3596 section 2.5); none for parts of one.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(octets) = strip(name, "in-addr.arpa") {
        let mut octets = octets.rsplit('.').map(|octet| octet.parse::<u8>().ok());
        let addr = [octets.next()??, octets.next()??, octets.next()??, octets.next()??];
        return octets.next().is_none().then(|| Ipv4Addr::from(addr).into());
    }
    let digits: Vec<&str> = strip(name, "ip6.arpa")?.rsplit('.').collect();
    let number = digits.concat();
    let whole = digits.len() == 32 && number.len() == 32 && number.bytes().all(|b| b.is_ascii_hexdigit());
    let bits = u128::from_str_radix(&number, 16).ok().filter(|_| whole)?;
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_read() {
        let address = |name: &str| reverse_address(name).map(|addr| addr.to_string());
        assert_eq!(address("2.0.32.10.in-addr.arpa").as_deref(), Some("10.32.0.2"));
        for part in
            ["0.32.10.in-addr.arpa", "1.2.0.32.10.in-addr.arpa", "x.0.32.10.in-addr.arpa", "in-addr.arpa"]
        {
            assert_eq!(address(part), None, "{part}");
        }
        let zeros = "0.".repeat(29);
        assert_eq!(address(&format!("2.{zeros}d.f.ip6.arpa")).as_deref(), Some("fd00::2"));
        assert_eq!(address(&format!("{zeros}d.f.ip6.arpa")), None);
        assert_eq!(address(&format!("22.{}d.f.ip6.arpa", "0.".repeat(28))), None);
        assert_eq!(address("ip6.arpa"), None);
    }
}
