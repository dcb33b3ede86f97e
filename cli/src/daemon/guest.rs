//! Who may use the socket: root, and the members of the socket's group. The kernel asks for the same, by the mode of the
//! file; here it is asked again, since modes are changed and sockets handed on.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::io::credentials::peer_groups;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::{Failure, code};

/// Callers of one kind that are answered at the same time: root, and beside it members.
const MOST: usize = 256;
/// Callers that are told at the same time that they are none.
const MOST_REFUSED: usize = 16;

/// A place for one caller, given back when it is dropped.
pub(super) type Seat = OwnedSemaphorePermit;

/// What becomes of a caller.
pub(super) enum Welcome {
    /// It is answered.
    In(Seat),
    /// It is told why not.
    Out(Failure, Seat),
    /// There is no room even for that.
    Away,
}

/// The door of one socket.
pub(super) struct Guests {
    socket: PathBuf,
    root: Arc<Semaphore>,
    members: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Guests {
    pub(super) fn new(socket: PathBuf) -> Self {
        let places = |most| Arc::new(Semaphore::new(most));
        Guests { socket, root: places(MOST), members: places(MOST), refused: places(MOST_REFUSED) }
    }

    /// Judges who connected. Members cannot take the places of root.
    pub(super) fn judge(&self, stream: &UnixStream) -> Welcome {
        let places = match who(stream, &self.socket) {
            Ok(Who::Root) => &self.root,
            Ok(Who::Member) => &self.members,
            Ok(Who::Stranger(uid)) => return self.refuse(stranger(uid)),
            Err(error) => return self.refuse(Failure::internal(error)),
        };
        match places.clone().try_acquire_owned() {
            Ok(seat) => Welcome::In(seat),
            Err(_) => self.refuse(busy()),
        }
    }

    fn refuse(&self, failure: Failure) -> Welcome {
        match self.refused.clone().try_acquire_owned() {
            Ok(seat) => Welcome::Out(failure, seat),
            Err(_) => Welcome::Away,
        }
    }
}

enum Who {
    Root,
    Member,
    Stranger(u32),
}

fn who(stream: &UnixStream, socket: &Path) -> io::Result<Who> {
    let peer = stream.peer_cred()?;
    if peer.uid() == 0 {
        return Ok(Who::Root);
    }
    // Asked each time: the group may be changed while the daemon runs.
    let group = std::fs::metadata(socket)?.gid();
    let groups = peer_groups(stream.as_fd())?;
    Ok(if is_member(&peer, &groups, group) { Who::Member } else { Who::Stranger(peer.uid()) })
}

fn is_member(peer: &UCred, groups: &[u32], group: u32) -> bool {
    peer.gid() == group || groups.contains(&group)
}

fn stranger(uid: u32) -> Failure {
    Failure::new(code::NOT_PERMITTED, format!("user {uid} is neither root nor in the group of the socket"))
        .hint("use root, or have yourself added to the group that `launch --group` names")
}

fn busy() -> Failure {
    Failure::new(code::BUSY, format!("{MOST} callers are being answered already"))
        .hint("see what holds its connections to the socket open")
}
