//! What the CPU did for whom, read from /proc: the functions by name, Postgres with all its backends, and this process, in which
//! the Stripe double, the queues, the Lambda host and the HTTP front live.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::postgres::Postgres;
use crate::stack::Stack;

/// /proc counts in hundredths of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time used so far.
#[derive(Debug, Clone, Default)]
pub struct Used {
    pub functions: BTreeMap<String, Duration>,
    pub postgres: Duration,
    pub payday: Duration,
}

impl Used {
    /// Reads all of them. A function's process that has ended is not counted any more, so nothing may be killed in between.
    pub fn now(stack: &Stack, postgres: &Postgres) -> Self {
        let of = |name: &String| stack.lambda.pids(name).into_iter().map(|pid| of_process(pid).0).sum();
        Self {
            functions: stack.wiring.functions.keys().map(|name| (name.clone(), of(name))).collect(),
            postgres: postgres.pid().map(of_family).unwrap_or_default(),
            payday: of_process(std::process::id()).0,
        }
    }

    pub fn since(&self, before: &Self) -> Self {
        let functions = self.functions.iter().map(|(name, used)| {
            let before = before.functions.get(name).copied().unwrap_or_default();
            (name.clone(), used.saturating_sub(before))
        });
        Self {
            functions: functions.collect(),
            postgres: self.postgres.saturating_sub(before.postgres),
            payday: self.payday.saturating_sub(before.payday),
        }
    }

    pub fn of(&self, function: &str) -> Duration {
        self.functions.get(function).copied().unwrap_or_default()
    }

    pub fn of_others(&self, function: &str) -> Duration {
        self.functions.iter().filter(|(name, _)| *name != function).map(|(_, used)| *used).sum()
    }

    pub fn total(&self) -> Duration {
        self.functions.values().sum::<Duration>() + self.postgres + self.payday
    }
}

/// A process's own time, and that of its children that have ended.
fn of_process(pid: u32) -> (Duration, Duration) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; what follows is fields from the third on.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u32>().ok()).unwrap_or(0);
    (TICK * (ticks(11) + ticks(12)), TICK * (ticks(13) + ticks(14)))
}

/// A process with its children, those that live and those that have ended.
fn of_family(pid: u32) -> Duration {
    let (own, ended) = of_process(pid);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let living = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(|pid| of_process(pid).0);
    own + ended + living.sum::<Duration>()
}
