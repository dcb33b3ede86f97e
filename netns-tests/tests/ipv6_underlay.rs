//! An underlay of IPv6, one of both families, and hosts that have no IPv6 at all.

use netns_tests::{
    Attached, Container, Host, IperfServer, KernelVtep, Result, Tool, Topology, Transport, Value, ensure,
    meshnet_binary, ping_all_pairs, secs, wait_until,
};

/// Takes IPv4 away from the underlay of some hosts.
fn only_ipv6(hosts: &[&Host]) -> Result<()> {
    hosts.iter().try_for_each(|host| host.namespace().ip("-4 address flush dev eth0").map(drop))
}

fn bracketed(host: &Host) -> String {
    format!("[{}]", host.address6())
}

fn mtu_of(host: &Host) -> Result<Option<u64>> {
    Ok(host.status()?.pointer("/networks/0/mtu").and_then(Value::as_u64))
}

#[test]
fn plain_frames_over_ipv6_alone() -> Result<()> {
    let net = Topology::new("IPv6 underlay, plain")?.hosts(2)?;
    only_ipv6(&[net.host(0), net.host(1)])?;
    net.host(0).launch(&[])?;
    net.host(1).launch(&[&bracketed(net.host(0))])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    ensure!(mtu_of(net.host(1))? == Some(1430), "the MTU is {:?}", mtu_of(net.host(1))?);
    web.ping_whole(&db, 1402)?;
    streams(&web, &db, &["", "-R"])
}

#[test]
fn sealed_frames_over_ipv6_alone() -> Result<()> {
    let net = Topology::new("IPv6 underlay, sealed")?.hosts(2)?;
    only_ipv6(&[net.host(0), net.host(1)])?;
    let secrets = net.share_secret()?;
    net.host(0).launch(&["--secret-file", &secrets[0]])?;
    net.host(1).launch(&[&bracketed(net.host(0)), "--secret-file", &secrets[1]])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    ensure!(mtu_of(net.host(1))? == Some(1398), "the MTU is {:?}", mtu_of(net.host(1))?);
    web.ping_whole(&db, 1370)?;
    let path = net.host(0).status()?.pointer("/peers/0/path").cloned().unwrap_or_default();
    ensure!(path.get("kind").and_then(Value::as_str) == Some("sealed"), "{path}");
    streams(&web, &db, &["", "-R"])
}

fn streams(web: &netns_tests::Attached, db: &netns_tests::Attached, options: &[&str]) -> Result<()> {
    let server = IperfServer::start(db.namespace(), db)?;
    for options in options {
        let speed = server.measure(web.namespace(), Transport::TCP, secs(1), options)?.bits_per_second()?;
        ensure!(speed > 20e6, "{options:?}: {speed:.0} bit/s");
    }
    Ok(())
}

#[test]
fn a_kernel_vtep_over_ipv6() -> Result<()> {
    let net = Topology::new("a kernel VTEP, IPv6")?.hosts(2)?;
    // The network has packets of 1450 bytes, of which 1430 pass: the VTEP is not probed, and yet nothing is lost.
    net.host(0).launch(&[])?;
    let web = net.host(0).attach("web")?;
    let vtep = KernelVtep::over_ipv6(net.host(1), &[net.host(0)])?;
    let kernel = vtep.container("kernel", "10.47.0.9/12")?;
    let address = net.host(1).address6().to_string();
    net.host(0).vtep_add(&address)?;
    web.ping(&kernel)?;
    kernel.ping(&web)?;
    web.ping_whole(&kernel, 1402)?;
    let server = IperfServer::start(kernel.namespace(), &kernel)?;
    for options in ["", "-R"] {
        let speed = server.measure(web.namespace(), Transport::TCP, secs(1), options)?.bits_per_second()?;
        ensure!(speed > 20e6, "{options:?}: {speed:.0} bit/s");
    }
    // As a text with a port, and back.
    let listed = net.host(0).run(&["vtep", "ls"])?;
    ensure!(listed.contains(&format!("[{address}]:4789")), "{listed}");
    net.host(0).run(&["vtep", "rm", &format!("[{address}]:4789")])?;
    web.no_ping(&kernel, secs(1))
}

