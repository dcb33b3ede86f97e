//! What the daemon and `meshnet capture` have to agree on: pcapng, made by one and taken apart by the other.

pub(crate) mod line;
pub(crate) mod outer;
pub(crate) mod pcapng;
