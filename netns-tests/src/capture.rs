//! tcpdump on an interface, read back as text with every checksum verified.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::names;
use crate::netns::Namespace;
use crate::process::{Process, Tool};
use crate::wait::wait_for;

/// The kernel hands over a block of packets when it is full or a second old (`to_ms` of pcap(3)); what it
/// still holds when tcpdump ends is lost.
const RETIRE: Duration = Duration::from_millis(1200);

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture whole packets that match `filter` into a file in `directory`; returns when it runs.
    pub fn start(namespace: &Namespace, interface: &str, filter: &str, directory: &Path) -> Result<Self> {
        let file = directory.join(format!("{}.pcap", names::unique()));
        // -Z root: the file belongs to the test; the kernel buffer is 64 MiB so that a short stream fits.
        let line = format!("-i {interface} -n -U -Z root -B 65536 -w {} {filter}", file.display());
        let mut process = Tool::new("tcpdump").words(&line).inside(namespace).start()?;
        let runs = || process.stderr().contains("listening on") || !process.is_running();
        wait_for("tcpdump listens", Duration::from_secs(10), runs)?;
        if !process.is_running() {
            bail!("tcpdump ended: {}", process.stderr());
        }
        Ok(Capture { process, file })
    }

    /// Ends it and returns the packets as they are, behind each other, with the headers of the file between them.
    pub fn stop_raw(self) -> Result<Vec<u8>> {
        std::thread::sleep(RETIRE);
        self.process.interrupt()?;
        let bytes = std::fs::read(&self.file)?;
        // Best effort: the directory goes with the topology.
        let _ = std::fs::remove_file(&self.file);
        Ok(bytes)
    }

    /// Ends it and returns the packets as `tcpdump -vv` shows them.
    pub fn stop(self) -> Result<String> {
        self.stop_with("-vv")
    }

    /// Ends it and returns the packets as tcpdump shows them with these options.
    pub fn stop_with(self, options: &str) -> Result<String> {
        std::thread::sleep(RETIRE);
        self.process.interrupt()?;
        let file = self.file.to_string_lossy().into_owned();
        let text =
            Tool::new("tcpdump").args(["-nn", options, "-r", &file]).limit(Duration::from_secs(120)).run()?;
        // Best effort: the directory goes with the topology.
        let _ = std::fs::remove_file(&self.file);
        Ok(text)
    }

    /// Ends it; fails when nothing was captured, or when any checksum, outer or inner, does not verify.
    pub fn checksums_are_right(self) -> Result<()> {
        let text = self.stop()?;
        ensure!(text.contains("VXLAN"), "nothing was captured: {text:.2000}");
        let wrong =
            |line: &&str| ["incorrect", "bad udp cksum", "bad cksum"].iter().any(|sign| line.contains(sign));
        match text.lines().find(wrong) {
            None => Ok(()),
            Some(first) => {
                let count = text.lines().filter(wrong).count();
                bail!("{count} of {} lines have a wrong checksum: {first}", text.lines().count())
            }
        }
    }
}
