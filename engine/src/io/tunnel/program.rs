//! The program at the entrance of the device: out of the interface that the first four bytes name.
//!
//! Attached by TCX (since Linux 6.6), so that it is gone with its descriptor. Instructions: Linux
//! Documentation/bpf/standardization/instruction-set.rst; `struct __sk_buff`, helpers and calls: linux/bpf.h.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
/// `bpf_redirect_neigh(ifindex, params, plen, flags)`: without parameters the route is looked up by the packet.
const REDIRECT_NEIGH: i32 = 152;
/// `struct __sk_buff`: where the packet begins and ends.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
/// linux/pkt_cls.h: `TC_ACT_SHOT`.
const DROP: i32 = 2;

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const ADD_IMMEDIATE: u8 = 0x07;
const JUMP_IF_GREATER: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

const PROGRAM: [Instruction; 13] = [
    op(LOAD_WORD, 2, 1, SKB_DATA, 0),
    op(LOAD_WORD, 3, 1, SKB_DATA_END, 0),
    op(MOVE, 4, 2, 0, 0),
    op(ADD_IMMEDIATE, 4, 0, 0, 4),
    // Shorter than an interface index: to the drop at the end.
    op(JUMP_IF_GREATER, 4, 3, 6, 0),
    op(LOAD_WORD, 1, 2, 0, 0),
    op(MOVE_IMMEDIATE, 2, 0, 0, 0),
    op(MOVE_IMMEDIATE, 3, 0, 0, 0),
    op(MOVE_IMMEDIATE, 4, 0, 0, 0),
    op(CALL, 0, 0, 0, REDIRECT_NEIGH),
    op(EXIT, 0, 0, 0, 0),
    op(MOVE_IMMEDIATE, 0, 0, 0, DROP),
    op(EXIT, 0, 0, 0, 0),
];

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The start of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct Link {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

/// Loads the program and puts it at the entrance of the interface; it stays there as long as the descriptor is open.
///
/// Errors: `EPERM`, no CAP_BPF and CAP_NET_ADMIN; `EINVAL`, a kernel without TCX.
pub(super) fn attach(ifindex: u32) -> io::Result<OwnedFd> {
    let program = load()?;
    let mut link = Link {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_TCX_INGRESS,
        ..Link::default()
    };
    bpf(BPF_LINK_CREATE, &mut link)
}

fn load() -> io::Result<OwnedFd> {
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: PROGRAM.len() as u32,
        insns: PROGRAM.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        expected_attach_type: BPF_TCX_INGRESS,
        ..Load::default()
    };
    load.prog_name[..11].copy_from_slice(b"meshnet_out");
    bpf(BPF_PROG_LOAD, &mut load)
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let size = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: `attributes` is the start of a `union bpf_attr` for this command, alive and as long as is said; what it
    // points to is static.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
