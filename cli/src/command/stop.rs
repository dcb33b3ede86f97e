//! `meshnet stop`: the daemon ends; containers keep their interfaces and addresses.

use std::path::Path;
use std::time::Duration;

use crate::args::Common;
use crate::client::{Client, SOCKET};
use crate::daemon::lock::{Holder, Lock};
use crate::failure::{Failure, code};
use crate::render::{self, Progress};
use crate::shape::Stopped;

/// How long the daemon may take to answer before it is sent a signal.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to end.
const END: Duration = Duration::from_secs(15);

/// Returns when no process, socket or lock is left.
pub(super) async fn run(client: &Client, common: &Common) -> Result<(), Failure> {
    let run_dir = common.run_dir.as_path();
    let (holder, held) = Lock::look(run_dir).map_err(|e| unreadable(run_dir, &e))?;
    if held {
        let progress = Progress::start("stopping".to_owned());
        end(client, run_dir, holder).await?;
        drop(progress);
    }
    clear(run_dir).await?;
    render::answer(common.output, &Stopped { stopped: held }, |_| String::new());
    Ok(())
}

async fn end(client: &Client, run_dir: &Path, holder: Option<Holder>) -> Result<(), Failure> {
    let process = holder.and_then(Holder::open);
    let asked = tokio::time::timeout(ANSWER, client.post::<Stopped>("/stop", &())).await;
    let Some(process) = process else { return Ok(()) };
    if !matches!(asked, Ok(Ok(_))) {
        process.terminate().map_err(|e| {
            Failure::new(code::NOT_PERMITTED, format!("the daemon neither answers nor takes a signal: {e}"))
                .hint("use root")
        })?;
    }
    match process.ended(END).await.map_err(Failure::internal)? {
        true => Ok(()),
        false => Err(still_running(run_dir, holder)),
    }
}

/// Waits for the end of a daemon that is about to end by itself.
pub(super) async fn ended(run_dir: &Path, holder: Option<Holder>) -> Result<(), Failure> {
    let Some(process) = holder.and_then(Holder::open) else { return Ok(()) };
    match process.ended(END).await.map_err(Failure::internal)? {
        true => Ok(()),
        false => Err(still_running(run_dir, holder)),
    }
}

/// What a killed daemon left lying is removed; a daemon that started meanwhile is left alone.
pub(super) async fn clear(run_dir: &Path) -> Result<(), Failure> {
    if !run_dir.join("lock").exists() && !run_dir.join(SOCKET).exists() {
        return Ok(());
    }
    match Lock::take_within(run_dir, END).await.map_err(|e| unreadable(run_dir, &e))? {
        Ok(lock) => {
            // Gone already is as good.
            let _ = std::fs::remove_file(run_dir.join(SOCKET));
            lock.release().map_err(|e| unreadable(run_dir, &e))
        }
        Err(holder) => Err(still_running(run_dir, holder)),
    }
}

fn still_running(run_dir: &Path, holder: Option<Holder>) -> Failure {
    let who = holder.map_or(String::new(), |Holder { pid, .. }| format!(" (process {pid})"));
    Failure::new(code::STILL_RUNNING, format!("the daemon of {}{who} did not end", run_dir.display()))
        .hint("see its log; as a last resort kill the process, containers keep their interfaces")
}

pub(super) fn unreadable(run_dir: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(
        code::NOT_PERMITTED,
        format!("the lock in {} cannot be used: {error}", run_dir.display()),
    );
    failure.hint("use root")
}
