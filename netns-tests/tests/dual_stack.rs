//! Networks of both families over underlays of either: ping, TCP and names by IPv4 and by IPv6, and what has one family alone.

use std::net::IpAddr;

use netns_tests::{
    Attached, Container, Host, IperfServer, Namespace, Result, Topology, Transport, Value, bail, ensure,
    secs, wait_until,
};

/// The gateways of the network `blue`.
const GATEWAYS: [&str; 2] = ["10.99.0.1", "fd00:99::1"];
const BLUE: &str = "network create blue --ipv6 --subnet 10.99.0.0/16 --subnet fd00:99::/64";

/// The underlay of some hosts, and how frames cross it.
struct Bed {
    net: Topology,
    secrets: Vec<String>,
    over_ipv6: bool,
}

impl Bed {
    fn new(promise: &str, sealed: bool, over_ipv6: bool) -> Result<Self> {
        let net = Topology::new(promise)?.hosts(2)?;
        let other =
            if over_ipv6 { "-4 address flush dev eth0" } else { "-6 address flush dev eth0 scope global" };
        net.all().iter().try_for_each(|host| host.namespace().ip(other).map(drop))?;
        let secrets = if sealed { net.share_secret()? } else { Vec::new() };
        Ok(Bed { net, secrets, over_ipv6 })
    }

    /// Launches both hosts; a container on each, on a network of both families.
    fn launch(&self) -> Result<(Attached, Attached)> {
        let first = self.net.host(0);
        let founder =
            if self.over_ipv6 { format!("[{}]", first.address6()) } else { first.name().to_owned() };
        for (index, host) in self.net.all().iter().enumerate() {
            let mut options = if index == 0 { Vec::new() } else { vec![founder.as_str()] };
            if let Some(secret) = self.secrets.get(index) {
                options.extend(["--secret-file", secret]);
            }
            host.launch(&options)?;
        }
        first.run_line(BLUE)?;
        Ok((on_blue(first, "web")?, on_blue(self.net.host(1), "db")?))
    }
}

/// A container on the network, as soon as the host knows it.
fn on_blue(host: &Host, name: &str) -> Result<Attached> {
    let container = Container::new(name)?;
    wait_until("the network is known", secs(5), || host.attach_to(&container, "blue", &[]))
}

/// The address of each family, that of IPv4 first.
fn both(of: &Attached) -> Result<[IpAddr; 2]> {
    let addresses = of.addresses()?;
    let [fourth @ IpAddr::V4(_), sixth @ IpAddr::V6(_)] = addresses.as_slice() else {
        bail!("{} has {addresses:?}", of.name());
    };
    Ok([*fourth, *sixth])
}

#[test]
fn both_families_pass_a_plain_underlay_of_ipv4() -> Result<()> {
    everything_works(&Bed::new("dual stack, plain, IPv4", false, false)?, 1450)
}

#[test]
fn both_families_pass_a_plain_underlay_of_ipv6() -> Result<()> {
    everything_works(&Bed::new("dual stack, plain, IPv6", false, true)?, 1430)
}

#[test]
fn both_families_pass_a_sealed_underlay_of_ipv4() -> Result<()> {
    everything_works(&Bed::new("dual stack, sealed, IPv4", true, false)?, 1418)
}

#[test]
fn both_families_pass_a_sealed_underlay_of_ipv6() -> Result<()> {
    everything_works(&Bed::new("dual stack, sealed, IPv6", true, true)?, 1398)
}

fn everything_works(bed: &Bed, mtu: usize) -> Result<()> {
    let (web, db) = bed.launch()?;
    for (near, far, gateway) in each_family(&web, &db)? {
        // The headers of IP and of the echo.
        let headers = if near.is_ipv4() { 28 } else { 48 };
        web.ping(&far)?;
        db.ping(&near)?;
        web.ping_whole(&far, mtu - headers)?;
        for asker in [&web, &db] {
            asker.ping(&gateway)?;
            asker.namespace().ping_whole(&gateway, mtu - headers)?;
        }
        streams(&web, &db, far)?;
    }
    names_are_told(&web, &db)?;
    names_are_told(&db, &web)?;
    bed.net.all().iter().try_for_each(|host| host.wait_balanced(secs(5)))
}

