//! Each step alone; how they go together is the simulator's (`tests/simulator_secrets.rs`).

use zeroize::Zeroizing;

use super::*;
use crate::secret::Secret;

fn secret(byte: u8) -> Secret {
    Secret::new(Zeroizing::new(vec![byte; 32])).unwrap()
}

fn name(byte: u8) -> SecretName {
    secret(byte).name()
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 16])
}

fn record(phase: Phase) -> RotationRecord {
    let members = (1..=5).map(peer).collect();
    RotationRecord { from: name(1), to: name(2), phase, leave_behind: false, members }
}

fn keyring(bytes: &[u8]) -> Keyring {
    let mut keyring = Keyring::new(Some(secret(bytes[0])));
    bytes[1..].iter().for_each(|byte| keyring.take(secret(*byte), name(bytes[0])));
    keyring
}

/// Hosts 1, 2, ... with what they take; a dead one has a 0 in front.
fn holders(all: &[&[u8]]) -> Vec<Holder> {
    let holder = |(number, takes): (u8, &&[u8])| Holder {
        peer: peer(number),
        up: takes.first() != Some(&0),
        member: number <= 5,
        takes: takes.iter().filter(|byte| **byte > 0).map(|byte| name(*byte)).collect(),
    };
    (1..).zip(all).map(holder).collect()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    Instant::now()
}

/// What host `me` does next; host 1 wrote the record.
fn next(me: u8, phase: Phase, own: &[u8], all: &[&[u8]]) -> Option<Step> {
    let record = record(phase);
    Rotation::default().next(now(), peer(me), (&record, peer(1)), &keyring(own), &holders(all))
}

fn told(phase: Phase) -> Option<Step> {
    Some(Step::Tell(record(phase)))
}

#[test]
fn who_lacks_the_secret_asks_those_who_have_it_in_every_phase() {
    for phase in [Phase::Spread, Phase::Prefer, Phase::Done] {
        let step = next(2, phase, &[1], &[&[1, 2], &[1], &[2, 1], &[0, 2], &[1]]);
        assert_eq!(step, Some(Step::Ask(vec![peer(1), peer(3)])), "{phase:?}");
        assert_eq!(next(2, phase, &[1], &[&[0, 1, 2], &[1]]), None, "nobody who lives has it");
    }
}

#[test]
fn it_is_used_when_every_live_host_has_it_on_disk() {
    assert_eq!(next(1, Phase::Spread, &[1, 2], &[&[1, 2], &[1], &[1, 2]]), None);
    assert_eq!(next(1, Phase::Spread, &[1, 2], &[&[1], &[1, 2], &[1, 2]]), None, "this one has not");
    let (every, live): ([&[u8]; 3], [&[u8]; 3]) = ([&[1, 2]; 3], [&[1, 2], &[1, 2], &[0, 1]]);
    for all in [every, live] {
        assert_eq!(next(1, Phase::Spread, &[1, 2], &all), told(Phase::Prefer));
        assert_eq!(next(2, Phase::Spread, &[1, 2], &all), None, "its writer says so");
    }
    assert_eq!(next(2, Phase::Prefer, &[1, 2], &[&[1, 2], &[1, 2]]), Some(Step::Prefer));
}

#[test]
fn the_former_one_goes_when_every_host_uses_the_new_one() {
    assert_eq!(next(1, Phase::Prefer, &[2, 1], &[&[2, 1], &[1, 2]]), None, "one does not use it yet");
    assert_eq!(next(1, Phase::Prefer, &[2, 1], &[&[2, 1], &[2, 1]]), told(Phase::Done));
    assert_eq!(next(1, Phase::Prefer, &[2, 1], &[&[2, 1], &[2]]), told(Phase::Done), "launched with it");
    assert_eq!(
        next(1, Phase::Prefer, &[2, 1], &[&[2, 1], &[0, 1, 2]]),
        told(Phase::Done),
        "down, but has it"
    );
    assert_eq!(next(2, Phase::Done, &[2, 1], &[&[2], &[2, 1]]), Some(Step::Retire));
    assert_eq!(next(2, Phase::Done, &[2], &[&[2], &[2, 1]]), None);
}

#[test]
fn when_its_writer_is_gone_the_lowest_host_that_has_it_goes_on() {
    let all: [&[u8]; 3] = [&[0, 1, 2], &[1, 2], &[1, 2]];
    assert_eq!(next(2, Phase::Spread, &[1, 2], &all), told(Phase::Prefer));
    assert_eq!(next(3, Phase::Spread, &[1, 2], &all), None);
    let all: [&[u8]; 3] = [&[0, 1], &[1], &[1, 2]];
    assert_eq!(next(3, Phase::Spread, &[1, 2], &all), None, "not all have it");
}

