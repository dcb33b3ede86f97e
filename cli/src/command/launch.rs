//! `meshnet launch`: starts the daemon, here or behind, and says when it is ready or why it is not.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::runtime;
use crate::args::{Common, LaunchArgs};
use crate::daemon::ready::{self, Launcher};
use crate::daemon::{self, Options};
use crate::failure::{Failure, code};
use crate::log::{self, Tail};
use crate::render::{self, Progress};
use crate::shape::Hello;

/// Name of the log in the state directory.
pub(super) const LOG: &str = "meshnet.log";
/// Tells the daemon that its standard input leads back to a waiting `launch`.
const DETACHED: &str = "MESHNET_DETACHED";

pub(super) fn run(common: &Common, args: LaunchArgs) -> Result<ExitCode, Failure> {
    if args.foreground {
        return foreground(common, args);
    }
    let progress = Progress::start("starting".to_owned());
    let hello = detached(&args.state_dir, &common.run_dir)?;
    drop(progress);
    hello.warnings.iter().for_each(|warning| render::warning(warning));
    render::answer(common.output, &hello, |_| String::new());
    Ok(ExitCode::SUCCESS)
}

/// Is the daemon.
fn foreground(common: &Common, args: LaunchArgs) -> Result<ExitCode, Failure> {
    let mut launcher = match args.detached {
        true => detach()?,
        false => Launcher::none(),
    };
    let log = log::start(args.log_level, args.log_format);
    let done = options(common, args, log).and_then(|options| {
        let group = daemon::privileges::give_up(&options.launch)?;
        let runtime = runtime()?;
        let done = runtime.block_on(daemon::run(options, group, &mut launcher));
        // The data plane and the tasks end with the process.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever waits prints it, and the log has it too; without anybody it is printed here.
        Err(failure) if launcher.failed(&failure) => {
            tracing::error!(code = %failure.code, "{failure}");
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => Err(failure),
    }
}

/// Leaves the terminal and the directory of whoever typed `launch`.
fn detach() -> Result<Launcher, Failure> {
    let launcher = Launcher::from_stdin().map_err(Failure::internal)?;
    nix::unistd::setsid().map_err(Failure::internal)?;
    Ok(launcher)
}

/// The daemon's options; it moves to the root directory, so that it holds no other, and so do its paths.
fn options(common: &Common, mut launch: LaunchArgs, log: Tail) -> Result<Options, Failure> {
    let run_dir = std::path::absolute(&common.run_dir).map_err(Failure::internal)?;
    launch.state_dir = std::path::absolute(&launch.state_dir).map_err(Failure::internal)?;
    for file in [&mut launch.secret_file, &mut launch.allow_peers].into_iter().flatten() {
        *file = std::path::absolute(&*file).map_err(Failure::internal)?;
    }
    std::env::set_current_dir("/").map_err(Failure::internal)?;
    if launch.detached {
        log.keep_short(&[&launch.state_dir, &run_dir].map(|dir| dir.join(LOG)));
    }
    Ok(Options { run_dir, log, launch })
}

/// Starts the same program with the same words in the background, and waits for its report.
fn detached(state_dir: &Path, run_dir: &Path) -> Result<Hello, Failure> {
    daemon::check_host()?;
    daemon::make_dir(state_dir, daemon::STATE_DIR_MODE)?;
    let (path, log) = open_log(state_dir, run_dir)?;
    let program = std::env::current_exe().map_err(|e| failed("this program", &e))?;
    let (report, back) = io::pipe().map_err(|e| failed("a pipe", &e))?;
    let child = Command::new(program)
        .args(words(std::env::args_os().skip(1).collect()))
        .env(DETACHED, "1")
        .stdin(back)
        .stdout(log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from))
        .stderr(log)
        .spawn();
    let mut child = child.map_err(|e| failed("this program", &e))?;
    let report = ready::await_report(report, &path);
    // A daemon that is ready outlives this process. One that is not has said why, and is gone before anybody else hears it.
    if report.is_err() {
        let _ = child.wait();
    }
    report
}

/// The log in the state directory, or in the run directory while nothing can be written there.
fn open_log(state_dir: &Path, run_dir: &Path) -> Result<(PathBuf, File), Failure> {
    let path = state_dir.join(LOG);
    let error = match log::open(&path) {
        Ok(log) => return Ok((path, log)),
        Err(error) => error,
    };
    daemon::make_dir(run_dir, daemon::RUN_DIR_MODE)?;
    let other = run_dir.join(LOG);
    let log = log::open(&other).map_err(|_| failed(&path.display().to_string(), &error))?;
    Ok((other, log))
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(code::START_FAILED, format!("the daemon cannot be started: {what}: {error}"))
}

/// The words of this command line, and that the daemon stays in the foreground of its own session.
fn words(mut words: Vec<OsString>) -> Vec<OsString> {
    let end_of_flags = words.iter().position(|w| w == "--").unwrap_or(words.len());
    words.insert(end_of_flags, "--foreground".into());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_gets_the_same_words_and_one_more() {
        let of = |text: &str| {
            let made = words(text.split(' ').map(OsString::from).collect());
            made.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("launch node01 --found"), "launch node01 --found --foreground");
        assert_eq!(of("launch -- node01"), "launch --foreground -- node01");
    }
}
