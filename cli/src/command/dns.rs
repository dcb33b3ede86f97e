//! `meshnet dns-add`, `dns-remove` and `dns-lookup`: names that people give to addresses, and what containers are told.

use crate::args::Format;
use crate::args::naming::{DnsAddArgs, DnsLookupArgs, DnsRemoveArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{DnsAddRequest, DnsRemoveRequest, DnsRemoved, LookedUp, LookupRequest};

pub(super) async fn add(client: &Client, format: Format, args: DnsAddArgs) -> Result<(), Failure> {
    let DnsAddArgs { name, addresses, service, network } = args;
    let services = service.into_iter().map(|offer| (offer.service, offer.port)).collect();
    let request = DnsAddRequest { name, network, addresses, services };
    let done: DnsAddRequest = client.post("/dns/add", &request).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}

pub(super) async fn remove(client: &Client, format: Format, args: DnsRemoveArgs) -> Result<(), Failure> {
    let request = DnsRemoveRequest { name: args.name, network: args.network };
    let done: DnsRemoved = client.post("/dns/remove", &request).await?;
    render::answer(format, &done, |_| String::new());
    Ok(())
}

/// Prints one line for each address, or for each name of an address.
pub(super) async fn lookup(client: &Client, format: Format, args: DnsLookupArgs) -> Result<(), Failure> {
    let request = LookupRequest { what: args.what, network: args.network };
    let found: LookedUp = client.post("/dns/lookup", &request).await?;
    render::answer(format, &found, |found| render::lines(&found.addresses) + &render::lines(&found.names));
    Ok(())
}
