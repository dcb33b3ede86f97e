//! Makes a failing plan shorter as long as it fails.

use super::carry_out;
use super::plan::Plan;

/// The same plan without everything that it fails without, at most `tries` tries later.
pub fn shrink(plan: &Plan, mut tries: u32) -> Plan {
    let mut shortest = plan.clone();
    let mut piece = shortest.steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = shortest.steps.len();
        while at < shortest.steps.len() && tries > 0 {
            tries -= 1;
            let mut shorter = shortest.clone();
            let end = (at + piece).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            if carry_out(&shorter).is_err() {
                shortest = shorter;
            } else {
                at = end;
            }
        }
        if tries == 0 || (piece == 1 && shortest.steps.len() == before) {
            return shortest;
        }
        piece = (piece / 2).max(1);
    }
}
