//! `meshnet version`: of this program, and of the daemon if one runs.

use crate::args::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{Hello, Versions};

pub(super) async fn run(client: &Client, format: Format) -> Result<(), Failure> {
    let daemon = client.get::<Hello>("/hello").await.ok().map(|hello| hello.version);
    let versions = Versions { version: env!("CARGO_PKG_VERSION").to_owned(), daemon };
    render::answer(format, &versions, |versions| {
        let daemon = versions.daemon.as_deref().unwrap_or("not running");
        format!("meshnet {}\ndaemon {daemon}\n", versions.version)
    });
    Ok(())
}
