//! The committed fuzz corpora, replayed on the stable toolchain: what was found once is not lost.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]

#[path = "../fuzz/src/program.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod program;
#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod targets;

use std::path::Path;

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        std::fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", corpus.display());
    for path in paths {
        let data = std::fs::read(&path).unwrap();
        let run = std::panic::catch_unwind(|| target(&data));
        assert!(run.is_ok(), "{}", path.display());
    }
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
