//! A cluster goes over to another secret: under traffic nothing is lost, who was away is cut off and says why, and who was
//! revoked gets nothing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test talks over sockets, in threads"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use netns_tests::{
    Addressed, Attached, Host, Process, Result, Tool, Topology, Value, anyhow, ensure, pause, ping_all_pairs,
    secs, wait_for,
};

/// Where the containers listen.
const PORT: u16 = 7000;
/// How long traffic runs: the former secret is gone, and with it every session under it, well before the end.
const TRAFFIC_S: u32 = 25;
/// Echo requests in a second.
const PINGS: u32 = 100;
/// Even when the kernel had no room for as many: more than this of 25,000 are not lost in a moment in which the machine did
/// something else.
const MOST_LOST: u64 = 50;
/// Reasons for which a rotation could drop frames.
const REASONS: [&str; 6] =
    ["no_session", "session_used_up", "unknown_session", "bad_sealed", "replayed", "plain_on_sealed"];

/// The file of a host with the secret of all.
fn file(host: &Host) -> PathBuf {
    host.directory().join("secret")
}

fn launch(host: &Host) -> Result<()> {
    host.launch(&["node01", "node02", "--secret-file", &file(host).display().to_string()])
}

/// The name of the secret that a host prefers, and how far it says the rotation is.
fn secret_of(host: &Host) -> Result<(String, String)> {
    let status = host.status()?;
    let text = |at: &str| status.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((text("/sealing/secret"), text("/rotation/phase")))
}

/// The bytes of a secret in hexadecimal digits.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| Ok(u8::from_str_radix(&pair.iter().collect::<String>(), 16)?);
    digits.chunks(2).map(byte).collect()
}

/// Whether a host shows that it is refused because its secret is an old one.
fn says_why(host: &Host) -> bool {
    let status = host.status().unwrap_or_default();
    let targets = status.get("targets").and_then(Value::as_array).cloned().unwrap_or_default();
    let reason = |row: &Value| row.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
    targets.iter().any(|row| {
        reason(row).contains("this host's secret is no longer taken")
            && row.get("state").is_some_and(|state| state == "refused")
    })
}

/// Echo requests from one container to another, a hundred a second.
fn start_pings(from: &Attached, to: &Attached) -> Result<Process> {
    let words = format!("-n -i {} -c {} {}", 1.0 / f64::from(PINGS), TRAFFIC_S * PINGS, to.address());
    Tool::new("ping").words(&words).inside(from.namespace()).start()
}

/// The numbers of the echo requests that were not answered, as ping tells.
fn unanswered(said: &str) -> Result<Vec<u32>> {
    let sent = format!("{} packets transmitted", TRAFFIC_S * PINGS);
    ensure!(said.contains(&sent), "ping did not come to its end: {said}");
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
    let answered: BTreeSet<u32> = said.lines().filter_map(number).collect();
    Ok((1..=TRAFFIC_S * PINGS).filter(|number| !answered.contains(number)).collect())
}

/// Frames for which the kernel had no room in a ring or a socket: the daemon stood still, on a machine that does much else.
/// They are lost with or without a rotation.
fn kernel_drops(hosts: &[Host]) -> Result<u64> {
    let mut sum = 0;
    for host in hosts {
        let dataplane = host.dataplane()?;
        for (list, names) in
            [("ports", &["kernel_drops_in", "kernel_drops_out"][..]), ("workers", &["kernel_drops"])]
        {
            let rows = dataplane.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
            let counts = rows.iter().flat_map(|row| names.iter().filter_map(|name| row.get(*name)?.as_u64()));
            sum += counts.sum::<u64>();
        }
    }
    Ok(sum)
}

/// A TCP stream whose every byte is known, until it is told to end.
struct Stream {
    end: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<u64>>,
}

/// The bytes of a stream: each block of 1024 begins with its number.
fn block(number: u64) -> [u8; 1024] {
    let mut block = [(number % 251) as u8; 1024];
    block[..8].copy_from_slice(&number.to_le_bytes());
    block
}

impl Stream {
    fn start(from: &Attached, to: &Attached) -> Result<Self> {
        let at = SocketAddr::new(to.address(), PORT);
        let listener = to.namespace().run(|| TcpListener::bind(at))??;
        let mut said = from.namespace().run(|| TcpStream::connect_timeout(&at, secs(5)))??;
        let (mut heard, _) = listener.accept()?;
        heard.set_read_timeout(Some(secs(10)))?;
        said.set_write_timeout(Some(secs(10)))?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let sender = thread::spawn(move || {
            let mut number = 0;
            while !ended.load(Ordering::Relaxed) {
                said.write_all(&block(number))?;
                number += 1;
                if number % 4 == 0 {
                    pause(secs(0.01));
                }
            }
            Ok(number)
        });
        let receiver = thread::spawn(move || {
            let (mut number, mut bytes) = (0, [0; 1024]);
            loop {
                match heard.read_exact(&mut bytes) {
                    Ok(()) => ensure!(bytes == block(number), "block {number} is not as it was sent"),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(number),
                    Err(error) => return Err(error.into()),
                }
                number += 1;
            }
        });
        Ok(Stream { end, sender, receiver })
    }

