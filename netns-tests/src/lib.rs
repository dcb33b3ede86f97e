//! End-to-end tests on the real kernel: hosts, wires and containers made of network namespaces.
//!
//! A [`Topology`] is a few hosts on one underlay. A [`Host`] runs the `meshnet` binary in its own
//! namespace, with its own run and state directories; a [`Container`] is a network namespace with a
//! process in it; [`Docker`] runs real ones. Every name holds the process id of its maker, so tests run
//! side by side, everything goes when its owner is dropped (after a panic too), and what a killed run
//! left behind is swept away by the next one. `tests/` has one file per promise.
//!
//! Root is needed, and iproute2, iputils-ping, iperf3, tcpdump, nftables, ethtool, dnsutils, openvswitch-switch and
//! docker.io: what is missing fails with its name, it never skips.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test bed is all sockets, files, clocks and processes"
)]

mod attached;
mod binary;
mod books;
mod capture;
mod cluster;
mod container;
mod daemon;
mod dig;
mod docker;
mod faults;
mod flood;
mod frames;
mod host;
mod iperf;
mod leftovers;
mod name_server;
mod names;
mod neighbours;
mod netns;
mod ovs;
mod ping;
mod process;
mod state;
mod told;
mod topology;
mod trickle;
mod vtep;
mod wait;
mod wire;

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use serde_json::{Value, json};

pub use attached::Attached;
pub use binary::meshnet_binary;
pub use books::number;
pub use capture::Capture;
pub use cluster::{all_differ, ping_all_pairs};
pub use container::{Addressed, Container, Witness};
pub use docker::{Docker, DockerContainer};
pub use flood::Flood;
pub use frames::{ethernet, icmp_echo, vxlan, vxlan_header};
pub use host::Host;
pub use iperf::{IperfReport, IperfServer, IperfStream, Transport};
pub use leftovers::sweep;
pub use name_server::NameServer;
pub use neighbours::NeighbourRoom;
pub use netns::Namespace;
pub use ovs::{OvsContainer, OvsVtep};
pub use process::{Outcome, Process, Tool};
pub use state::StateDisk;
pub use topology::Topology;
pub use trickle::Trickle;
pub use vtep::{KernelContainer, KernelVtep};
pub use wait::{Stopwatch, pause, secs, wait_for, wait_until};
pub use wire::Wire;
