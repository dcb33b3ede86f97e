//! Who is at the other end of a socket of this machine.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// linux: asm-generic/socket.h, since Linux 4.13.
const SO_PEERGROUPS: libc::c_int = 59;
/// What a process may have at most (linux/limits.h, `NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// More than most have: for others the kernel is asked twice.
const GROUPS_USUAL: usize = 64;

/// The supplementary groups that the peer of a unix stream socket had when it connected.
///
/// # Errors
/// The descriptor is no such socket, or not connected.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    match read(socket, GROUPS_USUAL) {
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => read(socket, GROUPS_MAX),
        read => read,
    }
}

fn read(socket: BorrowedFd<'_>, room: usize) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; room];
    let mut len = (room * size_of::<libc::gid_t>()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which is what `groups` holds, and says how many it wrote.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(len as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_has_the_groups_of_its_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(|g| g.as_raw()).collect();
        let mut told = peer_groups(near.as_fd()).unwrap();
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
        let (read, _write) = io::pipe().unwrap();
        assert!(peer_groups(read.as_fd()).is_err(), "a pipe has no peer");
        if own.len() > 1 {
            assert_eq!(super::read(near.as_fd(), 1).unwrap_err().raw_os_error(), Some(libc::ERANGE));
        }
    }
}
