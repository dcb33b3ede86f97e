//! The host itself on the overlay: a port in the daemon's own namespace, and what passes through it.
//!
//! The port is one like any other; what is special is that its kernel may forward. So the rules of
//! `engine::io::nftables` are set before the first frame of it flows, and anew whenever such a port comes or goes.

use std::net::IpAddr;
use std::sync::Arc;

use engine::io::nftables::{self, Forwarding, Outlet};
use engine::types::{IpPrefix, PortId};

use super::attach::{self, Caller, Subject};
use super::ports::{Intent, Source};
use super::{Daemon, containers};
use crate::failure::{Failure, code};
use crate::shape::{AttachRequest, Detached, ExposeRequest, HideRequest, Passing};

/// Whether this host forwards IPv4 at all (Documentation/networking/ip-sysctl.rst).
const FORWARD_V4: &str = "/proc/sys/net/ipv4/ip_forward";
/// The same for IPv6.
const FORWARD_V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Gives the host a port and tells the caller, or undoes everything when the caller has gone away.
pub(super) async fn expose(daemon: Arc<Daemon>, request: ExposeRequest, caller: Caller) {
    let forwarding = match request.passing {
        None => Forwarding::None,
        Some(Passing::Routed) => Forwarding::Routed,
        Some(Passing::Masqueraded) => Forwarding::Masqueraded,
    };
    let ExposeRequest { network, ip, name, ifname, passing: _, timeout_s } = request;
    let container = containers::HOST.to_owned();
    // The host has name servers of its own, and keeps them.
    let (aliases, links, dns) = (Vec::new(), Vec::new(), false);
    let request = AttachRequest {
        container,
        network,
        ip,
        name,
        mac: None,
        ifname,
        rate: None,
        no_spoof_check: false,
        aliases,
        links,
        dns,
        timeout_s,
    };
    if let Err(failure) = daemon.refuse_way_out(&request.network, forwarding) {
        // Whoever left need not be told.
        let _ = caller.send(Err(failure));
        return;
    }
    attach::attach(daemon, request, Subject::Host(forwarding), caller).await;
}

/// Takes the host off a network. One that is not on it is fine.
pub(super) async fn hide(daemon: &Arc<Daemon>, request: HideRequest) -> Result<Detached, Failure> {
    let network = daemon.network_id(&request.network)?;
    let is_it = |intent: &&Intent| intent.source == Source::Host && intent.network == network;
    let intent = daemon.ports().all().find(is_it).cloned();
    if let Some(intent) = &intent {
        daemon.detach_port(intent).await?;
    }
    let container = containers::HOST.to_owned();
    Ok(Detached { container, network: request.network, detached: intent.is_some() })
}

/// What people are told of it.
pub(super) fn passing(forwarding: Forwarding) -> Option<Passing> {
    match forwarding {
        Forwarding::None => None,
        Forwarding::Routed => Some(Passing::Routed),
        Forwarding::Masqueraded => Some(Passing::Masqueraded),
    }
}

impl Daemon {
    /// An internal network has no way out.
    fn refuse_way_out(&self, network: &str, forwarding: Forwarding) -> Result<(), Failure> {
        let id = self.network_id(network)?;
        let internal = self.networks.borrow().get(id).is_some_and(|view| view.internal);
        if !internal || forwarding == Forwarding::None {
            return Ok(());
        }
        Err(Failure::new(
            code::NETWORK_INTERNAL,
            format!("the network {network} is internal: nothing passes out of it"),
        )
        .hint("expose this host without --route and --masquerade, or make a network without --internal"))
    }

    /// Sets the rules for the ports of this host, of which `coming` has its interface by now. Nothing to do for others.
    pub(super) async fn admit_outlet(self: &Arc<Self>, coming: &Intent) -> Result<(), Failure> {
        if coming.source != Source::Host {
            return Ok(());
        }
        let others = self.exposed(coming.port).into_iter();
        let all = others.chain([coming.clone()]).map(|intent| self.outlet(&intent)).collect();
        self.set_rules(all).await?;
        if coming.forwarding != Forwarding::None {
            self.switch_forwarding_on(coming);
        }
        Ok(())
    }

