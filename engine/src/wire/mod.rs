//! Header formats as checked views: bytes are checked once, at the door, and cannot fail afterwards.
//!
//! Nothing here copies a payload, allocates or panics, whatever the bytes. Integers are read and written in
//! the order of their format: network order for Ethernet, IP, TCP, UDP, ARP and VXLAN, native order for the
//! virtio-net header, little-endian for our own datagrams.

pub mod arp;
pub mod checksum;
pub mod ether;
pub mod group;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod probe;
pub mod sealed;
pub mod tcp;
pub mod udp;
pub mod virtio;
pub mod vxlan;
