//! `meshnet expose` and `meshnet hide`: the host itself on the overlay. `expose` prints its addresses, one per line.

use crate::args::{ExposeArgs, Format, HideArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{self, Progress};
use crate::shape::{Attachment, Detached, ExposeRequest, HideRequest, Passing};

pub(super) async fn expose(client: &Client, format: Format, args: ExposeArgs) -> Result<(), Failure> {
    let passing = match (args.route, args.masquerade) {
        (_, true) => Some(Passing::Masqueraded),
        (true, false) => Some(Passing::Routed),
        (false, false) => None,
    };
    let request = ExposeRequest {
        network: args.network,
        ip: [args.addresses, args.ip].concat(),
        name: args.name,
        ifname: args.ifname,
        passing,
        timeout_s: args.timeout.as_secs_f64(),
    };
    let progress = Progress::start("exposing this host".to_owned());
    let done: Result<Attachment, Failure> = client.post("/expose", &request).await;
    drop(progress);
    render::answer(format, &done?, |attachment| render::lines(&attachment.addresses));
    Ok(())
}

pub(super) async fn hide(client: &Client, format: Format, args: HideArgs) -> Result<(), Failure> {
    let done: Detached = client.post("/hide", &HideRequest { network: args.network }).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}
