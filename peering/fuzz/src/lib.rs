//! The bodies of the fuzz targets. `peering/tests/corpus.rs` replays the committed corpora through them on the
//! stable toolchain.

pub mod merge;
pub mod program;
pub mod targets;