/// How host 1 goes on in the phase of use, asked every second for `seconds`.
fn after(seconds: u64, leave_behind: bool, all: &[&[u8]]) -> Option<Step> {
    let (mut rotation, begin) = (Rotation::default(), now());
    let record = RotationRecord { leave_behind, ..record(Phase::Prefer) };
    let ask = |second: u64| {
        let now = begin + Duration::from_secs(second);
        rotation.next(now, peer(1), (&record, peer(1)), &keyring(&[2, 1]), &holders(all))
    };
    (0..=seconds).find_map(ask)
}

#[test]
fn hosts_that_are_down_are_waited_for_until_people_or_the_larger_part_go_on() {
    let done = |leave_behind| Some(Step::Tell(RotationRecord { leave_behind, ..record(Phase::Done) }));
    let (most, half): ([&[u8]; 3], [&[u8]; 2]) = ([&[2, 1], &[0, 1], &[2, 1]], [&[2, 1], &[0, 1]]);
    assert_eq!(after(PATIENCE.as_secs() - 1, false, &most), None);
    assert_eq!(after(PATIENCE.as_secs(), false, &most), done(false));
    assert_eq!(
        after(10 * PATIENCE.as_secs(), false, &half),
        None,
        "the other half may say the same of this one"
    );
    assert_eq!(after(0, true, &half), done(true), "people say so");
    let late: [&[u8]; 3] = [&[2, 1], &[0, 1], &[1, 2]];
    assert_eq!(after(10 * PATIENCE.as_secs(), true, &late), None, "one that lives is always waited for");
}

#[test]
fn a_host_that_comes_back_meanwhile_is_waited_for_anew() {
    let (mut rotation, begin, record) = (Rotation::default(), now(), record(Phase::Prefer));
    let mut ask = |second: u64, all: &[&[u8]]| {
        let now = begin + Duration::from_secs(second);
        rotation.next(now, peer(1), (&record, peer(1)), &keyring(&[2, 1]), &holders(all))
    };
    let long = PATIENCE.as_secs();
    assert_eq!(ask(0, &[&[2, 1], &[2, 1], &[0, 1]]), None);
    assert_eq!(ask(long - 1, &[&[2, 1], &[2, 1], &[1]]), None);
    assert_eq!(ask(long + 1, &[&[2, 1], &[2, 1], &[0, 1]]), None);
    assert!(ask(2 * long + 1, &[&[2, 1], &[2, 1], &[0, 1]]).is_some());
}

#[test]
fn only_a_rotation_whose_secret_nobody_has_gives_way() {
    let all = |takes: &'static [u8]| holders(&[&[1], takes]);
    assert!(is_lost(&record(Phase::Spread), &all(&[1])));
    assert!(is_lost(&record(Phase::Spread), &all(&[0, 1, 2])));
    assert!(!is_lost(&record(Phase::Spread), &all(&[1, 2])));
    for phase in [Phase::Prefer, Phase::Done] {
        assert!(!is_lost(&record(phase), &all(&[0, 1, 2])), "the host that is down may rely on it");
        assert!(is_lost(&record(phase), &all(&[0, 1])), "people gave it up");
    }
}

#[test]
fn who_came_after_the_beginning_is_given_nothing_and_not_waited_for() {
    let old: &[u8] = &[1];
    let six = |phase, takes: &'static [u8]| next(1, phase, takes, &[takes, takes, takes, takes, takes, old]);
    assert_eq!(six(Phase::Spread, &[1, 2]), told(Phase::Prefer));
    assert_eq!(six(Phase::Prefer, &[2, 1]), told(Phase::Done));
    assert_eq!(
        next(6, Phase::Spread, old, &[&[1, 2], old, old, old, old, old]),
        None,
        "it does not even ask"
    );
    // Launched with the new secret it may give it, and moves nothing on.
    let both: &[u8] = &[1, 2];
    assert_eq!(next(2, Phase::Spread, old, &[old, old, old, old, old, both]), Some(Step::Ask(vec![peer(6)])));
    let gone: [&[u8]; 6] = [&[0, 1], &[0, 1], &[0, 1], &[0, 1], &[0, 1], both];
    assert_eq!(next(6, Phase::Spread, both, &gone), None);
}
