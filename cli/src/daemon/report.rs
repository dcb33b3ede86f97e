//! Everything the daemon can say of itself at once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use engine::tables::{Entry, Place};

use super::{Daemon, privileges};
use crate::failure::Failure;
use crate::kernel;
use crate::shape::{DaemonReport, Forwarding, Process, Reported};

impl Daemon {
    /// The daemon's part of a bug report.
    pub(super) async fn report(self: &Arc<Self>) -> Result<Reported, Failure> {
        let kernel = self.blocking(|daemon| kernel::facts(&daemon.state_dir)).await?;
        let daemon = DaemonReport {
            process: self.process(),
            status: self.status(true).await?,
            ps: self.ps().await,
            vteps: self.vteps().await,
            forwarding: self.engine.entries().into_iter().map(forwarding).collect(),
            tables: self.peering.tables().await,
            log: self.log.lines(),
        };
        Ok(Reported { daemon, kernel })
    }

    fn process(&self) -> Process {
        let own = |what: &str| fs::read_to_string(Path::new("/proc/self").join(what)).unwrap_or_default();
        let status = own("status");
        let value = |key: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(key))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Process {
            pid: self.hello.pid,
            version: self.hello.version.clone(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            command_line: own("cmdline").split_terminator('\0').map(str::to_owned).collect(),
            state_dir: self.state_dir.display().to_string(),
            resident_kib: value("VmRSS:"),
            threads: value("Threads:"),
            descriptors: fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64),
            privileges: privileges::held(),
        }
    }
}

fn forwarding(entry: Entry) -> Forwarding {
    let Entry { vni, mac, place, age_s } = entry;
    let (port, address, peer_id) = match place {
        Some(Place::Port(port)) => (Some(port.to_string()), None, None),
        Some(Place::Remote { addr, peer }) => (None, Some(addr), peer.map(|peer| peer.to_string())),
        None => (None, None, None),
    };
    Forwarding { vni: vni.get(), mac: mac.to_string(), port, address, peer_id, age_s }
}
