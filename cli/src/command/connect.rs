//! `meshnet connect`: more peers.

use crate::args::{ConnectArgs, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::Targets;

pub(super) async fn run(client: &Client, format: Format, args: &ConnectArgs) -> Result<(), Failure> {
    let targets = args.peers.iter().map(ToString::to_string).collect();
    let done: Targets = client.post("/connect", &Targets { targets, replace: args.replace }).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}
