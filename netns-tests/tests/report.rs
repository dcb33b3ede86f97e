//! What a host says of itself when something is wrong: one document, and warnings where its own network is in the way.

use netns_tests::{Attached, Host, Result, Topology, Value, anyhow, ensure, secs, wait_until};

/// The value at a path of a document.
fn at<'a>(document: &'a Value, path: &str) -> Result<&'a Value> {
    document.pointer(path).ok_or_else(|| anyhow!("nothing at {path} in {document:.2000}"))
}

fn list<'a>(document: &'a Value, path: &str) -> Result<&'a Vec<Value>> {
    at(document, path)?.as_array().ok_or_else(|| anyhow!("{path} is no list"))
}

#[test]
fn a_report_has_everything_but_secrets() -> Result<()> {
    let net = Topology::new("report")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    net.wait_converged(secs(10))?;
    let text = net.host(0).run(&["report"])?;
    let report: Value = serde_json::from_str(&text)?;
    for path in ["/version", "/at_s", "/daemon/process/pid", "/daemon/process/uptime_s", "/kernel/version"] {
        ensure!(!at(&report, path)?.is_null(), "{path} is null");
    }
    ensure!(list(&report, "/daemon/status/peers")?.len() == 1 && list(&report, "/daemon/ps")?.len() == 2);
    ensure!(list(&report, "/daemon/tables/hosts")?.len() == 2, "{}", at(&report, "/daemon/tables/hosts")?);
    ensure!(
        !list(&report, "/daemon/tables/units")?.is_empty() && !list(&report, "/kernel/routes")?.is_empty()
    );
    let log = list(&report, "/daemon/log")?.iter().filter_map(Value::as_str).collect::<String>();
    ensure!(log.contains("ready") && log.contains("attached"), "the log is not in it: {log}");
    let records = list(&report, "/daemon/tables/records")?;
    let endpoints = records.iter().filter(|r| r.get("kind").and_then(Value::as_str) == Some("endpoint"));
    ensure!(endpoints.count() == 2, "{records:?}");
    is_behind(&report, &web, "port")?;
    is_behind(&report, &db, "address")?;
    tells_no_key(net.host(0), &text)?;

    net.host(0).stop()?;
    let state = net.host(0).state_dir().display().to_string();
    let report: Value = serde_json::from_str(&net.host(0).run(&["report", "--state-dir", &state])?)?;
    ensure!(at(&report, "/daemon")?.is_null(), "who answered?");
    ensure!(at(&report, "/failure/code")? == "not_running" && !at(&report, "/kernel/state_disk")?.is_null());
    Ok(())
}

/// The forwarding table has the container there.
fn is_behind(report: &Value, container: &Attached, place: &str) -> Result<()> {
    let entries = list(report, "/daemon/forwarding")?;
    let is_it = |entry: &&Value| entry.get("mac").and_then(Value::as_str) == Some(&container.mac);
    let entry =
        entries.iter().find(is_it).ok_or_else(|| anyhow!("{} is not among {entries:?}", container.mac))?;
    ensure!(entry.get(place).is_some_and(Value::is_string), "{entry}");
    Ok(())
}

/// No eight bytes of the secret keys in a row, in any case of hexadecimal digits or as a list of numbers.
fn tells_no_key(host: &Host, text: &str) -> Result<()> {
    let (identity, noise) =
        (std::fs::read(host.state_dir().join("identity"))?, std::fs::read(host.state_dir().join("noise"))?);
    let compact: String = text.to_lowercase().split_whitespace().collect();
    // The first bytes are the header of every file of the directory.
    let secrets = [&identity, &noise].map(|file| file.get(24..).unwrap_or_default());
    ensure!(secrets.iter().all(|secret| secret.len() >= 32), "a key is shorter than a key");
    for bytes in secrets.iter().flat_map(|secret| secret.windows(8)) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        ensure!(
            !compact.contains(&hex) && !compact.contains(&numbers),
            "a part of the keys is in the report"
        );
    }
    Ok(())
}

#[test]
fn a_range_that_overlaps_a_route_is_a_warning_for_as_long_as_it_does() -> Result<()> {
    let net = Topology::new("a range and a route")?.hosts(2)?;
    let host = net.host(0);
    host.namespace().ip("route add 10.40.0.0/16 via 192.0.2.2")?;
    let launched = host.try_launch(&[])?;
    ensure!(launched.code == Some(0), "{launched:?}");
    let warned = launched.stderr.lines().filter(|line| line.starts_with("meshnet: warning: "));
    let warned: Vec<_> =
        warned.filter(|line| line.contains("10.40.0.0/16") && line.contains("10.32.0.0/12")).collect();
    ensure!(warned.len() == 1, "it says {:?}", launched.stderr);
    let web = host.attach("web")?;
    ensure!(warnings(host)?.contains("range_overlaps"), "{}", warnings(host)?);
    host.namespace().ip("route del 10.40.0.0/16 via 192.0.2.2")?;
    ensure!(warnings(host)? == "[]", "{}", warnings(host)?);
    net.host(1).launch(&["node01"])?;
    ensure!(warnings(net.host(1))? == "[]", "the default route is no overlap: {}", warnings(net.host(1))?);
    net.host(1).attach("db")?.ping(&web)
}

#[test]
fn an_underlay_address_in_the_range_is_an_error() -> Result<()> {
    let net = Topology::new("a range and an address")?.hosts(2)?;
    let said = net.host(0).try_launch(&["--ipalloc-range", "192.0.2.0/24", "-o", "json"])?.fails_with(1)?;
    ensure!(said.contains("\"range_unusable\"") && said.contains("192.0.2.1"), "{said}");
    net.host(0).wait_gone(secs(5))?;

    // Who learns of such a range from others goes on, and gives no address out of it.
    net.host(0).launch(&["--ipalloc-range", "198.51.100.0/24"])?;
    let _web = net.host(0).attach("web")?;
    net.host(1).namespace().ip("address add 198.51.100.7/32 dev eth0")?;
    net.host(1).launch(&["node01"])?;
    net.wait_converged(secs(10))?;
    wait_until("it is warned", secs(5), || {
        ensure!(warnings(net.host(1))?.contains("range_unusable"), "{}", warnings(net.host(1))?);
        Ok(())
    })?;
    let refused = net.host(1).attach("db").err().ok_or_else(|| anyhow!("an address was given"))?;
    ensure!(format!("{refused:#}").contains("198.51.100.7"), "{refused:#}");
    Ok(())
}

fn warnings(host: &Host) -> Result<String> {
    Ok(host.status()?.get("warnings").map(Value::to_string).unwrap_or_default())
}
