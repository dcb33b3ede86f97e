//! Many networks with many endpoints on a few hosts: what people wait for, and what the daemons hold.
//!
//! The networks are made, and some of the endpoints are ports of containers, by the command line on the hosts. All other endpoints
//! are those of [`member`]s: hosts of the same cluster that have records and addresses like any other, and no containers.

pub mod member;
pub mod question;
pub mod trial;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::percentile;
use crate::table::{aligned, figure};

/// Most milliseconds in which a container is attached, the middle of all.
pub const ATTACH_MS: f64 = 100.0;
/// Most milliseconds in which all networks are listed, the middle of all.
pub const LIST_MS: f64 = 200.0;

/// How long one thing took, in milliseconds.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Times {
    /// How often it was done.
    pub count: usize,
    /// The middle.
    pub median: f64,
    /// What 99 of 100 do not exceed.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// Sums up; nothing when there are none.
    pub fn of(times_ms: &[f64]) -> Option<Self> {
        let at = |percent| percentile(times_ms, percent);
        Some(Times { count: times_ms.len(), median: at(50.0)?, p99: at(99.0)?, max: at(100.0)? })
    }
}

/// What was measured.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Figures {
    /// On what.
    pub machine: Machine,
    /// Hosts with containers.
    pub hosts: usize,
    /// Networks beside `mesh`.
    pub networks: usize,
    /// Endpoints on them.
    pub endpoints: usize,
    /// How many of these are ports of containers.
    pub ports: usize,
    /// Everything that was done, by its name, in the order in which it was.
    pub times_ms: Vec<(String, Times)>,
    /// Until the members had addresses for all their endpoints, in seconds.
    pub filled_s: f64,
    /// From then until all hosts had the same state, in seconds.
    pub agreed_s: f64,
    /// Resident memory of each daemon in the end, in MiB.
    pub memory_mib: Vec<f64>,
    /// Length of the state on disk of the first host, in MiB.
    pub state_mib: f64,
    /// The part of a core that each daemon uses at rest in the end, in percent.
    pub rest_percent: Vec<f64>,
}

impl Figures {
    /// As a table.
    pub fn markdown(&self) -> String {
        let head = ["", "how often", "median", "p99", "longest"].map(str::to_owned).to_vec();
        let ms = |value: f64| format!("{} ms", figure(value));
        let rows = self.times_ms.iter().map(|(what, times)| {
            vec![what.clone(), times.count.to_string(), ms(times.median), ms(times.p99), ms(times.max)]
        });
        aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    /// What is no time of a command.
    pub fn rest(&self) -> String {
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        format!(
            "{} networks, {} endpoints ({} ports) on {} hosts; endpoints made in {:.1} s, known everywhere {:.1} s later; \
             memory of a daemon up to {:.0} MiB, its state {:.1} MiB; at rest up to {:.2} % of a core",
            self.networks,
            self.endpoints,
            self.ports,
            self.hosts,
            self.filled_s,
            self.agreed_s,
            most(&self.memory_mib),
            self.state_mib,
            most(&self.rest_percent)
        )
    }

    /// Every promise that is broken, for people. What was not measured breaks its promise.
    pub fn broken(&self) -> Vec<String> {
        let bounds = [(trial::ATTACH, ATTACH_MS), (trial::LIST, LIST_MS)];
        let median =
            |what: &str| self.times_ms.iter().find(|(name, _)| name == what).map(|(_, times)| times.median);
        let broken = bounds.iter().filter(|(what, limit)| median(what).is_none_or(|median| median >= *limit));
        broken
            .map(|(what, limit)| {
                let took =
                    median(what).map_or("was not measured".to_owned(), |ms| format!("takes {ms:.1} ms"));
                format!("{what} {took}, promised less than {limit} ms")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(attach: f64, list: Option<f64>) -> Figures {
        let times = |median| Times { count: 1, median, p99: median, max: median };
        let attach = (trial::ATTACH.to_owned(), times(attach));
        let list = list.map(|list| (trial::LIST.to_owned(), times(list)));
        Figures {
            machine: Machine {
                version: "1".to_owned(),
                date: "2026-01-01".to_owned(),
                kernel: "1".to_owned(),
                processors: 1,
                processor: "one".to_owned(),
                doubts: Vec::new(),
            },
            hosts: 5,
            networks: 10,
            endpoints: 100,
            ports: 10,
            times_ms: std::iter::once(attach).chain(list).collect(),
            filled_s: 1.0,
            agreed_s: 1.0,
            memory_mib: vec![1.0],
            state_mib: 1.0,
            rest_percent: vec![0.1],
        }
    }

    #[test]
    fn what_is_too_slow_or_missing_breaks_a_promise() {
        assert_eq!(figures(99.9, Some(199.9)).broken(), Vec::<String>::new());
        assert_eq!(figures(100.0, Some(200.0)).broken().len(), 2);
        let broken = figures(1.0, None).broken();
        assert_eq!(broken, ["network ls was not measured, promised less than 200 ms"]);
    }
}
