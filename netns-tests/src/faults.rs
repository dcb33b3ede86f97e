//! Loss and cuts of the underlay, by nftables in the receiving host's namespace.
//!
//! What is dropped is dropped silently on arrival, so the sender sees a wire that swallows it, and each
//! direction is a cut of its own.

use std::net::IpAddr;

use anyhow::Result;

use crate::netns::Namespace;
use crate::process::Tool;

/// Adds a rule that drops what `matching` says before anything else sees it.
pub(crate) fn drop_arriving(namespace: &Namespace, matching: &str) -> Result<()> {
    let rules = format!(
        "add table inet faults\n\
         add chain inet faults arriving {{ type filter hook prerouting priority raw; }}\n\
         add rule inet faults arriving {matching} counter drop\n"
    );
    Tool::new("nft").args(["-f", "-"]).input(rules).inside(namespace).run().map(drop)
}

/// Takes every rule away.
pub(crate) fn mend(namespace: &Namespace) -> Result<()> {
    let rules = "add table inet faults\ndelete table inet faults\n";
    Tool::new("nft").args(["-f", "-"]).input(rules).inside(namespace).run().map(drop)
}

/// The match for packets from an address.
pub(crate) fn from(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("ip saddr {address}"),
        IpAddr::V6(address) => format!("ip6 saddr {address}"),
    }
}
