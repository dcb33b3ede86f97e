//! A worker's part in the gateway: frames for it, and what it has made.

use super::output::{Output, segments};
use crate::counters::DropReason;
use crate::io::gateway::Label;
use crate::packet::Batch;
use crate::switch::{Port, Switch};

impl Output {
    /// Hands frames over to the gateway, and wakes it once for all of them.
    #[cold]
    pub(super) fn give_gateway(&mut self, switch: &Switch, from: Port, batch: &Batch, slots: &[u16]) {
        let Port::Tap(index) = from else { return };
        let port = switch.tables().port(index);
        for slot in slots.iter().filter_map(|&slot| batch.frames().get(usize::from(slot))) {
            let (segments, partial) = (segments(batch, slot), slot.vnet.needs_csum());
            let label = port.map(|port| Label { index, port: port.id, vni: port.vni, partial });
            match label {
                None => self.drop_from(from, DropReason::PortGone, segments),
                Some(label) if self.door.lane.to.send(label, slot.frame(batch.arena())) => {
                    self.counters.to_gateway(segments);
                }
                Some(_) => self.drop_from(from, DropReason::GatewayFull, segments),
            }
        }
        // A full counter means that a wake-up is pending.
        let _ = self.door.wake.write(1);
    }

    /// Writes what the gateway has made, as far as it is there.
    pub(super) fn deliver_gateway(&mut self) {
        let mut made = 0;
        while let Some(parcel) = self.door.lane.back.take() {
            self.answer(parcel.label.index, &parcel.frame);
            made += 1;
            self.door.lane.back.give_back(parcel.frame);
        }
        if made > 0 {
            self.counters.from_gateway(made);
            self.finish();
        }
    }
}
