//! Docker's page "Work with network commands", done with meshnet's commands on three hosts.
//!
//! The page has one bridge on one host; here `mesh` stands for it, and the seven containers are spread over three hosts. One
//! thing is better than on the page: names work on `mesh` too.

use std::cell::RefCell;
use std::collections::BTreeMap;

use netns_tests::{Container, Host, Result, Tool, Topology, Value, anyhow, ensure, json, secs, wait_until};

/// How long a thing may take to be known everywhere.
const AT_ONCE: f64 = 2.0;

/// The three hosts, and the containers by their names.
struct Lab {
    net: Topology,
    containers: RefCell<BTreeMap<String, (usize, Container)>>,
}

impl Lab {
    fn new() -> Result<Self> {
        let net = Topology::new("work with network commands")?.hosts(3)?;
        net.host(0).launch(&[])?;
        net.host(1).launch(&["node01"])?;
        net.host(2).launch(&["node01"])?;
        net.wait_converged(secs(10))?;
        Ok(Lab { net, containers: RefCell::default() })
    }

    /// `docker run --network=NETWORK ... --name=NAME busybox` on one of the hosts.
    fn run(&self, host: usize, name: &str, options: &str) -> Result<String> {
        let container = Container::named(name)?;
        let reference = container.reference();
        let words = ["attach", &reference, "--name", name].into_iter().chain(options.split_whitespace());
        let printed = self.net.host(host).run(&words.collect::<Vec<_>>())?;
        self.containers.borrow_mut().insert(name.to_owned(), (host, container));
        Ok(printed.trim().to_owned())
    }

    fn on(&self, container: &str) -> Result<(&Host, Container)> {
        let containers = self.containers.borrow();
        let found = containers.get(container).ok_or_else(|| anyhow!("{container} was not run"))?;
        Ok((self.net.host(found.0), found.1.clone()))
    }

    /// `docker network connect OPTIONS NETWORK CONTAINER`, on the host of the container.
    fn connect(&self, options: &str, network: &str, container: &str) -> Result<String> {
        let (host, found) = self.on(container)?;
        let reference = found.reference();
        let words = ["network", "connect", "--name", container].into_iter().chain(options.split_whitespace());
        let printed = host.run(&words.chain([network, &reference]).collect::<Vec<_>>())?;
        Ok(printed.trim().to_owned())
    }

    /// `docker network disconnect NETWORK CONTAINER`, on the host of the container.
    fn disconnect(&self, network: &str, container: &str) -> Result<()> {
        let (host, found) = self.on(container)?;
        host.run(&["network", "disconnect", network, &found.reference()]).map(drop)
    }

    /// `docker stop CONTAINER`: its namespace ends.
    fn kill(&self, container: &str) -> Result<()> {
        let (_, found) = self.on(container)?;
        self.containers.borrow_mut().remove(container);
        found.kill()
    }

    /// `ping NAME` in a container: the address that answered, or what it said.
    fn ping(&self, from: &str, to: &str) -> Result<String> {
        let (_, found) = self.on(from)?;
        let namespace = found.reference().trim_start_matches("netns:").to_owned();
        let ping = Tool::new("ip").args(["netns", "exec", &namespace, "ping", "-c", "1", "-w", "1", to]);
        let outcome = ping.outcome()?;
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        let answered = outcome.ok().map_err(|_| anyhow!("{from} pings {to}: {said}"))?;
        // PING container3 (172.25.3.3) 56(84) bytes of data.
        let address = answered.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
        Ok(address.map_or(answered.clone(), |(address, _)| address.to_owned()))
    }

    /// The page's "64 bytes from ADDRESS".
    fn reaches(&self, from: &str, to: &str, address: &str) -> Result<()> {
        wait_until(&format!("{from} reaches {to} at {address}"), secs(AT_ONCE), || {
            let answered = self.ping(from, to)?;
            ensure!(answered == address, "{from} reaches {to} at {answered}, not {address}");
            Ok(())
        })
    }

    /// The page's "ping: bad address". Names that are not ours are asked of others, and nobody answers those here.
    fn bad_address(&self, from: &str, to: &str) -> Result<()> {
        wait_until(&format!("{from} knows no {to}"), secs(AT_ONCE), || match self.ping(from, to) {
            Ok(address) => Err(anyhow!("{from} reaches {to} at {address}")),
            Err(said) if said.to_string().contains("name resolution") => Ok(()),
            Err(said) if said.to_string().contains("not known") => Ok(()),
            Err(said) => Err(said),
        })
    }

