//! A secret closes a cluster: who has it joins, who has not is refused on both sides, knows why, and learns nothing.

use std::path::PathBuf;

use netns_tests::{Host, Result, Topology, Value, anyhow, ensure, pause, secs, wait_for};

/// Makes a secret for a host, in a file of its own.
fn secret(host: &Host, name: &str) -> Result<String> {
    let path = host.directory().join(name).display().to_string();
    ensure!(host.run(&["secret", "generate", "--file", &path])?.is_empty(), "it prints something");
    Ok(path)
}

/// Gives a host the secret of another one.
fn share(from: &str, host: &Host) -> Result<String> {
    let path: PathBuf = host.directory().join("shared");
    std::fs::copy(from, &path)?;
    Ok(path.display().to_string())
}

/// The state and the reason that `status` shows for what leads to this address, and whether a next try is timed.
fn shown(host: &Host, list: &str, address: &str) -> Result<(String, String, bool)> {
    let status = host.status()?;
    let rows = status.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let row = rows.iter().find(|row| text(row, "target").starts_with(address));
    let row = row.ok_or_else(|| anyhow!("{list} of {} has nothing at {address}: {rows:?}", host.name()))?;
    Ok((text(row, "state"), text(row, "reason"), row.get("next_try_s").is_some_and(Value::is_number)))
}

fn refused(host: &Host, reason: &str) -> u64 {
    let count = host.status().ok().and_then(|status| {
        status.pointer(&format!("/control_port/refused/{reason}")).and_then(Value::as_u64)
    });
    count.unwrap_or(0)
}

/// Everything that a host knows, as text.
fn everything(host: &Host) -> Result<String> {
    Ok(host.run(&["report"])? + &host.run(&["status"])? + &host.run(&["status", "peers"])?)
}

/// Two hosts do not let each other in: both say why, the dialler tries again, later and later, and neither knows the other.
fn do_not_meet(net: &Topology, here: &str, there: &str) -> Result<()> {
    let (first, second) = (net.host(0), net.host(1));
    let (to_first, to_second) = (first.address().to_string(), second.address().to_string());
    wait_for("both count the refusal", secs(5), || refused(second, here) > 1 && refused(first, there) > 1)?;
    let word = |name: &str| if name == "wrong_secret" { "wrong secret" } else { "no secret" };
    wait_for("the dialler waits for its next try", secs(5), || {
        shown(second, "targets", &to_first)
            .is_ok_and(|(state, reason, timed)| state == "refused" && reason.starts_with(word(here)) && timed)
    })?;
    let (state, reason, _) = shown(first, "connections", &to_second)?;
    ensure!(state == "refused" && reason.starts_with(word(there)), "node01 shows {state}: {reason}");
    for (host, other) in [(first, "harbour"), (second, "lighthouse")] {
        let known = everything(host)?;
        ensure!(!known.contains(other), "{} knows the name {other}: {known}", host.name());
        ensure!(host.live_peers()?.is_empty() && host.ps()?.len() <= 1, "{} knows a host", host.name());
    }
    // Pauses grow: in three seconds there are few more tries.
    let before = refused(second, here);
    pause(secs(3));
    let more = refused(second, here) - before;
    ensure!((1..=6).contains(&more), "{more} tries in three seconds");
    Ok(())
}

#[test]
fn hosts_with_one_secret_join() -> Result<()> {
    let net = Topology::new("one secret")?.hosts(3)?;
    let file = secret(net.host(0), "secret")?;
    let text = std::fs::read_to_string(&file)?;
    net.host(0).launch(&["--secret-file", &file])?;
    net.host(1).launch(&["node01", "--secret-file", &share(&file, net.host(1))?])?;
    // The third has it from its environment.
    net.host(2).set_environment("MESHNET_SECRET", text.trim());
    net.host(2).launch(&["node02"])?;
    let (web, db, cache) =
        (net.host(0).attach("web")?, net.host(1).attach("db")?, net.host(2).attach("cache")?);
    web.ping(&db)?;
    cache.ping(&web)?;
    net.wait_converged(secs(10))?;
    for host in net.all() {
        let status = host.status()?;
        ensure!(status.get("open") == Some(&Value::Bool(false)), "{status}");
        ensure!(host.run(&["status"])?.contains("Access: closed"), "status does not say so");
        ensure!(!everything(host)?.contains(text.trim()), "{} shows the secret", host.name());
        let pid = host.daemon_pid().ok_or_else(|| anyhow!("no daemon"))?;
        let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        ensure!(!words.contains(text.trim()), "the secret is among the arguments");
        for directory in [host.state_dir(), host.run_dir(), host.directory().to_owned()] {
            for log in std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()) {
                let is_log = log.extension().is_some_and(|end| end == "log");
                ensure!(!is_log || !std::fs::read_to_string(&log)?.contains(text.trim()), "{log:?} has it");
            }
        }
    }
    Ok(())
}

