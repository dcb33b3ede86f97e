//! Addresses on several hosts under one clock: a small world with loss, repetition, disorder and crashes.

mod allocation;
mod founding;
mod ipv6;
mod removed;
mod rules;
mod units;
mod world;
