//! A schedule as data: what is launched how, and what happens to it in which order. It is drawn from a seed, can be
//! written down, and made shorter.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::sim::Loss;

/// The ranges that a schedule may have: plenty, some, hardly any.
pub const RANGES: [&str; 3] = ["10.32.0.0/12", "10.9.0.0/24", "10.9.0.0/27"];

/// Everything about a schedule that is not left to the world's own chances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Seeds the world: latencies, losses, what the hosts draw.
    pub world: u64,
    /// One of [`RANGES`].
    pub range: usize,
    pub latency_ms: u64,
    pub loss_percent: u8,
    /// The first host of a second cluster, which founds apart from the first until somebody connects the two.
    #[serde(default)]
    pub second_cluster: Option<usize>,
    /// How long a host is away before a majority takes its space; a day when it is not said.
    #[serde(default)]
    pub reclaim_after_s: Option<u64>,
    pub hosts: Vec<HostPlan>,
    pub steps: Vec<Step>,
    /// Hosts that are not started again at the end.
    pub stay_down: Vec<usize>,
}

/// How one host is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostPlan {
    pub targets: Vec<usize>,
    /// How long after the one before it is launched.
    pub after_ms: u64,
    /// By how much its clock is ahead.
    pub skew_days: u32,
    /// By how many millionths its clock is fast.
    pub drift_ppm: i32,
    pub disk_ms: u64,
}

/// One thing that happens. What cannot happen, such as a crash of a host that is down, does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    Wait {
        ms: u64,
    },
    Attach {
        host: usize,
        wanted: Option<u8>,
    },
    /// The container with the lowest number of those the host has.
    Detach {
        host: usize,
    },
    /// The hosts below `at` and those from it on do not hear each other.
    Partition {
        at: usize,
    },
    /// `to` does not hear `from`, but the other way round.
    Cut {
        from: usize,
        to: usize,
    },
    Heal,
    Break {
        a: usize,
        b: usize,
    },
    Crash {
        host: usize,
        loss: Fate,
    },
    /// What a host sent last is lost with it too, and its containers are gone.
    LosePower {
        host: usize,
    },
    Stop {
        host: usize,
    },
    Restart {
        host: usize,
    },
    Pause {
        host: usize,
        ms: u64,
    },
    DiskFails {
        host: usize,
        fails: bool,
    },
    DiskTakes {
        host: usize,
        ms: u64,
    },
    DialFailures {
        percent: u8,
    },
    /// The way from one host to another gets long, uneven or lossy.
    Weather {
        from: usize,
        to: usize,
        latency_ms: u64,
        jitter_ms: u64,
        loss_percent: u8,
        twice_percent: u8,
    },
    FairWeather,
    /// Somebody copies the disk.
    Snapshot {
        host: usize,
    },
    /// The copy is put back, and the host started with it.
    Restore {
        host: usize,
    },
    /// Somebody copies the disk to another machine, and starts that beside this host.
    Clone {
        host: usize,
    },
    /// The machines with copies end.
    EndClones,
    CrashAll {
        loss: Fate,
    },
    RestartAll,
    /// Somebody at one host removes another, with force if it is needed there.
    Remove {
        at: usize,
        of: usize,
    },
    /// Somebody names a host to another.
    Connect {
        from: usize,
        to: usize,
    },
    /// A host leaves for good; what starts there later is another one.
    Reset {
        host: usize,
        force: bool,
    },
    /// A host is gone for good, and another one gets its name and address.
    Replace {
        host: usize,
    },
}

/// What a crash takes with it, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    Nothing,
    LastWrite,
    Disk,
}

impl From<Fate> for Loss {
    fn from(fate: Fate) -> Loss {
        match fate {
            Fate::Nothing => Loss::Nothing,
            Fate::LastWrite => Loss::LastWrite,
            Fate::Disk => Loss::Disk,
        }
    }
}

/// What steps are drawn with.
struct Draw {
    rng: StdRng,
    hosts: usize,
    second_cluster: Option<usize>,
    reclaim_after_s: Option<u64>,
}

/// One kind of step: how often it is drawn, how probably a schedule has it at all, and how it is drawn.
/// A new fault is a variant of [`Step`], a line here, and an arm in `Run::take`.
struct Kind {
    weight: u32,
    enabled: f64,
    /// A host forgets what it promised by it.
    forgets: bool,
    draw: fn(&mut Draw) -> Vec<Step>,
}

