//! The committed fuzz corpora, replayed on the stable toolchain: what was found once is not lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]

#[path = "../fuzz/src/merge.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod merge;
#[path = "../fuzz/src/program.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod program;
#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod targets;

use std::collections::BTreeSet;
use std::path::Path;

use peering::gossip::kind::{HOST, NAME};
use peering::proto::{MAX_VERSION as VERSION, Message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many altered copies of each entry are tried, unless MESHNET_MUTATIONS says otherwise.
const MUTATIONS: usize = 40;

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        std::fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", corpus.display());
    let told = std::env::var("MESHNET_MUTATIONS").ok().and_then(|text| text.parse().ok());
    for (seed, path) in paths.iter().enumerate() {
        let mut data = std::fs::read(path).unwrap();
        let mut rng = StdRng::seed_from_u64(seed as u64);
        for round in 0..=told.unwrap_or(MUTATIONS) {
            let run = std::panic::catch_unwind(|| target(&data));
            assert!(run.is_ok(), "{} altered {round} times: {data:02x?}", path.display());
            alter(&mut data, &mut rng);
        }
    }
}

/// Changes, removes, repeats or inserts a few bytes.
fn alter(data: &mut Vec<u8>, rng: &mut StdRng) {
    let at = rng.random_range(0..=data.len());
    let end = (at + rng.random_range(1..4)).min(data.len());
    match rng.random_range(0..5) {
        0 => drop(data.drain(at..end)),
        1 => data.insert(at, rng.random()),
        2 => data.extend_from_within(at..end),
        _ if at < data.len() => data[at] = rng.random(),
        _ => {}
    }
}

/// The kinds of the entries of a corpus: its files begin with an envelope.
fn kinds(corpus: &str) -> BTreeSet<u16> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let entries = std::fs::read_dir(corpus).expect("a corpus");
    let entries = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    entries.filter_map(|data| Some(u16::from_le_bytes(*data.first_chunk()?))).collect()
}

#[test]
fn every_kind_has_an_entry() {
    let empty = |kind: u16| [&kind.to_le_bytes()[..], &VERSION.to_le_bytes(), &[0; 4]].concat();
    let known = |kind: &u16| !matches!(Message::decode(&empty(*kind)), Ok(Message::Unknown { .. }));
    let messages: BTreeSet<u16> = (0..=u16::MAX).filter(known).collect();
    assert!(messages.contains(&1) && !messages.contains(&0), "{messages:?}");
    assert_eq!(messages.difference(&kinds("message")).collect::<Vec<_>>(), [&0; 0], "messages without one");
    let records: BTreeSet<u16> = (HOST..=NAME).collect();
    assert_eq!(records.difference(&kinds("record")).collect::<Vec<_>>(), [&0; 0], "records without one");
}

#[test]
fn message() {
    replay("message", targets::message);
}

#[test]
fn record() {
    replay("record", targets::record);
}

#[test]
fn stored() {
    replay("stored", targets::stored);
}

#[test]
fn records() {
    replay("records", targets::records);
}

#[test]
fn units() {
    replay("units", targets::units);
}

#[test]
fn addresses() {
    replay("addresses", targets::addresses);
}

#[test]
fn facts_in_any_order() {
    replay("merge", merge::merge);
}