#[test]
fn hosts_of_either_family_meet_through_one_of_both() -> Result<()> {
    let net = Topology::new("IPv4, IPv6 and both")?.hosts(4)?;
    let [both, fourth, sixth, other] = [0, 1, 2, 3].map(|index| net.host(index));
    fourth.namespace().ip("-6 address flush dev eth0 scope global")?;
    only_ipv6(&[sixth, other])?;
    both.launch(&[])?;
    let web = both.attach("web")?;
    fourth.launch(&["node01"])?;
    sixth.launch(&[&bracketed(both)])?;
    other.launch(&[&bracketed(both)])?;
    let (four, six, more) = (fourth.attach("four")?, sixth.attach("six")?, other.attach("more")?);
    ping_all_pairs(&[&web, &four])?;
    ping_all_pairs(&[&web, &six, &more])?;
    // Those without a family in common say so.
    wait_until("node02 says why it does not reach node03", secs(15), || {
        let status = fourth.status()?;
        let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |peer: &&Value| peer.get("nickname").and_then(Value::as_str) == Some("node03");
        let sixth = peers.iter().find(named).cloned().unwrap_or_default();
        let reason = sixth.get("reason").and_then(Value::as_str).unwrap_or_default();
        ensure!(sixth.get("state").and_then(Value::as_str) == Some("alive") && !reason.is_empty(), "{sixth}");
        Ok(())
    })?;
    web.ping_whole(&six, 1402)?;
    streams(&web, &six, &["", "-R"])
}

