//! The control plane of meshnet: who is there, who owns what, what is it called.
//!
//! The modules outside `io` are pure: bytes and `now` in; bytes, events and deadlines out.

pub mod gossip;
pub mod identity;
#[cfg(feature = "io")]
pub mod io;
pub mod ipam;
pub mod keyring;
pub mod membership;
pub mod mesh;
mod plain;
pub mod proto;
pub mod records;
pub mod rotation;
pub mod sealing;
pub mod secret;
pub mod topology;