    /// The page's "100% packet loss".
    fn no_answer(&self, from: &str, address: &str) -> Result<()> {
        match self.ping(from, address) {
            Ok(_) => Err(anyhow!("{from} reaches {address}")),
            Err(said) if said.to_string().contains("100% packet loss") => Ok(()),
            Err(said) if said.to_string().contains("unreachable") => Ok(()),
            Err(said) => Err(said),
        }
    }

    /// The `Containers` of `network inspect`, asked on any host: names and addresses.
    fn members(&self, host: usize, network: &str) -> Result<Vec<(String, String)>> {
        let inspected = self.net.host(host).inspect(network)?;
        let members = inspected.get("Containers").and_then(Value::as_object).cloned().unwrap_or_default();
        let text = |member: &Value, key: &str| {
            member.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut all: Vec<_> =
            members.values().map(|member| (text(member, "Name"), text(member, "IPv4Address"))).collect();
        all.sort();
        Ok(all)
    }
}

fn of(prefix: &str) -> &str {
    prefix.split('/').next().unwrap_or_default()
}

#[test]
fn work_with_network_commands() -> Result<()> {
    let lab = Lab::new()?;
    let (node01, node02, node03) = (0, 1, 2);
    let any = |host: usize| lab.net.host(host);

    // Basic container networking example: two containers on the default network.
    let container1 = lab.run(node01, "container1", "")?;
    lab.run(node02, "container2", "")?;

    // $ docker network create -d bridge --subnet 172.25.0.0/16 isolated_nw
    any(node01).run_line("network create --subnet 172.25.0.0/16 isolated_nw")?;
    let isolated = wait_until("it is on node03", secs(AT_ONCE), || any(node03).inspect("isolated_nw"))?;
    let config = isolated.pointer("/IPAM/Config");
    let expected = json!([{"Subnet": "172.25.0.0/16", "Gateway": "172.25.0.1"}]);
    ensure!(config == Some(&expected), "{isolated}");

    // $ docker network connect isolated_nw container2
    let container2 = lab.connect("", "isolated_nw", "container2")?;
    ensure!(container2.starts_with("172.25.") && container2.ends_with("/16"), "it has {container2}");
    wait_until("inspect shows container2", secs(AT_ONCE), || {
        let members = lab.members(node01, "isolated_nw")?;
        ensure!(members == [("container2".to_owned(), container2.clone())], "{members:?}");
        Ok(())
    })?;

    // $ docker run --network=isolated_nw --ip=172.25.3.3 -itd --name=container3 busybox
    let container3 = lab.run(node03, "container3", "--network isolated_nw --ip 172.25.3.3")?;
    ensure!(container3 == "172.25.3.3/16", "it has {container3}");

    // container2 is on both networks: two interfaces.
    let (_, inside) = lab.on("container2")?;
    ensure!(inside.namespace().ports()? == ["mesh0", "mesh1"], "{:?}", inside.namespace().ports()?);
    // / # ping -w 4 container3
    lab.reaches("container2", "container3", "172.25.3.3")?;
    // / # ping -w 4 container1
    lab.reaches("container2", "container1", of(&container1))?;
    // / # ping -w 4 172.17.0.2
    lab.reaches("container2", of(&container1), of(&container1))?;
    // container1 and container3 are on no network together.
    lab.no_answer("container1", "172.25.3.3")?;
    lab.bad_address("container1", "container3")?;
    lab.no_answer("container3", of(&container1))?;

    // Linking containers in user-defined networks: a link may name a container that is not there yet.
    // $ docker run --network=isolated_nw -itd --name=container4 --link container5:c5 busybox
    lab.run(node01, "container4", "--network isolated_nw --link container5:c5")?;
    lab.bad_address("container4", "c5")?;
    // $ docker run --network=isolated_nw -itd --name=container5 --link container4:c4 busybox
    let container5 = lab.run(node02, "container5", "--network isolated_nw --link container4:c4")?;
    lab.reaches("container4", "c5", of(&container5))?;
    lab.reaches("container4", "container5", of(&container5))?;
    let container4 = lab.ping("container5", "container4")?;
    lab.reaches("container5", "c4", &container4)?;
    // A link is nobody else's.
    lab.bad_address("container3", "c5")?;
    lab.bad_address("container5", "c5")?;

    // Links are of one network each.
    // $ docker network create -d bridge --subnet 172.26.0.0/24 local_alias
    any(node02).run_line("network create --subnet 172.26.0.0/24 local_alias")?;
    wait_until("it is everywhere", secs(AT_ONCE), || {
        lab.net.all().iter().try_for_each(|host| host.inspect("local_alias").map(drop))
    })?;
    // $ docker network connect --link container5:foo local_alias container4
    lab.connect("--link container5:foo", "local_alias", "container4")?;
    // $ docker network connect --link container4:bar local_alias container5
    let local5 = lab.connect("--link container4:bar", "local_alias", "container5")?;
    lab.reaches("container4", "foo", of(&local5))?;
    lab.reaches("container4", "c5", of(&container5))?;
    // $ docker network disconnect isolated_nw container5
    lab.disconnect("isolated_nw", "container5")?;
    lab.bad_address("container4", "c5")?;
    lab.reaches("container4", "foo", of(&local5))?;

    // Network-scoped aliases: a name that several containers have.
    // $ docker run --network=isolated_nw -itd --name=container6 --network-alias app busybox
    let container6 = lab.run(node02, "container6", "--network isolated_nw --alias app")?;
    // $ docker network connect --alias scoped-app local_alias container6
    let local6 = lab.connect("--alias scoped-app", "local_alias", "container6")?;
    lab.reaches("container4", "app", of(&container6))?;
    lab.reaches("container4", "scoped-app", of(&local6))?;
    // container5 is on local_alias alone.
    lab.bad_address("container5", "app")?;
    lab.reaches("container5", "scoped-app", of(&local6))?;
    // $ docker run --network=isolated_nw -itd --name=container7 --network-alias app busybox
    let container7 = lab.run(node03, "container7", "--network isolated_nw --alias app")?;
    // $ docker network connect --alias scoped-app local_alias container7
    let local7 = lab.connect("--alias scoped-app", "local_alias", "container7")?;
    wait_until("app is either of them", secs(AT_ONCE), || {
        let app = lab.ping("container4", "app")?;
        ensure!([of(&container6), of(&container7)].contains(&app.as_str()), "app is {app}");
        Ok(())
    })?;
    // $ docker stop container6
    lab.kill("container6")?;
    lab.reaches("container4", "app", of(&container7))?;
    lab.reaches("container4", "scoped-app", of(&local7))?;
    lab.reaches("container5", "scoped-app", of(&local7))?;

    // Disconnecting containers.
    // $ docker network disconnect isolated_nw container2
    lab.disconnect("isolated_nw", "container2")?;
    ensure!(inside.namespace().ports()? == ["mesh0"], "{:?}", inside.namespace().ports()?);
    wait_until("inspect shows container2 no more", secs(AT_ONCE), || {
        let members = lab.members(node03, "isolated_nw")?;
        ensure!(members.iter().all(|(name, _)| name != "container2"), "{members:?}");
        ensure!(members.contains(&("container3".to_owned(), container3.clone())), "{members:?}");
        Ok(())
    })?;
    // / # ping container3
    lab.bad_address("container2", "container3")?;
    // / # ping container1
    lab.reaches("container2", "container1", of(&container1))?;

    // Remove a network, once nobody is on it.
    let refused = any(node01).meshnet(&["network", "rm", "isolated_nw"])?.fails_with(1)?;
    ensure!(refused.contains("container3 on node03"), "{refused}");
    for container in ["container3", "container4", "container7"] {
        lab.disconnect("isolated_nw", container)?;
    }
    // $ docker network rm isolated_nw
    let removed = wait_until("it can go", secs(AT_ONCE), || any(node01).run_line("network rm isolated_nw"))?;
    ensure!(removed == "isolated_nw\n", "it removed {removed:?}");
    // $ docker network ls
    wait_until("it is gone everywhere", secs(AT_ONCE), || {
        for host in lab.net.all() {
            ensure!(host.networks()? == ["local_alias", "mesh"], "{}: {:?}", host.name(), host.networks()?);
        }
        Ok(())
    })?;
    lab.reaches("container4", "foo", of(&local5))
}
