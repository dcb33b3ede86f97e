//! One connection to another host: messages in order, datagrams as they come, an end with a reason.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use engine::types::canonical;
use quinn::{Connection, ReadError, RecvStream, SendDatagramError, SendStream, VarInt, WriteError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connector::WireEvent;
use super::frames::{Decoder, Frame, PREFIX_LEN, prefix};
use super::reason;
use crate::mesh::ConnId;

/// Bytes that may wait for a peer that reads slowly; a peer further behind is cut off, and starts anew.
const QUEUE_MAX: usize = 32 << 20;
/// How long a close waits for what was sent before it.
const FLUSH: Duration = Duration::from_millis(500);
/// Bytes taken from the stream at once.
const CHUNK_MAX: usize = 64 * 1024;
/// How long the far end may take to close after its last message.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The sending side of a connection.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    queue: mpsc::UnboundedSender<Bytes>,
    queued: Arc<AtomicUsize>,
    flushed: oneshot::Receiver<()>,
}

/// The peer does not read what it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the host there reads too slowly: {} MiB wait for it", QUEUE_MAX >> 20)]
pub(super) struct Overflow;

impl Link {
    /// Takes over the sending side of a connection whose far end was let in.
    pub(super) fn new(connection: Connection, stream: SendStream) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (done, flushed) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        tokio::spawn(write(stream, waiting, queued.clone(), done));
        Link { connection, queue, queued, flushed }
    }

    /// The address of this host that the far end dialled; none when it did not.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        self.connection.local_ip()
    }

    /// Sends a message after those sent before.
    pub(super) fn send(&self, bytes: Bytes) -> Result<(), Overflow> {
        self.enqueue(bytes, false)
    }

    /// Sends a datagram, on the stream if the path or the peer does not take it otherwise.
    pub(super) fn send_datagram(&self, bytes: Bytes) -> Result<(), Overflow> {
        match self.connection.send_datagram(bytes.clone()) {
            Ok(()) | Err(SendDatagramError::ConnectionLost(_)) => Ok(()),
            Err(
                SendDatagramError::TooLarge
                | SendDatagramError::UnsupportedByPeer
                | SendDatagramError::Disabled,
            ) => self.enqueue(bytes, true),
        }
    }

    fn enqueue(&self, bytes: Bytes, datagram: bool) -> Result<(), Overflow> {
        let Some(prefix) = prefix(bytes.len(), datagram) else {
            tracing::error!(len = bytes.len(), "a message longer than allowed was not sent");
            return Ok(());
        };
        let size = PREFIX_LEN + bytes.len();
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > QUEUE_MAX {
            return Err(Overflow);
        }
        // After the end nobody reads the queue; the end itself is told by the reading side.
        let _ = self.queue.send(Bytes::copy_from_slice(&prefix));
        if !bytes.is_empty() {
            let _ = self.queue.send(bytes);
        }
        Ok(())
    }

    /// Closes after what was sent, within half a second. The other side is told the reason.
    pub(super) async fn close(self, reason: String) {
        drop(self.queue);
        let _ = timeout(FLUSH, self.flushed).await;
        self.connection.close(CLOSED, reason.as_bytes());
    }

    /// Closes now; what waits is lost.
    pub(super) fn cut(self, reason: &str) {
        self.connection.close(CLOSED, reason.as_bytes());
    }
}

/// The one error code; the reason says more than a number.
const CLOSED: VarInt = VarInt::from_u32(0);

async fn write(
    mut stream: SendStream,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    queued: Arc<AtomicUsize>,
    done: oneshot::Sender<()>,
) {
    if write_all(&mut stream, &mut queue, &queued).await.is_ok() {
        let _ = done.send(());
    }
}

async fn write_all(
    stream: &mut SendStream,
    queue: &mut mpsc::UnboundedReceiver<Bytes>,
    queued: &AtomicUsize,
) -> Result<(), WriteError> {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 64).await > 0 {
        let size: usize = batch.iter().map(Bytes::len).sum();
        stream.write_all_chunks(&mut batch).await?;
        queued.fetch_sub(size, Ordering::Relaxed);
        batch.clear();
    }
    let _ = stream.finish();
    let _ = stream.stopped().await;
    Ok(())
}

/// Reads a connection to its end and returns why it ended. While the reader of `inbox` is behind, the peer waits too.
pub(super) async fn read(
    connection: &Connection,
    mut stream: RecvStream,
    conn: ConnId,
    inbox: &mpsc::Sender<WireEvent>,
) -> String {
    let mut decoder = Decoder::default();
    let mut datagrams = true;
    let mut remote = connection.remote_address();
    loop {
        tokio::select! {
            chunk = next_chunk(connection, &mut stream) => match chunk {
                Ok(Some(bytes)) => decoder.push(&bytes),
                Ok(None) => return last_words(connection).await,
                Err(reason) => return reason,
            },
            datagram = connection.read_datagram(), if datagrams => match datagram {
                Ok(bytes) => deliver(inbox, conn, Frame::Datagram(bytes)).await,
                // The connection ended; the stream may still hold what was sent before.
                Err(_) => datagrams = false,
            },
        }
        if connection.remote_address() != remote {
            remote = connection.remote_address();
            // As in `deliver`.
            let _ = inbox.send(WireEvent::Moved { conn, remote: canonical(remote) }).await;
        }
        while let Some(frame) = match decoder.next() {
            Ok(frame) => frame,
            Err(error) => return cut_off(connection, &error.to_string()),
        } {
            deliver(inbox, conn, frame).await;
        }
    }
}

async fn deliver(inbox: &mpsc::Sender<WireEvent>, conn: ConnId, frame: Frame) {
    // Nobody listens any more once the daemon stops.
    let _ = inbox.send(WireEvent::Frame { conn, frame }).await;
}

fn cut_off(connection: &Connection, reason: &str) -> String {
    connection.close(CLOSED, reason.as_bytes());
    reason.to_owned()
}

/// The next bytes of the one stream that the peer opened; `None` at its end. May be dropped at any time.
async fn next_chunk(connection: &Connection, stream: &mut RecvStream) -> Result<Option<Bytes>, String> {
    match stream.read_chunk(CHUNK_MAX, true).await {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(ReadError::ConnectionLost(error)) => Err(reason::connection(&error)),
        Err(error) => Err(cut_off(connection, &format!("the stream broke: {error}"))),
    }
}

/// Nothing more comes on the stream: the close and its reason must follow.
async fn last_words(connection: &Connection) -> String {
    match timeout(CLOSE_GRACE, connection.closed()).await {
        Ok(error) => reason::connection(&error),
        Err(_) => cut_off(connection, "the host there ended its stream"),
    }
}
