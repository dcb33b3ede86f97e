//! Links, addresses and routes of one network namespace, by rtnetlink (rtnetlink(7)).
//!
//! A [`Netlink`] speaks for the namespace in which it was opened, from whatever thread, and pins it: open, use, let
//! go. Requests are synchronous, because the kernel has done the work when `send` returns; the crates
//! of rtnetlink write the requests, and replies are read attribute by attribute, so that one that is
//! unknown or has grown does no harm.

mod address;
mod changes;
mod link;
mod route;

use std::cell::Cell;
use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage, NlaBuffer, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use address::Address;
pub use changes::Changes;
pub use link::{Link, LinkChange, LinkDrops, TunSettings, VxlanSpec};
pub use route::{Hop, Route};

use super::netns::{Netns, NetnsError};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("cannot {action}: {source}{}", .detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// What was tried.
        action: String,
        /// Its error number.
        source: io::Error,
        /// Its explanation, if it gave one.
        detail: Option<String>,
    },
    /// The socket failed.
    #[error("cannot {action}: netlink: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The reply could not be read.
    #[error("cannot {action}: the kernel's reply is malformed")]
    Malformed {
        /// What was tried.
        action: String,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

impl NetlinkError {
    /// The error number of the kernel, if it was the kernel that refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            NetlinkError::Io { .. } | NetlinkError::Malformed { .. } | NetlinkError::Netns(_) => None,
        }
    }
}

/// How often a listing is begun again because something changed under it.
const MAX_ATTEMPTS: usize = 8;
/// linux/netlink.h, `NLMSGERR_ATTR_MSG`: the explanation of an error.
const ERROR_TEXT: u16 = 1;

/// A connection to the kernel.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: Cell<u32>,
}

impl Netlink {
    /// Opens a connection for the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError::Io { action: "open a connection".to_owned(), source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Explanations and short errors are a convenience: do without on a kernel that has none.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Netlink { socket, sequence: Cell::new(0) })
    }

    /// Opens a connection for `netns`.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns.run(Self::open)?
    }

    /// Sends a request that changes something and waits for its acknowledgement.
    fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl Fn() -> String,
    ) -> Result<(), NetlinkError> {
        self.request(message, NLM_F_ACK | flags, &action, |_| ()).map(|_| ())
    }

    /// Sends a request that makes something new.
    fn create(&self, message: RouteNetlinkMessage, action: impl Fn() -> String) -> Result<(), NetlinkError> {
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, action)
    }

    /// Lists things: `read` makes one of each message, or none of what it does not want.
    fn list<T>(
        &self,
        message: &RouteNetlinkMessage,
        action: impl Fn() -> String,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut found = Vec::new();
            let whole =
                self.request(message.clone(), NLM_F_DUMP, &action, |body| found.extend(read(body)))?;
            if whole {
                return Ok(found);
            }
        }
        Err(NetlinkError::Io { action: action(), source: io::ErrorKind::Interrupted.into() })
    }

    /// Sends a request and reads until its end. Returns false when a listing was disturbed.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: &impl Fn() -> String,
        mut body: impl FnMut(&[u8]),
    ) -> Result<bool, NetlinkError> {
        let failed = |source| NetlinkError::Io { action: action(), source };
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        self.socket.send(&serialize(message, flags, sequence), 0).map_err(failed)?;
        let mut whole = true;
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(failed)?;
            for reply in replies(&bytes) {
                let reply = reply.ok_or_else(|| NetlinkError::Malformed { action: action() })?;
                if reply.sequence_number() != sequence {
                    continue;
                }
                whole &= reply.flags() & NLM_F_DUMP_INTR == 0;
                match reply.message_type() {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return outcome(&reply, action).map(|()| whole),
                    _ => body(reply.payload()),
                }
                if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                    return Ok(whole);
                }
            }
        }
    }
}

fn serialize(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of one read, aligned to 4 bytes; None once where one is cut short.
fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Option<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Ok(reply) = NetlinkBuffer::new_checked(bytes) else {
            bytes = &[];
            return Some(None);
        };
        bytes = bytes.get((reply.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        Some(Some(reply))
    })
}

/// Reads `nlmsgerr` (linux/netlink.h): a negative error number or 0, the header of the request, explanations.
fn outcome(reply: &NetlinkBuffer<&[u8]>, action: &impl Fn() -> String) -> Result<(), NetlinkError> {
    let payload = reply.payload();
    let code = payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    match code {
        None => Err(NetlinkError::Malformed { action: action() }),
        Some(0) => Ok(()),
        Some(code) => {
            let explained = reply.flags() & NLM_F_ACK_TLVS != 0;
            let detail = payload.get(20..).filter(|_| explained).and_then(|rest| text(rest, ERROR_TEXT));
            let source = io::Error::from_raw_os_error(code.saturating_neg());
            Err(NetlinkError::Refused { action: action(), source, detail })
        }
    }
}

/// The attributes of a message, up to the first that is cut short.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn text(bytes: &[u8], kind: u16) -> Option<String> {
    attributes(bytes).find(|attribute| attribute.kind() == kind).map(|attribute| string(attribute.value()))
}

/// A string as the kernel writes it, with a zero at its end.
fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
