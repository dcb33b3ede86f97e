//! Benchmarks of meshnet beside the kernel, on the same wire, in the same run, on one machine.
//!
//! Absolute figures of such a run say little, since both hosts and both load generators share the processors: what
//! counts is the ratio to the kernel's VXLAN in the same run, and processor seconds for the same payload.
//!
//! A [`plan`] says which rows are measured for which [`column`]s; [`session`] sets the columns up and runs each row
//! ([`load`]) over them in turns; [`results`] has the figures, as a table and as the JSON that [`document`] makes
//! `docs/performance.md` of.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark is all clocks, files and processes"
)]

pub mod alloc;
pub mod blast;
pub mod budgets;
pub mod callgrind;
pub mod cases;
pub mod chart;
pub mod column;
pub mod cpu;
pub mod crowd;
pub mod document;
pub mod echo;
pub mod frames;
pub mod library;
pub mod load;
pub mod machine;
pub mod names;
pub mod networks;
pub mod options;
pub mod plan;
pub mod results;
pub mod scale;
pub mod session;
pub mod stats;
pub mod sweep;
pub mod table;
pub mod watchdog;
pub mod world;
