//! Many histories on all cores, one seed after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::counts::Counts;
use crate::history::{self, History};
use crate::{Breach, run};

/// What came of many histories.
#[derive(Debug, Default)]
pub struct Lived {
    pub histories: u64,
    pub counts: Counts,
    /// The lowest seed that broke a rule; no further seed is begun once one has.
    pub failed: Option<(History, Breach)>,
}

/// Lives `seeds` histories from a seed on, and tells `so_far` how many there are after each.
pub fn live(from: u64, seeds: u64, so_far: &(dyn Fn(u64) + Sync)) -> Lived {
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let lived = Mutex::new(Lived::default());
    let work = || {
        let mut counts = Counts::default();
        let mut histories = 0;
        while !failed.load(Ordering::Relaxed) {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= seeds {
                break;
            }
            let history = history::of_seed(from + place);
            let ended = run(&history, None);
            counts.merge(&ended.counts);
            histories += 1;
            so_far(place + 1);
            if let Some(breach) = ended.breach {
                failed.store(true, Ordering::Relaxed);
                let mut lived = lived.lock().unwrap_or_else(PoisonError::into_inner);
                if lived.failed.as_ref().is_none_or(|(lowest, _)| history.seed < lowest.seed) {
                    lived.failed = Some((history, breach));
                }
            }
        }
        let mut lived = lived.lock().unwrap_or_else(PoisonError::into_inner);
        lived.histories += histories;
        lived.counts.merge(&counts);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    lived.into_inner().unwrap_or_else(PoisonError::into_inner)
}
