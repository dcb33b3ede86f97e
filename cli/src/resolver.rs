//! What is asked of other name servers, and how containers are pointed at ours: the part that needs no socket and no file.
//!
//! A question that is not about the overlay goes on as it came ([`choice`] says whom to ask and for how long), its answer
//! comes back as it came, and is kept for as long as it says ([`cache`]). Nothing is taken apart that need not be: extensions
//! (RFC 6891), signatures and record types of tomorrow pass untouched. [`conf`] reads and writes resolv.conf(5), and [`plan`] says when.

#![allow(clippy::disallowed_types, reason = "`Instant` comes in from the shell")]

pub(crate) mod cache;
pub(crate) mod choice;
pub(crate) mod conf;
pub(crate) mod message;
pub(crate) mod plan;
