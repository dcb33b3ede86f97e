//! What the wire between two hosts does with super-frames.

use anyhow::Result;

use crate::netns::Namespace;
use crate::process::Tool;

/// The model of an underlay interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wire {
    /// A plain veth: 64 KiB super-frames pass uncut. It flatters whoever uses segmentation offload.
    Veth,
    /// A real network card: the sender cuts, the receiver joins. The main case.
    Nic,
    /// As `Nic`, and the receiver does not join either.
    Cut,
}

impl Wire {
    /// All of them.
    pub const ALL: [Wire; 3] = [Wire::Veth, Wire::Nic, Wire::Cut];

    /// Turns the offloads of one end of the wire on and off.
    pub(crate) fn apply(self, namespace: &Namespace, interface: &str) -> Result<()> {
        let gro = match self {
            Wire::Veth => return Ok(()),
            Wire::Nic => "gro on",
            Wire::Cut => "gro off",
        };
        let cut = "tso off gso off tx-udp-segmentation off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off";
        let line = format!("-K {interface} {cut} {gro}");
        Tool::new("ethtool").words(&line).inside(namespace).run().map(drop)
    }
}
