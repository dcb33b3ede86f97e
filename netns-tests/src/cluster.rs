//! What is true of several hosts at once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::attached::Attached;
use crate::host::Host;
use crate::topology::Topology;
use crate::wait::wait_until;

impl Topology {
    /// Launches all hosts at the same moment, each with the same list of peers.
    pub fn launch_together(&self, peers: &[&str]) -> Result<()> {
        let hosts = self.all();
        std::thread::scope(|scope| {
            let launches: Vec<_> = hosts.iter().map(|host| scope.spawn(|| host.launch(peers))).collect();
            launches
                .into_iter()
                .try_for_each(|launch| launch.join().unwrap_or_else(|_| panic!("a launch panicked")))
        })
    }

    /// Launches the first host with these options, the second beside it, and gives each a container; they reach each other.
    pub fn web_and_db(&self, options: &[&str]) -> Result<(Attached, Attached)> {
        self.pair(options, &["node01"])
    }

    /// The same with these options for both hosts, as what they agree on needs it.
    pub fn web_and_db_alike(&self, options: &[&str]) -> Result<(Attached, Attached)> {
        self.pair(options, &[&["node01"], options].concat())
    }

    /// Makes a secret, gives a copy to each host, and returns where they are.
    pub fn share_secret(&self) -> Result<Vec<String>> {
        let file = |host: &Host| host.directory().join("secret").display().to_string();
        let files: Vec<String> = self.all().iter().map(file).collect();
        let [first, others @ ..] = files.as_slice() else { return Ok(files) };
        self.host(0).run(&["secret", "generate", "--file", first])?;
        others.iter().try_for_each(|file| std::fs::copy(first, file).map(drop))?;
        Ok(files)
    }

    /// Launches the first host with a secret and these options, the second, with the same, beside it, and gives each a container;
    /// they reach each other.
    pub fn sealed_web_and_db(&self, options: &[&str]) -> Result<(Attached, Attached)> {
        let files = self.share_secret()?;
        let [first, second, ..] = files.as_slice() else { bail!("there are no two hosts") };
        let first = [&["--secret-file", first.as_str()], options].concat();
        self.pair(&first, &[&["node01", "--secret-file", second.as_str()], options].concat())
    }

    fn pair(&self, first: &[&str], second: &[&str]) -> Result<(Attached, Attached)> {
        self.host(0).launch(first)?;
        self.host(1).launch(second)?;
        let (web, db) = (self.host(0).attach("web")?, self.host(1).attach("db")?);
        web.ping(&db)?;
        Ok((web, db))
    }

    /// Waits until every host holds all others to be alive, and all have the same state.
    pub fn wait_converged(&self, limit: Duration) -> Result<()> {
        wait_until("all hosts agree", limit, || converged(self.all()))
    }

    /// The same among the first `count` hosts; the others have no daemon.
    pub fn wait_converged_among(&self, count: usize, limit: Duration) -> Result<()> {
        let hosts = self.all().get(..count).unwrap_or_default();
        wait_until("the hosts agree", limit, || converged(hosts))
    }
}

fn converged(hosts: &[Host]) -> Result<()> {
    let mut states = BTreeSet::new();
    for host in hosts {
        let mut others: Vec<_> = hosts.iter().map(Host::name).filter(|name| *name != host.name()).collect();
        // As the list of peers is sorted: node100 comes before node11.
        others.sort_unstable();
        let alive = host.live_peers()?;
        ensure!(alive == others, "{} holds {alive:?} to be alive", host.name());
        let status = host.status()?;
        let text = |key: &str| status.get(key).and_then(Value::as_str).map(str::to_owned);
        states.insert((text("cluster_id"), text("state_hash")));
    }
    ensure!(states.len() == 1, "cluster ids and state hashes differ: {states:?}");
    Ok(())
}

/// Every container pings every other.
pub fn ping_all_pairs(containers: &[&Attached]) -> Result<()> {
    for from in containers {
        for to in containers.iter().filter(|to| to.address != from.address) {
            from.ping(*to)?;
        }
    }
    Ok(())
}

/// Fails when two containers have the same address.
pub fn all_differ(containers: &[&Attached]) -> Result<()> {
    let addresses: Vec<_> = containers.iter().map(|container| container.address).collect();
    let different: BTreeSet<_> = addresses.iter().collect();
    ensure!(different.len() == addresses.len(), "an address was given twice: {addresses:?}");
    Ok(())
}
