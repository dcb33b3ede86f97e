//! What each worker counted, and every reason for which a frame is dropped.
//!
//! A worker owns its [`Counters`] and is their only writer; anybody may read them. A [`Snapshot`] sums them.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Declares the reasons once: variant, name for people and machines, meaning.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame or a datagram was not passed on. Names are stable: `status` and scripts rely on them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The name in `status` and in JSON, snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than an Ethernet header.
    Runt = "runt",
    /// The frame ends inside an 802.1Q tag.
    TruncatedTag = "truncated_tag",
    /// The datagram is shorter than a VXLAN header.
    TruncatedVxlan = "truncated_vxlan",
    /// The datagram is shorter than a probe.
    TruncatedProbe = "truncated_probe",
    /// The kernel had more of a datagram or frame than the buffer could hold; the rest is lost.
    TruncatedReceive = "truncated_receive",
    /// The source address is a group address or zero: no station has such an address.
    GroupSource = "group_source",
    /// The source address is the gateway's, which no station may use.
    GatewaySource = "gateway_source",
    /// The destination is a group address that bridges never forward (IEEE 802.1Q section 8.6.3).
    ReservedGroup = "reserved_group",
    /// This host has no network with this VNI.
    UnknownVni = "unknown_vni",
    /// The datagram comes from an address that is no peer's and no VTEP's.
    UnknownSource = "unknown_source",
    /// The sender is known, but takes no part in this network.
    NotOnNetwork = "not_on_network",
    /// A VXLAN header without the I flag (RFC 7348 section 5).
    VxlanFlags = "vxlan_flags",
    /// VXLAN-GPE, which may carry other things than Ethernet.
    Gpe = "gpe",
    /// A datagram on the data port that is neither VXLAN nor of a type this host knows.
    NotOurs = "not_ours",
    /// An answer to no probe of ours, or one that came too late.
    StaleProbe = "stale_probe",
    /// More probes than are answered in a second.
    ProbeLimit = "probe_limit",
    /// The frame is larger than the network's MTU and cannot be cut.
    TooBig = "too_big",
    /// The virtio-net header contradicts the frame.
    BadOffload = "bad_offload",
    /// The destination is behind the port the frame came from.
    HairpinSamePort = "hairpin_same_port",
    /// From one remote for another: hosts reach each other directly, nobody relays.
    SplitHorizon = "split_horizon",
    /// The destination is on a host to which no data path is known.
    NoPath = "no_path",
    /// More floods from one port than are let through.
    StormLimit = "storm_limit",
    /// The port is not, or no longer, on this host.
    PortGone = "port_gone",
    /// The device took no more frames.
    TapFull = "tap_full",
    /// The socket took no more datagrams.
    SocketFull = "socket_full",
    /// The kernel refused to send; the worker counts and goes on.
    SendFailed = "send_failed",
    /// The kernel refused to take a frame on a device; the worker counts and goes on.
    WriteFailed = "write_failed",
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// Frames, bytes and batches that went one way. A super-frame counts as one frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Frames (TAP) or datagrams (underlay).
    pub frames: u64,
    /// Their bytes, without virtio-net, UDP and IP headers of ours.
    pub bytes: u64,
    /// Wake-ups (in) or bursts (out) that carried them.
    pub batches: u64,
}

/// Four ways a frame can go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Way {
    /// Read from a TAP.
    TapIn,
    /// Written to a TAP.
    TapOut,
    /// Received from the underlay.
    UnderlayIn,
    /// Sent to the underlay.
    UnderlayOut,
}

/// The counters of one worker. One writer, any number of readers; relaxed, so totals may be a moment apart.
#[derive(Debug)]
pub struct Counters {
    cells: CachePadded<[AtomicU64; CELLS]>,
}

const WAYS: usize = 4;
const CUT: usize = WAYS * 3;
const JOINED: usize = CUT + 1;
const DROPS: usize = JOINED + 1;
const CELLS: usize = DROPS + DropReason::COUNT;

impl Default for Counters {
    fn default() -> Self {
        Counters { cells: CachePadded::new([const { AtomicU64::new(0) }; CELLS]) }
    }
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one batch that went `way`.
    pub fn batch(&self, way: Way, frames: u64, bytes: u64) {
        let at = way as usize * 3;
        self.add(at, frames);
        self.add(at + 1, bytes);
        self.add(at + 2, 1);
    }

