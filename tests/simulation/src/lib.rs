//! The seeded simulation: whole histories on simulated time, in which everything goes wrong that can, driven through the
//! library's own decisions over a model of the tables, against a fake Stripe and an oracle that share no code with them.
//!
//! The same seed is the same history and ends the same. A failing one is shrunk to the steps that matter.

pub mod counts;
pub mod deeds;
pub mod history;
pub mod many;
pub mod planted;
pub mod quiet;
pub mod shrink;
pub mod stripe;
pub mod tables;

mod checks;
mod eligibility;
mod engine;
mod oracle;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use counts::Counts;
use history::History;
use planted::Planted;
pub use tables::Breach;
use world::World;

/// How a history ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub breach: Option<Breach>,
    pub counts: Counts,
    /// A hash of all rows at the end.
    pub fingerprint: u64,
}

/// Lives a history to its end, or to the first rule that is broken.
pub fn run(history: &History, planted: Option<Planted>) -> Ended {
    live(&mut World::new(history, planted, false), history)
}

fn live(world: &mut World, history: &History) -> Ended {
    let lived = catch_unwind(AssertUnwindSafe(|| world.live(history)));
    let breach = match lived {
        Ok(lived) => lived.err(),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Breach::new("nothing panics", text.unwrap_or_default()))
        }
    };
    world.sum_up();
    Ended { breach, fingerprint: world.fingerprint(), counts: std::mem::take(&mut world.counts) }
}

/// Lives a history and returns what it did to the tables.
pub fn deeds_of(history: &History) -> Vec<deeds::Done> {
    let mut world = World::new(history, None, true);
    live(&mut world, history);
    world.deeds()
}

/// Lives the steps of a history without its ending and returns what it did to the tables, last how they were then.
pub fn deeds_of_steps(history: &History) -> Result<Vec<deeds::Done>, Breach> {
    let mut world = World::new(history, None, true);
    world.live_steps(history)?;
    Ok(world.deeds())
}

/// So much of what happened last is told of a failing history.
const TOLD: usize = 60;

/// What a failing history says to whoever has to find out why: the rule, the steps left, what happened last, and how to see it
/// again.
pub fn explain(history: &History, breach: &Breach) -> String {
    let shrunk = shrink::shrink(history, breach.rule, None);
    let mut world = World::new(&shrunk, None, false);
    world.write_down();
    let last = live(&mut world, &shrunk).breach.unwrap_or_else(|| breach.clone());
    let story = world.story();
    let steps: Vec<String> = shrunk.steps.iter().map(|step| format!("  {step}")).collect();
    format!(
        "seed {} breaks: {}\n{}\n\n{} of {} steps matter (beginning {}, {}, {:?}, {:?}):\n{}\n\nwhat happened last:\n  {}\n\nagain: cargo payday sim --seeds 1 --from {}",
        history.seed,
        last.rule,
        last.detail,
        shrunk.steps.len(),
        history.steps.len(),
        shrunk.begins_at,
        shrunk.zone,
        shrunk.rules,
        shrunk.perils,
        steps.join("\n"),
        story[story.len().saturating_sub(TOLD)..].join("\n  "),
        history.seed,
    )
}