/// For each family: the addresses of both containers, and the gateway's.
fn each_family(web: &Attached, db: &Attached) -> Result<Vec<(IpAddr, IpAddr, IpAddr)>> {
    let (near, far) = (both(web)?, both(db)?);
    let rows = near.into_iter().zip(far).zip(GATEWAYS);
    rows.map(|((near, far), gateway)| Ok((near, far, gateway.parse()?))).collect()
}

fn streams(web: &Attached, db: &Attached, at: IpAddr) -> Result<()> {
    let server = IperfServer::start(db.namespace(), &at)?;
    for options in ["", "-R"] {
        let speed = server.measure(web.namespace(), Transport::TCP, secs(1), options)?.bits_per_second()?;
        ensure!(speed > 20e6, "{at} {options:?}: {speed:.0} bit/s");
    }
    Ok(())
}

/// Each of the gateway's addresses tells both addresses of `holder` and its name, by UDP and by TCP.
fn names_are_told(asker: &Attached, holder: &Attached) -> Result<()> {
    let [fourth, sixth] = both(holder)?;
    let full = format!("{}.blue.mesh.internal.", holder.name());
    for gateway in GATEWAYS {
        for way in ["+notcp", "+tcp"] {
            let ask = |words: String| asker.namespace().resolve(&format!("@{gateway} {way} {words}"));
            for (question, answer) in [
                (format!("{} A", holder.name()), fourth.to_string()),
                (format!("{} AAAA", holder.name()), sixth.to_string()),
                (format!("{full} AAAA"), sixth.to_string()),
                (format!("-x {fourth}"), full.clone()),
                (format!("-x {sixth}"), full.clone()),
            ] {
                let what = format!("dig @{gateway} {way} {question}");
                wait_until(&what, secs(2), || {
                    let told = ask(question.clone());
                    ensure!(told == [answer.as_str()], "{told:?} and not {answer}");
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_host_whose_ipv6_is_switched_off_takes_part() -> Result<()> {
    let bed = Bed::new("one host has no IPv6", false, false)?;
    switch_ipv6_off(bed.net.host(1).namespace())?;
    let (web, db) = bed.launch()?;
    // Its containers have their own settings, and so has its interface on a network of both families.
    let told = bed.net.host(1).run_json(&["expose", "--network", "blue"])?;
    let told = told.get("addresses").and_then(Value::as_array).cloned().unwrap_or_default();
    ensure!(told.len() == 2, "{told:?}");
    for prefix in told.iter().filter_map(Value::as_str) {
        let address: IpAddr = prefix.split('/').next().unwrap_or_default().parse()?;
        web.ping(&address)?;
        db.ping(&address)?;
    }
    for (near, far, _) in each_family(&web, &db)? {
        web.ping(&far)?;
        db.ping(&near)?;
        streams(&web, &db, far)?;
    }
    Ok(())
}

fn switch_ipv6_off(namespace: &Namespace) -> Result<()> {
    ["all", "default"]
        .iter()
        .try_for_each(|which| namespace.sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1"))
}

#[test]
fn a_container_whose_ipv6_is_switched_off_has_it_on_the_network() -> Result<()> {
    let bed = Bed::new("containers without IPv6", false, false)?;
    let (web, db) = bed.launch()?;
    // Docker leaves all its containers so.
    let container = Container::new("docked")?;
    switch_ipv6_off(container.namespace())?;
    let docked = bed.net.host(1).attach_to(&container, "blue", &[])?;
    for address in both(&docked)? {
        web.ping(&address)?;
    }
    both(&web)?.iter().try_for_each(|address| docked.ping(address))?;
    names_are_told(&docked, &db)
}
