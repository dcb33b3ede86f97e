//! An Open vSwitch bridge of the userspace datapath on a host without a daemon.
//!
//! Tunnels of this datapath need the underlay interface inside a bridge of the same datapath, and the underlay's address on
//! that bridge (Documentation/howto/userspace-tunneling.rst). Database and daemon have all their files in the host's
//! directory; the system's services are not touched.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::container::{Addressed, Container};
use crate::host::Host;
use crate::process::{Process, Tool};
use crate::topology::require;
use crate::wait::wait_for;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// What plain VXLAN over IPv4 leaves of 1500 bytes.
const OVERLAY_MTU: u16 = 1450;

/// A bridge with a VXLAN port towards each of some hosts, VNI 1. It ends when it is dropped.
#[derive(Debug)]
pub struct OvsVtep<'host> {
    host: &'host Host,
    directory: PathBuf,
    processes: Vec<Process>,
}

impl<'host> OvsVtep<'host> {
    /// Makes it on `host`, towards these other hosts.
    pub fn new(host: &'host Host, remotes: &[&Host]) -> Result<Self> {
        for tool in ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"] {
            require(tool, "openvswitch-switch")?;
        }
        let directory = host.directory().join("ovs");
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut vtep = OvsVtep { host, directory, processes: Vec::new() };
        vtep.start()?;
        vtep.connect_underlay()?;
        vtep.vsctl("add-br over -- set bridge over datapath_type=netdev")?;
        for (index, remote) in remotes.iter().enumerate() {
            // What comes from one host is not for another: hosts reach each other directly.
            vtep.vsctl(&format!(
                "add-port over vx{index} -- set interface vx{index} type=vxlan options:remote_ip={} \
                 options:local_ip={} options:key=1 -- set port vx{index} protected=true",
                remote.address(),
                host.address()
            ))?;
        }
        Ok(vtep)
    }

    fn start(&mut self) -> Result<()> {
        let database = self.file("conf.db");
        self.tool("ovsdb-tool").args(["create", &database, SCHEMA]).run()?;
        let remote = format!("--remote=punix:{}", self.file("db.sock"));
        let control = format!("--unixctl={}", self.file("ovsdb-server.ctl"));
        self.processes.push(self.tool("ovsdb-server").args([&database, &remote, &control]).start()?);
        let socket = self.directory.join("db.sock");
        wait_for("ovsdb-server listens", Duration::from_secs(10), || socket.exists())?;
        self.vsctl("--no-wait init")?;
        let control = format!("--unixctl={}", self.file("ovs-vswitchd.ctl"));
        self.processes.push(self.tool("ovs-vswitchd").args([&self.database(), &control]).start()?);
        Ok(())
    }

    fn connect_underlay(&self) -> Result<()> {
        let (own, interface) = (self.host.address(), self.host.interface());
        self.vsctl(&format!(
            "add-br under -- set bridge under datapath_type=netdev -- add-port under {interface}"
        ))?;
        // This datapath does not complete checksums, nor cut or join anything.
        self.host.tool("ethtool").words(&format!("-K {interface} tx off gro off")).run()?;
        let namespace = self.host.namespace();
        namespace.ip(&format!("address flush dev {interface}"))?;
        namespace.ip(&format!("address add {own}/24 dev under"))?;
        namespace.ip("link set dev under up").map(drop)
    }

    /// A container behind the bridge with this address, as `10.47.0.9/12`.
    pub fn container(&self, name: &str, prefix: &str) -> Result<OvsContainer> {
        let container = Container::new(name)?;
        let pid = container.pid().ok_or_else(|| anyhow!("{name} has no process"))?;
        let host = self.host.namespace();
        host.ip(&format!(
            "link add name o{pid} mtu {OVERLAY_MTU} type veth peer name eth0 mtu {OVERLAY_MTU} netns {pid}"
        ))?;
        host.ip(&format!("link set dev o{pid} up"))?;
        let namespace = container.namespace();
        Tool::new("ethtool").words("-K eth0 tx off").inside(namespace).run()?;
        namespace.ip(&format!("address add {prefix} dev eth0"))?;
        namespace.ip("link set dev eth0 up")?;
        self.vsctl(&format!("add-port over o{pid}"))?;
        let address = prefix.split('/').next().unwrap_or_default().parse()?;
        Ok(OvsContainer { container, address })
    }

    fn vsctl(&self, line: &str) -> Result<()> {
        let database = format!("--db={}", self.database());
        self.tool("ovs-vsctl").args([database]).words(line).run().map(drop)
    }

    fn tool(&self, name: &str) -> Tool {
        // Whatever is not named on the command line goes there as well.
        let directory = self.directory.to_string_lossy();
        let places = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"];
        places.iter().fold(self.host.tool(name), |tool, place| tool.env(place, &*directory))
    }

    fn database(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }
}

/// A container behind an Open vSwitch bridge; otherwise a [`Container`].
#[derive(Clone, Debug)]
pub struct OvsContainer {
    container: Container,
    address: IpAddr,
}

impl std::ops::Deref for OvsContainer {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Addressed for OvsContainer {
    fn address(&self) -> IpAddr {
        self.address
    }
}
