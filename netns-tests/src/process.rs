//! Programs in namespaces: run to the end with a limit, or kept running until dropped.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Namespace;
use crate::wait::wait_for;

/// No program of a test may take longer, unless it says so.
const LIMIT: Duration = Duration::from_secs(60);

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub what: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Outcome {
    /// The standard output when the program succeeded, else an error with everything it said.
    pub fn ok(self) -> Result<String> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(anyhow!("{}", self.describe())) }
    }

    /// The standard error when the program failed with this exit code, else an error.
    pub fn fails_with(self, code: i32) -> Result<String> {
        if self.code == Some(code) {
            Ok(self.stderr)
        } else {
            bail!("not exit code {code}: {}", self.describe())
        }
    }

    fn describe(&self) -> String {
        let Outcome { what, code, stdout, stderr } = self;
        format!("`{what}` ended with {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }
}

/// A program to be run, in a namespace or in the one of the test.
#[derive(Clone, Debug)]
pub struct Tool {
    program: String,
    args: Vec<String>,
    env: Vec<(String, Option<String>)>,
    stderr: Option<Arc<File>>,
    input: Option<String>,
    namespace: Option<Namespace>,
    limit: Duration,
}

impl Tool {
    /// The program of this name.
    pub fn new(program: impl Into<String>) -> Self {
        Tool {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stderr: None,
            input: None,
            namespace: None,
            limit: LIMIT,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds the words of a line as arguments.
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Takes an environment variable away.
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.push((name.to_owned(), None));
        self
    }

    /// Lets it write its standard error to the end of this file, where it stays.
    pub fn stderr_to(mut self, file: File) -> Self {
        self.stderr = Some(Arc::new(file));
        self
    }

    /// Gives it this text as standard input.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Runs it in this network namespace.
    pub fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Has another program run it, whose words come first: `setpriv` or a shell.
    pub fn through(mut self, words: &[&str]) -> Self {
        let mut words = words.iter().map(|word| (*word).to_owned());
        let program = std::mem::replace(&mut self.program, words.next().unwrap_or_default());
        self.args.splice(0..0, words.chain([program]));
        self
    }

    /// Kills it, and fails, after this time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end, whatever that is.
    pub fn outcome(self) -> Result<Outcome> {
        let limit = self.limit;
        self.start()?.wait(limit)
    }

    /// Runs it to its end and returns its output; any exit code but 0 is an error.
    pub fn run(self) -> Result<String> {
        self.outcome()?.ok()
    }

    /// Starts it and returns at once. It is killed when the [`Process`] is dropped.
    ///
    /// Output goes to files, not pipes: a child of it that outlives it cannot make anybody wait.
    pub fn start(self) -> Result<Process> {
        let what = std::iter::once(self.program.as_str())
            .chain(self.args.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        let stdout = tempfile::tempfile()?;
        let stderr = self.stderr.as_ref().map_or_else(tempfile::tempfile, |file| file.try_clone())?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::piped());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = match &self.namespace {
            Some(namespace) => namespace.run(|| command.spawn())?,
            None => command.spawn(),
        };
        let mut child = child.with_context(|| format!("cannot run `{what}`: is it installed?"))?;
        if let Some(text) = &self.input {
            let mut stdin = child.stdin.take().ok_or_else(|| anyhow!("`{what}` has no standard input"))?;
            stdin.write_all(text.as_bytes())?;
        }
        Ok(Process { child, what, stdout, stderr })
    }
}

/// A running program. Its standard input stays open for as long as this lives: a program that ends with
/// its input (`cat`) cannot outlive the test, however that ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Wraps a child that somebody else started with its output in these files.
    pub(crate) fn adopt(child: Child, what: &str) -> Result<Self> {
        Ok(Process {
            child,
            what: what.to_owned(),
            stdout: tempfile::tempfile()?,
            stderr: tempfile::tempfile()?,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read_all(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read_all(&self.stderr)
    }

    /// True while it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("{signal} to `{}`", self.what))
    }

    /// Waits for its end; kills it and fails after `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Outcome> {
        drop(self.child.stdin.take());
        let Some(status) = self.ended_within(limit)? else {
            let (out, err) = (self.stdout(), self.stderr());
            bail!("`{}` did not end within {limit:?}\n--- stdout\n{out}--- stderr\n{err}", self.what);
        };
        let (stdout, stderr) = (self.stdout(), self.stderr());
        Ok(Outcome { what: self.what.clone(), code: status.code(), stdout, stderr })
    }

    /// Ends it as Ctrl-C would and returns what it said.
    pub fn interrupt(self) -> Result<Outcome> {
        self.signal(Signal::SIGINT)?;
        self.wait(Duration::from_secs(10))
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        // Either may fail only because it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        let mut nap = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads from the start without moving the offset, which the writer shares.
fn read_all(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match file.read_at(&mut chunk, bytes.len() as u64) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) => return format!("(output lost: {error})\n"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Kills processes that are not children of the test, and waits until they are gone.
pub(crate) fn kill_all(pids: &[u32]) {
    for pid in pids {
        // Gone already: fine.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    // One that cannot be killed shows up in the clean-up that follows.
    let _ =
        wait_for("killed processes gone", Duration::from_secs(5), || !pids.iter().any(|pid| is_alive(*pid)));
}

/// True while the process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in brackets and may itself contain brackets (proc(5)).
    !matches!(
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()),
        None | Some('Z' | 'X')
    )
}
