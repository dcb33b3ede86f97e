//! A Docker engine of the test's own, and containers in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::netns::Namespace;
use crate::process::{Process, Tool};
use crate::topology::require;
use crate::wait::{wait_for, wait_until};

/// The image every container is made from: busybox and nothing else.
const IMAGE: &str = "meshnet-test";

/// A `dockerd` with everything it keeps below the host's directory: no bridge, no firewall rules, nothing
/// shared with an engine of the machine. Containers get a namespace with nothing but a loopback.
#[derive(Debug)]
pub struct Docker {
    process: Option<Process>,
    socket: PathBuf,
}

impl Docker {
    /// Starts it on `host` and makes its image from Debian's static busybox. The host's `meshnet` commands
    /// find it by `DOCKER_HOST`.
    pub fn start(host: &Host) -> Result<Self> {
        require("dockerd", "docker.io")?;
        require("busybox", "busybox-static")?;
        let directory = host.directory().join("docker");
        std::fs::create_dir(&directory)?;
        let socket = directory.join("docker.sock");
        let mut docker = Docker { process: None, socket: socket.clone() };
        docker.process = Some(docker.engine(host, &directory).start()?);
        docker.wait_until_it_answers()?;
        docker.import_image(&directory)?;
        host.set_environment("DOCKER_HOST", &format!("unix://{}", socket.display()));
        Ok(docker)
    }

    /// Runs a `docker` command on it.
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.command().args(args).run()
    }

    /// Starts a container without a network of Docker's own.
    pub fn run(&self, name: &str) -> Result<DockerContainer<'_>> {
        self.run_with(name, &["--network", "none"])
    }

    /// Starts a container with these options of `docker run`.
    pub fn run_with(&self, name: &str, options: &[&str]) -> Result<DockerContainer<'_>> {
        let args = [&["run", "-d", "--name", name], options, &[IMAGE, "/bin/sleep", "1000000"]].concat();
        self.docker(args)?;
        Ok(DockerContainer { docker: self, name: name.to_owned() })
    }

    fn engine(&self, host: &Host, directory: &Path) -> Tool {
        let below = |name: &str| directory.join(name).display().to_string();
        host.tool("dockerd")
            .args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")])
            .args(["--host", &format!("unix://{}", self.socket.display())])
            // vfs: it works on whatever file system the directory is on, and the image is one file.
            .words("--bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false")
            .words("--storage-driver vfs --log-level warn --exec-opt native.cgroupdriver=cgroupfs")
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let answered = wait_until("dockerd answers", Duration::from_secs(30), || {
            let alive = self.process.as_mut().is_some_and(Process::is_running);
            if alive { self.command().words("version").run() } else { Ok(String::new()) }
        });
        let said = self.process.as_ref().map(Process::stderr).unwrap_or_default();
        match answered {
            Ok(version) if version.is_empty() => Err(anyhow!("dockerd ended: {said}")),
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(said)),
        }
    }

    fn import_image(&self, directory: &Path) -> Result<()> {
        let (root, archive) = (directory.join("root"), directory.join("root.tar"));
        std::fs::create_dir_all(root.join("bin"))?;
        let busybox = find_busybox()?;
        std::fs::copy(&busybox, root.join("bin/busybox"))
            .with_context(|| format!("cannot copy {}", busybox.display()))?;
        for name in ["sh", "sleep", "ping", "ip"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
        }
        let (root, archive) = (root.display().to_string(), archive.display().to_string());
        Tool::new("tar").args(["-C", &root, "-cf", &archive, "."]).run()?;
        self.docker(["import", &archive, IMAGE]).map(drop)
    }

    fn command(&self) -> Tool {
        Tool::new("docker").args(["--host", &format!("unix://{}", self.socket.display())])
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Containers first: they outlive an engine that is killed.
        if let Ok(ids) = self.docker(["ps", "-aq"]) {
            let _ = self.docker(["rm", "-f"].into_iter().chain(ids.split_whitespace()));
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.signal(Signal::SIGTERM);
            let _ = wait_for("dockerd ends", Duration::from_secs(15), || !process.is_running());
        }
    }
}

/// A container that Docker runs.
#[derive(Debug)]
pub struct DockerContainer<'docker> {
    docker: &'docker Docker,
    name: String,
}

impl DockerContainer<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its full id.
    pub fn id(&self) -> Result<String> {
        Ok(self.inspect()?.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    /// Its network namespace as it is now: a restart makes another.
    pub fn namespace(&self) -> Result<Namespace> {
        let pid = self.inspect()?.pointer("/State/Pid").and_then(Value::as_u64).unwrap_or(0);
        let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0);
        pid.map(Namespace::of).ok_or_else(|| anyhow!("{} does not run", self.name))
    }

    /// `docker restart`, without patience for the process.
    pub fn restart(&self) -> Result<()> {
        self.docker.docker(["restart", "-t", "0", &self.name]).map(drop)
    }

    /// `docker stop`, without patience for the process.
    pub fn stop(&self) -> Result<()> {
        self.docker.docker(["stop", "-t", "0", &self.name]).map(drop)
    }

    /// `docker start`.
    pub fn start(&self) -> Result<()> {
        self.docker.docker(["start", &self.name]).map(drop)
    }

    /// `docker rm -f`.
    pub fn remove(&self) -> Result<()> {
        self.docker.docker(["rm", "-f", &self.name]).map(drop)
    }

    fn inspect(&self) -> Result<Value> {
        let text = self.docker.docker(["inspect", &self.name])?;
        let rows: Value = serde_json::from_str(&text)?;
        rows.get(0).cloned().ok_or_else(|| anyhow!("docker knows no {}", self.name))
    }
}

/// The statically linked busybox: Debian puts it first in the path, and the image has no libraries.
fn find_busybox() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found =
        std::env::split_paths(&path).map(|directory| directory.join("busybox")).filter(|file| file.is_file());
    found.next().ok_or_else(|| anyhow!("`busybox` is missing: apt-get install busybox-static"))
}
