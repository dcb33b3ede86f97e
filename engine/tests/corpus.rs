//! The committed fuzz corpora, replayed on the stable toolchain: what was found once is not lost. Random bytes go
//! the same way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail")]

#[path = "../fuzz/src/gateway.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod gateway;
#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod targets;
#[path = "../fuzz/src/world.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the fuzz targets")]
mod world;

use std::path::Path;

use proptest::prelude::*;

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
fn wire() {
    replay("wire", targets::wire);
}

#[test]
fn cut() {
    replay("cut", targets::cut);
}

#[test]
fn join() {
    replay("join", targets::join);
}

#[test]
fn world_of_two_hosts() {
    replay("world", targets::world);
}

#[test]
fn handshake() {
    replay("handshake", targets::handshake);
}

#[test]
fn gateway_under_anything() {
    replay("gateway", gateway::gateway);
}

#[test]
fn session() {
    replay("session", targets::session);
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        targets::wire(&bytes);
        targets::cut(&bytes);
        targets::join(&bytes);
        targets::world(&bytes);
        gateway::gateway(&bytes);
    }
}

proptest! {
    // A handshake is some milliseconds of arithmetic.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_bytes_of_sessions(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        targets::handshake(&bytes);
        targets::session(&bytes);
    }
}
