//! `meshnet vtep`: external VXLAN endpoints.

use crate::args::{Format, VtepArgs, VtepCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{self, Table};
use crate::shape::Vtep;

pub(super) async fn run(client: &Client, format: Format, command: VtepCommand) -> Result<(), Failure> {
    match command {
        VtepCommand::Add(args) => change(client, format, "/vtep/add", args).await,
        VtepCommand::Rm(args) => change(client, format, "/vtep/rm", args).await,
        VtepCommand::Ls { network } => list(client, format, network.as_deref()).await,
    }
}

async fn change(client: &Client, format: Format, path: &str, args: VtepArgs) -> Result<(), Failure> {
    let done: Vtep = client.post(path, &Vtep { network: args.network, address: args.addr }).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}

async fn list(client: &Client, format: Format, network: Option<&str>) -> Result<(), Failure> {
    let mut vteps: Vec<Vtep> = client.get("/vteps").await?;
    vteps.retain(|vtep| network.is_none_or(|network| vtep.network == network));
    render::answer(format, &vteps, |vteps| {
        let mut table = Table::new(&["NETWORK", "ADDRESS"]);
        vteps.iter().for_each(|vtep| table.row([vtep.network.as_str(), &vtep.address.to_string()]));
        table.to_string()
    });
    Ok(())
}
