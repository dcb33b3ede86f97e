//! What the gateway answers under a steady load of questions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::table::{aligned, figure};

/// One run: questions for a local name from one container.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Names {
    /// What it was measured on.
    #[serde(flatten)]
    pub machine: Machine,
    /// Questions a second.
    pub rate: u32,
    /// Length of the run.
    pub seconds: u32,
    /// Questions without an answer.
    pub lost: u64,
    /// The time that half of the answers did not exceed, in microseconds, counted from when its question was due.
    pub p50_us: f64,
    /// ... 99 of 100.
    pub p99_us: f64,
    /// ... 999 of 1000.
    pub p999_us: f64,
    /// The longest.
    pub longest_us: f64,
}

impl Names {
    /// Of the times of all answers, in any order.
    pub fn new(machine: Machine, rate: u32, seconds: u32, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len() as f64 * share) as usize;
            let time = times.get(place.min(times.len().saturating_sub(1)));
            time.copied().unwrap_or_default().as_secs_f64() * 1e6
        };
        let asked = u64::from(rate) * u64::from(seconds);
        Names {
            rate,
            seconds,
            lost: asked.saturating_sub(times.len() as u64),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            longest_us: at(1.0),
            machine,
        }
    }

    /// What it was measured on, and how.
    pub fn headline(&self) -> String {
        let Names { machine, rate, seconds, .. } = self;
        format!("{machine}; {rate} questions a second for {seconds} s")
    }

    /// The figures as Markdown.
    pub fn markdown(&self) -> String {
        let head = ["questions", "lost", "p50, us", "p99, us", "p99.9, us", "longest, us"];
        let asked = u64::from(self.rate) * u64::from(self.seconds);
        let times = [self.p50_us, self.p99_us, self.p999_us, self.longest_us].map(figure);
        let row = [asked.to_string(), self.lost.to_string()].into_iter().chain(times).collect();
        aligned(&[head.map(str::to_owned).to_vec(), row])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_lost() {
        let machine = serde_json::from_str(
            r#"{"version":"1","date":"2026-03-09","kernel":"6","processors":2,"processor":"x"}"#,
        );
        let times = (1..=99).rev().map(Duration::from_micros).collect();
        let names = Names::new(machine.unwrap(), 50, 2, times);
        assert_eq!((names.lost, names.p50_us, names.longest_us), (1, 50.0, 99.0));
        assert!(names.markdown().contains("| 100 "), "{}", names.markdown());
    }
}
