//! Random faults, and the laws that hold in spite of them: `docs/simulator.md`.
//!
//! `SIM_SEEDS=5000` runs more schedules, `SIM_SEED=17` one of them, `SIM_PLAN=file` one that was written down;
//! `SIM_TRACE=1` tells what happens in it, `SIM_TRACE=2` shows every message.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod schedules;
mod sim;

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use schedules::{Plan, carry_out, catch_last_words, shrink};
use serde::{Deserialize, Serialize};

/// Schedules in an ordinary run, the same in each.
const SEEDS: u64 = 500;
/// Schedules that were never run before, besides.
const FRESH: u64 = 50;
/// A plan that failed once is run in so many worlds.
const WORLDS: u64 = 4;

#[test]
fn random_schedules_keep_the_laws() {
    if let Some(path) = std::env::var_os("SIM_PLAN") {
        return replay(&read(Path::new(&path)).plan);
    }
    if let Some(seed) = number("SIM_SEED") {
        return replay(&Plan::draw(seed));
    }
    let fresh: Vec<u64> = (0..FRESH).map(|n| RandomState::new().hash_one(n)).collect();
    println!("fresh seeds: {fresh:?}");
    let seeds: Vec<u64> = (0..number("SIM_SEEDS").unwrap_or(SEEDS)).chain(fresh).collect();
    let failed = run_all(&seeds, |seed| carry_out(&Plan::draw(*seed)).err());
    for (seed, words) in &failed {
        println!("{words}\nreplay: SIM_SEED={seed} SIM_TRACE=1 {COMMAND}");
    }
    failed.iter().take(4).for_each(|(seed, _)| write_down(*seed));
    assert!(
        failed.is_empty(),
        "failing seeds: {:?}",
        failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>()
    );
}

#[test]
fn plans_that_failed_once_keep_the_laws() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("regressions").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no regression is kept");
    let failed = run_all(&paths, |path| {
        let plan = read(path).plan;
        let worlds = (0..WORLDS).map(|n| Plan { world: plan.world.wrapping_add(n), ..plan.clone() });
        worlds.filter_map(|plan| carry_out(&plan).err()).next()
    });
    for (path, words) in &failed {
        println!(
            "{words}\nit showed once: {}\nreplay: SIM_PLAN={} {COMMAND}",
            read(path).shows,
            path.display()
        );
    }
    assert!(failed.is_empty(), "{} regressions fail", failed.len());
}

const COMMAND: &str = "cargo test -p peering --test simulator_random random -- --nocapture";

/// A plan that failed, and what was wrong then.
#[derive(Serialize, Deserialize)]
struct Regression {
    shows: String,
    plan: Plan,
}

fn read(path: &Path) -> Regression {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs one plan with all its words.
fn replay(plan: &Plan) {
    println!("{plan:?}");
    catch_last_words();
    if let Err(words) = carry_out(plan) {
        println!("{words}");
        let _ = std::panic::take_hook();
        panic!("a law is broken");
    }
}

/// Runs everything on all cores; returns what failed, with the words of it.
fn run_all<T: Clone + Sync + Send>(all: &[T], run: impl Fn(&T) -> Option<String> + Sync) -> Vec<(T, String)> {
    catch_last_words();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(words) = run(one) {
                        failed.lock().expect("nobody panics with it").push((one.clone(), words));
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    failed.into_inner().expect("nobody panics with it")
}

/// Leaves the shortest plan that still fails in a file, to be replayed and to be kept.
fn write_down(seed: u64) {
    catch_last_words();
    let plan = shrink(&Plan::draw(seed), 300);
    let words = carry_out(&plan).err().unwrap_or_default();
    let _ = std::panic::take_hook();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schedule-{seed}.json"));
    let text = serde_json::to_string_pretty(&Regression { shows: words, plan }).expect("a plan is written");
    std::fs::write(&path, text).expect("a file");
    println!("shortened: SIM_PLAN={} SIM_TRACE=1 {COMMAND}", path.display());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
