//! From what people call a container to its network namespace.

use std::path::{Path, PathBuf};

use engine::io::netns::{Netns, NetnsError, NetnsId};

use super::lock;
use super::ports::{Intent, Source};
use crate::args;
use crate::docker::{Docker, DockerError};
use crate::failure::{Failure, code};

/// What stands in the place of a container where the host itself is meant; Docker gives no such name.
pub(super) const HOST: &str = "(host)";

/// A container that was found. It pins the namespace: not to be kept.
#[derive(Debug)]
pub(super) struct Found {
    /// What it is called from now on.
    pub(super) container: String,
    /// What its endpoints are called unless somebody wishes otherwise.
    pub(super) name: String,
    /// How it is found again.
    pub(super) source: Source,
    /// Its network namespace.
    pub(super) netns: Netns,
}

impl Found {
    /// This host itself.
    pub(super) fn host(nickname: &str) -> Result<Self, Failure> {
        let netns = Netns::current().map_err(|e| namespace_failure(&e))?;
        Ok(Found { container: HOST.to_owned(), name: nickname.to_owned(), source: Source::Host, netns })
    }
}

/// What the text for a container means.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Reference {
    Process(u32),
    Named(String),
    File(PathBuf),
    Docker(String),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(pid) = text.strip_prefix("pid:") {
            let pid = pid.parse().ok().filter(|&pid| pid != 0);
            return pid.map(Reference::Process).ok_or_else(|| {
                Failure::new(code::NO_SUCH_PROCESS, format!("{text} is not a process"))
                    .hint("give a process as pid:4711")
            });
        }
        Ok(match text.strip_prefix("netns:") {
            Some(name) => Reference::Named(name.to_owned()),
            None if text.contains('/') => Reference::File(PathBuf::from(text)),
            None => Reference::Docker(text.to_owned()),
        })
    }
}

/// Finds the container that people call `text`. `own` is the daemon's own namespace, which no container may share.
pub(super) async fn resolve(docker: &Docker, own: NetnsId, text: &str) -> Result<Found, Failure> {
    let found = match Reference::parse(text)? {
        Reference::Process(pid) => process(pid)?,
        Reference::Named(name) => named(&name)?,
        Reference::File(path) => file(&path)?,
        Reference::Docker(container) => docker_container(docker, &container).await?,
    };
    if found.netns.id() == own { Err(host_network(text)) } else { Ok(found) }
}

fn process(pid: u32) -> Result<Found, Failure> {
    let gone = || {
        Failure::new(code::NO_SUCH_PROCESS, format!("there is no process {pid}"))
            .hint("look for the container's process with `ps`")
    };
    let start = lock::start_time(pid).ok_or_else(gone)?;
    let netns = Netns::of_pid(pid).map_err(|e| match e {
        NetnsError::DeadPid { .. } => gone(),
        other => namespace_failure(&other),
    })?;
    let container = format!("pid:{pid}");
    Ok(Found { name: format!("pid-{pid}"), container, source: Source::Process { pid, start }, netns })
}

/// Who lives in a namespace that stands: what has a name, else the first process in it.
pub(super) fn occupant(id: NetnsId) -> Option<Found> {
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = ["/run/netns", "/var/run/netns"].map(entries).into_iter().flatten();
    let mut names = names.filter_map(|entry| named(entry.file_name().to_str()?).ok());
    let mut pids: Vec<u32> = entries("/proc").filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut processes = pids.into_iter().filter_map(|pid| process(pid).ok());
    names.find(|found| found.netns.id() == id).or_else(|| processes.find(|found| found.netns.id() == id))
}

fn named(name: &str) -> Result<Found, Failure> {
    let netns = Netns::named(name).map_err(|e| namespace_failure(&e))?;
    let run = Path::new("/run/netns").join(name);
    let path = if run.exists() { run } else { Path::new("/var/run/netns").join(name) };
    Ok(Found { container: format!("netns:{name}"), name: label(name), source: Source::File { path }, netns })
}

fn file(path: &Path) -> Result<Found, Failure> {
    let netns = Netns::open(path).map_err(|e| namespace_failure(&e))?;
    // `/proc/4711/ns/net` has no name of its own, but its process has.
    let parts: Vec<_> = path.components().filter_map(|c| c.as_os_str().to_str()).collect();
    let name = match parts.as_slice() {
        ["/", "proc", pid, "ns", "net"] => format!("pid-{pid}"),
        [.., last] => (*last).to_owned(),
        [] => String::new(),
    };
    let path = std::path::absolute(path).map_err(Failure::internal)?;
    let container = path.display().to_string();
    Ok(Found { container, name: label(&name), source: Source::File { path }, netns })
}

async fn docker_container(docker: &Docker, text: &str) -> Result<Found, Failure> {
    let unknown = || {
        Failure::new(code::UNKNOWN_CONTAINER, format!("Docker knows no container {text}"))
            .hint("see `docker ps`; other containers are named pid:N, netns:NAME or by a path")
    };
    let container = docker.inspect(text).await.map_err(|e| docker_failure(text, &e))?.ok_or_else(unknown)?;
    if container.host_network {
        return Err(host_network(text));
    }
    let stopped = || {
        Failure::new(code::CONTAINER_NOT_RUNNING, format!("the container {text} does not run"))
            .hint(format!("start it with `docker start {text}`"))
    };
    let netns = Netns::of_pid(container.pid.ok_or_else(stopped)?).map_err(|e| match e {
        NetnsError::DeadPid { .. } => stopped(),
        other => namespace_failure(&other),
    })?;
    let source = Source::Docker { id: container.id };
    Ok(Found { name: label(&container.name), container: container.name, source, netns })
}

