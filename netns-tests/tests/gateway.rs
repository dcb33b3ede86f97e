//! The gateway answers inside the switch: ping, and names over UDP and TCP.

use std::net::{IpAddr, Ipv4Addr};

use netns_tests::{Attached, Result, Tool, Topology, ensure, secs, wait_until};

/// The gateway of the network `mesh` with the usual range.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 32, 0, 1));

/// What `dig` with these words says inside a container, asking the gateway once.
fn dig(container: &Attached, words: &str) -> Result<String> {
    let line = format!("@{GATEWAY} +time=2 +tries=1 {words}");
    Tool::new("dig").inside(container.namespace()).words(&line).run()
}

/// The records alone, in order.
fn short(container: &Attached, words: &str) -> Result<Vec<String>> {
    let mut lines: Vec<String> =
        dig(container, &format!("+short {words}"))?.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// The status of the answer, as `NOERROR`, and how many answers it has.
fn status(container: &Attached, words: &str) -> Result<(String, u32)> {
    let said = dig(container, words)?;
    let after = |mark: &str| {
        let rest = said.split_once(mark).map(|(_, rest)| rest).unwrap_or_default();
        rest.split([',', ';']).next().unwrap_or_default().trim().to_owned()
    };
    Ok((after("status: "), after("ANSWER: ").parse().unwrap_or(u32::MAX)))
}

#[test]
fn the_gateway_is_pinged_from_every_host() -> Result<()> {
    let net = Topology::new("ping the gateway")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    for container in [&web, &db] {
        container.ping(&GATEWAY)?;
        container.namespace().ping_whole(&GATEWAY, 1422)?;
    }
    net.all().iter().try_for_each(|host| host.wait_balanced(secs(5)))
}

#[test]
fn names_are_answered_over_udp_and_tcp_in_all_their_forms() -> Result<()> {
    let net = Topology::new("names")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    wait_until("db is known on node01", secs(5), || {
        ensure!(short(&web, "db")? == [db.address.to_string()], "not yet");
        Ok(())
    })?;
    for (asker, name, holder) in [(&web, "db", &db), (&db, "web", &web)] {
        let address = holder.address.to_string();
        for form in ["", ".", ".mesh", ".mesh.mesh.internal", ".MESH.mesh.Internal."] {
            for way in ["", "+tcp", "+noedns", "+bufsize=4096", "+tcp +keepopen"] {
                let words = format!("{name}{form} {way}");
                ensure!(short(asker, &words)? == [address.as_str()], "dig {words}");
            }
        }
        let full = format!("{name}.mesh.mesh.internal.");
        ensure!(short(asker, &format!("-x {address}"))? == [full.as_str()], "the name of {address}");
        ensure!(short(asker, &format!("{name} ANY"))?.contains(&address), "ANY of {name}");
    }
    let shouted = dig(&web, "+noall +answer dB.mEsH")?;
    ensure!(shouted.starts_with("dB.mEsH."), "another case: {shouted}");
    net.all().iter().try_for_each(|host| host.wait_balanced(secs(5)))
}

#[test]
fn what_is_not_there_is_told_apart_from_what_has_no_such_record() -> Result<()> {
    let net = Topology::new("no such name")?.hosts(1)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let is = |words: &str, status_is: &str| -> Result<()> {
        let (status, answers) = status(&web, words)?;
        ensure!((status.as_str(), answers) == (status_is, 0), "dig {words}: {status}, {answers} answers");
        Ok(())
    };
    for words in ["web AAAA", "web SRV", "web MX", "mesh.mesh.internal A", "web AAAA +tcp"] {
        is(words, "NOERROR")?;
    }
    for words in [
        "nobody.mesh.mesh.internal",
        "web.other.mesh.internal",
        "-x 10.47.255.254",
        "no.mesh.mesh.internal +tcp",
    ] {
        is(words, "NXDOMAIN")?;
    }
    is("version.bind CH TXT", "REFUSED")?;
    is("mesh.internal AXFR +noedns", "REFUSED").or_else(|_| {
        // Newer ones say it in a word.
        let said = dig(&web, "mesh.internal AXFR")?;
        ensure!(said.contains("Transfer failed"), "{said}");
        Ok(())
    })?;
    is("+opcode=UPDATE web", "NOTIMP")?;
    ensure!(short(&web, "mesh.internal SOA")?.len() == 1, "no SOA");
    let counted = net.host(0).dataplane()?;
    let count = |name: &str| counted.pointer(&format!("/gateway/{name}")).and_then(|count| count.as_u64());
    ensure!(count("nxdomain") >= Some(4) && count("restarts") == Some(0), "{counted}");
    net.host(0).wait_balanced(secs(5))
}

#[test]
fn names_go_with_their_container_and_come_with_the_next() -> Result<()> {
    let net = Topology::new("names go")?.hosts(2)?;
    let (web, db) = net.web_and_db(&[])?;
    wait_until("db is known", secs(5), || {
        ensure!(short(&web, "db")? == [db.address.to_string()], "not yet");
        Ok(())
    })?;
    db.kill()?;
    wait_until("db is gone", secs(2), || {
        ensure!(short(&web, "db")?.is_empty(), "still there");
        Ok(())
    })?;
    let next = net.host(1).attach("db")?;
    wait_until("the next db is known", secs(2), || {
        ensure!(short(&web, "db")? == [next.address.to_string()], "not yet");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn other_ports_of_the_gateway_refuse() -> Result<()> {
    let net = Topology::new("closed ports")?.hosts(1)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let connect = |port: u16| web.namespace().connections((GATEWAY, port).into(), 1);
    let refused = connect(22).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("refused"), "port 22: {refused:?}");
    ensure!(connect(53).is_ok(), "port 53 takes no connection");
    let asked =
        Tool::new("dig").inside(web.namespace()).words(&format!("@{GATEWAY} -p 123 +time=2 +tries=1 web"));
    let said = asked.outcome()?;
    ensure!(said.code != Some(0), "port 123 answers");
    let counted = net.host(0).dataplane()?;
    let closed = counted.pointer("/drops/gateway_closed").and_then(|count| count.as_u64());
    ensure!(closed >= Some(2), "{counted}");
    net.host(0).wait_balanced(secs(5))
}

#[test]
fn what_does_not_fit_is_cut_over_udp_and_whole_over_tcp() -> Result<()> {
    let net = Topology::new("many addresses")?.hosts(1)?;
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let addresses: Vec<String> = (1..=40).map(|last| format!("192.0.2.{last}")).collect();
    let words: Vec<&str> = addresses.iter().map(String::as_str).collect();
    net.host(0).run(&[&["dns-add", "farm"], words.as_slice(), &["--service", "_http._tcp:8080"]].concat())?;
    wait_until("the name is told", secs(5), || {
        ensure!(short(&web, "farm +tcp")?.len() == addresses.len(), "not yet");
        Ok(())
    })?;
    // 512 bytes, without and with extensions; what does not fit is asked for again over TCP.
    let cut = dig(&web, "farm +noedns +ignore")?;
    ensure!(cut.contains(" tc ") && !cut.contains("ANSWER: 40"), "not cut: {cut}");
    ensure!(dig(&web, "farm +bufsize=512 +ignore")?.contains(" tc "), "not cut with EDNS");
    ensure!(!dig(&web, "farm +bufsize=1232 +ignore")?.contains(" tc "), "cut though there is room");
    ensure!(short(&web, "farm +noedns")?.len() == addresses.len(), "not whole over TCP");
    let services = short(&web, "_http._tcp.farm SRV")?;
    ensure!(services == ["0 0 8080 farm.mesh.mesh.internal."], "SRV: {services:?}");
    ensure!(short(&web, "-x 192.0.2.7")? == ["farm.mesh.mesh.internal."], "the name of an address outside");
    Ok(())
}
