//! `meshnet rmpeer`: a host that will not return.

use crate::args::{Format, RmpeerArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{RemoveRequest, RemovedPeer};

pub(super) async fn run(client: &Client, format: Format, args: RmpeerArgs) -> Result<(), Failure> {
    let RmpeerArgs { peer, force } = args;
    let done: RemovedPeer = client.post("/rmpeer", &RemoveRequest { peer, force }).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}