    /// Counts frames that were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, frames: u64) {
        self.add(DROPS + reason as usize, frames);
    }

    /// Counts super-frames that were cut into datagrams.
    pub fn super_frames_cut(&self, frames: u64) {
        self.add(CUT, frames);
    }

    /// Counts super-frames that were joined from datagrams.
    pub fn super_frames_joined(&self, frames: u64) {
        self.add(JOINED, frames);
    }

    /// The counters as they stand.
    pub fn snapshot(&self) -> Snapshot {
        let read = |at: usize| self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed));
        let traffic = |way: Way| {
            let at = way as usize * 3;
            Traffic { frames: read(at), bytes: read(at + 1), batches: read(at + 2) }
        };
        Snapshot {
            tap_in: traffic(Way::TapIn),
            tap_out: traffic(Way::TapOut),
            underlay_in: traffic(Way::UnderlayIn),
            underlay_out: traffic(Way::UnderlayOut),
            super_frames_cut: read(CUT),
            super_frames_joined: read(JOINED),
            drops: std::array::from_fn(|reason| read(DROPS + reason)),
        }
    }

    /// Adds without a locked instruction: there is one writer.
    fn add(&self, at: usize, count: u64) {
        if let Some(cell) = self.cells.get(at) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
        }
    }
}

/// What one worker carried for one port. One writer, any number of readers.
#[derive(Default, Debug)]
pub struct PortCounters {
    cells: CachePadded<[AtomicU64; 4]>,
}

/// Frames and bytes of one port, seen from its container. A super-frame counts as one frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortTotals {
    /// Frames that the container sent.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that the container was given.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

impl PortCounters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts frames that the container sent.
    pub fn add_in(&self, frames: u64, bytes: u64) {
        self.add(0, frames);
        self.add(1, bytes);
    }

    /// Counts frames that the container was given.
    pub fn add_out(&self, frames: u64, bytes: u64) {
        self.add(2, frames);
        self.add(3, bytes);
    }

    /// The counters as they stand.
    pub fn totals(&self) -> PortTotals {
        let [frames_in, bytes_in, frames_out, bytes_out] =
            std::array::from_fn(|at| self.cells[at].load(Ordering::Relaxed));
        PortTotals { frames_in, bytes_in, frames_out, bytes_out }
    }

    fn add(&self, at: usize, count: u64) {
        let cell = &self.cells[at];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}

impl PortTotals {
    /// Adds what another worker carried.
    pub fn merge(&mut self, other: &PortTotals) {
        self.frames_in = self.frames_in.wrapping_add(other.frames_in);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.frames_out = self.frames_out.wrapping_add(other.frames_out);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
    }
}

/// Counters read at one moment; snapshots of several workers add up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Read from TAPs.
    pub tap_in: Traffic,
    /// Written to TAPs.
    pub tap_out: Traffic,
    /// Received from the underlay.
    pub underlay_in: Traffic,
    /// Sent to the underlay.
    pub underlay_out: Traffic,
    /// Super-frames cut into datagrams.
    pub super_frames_cut: u64,
    /// Super-frames joined from datagrams.
    pub super_frames_joined: u64,
    drops: [u64; DropReason::COUNT],
}

impl Default for Snapshot {
    fn default() -> Self {
        Counters::new().snapshot()
    }
}

impl Snapshot {
    /// How many frames were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or_default()
    }

    /// Reasons that were met at least once, with their counts, in the order of [`DropReason::ALL`].
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason))).filter(|&(_, count)| count > 0)
    }

    /// Adds what another worker counted.
    pub fn merge(&mut self, other: &Snapshot) {
        self.tap_in.merge(other.tap_in);
        self.tap_out.merge(other.tap_out);
        self.underlay_in.merge(other.underlay_in);
        self.underlay_out.merge(other.underlay_out);
        self.super_frames_cut = self.super_frames_cut.wrapping_add(other.super_frames_cut);
        self.super_frames_joined = self.super_frames_joined.wrapping_add(other.super_frames_joined);
        for (sum, count) in self.drops.iter_mut().zip(other.drops) {
            *sum = sum.wrapping_add(count);
        }
    }
}

impl Traffic {
    fn merge(&mut self, other: Traffic) {
        self.frames = self.frames.wrapping_add(other.frames);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.batches = self.batches.wrapping_add(other.batches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_cell() {
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        let counters = Counters::new();
        for (count, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, count);
            counters.dropped(reason, count as u64);
        }
        let snapshot = counters.snapshot();
        assert!(DropReason::ALL.iter().enumerate().all(|(count, &r)| snapshot.dropped(r) == count as u64));
        assert_eq!(snapshot.drops().count(), DropReason::COUNT - 1);
    }

    #[test]
    fn snapshots_of_workers_add_up() {
        let (a, b) = (Counters::new(), Counters::new());
        a.batch(Way::TapIn, 3, 300);
        b.batch(Way::TapIn, 1, 50);
        b.batch(Way::UnderlayOut, 2, 20);
        b.super_frames_cut(1);
        a.super_frames_joined(4);
        let mut sum = Snapshot::default();
        sum.merge(&a.snapshot());
        sum.merge(&b.snapshot());
        assert_eq!(sum.tap_in, Traffic { frames: 4, bytes: 350, batches: 2 });
        assert_eq!(sum.underlay_out, Traffic { frames: 2, bytes: 20, batches: 1 });
        assert_eq!((sum.super_frames_cut, sum.super_frames_joined), (1, 4));
    }
}
