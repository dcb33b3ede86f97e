//! `meshnet status`: the whole or a part of it, or waiting until it is as wished.

use std::time::{Duration, Instant};

use peering::mesh::{IpamState, PeerState};

use crate::args::{Condition, Format, Part, StatusArgs};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::render::{self, Progress, status as text};
use crate::shape::Status;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often the wish for address space is repeated: it counts for five seconds.
const WISH: Duration = Duration::from_secs(2);

pub(super) async fn run(client: &Client, format: Format, args: &StatusArgs) -> Result<(), Failure> {
    if let Some(condition) = args.wait {
        let status = wait(client, condition, args.timeout).await?;
        render::answer(format, &status, |_| String::new());
        return Ok(());
    }
    let thorough = matches!(args.part, None | Some(Part::Dataplane));
    let status: Status = client.get(&format!("/status?thorough={thorough}")).await?;
    match args.part {
        None => render::answer(format, &status, text::whole),
        Some(Part::Peers) => render::answer(format, &status.peers, |peers| text::peers(peers)),
        Some(Part::Connections) => render::answer(format, &status.connections, |all| text::connections(all)),
        Some(Part::Targets) => render::answer(format, &status.targets, |all| text::connections(all)),
        Some(Part::Ipam) => render::answer(format, &status.ipam, |all| text::ipam(all)),
        Some(Part::Dns) => render::answer(format, &status.dns, |_| text::dns(&status)),
        Some(Part::Dataplane) => render::answer(format, &status.dataplane, text::dataplane),
    }
    Ok(())
}

/// Returns the first status that meets the condition. A daemon that does not run yet is waited for too.
async fn wait(client: &Client, condition: Condition, limit: Duration) -> Result<Status, Failure> {
    let _progress = Progress::start(format!("waiting {}", describe(condition)));
    let end = Instant::now().checked_add(limit);
    let mut wish = Instant::now();
    loop {
        let seen = client.get::<Status>("/status").await;
        match &seen {
            Ok(status) if is_met(status, condition) => return seen,
            Ok(_) if condition == Condition::Ipam && Instant::now() >= wish => {
                client.post::<()>("/space", &()).await?;
                wish = Instant::now() + WISH;
            }
            Err(failure) if failure.code != code::NOT_RUNNING => return seen,
            Ok(_) | Err(_) => {}
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(too_late(condition, limit, seen.as_ref().ok()));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_met(status: &Status, condition: Condition) -> bool {
    match condition {
        Condition::Ready => status.ready,
        Condition::Ipam => {
            status.ipam.iter().any(|ipam| ipam.network == "mesh" && ipam.state == IpamState::Ready)
        }
        Condition::Peers(wanted) => alive(status) >= wanted,
    }
}

fn alive(status: &Status) -> usize {
    status.peers.iter().filter(|peer| peer.state == PeerState::Alive).count()
}

fn describe(condition: Condition) -> String {
    match condition {
        Condition::Ready => "for the daemon".to_owned(),
        Condition::Ipam => "for address space".to_owned(),
        Condition::Peers(wanted) => format!("for {wanted} other hosts"),
    }
}

fn too_late(condition: Condition, limit: Duration, last: Option<&Status>) -> Failure {
    let what = match condition {
        Condition::Ready => "the daemon was not ready".to_owned(),
        Condition::Ipam => "there was no address space".to_owned(),
        Condition::Peers(wanted) => format!("{wanted} other hosts were not alive"),
    };
    let found = match (last, condition) {
        (None, _) => "no daemon answers".to_owned(),
        (Some(_), Condition::Ready) => "it is starting".to_owned(),
        (Some(status), Condition::Peers(_)) => format!("only {}", alive(status)),
        (Some(status), Condition::Ipam) => missing_space(status),
    };
    Failure::new(code::TIMEOUT, format!("{what} within {} s: {found}", limit.as_secs_f64()))
        .hint("see `meshnet status` and `meshnet status targets`")
}

fn missing_space(status: &Status) -> String {
    let waiting = status.ipam.iter().flat_map(|i| i.waiting_for.iter().map(String::as_str));
    let hosts: Vec<&str> = waiting.collect();
    if hosts.is_empty() { "nobody has any".to_owned() } else { format!("waiting for {}", hosts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::status::tests::example;

    #[test]
    fn conditions_look_at_the_right_things() {
        let mut status = example();
        assert!(is_met(&status, Condition::Ready));
        assert!(is_met(&status, Condition::Peers(1)));
        assert!(!is_met(&status, Condition::Peers(2)));
        assert!(is_met(&status, Condition::Ipam));
        status.ipam[0].state = IpamState::Waiting;
        status.ipam[0].waiting_for = vec!["node03".into()];
        assert!(!is_met(&status, Condition::Ipam));
        let failure = too_late(Condition::Ipam, Duration::from_secs(3), Some(&status));
        assert!(failure.message.contains("node03"));
        status.ipam.clear();
        assert!(!is_met(&status, Condition::Ipam));
    }
}
