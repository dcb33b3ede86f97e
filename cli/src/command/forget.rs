//! `meshnet forget`: fewer peers.

use crate::args::{ForgetArgs, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::Targets;

pub(super) async fn run(client: &Client, format: Format, args: &ForgetArgs) -> Result<(), Failure> {
    let targets = args.peers.iter().map(ToString::to_string).collect();
    let done: Targets = client.post("/forget", &Targets { targets, replace: false }).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}
