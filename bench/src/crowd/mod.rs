//! Very many hosts in one process under one virtual clock: the mesh of each is real, handshakes, processors, cards and
//! wires are charged.
//!
//! `wire` has what packets cost, `host` one host, `world` all of them and the queue of events, [`trial`] what is done
//! with them and measured, [`page`] what is made of that. One seed decides everything that happens by chance.

#![allow(
    clippy::cast_precision_loss,
    clippy::expect_used,
    reason = "figures for people; a simulator is test code as a whole"
)]

mod host;
pub mod page;
pub mod trial;
mod wire;
mod world;
