//! Networks as people and scripts see them: a table, and JSON in the shape of Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::Table;
use crate::shape::{Inspected, Member, Network, NetworkPeer, Subnet};

/// How many digits of an id are shown, as Docker does.
const SHORT: usize = 12;

/// The first digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// All subnets, on one line.
pub(crate) fn subnets(network: &Network) -> String {
    let all: Vec<String> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
    all.join(",")
}

/// `network ls`. The columns of Docker, and what else people look for.
pub(crate) fn table(networks: &[&Network], whole_ids: bool) -> String {
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "VNI", "SUBNETS"]);
    for network in networks {
        let id = if whole_ids { &network.network_id } else { short(&network.network_id) };
        let Network { network: name, driver, scope, vni, .. } = network;
        table.row([id, name, driver, scope, &vni.to_string(), &subnets(network)]);
    }
    table.to_string()
}

/// `network inspect` of one network.
pub(crate) fn docker(inspected: &Inspected) -> Value {
    let Inspected { network, members } = inspected;
    let containers: Map<String, Value> = members.iter().map(|m| (key(m), container(m))).collect();
    json!({
        "Name": network.network,
        "Id": network.network_id,
        "Created": created(network.created_s),
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.subnets.iter().any(|subnet| subnet.gateway.is_ipv4()),
        "EnableIPv6": network.has_ipv6(),
        "IPAM": {
            "Driver": network.driver,
            "Options": Value::Null,
            "Config": network.subnets.iter().map(config).collect::<Vec<_>>(),
        },
        "Internal": network.internal,
        "Attachable": true,
        "Ingress": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
        "Peers": network.peers.iter().map(peer).collect::<Vec<_>>(),
        "VNI": network.vni,
        "MTU": network.mtu,
        "Encrypted": network.encrypted,
    })
}

fn config(subnet: &Subnet) -> Value {
    let Subnet { subnet, range, gateway, aux } = subnet;
    let mut config =
        Map::from_iter([("Subnet".to_owned(), json!(subnet)), ("Gateway".to_owned(), json!(gateway))]);
    // As Docker, only where people said so.
    if range != subnet {
        config.insert("IPRange".to_owned(), json!(range));
    }
    if !aux.is_empty() {
        config.insert("AuxiliaryAddresses".to_owned(), json!(aux));
    }
    Value::Object(config)
}

/// Docker has containers by their ids; one that is not Docker's has the id of its endpoint alone.
fn key(member: &Member) -> String {
    member.docker_id.clone().unwrap_or_else(|| format!("ep-{}", member.port))
}

fn container(member: &Member) -> Value {
    let Member { listed, port, .. } = member;
    let attachment = &listed.attachment;
    let is_v4 = |prefix: &&String| {
        prefix.split('/').next().and_then(|addr| addr.parse().ok()).is_some_and(|ip: IpAddr| ip.is_ipv4())
    };
    let (v4, v6): (Vec<&String>, Vec<&String>) = attachment.addresses.iter().partition(is_v4);
    let first = |addresses: &[&String]| addresses.first().map_or(String::new(), ToString::to_string);
    json!({
        "Name": attachment.name,
        "EndpointID": port,
        "MacAddress": attachment.mac,
        "IPv4Address": first(&v4),
        "IPv6Address": first(&v6),
        "Container": attachment.container,
        "Addresses": attachment.addresses,
        "State": listed.state,
        "Host": listed.nickname.as_ref().unwrap_or(&listed.peer_id),
    })
}

fn peer(peer: &NetworkPeer) -> Value {
    let address = peer.address.map_or(String::new(), |address| address.to_string());
    let named = [("Name", &peer.nickname), ("IP", &address), ("PeerId", &peer.peer_id)];
    json!(named.into_iter().collect::<BTreeMap<_, _>>())
}

/// A moment in UTC, as `2023-11-14T22:13:20Z` (RFC 3339).
pub(crate) fn created(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day since 1970. A year of the calculation begins in March, so that a leap day is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    // 719468 days lie between 0000-03-01 and 1970-01-01; 146097 days are 400 years.
    let since = days + 719_468;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::network;
    use crate::shape::{Attachment, Listed};

    fn member(docker_id: Option<&str>) -> Member {
        let addresses = vec!["10.99.0.2/16".to_owned(), "fd00:99::2/64".to_owned()];
        let attachment = Attachment {
            container: "web".into(),
            network: "blue".into(),
            name: "www".into(),
            address: addresses.first().cloned(),
            addresses,
            mac: "02:00:00:00:00:01".into(),
            ifname: "mesh1".into(),
        };
        let listed = Listed {
            attachment,
            peer_id: "11".into(),
            nickname: Some("node01".into()),
            state: "running".into(),
        };
        Member { listed, port: "0123456789abcdef".into(), docker_id: docker_id.map(str::to_owned) }
    }

    #[test]
    fn the_table_begins_as_dockers() {
        let blue = network("blue");
        let expected = "\
NETWORK ID    NAME  DRIVER   SCOPE   VNI   SUBNETS
00ab00ab00ab  blue  meshnet  global  4096  10.99.0.0/16,fd00:99::/64
";
        assert_eq!(table(&[&blue], false), expected);
        assert!(table(&[&blue], true).contains(&blue.network_id));
    }

    #[test]
    fn a_network_has_the_shape_of_docker() {
        let mut blue = network("blue");
        blue.subnets[0].range = "10.99.8.0/24".parse().unwrap();
        blue.subnets[0].aux.insert("printer".into(), "10.99.0.7".parse().unwrap());
        let inspected = Inspected { network: blue, members: vec![member(Some("c0ffee")), member(None)] };
        let shown = docker(&inspected);
        for key in [
            "Name",
            "Id",
            "Created",
            "Scope",
            "Driver",
            "EnableIPv4",
            "EnableIPv6",
            "IPAM",
            "Internal",
            "Attachable",
            "Ingress",
            "Containers",
            "Options",
            "Labels",
            "Peers",
        ] {
            assert!(shown.get(key).is_some(), "{key}");
        }
        let config = &shown["IPAM"]["Config"];
        assert_eq!(config[0]["Subnet"], "10.99.0.0/16");
        assert_eq!(config[0]["IPRange"], "10.99.8.0/24");
        assert_eq!(config[0]["AuxiliaryAddresses"]["printer"], "10.99.0.7");
        assert_eq!((&config[1]["Gateway"], &config[1]["IPRange"]), (&json!("fd00:99::1"), &Value::Null));
        let web = &shown["Containers"]["c0ffee"];
        assert_eq!((&web["Name"], &web["EndpointID"]), (&json!("www"), &json!("0123456789abcdef")));
        assert_eq!(
            (&web["IPv4Address"], &web["IPv6Address"]),
            (&json!("10.99.0.2/16"), &json!("fd00:99::2/64"))
        );
        assert_eq!(web["MacAddress"], "02:00:00:00:00:01");
        assert!(shown["Containers"].get("ep-0123456789abcdef").is_some());
        assert_eq!(shown["Peers"][0]["Name"], "node01");
    }

    #[test]
    fn moments_are_told_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(created(seconds), text);
        }
    }
}
