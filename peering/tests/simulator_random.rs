//! Random faults, and afterwards the laws: equal state within ten seconds, no address twice, every request answered.
//!
//! `SIM_SEEDS=5000` runs more schedules, `SIM_SEED=17` one of them, `SIM_TRACE=1` tells what happens in it.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use peering::mesh::RequestId;
use rand::RngExt;
use sim::{Launch, World};

/// Schedules in an ordinary run.
const SEEDS: u64 = 200;
/// So many tests share them, for the cores.
const SHARES: u64 = 4;

#[test]
fn random_schedules_of_the_first_share_keep_the_laws() {
    run_share(0);
}

#[test]
fn random_schedules_of_the_second_share_keep_the_laws() {
    run_share(1);
}

#[test]
fn random_schedules_of_the_third_share_keep_the_laws() {
    run_share(2);
}

#[test]
fn random_schedules_of_the_last_share_keep_the_laws() {
    run_share(3);
}

fn run_share(share: u64) {
    let from_env = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match from_env("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_env("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let mine = seeds.into_iter().filter(|seed| seed % SHARES == share);
    let failed: Vec<u64> =
        mine.filter(|seed| catch_unwind(AssertUnwindSafe(|| Schedule::new(*seed).run())).is_err()).collect();
    for seed in &failed {
        println!(
            "replay: SIM_SEED={seed} SIM_TRACE=1 cargo test -p peering --test simulator_random -- --nocapture"
        );
    }
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
}

struct Schedule {
    world: World,
    requests: Vec<(usize, RequestId)>,
    /// A host may lose its disk in this schedule.
    disks_get_lost: bool,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 3 + usize::try_from(seed % 3).expect("small"));
        world.wires.loss = if world.rng.random_bool(0.5) { 0.0 } else { 0.05 };
        world.wires.latency = Duration::from_millis(world.rng.random_range(1..40));
        for host in &mut world.hosts {
            host.disk_time = Duration::from_millis(seed % 7);
        }
        Schedule { world, requests: Vec::new(), disks_get_lost: seed.is_multiple_of(4) }
    }

    fn run(&mut self) {
        self.launch();
        for _ in 0..self.world.rng.random_range(6..16) {
            self.disturb();
            let pause = self.world.rng.random_range(0..6_000);
            self.world.run(Duration::from_millis(pause));
            self.world.assert_no_duplicates();
        }
        self.mend();
        self.world.assert_agreement();
        self.world.assert_no_duplicates();
        self.assert_answers();
        self.world.assert_agreement();
        self.world.assert_no_duplicates();
    }

    /// All with the same list, or in a chain, at once or one after the other.
    fn launch(&mut self) {
        let hosts = self.world.hosts.len();
        let chain = self.world.rng.random_bool(0.5);
        for number in 0..hosts {
            let targets = if chain { vec![(number + 1) % hosts] } else { (0..hosts).collect() };
            self.world.launch(number, Launch::targets(&targets));
            let pause = self.world.rng.random_range(0..300);
            self.world.run(Duration::from_millis(pause));
        }
    }

    fn disturb(&mut self) {
        let number = self.world.rng.random_range(0..self.world.hosts.len());
        let other =
            (number + self.world.rng.random_range(1..self.world.hosts.len())) % self.world.hosts.len();
        let runs = self.world.hosts[number].mesh.is_some();
        match self.world.rng.random_range(0..12) {
            0..=2 if runs => self.attach(number),
            3 if runs => self.detach(number),
            4 => self.partition(),
            5 => {
                self.world.note(&format!("cut {number} -> {other}"));
                self.world.cut(number, other);
            }
            6 => self.world.heal(),
            7 if runs => {
                let lost = self.disks_get_lost && self.world.rng.random_bool(0.5);
                self.world.crash(number, lost);
            }
            8 if runs => self.world.stop(number),
            9 => self.world.break_connections(number, other),
            10 => self.world.hosts[number].disk_fails = self.world.rng.random(),
            11 => self.world.wires.dial_failures = self.world.rng.random_range(0.0..0.5),
            _ if !runs => self.world.restart(number),
            _ => {}
        }
    }

    fn attach(&mut self, number: usize) {
        for _ in 0..self.world.rng.random_range(1..4) {
            let wanted = format!("10.32.0.{}", self.world.rng.random_range(2..6));
            let wanted: &[&str] = if self.world.rng.random_bool(0.2) { &[&wanted] } else { &[] };
            let request = self.world.attach(number, wanted);
            self.requests.push((number, request));
        }
    }

    fn detach(&mut self, number: usize) {
        let own: Vec<RequestId> =
            self.world.hosts[number].ports.values().map(|(request, _)| *request).collect();
        if let Some(request) = own.first() {
            self.world.detach(number, *request);
        }
    }

    fn partition(&mut self) {
        let split = self.world.rng.random_range(1..self.world.hosts.len());
        let left: Vec<usize> = (0..split).collect();
        let right: Vec<usize> = (split..self.world.hosts.len()).collect();
        self.world.partition(&left, &right);
    }

    /// The last fault is over: every host runs, every wire and disk works.
    fn mend(&mut self) {
        self.world.heal();
        self.world.wires.loss = 0.0;
        self.world.wires.dial_failures = 0.0;
        for number in 0..self.world.hosts.len() {
            self.world.hosts[number].disk_fails = false;
            if self.world.hosts[number].mesh.is_none() {
                self.requests.retain(|(host, _)| *host != number);
                self.world.restart(number);
            }
        }
    }

    /// Whoever still waits gets an address or a reason; a crash takes its requests with it.
    fn assert_answers(&mut self) {
        let asked: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(host, r)| self.world.hosts[*host].waits_for(*r))
            .map(|(_, r)| *r)
            .collect();
        let answered = |world: &World| asked.iter().all(|request| world.answer(*request).is_some());
        let took = self.world.run_until(Duration::from_secs(10), answered);
        let open: Vec<_> = asked.iter().filter(|request| self.world.answer(**request).is_none()).collect();
        if took.is_none() {
            self.world.tell_all();
        }
        assert!(took.is_some(), "seed {}: no answer to {open:?}", self.world.seed);
    }
}