#[test]
fn another_secret_is_refused_until_it_is_the_right_one() -> Result<()> {
    let net = Topology::new("another secret")?.hosts(2)?;
    let (first, second) = (net.host(0), net.host(1));
    let file = secret(first, "secret")?;
    first.launch(&["--secret-file", &file, "--nickname", "lighthouse"])?;
    let web = first.attach("web")?;
    second.launch(&["node01", "--nickname", "harbour", "--secret-file", &secret(second, "other")?])?;
    do_not_meet(&net, "wrong_secret", "wrong_secret")?;
    second.stop()?;
    second.launch(&["node01", "--nickname", "harbour", "--secret-file", &share(&file, second)?])?;
    first.wait("peers=1", secs(5))?;
    second.attach("db")?.ping(&web)?;
    let connections =
        first.status()?.get("connections").and_then(Value::as_array).cloned().unwrap_or_default();
    let all_stand = connections.iter().all(|it| it.get("state").is_some_and(|state| state == "established"));
    ensure!(all_stand, "the refusal is still shown: {connections:?}");
    Ok(())
}

#[test]
fn a_host_without_the_secret_is_refused_and_so_is_one_with_a_secret_by_an_open_cluster() -> Result<()> {
    for (closed, here, there) in
        [(0, "no_secret_here", "no_secret_there"), (1, "no_secret_there", "no_secret_here")]
    {
        let net = Topology::new("no secret")?.hosts(2)?;
        let file = secret(net.host(closed), "secret")?;
        let options = |host: usize| if host == closed { vec!["--secret-file", &file] } else { vec![] };
        net.host(0).launch(&[&options(0)[..], &["--nickname", "lighthouse"]].concat())?;
        net.host(1).launch(&[&options(1)[..], &["node01", "--nickname", "harbour"]].concat())?;
        do_not_meet(&net, here, there)?;
        let open = net.host(1 - closed);
        ensure!(open.run(&["status"])?.contains("Access: open"), "an open cluster does not say so");
    }
    Ok(())
}

#[test]
fn a_secret_that_is_none_fails_the_launch() -> Result<()> {
    let net = Topology::new("bad secrets")?.hosts(2)?;
    let host = net.host(0);
    let file = secret(host, "secret")?;
    let fails = |code: &str| -> Result<()> {
        let object = host.launch_command(&["--secret-file", &file, "-o", "json"])?.outcome()?;
        ensure!(host.daemon_pid().is_none(), "a daemon runs");
        // The daemon's words go to a log; what counts is the code, and that nothing runs.
        let error = object.fails_with(1)?;
        ensure!(error.contains(&format!("\"{code}\"")), "not {code}: {error}");
        Ok(())
    };
    host.tool("chmod").args(["640", &file]).run()?;
    fails("secret_open")?;
    host.tool("chmod").args(["600", &file]).run()?;
    host.tool("chown").args(["1", &file]).run()?;
    fails("secret_open")?;
    host.tool("chown").args(["0", &file]).run()?;
    std::fs::write(&file, "5c".repeat(31))?;
    fails("secret_unusable")?;
    ensure!(host.meshnet(&["secret", "generate", "--file", &file])?.fails_with(1)?.contains("exists"));
    ensure!(std::fs::read_to_string(&file)? == "5c".repeat(31), "the file was written over");
    let printed = host.run(&["secret", "generate"])?;
    std::fs::write(&file, &printed)?;
    host.set_environment("MESHNET_SECRET", printed.trim());
    fails("secret_unusable")
}