const KINDS: &[Kind] = &[
    Kind::new(6, 1.0, Draw::attach),
    Kind::new(2, 0.7, Draw::detach),
    Kind::new(2, 0.6, Draw::partition),
    Kind::new(2, 0.5, Draw::cut),
    Kind::new(2, 1.0, |_| vec![Step::Heal]),
    Kind::new(1, 0.5, Draw::break_connections),
    Kind::new(3, 0.6, Draw::crash),
    Kind::new(2, 0.4, |draw| vec![Step::LosePower { host: draw.host() }]),
    Kind::new(2, 0.2, |draw| vec![Step::Crash { host: draw.host(), loss: Fate::Disk }]).forgets(),
    Kind::new(2, 0.4, |draw| vec![Step::Stop { host: draw.host() }]),
    Kind::new(4, 1.0, |draw| vec![Step::Restart { host: draw.host() }]),
    Kind::new(2, 0.5, Draw::pause),
    Kind::new(2, 0.4, Draw::disk),
    Kind::new(1, 0.4, |draw| vec![Step::DialFailures { percent: draw.below(50) }]),
    Kind::new(2, 0.4, Draw::weather),
    Kind::new(2, 0.1, |draw| vec![Step::Snapshot { host: draw.host() }]),
    Kind::new(2, 0.1, |draw| vec![Step::Restore { host: draw.host() }]).forgets(),
    Kind::new(2, 0.1, Draw::clone).forgets(),
    Kind::new(1, 0.2, Draw::crash_all),
    Kind::new(2, 0.2, Draw::remove),
    Kind::new(2, 0.15, Draw::reset),
    Kind::new(1, 0.15, Draw::replace),
    Kind::new(2, 1.0, Draw::stay_away),
];

impl Kind {
    const fn new(weight: u32, enabled: f64, draw: fn(&mut Draw) -> Vec<Step>) -> Self {
        Kind { weight, enabled, forgets: false, draw }
    }

    const fn forgets(self) -> Self {
        Kind { forgets: true, ..self }
    }
}

impl Plan {
    /// Three to nine hosts, and six to thirty steps of kinds that this schedule has.
    pub fn draw(seed: u64) -> Plan {
        let mut draw =
            Draw { rng: StdRng::seed_from_u64(seed), hosts: 0, second_cluster: None, reclaim_after_s: None };
        // Small worlds show as much as big ones and are faster.
        draw.hosts = *[3, 3, 3, 4, 4, 5, 5, 6, 7, 9].get(draw.pick(10)).expect("ten of them");
        draw.second_cluster = draw.rng.random_bool(0.1).then(|| 1 + draw.pick(draw.hosts - 1));
        draw.reclaim_after_s = draw.rng.random_bool(0.15).then(|| draw.rng.random_range(12..40));
        // Hosts that forgot their clusters cannot tell them apart.
        let forgetful = draw.second_cluster.is_none();
        let drawn = KINDS.iter().filter(|kind| draw.rng.random_bool(kind.enabled));
        let kinds: Vec<&Kind> = drawn.filter(|kind| forgetful || !kind.forgets).collect();
        let hosts = draw.host_plans();
        let mut steps = Vec::new();
        for _ in 0..draw.rng.random_range(6..30) {
            steps.extend((draw.any(&kinds).draw)(&mut draw));
            let ms = if draw.rng.random_bool(0.3) {
                draw.below(50).into()
            } else {
                draw.rng.random_range(0..4000)
            };
            steps.push(Step::Wait { ms });
        }
        let stay_down = if draw.rng.random_bool(0.1) { vec![draw.host()] } else { Vec::new() };
        if draw.second_cluster.is_some() {
            let meet = Step::Connect { from: draw.host(), to: draw.host() };
            steps.insert(draw.pick(steps.len()), meet);
        }
        Plan {
            second_cluster: draw.second_cluster,
            reclaim_after_s: draw.reclaim_after_s,
            world: draw.rng.random(),
            range: draw.pick(RANGES.len()),
            latency_ms: draw.rng.random_range(1..40),
            loss_percent: if draw.rng.random() { 0 } else { draw.below(8) },
            hosts,
            steps,
            stay_down,
        }
    }
}

