//! `meshnet ps`: the containers on the overlay.

use crate::args::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{self, Table};
use crate::shape::Listed;

pub(super) async fn run(client: &Client, format: Format) -> Result<(), Failure> {
    let listed: Vec<Listed> = client.get("/ps").await?;
    render::answer(format, &listed, |listed| table(listed));
    Ok(())
}

fn table(listed: &[Listed]) -> String {
    let mut table =
        Table::new(&["NAME", "NETWORK", "ADDRESS", "MAC", "HOST", "STATE", "INTERFACE", "CONTAINER"]);
    for Listed { attachment: a, peer_id, nickname, state } in listed {
        let host = nickname.as_deref().unwrap_or(peer_id);
        table.row([
            &a.name,
            &a.network,
            &a.addresses.join(","),
            &a.mac,
            host,
            state,
            &a.ifname,
            &a.container,
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Attachment;

    #[test]
    fn a_line_for_each_container() {
        let attachment = Attachment {
            container: "web".into(),
            network: "mesh".into(),
            name: "web".into(),
            address: Some("10.32.0.2/12".into()),
            addresses: vec!["10.32.0.2/12".into()],
            mac: "02:00:00:00:00:01".into(),
            ifname: "mesh0".into(),
        };
        let listed = Listed {
            attachment,
            peer_id: "00".into(),
            nickname: Some("node01".into()),
            state: "running".into(),
        };
        let expected = "\
NAME  NETWORK  ADDRESS       MAC                HOST    STATE    INTERFACE  CONTAINER
web   mesh     10.32.0.2/12  02:00:00:00:00:01  node01  running  mesh0      web
";
        assert_eq!(table(std::slice::from_ref(&listed)), expected);
        let json = serde_json::to_value(&listed).unwrap();
        for field in
            ["container", "network", "name", "address", "addresses", "mac", "ifname", "peer_id", "state"]
        {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
