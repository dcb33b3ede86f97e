//! The classic BPF program that spreads the datagrams of a port over its group of sockets.
//!
//! The kernel runs it for every packet with offset 0 at the UDP payload (linux/net/core/sock_reuseport.c) and takes the
//! result as an index into the group, in the order of binding. A load that fails ends the program with 0.
//!
//! A packet may be many datagrams, put together by whoever sent them in one call or by GRO: of one outer source, but of
//! several flows inside. So workers are chosen by the outer source alone. A sender that keeps each flow at one source
//! port, as this host does and kernel VTEPs do, has each of its flows on one worker, in order; a choice by the frame
//! inside would send the rest of a packet where its first frame belongs.

/// One instruction (linux/filter.h, `struct sock_filter`).
pub(super) type Instruction = libc::sock_filter;

/// First payload byte: set for VXLAN (RFC 7348 section 5), clear for datagrams of our own.
const VXLAN_FLAG: u32 = 0x08;
/// First payload byte of a sealed frame.
const SEALED: u32 = crate::wire::sealed::SEALED as u32;
/// First payload byte of an initiation.
const INITIATION: u32 = crate::wire::sealed::INITIATION as u32;
/// 2^32 divided by the golden ratio: multiplying spreads near values over the upper bits.
const GOLDEN: u32 = 0x9e37_79b1;

// linux/bpf_common.h
const LD_WORD: u16 = 0x20;
const LD_HALF: u16 = 0x28;
const LD_BYTE: u16 = 0x30;
const ALU_MUL: u16 = 0x24;
const ALU_RSH: u16 = 0x74;
const ALU_MOD: u16 = 0x94;
const ALU_XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const RET: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;

/// Where the ethertype of the packet can be loaded from (linux/filter.h, `SKF_AD_OFF + SKF_AD_PROTOCOL`).
const ETHERTYPE: u32 = 0xffff_f000;
/// Where the network header of the packet starts (linux/filter.h, `SKF_NET_OFF`).
const IP: u32 = 0xfff0_0000;
/// The source address of IPv4, the last word of that of IPv6, and the UDP source port behind either.
const IPV4_SOURCE: [u32; 2] = [IP + 12, IP + 20];
const IPV6_SOURCE: [u32; 2] = [IP + 20, IP + 40];

/// The program that lets nothing through (linux/net/core/filter.c: 0 bytes are kept).
pub(super) const DROP_ALL: [Instruction; 1] = [op(RET, 0)];

/// The program for a group of `workers` data sockets, bound first, one control socket, and one for initiations, bound last:
/// VXLAN and sealed frames go to a worker by where they come from, initiations to their socket, all else to the control
/// socket.
pub(super) fn program(workers: u32) -> Vec<Instruction> {
    let mut program = vec![
        op(LD_BYTE, 0),
        jump(JUMP_SET, VXLAN_FLAG, 4, 0),
        jump(JUMP_EQ, SEALED, 3, 0),
        jump(JUMP_EQ, INITIATION, 0, 1),
        op(RET, workers + 1),
        op(RET, workers),
    ];
    if workers > 1 {
        let (ipv4, ipv6) = (mix(IPV4_SOURCE), mix(IPV6_SOURCE));
        program.extend([op(LD_HALF, ETHERTYPE), jump(JUMP_EQ, 0x0800, 0, ipv4.len() as u8 + 1)]);
        program.extend(ipv4);
        program.push(op(JUMP, ipv6.len() as u32));
        program.extend(ipv6);
        program.extend([op(ALU_MUL, GOLDEN), op(ALU_RSH, 16), op(ALU_MOD, workers), op(RET_A, 0)]);
    } else {
        program.push(op(RET, 0));
    }
    program
}

/// The exclusive or of a word and a half one, in A.
fn mix([word, half]: [u32; 2]) -> [Instruction; 4] {
    [op(LD_WORD, word), op(TAX, 0), op(LD_HALF, half), op(ALU_XOR_X, 0)]
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
