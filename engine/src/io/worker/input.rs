//! The half of a worker that takes what comes from other hosts: opened, joined, decided about, and given to the ports.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use super::{Worker, slice};
use crate::counters::{DropReason, Way};
use crate::io::socket::Received;
use crate::offload::Intake;
use crate::offload::join::{Part, Sums, parts};
use crate::session::sealed::{self, FRAME_START, OpenedFrame};
use crate::switch::{Port, Verdict};
use crate::tables::{RemoteIndex, Tables};
use crate::types::Vni;
use crate::wire::sealed::{SEALED, TAG_LEN};
use crate::wire::vxlan;

impl Worker {
    /// One batch from the underlay: open, join, decide about each super-frame, write.
    pub(super) fn serve_socket(&mut self, now: Instant) {
        match self.output.socket.recv_batch(&mut self.received) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // It concerns a datagram that was sent earlier; the socket stays good.
            Err(_) => return self.shared.counters.refused(Way::UnderlayIn, DropReason::SendFailed),
        }
        self.joiner.clear();
        let (mut datagrams, mut bytes) = (0, 0);
        for position in 0..self.received.received().len() {
            let received = self.received.received()[position];
            datagrams += u64::from(received.len.div_ceil(received.stride.max(1)));
            bytes += u64::from(received.len);
            let mut source = Source::default();
            let whole = received.start..received.start + received.len;
            for part in parts(self.received.arena(), whole, received.stride as usize) {
                if !self.output.lenses.is_empty() {
                    self.output.show_datagram(received.from, slice(self.received.arena(), &part.frame));
                }
                self.open(now, &received, &mut source, &part);
            }
        }
        self.shared.counters.batch(Way::UnderlayIn, datagrams, bytes);
        self.forward_joined(now);
    }

    /// Opens one datagram and offers its frame to the joiner.
    fn open(&mut self, now: Instant, received: &Received, source: &mut Source, part: &Part) {
        let arena = self.received.arena();
        let opened = vxlan::parse(slice(arena, &part.frame)).and_then(|(vni, _)| {
            let (from, mtu) = source.of(self.switch.tables(), received, vni)?;
            Ok((from, vni, mtu, part.clone().skip(vxlan::LEN)))
        });
        match opened {
            Ok((from, vni, mtu, frame)) => self.join(now, (from, vni), mtu, frame, Sums::Guessed),
            // Only what is no VXLAN is looked at again.
            Err(DropReason::VxlanFlags) => self.open_sealed(now, received.from, part),
            Err(reason) => self.shared.counters.refused(Way::UnderlayIn, reason),
        }
    }

    /// Opens one sealed datagram where it lies, and offers its frame to the joiner.
    fn open_sealed(&mut self, now: Instant, at: SocketAddr, part: &Part) {
        let Range { start, end } = part.frame.clone();
        let datagram = self.received.arena_mut().get_mut(start as usize..end as usize).unwrap_or_default();
        let refuse = |reason| self.shared.counters.refused(Way::UnderlayIn, reason);
        if datagram.first() != Some(&SEALED) {
            return refuse(DropReason::VxlanFlags);
        }
        let tables = self.switch.tables();
        match sealed::open(tables, datagram) {
            Ok(opened) => {
                if opened.first {
                    self.output.sessions.hear(opened.from);
                }
                if opened.newest && tables.remote(opened.from).is_none_or(|remote| remote.addr != at) {
                    self.output.sessions.find(opened.from, at);
                }
                let Some(OpenedFrame { vni, mtu, partial }) = opened.frame else { return };
                let sums = if partial { Sums::Partial } else { Sums::Whole };
                let frame = start + FRAME_START as u32..end - TAG_LEN as u32;
                self.join(now, (opened.from, vni), mtu, Part { frame, gso_size: 0 }, sums);
            }
            Err(reason) => {
                if let (DropReason::UnknownSession, Some(from)) = (reason, tables.sender(at.ip())) {
                    self.output.sessions.lose(from);
                }
                refuse(reason);
            }
        }
    }

    fn join(&mut self, now: Instant, from: (RemoteIndex, Vni), mtu: u16, frame: Part, sums: Sums) {
        match self.joiner.push_as(self.received.arena(), from, mtu, frame.clone(), sums) {
            Ok(Intake::Taken) => {}
            Ok(Intake::Full) => {
                self.forward_joined(now);
                self.joiner.clear();
                let again = self.joiner.push_as(self.received.arena(), from, mtu, frame, sums);
                let refuse = |reason| self.shared.counters.refused(Way::UnderlayIn, reason);
                again.err().into_iter().for_each(refuse);
            }
            Err(reason) => self.shared.counters.refused(Way::UnderlayIn, reason),
        }
    }

    /// Decides about each frame from the underlay and writes it to its ports; never to another host.
    fn forward_joined(&mut self, now: Instant) {
        self.joiner.finish();
        let arena = self.received.arena();
        let mut taken = 0;
        for joined in self.joiner.joined() {
            let segments = joined.wire_segments();
            taken += segments;
            let from = Port::Remote(joined.from);
            match self.switch.forward(now, from, joined.vni, self.joiner.start(joined, arena)) {
                Verdict::Unicast(Port::Tap(to)) => {
                    self.output.deliver_joined(to, &self.joiner, joined, arena)
                }
                Verdict::Flood(reach) => {
                    let mut destinations = 0;
                    for to in self.switch.flood(from, joined.vni, reach).0 {
                        self.output.deliver_joined(to, &self.joiner, joined, arena);
                        destinations += 1;
                    }
                    self.shared.counters.flooded(segments, destinations);
                }
                Verdict::Unicast(Port::Remote(_)) | Verdict::Hairpin | Verdict::Gateway => {
                    self.shared.counters.dropped(DropReason::SplitHorizon, segments);
                }
                Verdict::Drop(reason) => self.shared.counters.dropped(reason, segments),
            }
            if joined.segments > 1 {
                self.shared.counters.super_frames_joined(1);
            }
        }
        self.shared.counters.segments(Way::UnderlayIn, taken);
        self.output.finish();
    }
}

/// Who sent the datagrams of one receive: they share their sender and where they were sent to, so a network is looked up once.
#[derive(Default)]
struct Source(Option<(Vni, RemoteIndex, u16)>);

impl Source {
    /// The sender on `vni`, whose frames may come in clear, and the MTU of that network.
    fn of(
        &mut self,
        tables: &Tables,
        received: &Received,
        vni: Vni,
    ) -> Result<(RemoteIndex, u16), DropReason> {
        if let Some((_, from, mtu)) = self.0.filter(|known| known.0 == vni) {
            return Ok((from, mtu));
        }
        let ip = received.from.ip();
        let from = tables.source(ip, vni)?;
        let network = tables.network(vni).ok_or(DropReason::UnknownVni)?;
        if !tables.takes_clear(network, ip, received.to) {
            return Err(DropReason::PlainOnSealed);
        }
        self.0 = Some((vni, from, network.mtu()));
        Ok((from, network.mtu()))
    }
}
