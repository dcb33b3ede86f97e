//! `capture` shows what passes, costs nobody more than frames that it counts, and leaves files that tcpdump reads.

use std::fs;
use std::path::Path;

use netns_tests::{
    Attached, Container, Host, IperfServer, Process, Result, Tool, Topology, Transport, ensure, pause, secs,
    wait_for, wait_until,
};

/// Two hosts, a container on each.
struct Pair {
    net: Topology,
    web: Attached,
    db: Attached,
}

impl Pair {
    fn new(title: &str) -> Result<Pair> {
        let net = Topology::new(title)?.hosts(2)?;
        net.host(0).launch(&[])?;
        net.host(1).launch(&["node01"])?;
        let (web, db) = (attach(net.host(0), "web")?, attach(net.host(1), "db")?);
        web.ping(&db)?;
        Ok(Pair { net, web, db })
    }

    fn host(&self) -> &Host {
        self.net.host(0)
    }

    fn file(&self, name: &str) -> String {
        self.net.directory().join(name).to_string_lossy().into_owned()
    }
}

/// Attaches a container that says nothing unless asked to: without IPv6.
fn attach(host: &Host, name: &str) -> Result<Attached> {
    let container = Container::new(name)?;
    for conf in ["all", "default"] {
        container.namespace().sysctl(&format!("net/ipv6/conf/{conf}/disable_ipv6"), "1")?;
    }
    host.attach_with(&container, &[])
}

/// Starts a capture into a file and returns once the daemon has it: the file has a beginning then.
fn start(host: &Host, port: &[&str], file: &str) -> Result<Process> {
    let capture = lines(host, &[port, &["-w", file]].concat())?;
    let begun = || fs::metadata(file).is_ok_and(|file| file.len() > 0);
    wait_for("the capture runs", secs(10), begun)?;
    Ok(capture)
}

/// Starts a capture without waiting for it.
fn lines(host: &Host, args: &[&str]) -> Result<Process> {
    host.command(&[&["capture"], args].concat())?.limit(secs(60)).start()
}

/// What tcpdump makes of a file.
fn tcpdump(file: &str) -> Result<String> {
    Tool::new("tcpdump").args(["-nn", "-v", "-r", file]).run()
}

#[test]
fn a_port_is_seen_in_both_directions_and_tcpdump_reads_it() -> Result<()> {
    let pair = Pair::new("a capture of a port")?;
    let file = pair.file("port.pcapng");
    let capture = start(pair.host(), &[&pair.web.reference()], &file)?;
    pair.web.ping(&pair.db)?;
    let ended = capture.interrupt()?;
    ensure!(ended.stderr.contains("captured, 0 dropped"), "{ended:?}");
    ended.ok()?;
    let text = tcpdump(&file)?;
    let (web, db) = (pair.web.address, pair.db.address);
    for line in [format!("{web} > {db}: ICMP echo request"), format!("{db} > {web}: ICMP echo reply")] {
        ensure!(text.contains(&line), "{line} is missing in {text}");
    }
    let mode = fs::metadata(&file)?;
    ensure!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777 == 0o600, "{mode:?}");

    // As lines, by the endpoint's name, and with an end.
    let mut capture = lines(pair.host(), &["web", "-c", "6"])?;
    while capture.is_running() {
        pair.web.ping(&pair.db)?;
    }
    let ended = capture.wait(secs(10))?;
    ensure!(ended.stderr.contains("6 captured, 0 dropped"), "{ended:?}");
    let text = ended.ok()?;
    let has = |direction: &str, what: &str| {
        text.lines().any(|line| line.contains(&format!(" {direction} ")) && line.contains(what))
    };
    ensure!(has("in", "ICMP echo request") && has("out", "ICMP echo reply"), "{text}");
    ensure!(text.lines().count() == 6, "{text}");
    Ok(())
}

#[test]
fn the_underlay_is_seen_with_what_is_inside() -> Result<()> {
    let pair = Pair::new("a capture of the underlay")?;
    let file = pair.file("underlay.pcapng");
    let capture = start(pair.host(), &[], &file)?;
    pair.web.ping(&pair.db)?;
    capture.interrupt()?.ok()?;
    let text = tcpdump(&file)?;
    let (web, db) = (pair.web.address, pair.db.address);
    let (here, there) = (pair.net.host(0).address(), pair.net.host(1).address());
    ensure!(text.contains("VXLAN, flags [I] (0x08), vni 1"), "{text}");
    ensure!(text.contains(&format!("{here}.")) && text.contains(&format!(" > {there}.4789: ")), "{text}");
    ensure!(text.contains(&format!("{there}.")) && text.contains(&format!(" > {here}.4789: ")), "{text}");
    for line in [format!("{web} > {db}: ICMP echo request"), format!("{db} > {web}: ICMP echo reply")] {
        ensure!(text.contains(&line), "{line} is missing in {text}");
    }
    ensure!(!text.contains("bad cksum"), "{text}");
    Ok(())
}

