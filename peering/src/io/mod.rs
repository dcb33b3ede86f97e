//! The control plane on a real host: QUIC connections, the state directory, and the task that owns the [`Mesh`].
//!
//! [`Peering::start`] opens the state directory, binds the port and starts the task; the handle sends it
//! commands. The task feeds the mesh with what happens and does what it says, persisting before it speaks.
//!
//! [`Mesh`]: crate::mesh::Mesh

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where clocks, files and sockets are"
)]

mod addresses;
mod admission;
mod config;
mod connector;
mod frames;
mod holder;
mod link;
mod peering;
mod quic;
mod reason;
mod runtime;
mod screen;
mod store;
mod tls;
mod vacancy;

pub use addresses::underlay_addresses;
pub use config::{DEFAULT_RANGE, PeeringConfig, StartError};
pub use peering::Peering;
pub use quic::BindError;
pub use screen::PortCounters;
pub use store::{Contents, StateFile, StoreError, stored_cluster};
