//! Super-frames that leave uncut, where the device on the way cuts them.

use std::io;
use std::net::SocketAddr;

use super::Sides;
use crate::io::tunnel::Tunnel;
use crate::offload::source_port::SourcePort;
use crate::offload::tunnel::{Outer, encapsulate};
use crate::packet::{Batch, Slot};
use crate::tables::Remote;
use crate::types::Vni;

/// One worker's way to send super-frames whole, if it has one.
pub(super) struct Whole {
    tunnel: Option<Tunnel>,
    /// The UDP ports of the data socket and of the pool: a flow has one outer port, whichever way a frame of it goes.
    ports: Vec<u16>,
}

impl Whole {
    /// Takes the device out of `sides`. One whose ports cannot be told sends nothing whole.
    pub(super) fn new(sides: &mut Sides) -> Self {
        let sockets = std::iter::once(&sides.socket).chain(&sides.pool);
        let ports: io::Result<Vec<_>> =
            sockets.map(|socket| socket.local_addr().map(|addr| addr.port())).collect();
        match ports {
            Ok(ports) => Whole { tunnel: sides.tunnel.take(), ports },
            Err(_) => Whole { tunnel: None, ports: Vec::new() },
        }
    }

    /// Sends the frame of `slot` uncut and gives the bytes it took with its outer headers; none, and nothing is
    /// done, when it must be cut here.
    pub(super) fn send(
        &self,
        (remote, source): (&Remote, SourcePort),
        (vni, mtu): (Vni, u16),
        batch: &Batch,
        slot: &Slot,
    ) -> Option<io::Result<usize>> {
        let (tunnel, through) = (self.tunnel.as_ref()?, remote.through?);
        let SocketAddr::V4(to) = remote.addr else { return None };
        let place = source.pooled().filter(|_| remote.spread).map_or(0, |place| place + 1);
        let source_port = self.ports.get(place).or(self.ports.first()).copied()?;
        let frame = slot.frame(batch.arena());
        let head = encapsulate(frame, &slot.vnet, mtu, &Outer { through, source_port, to, vni })?;
        Some(tunnel.send(&head, frame))
    }
}
