//! Carries a plan out, and looks at the laws all the way.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use peering::mesh::RequestId;
use rand::RngExt;

use super::laws::Laws;
use super::plan::{HostPlan, Plan, RANGES, Step};
use crate::sim::{Clock, Launch, Link, Loss, World};

/// The laws are looked at so often while nothing is done.
const LOOK: Duration = Duration::from_millis(500);
/// Every request is answered so soon after everybody agrees.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address that was claimed for nobody is free again so soon.
const LEAK: Duration = Duration::from_secs(75);

/// A plan that is being carried out.
pub struct Run {
    pub(super) world: World,
    pub(super) laws: Laws,
    range: Ipv4Net,
    requests: Vec<(usize, RequestId)>,
    pub(super) stay_down: Vec<usize>,
    second_cluster: Option<usize>,
    reclaim_after: Duration,
    /// A host is gone for good without having left: what it had stays its own.
    somebody_is_gone: bool,
    /// Hosts that were told to leave also when nobody is there to hear of it.
    forced: BTreeSet<usize>,
    /// How many hosts there are, without clones, which come after them.
    pub(super) hosts: usize,
}

/// Carries a plan out to its end; panics when a law is broken.
pub fn run(plan: &Plan) {
    let mut run = Run::launch(plan);
    for step in &plan.steps {
        run.take(step);
        run.laws.look(&run.world);
    }
    run.finish();
}

impl Run {
    fn launch(plan: &Plan) -> Self {
        let mut world = World::new(plan.world, plan.hosts.len());
        world.wires.latency = Duration::from_millis(plan.latency_ms);
        world.wires.loss = f64::from(plan.loss_percent) / 100.0;
        let range = RANGES[plan.range];
        let mut run = Run {
            world,
            laws: Laws::new(plan.second_cluster.is_some(), &plan.stay_down),
            range: range.parse().expect("a range"),
            requests: Vec::new(),
            stay_down: plan.stay_down.clone(),
            second_cluster: plan.second_cluster,
            reclaim_after: Duration::from_secs(plan.reclaim_after_s.unwrap_or(24 * 3600)),
            somebody_is_gone: !plan.stay_down.is_empty(),
            forced: BTreeSet::new(),
            hosts: plan.hosts.len(),
        };
        for (number, host) in plan.hosts.iter().enumerate() {
            run.launch_host(number, host, range);
        }
        run
    }