impl Draw {
    fn pick(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    fn below(&mut self, end: u8) -> u8 {
        self.rng.random_range(0..end)
    }

    fn host(&mut self) -> usize {
        self.pick(self.hosts)
    }

    fn two(&mut self) -> (usize, usize) {
        let one = self.host();
        (one, (one + 1 + self.pick(self.hosts - 1)) % self.hosts)
    }

    fn any<'a>(&mut self, kinds: &[&'a Kind]) -> &'a Kind {
        let mut at = self.rng.random_range(0..kinds.iter().map(|kind| kind.weight).sum());
        let mut found = kinds.iter().find(|kind| {
            let here = at < kind.weight;
            at = at.saturating_sub(kind.weight);
            here
        });
        found.take().expect("below the sum of all")
    }

    /// All with the same list, or in a ring, or after the first two; at once or one after the other. Every host has another
    /// one for a target: one that has none, and loses its disk, makes a cluster of its own.
    fn host_plans(&mut self) -> Vec<HostPlan> {
        let (shape, slow, exact) = (self.pick(3), self.rng.random_bool(0.5), self.rng.random_bool(0.5));
        let (hosts, split) = (self.hosts, self.second_cluster.unwrap_or(self.hosts));
        let targets = |number: usize| {
            let own = if number < split { 0..split } else { split..hosts };
            match shape {
                0 => own.collect(),
                1 => vec![own.start + (number + 1 - own.start) % own.len()],
                _ => own.take(2).collect::<Vec<usize>>(),
            }
        };
        let mut plan = |number| HostPlan {
            targets: targets(number),
            after_ms: if slow { self.rng.random_range(0..1000) } else { 0 },
            skew_days: if exact { 0 } else { self.rng.random_range(0..7300) },
            drift_ppm: if exact { 0 } else { self.rng.random_range(-3000..=3000) },
            disk_ms: if self.rng.random() { 0 } else { self.rng.random_range(0..30) },
        };
        (0..hosts).map(&mut plan).collect()
    }

    fn attach(&mut self) -> Vec<Step> {
        let host = self.host();
        let wanted = self.rng.random_bool(0.2).then(|| 2 + self.below(5));
        let count = if wanted.is_some() { 1 } else { 1 + self.pick(3) };
        vec![Step::Attach { host, wanted }; count]
    }

    fn detach(&mut self) -> Vec<Step> {
        let host = self.host();
        vec![Step::Detach { host }; 1 + self.pick(2)]
    }

    fn partition(&mut self) -> Vec<Step> {
        vec![Step::Partition { at: 1 + self.pick(self.hosts - 1) }]
    }

    fn cut(&mut self) -> Vec<Step> {
        let (from, to) = self.two();
        vec![Step::Cut { from, to }]
    }

    fn break_connections(&mut self) -> Vec<Step> {
        let (a, b) = self.two();
        vec![Step::Break { a, b }]
    }

    fn fate(&mut self) -> Fate {
        if self.rng.random() { Fate::Nothing } else { Fate::LastWrite }
    }

    /// Now and then it starts again at once.
    fn crash(&mut self) -> Vec<Step> {
        let (host, loss) = (self.host(), self.fate());
        let mut steps = vec![Step::Crash { host, loss }];
        if self.rng.random() {
            steps.extend([Step::Wait { ms: self.below(200).into() }, Step::Restart { host }]);
        }
        steps
    }

    fn crash_all(&mut self) -> Vec<Step> {
        vec![
            Step::CrashAll { loss: self.fate() },
            Step::Wait { ms: self.below(200).into() },
            Step::RestartAll,
        ]
    }

    /// Now and then it is ended soon, in which time the first host may be gone.
    fn clone(&mut self) -> Vec<Step> {
        let mut steps = vec![Step::Clone { host: self.host() }];
        if self.rng.random() {
            steps.extend([Step::Wait { ms: self.rng.random_range(0..60_000) }, Step::EndClones]);
        }
        steps
    }

    fn remove(&mut self) -> Vec<Step> {
        let (at, of) = self.two();
        vec![Step::Remove { at, of }]
    }

    /// Where hosts that are gone for good keep a majority from deciding, the others would wait for ever.
    fn reset(&mut self) -> Vec<Step> {
        let force = self.rng.random() && self.reclaim_after_s.is_none();
        vec![Step::Reset { host: self.host(), force }]
    }

    fn replace(&mut self) -> Vec<Step> {
        if self.reclaim_after_s.is_some() {
            return Vec::new();
        }
        let host = self.host();
        vec![Step::Replace { host }, Step::Wait { ms: self.below(200).into() }, Step::Restart { host }]
    }

    /// A host is away for so long that a majority takes its space.
    fn stay_away(&mut self) -> Vec<Step> {
        let Some(seconds) = self.reclaim_after_s else { return Vec::new() };
        let host = self.host();
        let away = match self.pick(3) {
            0 => Step::Crash { host, loss: self.fate() },
            1 => Step::Pause { host, ms: seconds * 1500 },
            _ => Step::Partition { at: host.max(1) },
        };
        vec![away, Step::Wait { ms: seconds * 1000 + self.rng.random_range(0..15_000) }]
    }

    fn pause(&mut self) -> Vec<Step> {
        vec![Step::Pause { host: self.host(), ms: self.rng.random_range(100..15_000) }]
    }

    fn disk(&mut self) -> Vec<Step> {
        let host = self.host();
        match self.pick(3) {
            0 => vec![Step::DiskTakes { host, ms: self.rng.random_range(0..2000) }],
            1 => vec![Step::DiskFails { host, fails: false }],
            _ => vec![Step::DiskFails { host, fails: true }],
        }
    }

    fn weather(&mut self) -> Vec<Step> {
        let (from, to) = self.two();
        if self.rng.random_bool(0.2) {
            return vec![Step::FairWeather];
        }
        let (latency_ms, jitter_ms) = (self.rng.random_range(0..200), self.rng.random_range(0..400));
        let (loss_percent, twice_percent) = (self.below(30), self.below(20));
        vec![Step::Weather { from, to, latency_ms, jitter_ms, loss_percent, twice_percent }]
    }
}
