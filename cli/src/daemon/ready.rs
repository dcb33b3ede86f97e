//! Saying that the daemon is ready, or why it is not: to systemd, and to the `launch` that waits.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, code};
use crate::shape::Hello;

/// The one line the daemon sends back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Ready(Hello),
    Error(Failure),
}

/// The daemon's end of the way back to the `launch` that started it, if one did.
#[derive(Debug)]
pub(crate) struct Launcher {
    pipe: Option<File>,
}

impl Launcher {
    /// Nobody waits.
    pub(crate) fn none() -> Self {
        Launcher { pipe: None }
    }

    /// Standard input is the way back: it is taken, and replaced by nothing.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let pipe = io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Launcher { pipe: Some(pipe.into()) })
    }

    /// Tells everybody that the daemon is ready. An error means that whoever launched it has gone away.
    pub(crate) fn ready(&mut self, hello: &Hello) -> io::Result<()> {
        // Outside systemd there is nobody to notify.
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        self.send(&Report::Ready(hello.clone()))
    }

    /// Tells why the daemon cannot be had. True when somebody heard it.
    pub(crate) fn failed(&mut self, failure: &Failure) -> bool {
        self.pipe.is_some() && self.send(&Report::Error(failure.clone())).is_ok()
    }

    /// The pipe closes with the report.
    fn send(&mut self, report: &Report) -> io::Result<()> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        pipe.write_all(&line)
    }
}

/// Tells systemd that the daemon is about to end.
pub(crate) fn stopping() {
    // Outside systemd there is nobody to notify.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Waits at the other end of the pipe for what the daemon has to say; `log` is where to look when it says nothing.
pub(crate) fn await_report(pipe: impl Read, log: &std::path::Path) -> Result<Hello, Failure> {
    let mut line = String::new();
    let read = BufReader::new(pipe).read_line(&mut line);
    match read.map_err(Failure::internal).map(|_| serde_json::from_str(&line)) {
        Ok(Ok(Report::Ready(hello))) => Ok(hello),
        Ok(Ok(Report::Error(failure))) | Err(failure) => Err(failure),
        Ok(Err(_)) => Err(Failure::new(code::START_FAILED, "the daemon ended before it was ready")
            .hint(format!("see {}", log.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hello() -> Hello {
        Hello {
            version: "0.1.0".into(),
            peer_id: "00".into(),
            nickname: "node01".into(),
            pid: 7,
            warnings: vec![],
        }
    }

    fn report(say: impl FnOnce(&mut Launcher)) -> Result<Hello, Failure> {
        let (read, write) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(write));
        say(&mut Launcher { pipe: Some(pipe) });
        await_report(read, Path::new("/run/x/meshnet.log"))
    }

    #[test]
    fn readiness_failure_and_silence_reach_the_launcher() {
        assert_eq!(report(|l| l.ready(&hello()).unwrap()), Ok(hello()));
        let failure = Failure::new(code::NO_TUN, "no tun").hint("load it");
        assert_eq!(report(|l| assert!(l.failed(&failure))), Err(failure));
        let silence = report(|_| {}).unwrap_err();
        assert!(silence.to_string().contains("/run/x/meshnet.log"));
    }

    #[test]
    fn a_launcher_that_left_is_noticed() {
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let mut launcher = Launcher { pipe: Some(File::from(std::os::fd::OwnedFd::from(write))) };
        assert!(launcher.ready(&hello()).is_err());
        assert!(!launcher.failed(&Failure::internal("x")));
        assert!(Launcher::none().ready(&hello()).is_ok());
    }
}
