//! The control thread: what wakes it, and what it looks up, takes in and sends each time.

#![allow(clippy::disallowed_methods, reason = "the shell reads the clock")]

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::control::Inner;
use super::doors::{Door, doors};
use super::state::Control;
use crate::counters::DropReason;
use crate::io::netlink::{Changes, Netlink};
use crate::io::socket::{DataSocket, RecvBatch};
use crate::io::tunnel::Underlay;
use crate::io::worker::PortGone;
use crate::path::ways::Look;
use crate::session::keeper::Keeper;
use crate::tables::PortIndex;
use crate::wire::{group, probe, sealed};

/// How often learned addresses are aged.
const SWEEP: Duration = Duration::from_secs(10);
/// How often containers are asked again which multicast groups they want.
const ASK: Duration = Duration::from_secs(group::QUERY_INTERVAL_S as u64);
/// IP and UDP headers of a datagram: of IPv4, of IPv6.
const HEADERS: [u32; 2] = [28, 48];
/// Receives of a control socket at a time.
const RECEIVES: usize = 32;

impl Inner {
    /// Runs until the engine stops. `gone` is what workers say of ports, `underlay` the devices that may cut super-frames.
    pub(super) fn run_control(
        &self,
        gone: &Receiver<PortGone>,
        (changes, netlink): (&Changes, &Netlink),
        underlay: Option<&Underlay>,
    ) {
        let mut received = RecvBatch::new(RECEIVES);
        let mut next_sweep = Instant::now() + SWEEP;
        let mut doors = doors(&self.socket, &self.initiations);
        loop {
            if let Err(error) = self.wait(changes, &doors, next_sweep) {
                return tracing::error!("the control thread cannot wait: {error}");
            }
            self.take_gone(gone);
            let now = Instant::now();
            let mut control = self.lock();
            if control.stopping {
                return;
            }
            for door in &mut doors {
                door.read(now, |socket, end| {
                    self.take_batch((socket, end), &mut control, now, &mut received)
                });
            }
            let sweep = now >= next_sweep;
            let anew = self.look_round(&mut control, now, (changes, netlink), sweep);
            control.paths.handle_timeout(now);
            self.send_all(&mut control, now);
            doors.iter_mut().for_each(|door| door.rest(now));
            if sweep {
                control.registry.sweep(now);
                self.ask_again(&mut control, now);
                next_sweep = now + SWEEP;
            }
            // A device's features change without a word, so its ways are looked up now and then.
            if let Some(underlay) = underlay {
                self.find_ways(&mut control, (underlay, netlink), anew);
            }
        }
    }

