//! iperf3 servers and streams, read by their JSON.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::container::Addressed;
use crate::netns::Namespace;
use crate::process::{Process, Tool};
use crate::wait::{Stopwatch, pause, wait_for};

/// How long a server may be busy with a stream that has ended for its client.
const BUSY: Duration = Duration::from_secs(5);

/// What a stream carries.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Transport {
    /// TCP, as fast as it goes, over this many parallel connections.
    Tcp {
        /// How many.
        streams: u8,
    },
    /// UDP.
    Udp {
        /// Payload of a datagram, in bytes.
        payload_bytes: u16,
        /// Offered load, in bits per second; 0 is without limit.
        bits_per_second: u64,
    },
}

impl Transport {
    /// One TCP connection.
    pub const TCP: Transport = Transport::Tcp { streams: 1 };

    fn options(self) -> String {
        match self {
            Transport::Tcp { streams } => format!("-P {streams}"),
            Transport::Udp { payload_bytes, bits_per_second } => {
                format!("-u -l {payload_bytes} -b {bits_per_second}")
            }
        }
    }
}

/// A server that takes one stream after the other, until dropped.
#[derive(Debug)]
pub struct IperfServer {
    process: Process,
    address: IpAddr,
}

impl IperfServer {
    /// Starts one in `namespace`, to be reached at `at`; returns when it listens.
    pub fn start(namespace: &Namespace, at: &impl Addressed) -> Result<Self> {
        let mut process = Tool::new("iperf3").words("-s --forceflush").inside(namespace).start()?;
        let listens = || process.stdout().contains("Server listening") || !process.is_running();
        wait_for("iperf3 listens", Duration::from_secs(10), listens)?;
        if !process.is_running() {
            bail!("iperf3 -s ended: {}{}", process.stdout(), process.stderr());
        }
        Ok(IperfServer { process, address: at.address() })
    }

    /// The process id, to account its CPU time.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts a stream to it from `namespace` that lasts this long, in whole seconds.
    pub fn stream_from(
        &self,
        namespace: &Namespace,
        transport: Transport,
        time: Duration,
    ) -> Result<IperfStream> {
        self.stream_with(namespace, transport, time, "")
    }

    /// The same with further options of iperf3: `-R` sends the other way.
    pub fn stream_with(
        &self,
        namespace: &Namespace,
        transport: Transport,
        time: Duration,
        more: &str,
    ) -> Result<IperfStream> {
        let line = format!(
            "-c {} -J -i 0.5 -t {} {} {more}",
            self.address,
            time.as_secs_f64().ceil(),
            transport.options()
        );
        let process = Tool::new("iperf3").words(&line).inside(namespace).start()?;
        Ok(IperfStream { process, limit: time + Duration::from_secs(20) })
    }

    /// Runs a whole stream of this length. A server takes a moment to be done with the one before.
    pub fn measure(
        &self,
        namespace: &Namespace,
        transport: Transport,
        time: Duration,
        more: &str,
    ) -> Result<IperfReport> {
        let clock = Stopwatch::start();
        loop {
            match self.stream_with(namespace, transport, time, more)?.finish() {
                Err(error) if is_busy(&error) && clock.elapsed() < BUSY => {
                    pause(Duration::from_millis(50));
                }
                done => return done,
            }
        }
    }
}

/// A busy server says so and closes at once; the reset of that may overtake what it says.
fn is_busy(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    let signs = [
        "server is busy",
        "unable to receive control message: Connection reset by peer",
        "unable to connect to server: Connection reset by peer",
    ];
    signs.iter().any(|sign| text.contains(sign))
}

/// A stream under way.
#[derive(Debug)]
pub struct IperfStream {
    process: Process,
    limit: Duration,
}

impl IperfStream {
    /// The process id of the client.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for its end and reads the report. An error of either end is an error.
    pub fn finish(self) -> Result<IperfReport> {
        let outcome = self.process.wait(self.limit)?;
        let report: Value = serde_json::from_str(&outcome.stdout).with_context(|| {
            format!(
                "`{}` ended with {:?} and no report: {}{}",
                outcome.what, outcome.code, outcome.stdout, outcome.stderr
            )
        })?;
        if let Some(error) = report.get("error") {
            bail!("`{}`: {error}", outcome.what);
        }
        Ok(IperfReport(report))
    }
}

/// What iperf3 measured.
#[derive(Clone, Debug)]
pub struct IperfReport(Value);

impl IperfReport {
    /// What arrived at the receiver, in bits per second.
    pub fn bits_per_second(&self) -> Result<f64> {
        self.number("/end/sum_received/bits_per_second").or_else(|_| self.udp_bits_per_second())
    }

    /// The bytes that arrived at the receiver.
    pub fn bytes(&self) -> Result<f64> {
        self.number("/end/sum_received/bytes").or_else(|_| self.number("/end/sum/bytes"))
    }

    /// TCP segments sent again, where the sender's kernel tells.
    pub fn retransmits(&self) -> Option<u64> {
        self.0.pointer("/end/sum_sent/retransmits")?.as_u64()
    }

    /// UDP datagrams (sent, lost).
    pub fn datagrams(&self) -> Result<(f64, f64)> {
        Ok((self.number("/end/sum/packets")?, self.number("/end/sum/lost_packets")?))
    }

    /// How long the stream lasted.
    pub fn seconds(&self) -> Result<f64> {
        self.number("/end/sum_received/seconds").or_else(|_| self.number("/end/sum/seconds"))
    }

    /// The whole report.
    pub fn json(&self) -> &Value {
        &self.0
    }

    fn udp_bits_per_second(&self) -> Result<f64> {
        let lost = self.number("/end/sum/lost_percent")?;
        Ok(self.number("/end/sum/bits_per_second")? * (1.0 - lost / 100.0))
    }

    fn number(&self, pointer: &str) -> Result<f64> {
        let number = self.0.pointer(pointer).and_then(Value::as_f64);
        number.ok_or_else(|| anyhow!("no {pointer} in the report of iperf3"))
    }
}
