//! A container as far as the network is concerned: a namespace, and mostly a process in it.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::host::Host;
use crate::names;
use crate::netns::{Namespace, in_new};
use crate::process::Process;

/// Whatever has an address to be reached at.
pub trait Addressed {
    /// The address.
    fn address(&self) -> IpAddr;
}

impl Addressed for IpAddr {
    fn address(&self) -> IpAddr {
        *self
    }
}

/// A container. Clones are the same container; it goes with the last of them.
#[derive(Clone, Debug)]
pub struct Container(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    reference: String,
    namespace: Namespace,
    /// The only thing that keeps a namespace without a name alive.
    process: Mutex<Option<Process>>,
    named: bool,
}

impl Container {
    /// A process in a namespace without a name, as container engines make them; `pid:N` to `meshnet`.
    pub fn new(name: &str) -> Result<Self> {
        let spawn =
            || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = in_new(spawn)?.context("cannot run cat")?;
        let process = Process::adopt(child, "cat")?;
        let (reference, namespace) = (format!("pid:{}", process.pid()), Namespace::of(process.pid()));
        Ok(Container::with(name, reference, namespace, Some(process), false))
    }

    /// A namespace with a name and no process; `netns:NAME` to `meshnet`.
    pub fn named(name: &str) -> Result<Self> {
        let unique = format!("{}-{name}", names::unique());
        let namespace = Namespace::create(&unique)?;
        Ok(Container::with(name, format!("netns:{unique}"), namespace, None, true))
    }

    fn with(
        name: &str,
        reference: String,
        namespace: Namespace,
        process: Option<Process>,
        named: bool,
    ) -> Self {
        let process = Mutex::new(process);
        Container(Arc::new(Inner { name: name.to_owned(), reference, namespace, process, named }))
    }

    /// The name it is attached under.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How `meshnet` is told which container is meant.
    pub fn reference(&self) -> String {
        self.0.reference.clone()
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// Kills its process, so that the kernel takes the namespace down unless somebody holds it; removes
    /// the name of a namespace that has one.
    pub fn kill(&self) -> Result<()> {
        drop(self.process().take());
        if self.0.named { self.0.namespace.delete() } else { Ok(()) }
    }

    /// Leaves a wire from the namespace to `host`: [`Witness::is_gone`] once the kernel has really taken the
    /// namespace down, whoever held it and however.
    pub fn witness<'host>(&self, host: &'host Host) -> Result<Witness<'host>> {
        let pid = self.pid().ok_or_else(|| anyhow!("{} has no process", self.name()))?;
        let interface = format!("w{pid}");
        host.namespace().ip(&format!("link add name {interface} type veth peer name witness netns {pid}"))?;
        Ok(Witness { host, interface })
    }

    /// How many bytes an interface of it has received.
    pub fn received_bytes(&self, interface: &str) -> Result<u64> {
        let text = self.namespace().ip(&format!("-json -statistics link show dev {interface}"))?;
        let rows: serde_json::Value = serde_json::from_str(&text)?;
        let bytes = rows.pointer("/0/stats64/rx/bytes").and_then(serde_json::Value::as_u64);
        bytes.ok_or_else(|| anyhow!("no counters in {text}"))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.named {
            // Removed already by `kill`, or swept away by the next run.
            let _ = self.namespace.delete();
        }
    }
}

/// The far end of a wire out of a container's namespace.
#[derive(Debug)]
pub struct Witness<'host> {
    host: &'host Host,
    interface: String,
}

impl Witness<'_> {
    /// True once the namespace is gone: the kernel takes the other end of a veth away with it.
    pub fn is_gone(&self) -> bool {
        !self.host.namespace().has_interface(&self.interface)
    }
}
