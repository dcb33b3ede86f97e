//! The shell of the data plane: TAP devices, namespaces, netlink, sockets and worker threads.
//!
//! The only place of the tree with unsafe code, apart from the checksum kernels: a file that needs it says so
//! in its first line, and every block says why it is sound.

pub mod capture;
pub mod credentials;
pub mod device;
pub mod engine;
pub mod ethtool;
mod gateway;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod socket;
pub mod tap;
pub mod tunnel;
pub mod watch;
mod worker;
