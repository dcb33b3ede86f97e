//! What a host counts: the books of its data plane, its ports, its queues and its descriptors.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::attached::Attached;
use crate::host::Host;
use crate::wait::wait_until;

impl Host {
    /// What `status dataplane -o json` says.
    pub fn dataplane(&self) -> Result<Value> {
        self.run_json(&["status", "dataplane"])
    }

    /// The books: what went in and was copied beside what went out and was dropped.
    pub fn books(&self) -> Result<Value> {
        let dataplane = self.dataplane()?;
        dataplane.get("conservation").cloned().ok_or_else(|| anyhow!("no books in {dataplane}"))
    }

    /// Waits until the books balance: some time after the last frame they must.
    pub fn wait_balanced(&self, limit: Duration) -> Result<()> {
        wait_until(&format!("the books of {} balance", self.name()), limit, || {
            let books = self.books()?;
            let difference = books.get("difference").and_then(Value::as_i64);
            ensure!(difference == Some(0), "{books}");
            let sum = |names: &[&str]| names.iter().map(|name| number(&books, name)).sum::<Result<u64>>();
            let born = sum(&["in", "copies", "recut", "from_gateway"])?;
            ensure!(born == sum(&["out", "drops", "to_gateway"])?, "{books}");
            Ok(())
        })
    }

    /// What the data plane tells of each worker.
    pub fn workers(&self) -> Result<Vec<Value>> {
        rows(&self.dataplane()?, "workers")
    }

    /// What the data plane tells of the port of a container.
    pub fn port(&self, of: &Attached) -> Result<Value> {
        let (dataplane, reference) = (self.dataplane()?, of.reference());
        let mut ports = rows(&dataplane, "ports")?.into_iter();
        let found = ports.find(|port| port.get("container").and_then(Value::as_str) == Some(&reference));
        found.ok_or_else(|| anyhow!("no port of {reference} in {dataplane}"))
    }

    /// How many descriptors the daemon has open (proc(5)).
    pub fn open_descriptors(&self) -> Result<usize> {
        let pid = self.daemon_pid().ok_or_else(|| anyhow!("no daemon runs on {}", self.name()))?;
        let directory = format!("/proc/{pid}/fd");
        Ok(std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?.count())
    }
}

/// The whole number of this name in what a command told as JSON.
pub fn number(object: &Value, name: &str) -> Result<u64> {
    object.get(name).and_then(Value::as_u64).ok_or_else(|| anyhow!("no number {name} in {object}"))
}

fn rows(of: &Value, name: &str) -> Result<Vec<Value>> {
    of.get(name).and_then(Value::as_array).cloned().ok_or_else(|| anyhow!("no {name} in {of}"))
}
