//! Containers are pointed at the gateway of their first network, and put back when they leave the last one.
//!
//! Whoever changes the ports of a container asks for its file to be looked at; what the file shall say follows from the ports
//! alone, so it does no harm to ask too often.

use std::sync::Arc;
use std::time::Duration;

use engine::types::NetworkId;

use super::Daemon;
use super::ports::{Intent, Source};
use super::resolv_file::{Place, Untouched};
use super::resolvers::Resolvers;
use crate::failure::Failure;
use crate::resolver::plan::{Step, Wish, step};

/// How long Docker may take to say which process a container is.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a container's file shall be.
enum Wanted {
    /// As it was.
    Former,
    /// Pointed at a gateway.
    Pointed(Wish),
    /// Pointed at a gateway that is not known yet.
    Later,
}

impl Daemon {
    /// Brings the file of a container to what its ports say. `again`: also if somebody else wrote it meanwhile, as Docker does.
    pub(super) async fn point(self: &Arc<Self>, source: &Source, again: bool) {
        let _one_at_a_time = self.pointing.lock().await;
        let wish = match self.resolver_wish(source) {
            Wanted::Later => return,
            Wanted::Pointed(wish) => Some(wish),
            Wanted::Former if self.resolvers().get(source).is_none() => return,
            Wanted::Former => None,
        };
        let pid = match source {
            Source::Docker { id } => self.first_process(id).await,
            Source::Process { .. } | Source::File { .. } | Source::Host => None,
        };
        // Of a container that does not run nothing can be seen: it is looked at when it starts.
        if matches!(source, Source::Docker { .. }) && pid.is_none() && wish.is_some() {
            return;
        }
        let (of, wished) = (source.clone(), wish.clone());
        let done = self.blocking(move |daemon| {
            Place::of(&of, pid)
                .and_then(|place| carry_out(&daemon.resolvers, &of, &place, wished.as_ref(), again))
        });
        match (done.await, wish) {
            (Ok(Ok(())), _) => {}
            (Ok(Err(untouched)), Some(wish)) => self.tell_untouched(source, &untouched, &wish),
            (Ok(Err(untouched)), None) => {
                tracing::debug!("a resolv.conf stays as it is: {untouched}");
                self.resolvers().remove(source).unwrap_or_else(|e| tracing::error!("{e}"));
            }
            (Err(failure), _) => tracing::warn!("a resolv.conf could not be looked at: {failure}"),
        }
    }

    /// The first process of a Docker container; none also while Docker says nothing.
    async fn first_process(&self, id: &str) -> Option<u32> {
        let found = tokio::time::timeout(PATIENCE, self.docker.inspect(id)).await;
        found.ok()?.ok()??.pid
    }

    /// A network is known, or has other gateways than before: who is on it may have to be pointed there.
    pub(super) async fn point_network(self: &Arc<Self>, network: NetworkId) {
        let on = |intent: &&Intent| intent.network == network && intent.dns;
        let sources: Vec<Source> =
            self.ports().all().filter(on).map(|intent| intent.source.clone()).collect();
        for source in sources {
            self.point(&source, false).await;
        }
    }

    /// At the launch: what a crash left half done is finished or undone, and what Docker wrote meanwhile is written over.
    pub(super) async fn point_all(self: &Arc<Self>) {
        let mut sources = self.resolvers().sources();
        sources.extend(self.ports().all().map(|intent| intent.source.clone()));
        for (at, source) in sources.iter().enumerate() {
            if !sources[..at].contains(source) {
                self.point(source, matches!(source, Source::Docker { .. })).await;
            }
        }
    }

    /// The name servers that a container had before.
    pub(super) fn former_servers(&self, source: &Source) -> Vec<std::net::IpAddr> {
        self.resolvers().get(source).map(|pointed| pointed.former_servers()).unwrap_or_default()
    }

    /// What the file of a container shall say.
    fn resolver_wish(&self, source: &Source) -> Wanted {
        let ports = self.ports();
        let mut ports: Vec<&Intent> =
            ports.all().filter(|i| i.source == *source && i.dns && !i.addresses.is_empty()).collect();
        ports.sort_by_key(|intent| (intent.order, intent.port));
        let Some(first) = ports.first() else { return Wanted::Former };
        match self.gateways(first.network).first() {
            Some(gateway) => {
                let networks = ports.iter().map(|intent| intent.network_name.clone()).collect();
                Wanted::Pointed(Wish { gateway: *gateway, networks })
            }
            None => Wanted::Later,
        }
    }

    /// People are told once for each container: the gateway answers all the same, if it is asked.
    fn tell_untouched(&self, source: &Source, untouched: &Untouched, wish: &Wish) {
        let port =
            self.ports().all().find(|i| i.source == *source && i.dns).map(|i| (i.port, i.container.clone()));
        let Some((port, container)) = port else { return };
        if super::lock_of(&self.untouched).insert(port) {
            let gateway = wish.gateway;
            self.tell(
                "resolver_untouched",
                format!("{container} is not pointed at the name server {gateway}: {untouched}"),
            );
        }
    }
}

