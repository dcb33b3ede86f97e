//! `meshnet secret rotate`: the cluster goes over to another secret.
//!
//! The daemons do it among themselves; this command gives them the secret, and waits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peering::mesh::{HolderStatus, RotationStatus};
use peering::secret::Secret;

use crate::args::{Format, RotateArgs};
use crate::client::Client;
use crate::daemon::privileges::hide_memory;
use crate::failure::{Failure, code};
use crate::render::{self, Progress, holder};
use crate::secret;
use crate::shape::{RotateRequest, Rotated, Status};

/// How often it is looked how far it is.
const POLL: Duration = Duration::from_millis(100);
/// Standard input instead of a file.
const STANDARD_INPUT: &str = "-";
/// What the file of the new secret is called beside that of the old one.
const NEW: &str = ".new";

/// The new secret, and where it is.
struct Given {
    secret: Option<Secret>,
    file: Option<PathBuf>,
    /// The file was made just now.
    made: bool,
}

pub(super) async fn run(client: &Client, format: Format, args: &RotateArgs) -> Result<(), Failure> {
    // The secret is in this process, in more places than can be wiped.
    hide_memory()?;
    let status: Status = client.get("/status").await?;
    let under_way = status.rotation.as_ref().filter(|rotation| !is_done(rotation) && !rotation.lost);
    let given = given(args, &status, under_way.is_some())?;
    let to = given.secret.as_ref().map(|secret| secret.name().to_string());
    let to = to.or_else(|| under_way.map(|rotation| rotation.to.clone())).unwrap_or_default();
    let text = given.secret.as_ref().map(|secret| secret.text().to_string());
    let request = RotateRequest { secret: text, leave_behind: args.leave_behind };
    if let Err(failure) = say(client, &request, args.timeout).await {
        return Err(given.refused(failure));
    }
    let done = wait(client, &to, args.timeout).await?;
    render::answer(format, &rotated(to, given.file, &done), |done| {
        text_of(done, status.sealing.secret_file.as_deref())
    });
    Ok(())
}

impl Given {
    /// What people are told when the daemon did not take it. A file that was made for nothing goes; one whose secret the
    /// cluster may have, stays.
    fn refused(&self, failure: Failure) -> Failure {
        let Some(file) = &self.file else { return failure };
        let shown = file.display();
        match &*failure.code {
            // The daemon may have begun before it went away; or it begins once it can.
            code::NOT_RUNNING | code::INTERNAL | code::STORE_FAILED => {
                failure.hint(format!("keep {shown}: `meshnet status` shows whether the cluster goes over to it"))
            }
            _ if self.made => {
                let _ = std::fs::remove_file(file);
                failure
            }
            code::SECRET_IN_USE | code::SECRET_RETIRED => failure.hint(format!(
                "{shown} holds an old one: remove it, or name another file with --file, and a new secret is made"
            )),
            _ => failure,
        }
    }
}

/// Tells the daemon. One that was started just now has to meet the others first.
async fn say(client: &Client, request: &RotateRequest, limit: Duration) -> Result<(), Failure> {
    let end = Instant::now().checked_add(limit);
    loop {
        match client.post("/secret/rotate", request).await {
            Err(failure) if failure.code == code::TOO_EARLY && end.is_none_or(|end| Instant::now() < end) => {
                tokio::time::sleep(POLL).await;
            }
            said => return said,
        }
    }
}

/// The new secret from where people say, or none to go on with what is under way. Where there is none at all the daemon says
/// why that leads nowhere.
fn given(args: &RotateArgs, status: &Status, under_way: bool) -> Result<Given, Failure> {
    if status.open {
        return Ok(Given { secret: None, file: None, made: false });
    }
    let file = match &args.file {
        Some(file) if file == Path::new(STANDARD_INPUT) => {
            let secret = Some(secret::from_standard_input()?);
            return Ok(Given { secret, file: None, made: false });
        }
        Some(file) => file.clone(),
        None if under_way => return Ok(Given { secret: None, file: None, made: false }),
        None => beside(status)?,
    };
    let file = std::path::absolute(file).map_err(Failure::internal)?;
    let (secret, made) = secret::read_or_make(&file)?;
    Ok(Given { secret: Some(secret), file: Some(file), made })
}

