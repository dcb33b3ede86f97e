//! TCP over the overlay is at least half as fast as over kernel VXLAN in the same run, on the `nic` wire.

use netns_tests::{
    Addressed, IperfServer, KernelVtep, Namespace, Result, Topology, Transport, Wire, ensure, secs,
};

/// Interleaved rounds; the median of each counts.
const ROUNDS: usize = 5;

#[test]
fn half_of_kernel_vxlan_at_least() -> Result<()> {
    let overlay = Topology::new("meshnet beside the kernel")?.wire(Wire::Nic).hosts(2)?;
    overlay.host(0).launch(&[])?;
    overlay.host(1).launch(&["node01"])?;
    let (web, db) = (overlay.host(0).attach("web")?, overlay.host(1).attach("db")?);
    web.ping(&db)?;

    let kernel = Topology::new("the kernel beside meshnet")?.wire(Wire::Nic).hosts(2)?;
    let (left, right) = (kernel.host(0), kernel.host(1));
    let here = KernelVtep::new(left, &[right])?.container("here", "10.47.0.1/12")?;
    let there = KernelVtep::new(right, &[left])?.container("there", "10.47.0.2/12")?;
    here.ping(&there)?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(speed(web.namespace(), db.namespace(), &db)?);
        theirs.push(speed(here.namespace(), there.namespace(), &there)?);
    }
    let ratio = median(&mut ours) / median(&mut theirs);
    ensure!(ratio >= 0.5, "the ratio is {ratio:.2}: {ours:.0?} bit/s beside {theirs:.0?}");
    Ok(())
}

fn speed(from: &Namespace, to: &Namespace, at: &impl Addressed) -> Result<f64> {
    IperfServer::start(to, at)?.measure(from, Transport::TCP, secs(2), "")?.bits_per_second()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
