//! A queue of a TAP device: frames in and out of a network namespace, each behind a virtio-net header.
//!
//! The device is opened in the namespace of the calling thread. A descriptor that is opened outside and whose
//! device is then moved does not pin the new namespace; one opened inside does.

#![allow(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "io: /dev/net/tun is a file")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Length of the virtio-net header before every frame (linux/virtio_net.h, `struct virtio_net_hdr`), bytes.
pub const VNET_HEADER_LEN: usize = 10;
/// The longest interface name in bytes: IFNAMSIZ without its final zero (linux/if.h).
pub const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

// linux/if_tun.h
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TUN_EXCL: libc::c_int = 0x8000;
const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;
/// Since Linux 6.17.
const TUN_F_UDP_TUNNEL_GSO: libc::c_uint = 0x80;

/// What is asked of the kernel, best first: the two USO flags only go together (since Linux 6.2).
const OFFLOADS: [(libc::c_uint, &[&str], &str); 3] = [
    (
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
        &["csum", "tso4", "tso6", "uso4", "uso6"],
        "uso",
    ),
    (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, &["csum", "tso4", "tso6"], "tso"),
    (TUN_F_CSUM, &["csum"], "csum"),
];

/// What the kernel may leave undone in the frames it hands over, and takes undone from us.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offloads {
    /// Agreed: `csum`, `tso4`, `tso6`, `uso4`, `uso6`.
    pub granted: Vec<&'static str>,
    /// Refused, each with what the kernel said.
    pub refused: Vec<(&'static str, String)>,
}

/// Why a TAP device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN driver, or the file is missing here.
    #[error("cannot open /dev/net/tun: {0}; load the module `tun` or make the device file")]
    NoTun(io::Error),
    /// The calling process may not make network devices.
    #[error("no permission to {action} the TAP device {name}: root is needed")]
    Permission {
        /// What was tried.
        action: &'static str,
        /// The interface.
        name: String,
    },
    /// Another descriptor is attached: the process before this one may still be ending. Try again.
    #[error("the TAP device {name} is in use by another process; try again when that has ended")]
    Busy {
        /// The interface.
        name: String,
    },
    /// No interface of this name can exist.
    #[error("{name:?} is not an interface name: 1 to 15 bytes, without `/`, `:`, `%` or white space")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// Anything else.
    #[error("cannot {action} the TAP device {name}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl TapError {
    /// True when the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, TapError::Busy { .. })
    }

    fn new(action: &'static str, name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::Permission { action, name },
            Some(libc::EBUSY) => TapError::Busy { name },
            _ => TapError::Io { action, name, source },
        }
    }
}

/// One queue of a TAP device. Dropping the last queue deletes the device, unless it is persistent.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

impl Tap {
    /// Makes a new device in the namespace of the calling thread, with one queue, down and not persistent.
    /// A name that is in use is [`TapError::Busy`].
    pub fn create(name: &str, multi_queue: bool) -> Result<Self, TapError> {
        Self::attach(name, flags(multi_queue) | IFF_TUN_EXCL, "create")
    }

    /// Opens a queue of an existing device in the namespace of the calling thread. `multi_queue` must be as the
    /// device was made; a single-queue device with a live descriptor, or too many queues, is
    /// [`TapError::Busy`]. A device that does not exist would be made.
    pub fn open(name: &str, multi_queue: bool) -> Result<Self, TapError> {
        Self::attach(name, flags(multi_queue), "open")
    }

    fn attach(name: &str, flags: libc::c_int, action: &'static str) -> Result<Self, TapError> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        let tap = Tap { fd: open_tun(name)? };
        // SAFETY: the request points to a live `ifreq`, which is what TUNSETIFF reads and writes.
        let status = unsafe { libc::ioctl(tap.fd.as_raw_fd(), TUNSETIFF, &raw mut request) };
        check(status).map_err(|e| TapError::new(action, name, e))?;
        tap.set_header_len(VNET_HEADER_LEN, name)?;
        Ok(tap)
    }

