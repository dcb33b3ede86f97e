//! The classic BPF program that spreads the datagrams of a port over its group of sockets.
//!
//! The kernel runs it for every datagram with offset 0 at the UDP payload (linux/net/core/sock_reuseport.c) and
//! takes the result as an index into the group, in the order of binding. A load behind the end of the
//! datagram ends the program with 0: the first worker gets what is too short to have a flow.

/// One instruction (linux/filter.h, `struct sock_filter`).
pub(super) type Instruction = libc::sock_filter;

/// First payload byte: set for VXLAN (RFC 7348 section 5), clear for datagrams of our own.
const VXLAN_FLAG: u32 = 0x08;
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
const TXA: u16 = 0x87;

// Offsets in a VXLAN datagram whose frame is untagged: 8 bytes VXLAN, 14 bytes Ethernet, then IP.
const MAC_LOW: [u32; 2] = [8 + 2, 8 + 8];
const ETHERTYPE: u32 = 8 + 12;
const IP: u32 = 8 + 14;
const IPV4_FRAGMENT: u32 = IP + 6;
const IPV4_PROTOCOL: u32 = IP + 9;
const IPV4_ADDRESSES: [u32; 2] = [IP + 12, IP + 16];
const IPV4_PORTS: u32 = IP + 20;
const IPV6_NEXT_HEADER: u32 = IP + 6;
const IPV6_ADDRESSES: [u32; 2] = [IP + 20, IP + 36];
const IPV6_PORTS: u32 = IP + 40;

/// The program that lets nothing through (linux/net/core/filter.c: 0 bytes are kept).
pub(super) const DROP_ALL: [Instruction; 1] = [op(RET, 0)];

/// The program for a group of `workers` data sockets, bound first, and one control socket, bound last:
/// VXLAN goes to a worker by the flow of its frame, all else to the control socket.
pub(super) fn program(workers: u32) -> Vec<Instruction> {
    let mut program = vec![op(LD_BYTE, 0), jump(JUMP_SET, VXLAN_FLAG, 1, 0), op(RET, workers)];
    if workers > 1 {
        program.extend(flow_hash());
        program.extend([op(ALU_MUL, GOLDEN), op(ALU_RSH, 16), op(ALU_MOD, workers), op(RET_A, 0)]);
    } else {
        program.push(op(RET, 0));
    }
    program
}

/// Leaves a mix of the frame's addresses and ports in the accumulator: of IPv4 and IPv6 the addresses, of TCP
/// and UDP in whole packets also the ports; of other frames the MAC addresses.
fn flow_hash() -> Vec<Instruction> {
    let ipv4 = [
        mix(IPV4_ADDRESSES).as_slice(),
        &[
            op(LD_HALF, IPV4_FRAGMENT),
            // A fragment (more follow, or not the first) has no ports, or would leave its flow with them.
            jump(JUMP_SET, 0x3fff, 6, 0),
            op(LD_BYTE, IPV4_PROTOCOL),
            jump(JUMP_EQ, 6, 1, 0),
            jump(JUMP_EQ, 17, 0, 3),
            op(LD_WORD, IPV4_PORTS),
            op(ALU_XOR_X, 0),
            op(JUMP, 1),
            op(TXA, 0),
        ],
    ]
    .concat();
    let ipv6 = [
        mix(IPV6_ADDRESSES).as_slice(),
        &[
            op(LD_BYTE, IPV6_NEXT_HEADER),
            jump(JUMP_EQ, 6, 1, 0),
            jump(JUMP_EQ, 17, 0, 3),
            op(LD_WORD, IPV6_PORTS),
            op(ALU_XOR_X, 0),
            op(JUMP, 1),
            op(TXA, 0),
        ],
    ]
    .concat();
    let other = mix(MAC_LOW);
    // X keeps the mix of the addresses; every branch ends behind the last one, with the result in A.
    let mut program = vec![op(LD_HALF, ETHERTYPE), jump(JUMP_EQ, 0x0800, 0, ipv4.len() as u8 + 1)];
    program.extend(&ipv4);
    program.push(op(JUMP, (1 + ipv6.len() + 1 + other.len()) as u32));
    program.push(jump(JUMP_EQ, 0x86dd, 0, ipv6.len() as u8 + 1));
    program.extend(&ipv6);
    program.push(op(JUMP, other.len() as u32));
    program.extend(&other);
    program
}

/// The exclusive or of two words, in A and in X.
fn mix([first, second]: [u32; 2]) -> [Instruction; 5] {
    [op(LD_WORD, first), op(TAX, 0), op(LD_WORD, second), op(ALU_XOR_X, 0), op(TAX, 0)]
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