#[test]
fn hosts_whose_ipv6_is_switched_off() -> Result<()> {
    let net = Topology::new("disable_ipv6")?.hosts(2)?;
    for host in net.all() {
        host.namespace().sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        host.namespace().sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    let (web, db) = net.sealed_web_and_db(&[])?;
    streams(&web, &db, &[""])?;
    let exposed = net.host(0).run(&["expose"])?;
    ensure!(exposed.starts_with("10."), "{exposed}");
    net.host(0).stop()?;
    net.host(0).launch(&["--secret-file", &net.host(0).directory().join("secret").display().to_string()])?;
    web.ping(&db)
}

/// Makes `socket(AF_INET6, ...)` fail in itself and all it starts, as on a kernel without IPv6, and becomes its
/// arguments: 38 is `PR_SET_NO_NEW_PRIVS`, 22 `PR_SET_SECCOMP` (prctl(2)), 97 `EAFNOSUPPORT`, 10 `AF_INET6`.
const WITHOUT_IPV6: &str = r#"
    my ($prctl, $socket) = splice(@ARGV, 0, 2);
    my @filter = ([0x20, 0, 0, 0], [0x15, 0, 3, $socket], [0x20, 0, 0, 16], [0x15, 0, 1, 10],
                  [0x06, 0, 0, 0x00050000 | 97], [0x06, 0, 0, 0x7fff0000]);
    my $code = join '', map { pack 'S C C L', @$_ } @filter;
    my $program = pack 'S x6 P', scalar(@filter), $code;
    syscall($prctl + 0, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall($prctl + 0, 22, 2, $program, 0, 0) == 0 or die "seccomp: $!";
    exec @ARGV or die "exec: $!";
"#;

/// The numbers of prctl and socket among the system calls (asm/unistd.h).
const CALLS: [&str; 2] = if cfg!(target_arch = "aarch64") { ["167", "198"] } else { ["157", "41"] };

fn launch_without_ipv6(host: &Host, words: &[&str]) -> Result<()> {
    let (run, state) = (host.run_dir(), host.state_dir());
    let mut args = vec!["-e", WITHOUT_IPV6];
    args.extend(CALLS);
    let binary = meshnet_binary()?;
    let (binary, run, state) = (binary.to_string_lossy(), run.to_string_lossy(), state.to_string_lossy());
    args.extend([&*binary, "launch", "--run-dir", &run, "--state-dir", &state, "--nickname", host.name()]);
    args.extend(words);
    Tool::new("perl").args(args).inside(host.namespace()).run().map(drop)
}

#[test]
fn hosts_whose_kernel_has_no_ipv6() -> Result<()> {
    let net = Topology::new("a kernel without IPv6")?.hosts(2)?;
    launch_without_ipv6(net.host(0), &[])?;
    launch_without_ipv6(net.host(1), &[&net.host(0).address().to_string()])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(1).attach("db")?);
    web.ping(&db)?;
    streams(&web, &db, &["", "-R"])?;
    // A peer that has an address of that family alone is no reason to stumble.
    net.host(0).run(&["connect", "[2001:db8::77]"])?;
    net.host(0).vtep_add("2001:db8::78")?;
    web.ping(&db)?;
    // On a network of both families their containers have IPv4, and nobody is told anything else.
    net.host(0).run_line("network create blue --subnet 10.99.0.0/16 --subnet fd00:99::/64")?;
    let join = |index: usize, container: &Attached| {
        wait_until("the network is known", secs(5), || net.host(index).attach_to(container, "blue", &[]))
    };
    let (web, db) = (join(0, &web)?, join(1, &db)?);
    ensure!(db.addresses()?.len() == 1 && db.address.is_ipv4(), "{:?}", db.addresses()?);
    web.ping(&db)?;
    wait_until("the name is told", secs(2), || {
        let told = web.namespace().dig("@10.99.0.1 db.blue AAAA")?;
        ensure!(told.contains("status: NOERROR") && told.contains("ANSWER: 0"), "{told}");
        ensure!(web.namespace().resolve("@10.99.0.1 db.blue A") == [db.address.to_string()], "no address");
        Ok(())
    })
}

#[test]
fn hosts_without_a_family_in_common_say_whom_they_wait_for() -> Result<()> {
    let net = Topology::new("IPv4 alone beside IPv6 alone")?.hosts(2)?;
    let (fourth, sixth) = (net.host(0), net.host(1));
    fourth.namespace().ip("-6 address flush dev eth0 scope global")?;
    only_ipv6(&[sixth])?;
    fourth.launch(&[&bracketed(sixth)])?;
    let web = Container::new("web")?;
    let attach = ["attach", &web.reference(), "--timeout", "3"];
    let told = fourth.fails_with(&attach, "timeout")?;
    ensure!(told.contains(&format!("waiting for {}", sixth.address6())), "{told}");
    let said = fourth.meshnet(&attach)?.fails_with(1)?;
    ensure!(said.contains("status targets") && said.contains("launch --found"), "{said}");
    let targets = fourth.run(&["status", "targets"])?;
    ensure!(targets.contains("network unreachable"), "{targets}");
    // As it says.
    fourth.stop()?;
    fourth.launch(&["--found", &bracketed(sixth)])?;
    fourth.attach_with(&web, &[]).map(drop)
}

#[test]
fn a_founding_that_some_cannot_take_part_in_says_who() -> Result<()> {
    let net = Topology::new("a founder that does not reach all")?.hosts(3)?;
    let [both, fourth, sixth] = [0, 1, 2].map(|index| net.host(index));
    fourth.namespace().ip("-6 address flush dev eth0 scope global")?;
    only_ipv6(&[sixth])?;
    // The host of the lowest id founds: it shall be one that does not reach all others.
    let mut founder = false;
    for _ in 0..40 {
        both.launch(&[])?;
        fourth.launch(&["node01"])?;
        sixth.launch(&[&bracketed(both)])?;
        founder = both.peer_id()? < fourth.peer_id()?.min(sixth.peer_id()?);
        if !founder {
            break;
        }
        for host in net.all() {
            host.stop()?;
            std::fs::remove_dir_all(host.state_dir())?;
        }
    }
    ensure!(!founder, "node01 has the lowest id of forty times three");
    net.wait_converged(secs(10))?;
    let lower = if fourth.peer_id()? < sixth.peer_id()? { fourth } else { sixth };
    let other = if lower.name() == fourth.name() { sixth } else { fourth };
    let web = Container::new("web")?;
    let told = both.fails_with(&["attach", &web.reference(), "--timeout", "4"], "timeout")?;
    ensure!(told.contains(&format!("waiting for {}", other.name())), "{told}");
    // What `launch --found` is for.
    both.stop()?;
    both.launch(&["--found"])?;
    both.attach_with(&web, &[])?;
    fourth.attach("four")?;
    sixth.attach("six").map(drop)
}
