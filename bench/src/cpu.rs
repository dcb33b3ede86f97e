//! Processor time: of the whole machine, of single processes, and of whatever does not belong to the benchmark.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// The share of one processor that something else may use without a word.
const TOLERATED: f64 = 0.05;

/// The processor time of the machine and of every process at one moment.
pub struct Snapshot {
    at: Instant,
    machine: Machine,
    processes: BTreeMap<u32, Task>,
}

/// What happened between two snapshots.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Usage {
    /// Seconds in which processors were not idle, of all of them.
    pub machine_s: f64,
    /// Seconds of the processes that were asked about.
    pub daemons_s: f64,
    /// What else used the machine noticeably: names of programs, and the share of one processor they used together.
    pub foreign: BTreeMap<String, f64>,
}

/// The first line of /proc/stat, in ticks (proc(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Machine {
    busy: u64,
    stolen: u64,
}

/// One process of /proc/PID/stat.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Task {
    name: String,
    parent: u32,
    ticks: u64,
    kernel: bool,
}

impl Snapshot {
    /// Reads the counters of now.
    pub fn take() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let machine = machine(&stat).context("/proc/stat has no line of all processors")?;
        let processes = pids()?.into_iter().filter_map(|pid| {
            // A process may end between the listing and the reading.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, task(&stat)?))
        });
        Ok(Self { at: Instant::now(), machine, processes: processes.collect() })
    }

    /// What was used since `earlier`; `daemons` are measured apart, and `own` lists further processes that belong to
    /// the benchmark, as do all its descendants.
    pub fn since(&self, earlier: &Self, daemons: &[u32], own: &BTreeSet<u32>) -> Usage {
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second();
        let used = |pid: u32| {
            let before = earlier.processes.get(&pid).map_or(0, |task| task.ticks);
            self.processes.get(&pid).map_or(0, |task| task.ticks.saturating_sub(before))
        };
        let wall = (self.at - earlier.at).as_secs_f64();
        let is_foreign = |pid, task: &Task| {
            !task.kernel && !own.contains(&pid) && !daemons.contains(&pid) && !self.is_ours(pid)
        };
        let mut foreign: BTreeMap<String, f64> = BTreeMap::new();
        for (pid, task) in self.processes.iter().filter(|(pid, task)| is_foreign(**pid, task)) {
            *foreign.entry(task.name.clone()).or_default() += seconds(used(*pid)) / wall;
        }
        let stolen = seconds(self.machine.stolen.saturating_sub(earlier.machine.stolen));
        foreign.insert("the hypervisor (steal)".to_owned(), stolen / wall);
        foreign.retain(|_, share| *share > TOLERATED);
        Usage {
            machine_s: seconds(self.machine.busy.saturating_sub(earlier.machine.busy)),
            daemons_s: daemons.iter().map(|pid| seconds(used(*pid))).sum(),
            foreign,
        }
    }

    /// True for this process and its descendants.
    fn is_ours(&self, mut pid: u32) -> bool {
        let this = std::process::id();
        // Bounded by the number of processes: parents are older, but ids wrap around.
        for _ in 0..self.processes.len() {
            if pid == this {
                return true;
            }
            let Some(task) = self.processes.get(&pid) else { return false };
            pid = task.parent;
        }
        false
    }
}

/// The processes whose parent this process is.
pub fn children() -> BTreeSet<u32> {
    let this = std::process::id();
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        stat.and_then(|stat| task(&stat)).is_some_and(|task| task.parent == this)
    };
    pids().unwrap_or_default().into_iter().filter(is_child).collect()
}

/// The most memory a process has held so far, in bytes (`VmHWM`, proc(5)); none when it is gone.
pub fn peak_memory(pid: u32) -> Option<u64> {
    status_kib(pid, "VmHWM:")
}

/// The memory a process holds now, in bytes (`VmRSS`, proc(5)); none when it is gone.
pub fn memory(pid: u32) -> Option<u64> {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn ticks_per_second() -> f64 {
    sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}

fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot list /proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// cpu user nice system idle iowait irq softirq steal guest guest_nice; guest is part of user.
fn machine(stat: &str) -> Option<Machine> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else { return None };
    Some(Machine { busy: user + nice + system + irq + softirq, stolen })
}

/// pid (name) state ppid ... flags(9) ... utime(14) stime(15); the name may hold spaces and brackets.
fn task(stat: &str) -> Option<Task> {
    /// `PF_KTHREAD` of linux/sched.h
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // The third field of the line is the first behind the name.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Task {
        name,
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)? + number(15)?,
        kernel: number(9)? & KERNEL_THREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 5 200 9000 40 3 60 7 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";

    fn line(pid: u32, name: &str, parent: u32, flags: u64, user: u64, system: u64) -> (u32, Task) {
        let text =
            format!("{pid} ({name}) S {parent} 1 1 0 -1 {flags} 0 0 0 0 {user} {system} 0 0 20 0 1 0 99");
        (pid, task(&text).unwrap())
    }

    fn snapshot(at: Instant, busy: u64, processes: impl IntoIterator<Item = (u32, Task)>) -> Snapshot {
        Snapshot { at, machine: Machine { busy, stolen: 0 }, processes: processes.into_iter().collect() }
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        assert_eq!(machine(STAT), Some(Machine { busy: 368, stolen: 7 }));
        assert_eq!(machine("intr 1\n"), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let (_, task) = line(7, "a) (b", 3, 0x0020_0040, 11, 5);
        assert_eq!(task, Task { name: "a) (b".into(), parent: 3, ticks: 16, kernel: true });
    }

    #[test]
    fn daemons_and_strangers_are_told_apart() {
        let this = std::process::id();
        let (d, s, k, o) = (this + 1, this + 2, this + 3, this + 4);
        let start = Instant::now();
        let tasks = |n: u64| {
            [
                line(this, "bench", 1, 0, n, 0),
                line(d, "meshnet", 1, 0, 50 * n, 10 * n),
                line(s, "cargo", 1, 0, 80 * n, 0),
                line(k, "ksoftirqd/0", 2, 0x0020_0000, 90 * n, 0),
                line(o, "iperf3", this, 0, 90 * n, 0),
            ]
        };
        let before = snapshot(start, 1000, tasks(0));
        let after = snapshot(start + std::time::Duration::from_secs(1), 1300, tasks(1));
        let usage = after.since(&before, &[d], &BTreeSet::new());
        let second = ticks_per_second();
        assert!((usage.machine_s - 300.0 / second).abs() < 1e-9);
        assert!((usage.daemons_s - 60.0 / second).abs() < 1e-9);
        assert_eq!(usage.foreign.keys().collect::<Vec<_>>(), ["cargo"]);
        assert!((usage.foreign["cargo"] - 80.0 / second).abs() < 1e-9);
        assert!(after.since(&before, &[d], &BTreeSet::from([s])).foreign.is_empty());
    }

    #[test]
    fn a_process_has_held_at_least_what_it_holds() {
        let this = std::process::id();
        let now = memory(this).unwrap();
        assert!(peak_memory(this).unwrap() >= now && now > 0);
        assert_eq!(memory(0), None);
    }

    #[test]
    fn the_machine_can_be_read() {
        let first = Snapshot::take().unwrap();
        let usage = Snapshot::take().unwrap().since(&first, &[std::process::id()], &BTreeSet::new());
        assert!(usage.machine_s >= 0.0 && usage.daemons_s >= 0.0);
    }
}
