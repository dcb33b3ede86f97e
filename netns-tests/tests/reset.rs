//! Leaving for good: the space goes to the others, and nothing stays anywhere.

use netns_tests::{Host, Result, Topology, Value, anyhow, ensure, secs, wait_until};

#[test]
fn reset_hands_the_space_over_and_leaves_nothing() -> Result<()> {
    let net = Topology::new("reset")?.hosts(3)?;
    net.launch_together(&["node01", "node02", "node03"])?;
    let web = net.host(0).attach("web")?;
    let db = net.host(1).attach("db")?;
    let shell = net.host(2).attach("shell")?;
    web.ping(&db)?;
    net.wait_converged(secs(10))?;
    let whole = space(net.host(0))?.iter().map(|(_, size)| size).sum::<u64>();

    let directory = net.host(1).state_dir().to_string_lossy().into_owned();
    let done = net.host(1).run_json(&["reset", "--state-dir", &directory])?;
    ensure!(done.get("reset") == Some(&Value::Bool(true)), "{done}");
    ensure!(net.host(1).daemon_pid().is_none(), "a process stays");
    ensure!(db.namespace().ports()?.is_empty(), "an interface stays in the container");
    ensure!(net.host(1).namespace().ports()?.is_empty(), "an interface stays on the host");
    for directory in [net.host(1).state_dir(), net.host(1).run_dir()] {
        let left: Vec<_> = match std::fs::read_dir(&directory) {
            Ok(entries) => entries.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?,
            Err(_) => Vec::new(),
        };
        ensure!(left.is_empty(), "{left:?} stays in {}", directory.display());
    }
    for at in [0, 2] {
        wait_until("the others have the space, and nobody lists it", secs(5), || {
            let owners = space(net.host(at))?;
            ensure!(owners.iter().all(|(name, _)| name != net.host(1).name()), "{owners:?}");
            ensure!(owners.iter().map(|(_, size)| size).sum::<u64>() == whole, "space is lost: {owners:?}");
            ensure!(net.host(at).ps_row("db").is_err(), "its endpoint is listed");
            let status = net.host(at).status()?;
            let peers = status.get("peers").and_then(Value::as_array).map_or(0, Vec::len);
            ensure!(peers == 1, "it is a peer still: {status}");
            Ok(())
        })?;
    }
    web.ping(&shell)?;

    // Once more is fine, and the host may come again as a new one.
    let again = net.host(1).run_json(&["reset", "--state-dir", &directory])?;
    ensure!(again.get("reset") == Some(&Value::Bool(false)), "{again}");
    net.host(1).launch(&["node01"])?;
    net.host(1).attach("db2")?.ping(&web)
}

#[test]
fn reset_without_anybody_to_take_the_space_needs_force() -> Result<()> {
    let net = Topology::new("reset --force")?.hosts(2)?;
    net.launch_together(&["node01", "node02"])?;
    let web = net.host(0).attach("web")?;
    net.host(1).attach("db")?.ping(&web)?;
    net.host(1).kill_dead()?;
    wait_until("its death is known", secs(15), || {
        ensure!(net.host(0).live_peers()?.is_empty(), "not yet");
        Ok(())
    })?;
    let directory = net.host(0).state_dir().to_string_lossy().into_owned();
    let reset = ["reset", "--state-dir", &directory];
    let refused = net.host(0).meshnet(&reset)?.fails_with(1)?;
    ensure!(refused.contains("--force"), "{refused}");
    ensure!(net.host(0).ps_row("web").is_ok(), "a refusal changes nothing");

    // Without a daemon nobody can ask the others.
    net.host(0).stop()?;
    let refused = net.host(0).meshnet(&reset)?.fails_with(1)?;
    ensure!(refused.contains("belongs to cluster"), "{refused}");
    ensure!(web.namespace().ports()?.len() == 1, "a refusal changes nothing");
    net.host(0).run(&["reset", "--force", "--state-dir", &directory])?;
    ensure!(web.namespace().ports()?.is_empty(), "an interface stays in the container");
    for key in ["identity", "noise"] {
        ensure!(!net.host(0).state_dir().join(key).exists(), "the keys stay");
    }
    Ok(())
}

/// Who owns how many addresses, as a host knows it.
fn space(host: &Host) -> Result<Vec<(String, u64)>> {
    let status = host.status()?;
    let owners = status.pointer("/ipam/0/owners").and_then(Value::as_array);
    let owners = owners.ok_or_else(|| anyhow!("no owners in {status}"))?;
    let read =
        |owner: &Value| Some((owner.get("nickname")?.as_str()?.to_owned(), owner.get("size")?.as_u64()?));
    Ok(owners.iter().filter_map(read).collect())
}
