//! Benchmarks of meshnet beside the kernel, on the same wire, in the same run, on one machine.
//!
//! Absolute figures of such a run say little, since both hosts and both load generators share the processors: what
//! counts is the ratio to the kernel's VXLAN in the same run, and processor seconds for the same payload.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark is all clocks, files and processes"
)]

pub mod cpu;
pub mod load;
pub mod plan;
pub mod report;
pub mod rig;
pub mod stats;
