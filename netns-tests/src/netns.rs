//! Network namespaces, and running code and programs inside them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::names;
use crate::process::{Tool, kill_all};

/// Settings of every namespace: the machine's default congestion control paces, which makes figures
/// jump; duplicate address detection makes fresh IPv6 addresses wait.
const SYSCTLS: [(&str, &str); 6] = [
    ("net/ipv4/tcp_congestion_control", "reno"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Broadcasts in a row, before a pause.
const BURST: usize = 32;

/// Sends the hex lines of its input as frames: packet(7) needs an address structure that no safe Rust
/// makes, and Debian has no system without Perl. 17 is `AF_PACKET`, 3 `SOCK_RAW`, 768 `ETH_P_ALL` in
/// network order.
const SEND_FRAMES: &str = r#"
    socket(my $out, 17, 3, 768) or die "socket: $!";
    bind($out, pack("S n l S C C a8", 17, 3, $ARGV[0], 0, 0, 6, "")) or die "bind: $!";
    while (<STDIN>) { chomp; defined(send($out, pack("H*", $_), 0)) or die "send: $!"; }
"#;

/// A way into a network namespace. Holds no descriptor, so it does not keep the namespace alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Makes a namespace with a name, as `ip netns add` does, and sets it up.
    pub fn create(name: &str) -> Result<Self> {
        Tool::new("ip").args(["netns", "add", name]).run()?;
        let namespace = Namespace { path: names::netns_path(name) };
        namespace.set_up()?;
        Ok(namespace)
    }

    /// The namespace a process is in.
    pub fn of(pid: u32) -> Self {
        Namespace { path: Path::new("/proc").join(pid.to_string()).join("ns/net") }
    }

    /// The path by which it can be opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode that tells namespaces apart.
    pub fn inode(&self) -> Result<u64> {
        let at = || format!("no namespace at {}", self.path.display());
        Ok(std::fs::metadata(&self.path).with_context(at)?.ino())
    }

    /// Runs `work` on a thread of its own inside the namespace. Files below `/proc/sys/net` and
    /// `/proc/thread-self/net`, sockets and child processes are then those of the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        on_a_thread(move || {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .context("cannot enter a network namespace: are you root?")?;
            drop(file);
            Ok(work())
        })
    }

    /// Writes a kernel setting, named by its path below `/proc/sys`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| write_sysctl(name, value))?
    }

    /// Runs `ip` inside, with the words of `line`.
    pub fn ip(&self, line: &str) -> Result<String> {
        Tool::new("ip").words(line).inside(self).run()
    }

    /// Every process inside.
    pub fn pids(&self) -> Vec<u32> {
        let Ok(inode) = self.inode() else { return Vec::new() };
        all_pids().into_iter().filter(|pid| Namespace::of(*pid).inode().is_ok_and(|it| it == inode)).collect()
    }

    /// True when it has an interface of this name.
    pub fn has_interface(&self, name: &str) -> bool {
        Tool::new("ip").args(["link", "show", "dev", name]).inside(self).run().is_ok()
    }

    /// The interfaces inside, as `ip -json -details address` tells them.
    pub fn interfaces(&self) -> Result<Vec<serde_json::Value>> {
        let text = self.ip("-json -details address")?;
        serde_json::from_str(&text).with_context(|| format!("`ip -json` said {text:?}"))
    }

    /// The names of the interfaces inside that are ports of `meshnet`, by their alias.
    pub fn ports(&self) -> Result<Vec<String>> {
        let text = |row: &serde_json::Value, key: &str| Some(row.get(key)?.as_str()?.to_owned());
        let is_port =
            |row: &serde_json::Value| text(row, "ifalias").is_some_and(|alias| alias.starts_with("meshnet:"));
        Ok(self
            .interfaces()?
            .iter()
            .filter(|row| is_port(row))
            .filter_map(|row| text(row, "ifname"))
            .collect())
    }

    /// Sends UDP datagrams from a socket of its own.
    pub fn send_datagrams(&self, to: SocketAddr, datagrams: &[Vec<u8>]) -> Result<()> {
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
        self.run(|| -> std::io::Result<()> {
            let socket = UdpSocket::bind(any)?;
            datagrams.iter().try_for_each(|datagram| socket.send_to(datagram, to).map(drop))
        })?
        .with_context(|| format!("cannot send to {to}"))
    }

    /// Sends whole Ethernet frames out of an interface, as they are.
    pub fn send_frames(&self, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
        let text = self.ip(&format!("-json link show dev {interface}"))?;
        let rows: serde_json::Value = serde_json::from_str(&text)?;
        let index = rows.pointer("/0/ifindex").and_then(serde_json::Value::as_u64);
        let index = index.ok_or_else(|| anyhow!("no ifindex in {text}"))?.to_string();
        let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines: Vec<_> = frames.iter().map(hex).collect();
        Tool::new("perl")
            .args(["-e", SEND_FRAMES, &index])
            .input(lines.join("\n"))
            .inside(self)
            .run()
            .map(drop)
    }

    /// Sends this many empty datagrams to a broadcast address, about thirty thousand a second: more than a switch lets
    /// through, no more than the ring of a port holds meanwhile.
    pub fn broadcast(&self, to: SocketAddr, count: usize) -> Result<()> {
        self.run(|| -> std::io::Result<()> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.set_broadcast(true)?;
            (0..count).try_for_each(|number| {
                if number % BURST == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                socket.send_to(&[], to).map(drop)
            })
        })?
        .with_context(|| format!("cannot broadcast to {to}"))
    }

    /// Takes a TCP address, until the listener is dropped.
    pub fn hold_address(&self, addr: SocketAddr) -> Result<TcpListener> {
        Ok(self.run(|| TcpListener::bind(addr))??)
    }

    /// Asks for something by HTTP, as `GET /path`; the whole answer, with its head.
    pub fn http(&self, addr: SocketAddr, request: &str) -> Result<String> {
        self.run(|| {
            let mut stream = TcpStream::connect(addr)?;
            write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
    }

    /// Opens so many TCP connections, and says nothing on any.
    pub fn connections(&self, to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
        let connect = || (0..count).map(|_| TcpStream::connect(to)).collect::<std::io::Result<_>>();
        self.run(connect)?.with_context(|| format!("cannot connect to {to}"))
    }

    /// Takes a UDP port on all addresses, until the socket is dropped.
    pub fn hold_port(&self, port: u16) -> Result<UdpSocket> {
        self.run(|| UdpSocket::bind(("0.0.0.0", port)))?.with_context(|| format!("cannot bind port {port}"))
    }

    /// Kills every process inside and removes the name made by [`create`](Self::create).
    pub(crate) fn delete(&self) -> Result<()> {
        kill_all(&self.pids());
        let name =
            self.path.file_name().and_then(|name| name.to_str()).ok_or_else(|| anyhow!("not a name"))?;
        // What a daemon that is killed has left there, or a test has put there.
        let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
        Tool::new("ip").args(["netns", "delete", name]).run().map(drop)
    }

    fn set_up(&self) -> Result<()> {
        self.run(set_up_here)?
    }
}

/// Runs `work` on a thread inside a new namespace that has no name and is set up.
pub(crate) fn in_new<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    on_a_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: are you root?")?;
        set_up_here()?;
        Ok(work())
    })
}

/// The processes of the machine.
pub(crate) fn all_pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| anyhow!("a thread in a namespace panicked"))?
}

/// Sets up the namespace of the calling thread. Files are written rather than `sysctl` run: it may be missing.
fn set_up_here() -> Result<()> {
    for (name, value) in SYSCTLS {
        // A kernel without IPv6 has no such files.
        if !name.starts_with("net/ipv6") || Path::new("/proc/sys").join(name).exists() {
            write_sysctl(name, value)?;
        }
    }
    Tool::new("ip").words("link set dev lo up").run().map(drop)
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}