#[test]
fn systemd_hands_the_secret_over() -> Result<()> {
    let net = Topology::new("a credential")?.hosts(2)?;
    let host = net.host(0);
    secret(host, "meshnet-secret")?;
    host.set_environment("CREDENTIALS_DIRECTORY", &host.directory().display().to_string());
    host.launch(&[])?;
    ensure!(host.status()?.get("open") == Some(&Value::Bool(false)), "the credential was not taken");
    // Where it lies nothing can be written, and what is written is gone with the service.
    let said = host.meshnet(&["secret", "rotate"])?.fails_with(1)?;
    ensure!(said.contains("--file"), "{said}");
    ensure!(!host.directory().join("meshnet-secret.new").exists(), "a secret lies beside the credential");
    let new = host.directory().join("new").display().to_string();
    host.run(&["secret", "rotate", "--file", &new])?;
    let warnings = host.warnings("secret_file_stale")?;
    ensure!(warnings.len() == 1 && warnings[0].contains("LoadCredential"), "{warnings:?}");
    Ok(())
}

/// What `status` says of the other host and of the network.
fn agreed(host: &Host) -> Result<(Option<String>, Option<bool>, Option<u64>)> {
    let status = host.status()?;
    let agreement = status.pointer("/peers/0/agreement").and_then(Value::as_str).map(str::to_owned);
    let encrypted = status.pointer("/networks/0/encrypted").and_then(Value::as_bool);
    let (seals, kind) = (status.get("encryption"), status.pointer("/peers/0/path/kind"));
    let seals = seals.and_then(Value::as_str).ok_or_else(|| anyhow!("no encryption in {status}"))? == "on";
    ensure!(kind.is_none_or(|kind| kind == if seals { "sealed" } else { "plain" }), "{kind:?}");
    Ok((agreement, encrypted, status.pointer("/networks/0/mtu").and_then(Value::as_u64)))
}

#[test]
fn hosts_agree_on_sealing_or_are_told() -> Result<()> {
    let net = Topology::new("agreement")?.hosts(2)?;
    let (first, second) = (net.host(0), net.host(1));
    let file = secret(first, "secret")?;
    let other = share(&file, second)?;
    first.launch(&["--secret-file", &file])?;
    second.launch(&["node01", "--secret-file", &other, "--cipher", "chacha20-poly1305"])?;
    let web = first.attach("web")?;
    let link = web.namespace().ip("-oneline link show dev mesh0")?;
    ensure!(link.contains("mtu 1418"), "{link}");
    net.wait_converged(secs(5))?;
    for host in net.all() {
        let agreed = agreed(host)?;
        ensure!(agreed == (Some("sealed".to_owned()), Some(true), Some(1418)), "{}: {agreed:?}", host.name());
        ensure!(!host.tells("encryption_differs"), "{} differs from nobody", host.name());
    }
    let name = |host: &Host| host.status().map(|status| status.pointer("/sealing/secret").cloned());
    ensure!(
        name(first)? == name(second)? && name(first)?.is_some_and(|name| name.is_string()),
        "other names"
    );

    second.stop()?;
    second.launch(&["node01", "--secret-file", &other, "--encryption", "off"])?;
    for host in net.all() {
        wait_for("they are told that they differ", secs(5), || host.tells("encryption_differs"))?;
        ensure!(agreed(host)?.0.as_deref() == Some("differ"), "{:?}", agreed(host)?);
    }
    let db = second.attach("db")?;
    db.no_ping(&web, secs(3))
}

