//! Keeps the sessions of a host: between what the control plane says of peers, the handshakes, and the tables of the workers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::noise::StaticKey;
use super::psk::Psk;
use super::sealed::keepalive;
use super::sessions::{self, Sessions};
use super::suite::Suite;
use crate::counters::DropReason;
use crate::path::Transmit;
use crate::seam::Event;
use crate::tables::Registry;
use crate::types::{PeerId, PeerKeys};
use crate::wire::sealed::CONTROL_LANE;

/// So long after its start a host begins a session with every peer that it reaches, without waiting for frames: containers
/// may be in the middle of something with theirs.
const EAGER: Duration = Duration::from_secs(5);

/// Who this host is in its sessions.
pub struct Identity {
    /// Its private X25519 key.
    pub key: StaticKey,
    /// The incarnation of its host record, by which peers tell its later handshakes from its earlier ones.
    pub start: u64,
    /// The suites it seals with, best first.
    pub suites: Vec<Suite>,
    /// The pre-shared keys it takes, newest first; in an open cluster [`Psk::open`].
    pub psks: Vec<Psk>,
    /// The age at which sessions are renewed, [`sessions::REKEY_AFTER`] but for tests.
    pub renew_after: Duration,
    /// From the system's generator, and used for nothing else.
    pub seed: [u8; 32],
}

/// The sessions of this host.
pub struct Keeper {
    sessions: Sessions,
    suites: Vec<Suite>,
    eager_until: Instant,
    /// Where each peer is; handshakes and keepalives go there.
    addrs: BTreeMap<PeerId, SocketAddr>,
    /// What was told last of each peer: whether there is a session.
    told: BTreeMap<PeerId, bool>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    /// When [`Keeper::handle_timeout`] has something to do; none when it is not known.
    timeout: Option<Option<Instant>>,
}

impl Keeper {
    /// Without peers.
    pub fn new(now: Instant, own: Identity) -> Self {
        let mut sessions = Sessions::new(now, own.key, own.start, own.seed);
        sessions.set_psks(now, own.psks);
        sessions.set_renewal(own.renew_after);
        Keeper {
            sessions,
            suites: own.suites,
            eager_until: now + EAGER,
            addrs: BTreeMap::new(),
            told: BTreeMap::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            timeout: None,
        }
    }

    /// The pre-shared keys that are taken from now on, newest first.
    pub fn set_psks(&mut self, now: Instant, psks: Vec<Psk>) {
        self.timeout = None;
        self.sessions.set_psks(now, psks);
    }

    /// The host goes on under a higher incarnation.
    pub fn raise(&mut self, start: u64) {
        self.sessions.raise(start);
    }

    /// A host with which there may be sessions; without keys there are none.
    pub fn set_peer(&mut self, peer: PeerId, keys: Option<&PeerKeys>) {
        self.timeout = None;
        let Some(keys) = keys else { return self.sessions.remove_peer(peer) };
        let number = |number: &u16| u8::try_from(*number).ok().and_then(Suite::of_number);
        let suites: Vec<Suite> = keys.suites.iter().filter_map(number).collect();
        self.sessions.set_peer(peer, keys.noise, Suite::choose(&self.suites, &suites));
        self.sessions.set_addr(peer, self.addrs.get(&peer).copied());
    }

    /// The host is no peer any more.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.timeout = None;
        self.addrs.remove(&peer);
        self.sessions.remove_peer(peer);
    }

    /// Where the peer is now; none when no address of it answers.
    pub fn set_path(&mut self, peer: PeerId, addr: Option<SocketAddr>) {
        self.timeout = None;
        match addr {
            Some(addr) => self.addrs.insert(peer, addr),
            None => self.addrs.remove(&peer),
        };
        self.sessions.set_addr(peer, addr);
    }

    /// The peer is reached. In its first moments the host does not wait for frames to begin a session.
    pub fn greet(&mut self, now: Instant, peer: PeerId) {
        if now < self.eager_until {
            self.want(now, peer);
        }
    }

    /// Shows a peer with whom there is a session where this host is.
    pub fn show(&mut self, peer: PeerId) {
        let sealed = self.sessions.current(peer).and_then(|epoch| keepalive(epoch, CONTROL_LANE));
        let transmit = self.addrs.get(&peer).zip(sealed).map(|(&to, contents)| Transmit { to, contents });
        self.transmits.extend(transmit);
    }

    /// There is no session to seal a frame for this peer in.
    pub fn want(&mut self, now: Instant, peer: PeerId) {
        self.timeout = None;
        self.sessions.want(now, peer);
    }

    /// A sealed frame of no known session came from the address of this peer.
    pub fn want_anew(&mut self, now: Instant, peer: PeerId) {
        self.timeout = None;
        self.sessions.want_anew(now, peer);
    }

    /// The first frame of a session with this peer was opened.
    pub fn handle_heard(&mut self, now: Instant, peer: PeerId) {
        self.timeout = None;
        self.sessions.handle_heard(now, peer);
    }

    /// Takes a datagram of type 1, 2 or 3.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        self.sessions.handle_datagram(now, from, datagram)?;
        self.timeout = None;
        Ok(())
    }

    /// Renews and ends what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.timeout = None;
        self.sessions.handle_timeout(now);
    }

    /// When [`Keeper::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        *self.timeout.get_or_insert_with(|| self.sessions.poll_timeout())
    }

    /// Puts what changed into the tables; true when anything did. The tables are to be published before what
    /// [`Keeper::poll_transmit`] then has is sent: the answer may come at once.
    pub fn drain(&mut self, registry: &mut Registry) -> bool {
        let mut changed = false;
        while let Some(event) = self.sessions.poll_event() {
            changed = true;
            match event {
                sessions::Event::Opens(peer, epoch) => registry.open_session(peer, epoch),
                sessions::Event::Ends(number) => registry.end_session(number),
                sessions::Event::Seals(peer, epoch) => {
                    if self.told.insert(peer, true) != Some(true) {
                        self.events.push_back(Event::SessionUp { peer, suite: epoch.suite });
                    }
                    self.show(peer);
                    registry.seal_in(peer, Some(epoch));
                }
                sessions::Event::Sealless(peer) => {
                    registry.seal_in(peer, None);
                    if self.told.remove(&peer) == Some(true) {
                        self.tell_down(peer, "its session has ended");
                    }
                }
                sessions::Event::Silent(peer) => {
                    if self.told.insert(peer, false) != Some(false) {
                        self.tell_down(
                            peer,
                            "it does not answer handshakes: another secret, perhaps, or none",
                        );
                    }
                }
            }
        }
        changed
    }

    fn tell_down(&mut self, peer: PeerId, reason: &str) {
        self.events.push_back(Event::SessionDown { peer, reason: reason.to_owned() });
    }

    /// The next datagram to send from the data port.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.sessions.poll_transmit().or_else(|| self.transmits.pop_front())
    }

    /// The next report.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