/// A name that may stand in a record, as close to `text` as possible.
fn label(text: &str) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' }).collect();
    let start = plain.trim_start_matches(['-', '_', '.']);
    args::name(&start[..start.len().min(63)]).unwrap_or_else(|_| "container".to_owned())
}

fn namespace_failure(error: &NetnsError) -> Failure {
    match error {
        NetnsError::NotFound { .. } | NetnsError::NotNetns { .. } => {
            Failure::new(code::NOT_A_NAMESPACE, error.to_string())
                .hint("network namespaces are listed by `lsns -t net` and `ip netns`")
        }
        NetnsError::DeadPid { .. } => Failure::new(code::NO_SUCH_PROCESS, error.to_string()),
        NetnsError::Permission { .. } => {
            Failure::new(code::NOT_PERMITTED, error.to_string()).hint("run the daemon as root")
        }
        NetnsError::Io { .. } => Failure::internal(error),
    }
}

fn docker_failure(container: &str, error: &DockerError) -> Failure {
    Failure::new(
        code::DOCKER_UNAVAILABLE,
        format!("cannot ask Docker for the container {container}: {error}"),
    )
    .hint("start Docker, or name the container as pid:N, netns:NAME or by a path")
}

fn host_network(container: &str) -> Failure {
    Failure::new(
        code::HOST_NETWORK,
        format!("{container} uses the network of this host itself, not one of its own"),
    )
    .hint("`meshnet expose` gives this host an address; a container that shall have one needs a network of its own")
}

impl Intent {
    /// The namespace the container of this port has now; `None` while it has none, or another one than it had.
    pub(super) fn present_netns(&self) -> Option<Netns> {
        let netns = match &self.source {
            Source::Process { pid, start } => {
                let netns = Netns::of_pid(*pid).ok()?;
                (lock::start_time(*pid) == Some(*start)).then_some(netns)?
            }
            Source::File { path } => Netns::open(path).ok()?,
            // Wherever the daemon is now: that is the host.
            Source::Host => return Netns::current().ok(),
            Source::Docker { .. } => return None,
        };
        (netns.id() == self.netns_id()).then_some(netns)
    }

    /// False when its container is gone for sure.
    pub(super) fn may_live(&self) -> bool {
        match &self.source {
            Source::Process { pid, start } => {
                lock::start_time(*pid) == Some(*start) && Path::new(&format!("/proc/{pid}/ns/net")).exists()
            }
            Source::File { path } => path.exists(),
            Source::Docker { .. } | Source::Host => true,
        }
    }

    /// Which namespace the port was made in.
    pub(super) fn netns_id(&self) -> NetnsId {
        NetnsId { dev: self.netns.0, ino: self.netns.1 }
    }

    /// Whether people mean this port's container by `text`, as far as can be told without asking anybody.
    pub(super) fn is_called(&self, text: &str) -> bool {
        let id = match &self.source {
            Source::Docker { id } => text.len() >= 12 && id.starts_with(text),
            Source::File { path } => path == Path::new(text),
            Source::Process { .. } | Source::Host => false,
        };
        id || (self.container == text && self.source != Source::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ports::tests::intent;
    use super::*;

    #[test]
    fn a_reference_is_told_by_its_form() {
        assert_eq!(Reference::parse("pid:7").unwrap(), Reference::Process(7));
        assert_eq!(Reference::parse("netns:blue").unwrap(), Reference::Named("blue".into()));
        assert_eq!(Reference::parse("./ns").unwrap(), Reference::File("./ns".into()));
        assert_eq!(Reference::parse("web").unwrap(), Reference::Docker("web".into()));
        for wrong in ["pid:", "pid:0", "pid:-1", "pid:self"] {
            assert_eq!(Reference::parse(wrong).unwrap_err().code, code::NO_SUCH_PROCESS);
        }
    }

    #[test]
    fn any_text_becomes_a_name() {
        assert_eq!(label("web.1"), "web.1");
        assert_eq!(label("my ns"), "my-ns");
        assert_eq!(label("..é"), "container");
        assert_eq!(label(&"x".repeat(80)).len(), 63);
    }

    #[tokio::test]
    async fn what_is_no_container_is_refused_by_name() {
        let docker = Docker::from_host(Some("unix:///nonexistent.sock"));
        let own = Netns::current().unwrap().id();
        let code_of = async |text: &str| resolve(&docker, own, text).await.unwrap_err().code.into_owned();
        assert_eq!(code_of("pid:4194999").await, code::NO_SUCH_PROCESS);
        assert_eq!(code_of("netns:no-such-namespace").await, code::NOT_A_NAMESPACE);
        assert_eq!(code_of("/etc/hostname").await, code::NOT_A_NAMESPACE);
        assert_eq!(code_of("/dev/null").await, code::NOT_A_NAMESPACE);
        assert_eq!(code_of("/proc/self/ns/uts").await, code::NOT_A_NAMESPACE);
        assert_eq!(code_of("web").await, code::DOCKER_UNAVAILABLE);
        assert_eq!(code_of("/proc/self/ns/net").await, code::HOST_NETWORK);
        assert_eq!(code_of(&format!("pid:{}", std::process::id())).await, code::HOST_NETWORK);
    }

    #[test]
    fn a_port_knows_what_its_container_is_called() {
        let mut web = intent(1);
        web.source = Source::Docker { id: "c0ffee".repeat(10) };
        assert!(web.is_called("web") && web.is_called("c0ffeec0ffee") && !web.is_called("c0ff"));
        assert!(web.present_netns().is_none());
    }
}
