//! Containers live their own life: ports follow when they start, stop or vanish.
//!
//! Nothing here trusts the order of messages. Whatever was heard, the container's present state is asked for, and
//! the port is brought to match it; so a message that was missed, repeated or late does no harm.

use std::sync::Arc;
use std::time::Duration;

use engine::io::netns::Netns;
use engine::types::PortId;

use super::Daemon;
use super::ports::{Intent, Source};
use crate::docker::{Change, Container, Events};
use crate::failure::Failure;

/// The first pause before Docker is asked again after it went away.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Follows Docker for as long as the daemon runs, however often Docker goes and comes back.
pub(super) async fn docker(daemon: Arc<Daemon>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match daemon.docker.events().await {
            Ok(events) => {
                tracing::debug!("Docker answers");
                listen(&daemon, events).await;
                tracing::info!("Docker went away");
                pause = FIRST_PAUSE;
            }
            Err(error) => tracing::debug!("{error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks at every attached container once, then at those of which something is heard.
async fn listen(daemon: &Arc<Daemon>, mut events: Events) {
    for id in attached(daemon) {
        settle(daemon, &id).await;
    }
    while let Some(Change { id }) = events.next().await {
        settle(daemon, &id).await;
    }
}

/// The ids of all Docker containers that have ports.
fn attached(daemon: &Daemon) -> Vec<String> {
    let ports = daemon.ports();
    let mut ids: Vec<String> = ports.all().filter_map(|i| docker_id(i).map(str::to_owned)).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn docker_id(intent: &Intent) -> Option<&str> {
    match &intent.source {
        Source::Docker { id } => Some(id),
        Source::Process { .. } | Source::File { .. } | Source::Host => None,
    }
}

/// Brings the ports of a Docker container to what Docker says of it. While Docker says nothing, nothing changes.
async fn settle(daemon: &Arc<Daemon>, id: &str) {
    let _one_at_a_time = daemon.settling.lock().await;
    let is_theirs = |i: &Intent| docker_id(i) == Some(id);
    if !daemon.ports().all().any(is_theirs) {
        return;
    }
    let container = match daemon.docker.inspect(id).await {
        Ok(container) => container,
        Err(error) => return tracing::warn!("a container cannot be looked at: {error}"),
    };
    let _turn = daemon.turn.lock().await;
    // Ports still waiting for their address belong to the attach that made them.
    let ports: Vec<Intent> =
        daemon.ports().all().filter(|i| is_theirs(i) && !i.addresses.is_empty()).cloned().collect();
    for port in ports {
        let name = port.container.clone();
        if let Err(failure) = follow(daemon, port, container.as_ref()).await {
            daemon.tell("port_lost", format!("the port of {name} could not follow its container: {failure}"));
        }
    }
    // Docker writes the file anew when a container starts or comes to another of its networks.
    daemon.point(&Source::Docker { id: id.to_owned() }, true).await;
}

async fn follow(daemon: &Arc<Daemon>, port: Intent, container: Option<&Container>) -> Result<(), Failure> {
    let Some(container) = container else {
        tracing::info!(container = port.container, port = %port.port, "container was removed");
        daemon.remove_port(&port, None).await;
        return Ok(());
    };
    // A process that is gone already counts as none: the next event will say what came after it.
    match container.pid.and_then(|pid| Netns::of_pid(pid).ok()) {
        Some(netns) => daemon.start_port(port, &netns).await.map(drop),
        None => daemon.stop_port(port).await,
    }
}

impl Daemon {
    /// The device of a port vanished: its container ended, or somebody deleted the interface.
    pub(super) async fn port_gone(self: &Arc<Self>, port: PortId, reason: &str) {
        let Some(intent) = self.ports().by_id(port).cloned() else { return };
        if let Some(id) = docker_id(&intent) {
            return self.docker_port_gone(&intent, id, reason).await;
        }
        let _turn = self.turn.lock().await;
        if self.opened().contains(&port) {
            return;
        }
        self.tell(
            "container_gone",
            format!("{} ended ({reason}); its port and address are free", intent.container),
        );
        self.remove_port(&intent, None).await;
    }

    /// Docker says whether the container ended or only its interface did; if it says nothing, the container stopped.
    async fn docker_port_gone(self: &Arc<Self>, intent: &Intent, id: &str, reason: &str) {
        tracing::info!(container = intent.container, "its interface is gone: {reason}");
        settle(self, id).await;
        let _turn = self.turn.lock().await;
        let Some(intent) = self.ports().by_id(intent.port).cloned() else { return };
        if intent.running && !self.opened().contains(&intent.port) {
            let stopped = self.stop_port(intent).await;
            stopped.unwrap_or_else(|failure| tracing::error!("{failure}"));
        }
    }
}
