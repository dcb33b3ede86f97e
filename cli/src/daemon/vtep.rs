//! External VXLAN endpoints.

use peering::mesh::VtepError;

use super::Daemon;
use crate::failure::{Failure, code};
use crate::shape::Vtep;

impl Daemon {
    /// All VTEPs of all networks.
    pub(super) async fn vteps(&self) -> Vec<Vtep> {
        let views = self.peering.vteps().await;
        let mut vteps: Vec<Vtep> =
            views.iter().map(|v| Vtep { network: self.network_name(v.network), address: v.addr }).collect();
        vteps.sort();
        vteps
    }

    /// Declares a VTEP; one that is declared already is fine.
    pub(super) async fn add_vtep(&self, vtep: &Vtep) -> Result<(), Failure> {
        self.refuse_when_clone().await?;
        let network = self.network_id(&vtep.network)?;
        self.peering.add_vtep(network, vtep.address).await.map_err(|error| match error {
            VtepError::UnknownNetwork => {
                Failure::new(code::UNKNOWN_NETWORK, format!("there is no network {}", vtep.network))
                    .hint("the network `mesh` is always there")
            }
            VtepError::Sealed => {
                let why = format!(
                    "frames of the network {} are sealed, which no external VTEP can open",
                    vtep.network
                );
                Failure::new(code::NETWORK_SEALED, why)
                    .hint("external VTEPs need a cluster whose hosts are launched with --encryption off")
            }
        })
    }

    /// Removes a VTEP; one that is not declared is fine.
    pub(super) async fn remove_vtep(&self, vtep: &Vtep) -> Result<(), Failure> {
        self.refuse_when_clone().await?;
        let network = self.network_id(&vtep.network)?;
        self.peering.remove_vtep(network, vtep.address).await;
        Ok(())
    }

    /// A clone that waits says nothing, so nobody would hear of it.
    async fn refuse_when_clone(&self) -> Result<(), Failure> {
        let Some(other) = self.peering.clone_of().await else { return Ok(()) };
        Err(Failure::new(code::CLONE, format!("this host is a clone: {other}"))
            .hint("run it on another host, or stop one of the two"))
    }
}
