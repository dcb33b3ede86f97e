//! The data plane of meshnet: Ethernet frames in, Ethernet frames out.
//!
//! The modules outside `io` are pure: bytes and `now` in; verdicts, bytes and deadlines out. `io` holds the
//! TAP devices, the sockets, the namespaces and the worker threads, and the only unsafe code of the tree.
//! The engine knows nothing of gossip, HTTP or commands: tables are pushed in as [`Update`]s, reports
//! leave as [`Event`]s.

#[cfg(feature = "io")]
pub mod io;
pub mod seam;
pub mod types;

pub use seam::{Event, Update};
