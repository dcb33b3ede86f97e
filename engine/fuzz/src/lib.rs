//! The bodies of the fuzz targets. To run one, with a nightly toolchain and cargo-fuzz, from `engine/`:
//!
//! ```text
//! cargo +nightly fuzz run join --fuzz-dir fuzz
//! ```
//!
//! `engine/tests/corpus.rs` replays the committed corpora on the stable toolchain, and `engine/tests/switches.rs`
//! runs the same world with frames of its own.

pub mod gateway;
pub mod targets;
pub mod world;
