//! `meshnet detach`: the port of a container goes, with all it left anywhere.

use super::attach::absolute;
use crate::args::{DetachArgs, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{DetachRequest, Detached};

pub(super) async fn run(client: &Client, format: Format, args: DetachArgs) -> Result<(), Failure> {
    let (container, network) = (absolute(args.container), args.network);
    let request = DetachRequest { container, network, must: false };
    let done: Detached = client.post("/detach", &request).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}