    fn launch_host(&mut self, number: usize, plan: &HostPlan, range: &'static str) {
        self.wait(Duration::from_millis(plan.after_ms));
        let skew = Duration::from_secs(u64::from(plan.skew_days) * 86_400);
        self.world.hosts[number].set_clock(Clock::new(self.world.now, skew, plan.drift_ppm));
        self.world.hosts[number].disk_time = Duration::from_millis(plan.disk_ms);
        self.world.launch(
            number,
            Launch { range, reclaim_after: self.reclaim_after, ..Launch::targets(&plan.targets) },
        );
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.world.run(LOOK.min(end - self.world.now));
            self.laws.look(&self.world);
            self.bury_who_left();
        }
    }

    /// Nothing stays of a host that left: what is started there next is another one. Whoever left in order has told others
    /// what it knew.
    fn bury_who_left(&mut self) {
        for host in 0..self.hosts {
            match self.world.hosts[host].left.take() {
                Some(Ok(())) => {
                    if self.forced.remove(&host) {
                        self.laws.lost_disk(&self.world, host);
                    }
                    self.replace(host);
                }
                Some(Err(error)) => {
                    self.world.note(&format!("{host} does not leave: {error}"));
                    self.world.hosts[host].leaves = false;
                }
                None => {}
            }
        }
    }

    fn replace(&mut self, host: usize) {
        self.world.note(&format!("replace {host}"));
        if self.runs(host) {
            self.world.crash_with(host, Loss::Disk, Duration::ZERO);
        }
        let key = self.world.rng.random();
        self.world.hosts[host].become_another(key);
        self.somebody_is_gone = true;
    }

    pub(super) fn runs(&self, host: usize) -> bool {
        self.world.hosts[host].mesh.is_some()
    }

    /// A paused host neither takes commands nor hears anything.
    pub(super) fn hears(&self, host: usize) -> bool {
        self.runs(host) && !self.world.hosts[host].paused
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait { ms } => self.wait(Duration::from_millis(ms)),
            Step::Attach { host, wanted } if self.hears(host) => self.attach(host, wanted),
            Step::Detach { host } if self.hears(host) => self.detach(host),
            Step::Partition { at } => {
                let all: Vec<usize> = (0..self.world.hosts.len()).collect();
                self.world.partition(&all[..at], &all[at..]);
            }
            Step::Cut { from, to } => {
                self.world.note(&format!("cut {from} -> {to}"));
                self.world.cut(from, to);
            }
            Step::Heal => self.world.heal(),
            Step::Break { a, b } => self.world.break_connections(a, b),
            Step::Crash { host, loss } if self.runs(host) => self.crash(host, loss.into()),
            Step::LosePower { host } if self.runs(host) => self.world.lose_power(host),
            Step::Stop { host } if self.hears(host) => self.world.stop(host),
            Step::Restart { host } => self.restart(host),
            Step::Pause { host, ms } => self.world.pause(host, Duration::from_millis(ms)),
            Step::DiskFails { host, fails } => {
                self.world.note(&format!("disk of {host} fails={fails}"));
                self.world.hosts[host].disk_fails = fails;
            }
            Step::DiskTakes { host, ms } => self.world.hosts[host].disk_time = Duration::from_millis(ms),
            Step::DialFailures { percent } => self.world.wires.dial_failures = f64::from(percent) / 100.0,
            Step::Weather { from, to, latency_ms, jitter_ms, loss_percent, twice_percent } => {
                let link = Link {
                    latency: Duration::from_millis(latency_ms),
                    jitter: Duration::from_millis(jitter_ms),
                    loss: f64::from(loss_percent) / 100.0,
                    duplication: f64::from(twice_percent) / 100.0,
                };
                self.world.wires.set_link(from, to, link);
            }
            Step::FairWeather => self.world.wires.clear_links(),
            Step::Snapshot { host } => {
                self.world.note(&format!("snapshot of {host}"));
                self.world.hosts[host].snapshot = self.world.hosts[host].disk.clone();
            }
            Step::Restore { host } => self.restore(host),
            Step::CrashAll { loss } => {
                let running = self.world.running();
                running.into_iter().for_each(|host| self.crash(host, loss.into()));
            }
            Step::Clone { host } => self.clone(host),
            Step::EndClones => self.end_clones(|_, _| true),
            Step::RestartAll => (0..self.hosts).for_each(|host| self.restart(host)),
            Step::Remove { at, of } if self.hears(at) => {
                // What the removed one has at this moment is what is taken.
                self.laws.look(&self.world);
                self.world.remove(at, of);
            }
            Step::Connect { from, to } if self.hears(from) => self.world.connect(from, to),
            Step::Reset { host, force } if self.hears(host) => {
                if force {
                    self.forced.insert(host);
                }
                self.world.reset(host, force);
            }
            Step::Replace { host } => {
                self.laws.lost_disk(&self.world, host);
                self.replace(host);
            }
            Step::Reset { .. }
            | Step::Remove { .. }
            | Step::Connect { .. }
            | Step::Attach { .. }
            | Step::Detach { .. }
            | Step::Crash { .. }
            | Step::LosePower { .. }
            | Step::Stop { .. } => {}
        }
    }

    fn attach(&mut self, host: usize, wanted: Option<u8>) {
        let wanted = wanted.map(|last| {
            let base = u32::from(self.range.network()) + u32::from(last);
            IpAddr::from(Ipv4Addr::from(base)).to_string()
        });
        let wanted: Vec<&str> = wanted.as_deref().into_iter().collect();
        let request = self.world.attach(host, &wanted);
        self.requests.push((host, request));
    }

    fn detach(&mut self, host: usize) {
        let first = self.world.hosts[host].ports.values().map(|(request, _)| *request).min();
        first.into_iter().for_each(|request| self.world.detach(host, request));
    }

    fn crash(&mut self, host: usize, loss: Loss) {
        let reached = self.world.rng.random_range(0.0..=1.5);
        let reach = self.world.wires.latency.mul_f64(reached);
        self.world.crash_with(host, loss, reach);
        if loss == Loss::Disk {
            self.laws.forgot(&self.world, host);
            self.laws.lost_disk(&self.world, host);
        }
    }

    fn restart(&mut self, host: usize) {
        if !self.runs(host) {
            self.laws.remembers(&self.world, host);
            self.world.restart(host);
        }
    }

    /// The host does not know what it did since the copy was made.
    fn restore(&mut self, host: usize) {
        let Some(snapshot) = self.world.hosts[host].snapshot.clone() else { return };
        if self.runs(host) {
            self.world.crash_with(host, Loss::LastWrite, Duration::ZERO);
        }
        self.world.note(&format!("restore {host}"));
        self.world.hosts[host].disk = Some(snapshot);
        self.laws.forgot(&self.world, host);
        self.laws.lost_disk(&self.world, host);
        self.world.restart(host);
    }

    /// The last fault is over; what must hold then is looked at.
    fn finish(mut self) {
        self.mend();
        self.await_clones();
        self.await_leavers();
        self.laws.settle(&mut self.world);
        self.assert_answers();
        self.laws.settle(&mut self.world);
        if !self.somebody_is_gone {
            assert_nothing_leaks(&mut self.world);
        }
        self.assert_clones_wait();
    }

    /// Every host runs but those that stay down, every wire and disk works.
    fn mend(&mut self) {
        self.world.note("mend");
        self.world.heal();
        self.world.wires.loss = 0.0;
        self.world.wires.dial_failures = 0.0;
        self.world.wires.clear_links();
        self.end_clones(|run, clone| !run.is_beside_the_first(clone));
        for host in 0..self.hosts {
            self.world.wake(host);
            self.world.hosts[host].disk_fails = false;
            let disk_time = self.world.hosts[host].disk_time.min(Duration::from_millis(50));
            self.world.hosts[host].disk_time = disk_time;
            if self.stay_down.contains(&host) {
                if self.runs(host) {
                    self.crash(host, Loss::Nothing);
                }
            } else {
                self.restart(host);
            }
        }
        self.meet();
    }

    /// Whoever was told to leave does, or says why not. Another host starts in its place.
    fn await_leavers(&mut self) {
        let leaves =
            |world: &World, host: usize| world.hosts[host].leaves && world.hosts[host].left.is_none();
        let all = self.hosts;
        let done = |world: &World| (0..all).all(|host| !leaves(world, host));
        let took = self.world.run_until(PATIENCE, done);
        assert!(took.is_some(), "seed {}: a host neither leaves nor says why not", self.world.seed);
        self.bury_who_left();
        for host in (0..all).filter(|host| !self.stay_down.contains(host)).collect::<Vec<_>>() {
            self.restart(host);
        }
    }

    /// Whoever runs is told of the other cluster.
    fn meet(&mut self) {
        let Some(split) = self.second_cluster else { return };
        let (left, right): (Vec<usize>, Vec<usize>) =
            self.world.running().into_iter().partition(|&host| host < split);
        if let (Some(&from), Some(&to)) = (left.first(), right.first()) {
            self.world.connect(from, to);
        }
    }

    /// Whoever still waits gets an address or a reason; a crash takes its requests with it. Where a host is away that
    /// the founding needs, or that has all the space, nobody can be helped.
    fn assert_answers(&mut self) {
        let owns = |host: &usize| self.world.status(*host).ipam.iter().any(|ipam| ipam.owned > 0);
        if self.somebody_is_gone && !self.world.running().iter().any(owns) {
            return;
        }
        let waiting =
            |world: &World, (host, request): &(usize, RequestId)| world.hosts[*host].waits_for(*request);
        let asked: Vec<(usize, RequestId)> =
            self.requests.iter().filter(|asked| waiting(&self.world, asked)).copied().collect();
        let answered = |world: &World| !asked.iter().any(|asked| waiting(world, asked));
        if self.world.run_until(PATIENCE, answered).is_none() {
            self.world.tell_all();
            let open: Vec<_> = asked.iter().filter(|asked| waiting(&self.world, asked)).collect();
            panic!("seed {}: no answer to {open:?}", self.world.seed);
        }
    }
}

/// Every address that a host holds is at a container. Claims whose containers nobody shows are looked at now and then.
fn assert_nothing_leaks(world: &mut World) {
    let leak = |world: &World| {
        let mut running = world.running().into_iter();
        running.find_map(|host| {
            let status = world.status(host);
            let ipam = status.ipam.first()?;
            let own = ipam.owners.iter().find(|owner| owner.peer_id == status.peer_id);
            let shown = own.map_or(0, |owner| owner.used);
            (ipam.used != shown).then(|| format!("{host} holds {}, {shown} are at containers", ipam.used))
        })
    };
    let begin = world.now;
    while leak(world).is_some() && world.now - begin < LEAK {
        world.run(2 * LOOK);
    }
    if let Some(leak) = leak(world) {
        world.tell_all();
        panic!("seed {}: {leak}", world.seed);
    }
}
