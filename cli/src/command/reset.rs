//! `meshnet reset`: this host leaves its cluster for good, and nothing of meshnet stays on it.

use std::path::Path;

use peering::io::{StoreError, stored_cluster};

use super::launch::LOG;
use super::stop;
use crate::args::{Common, ResetArgs};
use crate::client::Client;
use crate::daemon::lock::Lock;
use crate::daemon::wipe;
use crate::failure::{Failure, code};
use crate::render::{self, Progress};
use crate::shape::{ResetDone, ResetRequest};

/// Hands over by the daemon, if one runs; then removes what is left of either.
pub(super) async fn run(client: &Client, common: &Common, args: &ResetArgs) -> Result<(), Failure> {
    let run_dir = common.run_dir.as_path();
    let (holder, held) = Lock::look(run_dir).map_err(|e| stop::unreadable(run_dir, &e))?;
    let (state_dir, mut reset) = if held {
        let progress = Progress::start("handing the address space over".to_owned());
        let done: ResetDone = client.post("/reset", &ResetRequest { force: args.force }).await?;
        stop::ended(run_dir, holder).await?;
        drop(progress);
        (done.state_dir, done.reset)
    } else {
        check(&args.state_dir, args.force)?;
        wipe::remove_devices(&args.state_dir)?;
        (args.state_dir.clone(), false)
    };
    stop::clear(run_dir).await?;
    // The log is there when it found no room in the state directory.
    reset |= std::fs::remove_file(run_dir.join(LOG)).is_ok();
    reset |= wipe::wipe(&state_dir).map_err(|e| wipe::failure(&state_dir, &e))?;
    render::answer(common.output, &ResetDone { reset, state_dir }, |_| String::new());
    Ok(())
}

/// Without a daemon nobody can hand the space over: what belongs to a cluster goes by force only.
fn check(dir: &Path, force: bool) -> Result<(), Failure> {
    if wipe::ours(dir).map_err(|e| unusable(dir, &e))?.is_empty() {
        return Ok(());
    }
    let cluster = match stored_cluster(dir) {
        Ok(None) => return Ok(()),
        Ok(Some(cluster)) => format!("belongs to cluster {cluster}"),
        Err(error @ StoreError::Locked { .. }) => {
            return Err(Failure::new(code::STATE_DIR_IN_USE, error.to_string())
                .hint("name the --run-dir of the daemon that uses it"));
        }
        Err(error) => format!("cannot be read ({error}) and may belong to a cluster"),
    };
    if force {
        return Ok(());
    }
    let message = format!(
        "the state in {} {cluster}, and no daemon runs that could hand its address space over",
        dir.display()
    );
    Err(Failure::new(code::NOBODY_TAKES_SPACE, message).hint(
        "`meshnet launch` and reset then, or use --force: the others take the space after reclaim-after",
    ))
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    Failure::new(code::STATE_DIR_UNUSABLE, format!("{} cannot be read: {error}", dir.display()))
        .hint("use root")
}
