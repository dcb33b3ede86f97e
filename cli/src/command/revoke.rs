//! `meshnet revoke`: a host that nobody shall talk to again.

use crate::args::{Format, RevokeArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::render;
use crate::shape::{RevokeRequest, RevokedPeer};

pub(super) async fn run(client: &Client, format: Format, args: RevokeArgs) -> Result<(), Failure> {
    let done: RevokedPeer = client.post("/revoke", &RevokeRequest { peer: args.peer }).await?;
    render::answer(format, &done, text);
    Ok(())
}

fn text(done: &RevokedPeer) -> String {
    let RevokedPeer { peer_id, nickname, open, .. } = done;
    let door = if *open {
        "The cluster is open: whoever can reach it can come back with a new key. Give it a secret, or launch every host with \
         --allow-peers."
    } else {
        "Whoever knows the secret can come back with a new key, until the others have another secret, or were launched with \
         --allow-peers. To change it: look at `meshnet status peers`, revoke what is not yours, then `meshnet secret rotate`."
    };
    format!("{nickname} ({peer_id}) is revoked: no host talks to it any more.\n{door}\n")
}
