//! `meshnet demo`: the overlay at work on one machine, in network namespaces, beside the kernel's own VXLAN.
//!
//! [`lab`] makes hosts, wires and containers; [`process`] runs real daemons and commands in them; [`ping`],
//! [`measure`] and [`compare`] put traffic on; [`console`] and [`report`] tell. Nothing has a name on the machine: the namespaces are anonymous and
//! end with the processes and descriptors of the demo, however that ends.

#![allow(clippy::disallowed_methods, reason = "the shell measures time and waits")]

mod baseline;
mod compare;
mod console;
mod lab;
mod measure;
mod ping;
mod process;
mod report;
mod stop;
mod table;
mod wiring;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use compare::MESHNET;
use console::Console;
use lab::{Lab, Wire};
use ping::Pattern;
use report::{Ping, Report, Step, microseconds, milliseconds};
use stop::{Interrupted, Stop};

/// How long the first ping between two containers may take.
const FIRST_PING: Duration = Duration::from_secs(10);
/// The pings of the matrix.
const PINGS: Pattern =
    Pattern { count: 10, pause: Duration::from_millis(5), patience: Duration::from_secs(1) };
/// The exit code of a program that ended because of a signal such as Ctrl-C (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// Show the overlay at work on this machine alone: hosts, containers, pings, throughput beside the kernel's VXLAN
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Hosts to make, each with one container
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) hosts: u8,
    /// Runs of each throughput measurement, of which the median is shown; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub(crate) runs: u8,
    /// Seconds that each run is measured for
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = run_seconds)]
    pub(crate) seconds: f64,
    /// What the wires do with packets larger than their MTU
    #[arg(long, value_enum, default_value_t = Wire::Nic)]
    pub(crate) wire: Wire,
    /// Set in the processes of the demo: the namespace to enter
    #[arg(long, value_name = "PATH", hide = true)]
    enter: Option<PathBuf>,
    /// Set in the processes of the demo: the command to become
    #[arg(last = true, hide = true, requires = "enter")]
    words: Vec<OsString>,
}

fn run_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.1 to 60".to_owned()),
    }
}

/// Runs the demo. The exit code is 1 when a ping or the stream over the overlay failed, 130 after Ctrl-C; errors are
/// what kept the demo itself from going on. Whatever happens, everything it made is gone when this returns.
pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    if let Some(path) = &args.enter {
        return process::enter(path, &args.words);
    }
    check_prerequisites()?;
    let stop = Stop::on_signals()?;
    let mut demo = Demo::new(args, json, stop);
    match demo.perform() {
        Ok(()) => {}
        Err(error) if error.is::<Interrupted>() => return Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => return Err(error),
    }
    demo.console.report(&demo.report)?;
    Ok(if demo.report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_prerequisites() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("the demo makes network namespaces, which needs root: try `sudo meshnet demo`");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        bail!("/dev/net/tun is missing, which the overlay's devices need: try `modprobe tun`");
    }
    Ok(())
}

/// A performance in progress.
struct Demo<'a> {
    args: &'a Args,
    stop: Stop,
    console: Console,
    report: Report,
    start: Instant,
}

impl<'a> Demo<'a> {
    fn new(args: &'a Args, json: bool, stop: Stop) -> Self {
        let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        let report = Report {
            kernel: kernel.unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            wire: args.wire.name(),
            ..Report::default()
        };
        Self { args, stop, console: Console::stdout(json), report, start: Instant::now() }
    }

    /// The lab lives in here: it is taken down before the report, and on the way out of every error.
    fn perform(&mut self) -> Result<()> {
        let Report { processors, kernel, .. } = &self.report;
        let hosts = self.args.hosts;
        self.console.title(&format!(
            "meshnet demo: {hosts} hosts with a container each, on one machine ({processors} processors, Linux {kernel})"
        ))?;
        let mut lab = self.build()?;
        self.launch(&mut lab)?;
        self.attach(&mut lab)?;
        self.ping(&lab)?;
        self.survive(&mut lab)?;
        if self.args.runs > 0 {
            self.measure(&lab)?;
        }
        self.take_down(lab)?;
        let pings = self.report.pings.iter().all(Ping::complete);
        let survived = self.report.silence_s.is_some();
        let streamed = self.args.runs == 0 || self.report.throughput.iter().any(|path| path.path == MESHNET);
        self.report.ok = pings && survived && streamed;
        self.report.total_s = seconds(self.start.elapsed());
        Ok(())
    }

    fn build(&mut self) -> Result<Lab> {
        let lab = self.step(None, "network namespaces, a wire between any two hosts", |demo| {
            let lab = Lab::build(usize::from(demo.args.hosts), demo.args.wire, &demo.stop)?;
            let outcome = format!("{} namespaces, {} wires", lab.namespaces(), lab.wires());
            Ok((lab, outcome))
        })?;
        self.report.hosts = lab.hosts.iter().map(|host| host.name.clone()).collect();
        self.report.notes.extend(lab.notes.iter().cloned());
        Ok(lab)
    }

