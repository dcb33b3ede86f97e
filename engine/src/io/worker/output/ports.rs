//! A worker's queues of the ports.

use std::cell::Cell;
use std::sync::Arc;

use crate::counters::PortCounters;
use crate::io::tap::Tap;
use crate::rate::Limit;
use crate::tables::PortIndex;
use crate::types::Vni;

/// One worker's queues, by port index.
pub(in crate::io::worker) struct Ports(Vec<Option<PortQueue>>);

/// One worker's queue of one port.
pub(in crate::io::worker) struct PortQueue {
    pub(in crate::io::worker) index: PortIndex,
    pub(in crate::io::worker) vni: Vni,
    pub(in crate::io::worker) tap: Tap,
    pub(in crate::io::worker) counters: Arc<PortCounters>,
    pub(in crate::io::worker) limit: Option<Arc<Limit>>,
    /// The burst in which it was written to last.
    pub(super) burst: Cell<u64>,
}

impl PortQueue {
    pub(in crate::io::worker) fn new(
        index: PortIndex,
        vni: Vni,
        tap: Tap,
        counters: Arc<PortCounters>,
        limit: Option<Arc<Limit>>,
    ) -> Self {
        PortQueue { index, vni, tap, counters, limit, burst: Cell::new(0) }
    }
}

impl Ports {
    /// None yet.
    pub(super) fn new() -> Self {
        Ports(Vec::new())
    }

    /// The queue with the index that an epoll event or a verdict names.
    pub(in crate::io::worker) fn at(&self, index: u64) -> Option<&PortQueue> {
        self.0.get(usize::try_from(index).ok()?)?.as_ref()
    }

    pub(in crate::io::worker) fn insert(&mut self, index: PortIndex, queue: PortQueue) {
        if self.0.len() <= index.get() {
            self.0.resize_with(index.get() + 1, || None);
        }
        self.0[index.get()] = Some(queue);
    }

    pub(in crate::io::worker) fn remove(&mut self, index: PortIndex) -> Option<PortQueue> {
        self.0.get_mut(index.get()).and_then(Option::take)
    }
}
