//! Space of hosts that stay away comes back by itself.

use netns_tests::{Host, Result, Topology, Value, anyhow, ensure, secs, wait_until};

const AFTER: [&str; 2] = ["--reclaim-after", "6s"];

#[test]
fn every_host_is_replaced_one_by_one_without_a_command() -> Result<()> {
    let net = Topology::new("three hosts replaced one by one")?.hosts(3)?;
    let names = ["node01", "node02", "node03"];
    net.launch_together(&[&AFTER[..], &names[..]].concat())?;
    let mut containers =
        (0..3).map(|n| net.host(n).attach(&format!("old{n}"))).collect::<Result<Vec<_>>>()?;
    containers[0].ping(&containers[2])?;
    net.wait_converged(secs(10))?;
    let whole: u64 = owners(net.host(0))?.iter().map(|(_, size)| size).sum();
    for (n, container) in containers.iter_mut().enumerate() {
        // The machine burns: another one comes in its place, of the same name and address, with keys of its own.
        let before = text(&net.host(n).status()?, "peer_id")?;
        net.host(n).kill_dead()?;
        std::fs::remove_dir_all(net.host(n).state_dir())?;
        net.host(n).launch(&[&AFTER[..], &names[..]].concat())?;
        *container = net.host(n).attach(&format!("new{n}"))?;
        wait_until("the old one is gone everywhere", secs(45), || {
            for host in net.all() {
                let has = owners(host)?;
                ensure!(has.iter().all(|(peer, _)| *peer != before), "{} knows its space", host.name());
                ensure!(has.iter().map(|(_, size)| size).sum::<u64>() == whole, "space is lost: {has:?}");
                ensure!(host.ps()?.len() == 3, "{} lists its endpoint", host.name());
                let peers = host.status()?.get("peers").and_then(Value::as_array).map_or(0, Vec::len);
                ensure!(peers == 2, "{} has {peers} peers", host.name());
            }
            Ok(())
        })?;
    }
    net.wait_converged(secs(10))?;
    containers[0].ping(&containers[1])?;
    containers[1].ping(&containers[2])
}

/// Who owns how many addresses, as a host knows it.
fn owners(host: &Host) -> Result<Vec<(String, u64)>> {
    let status = host.status()?;
    let owners = status.pointer("/ipam/0/owners").and_then(Value::as_array);
    let owners = owners.ok_or_else(|| anyhow!("no owners in {status}"))?;
    let read =
        |owner: &Value| Some((owner.get("peer_id")?.as_str()?.to_owned(), owner.get("size")?.as_u64()?));
    Ok(owners.iter().filter_map(read).collect())
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| anyhow!("no {key} in {value}"))
}
