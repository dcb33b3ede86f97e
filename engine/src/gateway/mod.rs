//! The gateway of each network: what the switch itself answers at the gateway's address.

pub mod dns;
pub mod domain;
pub mod names;
