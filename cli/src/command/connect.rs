//! `meshnet connect`: more peers.

use std::time::{Duration, Instant};

use peering::mesh::{PeerState, TargetState, TargetStatus};

use crate::args::{ConnectArgs, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{Peer, Status, Targets};

/// How long the first attempts are waited for: an `attach` that follows on the other host shall find the
/// cluster there, and not found one of its own.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);
/// How often the attempts are looked at.
const POLL: Duration = Duration::from_millis(10);

pub(super) async fn run(client: &Client, format: Format, args: &ConnectArgs) -> Result<(), Failure> {
    let targets: Vec<String> = args.peers.iter().map(ToString::to_string).collect();
    let request = Targets { targets, replace: args.replace };
    let done: Targets = client.post("/connect", &request).await?;
    await_first_attempts(client, &request.targets).await;
    render::answer(format, &done, |_| String::new());
    Ok(())
}

/// Returns when each of the targets is connected or has failed once, at the latest after two seconds: the daemon
/// goes on trying, so nothing is wrong then.
async fn await_first_attempts(client: &Client, wanted: &[String]) {
    let end = Instant::now() + FIRST_ATTEMPT;
    while Instant::now() < end {
        let Ok(status) = client.get::<Status>("/status").await else { return };
        let mut ours = status.targets.iter().filter(|target| wanted.contains(&target.target));
        if ours.all(|target| is_tried(target, &status.peers)) {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A peer that is alive has answered on the connection: it knows of this host and of its cluster, too.
fn is_tried(target: &TargetStatus, peers: &[Peer]) -> bool {
    match target.state {
        TargetState::Established => peers
            .iter()
            .any(|peer| Some(&peer.peer_id) == target.peer_id.as_ref() && peer.state == PeerState::Alive),
        TargetState::Refused => true,
        TargetState::Waiting => target.reason.is_some(),
        TargetState::Resolving | TargetState::Connecting => false,
    }
}