#[test]
fn an_open_cluster_agrees_on_plain_frames_and_a_wish_for_more_cuts_a_host_off() -> Result<()> {
    let net = Topology::new("plain")?.hosts(2)?;
    let key = |host: &Host| host.status().map(|status| status.pointer("/sealing/noise_key").cloned());
    net.host(0).launch(&[])?;
    net.host(1).launch(&["node01"])?;
    let web = net.host(0).attach("web")?;
    net.wait_converged(secs(5))?;
    for host in net.all() {
        let agreed = agreed(host)?;
        ensure!(agreed == (Some("plain".to_owned()), Some(false), Some(1450)), "{}: {agreed:?}", host.name());
    }
    let (before, ours) = (key(net.host(1))?, key(net.host(0))?);
    ensure!(before != ours && before.is_some(), "two hosts have one key: {before:?}");
    net.host(1).stop()?;
    net.host(1).launch(&["node01", "--encryption", "on"])?;
    ensure!(key(net.host(1))? == before, "the key did not outlive the daemon");
    let db = net.host(1).attach("db")?;
    db.no_ping(&web, secs(3))
}

#[test]
fn a_revoked_host_is_cut_off_within_seconds_and_only_a_new_key_brings_it_back() -> Result<()> {
    let net = Topology::new("revoke")?.hosts(3)?;
    let file = secret(net.host(0), "secret")?;
    let files = [file.clone(), share(&file, net.host(1))?, share(&file, net.host(2))?];
    for (host, file) in net.all().iter().zip(&files).take(2) {
        host.launch(&["node01", "node02", "node03", "--secret-file", file])?;
    }
    net.host(2).launch(&["node01", "node02", "--secret-file", &files[2], "--nickname", "harbour"])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    let thief = net.host(2).attach("thief")?;
    web.ping(&thief)?;
    let (honest, stolen) = (&net.all()[..2], net.host(2));
    let id = stolen.peer_id()?;
    let said = net.host(1).run(&["revoke", "harbour"])?;
    ensure!(said.contains(&id) && said.contains("new key") && said.contains("--allow-peers"), "{said}");
    for host in honest {
        let gone = || host.live_peers().is_ok_and(|peers| peers.len() == 1) && host.ps_row("thief").is_err();
        wait_for("it is cut off", secs(3), gone)?;
    }
    wait_for("it has no connection", secs(3), || {
        stolen.live_peers().is_ok_and(|peers| peers.is_empty()) || refused(stolen, "revoked") > 0
    })?;
    web.no_ping(&thief, secs(1.0))?;
    web.ping(&db)?;

    // Neither time nor a restart brings it back, there or here.
    stolen.stop()?;
    stolen.launch(&["node01", "node02", "--secret-file", &files[2], "--nickname", "harbour"])?;
    net.host(0).stop()?;
    net.host(0).launch(&["node02", "--secret-file", &files[0]])?;
    let second = net.host(1).address().to_string();
    wait_for("it is refused, and is told why", secs(5), || {
        shown(stolen, "targets", &second)
            .is_ok_and(|(state, reason, timed)| state == "refused" && reason.starts_with("revoked") && timed)
    })?;
    ensure!(refused(stolen, "revoked") > 0, "the refusal is not counted");
    for host in honest {
        ensure!(
            host.live_peers()?.len() <= 1 && host.ps_row("thief").is_err(),
            "{} took it back",
            host.name()
        );
    }
    let again = net.host(0).run_json(&["revoke", &id])?;
    ensure!(again.get("revoked") == Some(&Value::Bool(false)), "{again}");

    // With a new key it is another host, as the command said, unless only some are allowed.
    stolen.run(&["reset", "--force"])?;
    stolen.launch(&["node01", "node02", "--secret-file", &files[2]])?;
    for host in honest {
        host.wait("peers=2", secs(10))?;
    }
    let allowed = net.directory().join("allowed");
    std::fs::write(&allowed, format!("{} # node01\n{}\n", net.host(0).peer_id()?, net.host(1).peer_id()?))?;
    let allowed = allowed.display().to_string();
    for (host, file) in honest.iter().zip(&files) {
        host.stop()?;
        host.launch(&["node01", "node02", "--secret-file", file, "--allow-peers", &allowed])?;
    }
    wait_for("it is refused", secs(10), || refused(stolen, "not_allowed") > 0)?;
    web.ping_within(&db, secs(5))?;
    for host in honest {
        wait_for("they have each other", secs(10), || host.live_peers().is_ok_and(|peers| peers.len() == 1))?;
    }
    Ok(())
}
