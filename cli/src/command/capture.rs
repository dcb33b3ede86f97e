//! `meshnet capture`: frames of a port, or datagrams of the underlay, to a file or as lines.
//!
//! A thread writes, because a file or a pipe may make it wait; the rest stays able to notice Ctrl-C, and that whoever
//! reads the output is gone.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::args::{CaptureArgs, Format};
use crate::capture::line::{line, summary};
use crate::capture::pcapng::{self, Block, Blocks};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::http;
use crate::shape::{CaptureTotals, Captured};

/// Blocks that wait for the writer.
const WAITING: usize = 256;
/// How long the last blocks may take to be written after the end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What was captured is nobody else's business.
const FILE_MODE: u32 = 0o600;

pub(super) async fn run(client: &Client, format: Format, args: &CaptureArgs) -> Result<(), Failure> {
    let mut path = format!("/capture?snaplen={}", args.snaplen);
    if let Some(port) = &args.port {
        path = format!("{path}&port={}", http::escape(port));
    }
    let (number, mut stream) = client.stream(&path).await?;
    let mut stop = Stop::new().map_err(Failure::internal)?;
    let mut writer = Writer::start(args.write.as_deref(), format)?;
    let (mut totals, mut arrived) = (CaptureTotals::default(), Arrived::default());
    let mut copied = copy(&mut stream, &mut writer, &mut stop, &mut arrived, (args.count, &mut totals)).await;
    if copied == Ok(End::Asked) {
        // All that was captured until now is on its way. Who asks a second time does not wait for it.
        let _ = client.post::<CaptureTotals>(&format!("/capture/{number}/end"), &()).await;
        let rest = copy(&mut stream, &mut writer, &mut stop, &mut arrived, (args.count, &mut totals));
        copied = tokio::time::timeout(LAST_WORDS, rest).await.unwrap_or(Ok(End::Asked));
    }
    // What the stream has not told yet; a capture that is over has told all.
    if let Ok(now) = client.get::<CaptureTotals>(&format!("/capture/{number}")).await {
        totals.dropped = now.dropped;
    }
    drop(stream);
    let written = writer.finish(&totals).await;
    tell(format, &totals);
    copied.and(written)
}

/// Why nothing more is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// By a signal.
    Asked,
    /// There are enough frames, nobody reads them any more, or no more will come.
    Enough,
}

/// What has arrived and was not written yet.
#[derive(Default)]
struct Arrived {
    blocks: Blocks,
    waiting: VecDeque<Block>,
}

/// Carries the stream to the writer until there are enough frames, or somebody has had enough. Nothing is lost when it
/// is called again.
async fn copy(
    stream: &mut Incoming,
    writer: &mut Writer,
    stop: &mut Stop,
    arrived: &mut Arrived,
    (count, totals): (Option<u64>, &mut CaptureTotals),
) -> Result<End, Failure> {
    loop {
        while !arrived.waiting.is_empty() {
            let place = tokio::select! {
                () = stop.wait() => return Ok(End::Asked),
                place = writer.to.reserve() => place,
            };
            let (Ok(place), Some(block)) = (place, arrived.waiting.pop_front()) else {
                return Ok(End::Enough);
            };
            totals.captured += u64::from(block.packet().is_some());
            totals.dropped = block.dropped().unwrap_or(totals.dropped);
            place.send(block);
            if count.is_some_and(|count| totals.captured >= count) {
                return Ok(End::Enough);
            }
        }
        let next = tokio::select! {
            () = stop.wait() => return Ok(End::Asked),
            () = writer.gone() => return Ok(End::Enough),
            next = stream.frame() => next,
        };
        // Without another frame the capture is over.
        let Some(frame) = next else { return Ok(End::Enough) };
        let frame = frame.map_err(|e| {
            Failure::new(code::NOT_RUNNING, format!("the daemon went away: {e}")).hint("its log says why")
        })?;
        let bytes = frame.into_data().unwrap_or_default();
        arrived.waiting.extend(arrived.blocks.feed(&bytes).map_err(Failure::internal)?);
    }
}