    /// Sets the rules anew now that `gone` is no port any more. Nothing to do for others than the host's.
    pub(super) async fn dismiss_outlet(self: &Arc<Self>, gone: &Intent) {
        if gone.source != Source::Host {
            return;
        }
        let left = self.exposed(gone.port).iter().map(|intent| self.outlet(intent)).collect();
        if let Err(failure) = self.set_rules(left).await {
            tracing::error!("rules of {} stay: {failure}", gone.ifname.as_deref().unwrap_or("an interface"));
        }
    }

    async fn set_rules(self: &Arc<Self>, outlets: Vec<Outlet>) -> Result<(), Failure> {
        let set = self.blocking(move |_| nftables::replace(&outlets)).await?;
        set.map_err(|e| {
            Failure::new(code::RULES_FAILED, e.to_string())
                .hint("the kernel needs nf_tables with NAT: load the module with `modprobe nf_tables`")
        })
    }

    /// The ports of this host itself that have an interface, without one of them.
    fn exposed(&self, without: PortId) -> Vec<Intent> {
        let ports = self.ports();
        let exposed = |intent: &&Intent| {
            intent.source == Source::Host && intent.port != without && intent.ifname.is_some()
        };
        ports.all().filter(exposed).cloned().collect()
    }

    fn outlet(&self, intent: &Intent) -> Outlet {
        let of_network = self.subnets(intent.network);
        // Before the first word of the network its own prefixes have to do.
        let own = intent.addresses.iter().copied();
        let mut subnets: Vec<IpPrefix> = of_network.into_iter().chain(own).map(trunc).collect();
        subnets.sort_unstable();
        subnets.dedup();
        Outlet { ifname: intent.ifname.clone().unwrap_or_default(), subnets, forwarding: intent.forwarding }
    }

    /// A host that does not forward IPv4 begins to. For IPv6 that is left to people: such a host no longer listens to
    /// routers (Documentation/networking/ip-sysctl.rst, `accept_ra`), and may lose its own way out.
    fn switch_forwarding_on(&self, intent: &Intent) {
        let is_on = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
        let has = |v6: bool| intent.addresses.iter().any(|address| address.addr.is_ipv6() == v6);
        if has(false) && !is_on(FORWARD_V4) {
            match std::fs::write(FORWARD_V4, "1") {
                Ok(()) => {
                    self.tell("forwarding_on", "this host forwards IPv4 from now on, for `expose`".to_owned())
                }
                Err(e) => self.tell(
                    "forwarding_off",
                    format!("this host does not forward IPv4, and it cannot be switched on: {e}"),
                ),
            }
        }
        if has(true) && !is_on(FORWARD_V6) {
            let message =
                "this host does not forward IPv6: switch it on with `sysctl net.ipv6.conf.all.forwarding=1`";
            self.tell("forwarding_off", message.to_owned());
        }
    }
}

/// The subnet of an address.
fn trunc(prefix: IpPrefix) -> IpPrefix {
    let addr = match prefix.addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix.len.min(32))).unwrap_or(0);
            IpAddr::from(std::net::Ipv4Addr::from_bits(addr.to_bits() & mask))
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix.len.min(128))).unwrap_or(0);
            IpAddr::from(std::net::Ipv6Addr::from_bits(addr.to_bits() & mask))
        }
    };
    IpPrefix { addr, len: prefix.len }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_its_address_without_the_host() {
        let subnet = |addr: &str, len| trunc(IpPrefix { addr: addr.parse().unwrap(), len }).to_string();
        assert_eq!(subnet("10.47.1.2", 12), "10.32.0.0/12");
        assert_eq!(subnet("10.47.1.2", 32), "10.47.1.2/32");
        assert_eq!(subnet("10.47.1.2", 0), "0.0.0.0/0");
        assert_eq!(subnet("fd00:1:2::9", 32), "fd00:1::/32");
        assert_eq!(subnet("fd00::1", 0), "::/0");
    }
}
