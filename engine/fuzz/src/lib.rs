//! The bodies of the fuzz targets. `engine/tests/corpus.rs` replays the committed corpora through them on the
//! stable toolchain, and `engine/tests/switches.rs` runs the same world with frames of its own.

pub mod targets;
pub mod world;