    /// The blocks that came through, all of those that were sent.
    fn finish(self) -> Result<u64> {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let received = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))??;
        ensure!(sent == received, "{sent} blocks were sent, {received} came");
        Ok(received)
    }
}

#[test]
fn five_hosts_go_over_under_traffic_without_a_packet_lost() -> Result<()> {
    let net = Topology::new("rotation")?.hosts(6)?;
    net.share_secret()?;
    let hosts = &net.all()[..5];
    hosts.iter().try_for_each(launch)?;
    let containers: Vec<Attached> =
        hosts.iter().map(|host| host.attach(&format!("c-{}", host.name()))).collect::<Result<_>>()?;
    net.wait_converged_among(5, secs(20))?;
    ping_all_pairs(&containers.iter().collect::<Vec<_>>())?;
    let (old, phase) = secret_of(net.host(0))?;
    ensure!(!old.is_empty() && phase.is_empty(), "{old:?} {phase:?}");

    let before: Vec<_> = hosts.iter().map(Host::drops).collect::<Result<_>>()?;
    let kernel_before = kernel_drops(hosts)?;
    let ring = (0..5).map(|at| start_pings(&containers[at], &containers[(at + 1) % 5]));
    let across = (0..5).map(|at| start_pings(&containers[at], &containers[(at + 2) % 5]));
    let pings: Vec<Process> = ring.chain(across).collect::<Result<_>>()?;
    let stream = Stream::start(&containers[1], &containers[3])?;
    pause(secs(2));
    let said = net.host(2).run(&["secret", "rotate"])?;
    let new_file = PathBuf::from(format!("{}.new", file(net.host(2)).display()));
    ensure!(said.contains(&new_file.display().to_string()), "it does not say where the secret is: {said}");
    let mode = std::fs::metadata(&new_file)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "the new secret has mode {mode:o}");
    let new_text = std::fs::read_to_string(&new_file)?.trim().to_owned();
    for host in hosts {
        wait_for("it takes the new one alone", secs(5), || {
            secret_of(host).is_ok_and(|(name, phase)| name != old && phase == "done")
        })?;
    }
    let mut all_lost = 0;
    for ping in pings {
        let outcome = ping.wait(secs(f64::from(TRAFFIC_S) + 20.0))?;
        let lost = unanswered(&outcome.stdout)?;
        all_lost += lost.len() as u64;
        let kernel = kernel_drops(hosts)? - kernel_before;
        ensure!(
            all_lost <= kernel.min(MOST_LOST),
            "{}: lost {lost:?}, and the kernel had no room for {kernel}",
            outcome.what
        );
    }
    let blocks = stream.finish()?;
    ensure!(blocks > 1000, "only {blocks} KiB came through");
    for (host, before) in hosts.iter().zip(&before) {
        let drops = host.drops()?;
        let more = |reason: &&&str| {
            drops.get(**reason).copied().unwrap_or(0) > before.get(**reason).copied().unwrap_or(0)
        };
        let more: Vec<_> = REASONS.iter().filter(more).collect();
        ensure!(more.is_empty(), "{} dropped frames for {more:?}: {before:?}, {drops:?}", host.name());
    }

    let (new, _) = secret_of(net.host(2))?;
    for host in hosts {
        ensure!(secret_of(host)?.0 == new, "{} has another one", host.name());
        ensure!(host.warns("secret_file_stale"), "{} does not tell that its file is an old one", host.name());
        let everything = host.run(&["report"])? + &host.run(&["status"])?;
        ensure!(!everything.contains(&new_text), "{} shows the secret", host.name());
        let kept = std::fs::metadata(host.state_dir().join("secrets"))?.permissions().mode() & 0o7777;
        ensure!(kept == 0o600, "{kept:o}");
        let raw = bytes_of(&new_text)?;
        let mut logs = 0;
        for file in std::fs::read_dir(host.directory())?.chain(std::fs::read_dir(host.state_dir())?).flatten()
        {
            if !file.file_name().to_string_lossy().contains(".log") {
                continue;
            }
            let log = std::fs::read(file.path())?;
            let holds = |secret: &[u8]| log.windows(secret.len()).any(|part| part == secret);
            ensure!(!holds(new_text.as_bytes()) && !holds(&raw), "{} has it", file.path().display());
            logs += 1;
        }
        ensure!(logs > 0, "there was no log to look at");
    }
    ensure!(net.host(0).run(&["status"])?.contains("on all 5 hosts"), "the overview does not show it");

    // The file beside the old one is read again, and holds the secret that is in use: that is no success.
    let again = net.host(2).meshnet(&["secret", "rotate"])?.fails_with(1)?;
    let told = again.contains("already") && again.contains(&format!("{} holds", new_file.display()));
    ensure!(told, "it does not say what to do: {again}");
    ensure!(new_file.exists() && secret_of(net.host(2))?.0 == new, "there was another rotation");
    // A host with the old file goes on with what it keeps.
    net.host(4).stop()?;
    launch(net.host(4))?;
    ensure!(
        secret_of(net.host(4))?.0 == new && net.host(4).events("secret_differs")?.len() == 1,
        "it forgot"
    );
    containers[0].ping(&containers[4])?;
    // A new host needs the new file.
    launch(net.host(5))?;
    wait_for("it says why it is refused", secs(10), || says_why(net.host(5)))?;
    net.host(5).stop()?;
    std::fs::copy(&new_file, file(net.host(5)))?;
    launch(net.host(5))?;
    net.host(5).wait("peers=5", secs(20))?;
    let late = net.host(5).attach("late")?;
    late.ping(&containers[2])?;
    // With the new file in the place of the old one there is nothing to tell any more.
    std::fs::copy(&new_file, file(net.host(1)))?;
    ensure!(!net.host(1).warns("secret_file_stale"), "it still warns");
    Ok(())
}

