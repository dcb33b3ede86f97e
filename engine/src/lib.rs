//! The data plane of meshnet: Ethernet frames in, Ethernet frames out.
//!
//! The modules outside `io` are pure: bytes and `now` in; verdicts, bytes and deadlines out. `io` holds the
//! TAP devices, the sockets, the namespaces and the worker threads, and the only unsafe code of the tree.
//! The engine knows nothing of gossip, HTTP or commands: tables are pushed in as [`Update`]s, reports
//! leave as [`Event`]s.
//!
//! A frame from a container goes [`packet`] (read into a batch) -> [`switch`] (where to) -> [`offload::cut`]
//! (datagrams for the underlay) or straight to another TAP of this host. A datagram from the underlay goes
//! [`wire::vxlan`] (opened) -> [`tables`] (may the sender?) -> [`offload::join`] (super-frames again) ->
//! [`switch`] -> a TAP.

pub mod capture;
pub mod counters;
pub mod fdb;
pub mod fence;
pub mod gateway;
pub mod groups;
#[cfg(feature = "io")]
pub mod io;
pub mod network;
pub mod nonces;
pub mod offload;
pub mod packet;
pub mod path;
pub mod rate;
pub mod seam;
pub mod session;
pub mod switch;
pub mod tables;
pub mod types;
pub mod wire;

pub use seam::{Event, Update};