    /// Waits until there is something to do, at `latest` at most. Whatever woke it is to be looked for.
    fn wait(&self, changes: &Changes, doors: &[Door<'_>; 2], latest: Instant) -> nix::Result<()> {
        let rested = doors.iter().filter_map(Door::rests_until).min();
        let timeout = self.control_timeout(rested.map_or(latest, |end| end.min(latest)));
        // The wake-up is looked at in the place of a socket that rests.
        let [first, second] = doors.each_ref().map(|door| match door.rests_until() {
            None => door.socket.as_fd(),
            Some(_) => self.wake.as_fd(),
        });
        let mut ready =
            [self.wake.as_fd(), changes.as_fd(), first, second].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut ready, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let _ = self.wake.read();
        Ok(())
    }

    /// Closes the ports that workers have found gone.
    fn take_gone(&self, gone: &Receiver<PortGone>) {
        while let Ok(PortGone { index, reason }) = gone.try_recv() {
            let port = self.lock().port_at(index);
            port.into_iter().for_each(|port| self.port_gone(port, &reason));
        }
    }

    /// Looks after sessions, paths and the ways of packets; true when everything is to be looked up anew.
    fn look_round(
        &self,
        control: &mut Control,
        now: Instant,
        (changes, netlink): (&Changes, &Netlink),
        sweep: bool,
    ) -> bool {
        if changes.take() {
            control.ways.handle_change(now);
        }
        // Not everything that changes routes is told.
        let look = control.ways.poll_look(now);
        let anew = sweep || look == Some(Look::All);
        if anew {
            control.hops.forget();
        }
        self.find_sources(control, now, netlink, anew);
        control.run_sessions(now, &self.signals, sweep);
        control.watch_paths(now, &self.signals);
        control.follow_routes(now, netlink, look);
        self.find_rooms(control, netlink, anew);
        anew
    }

    /// Asks those that were opened since the last time, and now and then all that have joined a group.
    fn ask_again(&self, control: &mut Control, now: Instant) {
        let is_due = now >= control.next_ask;
        if is_due {
            control.next_ask = now + ASK;
        }
        for vni in control.registry.vnis() {
            let on_it = control.ports.values_mut().filter(|port| port.vni == vni);
            let new = on_it.filter_map(|port| std::mem::take(&mut port.is_new).then_some(port.index));
            let mut ports: BTreeSet<PortIndex> = new.collect();
            if is_due {
                ports.extend(control.registry.joined_ports(vni));
            }
            self.ask(vni, ports.into_iter().collect());
        }
    }

    /// Looks up through which devices super-frames leave whole, when anything of it may have changed.
    fn find_ways(&self, control: &mut Control, (underlay, netlink): (&Underlay, &Netlink), anyhow: bool) {
        if !std::mem::take(&mut control.ways_stale) && !anyhow {
            return;
        }
        let (destinations, hops) = (control.registry.destinations(), &mut control.hops);
        let ways = underlay.ways(netlink, destinations.into_iter().map(|ip| (ip, hops.to(netlink, ip))));
        if control.registry.set_ways(ways) {
            self.store(&mut control.registry);
        }
    }

    /// Looks up what reaches the VTEPs, which are not probed, when anything of it may have changed.
    fn find_rooms(&self, control: &mut Control, netlink: &Netlink, anyhow: bool) {
        if !std::mem::take(&mut control.rooms_stale) && !anyhow {
            return;
        }
        let room = |ip: IpAddr| {
            let mtu = netlink.mtu_to(ip).ok().flatten()?;
            u16::try_from(mtu.saturating_sub(HEADERS[usize::from(ip.is_ipv6())])).ok()
        };
        let vteps = control.registry.vtep_addresses().into_iter();
        let rooms = vteps.filter_map(|ip| Some((ip, room(ip)?))).collect();
        if control.registry.set_vtep_rooms(rooms) {
            self.store(&mut control.registry);
        }
    }

    /// Looks up which addresses of this host face those that both ends trust, when anything of it may have changed.
    fn find_sources(&self, control: &mut Control, now: Instant, netlink: &Netlink, anyhow: bool) {
        if !std::mem::take(&mut control.trust_stale) && !anyhow {
            return;
        }
        let (candidates, hops) = (control.registry.trusted_candidates().into_iter(), &mut control.hops);
        let sources =
            candidates.filter_map(|ip| Some((ip, hops.source(netlink, self.listen, ip)?))).collect();
        if control.registry.set_sources(sources) {
            control.drain_wishes();
            self.store(&mut control.registry);
        }
        control.paths.set_clear(now, control.registry.clear_sources());
    }

    /// Until when there is nothing to do, `latest` at most.
    fn control_timeout(&self, latest: Instant) -> PollTimeout {
        let next = self.lock().poll_timeout(&self.signals).map_or(latest, |next| next.min(latest));
        let wait = next.saturating_duration_since(Instant::now());
        // Rounded up, else the last millisecond would be spent polling.
        PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    /// Takes one batch of datagrams that are for no worker; false when there was none. After the `end` only the first of each
    /// packet is read: more than one is what a single sender has put together.
    fn take_batch(
        &self,
        (socket, end): (&DataSocket, Instant),
        control: &mut Control,
        now: Instant,
        received: &mut RecvBatch,
    ) -> bool {
        if socket.recv_batch(received).is_err() {
            return false;
        }
        let first = std::ptr::eq(socket, &raw const self.initiations);
        for burst in received.received() {
            for (at, range) in burst.datagrams().enumerate() {
                let bytes =
                    received.arena().get(range.start as usize..range.end as usize).unwrap_or_default();
                let taken = match at == 0 || Instant::now() < end {
                    true => control.handle_datagram(now, (burst.from, first), bytes),
                    false => Err(late(bytes)),
                };
                if let Err(reason) = taken {
                    self.counters.dropped(reason, 1);
                }
            }
        }
        true
    }

    /// Publishes what has changed, then sends what paths and sessions want sent: an answer may come at once.
    fn send_all(&self, control: &mut Control, now: Instant) {
        if control.drain(now) {
            self.store(&mut control.registry);
        }
        let of_keeper = |keeper: &mut Option<Keeper>| keeper.as_mut().and_then(Keeper::poll_transmit);
        while let Some(transmit) = of_keeper(&mut control.keeper).or_else(|| control.paths.poll_transmit()) {
            // What does not leave is not answered: neither a probe nor a handshake needs another report.
            let _ = self.socket.send(transmit.to, &[io::IoSlice::new(&transmit.contents)], None);
        }
    }
}

/// Why a datagram is dropped for which there was no time.
fn late(bytes: &[u8]) -> DropReason {
    match bytes.first() {
        Some(&(sealed::INITIATION | sealed::RESPONSE | sealed::COOKIE)) => DropReason::HandshakeLimit,
        Some(&probe::TYPE) => DropReason::ProbeLimit,
        _ => DropReason::NotOurs,
    }
}
