//! Throughput of the overlay beside the bare wire and the kernel's VXLAN, in turns.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Demo;
use super::baseline::Baseline;
use super::lab::{Lab, Route};
use super::measure::{self, Flow};
use super::report::Throughput;
use super::stop::Interrupted;

/// Names of the paths that are compared.
const BARE: &str = "bare wire";
const KERNEL: &str = "kernel VXLAN";
pub(super) const MESHNET: &str = "meshnet";
/// The share of one processor in use beyond which figures are doubtful; idle pings take a fraction of it.
const QUIET: f64 = 0.5;

impl Demo<'_> {
    /// Measures every path and puts it into the report.
    pub(super) fn measure(&mut self, lab: &Lab) -> Result<()> {
        let baseline = self.kernel_vxlan(lab)?;
        let mut paths = vec![Compared::new(BARE, lab.bare_route())];
        paths.extend(baseline.as_ref().map(|baseline| Compared::new(KERNEL, baseline.route())));
        paths.push(Compared::new(MESHNET, lab.overlay_route()?));
        let names: Vec<&str> = paths.iter().map(|path| path.name).collect();
        self.step(None, &format!("one TCP stream: {}", names.join(", ")), |demo| {
            let (busy, start) = (measure::busy_seconds()?, Instant::now());
            for path in &mut paths {
                path.ping_us = path.route.ping(&demo.stop)?;
            }
            let busy = (measure::busy_seconds()? - busy) / start.elapsed().as_secs_f64();
            demo.report.notes.extend((busy > QUIET).then(|| busy_note(busy)));
            for run in 1..=demo.args.runs {
                paths.iter_mut().try_for_each(|path| demo.run_once(path, run))?;
            }
            Ok(((), format!("{} runs of {} s each, in turns", demo.args.runs, demo.args.seconds)))
        })?;
        let kernel = paths.iter().find(|path| path.name == KERNEL).and_then(|path| median(&path.flows));
        let rows = paths.iter().filter_map(|path| path.throughput(kernel.map(|flow| flow.gbit_per_s())));
        self.report.throughput.extend(rows);
        Ok(())
    }

    /// One run over one path. A path that fails is noted and not tried again; the others go on.
    fn run_once(&mut self, path: &mut Compared<'_>, run: u8) -> Result<()> {
        if path.broken {
            return Ok(());
        }
        self.console.progress(&format!("TCP over {}, run {run} of {}", path.name, self.args.runs))?;
        let time = Duration::from_secs_f64(self.args.seconds);
        match measure::tcp(path.route.from, path.route.receiver, path.route.to, time, &self.stop) {
            Ok(flow) => path.flows.push(flow),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                path.broken = true;
                self.report.notes.push(format!("no throughput of {}: {error:#}", path.name));
            }
        }
        Ok(())
    }

    /// The comparison; a kernel without it costs a column, not the demo.
    fn kernel_vxlan(&mut self, lab: &Lab) -> Result<Option<Baseline>> {
        self.step(
            None,
            "kernel VXLAN between two of the hosts, for comparison",
            |demo| match Baseline::build(lab) {
                Ok(baseline) => {
                    Ok((Some(baseline), "a bridge, a vxlan device and a container each".to_owned()))
                }
                Err(error) => {
                    demo.report.notes.push(format!("no comparison with kernel VXLAN: {error:#}"));
                    Ok((None, "not available here".to_owned()))
                }
            },
        )
    }
}

fn busy_note(share: f64) -> String {
    format!(
        "something else uses {:.0} % of a processor: all figures are lower than they could be",
        share * 100.0
    )
}

/// One of the ways that are compared.
struct Compared<'a> {
    name: &'static str,
    route: Route<'a>,
    ping_us: Option<f64>,
    flows: Vec<Flow>,
    broken: bool,
}

impl<'a> Compared<'a> {
    fn new(name: &'static str, route: Route<'a>) -> Self {
        Self { name, route, ping_us: None, flows: Vec::new(), broken: false }
    }

    /// Its row of the report; nothing when it did not work.
    fn throughput(&self, kernel_gbit_per_s: Option<f64>) -> Option<Throughput> {
        let middle = median(&self.flows).filter(|_| !self.broken)?;
        Some(Throughput {
            path: self.name,
            gbit_per_s: middle.gbit_per_s(),
            runs: self.flows.iter().map(Flow::gbit_per_s).collect(),
            ratio_to_kernel_vxlan: kernel_gbit_per_s.map(|kernel| middle.gbit_per_s() / kernel),
            cpu_s_per_gb: middle.cpu_s_per_gb(),
            ping_us: self.ping_us,
        })
    }
}

/// The middle run by throughput (the lower of two).
fn median(flows: &[Flow]) -> Option<Flow> {
    let mut sorted = flows.to_vec();
    sorted.sort_by(|a, b| a.gbit_per_s().total_cmp(&b.gbit_per_s()));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_run_is_reported_with_its_ratio() {
        let flow = |bytes| Flow { bytes, time: Duration::from_secs(1), cpu_seconds: 1.0 };
        let here = engine::io::netns::Netns::current().unwrap();
        let route = Route { from: &here, receiver: &here, to: std::net::Ipv4Addr::LOCALHOST };
        let mut path = Compared::new(MESHNET, route);
        assert!(path.throughput(None).is_none());
        path.flows = vec![flow(300_000_000), flow(100_000_000), flow(200_000_000)];
        let row = path.throughput(Some(3.2)).unwrap();
        assert!((row.gbit_per_s - 1.6).abs() < 1e-9);
        assert!((row.ratio_to_kernel_vxlan.unwrap() - 0.5).abs() < 1e-9);
        assert!((row.cpu_s_per_gb - 5.0).abs() < 1e-9);
        path.broken = true;
        assert!(path.throughput(Some(3.2)).is_none());
    }
}
