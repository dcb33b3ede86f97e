//! `meshnet network`: networks are made, looked at, joined, left and removed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::attach;
use super::attach::absolute;
use crate::args::Format;
use crate::args::network::{CreateArgs, Filter, JoinArgs, LeaveArgs, LsArgs, NetworkCommand, PruneFilter};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::render::{self, network as text};
use crate::shape::{DetachRequest, Detached, Inspected, Network, NetworkNames, RemovedNetworks};

pub(super) async fn run(client: &Client, format: Format, command: NetworkCommand) -> Result<(), Failure> {
    match command {
        NetworkCommand::Create(args) => create(client, format, *args).await,
        NetworkCommand::Ls(args) => list(client, format, &args).await,
        NetworkCommand::Inspect { networks } => inspect(client, format, networks).await,
        NetworkCommand::Connect(args) => connect(client, format, args).await,
        NetworkCommand::Disconnect(args) => disconnect(client, format, args).await,
        NetworkCommand::Rm { networks } => remove(client, format, networks).await,
        NetworkCommand::Prune { filter } => prune(client, format, &filter).await,
    }
}

async fn create(client: &Client, format: Format, args: CreateArgs) -> Result<(), Failure> {
    let request = args.request().map_err(|wrong| Failure::new(code::BAD_USAGE, wrong.reason))?;
    let made: Network = client.post("/network/create", &request).await?;
    render::answer(format, &made, |made| format!("{}\n", made.network_id));
    Ok(())
}

async fn list(client: &Client, format: Format, args: &LsArgs) -> Result<(), Failure> {
    let networks: Vec<Network> = client.get("/networks").await?;
    let networks: Vec<&Network> = networks.iter().filter(|n| Filter::pass(&args.filter, n)).collect();
    render::answer(format, &networks, |networks| listed(networks, args));
    Ok(())
}

fn listed(networks: &[&Network], args: &LsArgs) -> String {
    let id = |network: &&Network| match args.no_trunc {
        true => format!("{}\n", network.network_id),
        false => format!("{}\n", text::short(&network.network_id)),
    };
    match &args.format {
        _ if args.quiet => networks.iter().map(id).collect(),
        Some(template) => template.render(networks, args.no_trunc),
        None => text::table(networks, args.no_trunc),
    }
}

/// The answer is JSON, however it is to be printed.
async fn inspect(client: &Client, format: Format, networks: Vec<String>) -> Result<(), Failure> {
    let found: Vec<Inspected> = client.post("/network/inspect", &NetworkNames { networks }).await?;
    let shown: Vec<Value> = found.iter().map(text::docker).collect();
    let pretty = serde_json::to_string_pretty(&shown).map_err(Failure::internal)?;
    render::answer(format, &shown, |_| pretty + "\n");
    Ok(())
}

async fn connect(client: &Client, format: Format, args: JoinArgs) -> Result<(), Failure> {
    let v4 = args.ip.map(Into::into);
    let ip = v4.into_iter().chain(args.ip6.map(Into::into)).collect();
    let request = attach::request(args.container, args.network, ip, args.endpoint);
    attach::ask(client, format, &request).await
}

async fn disconnect(client: &Client, format: Format, args: LeaveArgs) -> Result<(), Failure> {
    let (container, network) = (absolute(args.container), args.network);
    let request = DetachRequest { container, network, must: !args.force };
    let done: Detached = client.post("/detach", &request).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}

/// Those that can be are removed; what is wrong with the others is told.
async fn remove(client: &Client, format: Format, networks: Vec<String>) -> Result<(), Failure> {
    let (mut removed, mut failures) = (Vec::new(), Vec::new());
    for network in networks {
        let request = NetworkNames { networks: vec![network] };
        match client.post::<RemovedNetworks>("/network/rm", &request).await {
            Ok(done) => removed.extend(done.removed),
            Err(failure) => failures.push(failure),
        }
    }
    let last = failures.pop();
    failures.iter().for_each(|failure| render::failure(failure, format));
    if last.is_none() || !removed.is_empty() {
        answer(format, removed);
    }
    last.map_or(Ok(()), Err)
}

async fn prune(client: &Client, format: Format, filters: &[PruneFilter]) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let networks: Vec<Network> = client.get("/networks").await?;
    let meant = networks.into_iter().filter(|n| !n.is_builtin() && PruneFilter::pass(filters, n, now));
    let request = NetworkNames { networks: meant.map(|network| network.network_id).collect() };
    let done: RemovedNetworks = client.post("/network/prune", &request).await?;
    answer(format, done.removed);
    Ok(())
}

fn answer(format: Format, mut removed: Vec<String>) {
    removed.sort();
    render::answer(format, &RemovedNetworks { removed }, |done| render::lines(&done.removed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::network;

    #[test]
    fn a_list_is_as_it_was_asked_for() {
        let blue = network("blue");
        let list = |quiet, no_trunc, format: Option<&str>| {
            let format = format.map(|text| text.parse().unwrap());
            listed(&[&blue], &LsArgs { filter: Vec::new(), format, quiet, no_trunc })
        };
        assert_eq!(list(true, false, None), "00ab00ab00ab\n");
        assert_eq!(list(true, true, None), format!("{}\n", blue.network_id));
        assert_eq!(list(false, false, Some("{{.Name}}")), "blue\n");
        assert!(list(false, false, None).starts_with("NETWORK ID"));
    }
}