fn beside(status: &Status) -> Result<PathBuf, Failure> {
    let old = status.sealing.secret_file.as_ref().ok_or_else(|| {
        Failure::new(
            code::BAD_USAGE,
            "where shall the new secret be kept? this host was launched without a file",
        )
        .hint("name one with --file")
    })?;
    let mut new = old.clone().into_os_string();
    new.push(NEW);
    Ok(new.into())
}

fn is_done(rotation: &RotationStatus) -> bool {
    rotation.phase == "done"
}

/// Waits until no other secret than `to` is taken.
async fn wait(client: &Client, to: &str, limit: Duration) -> Result<Status, Failure> {
    let _progress = Progress::start("going over to the new secret".to_owned());
    let end = Instant::now().checked_add(limit);
    loop {
        let status: Status = client.get("/status").await?;
        let rotation = status.rotation.as_ref();
        let done = rotation.is_none_or(is_done);
        if done && status.sealing.secret.as_deref() == Some(to) {
            return Ok(status);
        }
        if let Some(other) = rotation.filter(|rotation| rotation.to != to && !rotation.lost) {
            return Err(Failure::new(
                code::ROTATION_SUPERSEDED,
                format!(
                    "the cluster goes over to another secret, {}, since {} said so at the same time",
                    other.to, other.by
                ),
            )
            .hint("wait for that with `meshnet status`; the secret given here is not used"));
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(too_late(rotation, limit));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn too_late(rotation: Option<&RotationStatus>, limit: Duration) -> Failure {
    let missing: Vec<String> = rotation.iter().flat_map(|rotation| waited_for(rotation)).collect();
    let whom = if missing.is_empty() { "the last hosts".to_owned() } else { missing.join(", ") };
    let message =
        format!("the cluster has not gone over within {} s: waiting for {whom}", limit.as_secs_f64());
    let hint = match rotation {
        Some(rotation) if rotation.lost => {
            "no host has that secret any more: give it with --file, or make another one with `meshnet secret rotate`"
        }
        _ => {
            "it goes on by itself, see `meshnet status`; hosts that are down can be left behind with `meshnet secret rotate --leave-behind`"
        }
    };
    Failure::new(code::TIMEOUT, message).hint(hint)
}

/// The hosts that do not use the new secret yet, with their states.
fn waited_for(rotation: &RotationStatus) -> impl Iterator<Item = String> {
    rotation.hosts.iter().filter(|host| host.member && !host.uses).map(holder)
}

fn rotated(secret: String, file: Option<PathBuf>, status: &Status) -> Rotated {
    let hosts: Vec<HolderStatus> =
        status.rotation.as_ref().map(|rotation| rotation.hosts.clone()).unwrap_or_default();
    let behind = hosts.iter().filter(|host| !host.has).map(|host| host.nickname.clone());
    Rotated { secret, file, left_behind: behind.collect(), hosts }
}

fn text_of(done: &Rotated, old: Option<&Path>) -> String {
    let mut text =
        format!("The cluster has gone over to the secret {}: no other is taken any more.\n", done.secret);
    if !done.left_behind.is_empty() {
        let who = done.left_behind.join(", ");
        text += &format!("Left behind, until they are launched with the new secret: {who}.\n");
    }
    let place = old.map_or_else(
        || "where the old one is".to_owned(),
        |old| format!("in the place of {}", old.display()),
    );
    text + &match &done.file {
        Some(file) => format!(
            "The new secret is in {}. Put it {place}, on every host: hosts that are launched without what the others keep need it.\n",
            file.display()
        ),
        None => format!(
            "Put the new secret {place}, on every host: hosts that are launched without what the others keep need it.\n"
        ),
    }
}
