//! Takes away from a failing history whatever it fails without, so that what is left is what matters.

use crate::history::{History, Perils};
use crate::planted::Planted;
use crate::run;

/// The smallest history found that breaks the same rule.
pub fn shrink(history: &History, rule: &str, planted: Option<Planted>) -> History {
    let fails = |candidate: &History| run(candidate, planted).breach.is_some_and(|breach| breach.rule == rule);
    let mut best = history.clone();
    let calm = History { perils: Perils::default(), ..best.clone() };
    if fails(&calm) {
        best = calm;
    }
    // Delta debugging: ever smaller parts are taken away, as long as that does not mend it.
    let mut part = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut taken = false;
        while from < best.steps.len() {
            let mut candidate = best.clone();
            candidate.steps.drain(from..(from + part).min(best.steps.len()));
            if fails(&candidate) {
                best = candidate;
                taken = true;
            } else {
                from += part;
            }
        }
        match (part, taken) {
            (1, false) => return best,
            (1, true) => {}
            _ => part = part.div_ceil(2).max(1),
        }
    }
}