#[test]
fn live_into_tcpdump_and_its_end_is_the_end() -> Result<()> {
    let pair = Pair::new("a capture into a pipe")?;
    // tcpdump ends after six packets; the capture ends with it, though nothing more is sent.
    let binary = netns_tests::meshnet_binary()?;
    let (binary, run_dir) = (binary.display(), pair.host().run_dir());
    let line = format!(
        "{binary} capture web -w - --run-dir {} | tcpdump -l -nn -c 6 -r - 2>/dev/null; echo ${{PIPESTATUS[0]}}",
        run_dir.display()
    );
    let mut shell =
        Tool::new("bash").args(["-c", &line]).inside(pair.host().namespace()).limit(secs(30)).start()?;
    // Only until tcpdump has its six: the next frame would find the pipe broken anyhow.
    while shell.stdout().lines().filter(|line| line.contains("ICMP")).count() < 6 && shell.is_running() {
        pair.web.ping(&pair.db)?;
    }
    let text = shell.wait(secs(10))?.ok()?;
    ensure!(text.contains("ICMP echo request") && text.contains("ICMP echo reply"), "{text}");
    ensure!(text.trim_end().ends_with('0'), "the capture failed: {text}");
    Ok(())
}

#[test]
fn a_slow_reader_loses_frames_and_holds_up_nobody() -> Result<()> {
    let pair = Pair::new("a slow reader")?;
    let server = IperfServer::start(pair.db.namespace(), &pair.db)?;
    let fifo = pair.file("fifo");
    Tool::new("mkfifo").args([&fifo]).run()?;
    // Somebody holds the other end open, and does not read until there is a word to go.
    let (file, go) = (pair.file("slow.pcapng"), pair.file("go"));
    let line = format!("exec 3< {fifo}; until [ -e {go} ]; do sleep 0.1; done; cat <&3 > {file}");
    let reader = Tool::new("bash").args(["-c", &line]).limit(secs(60)).start()?;
    let capture = lines(pair.host(), &["web", "-w", &fifo])?;
    pause(secs(1.0));
    // Many times what is buffered on the way; a path that waited for the reader would stand still.
    let report = server.measure(pair.web.namespace(), Transport::TCP, secs(5), "")?;
    ensure!(report.bits_per_second()? > 50e6, "{} bit/s beside a slow reader", report.bits_per_second()?);
    pair.web.ping(&pair.db)?;

    // Then it reads on: the file is whole, and says what is missing.
    fs::write(&go, "")?;
    pause(secs(1.0));
    let ended = capture.interrupt()?;
    reader.wait(secs(10))?.ok()?;
    let dropped = dropped(&ended.stderr)?;
    ensure!(dropped > 0, "{ended:?}");
    ensure!(tcpdump(&file)?.contains(".5201"), "nothing was captured");
    ensure!(
        last_statistics(Path::new(&file))? == dropped,
        "the file does not say that {dropped} are missing"
    );
    Ok(())
}

#[test]
fn what_is_captured_may_go_away_and_what_is_not_there_is_refused() -> Result<()> {
    let pair = Pair::new("the ends of captures")?;
    let host = pair.host();
    let refused = host.meshnet(&["capture", "nobody", "-o", "json"])?;
    ensure!(refused.stderr.contains("\"unknown_port\""), "{refused:?}");
    refused.fails_with(1)?;

    // Four at a time; one that is killed makes room at once.
    let mut running: Vec<Process> =
        (0..4).map(|n| start(host, &[], &pair.file(&format!("{n}.pcapng")))).collect::<Result<_>>()?;
    let fifth = host.meshnet(&["capture", "-c", "1", "-o", "json"])?;
    ensure!(fifth.stderr.contains("\"too_many_captures\""), "{fifth:?}");
    running.pop().into_iter().for_each(|mut process| process.kill());
    wait_until("there is room again", secs(5), || {
        let mut sixth = lines(host, &["web", "-c", "1"])?;
        while sixth.is_running() {
            pair.web.ping(&pair.db)?;
        }
        sixth.wait(secs(1))?.ok().map(drop)
    })?;

    // A port that is closed ends its capture well.
    let mut capture = start(host, &["web"], &pair.file("gone.pcapng"))?;
    host.detach(&pair.web)?;
    wait_for("the capture ends with its port", secs(5), || !capture.is_running())?;
    ensure!(tcpdump(&pair.file("gone.pcapng")).is_ok(), "the file is broken");
    Ok(())
}

/// The number in `N captured, M dropped`.
fn dropped(stderr: &str) -> Result<u64> {
    let words: Vec<&str> = stderr.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "dropped").unwrap_or_default();
    let number = at.checked_sub(1).and_then(|at| words.get(at)?.parse().ok());
    number.ok_or_else(|| netns_tests::anyhow!("no number of dropped frames in {stderr:?}"))
}

/// `isb_ifdrop` of the last interface statistics block: walks through the blocks of a pcapng file.
fn last_statistics(file: &Path) -> Result<u64> {
    let bytes = fs::read(file)?;
    let word = |at: usize| -> Result<u32> {
        let chunk = bytes.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u32::from_le_bytes(*chunk.ok_or_else(|| netns_tests::anyhow!("the file ends within a block"))?))
    };
    let (mut at, mut dropped) = (0, None);
    while at < bytes.len() {
        let len = word(at + 4)? as usize;
        if word(at)? == 5 {
            dropped = Some(u64::from(word(at + 36)?) | u64::from(word(at + 40)?) << 32);
        }
        ensure!(word(at + len - 4)? as usize == len, "the lengths of a block differ");
        at += len;
    }
    dropped.ok_or_else(|| netns_tests::anyhow!("no statistics in the file"))
}
