//! Bytes as a list of things to do.

use std::time::Instant;

use engine::types::{MacAddr, NetworkId, PortId};
use peering::records::{EndpointRecord, Given, NameRecord};

/// Reads choices from the front of the bytes.
pub struct Program<'a> {
    rest: &'a [u8],
}

impl<'a> Program<'a> {
    /// All of the bytes are the program.
    pub fn new(rest: &'a [u8]) -> Self {
        Program { rest }
    }

    /// The next byte; none at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// A number below `end`; 0 at the end of the bytes.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % end
    }

    /// Two bytes of length, then so many bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.below(256) | self.below(256) << 8;
        let (bytes, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        bytes
    }
}

/// An endpoint that differs by its port and by a byte.
pub fn endpoint(network: NetworkId, port: usize, variant: u8) -> EndpointRecord {
    EndpointRecord {
        port: PortId([port as u8; 8]),
        network,
        name: format!("c{variant}"),
        aliases: vec!["all".to_owned()],
        container: String::new(),
        mac: MacAddr([2, 0, 0, 0, 0, port as u8]),
        addresses: Vec::new(),
        ifname: "mesh0".to_owned(),
        running: variant & 1 == 0,
        docker_id: None,
        claim_version: u64::from(variant),
        given: Given::default(),
    }
}

/// A name that differs by its text and by a byte.
pub fn name(network: NetworkId, key: usize, variant: u8) -> NameRecord {
    let addresses = vec![[10, 9, 0, variant].into()];
    NameRecord { network, name: format!("n{key}"), addresses, services: Vec::new() }
}

/// Any moment will do: only differences count.
#[allow(clippy::disallowed_methods)]
pub fn start() -> Instant {
    Instant::now()
}