    /// The first bare, the others at the first.
    fn launch(&mut self, lab: &mut Lab) -> Result<()> {
        let first = lab.first().address.to_string();
        for index in 0..lab.hosts.len() {
            let targets: &[&str] = if index == 0 { &[] } else { &[&first] };
            let host = &mut lab.hosts[index];
            let (name, shown) =
                (host.name.clone(), ["meshnet", "launch"].into_iter().chain(targets.iter().copied()));
            self.step(Some(&name), &shown.collect::<Vec<_>>().join(" "), |demo| {
                host.launch(targets, &demo.stop)?;
                Ok(((), "ready".to_owned()))
            })?;
        }
        Ok(())
    }

    fn attach(&mut self, lab: &mut Lab) -> Result<()> {
        for host in &mut lab.hosts {
            let (name, shown) = (host.name.clone(), format!("meshnet {}", host.attach_words().join(" ")));
            self.step(Some(&name), &shown, |demo| {
                let address = host.attach(&demo.stop)?;
                Ok(((), format!("{} has {address}", host.container.name)))
            })?;
        }
        Ok(())
    }

    fn ping(&mut self, lab: &Lab) -> Result<()> {
        self.step(None, "first ping between any two containers", |demo| {
            let mut slowest = Duration::ZERO;
            for (from, to) in lab.pairs() {
                let answer = ping::first_answer(&from.netns, to.overlay()?, FIRST_PING, &demo.stop)?;
                slowest = slowest.max(answer.unwrap_or(FIRST_PING));
            }
            Ok(((), format!("slowest after {}", milliseconds(slowest.as_secs_f64()))))
        })?;
        let pairs = lab.pairs().count();
        self.step(None, &format!("{} pings for each of the {pairs} pairs", PINGS.count), |demo| {
            for (from, to) in lab.pairs() {
                let answers = ping::series(&from.netns, to.overlay()?, PINGS, &demo.stop)?;
                demo.report.pings.push(Ping {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    sent: answers.sent,
                    received: answers.round_trips.len(),
                    median_us: answers.median().map(microseconds),
                });
            }
            let complete = demo.report.pings.iter().filter(|ping| ping.complete()).count();
            Ok(((), format!("{complete} of {pairs} pairs without loss")))
        })
    }

    /// Kills the daemon of the last host under pings to its container, and launches it again.
    fn survive(&mut self, lab: &mut Lab) -> Result<()> {
        let Some((host, others)) = lab.hosts.split_last_mut() else { return Ok(()) };
        let (from, to) = (&others[0].container, host.container.overlay()?);
        let (name, container) = (host.name.clone(), host.container.name.clone());
        self.step(Some(&name), "kill -9 the daemon; meshnet launch", |demo| {
            let over = AtomicBool::new(false);
            let silence = thread::scope(|scope| {
                let silence = scope.spawn(|| ping::longest_silence(&from.netns, to, &over, &demo.stop));
                let launched = host.crash_and_launch(&demo.stop);
                over.store(true, Ordering::Relaxed);
                let silence = silence.join().unwrap_or_else(|_| bail!("the thread that pings panicked"));
                launched.and(silence)
            })?;
            if silence > ping::SILENCE {
                demo.report
                    .notes
                    .push(format!("{container} is silent since the daemon of {name} was killed"));
                return Ok(((), format!("{container} does not answer any more")));
            }
            demo.report.silence_s = Some(seconds(silence));
            Ok((
                (),
                format!("{container} kept its address, silent for {}", milliseconds(silence.as_secs_f64())),
            ))
        })
    }

    fn take_down(&mut self, lab: Lab) -> Result<()> {
        let ids = lab.ids();
        self.step(None, "clean up", |demo| {
            let (daemons, namespaces) = (lab.hosts.len(), lab.namespaces());
            drop(lab);
            let left = lab::count_left(&ids);
            if left > 0 {
                demo.report.notes.push(format!("{left} namespaces are still in use by something else"));
            }
            Ok(((), format!("{daemons} daemons ended, {} namespaces gone", namespaces - left)))
        })
    }

    /// Does one thing and tells what it was, how long it took and what came of it.
    fn step<T>(
        &mut self,
        host: Option<&str>,
        what: &str,
        act: impl FnOnce(&mut Self) -> Result<(T, String)>,
    ) -> Result<T> {
        self.stop.check()?;
        let at = self.start.elapsed();
        self.console.progress(what)?;
        let (value, outcome) = act(self).with_context(|| what.to_owned())?;
        let took_s = seconds(self.start.elapsed() - at);
        let host = host.map(str::to_owned);
        let step = Step { at_s: seconds(at), took_s, host, what: what.to_owned(), outcome };
        self.console.step(&step)?;
        self.report.steps.push(step);
        Ok(value)
    }
}

/// Seconds, to the microsecond.
fn seconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(["demo"].iter().chain(words)).map(|line| line.args)
    }

    #[test]
    fn the_defaults_are_three_hosts_and_three_short_runs() {
        let args = parse(&[]).unwrap();
        assert_eq!((args.hosts, args.runs, args.wire), (3, 3, Wire::Nic));
        assert!(args.enter.is_none());
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        assert!(parse(&["--hosts", "1"]).is_err());
        assert!(parse(&["--hosts", "17"]).is_err());
        assert!(parse(&["--seconds", "0"]).is_err());
        assert!(parse(&["--", "launch"]).is_err());
        assert!(parse(&["--enter", "/proc/1/fd/3", "--", "launch", "--foreground"]).is_ok());
    }
}