/// One step, written down before it is done.
fn carry_out(
    resolvers: &std::sync::Mutex<Resolvers>,
    source: &Source,
    place: &Place,
    wish: Option<&Wish>,
    again: bool,
) -> Result<(), Untouched> {
    let known = super::lock_of(resolvers).get(source).cloned();
    let conf = place.open()?;
    let content = conf.as_ref().map(super::resolv_file::Conf::read).transpose()?;
    let keep = |pointed| super::lock_of(resolvers).put(source, pointed).map_err(unwritten);
    match step(known.as_ref(), content.as_deref(), wish, (&place.base(), again)) {
        Step::Nothing => {}
        Step::Forget => super::lock_of(resolvers).remove(source).map_err(unwritten)?,
        Step::Write(next) => {
            keep(next.clone())?;
            let written = conf.map_or_else(|| place.create(), Ok).and_then(|conf| conf.write(&next.written));
            if let Err(untouched) = written {
                // Nothing of it is ours, unless something was before.
                match known {
                    Some(known) => keep(known)?,
                    None => super::lock_of(resolvers).remove(source).map_err(unwritten)?,
                }
                return Err(untouched);
            }
            keep(next.done())?;
        }
        Step::Restore(last) => {
            keep(last.clone())?;
            match (&last.former, conf) {
                (Some(former), Some(conf)) => conf.write(former)?,
                (None, Some(_)) => place.remove()?,
                (_, None) => {}
            }
            super::lock_of(resolvers).remove(source).map_err(unwritten)?;
        }
    }
    Ok(())
}

fn unwritten(error: peering::io::StoreError) -> Untouched {
    Untouched::Io(std::io::Error::other(error))
}

/// Puts the files back that a state directory names; no daemon may be running on it.
pub(super) fn put_back(dir: &std::path::Path) -> Result<(), Failure> {
    let (resolvers, _) = Resolvers::load(dir).map_err(Failure::internal)?;
    let sources = resolvers.sources();
    let resolvers = std::sync::Mutex::new(resolvers);
    for source in sources {
        // Of a Docker container only Docker can say where it is.
        let done =
            Place::of(&source, None).and_then(|place| carry_out(&resolvers, &source, &place, None, false));
        done.unwrap_or_else(|untouched| tracing::warn!("a resolv.conf stays as it is: {untouched}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::*;
    use crate::resolver::plan::Phase;

    fn blue() -> Source {
        Source::File { path: "/run/netns/blue".into() }
    }

    fn wish(last: u8) -> Wish {
        Wish { gateway: [10, 32, 0, last].into(), networks: vec!["mesh".to_owned()] }
    }

    /// A resolv.conf to point, and what is remembered of it.
    struct Scene {
        state: TempDir,
        /// Holds the file.
        _etc: TempDir,
        path: PathBuf,
        place: Place,
        resolvers: Mutex<Resolvers>,
    }

    /// With this text in the file, or without a file.
    fn scene(text: Option<&str>) -> Scene {
        let (state, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = etc.path().join("resolv.conf");
        text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        let resolvers = Mutex::new(Resolvers::load(state.path()).unwrap().0);
        Scene { state, _etc: etc, place: Place::Named(path.clone()), path, resolvers }
    }

    #[test]
    fn a_file_is_pointed_and_put_back_and_the_disk_knows_it_first() {
        let Scene { state, path, place, resolvers, .. } = &scene(Some("nameserver 192.0.2.53\n"));
        carry_out(resolvers, &blue(), place, Some(&wish(1)), false).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("nameserver 10.32.0.1\n"));
        let (stored, _) = Resolvers::load(state.path()).unwrap();
        assert_eq!(stored.get(&blue()).unwrap().former.as_deref(), Some("nameserver 192.0.2.53\n"));
        assert_eq!(stored.get(&blue()).unwrap().phase, Phase::Written);
        // A crash in the middle of writing: the next daemon puts back what was there.
        let half =
            crate::resolver::plan::Pointed { phase: Phase::Writing, ..stored.get(&blue()).unwrap().clone() };
        super::super::lock_of(resolvers).put(&blue(), half).unwrap();
        std::fs::write(path, "# Written by mesh").unwrap();
        let next = Mutex::new(Resolvers::load(state.path()).unwrap().0);
        carry_out(&next, &blue(), place, None, false).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "nameserver 192.0.2.53\n");
        assert!(Resolvers::load(state.path()).unwrap().0.sources().is_empty());
    }

    #[test]
    fn a_file_that_was_made_is_removed_again() {
        let Scene { path, place, resolvers, .. } = &scene(None);
        carry_out(resolvers, &blue(), place, Some(&wish(1)), false).unwrap();
        assert!(path.exists());
        carry_out(resolvers, &blue(), place, Some(&wish(2)), false).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("nameserver 10.32.0.2\n"));
        carry_out(resolvers, &blue(), place, None, false).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let Scene { path, place, resolvers, .. } = &scene(Some("nameserver 192.0.2.53\n"));
        carry_out(resolvers, &blue(), place, Some(&wish(1)), false).unwrap();
        std::fs::write(path, "nameserver 192.0.2.99\n").unwrap();
        carry_out(resolvers, &blue(), place, Some(&wish(1)), false).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "nameserver 192.0.2.99\n");
        carry_out(resolvers, &blue(), place, None, false).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "nameserver 192.0.2.99\n");
        assert!(super::super::lock_of(resolvers).get(&blue()).is_none());
    }
}