    fn set_header_len(&self, len: usize, name: &str) -> Result<(), TapError> {
        let size = len as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int from the pointer, which lives through the call.
        let status = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) };
        check(status).map_err(|e| TapError::new("set the header size of", name, e))
    }

    /// Makes it take super-frames of UDP tunnels, each behind a header of
    /// [`VNET_LEN`](crate::offload::tunnel::VNET_LEN) bytes. `name` is told in errors. Before Linux 6.17 the
    /// kernel refuses.
    pub fn carry_tunnels(&self, name: &str) -> Result<(), TapError> {
        self.set_header_len(crate::offload::tunnel::VNET_LEN, name)?;
        let bits = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6 | TUN_F_UDP_TUNNEL_GSO;
        self.set_offloads(bits).map_err(|e| TapError::new("offload tunnels on", name, e))
    }

    /// Another descriptor of the same queue.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Tap { fd: self.fd.try_clone()? })
    }

    /// Asks for every offload, then for fewer, until the kernel agrees. Concerns the whole device.
    pub fn negotiate_offloads(&self) -> Offloads {
        let mut refused = Vec::new();
        for (bits, granted, family) in OFFLOADS {
            match self.set_offloads(bits) {
                Ok(()) => return Offloads { granted: granted.to_vec(), refused },
                Err(e) => refused.push((family, e.to_string())),
            }
        }
        Offloads { granted: Vec::new(), refused }
    }

    fn set_offloads(&self, bits: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(bits)) })
    }

    /// Decides whether the device outlives its descriptors. Concerns the whole device.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its argument by value.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETPERSIST, libc::c_ulong::from(persistent)) })
    }

    /// Reads one virtio-net header and the frame behind it; never blocks. Returns the bytes of both.
    ///
    /// A frame that does not fit is cut short without a word: `buffer` should have room for
    /// [`VNET_HEADER_LEN`] and 65 550 bytes (a 64 KiB packet, Ethernet header and a VLAN tag).
    ///
    /// Errors: `EAGAIN` ([`io::ErrorKind::WouldBlock`]), nothing waits; `EBADFD`, the device is gone, with its
    /// namespace or alone, and will not come back on this descriptor: close it. Others do not occur.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to the start of a live, exclusive slice.
        length(unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
    }

    /// Writes one virtio-net header and frame, gathered from `parts` (at most 1024); never blocks.
    ///
    /// Errors: `EIO`, the interface is down: drop the frame; `EBADFD`, the device is gone: close;
    /// `EAGAIN` or `ENOMEM`, no memory for it now: drop the frame; `EINVAL`, the header contradicts the
    /// frame (offsets behind its end, an unknown GSO type, a frame shorter than an Ethernet header): drop
    /// it, the fault lies with whoever made the header; `EMSGSIZE`, more than 1024 parts.
    pub fn write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let count =
            libc::c_int::try_from(parts.len()).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        // SAFETY: `IoSlice` has the layout of `iovec` (std's guarantee), and the slices live through the call.
        let written = unsafe { libc::writev(self.fd.as_raw_fd(), parts.as_ptr().cast(), count) };
        length(written).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) if parts.len() > MAX_PARTS => io::Error::from_raw_os_error(libc::EMSGSIZE),
            _ => e,
        })
    }
}

/// `UIO_MAXIOV` (linux/uio.h): the kernel takes no more parts in one call.
pub const MAX_PARTS: usize = 1024;

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn flags(multi_queue: bool) -> libc::c_int {
    let base = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue { base | libc::IFF_MULTI_QUEUE } else { base }
}

fn open_tun(name: &str) -> Result<OwnedFd, TapError> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    file.map(OwnedFd::from).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => TapError::new("open /dev/net/tun for", name, e),
        _ => TapError::NoTun(e),
    })
}

/// What `dev_valid_name` of the kernel asks for, and no `%`, which would make the name a pattern.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let bad = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0x0b) || byte.is_ascii_whitespace() || byte == 0;
    (1..=MAX_NAME_LEN).contains(&name.len()) && !matches!(name, "." | "..") && !name.bytes().any(bad)
}

fn request(name: &str) -> Result<libc::ifreq, TapError> {
    if !is_valid_name(name) {
        return Err(TapError::BadName { name: name.to_owned() });
    }
    // SAFETY: `ifreq` is plain old data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_checked_as_the_kernel_does() {
        for name in ["mesh0", "a", "123456789012345", "br-x.y"] {
            assert!(is_valid_name(name), "{name}");
        }
        for name in ["", "1234567890123456", "a b", "a/b", "a:b", "mesh%d", ".", "..", "a\0"] {
            assert!(!is_valid_name(name), "{name}");
        }
    }
}
