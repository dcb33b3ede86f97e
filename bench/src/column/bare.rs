//! The wire alone, from host to host.

use netns_tests::Topology;

use super::{End, Lane, Route};

/// From the first host to the others.
pub(super) fn lane(topology: Topology) -> Lane {
    let route = Route::through(topology.all().iter().map(End::from).collect());
    Lane::new(topology, route)
}
