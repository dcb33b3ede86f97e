//! Several sends in one system call: the runs of an outbox, gathered until a call is full.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;

use crate::io::socket::{DataSocket, MAX_SEGMENTS, MAX_SEND_BYTES, Transmit};
use crate::offload::cut::Outbox;
use crate::session::sealed::{Run, Sealed};

/// Pieces of one call: a head and a body for each datagram of at least one full run.
const PIECES: usize = 4 * MAX_SEGMENTS;
/// Runs of one call. Frames of mixed sizes make many short ones.
const RUNS: usize = 32;

/// Hands all datagrams of `outbox`, whose bodies lie in `arena`, to `socket` for the address `to`. `done` is told of
/// every run, in order within each call, whether it was accepted.
pub(super) fn send_all(
    socket: &DataSocket,
    to: SocketAddr,
    outbox: &Outbox,
    arena: &[u8],
    mut done: impl FnMut(&[IoSlice<'_>], io::Result<()>),
) {
    let mut runs = outbox.runs(MAX_SEGMENTS, MAX_SEND_BYTES).peekable();
    while runs.peek().is_some() {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut ends = [(0, None); RUNS];
        let (mut count, mut used) = (0, 0);
        while let Some(run) = runs.next_if(|run| count < RUNS && used + 2 * run.len() <= PIECES) {
            let segment = fill(&mut pieces[used..], outbox, arena, run.clone());
            used += 2 * run.len();
            ends[count] = (used, segment);
            count += 1;
        }
        send(socket, to, &pieces, &ends[..count], &mut done);
    }
}

/// Hands all of `sealed` to `socket` for the address `to`, in one call as far as possible. `done` is told of every run whether
/// it was accepted.
pub(super) fn send_sealed(
    socket: &DataSocket,
    to: SocketAddr,
    sealed: &Sealed,
    mut done: impl FnMut(&Run, io::Result<()>),
) {
    for runs in sealed.runs().chunks(RUNS) {
        let mut pieces = [IoSlice::new(&[]); RUNS];
        for (piece, run) in pieces.iter_mut().zip(runs) {
            *piece = IoSlice::new(sealed.bytes().get(run.bytes.clone()).unwrap_or_default());
        }
        let mut batch = [Transmit { to, parts: &[], segment_size: None }; RUNS];
        for ((transmit, piece), run) in batch.iter_mut().zip(&pieces).zip(runs) {
            let segment_size = (run.count > 1).then_some(run.size as u16);
            *transmit = Transmit { to, parts: std::slice::from_ref(piece), segment_size };
        }
        let mut refused = [const { None }; RUNS];
        socket.send_batch(&batch[..runs.len()], |index, error| refused[index] = Some(error));
        for (run, error) in runs.iter().zip(&mut refused) {
            done(run, error.take().map_or(Ok(()), Err));
        }
    }
}

/// Notes the pieces of a run; gives the length of its datagrams if it has several.
fn fill<'a>(
    pieces: &mut [IoSlice<'a>],
    outbox: &'a Outbox,
    arena: &'a [u8],
    run: Range<usize>,
) -> Option<u16> {
    let datagrams = outbox.datagrams().get(run).unwrap_or_default();
    for (pair, datagram) in pieces.chunks_exact_mut(2).zip(datagrams) {
        let [head, body] = outbox.pieces(datagram, arena);
        pair.copy_from_slice(&[IoSlice::new(head), IoSlice::new(body)]);
    }
    datagrams.first().filter(|_| datagrams.len() > 1).map(|first| first.len() as u16)
}

fn send(
    socket: &DataSocket,
    to: SocketAddr,
    pieces: &[IoSlice<'_>],
    ends: &[(usize, Option<u16>)],
    done: &mut impl FnMut(&[IoSlice<'_>], io::Result<()>),
) {
    if let [(end, segment)] = *ends {
        return done(&pieces[..end], socket.send(to, &pieces[..end], segment).map(drop));
    }
    let mut batch = [Transmit { to, parts: &[], segment_size: None }; RUNS];
    let mut start = 0;
    for (transmit, (end, segment)) in batch.iter_mut().zip(ends) {
        *transmit = Transmit { to, parts: &pieces[start..*end], segment_size: *segment };
        start = *end;
    }
    let batch = &batch[..ends.len()];
    let mut accepted = [true; RUNS];
    socket.send_batch(batch, |index, error| {
        accepted[index] = false;
        done(batch[index].parts, Err(error));
    });
    let sent = batch.iter().zip(accepted).filter(|(_, accepted)| *accepted);
    sent.for_each(|(transmit, _)| done(transmit.parts, Ok(())));
}
