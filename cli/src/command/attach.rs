//! `meshnet attach`: a port for a container. Prints the addresses alone, one per line.

use std::net::IpAddr;

use crate::args::{AttachArgs, EndpointArgs, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{self, Progress};
use crate::shape::{AttachRequest, Attachment};

pub(super) async fn run(client: &Client, format: Format, args: AttachArgs) -> Result<(), Failure> {
    let asked = request(args.container, args.network, args.ip, args.endpoint);
    let rate = args.rate.map(|rate| rate.to_string());
    ask(client, format, &AttachRequest { ifname: args.ifname, rate, ..asked }).await
}

/// What is asked of the daemon to put a container on a network.
pub(super) fn request(
    container: String,
    network: String,
    ip: Vec<IpAddr>,
    endpoint: EndpointArgs,
) -> AttachRequest {
    AttachRequest {
        container: absolute(container),
        network,
        ip,
        name: endpoint.name,
        mac: endpoint.mac.map(|mac| mac.to_string()),
        ifname: None,
        rate: None,
        no_spoof_check: endpoint.no_spoof_check,
        aliases: endpoint.naming.alias,
        links: endpoint.naming.link.into_iter().map(|link| (link.name, link.alias)).collect(),
        dns: !endpoint.naming.no_dns,
        timeout_s: endpoint.timeout.as_secs_f64(),
    }
}

/// Has the daemon attach a container, and prints its addresses.
pub(super) async fn ask(client: &Client, format: Format, request: &AttachRequest) -> Result<(), Failure> {
    let progress = Progress::start(format!("attaching {}", request.container));
    let done: Result<Attachment, Failure> = client.post("/attach", request).await;
    drop(progress);
    render::answer(format, &done?, |attachment| render::lines(&attachment.addresses));
    Ok(())
}

/// The daemon has a working directory of its own: a path is told from the root.
pub(super) fn absolute(container: String) -> String {
    let prefixed = container.starts_with("pid:") || container.starts_with("netns:");
    if prefixed || !container.contains('/') {
        return container;
    }
    std::path::absolute(&container).map_or(container, |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_made_absolute() {
        let same = |text: &str| absolute(text.to_owned()) == text;
        assert!(same("web") && same("pid:7") && same("netns:a") && same("/run/netns/a"));
        assert!(absolute("./a".to_owned()).starts_with('/'));
    }
}
