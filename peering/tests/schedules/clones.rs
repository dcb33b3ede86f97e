//! Machines that run with a copy of a host's disk beside it.

use std::time::Duration;

use peering::mesh::AllocError;

use super::run::Run;
use crate::sim::{Loss, World};

/// A host that was refused because of a clone asks again, and one that waited goes on, so soon after that is gone.
const ALONE_AGAIN: Duration = Duration::from_secs(75);

impl Run {
    /// The first host may be down or cut off, and the clone taken for it: then what it did is forgotten.
    pub(super) fn clone(&mut self, of: usize) {
        if self.world.hosts[of].disk.is_some() {
            self.laws.forgot(&self.world, of);
            let launch = self.world.hosts[of].launch.clone();
            self.world.launch_clone(of, launch);
        }
    }

    fn clones(&self) -> impl Iterator<Item = usize> + use<> {
        self.hosts..self.world.hosts.len()
    }

    /// Ends those clones that still run for which `ends` holds.
    pub(super) fn end_clones(&mut self, ends: impl Fn(&Run, usize) -> bool) {
        for clone in self.clones() {
            if self.runs(clone) && ends(self, clone) {
                self.world.crash_with(clone, Loss::Disk, Duration::ZERO);
            }
        }
    }

    /// It waits, and the host with its key is there.
    pub(super) fn is_beside_the_first(&self, clone: usize) -> bool {
        let hosts = &self.world.hosts;
        let first = hosts[clone].clone_of.filter(|of| hosts[*of].peer_id() == hosts[clone].peer_id());
        let established =
            |of: usize| self.hears(of) && !self.world.waits(of) && !self.stay_down.contains(&of);
        self.world.waits(clone) && first.is_some_and(established)
    }

    /// Whoever was refused because of a clone that is gone now goes on.
    pub(super) fn await_clones(&mut self) {
        if self.clones().next().is_none() {
            return;
        }
        self.wait(ALONE_AGAIN);
        let waits = |world: &World| world.running().into_iter().find(|host| world.waits(*host));
        if let Some(host) = waits(&self.world) {
            self.world.tell_all();
            panic!("seed {}: {host} waits for a host that is gone", self.world.seed);
        }
    }

    /// Law 7: a clone that still runs beside the host with its key gives no addresses.
    pub(super) fn assert_clones_wait(&mut self) {
        let clones: Vec<usize> = self.clones().filter(|clone| self.runs(*clone)).collect();
        for clone in clones {
            let request = self.world.attach(clone, &[]);
            self.world.run_until(Duration::from_secs(1), |world| world.answer(request).is_some());
            let answer = self.world.answer(request);
            let refused = matches!(answer, Some(Err(AllocError::Clone { .. })));
            assert!(refused, "seed {}: the clone {clone} answers {answer:?}", self.world.seed);
        }
    }
}
