//! What a host must remember: its records and its addresses.

use engine::types::PeerId;
use serde::{Deserialize, Serialize};

use super::{Mesh, MeshConfig, MeshError};
use crate::gossip::RecordStore;
use crate::ipam::Ipam;
use crate::records::ClusterId;

const VERSION: u8 = 1;

/// The state after its version byte; each part carries a version of its own.
#[derive(Serialize, Deserialize)]
struct Stored {
    records: Vec<u8>,
    addresses: Vec<u8>,
}

/// What the disk held, one incarnation later; or a host without a past.
pub(super) fn restore(config: &MeshConfig, stored: Option<&[u8]>) -> Result<(RecordStore, Ipam), MeshError> {
    let own = config.identity.peer_id();
    let Some(bytes) = stored else {
        let records = if config.forgot { RecordStore::forgetful(own) } else { RecordStore::new(own) };
        return Ok((records, Ipam::new(own, config.seed)));
    };
    let stored = read(bytes)?;
    let records = RecordStore::restore(own, &stored.records).map_err(unreadable)?;
    let ipam = Ipam::restore(own, config.seed, &stored.addresses).map_err(unreadable)?;
    Ok((records, ipam))
}

fn read(bytes: &[u8]) -> Result<Stored, MeshError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(unreadable),
        Some((version, _)) => Err(MeshError::Stored(format!("version {version} is not known here"))),
        None => Err(MeshError::Stored("it is empty".to_owned())),
    }
}

fn unreadable(error: impl std::fmt::Display) -> MeshError {
    MeshError::Stored(error.to_string())
}

impl Mesh {
    /// The cluster to which a stored state belongs.
    ///
    /// # Errors
    /// The bytes are no state of this release.
    pub fn stored_cluster(bytes: &[u8]) -> Result<Option<ClusterId>, MeshError> {
        let ipam = Ipam::restore(PeerId::default(), [0; 32], &read(bytes)?.addresses).map_err(unreadable)?;
        Ok(ipam.cluster())
    }

    /// Everything that must be on disk. None: it cannot be put into bytes, which is a defect, and is told.
    pub(super) fn save(&mut self) -> Option<Vec<u8>> {
        let records = self.store.save().map_err(unreadable);
        let addresses = self.ipam.save().map_err(unreadable);
        let bytes = records.and_then(|records| {
            postcard::to_extend(&Stored { records, addresses: addresses? }, vec![VERSION]).map_err(unreadable)
        });
        bytes.map_err(|error| self.note("store_failed", error.to_string())).ok()
    }
}
