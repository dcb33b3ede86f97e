//! With a secret, what containers say to each other crosses the underlay sealed or not at all.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test says something over sockets")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use netns_tests::{
    Addressed, Attached, Capture, Host, IperfServer, Result, Tool, Topology, Transport, Value, anyhow,
    ensure, ethernet, secs, vxlan, wait_until,
};

/// In every ping and in the first message of every connection.
const MARKER: &str = "meshnet-marker!!";
/// Where the containers listen.
const PORT: u16 = 7000;
/// Names of containers that nothing else is called by.
const WEB: &str = "lighthouse";
const DB: &str = "breakwater";
/// The largest packet where 1500 bytes pass below, and sealing takes 32.
const MTU: usize = 1418;

/// Everything on the underlay of the first host, from before there are daemons until the containers have talked.
fn overheard(net: &Topology, sealed: bool) -> Result<(Vec<u8>, Attached, Attached)> {
    let host = net.host(0);
    let capture = Capture::start(host.namespace(), host.interface(), "", net.directory())?;
    let files = if sealed { net.share_secret()? } else { Vec::new() };
    let with = |own: &[&str], file: Option<&String>| {
        let secret = file.map(|file| ["--secret-file".to_owned(), file.clone()]).into_iter().flatten();
        own.iter().map(|word| (*word).to_owned()).chain(secret).collect::<Vec<_>>()
    };
    for (at, own) in [(0, &[][..]), (1, &["node01"])] {
        let words = with(own, files.get(at));
        net.host(at).launch(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let (web, db) = (net.host(0).attach(WEB)?, net.host(1).attach(DB)?);
    web.ping(&db)?;
    talk(&web, &db)?;
    Ok((capture.stop_raw()?, web, db))
}

/// What betrays a container: its address, as bytes and as text, and its MAC address.
fn traces(of: &Attached) -> Result<Vec<Vec<u8>>> {
    let IpAddr::V4(address) = of.address() else {
        return Err(anyhow!("{} is no IPv4 address", of.address()));
    };
    let mac = of.mac.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<u8>, _>>()?;
    Ok(vec![address.octets().to_vec(), address.to_string().into_bytes(), mac])
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}

/// The marker by ICMP, TCP and UDP.
fn talk(web: &Attached, db: &Attached) -> Result<()> {
    let address = db.address();
    let pattern: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let ping = format!("-c 3 -i 0.2 -W 2 -p {pattern} {address}");
    Tool::new("ping").words(&ping).inside(web.namespace()).run()?;
    say_by_tcp(web, db)?;
    say_by_udp(web, db)
}

fn say_by_tcp(web: &Attached, db: &Attached) -> Result<()> {
    let at = SocketAddr::new(db.address(), PORT);
    let listener = db.namespace().run(|| TcpListener::bind(at))??;
    let mut said = web.namespace().run(|| TcpStream::connect_timeout(&at, secs(5)))??;
    said.write_all(MARKER.as_bytes())?;
    let (mut heard, _) = listener.accept()?;
    heard.set_read_timeout(Some(secs(5)))?;
    let mut bytes = [0; MARKER.len()];
    heard.read_exact(&mut bytes)?;
    ensure!(bytes == MARKER.as_bytes(), "TCP brought {bytes:?}");
    Ok(())
}

fn say_by_udp(web: &Attached, db: &Attached) -> Result<()> {
    let at = SocketAddr::new(db.address(), PORT);
    let socket = db.namespace().run(|| UdpSocket::bind(at))??;
    socket.set_read_timeout(Some(secs(5)))?;
    web.namespace().send_datagrams(at, &[MARKER.as_bytes().to_vec()])?;
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes)?;
    ensure!(&bytes[..length] == MARKER.as_bytes(), "UDP brought {:?}", &bytes[..length]);
    Ok(())
}

fn path_kind(host: &Host) -> Result<String> {
    let peers = host.run_json(&["status", "peers"])?;
    let kind = peers.pointer("/0/path/kind").and_then(Value::as_str);
    kind.map(str::to_owned).ok_or_else(|| anyhow!("no path in {peers}"))
}

#[test]
fn a_marker_is_seen_on_the_underlay_of_an_open_cluster_and_not_of_a_closed_one() -> Result<()> {
    let open = Topology::new("a marker in clear")?.hosts(2)?;
    let (seen, web, db) = overheard(&open, false)?;
    // Three of ICMP, each with an answer, one of TCP, one of UDP.
    ensure!(count(&seen, MARKER.as_bytes()) >= 8, "the test is blind: {}", count(&seen, MARKER.as_bytes()));
    for of in [&web, &db] {
        let [address, _, mac] = &traces(of)?[..] else { return Err(anyhow!("no traces")) };
        ensure!(count(&seen, address) > 8 && count(&seen, mac) > 8, "the test is blind for {}", of.name());
    }

    let closed = Topology::new("a marker, sealed")?.hosts(2)?;
    let (seen, web, db) = overheard(&closed, true)?;
    ensure!(seen.len() > 20_000, "nothing was seen: {} bytes", seen.len());
    // Part of it would be enough to betray the rest.
    let mut signs = vec![MARKER.as_bytes()[..8].to_vec(), WEB.into(), DB.into(), b"mesh0".to_vec()];
    signs.extend([traces(&web)?, traces(&db)?].concat());
    for sign in signs {
        ensure!(count(&seen, &sign) == 0, "{:?} was seen", String::from_utf8_lossy(&sign));
    }
    for host in 0..2 {
        ensure!(path_kind(closed.host(host))? == "sealed", "the path of node0{} is plain", host + 1);
    }
    Ok(())
}

#[test]
fn a_stolen_nickname_is_a_name_and_nothing_else() -> Result<()> {
    let net = Topology::new("a host that calls itself as another one")?.hosts(3)?;
    let files = net.share_secret()?;
    let wrong = net.directory().join("wrong").display().to_string();
    net.host(2).run(&["secret", "generate", "--file", &wrong])?;
    net.host(0).launch(&["--secret-file", &files[0]])?;
    net.host(1).launch(&["node01", "--nickname", "harbour", "--secret-file", &files[1]])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    let (near, thief) = (net.host(0), net.host(2));
    // Without the secret it is not even heard.
    thief.launch(&["node01", "--nickname", "harbour", "--secret-file", &wrong])?;
    wait_until("it is refused", secs(5), || {
        let refused = near.status()?.pointer("/control_port/refused/wrong_secret").and_then(Value::as_u64);
        ensure!(refused > Some(0) && near.live_peers()?.len() == 1, "{refused:?}");
        Ok(())
    })?;
    // With it, it is a host of that name, and gets what is for it: nothing of what is for the other one.
    thief.stop()?;
    thief.launch(&["node01", "--nickname", "harbour", "--secret-file", &files[2]])?;
    near.wait("peers=2", secs(10))?;
    let refused = near.meshnet(&["-o", "json", "rmpeer", "--force", "harbour"])?.fails_with(1)?;
    ensure!(refused.contains("ambiguous_peer"), "{refused}");
    let own = thief.attach("own")?;
    own.ping(&web)?;
    let long = |capture: Capture| -> Result<usize> {
        Ok(capture.stop_with("-q")?.matches("UDP, length 782").count())
    };
    let captured = |host: &Host| {
        let filter = format!("udp port 4789 and src host {}", near.address());
        Capture::start(host.namespace(), host.interface(), &filter, net.directory())
    };
    let (there, elsewhere) = (captured(net.host(1))?, captured(thief)?);
    // Sealed, it has 782 bytes.
    let ping = format!("-c 5 -i 0.2 -W 2 -s 700 {}", db.address());
    Tool::new("ping").words(&ping).inside(web.namespace()).run()?;
    let (there, elsewhere) = (long(there)?, long(elsewhere)?);
    ensure!(there == 5 && elsewhere == 0, "{there} frames there, {elsewhere} elsewhere");
    Ok(())
}

#[test]
fn full_packets_pass_and_the_books_balance() -> Result<()> {
    let net = Topology::new("sealed, at full size")?.hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    // 28 bytes are headers of IPv4 and ICMP.
    web.ping_whole(&db, MTU - 28)?;
    web.namespace().ping_in_fragments(&db, 4_000)?;
    let server = IperfServer::start(db.namespace(), &db)?;
    let forward = server.measure(web.namespace(), Transport::Tcp { streams: 4 }, secs(2), "")?;
    let back = server.measure(web.namespace(), Transport::Tcp { streams: 2 }, secs(2), "-R")?;
    ensure!(forward.bytes()? > 1e7 && back.bytes()? > 1e7, "too little came through");
    let udp = Transport::Udp { payload_bytes: 1000, bits_per_second: 20_000_000 };
    let (sent, lost) = server.measure(web.namespace(), udp, secs(1), "")?.datagrams()?;
    ensure!(sent > 1000.0 && lost < sent / 50.0, "{lost} of {sent} datagrams were lost");
    for host in [net.host(0), net.host(1)] {
        host.wait_balanced(secs(5))?;
        for reason in ["bad_sealed", "replayed", "plain_on_sealed"] {
            ensure!(host.dropped(reason)? == 0, "{}: {:?}", host.name(), host.drops()?);
        }
    }
    Ok(())
}

#[test]
fn after_a_kill_and_a_launch_sealed_traffic_goes_on() -> Result<()> {
    let net = Topology::new("SIGKILL and launch under a sealed stream")?.hosts(2)?;
    let (web, db) = net.sealed_web_and_db(&[])?;
    let files: Vec<_> = (0..2).map(|host| net.host(host).directory().join("secret")).collect();
    net.host(1).kill_dead()?;
    net.host(1).launch(&["node01", "--secret-file", &files[1].display().to_string()])?;
    web.ping_within(&db, secs(5))?;
    db.ping_within(&web, secs(2))?;
    Ok(())
}

#[test]
fn frames_in_clear_are_dropped_and_counted() -> Result<()> {
    let net = Topology::new("VXLAN in clear towards a sealed network")?.hosts(2)?;
    net.sealed_web_and_db(&[])?;
    // From the address of a peer, and for its network.
    let frame = ethernet([0xff; 6], [2, 0, 0, 0, 0, 9], 0x0806, &[0; 40]);
    let to = SocketAddr::new(net.host(1).address().into(), 4789);
    net.host(0).namespace().send_datagrams(to, &vec![vxlan(1, &frame); 5])?;
    wait_until("they are counted", secs(5), || {
        let counted = net.host(1).dropped("plain_on_sealed")?;
        ensure!(counted == 5, "{counted}");
        Ok(())
    })?;
    Ok(())
}
