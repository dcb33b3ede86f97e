//! A crash at every point of a grant, a claim and a release: of the asker, of the owner, of both, with and without what
//! was on its way to the disk, and to the other. Never two owners, never lost space.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a simulator is test code as a whole")]

mod sim;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use peering::mesh::RequestId;
use sim::{Launch, Loss, World};

const SECOND: Duration = Duration::from_secs(1);
const RANGE: &str = "10.9.0.0/24";
/// Gives space and addresses.
const OWNER: usize = 0;
/// Wants them.
const ASKER: usize = 1;
/// Hears of it, so that a fact may be known here before it is at the asker.
const WITNESS: usize = 2;
/// How much happens after an answer until all is told.
const ECHO: u64 = 40;

/// Something that is asked, and what must be true whatever crashed meanwhile.
struct Scene {
    begin: fn() -> World,
    act: fn(&mut World) -> RequestId,
    /// The act has had its effect.
    done: fn(&World, RequestId) -> bool,
    afterwards: fn(&mut World, RequestId),
}

/// A crash: after how many things that happened, and whose.
#[derive(Clone, Copy, Debug)]
struct Strike {
    step: u64,
    hosts: &'static [usize],
    loss: Loss,
    /// What was sent less than this ago is lost.
    reach: Duration,
}

#[test]
fn a_crash_at_any_point_of_a_grant_leaves_one_owner_and_all_space() {
    strike_everywhere(&Scene {
        begin: without_asker,
        act: |world| {
            world.launch(ASKER, launch());
            world.attach(ASKER, &[])
        },
        done: answered,
        afterwards: |world, _| assert_addresses_for_all(world),
    });
}

#[test]
fn a_crash_at_any_point_of_a_claim_leaves_the_address_with_one_port_or_free() {
    strike_everywhere(&Scene {
        begin: settled,
        act: |world| world.attach(ASKER, &["10.9.0.9"]),
        done: answered,
        afterwards: |world, request| {
            let port = world.hosts[ASKER].ports.values().any(|(of, _)| *of == request);
            // An address whose answer was lost comes back when its owner repeats the answer.
            world.run(40 * SECOND);
            let again = world.attach(WITNESS, &["10.9.0.9"]);
            world.run(5 * SECOND);
            let got = world.answer(again).is_some_and(Result::is_ok);
            assert_eq!(got, !port, "the asker has it: {port}; the witness: {:?}", world.answer(again));
            assert_addresses_for_all(world);
        },
    });
}

#[test]
fn a_crash_at_any_point_of_a_release_frees_the_address() {
    strike_everywhere(&Scene {
        begin: || {
            let mut world = settled();
            let request = world.attach(ASKER, &["10.9.0.9"]);
            world.run(2 * SECOND);
            assert!(world.answer(request).is_some_and(Result::is_ok));
            world
        },
        act: |world| {
            let port = world.hosts[ASKER].ports.values().find(|(_, endpoint)| endpoint.explicit);
            let request = port.map(|(request, _)| *request).expect("it was asked for");
            world.detach(ASKER, request);
            request
        },
        done: |_, _| true,
        afterwards: |world, _| {
            world.run(10 * SECOND);
            let again = world.attach(WITNESS, &["10.9.0.9"]);
            world.run(5 * SECOND);
            assert!(world.answer(again).is_some_and(Result::is_ok), "{:?}", world.answer(again));
            assert_addresses_for_all(world);
        },
    });
}

fn launch() -> Launch {
    Launch { range: RANGE, ..Launch::targets(&[OWNER, ASKER, WITNESS]) }
}

fn answered(world: &World, request: RequestId) -> bool {
    world.answer(request).is_some()
}

/// The owner founded and the witness has its share; writes to disk take a while, and are steps of their own.
fn without_asker() -> World {
    let mut world = World::new(11, 3);
    for host in &mut world.hosts {
        host.disk_time = Duration::from_millis(3);
    }
    world.launch(OWNER, Launch { found: true, ..launch() });
    world.attach(OWNER, &[]);
    world.run(SECOND);
    world.launch(WITNESS, launch());
    world.attach(WITNESS, &[]);
    world.run(5 * SECOND);
    world
}

fn settled() -> World {
    let mut world = without_asker();
    world.launch(ASKER, launch());
    world.attach(ASKER, &[]);
    world.run(5 * SECOND);
    world.assert_agreement();
    world
}

fn strike_everywhere(scene: &Scene) {
    let steps = count_steps(scene);
    assert!(steps > 10, "only {steps} things happen");
    let mut failed = Vec::new();
    let mut count = 0;
    for strike in (0..steps).flat_map(strikes) {
        count += 1;
        let run = AssertUnwindSafe(|| strike_once(scene, strike));
        if catch_unwind(run).is_err() {
            failed.push(strike);
        }
    }
    println!("{count} crashes in {steps} steps");
    assert!(failed.is_empty(), "{} of {count} fail: {failed:?}", failed.len());
}

fn count_steps(scene: &Scene) -> u64 {
    let mut world = (scene.begin)();
    let begin = world.steps;
    let request = (scene.act)(&mut world);
    let end = world.now + 20 * SECOND;
    while !(scene.done)(&world, request) && world.step(end) {
        if world.steps > begin + 400 {
            break;
        }
    }
    world.steps - begin + ECHO
}

fn strikes(step: u64) -> impl Iterator<Item = Strike> {
    const WHO: [&[usize]; 3] = [&[OWNER], &[ASKER], &[OWNER, ASKER]];
    // A process is killed, or the power fails before anything left, or just after.
    let fates = [(Loss::Nothing, SECOND), (Loss::LastWrite, Duration::ZERO), (Loss::LastWrite, SECOND)];
    let strike = move |hosts| fates.map(|(loss, reach)| Strike { step, hosts, loss, reach });
    WHO.into_iter().flat_map(strike)
}

fn strike_once(scene: &Scene, strike: Strike) {
    let mut world = (scene.begin)();
    let begin = world.steps;
    let request = (scene.act)(&mut world);
    let end = world.now + 60 * SECOND;
    while world.steps < begin + strike.step && world.step(end) {
        look(&world);
    }
    for &host in strike.hosts.iter().filter(|host| world.hosts[**host].mesh.is_some()).collect::<Vec<_>>() {
        world.crash_with(host, strike.loss, strike.reach);
    }
    watch(&mut world, SECOND / 5);
    for &host in strike.hosts {
        if world.hosts[host].mesh.is_none() {
            world.restart(host);
        }
        look(&world);
    }
    watch(&mut world, 5 * SECOND);
    world.assert_agreement();
    (scene.afterwards)(&mut world, request);
    world.assert_agreement();
    look(&world);
    for host in [OWNER, ASKER, WITNESS] {
        assert_eq!(world.lost_space(host), None);
    }
}

/// What must hold at every moment.
fn look(world: &World) {
    world.assert_one_owner(&BTreeSet::new());
}

fn watch(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.step(end) {
        look(world);
    }
    world.assert_no_duplicates();
    world.run(end.saturating_duration_since(world.now));
}

fn assert_addresses_for_all(world: &mut World) {
    let asked: Vec<RequestId> = [OWNER, ASKER, WITNESS].map(|host| world.attach(host, &[])).to_vec();
    let got = |world: &World| asked.iter().all(|r| world.answer(*r).is_some_and(Result::is_ok));
    assert!(world.run_until(10 * SECOND, got).is_some(), "somebody gets no address");
}
