//! Open vSwitch with `datapath_type=netdev`: frames are switched by its daemon, VXLAN is made there too.
//!
//! Tunnels of this datapath need the underlay interface inside a bridge of the same datapath, and the underlay's
//! address on that bridge (Documentation/howto/userspace-tunneling.rst). Every host has its own database and
//! daemons with all their files in the host's directory; the system's services are not touched.

use std::path::PathBuf;

use anyhow::{Context, Result};
use netns_tests::{Container, Host, Process, Topology, secs, wait_for};

use super::{End, Lane, Route, pair, program};

/// What VXLAN over IPv4 leaves of 1500 bytes.
const MTU: u16 = 1450;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

const INSTALL: &str = "apt-get install openvswitch-switch (its services may stay off)";

/// Fails when it is not installed.
pub(super) fn check() -> Result<()> {
    let tools = ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"];
    tools.iter().try_for_each(|tool| program(tool, INSTALL).map(drop))
}

/// A switch on one host.
struct Switch<'host> {
    host: &'host Host,
    directory: PathBuf,
    processes: Vec<Process>,
}

/// Two switches with a VXLAN port towards each other and a container on each.
pub(super) fn lane(topology: Topology) -> Result<Lane> {
    let (a, b) = (topology.host(0), topology.host(1));
    let switches = [Switch::start(a)?, Switch::start(b)?];
    switches[0].configure(b)?;
    switches[1].configure(a)?;
    let containers = pair()?;
    let ends =
        vec![switches[0].join(&containers[0], "10.99.0.1")?, switches[1].join(&containers[1], "10.99.0.2")?];
    containers[0].ping_within(&ends[1].address, secs(20))?;
    let daemons = switches.into_iter().flat_map(|switch| switch.processes).collect();
    Ok(Lane::new(topology, Route::through(ends)).with_daemons(daemons, 2).with_containers(containers))
}

impl<'host> Switch<'host> {
    fn start(host: &'host Host) -> Result<Self> {
        let directory = host.directory().join("ovs");
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut switch = Switch { host, directory, processes: Vec::new() };
        let database = switch.file("conf.db");
        switch.tool("ovsdb-tool")?.args(["create", &database, SCHEMA]).run()?;
        let remote = format!("--remote=punix:{}", switch.file("db.sock"));
        let control = format!("--unixctl={}", switch.file("ovsdb-server.ctl"));
        let server = switch.tool("ovsdb-server")?.args([&database, &remote, &control]).start()?;
        switch.processes.push(server);
        let socket = switch.directory.join("db.sock");
        wait_for("ovsdb-server listens", secs(10), || socket.exists())?;
        switch.vsctl("--no-wait init")?;
        let control = format!("--unixctl={}", switch.file("ovs-vswitchd.ctl"));
        let daemon = switch.tool("ovs-vswitchd")?.args([&switch.database(), &control]).start()?;
        switch.processes.push(daemon);
        Ok(switch)
    }

    /// Puts the underlay into a bridge, and a VXLAN port to `other` into a second one.
    fn configure(&self, other: &Host) -> Result<()> {
        let (own, interface) = (self.host.address(), self.host.interface());
        self.vsctl(&format!(
            "add-br under -- set bridge under datapath_type=netdev -- add-port under {interface}"
        ))?;
        let namespace = self.host.namespace();
        // This datapath does not complete checksums, nor cut or join anything.
        self.host.tool("ethtool").words(&format!("-K {interface} tx off gro off")).run()?;
        namespace.ip(&format!("address flush dev {interface}"))?;
        namespace.ip(&format!("address add {own}/24 dev under"))?;
        namespace.ip("link set dev under up")?;
        self.vsctl(&format!(
            "add-br over -- set bridge over datapath_type=netdev -- add-port over vx0 \
             -- set interface vx0 type=vxlan options:remote_ip={} options:local_ip={own} options:key=1",
            other.address()
        ))
    }

    /// A veth into the container, as `ovs-docker` makes it.
    fn join(&self, container: &Container, address: &str) -> Result<End> {
        let pid = container.pid().context("the container has no process")?;
        let host = self.host.namespace();
        host.ip(&format!("link add name c0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns {pid}"))?;
        host.ip("link set dev c0 up")?;
        let namespace = container.namespace();
        netns_tests::Tool::new("ethtool").words("-K eth0 tx off").inside(namespace).run()?;
        namespace.ip(&format!("address add {address}/24 dev eth0"))?;
        namespace.ip("link set dev eth0 up")?;
        self.vsctl("add-port over c0")?;
        Ok(End { namespace: namespace.clone(), address: address.parse()? })
    }

    fn vsctl(&self, line: &str) -> Result<()> {
        let database = format!("--db={}", self.database());
        self.tool("ovs-vsctl")?.args([database]).words(line).run().map(drop)
    }

    fn tool(&self, name: &str) -> Result<netns_tests::Tool> {
        // Whatever is not named on the command line goes there as well.
        let directory = self.directory.to_string_lossy();
        let tool = self.host.tool(&program(name, INSTALL)?);
        Ok(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"]
            .iter()
            .fold(tool, |tool, name| tool.env(name, &*directory)))
    }

    fn database(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }
}
