//! What was measured on, and when.

use std::path::Path;

use anyhow::Result;
use netns_tests::{Tool, meshnet_binary};
use serde::{Deserialize, Serialize};

/// The machine, the program, and the day.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Machine {
    /// Version of meshnet.
    pub version: String,
    /// The day, as `2026-03-09`, in UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Processors, shared by both hosts, the load generators and the daemons.
    pub processors: usize,
    /// Model of the processor.
    pub processor: String,
    /// What makes all figures doubtful, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

impl Machine {
    /// This one, now.
    pub fn read() -> Result<Self> {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let binary = meshnet_binary()?;
        let version = Tool::new(binary.to_string_lossy()).args(["--version"]).run()?;
        Ok(Machine {
            version: version.trim().trim_start_matches("meshnet ").to_owned(),
            date: Tool::new("date").args(["-u", "+%Y-%m-%d"]).run()?.trim().to_owned(),
            kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
            processors: std::thread::available_parallelism()?.get(),
            processor: model.map_or_else(String::new, |(_, model)| model.trim().to_owned()),
            doubts: doubts(&binary),
        })
    }
}

/// Programs that were built without care measure nothing.
fn doubts(meshnet: &Path) -> Vec<String> {
    let debug = meshnet.components().any(|part| part.as_os_str() == "debug");
    let programs = [("meshnet", debug), ("the benchmark", cfg!(debug_assertions))];
    let unoptimised = programs.into_iter().filter(|(_, unoptimised)| *unoptimised);
    unoptimised.map(|(program, _)| format!("{program} is not optimised")).collect()
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { version, date, kernel, processors, processor, doubts } = self;
        write!(f, "meshnet {version}, {date}, Linux {kernel}, {processors} x {processor}")?;
        doubts.iter().try_for_each(|doubt| write!(f, "; **{doubt}**"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unoptimised_daemon_is_no_secret() {
        let release = doubts(Path::new("/t/release/meshnet"));
        assert!(release.iter().all(|doubt| !doubt.starts_with("meshnet")));
        assert!(doubts(Path::new("/t/debug/meshnet")).contains(&"meshnet is not optimised".to_owned()));
    }
}
