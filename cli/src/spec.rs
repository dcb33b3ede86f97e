//! What people ask of a new network, as the control plane takes it.

use engine::types::Vni;
use peering::mesh::{NetworkError, NetworkSpec, SubnetSpec};

use crate::shape::{CreateRequest, SubnetRequest};

/// The network that is asked for.
///
/// # Errors
/// Something about it makes no sense, whatever other networks there are.
pub(crate) fn spec(request: CreateRequest) -> Result<NetworkSpec, NetworkError> {
    let spec = NetworkSpec {
        name: request.name,
        subnets: request.subnets.into_iter().map(subnet).collect(),
        ipv6: request.ipv6,
        vni: request.vni.map(vni).transpose()?,
        mtu: request.mtu,
        internal: request.internal,
        encrypted: request.encrypted,
        labels: request.labels.into_iter().collect(),
        options: request.options.into_iter().collect(),
        ..NetworkSpec::default()
    };
    spec.check()?;
    Ok(spec)
}

fn subnet(request: SubnetRequest) -> SubnetSpec {
    let SubnetRequest { subnet, range, gateway, aux } = request;
    SubnetSpec { subnet, range, gateway, aux: aux.into_iter().collect() }
}

fn vni(number: u32) -> Result<Vni, NetworkError> {
    let wrong = || NetworkError::Argument {
        argument: "--vni",
        reason: format!("{number} is no number of a network"),
    };
    Vni::new(number).ok_or_else(wrong)
}