/// How many frames there were, for people; standard output may be the file.
fn tell(format: Format, totals: &CaptureTotals) {
    let line = match format {
        Format::Text => format!("{} captured, {} dropped", totals.captured, totals.dropped),
        Format::Json => serde_json::to_string(totals).unwrap_or_default(),
    };
    // There is no other place to say it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The signals that end a capture.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The thread that writes.
struct Writer {
    to: mpsc::Sender<Block>,
    /// Told once nobody reads standard output any more; none for a file, which has no readers.
    hung_up: Option<oneshot::Receiver<()>>,
    done: oneshot::Receiver<Result<(), Failure>>,
    is_file: bool,
}

impl Writer {
    /// To the file, `-` for standard output, or without one as lines.
    fn start(file: Option<&Path>, format: Format) -> Result<Self, Failure> {
        let name = file.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let failed = move |e: io::Error| {
            Failure::new(code::WRITE_FAILED, format!("cannot write to {name}: {e}"))
                .hint("choose another file with -w")
        };
        let (to_stdout, sink): (bool, Box<dyn Sink + Send>) = match file {
            None => (true, Box::new(Lines { out: io::stdout(), format, link_type: 0 })),
            Some(path) if path == Path::new("-") => (true, Box::new(Raw(io::stdout()))),
            Some(path) => {
                let mut options = std::fs::OpenOptions::new();
                let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path);
                (false, Box::new(Raw(io::BufWriter::new(file.map_err(&failed)?))))
            }
        };
        let (to, blocks) = mpsc::channel(WAITING);
        let (tell_done, done) = oneshot::channel();
        std::thread::spawn(move || {
            let written = write(blocks, sink).map_err(failed);
            // Nobody waits any more when it took too long.
            let _ = tell_done.send(written);
        });
        let hung_up = to_stdout.then(|| {
            let (tell, hung_up) = oneshot::channel();
            std::thread::spawn(move || {
                await_hang_up();
                // The capture may have ended for another reason.
                let _ = tell.send(());
            });
            hung_up
        });
        Ok(Writer { to, hung_up, done, is_file: file.is_some() })
    }

    /// Returns when what is written reaches nobody.
    async fn gone(&mut self) {
        let hung_up = async {
            match &mut self.hung_up {
                Some(hung_up) => drop(hung_up.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hung_up => {}
            () = self.to.closed() => {}
        }
    }

    /// Writes the totals and lets the thread end.
    async fn finish(self, totals: &CaptureTotals) -> Result<(), Failure> {
        let Writer { to, done, is_file, .. } = self;
        let last = async {
            if is_file {
                let mut bytes = Vec::new();
                pcapng::statistics(&mut bytes, now_ns(), totals.captured + totals.dropped, totals.dropped);
                for block in Blocks::default().feed(&bytes).unwrap_or_default() {
                    // A thread that has ended says why.
                    let _ = to.send(block).await;
                }
            }
            drop(to);
            done.await
        };
        match tokio::time::timeout(LAST_WORDS, last).await {
            Ok(Ok(written)) => written,
            // A pipe that nobody empties: what it holds is all there will be.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// Where blocks go.
trait Sink {
    fn put(&mut self, block: &Block) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
}

/// As they are.
struct Raw<W>(W);

impl<W: Write> Sink for Raw<W> {
    fn put(&mut self, block: &Block) -> io::Result<()> {
        self.0.write_all(block.bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// One line for each frame.
struct Lines<W> {
    out: W,
    format: Format,
    link_type: u16,
}

impl<W: Write> Sink for Lines<W> {
    fn put(&mut self, block: &Block) -> io::Result<()> {
        self.link_type = block.link_type().unwrap_or(self.link_type);
        let Some(packet) = block.packet() else { return Ok(()) };
        let text = match self.format {
            Format::Text => line(self.link_type, &packet),
            Format::Json => {
                let captured = Captured {
                    at_ns: packet.at_ns,
                    direction: if packet.inbound { "in" } else { "out" }.to_owned(),
                    bytes: packet.len,
                    summary: summary(self.link_type, &packet.bytes.concat()),
                };
                serde_json::to_string(&captured)? + "\n"
            }
        };
        self.out.write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes until no more comes. A reader that closed its pipe has read enough.
fn write(mut blocks: mpsc::Receiver<Block>, mut sink: Box<dyn Sink + Send>) -> io::Result<()> {
    let mut put = || {
        while let Some(block) = blocks.blocking_recv() {
            sink.put(&block)?;
            if blocks.is_empty() {
                sink.flush()?;
            }
        }
        sink.flush()
    };
    match put() {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Returns when the other end of standard output is closed.
fn await_hang_up() {
    let stdout = io::stdout();
    loop {
        // Errors and hang-ups are told without being asked for.
        let mut output = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut output, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            _ => return,
        }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