#[test]
fn a_host_left_behind_is_cut_off_and_says_why_and_a_revoked_one_gets_nothing() -> Result<()> {
    let net = Topology::new("left behind")?.hosts(5)?;
    net.share_secret()?;
    net.all().iter().try_for_each(launch)?;
    let web = net.host(0).attach("web")?;
    let (away, thief) = (net.host(3).attach("away")?, net.host(4).attach("thief")?);
    net.wait_converged(secs(20))?;
    web.ping(&away)?;
    web.ping(&thief)?;
    let (old, _) = secret_of(net.host(0))?;
    net.host(1).run(&["revoke", &net.host(4).peer_id()?])?;
    // A host that never hears of it would talk to the revoked one.
    wait_for("all know it", secs(5), || net.all()[..4].iter().all(|host| host.ps_row("thief").is_err()))?;
    net.host(3).kill_dead()?;
    wait_for("it is known to be down", secs(20), || {
        net.all()[..3]
            .iter()
            .all(|host| host.live_peers().is_ok_and(|peers| !peers.contains(&"node04".to_owned())))
    })?;

    let new_file = net.directory().join("new");
    let new = new_file.display().to_string();
    let waits =
        net.host(0).meshnet(&["secret", "rotate", "--file", &new, "--timeout", "6"])?.fails_with(1)?;
    ensure!(waits.contains("node04 (down)") && waits.contains("--leave-behind"), "{waits}");
    ensure!(secret_of(net.host(1))?.1 == "prefer", "it did not wait for the host that is down");
    let other = net.host(1).meshnet(&["secret", "rotate", "--file", &format!("{new}er"), "-o", "json"])?;
    ensure!(other.fails_with(1)?.contains("rotation_under_way"), "there are two at once");
    ensure!(!net.directory().join("newer").exists(), "a secret that nobody has lies there");
    let done = net.host(1).run_json(&["secret", "rotate", "--leave-behind"])?;
    ensure!(done.pointer("/left_behind/0").is_some_and(|it| it == "node04"), "{done}");
    ensure!(done.get("left_behind").and_then(Value::as_array).map(Vec::len) == Some(1), "{done}");

    launch(net.host(3))?;
    let behind = net.host(3);
    wait_for("it says why it is cut off", secs(10), || {
        says_why(behind) && behind.events("secret_retired").is_ok_and(|told| told.len() == 1)
    })?;
    ensure!(behind.live_peers()?.is_empty(), "it has peers");
    ensure!(secret_of(behind)?.0 == old, "it got the secret");
    web.no_ping(&away, secs(2))?;
    ensure!(secret_of(net.host(4))?.0 == old, "the revoked host got the secret");
    wait_for("it is alone", secs(20), || net.host(4).live_peers().is_ok_and(|peers| peers.is_empty()))?;
    web.no_ping(&thief, secs(1))?;

    // With the new secret it is one of them again; the revoked one is not.
    for host in [behind, net.host(4)] {
        host.stop()?;
        std::fs::copy(&new_file, file(host))?;
        launch(host)?;
    }
    behind.wait("peers=2", secs(40))?;
    wait_for("frames pass again", secs(10), || web.ping(&away).is_ok())?;
    ensure!(net.host(4).live_peers()?.is_empty(), "a revoked host is back");
    web.no_ping(&thief, secs(1))
}
