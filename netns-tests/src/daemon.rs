//! The `meshnet` command line of a host.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

use crate::attached::Attached;
use crate::binary::meshnet_binary;
use crate::container::Container;
use crate::host::Host;
use crate::process::{Outcome, Process, Tool, is_alive, kill_all};
use crate::wait::wait_for;

/// The environment variables that would change what a command does.
const CLEARED: [&str; 6] = [
    "MESHNET_RUN_DIR",
    "MESHNET_STATE_DIR",
    "MESHNET_SECRET",
    "MESHNET_SECRET_FILE",
    "NOTIFY_SOCKET",
    "RUST_LOG",
];

impl Host {
    /// Runs a `meshnet` command on this host to its end, whatever that is.
    pub fn meshnet(&self, args: &[&str]) -> Result<Outcome> {
        self.command(args)?.outcome()
    }

    /// Runs a `meshnet` command that must succeed, and returns what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.meshnet(args)?.ok()
    }

    /// The same, of the words of a line.
    pub fn run_line(&self, line: &str) -> Result<String> {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a `meshnet` command that must succeed with `-o json`, and returns what it printed.
    pub fn run_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`meshnet {args:?} -o json` said {text:?}"))
    }

    /// A `meshnet` command, with this host's directories.
    pub fn command(&self, args: &[&str]) -> Result<Tool> {
        let binary = meshnet_binary()?;
        let mut tool = Tool::new(binary.to_string_lossy()).inside(self.namespace());
        tool = CLEARED.iter().fold(tool, |tool, name| tool.without_env(name)).env("RUST_BACKTRACE", "1");
        tool = self.environment().into_iter().fold(tool, |tool, (name, value)| tool.env(&name, value));
        tool = tool.args(args.iter().map(|arg| Host::resolve(arg)));
        Ok(tool.args(["--run-dir", &self.run_dir().to_string_lossy()]))
    }

    /// The `launch` command, with this host's state directory and its name as nickname.
    pub fn launch_command(&self, args: &[&str]) -> Result<Tool> {
        let mut all = vec!["launch"];
        all.extend(args);
        let mut tool = self.command(&all)?;
        if !args.contains(&"--nickname") {
            tool = tool.args(["--nickname", self.name()]);
        }
        Ok(tool.args(["--state-dir", &self.state_dir().to_string_lossy()]).stderr_to(self.next_log()?))
    }

    /// Starts the daemon; returns when it is ready.
    pub fn launch(&self, args: &[&str]) -> Result<()> {
        self.try_launch(args)?.ok().map(drop)
    }

    /// Starts the daemon and tells how that went.
    pub fn try_launch(&self, args: &[&str]) -> Result<Outcome> {
        self.launch_command(args)?.outcome()
    }

    /// Starts the daemon with `--foreground`, as systemd would. It is killed when the process is dropped.
    pub fn launch_in_foreground(&self, args: &[&str]) -> Result<Process> {
        self.launch_command(&[args, &["--foreground"]].concat())?.start()
    }

    /// Adds peers.
    pub fn connect(&self, peers: &[&str]) -> Result<()> {
        self.run(&[&["connect"], peers].concat()).map(drop)
    }

    /// Drops peers.
    pub fn forget(&self, peers: &[&str]) -> Result<()> {
        self.run(&[&["forget"], peers].concat()).map(drop)
    }

    /// Declares an external VXLAN endpoint.
    pub fn vtep_add(&self, address: &str) -> Result<()> {
        self.run(&["vtep", "add", address]).map(drop)
    }

    /// Makes a container of this name on this host and attaches it.
    pub fn attach(&self, name: &str) -> Result<Attached> {
        self.attach_with(&Container::new(name)?, &[])
    }

    /// Attaches a container under its name, with these options.
    pub fn attach_with(&self, container: &Container, options: &[&str]) -> Result<Attached> {
        let reference = container.reference();
        let mut args = vec!["attach", &reference];
        if !options.contains(&"--name") {
            args.extend(["--name", container.name()]);
        }
        args.extend(options);
        Attached::new(container.clone(), &self.run_json(&args)?)
    }

    /// Attaches a container anew, so that it may send in any name.
    pub fn lift_spoof_check(&self, of: &Attached) -> Result<Attached> {
        self.detach(of)?;
        self.attach_with(of, &["--no-spoof-check"])
    }

    /// Takes a container's port away.
    pub fn detach(&self, container: &Container) -> Result<()> {
        self.run(&["detach", &container.reference()]).map(drop)
    }

    /// Puts a container, under its name, on a network, with these options.
    pub fn attach_to(&self, container: &Container, network: &str, options: &[&str]) -> Result<Attached> {
        self.attach_with(container, &[&["--network", network], options].concat())
    }

    /// The one network that `network inspect` tells of under this name.
    pub fn inspect(&self, network: &str) -> Result<Value> {
        let all: Value = serde_json::from_str(&self.run(&["network", "inspect", network])?)?;
        all.get(0).cloned().ok_or_else(|| anyhow!("`network inspect {network}` told of none: {all}"))
    }

    /// The names of all networks, sorted.
    pub fn networks(&self) -> Result<Vec<String>> {
        let text = self.run(&["network", "ls", "--format", "{{.Name}}"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The endpoints of all hosts, as `ps -o json` lists them.
    pub fn ps(&self) -> Result<Vec<Value>> {
        match self.run_json(&["ps"])? {
            Value::Array(rows) => Ok(rows),
            other => bail!("`meshnet ps -o json` is no list: {other}"),
        }
    }

    /// The row of `ps` with this name.
    pub fn ps_row(&self, name: &str) -> Result<Value> {
        let rows = self.ps()?;
        let row = rows.iter().find(|row| row.get("name").and_then(Value::as_str) == Some(name));
        row.cloned().ok_or_else(|| anyhow!("{} does not list {name}: {rows:?}", self.name()))
    }

    /// What `status -o json` says.
    pub fn status(&self) -> Result<Value> {
        self.run_json(&["status"])
    }

    /// The frames dropped so far, by reason.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.status()?;
        let drops = status.pointer("/dataplane/drops").and_then(Value::as_object);
        let drops = drops.ok_or_else(|| anyhow!("no dataplane.drops in {status}"))?;
        Ok(drops.iter().map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(0))).collect())
    }

    /// The frames dropped so far for this reason.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.drops()?.get(reason).copied().unwrap_or(0))
    }

    /// The nicknames of the other hosts that this one holds to be alive, sorted.
    pub fn live_peers(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let peers =
            status.get("peers").and_then(Value::as_array).ok_or_else(|| anyhow!("no peers in {status}"))?;
        let alive = peers.iter().filter(|peer| peer.get("state").and_then(Value::as_str) == Some("alive"));
        let mut names: Vec<_> =
            alive.filter_map(|peer| Some(peer.get("nickname")?.as_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until `status --wait` is content: `ready`, `ipam` or `peers=N`.
    pub fn wait(&self, condition: &str, limit: Duration) -> Result<()> {
        let timeout = limit.as_secs().max(1).to_string();
        self.run(&["status", "--wait", condition, "--timeout", &timeout]).map(drop)
    }

    /// Stops the daemon.
    pub fn stop(&self) -> Result<()> {
        self.run(&["stop"]).map(drop)
    }

    /// Kills the daemon as a crash would, and waits until its process is gone.
    pub fn kill_dead(&self) -> Result<()> {
        let pid = self.daemon_pid().ok_or_else(|| anyhow!("no daemon runs on {}", self.name()))?;
        kill_all(&[pid]);
        if is_alive(pid) { bail!("process {pid} survives SIGKILL") } else { Ok(()) }
    }

    /// The processor time the daemon has used so far, and the memory it holds, in bytes (proc(5)).
    pub fn usage(&self) -> Result<(Duration, u64)> {
        let pid = self.daemon_pid().ok_or_else(|| anyhow!("no daemon runs on {}", self.name()))?;
        // The clock of the whole process: threads that have ended are in it.
        let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
        let busy = Duration::from(clock_gettime(clock)?);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: u64 = resident.ok_or_else(|| anyhow!("no VmRSS in {status}"))?.trim().parse()?;
        Ok((busy, kib * 1024))
    }

    /// The process id of the daemon: the oldest process in this namespace that runs the binary under test.
    pub fn daemon_pid(&self) -> Option<u32> {
        let binary = meshnet_binary().and_then(|path| Ok(path.canonicalize()?)).ok()?;
        let pids = self.namespace().pids().into_iter();
        pids.filter(|pid| runs(*pid, &binary) && is_alive(*pid)).min_by_key(|pid| started(*pid))
    }

    /// Waits until no daemon runs here.
    pub fn wait_gone(&self, limit: Duration) -> Result<Duration> {
        wait_for(&format!("the daemon of {} is gone", self.name()), limit, || self.daemon_pid().is_none())
    }

    /// A new file for what a daemon says.
    fn next_log(&self) -> Result<File> {
        let mut number = 1;
        loop {
            let path: PathBuf = self.directory().join(format!("launch-{number}.log"));
            match File::options().read(true).append(true).create_new(true).open(&path) {
                Ok(file) => return Ok(file),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
            }
        }
    }
}

fn runs(pid: u32, binary: &std::path::Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary)
}

/// When a process started, in clock ticks since boot: field 22 of its `stat` (proc(5)).
fn started(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(u64::MAX)
}
