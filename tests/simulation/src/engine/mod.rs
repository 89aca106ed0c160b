//! The shell around the library's pure decisions, as machines that make one step at a time: each commit, call and send is a
//! step of its own, between any two of which others act, and at each of which the process may be killed, frozen or left
//! without an answer. What the steps do is what `pay`, `calls`, `sweep` and `cycle` do.

pub mod creator;
pub mod sweeper;
pub mod worker;

use chrono::Duration;
use payday::id::{ChunkId, RunId};
use payday::queue::Message;

use crate::tables::{Breach, Time};
use crate::world::World;
use creator::Creator;
use sweeper::Sweeper;
use worker::Worker;

/// What becomes of the step's commit or send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    Fine,
    /// Nothing happens; the caller hears an error.
    Away,
    /// It happens; the caller hears an error.
    AnswerLost,
}

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Led {
    On,
    /// Nothing to do before then.
    Wait(Time),
    Done,
    /// The handler ends with an error; its message comes again.
    Failed,
}

pub enum Work {
    Pay(Box<Worker>),
    Create(Creator),
    Sweep(Box<Sweeper>),
}

/// A running function.
pub struct Actor {
    pub work: Work,
    /// The queue message it works on.
    pub message: Option<u64>,
    pub frozen_until: Option<Time>,
    pub wakes_at: Time,
    /// How far its clock is off.
    pub skew: Duration,
    /// For how long its monotonic clock stood still.
    pub stood_still: Duration,
    /// Stands still in the meantime, so that its monotonic clock does not notice.
    pub clock_stops: bool,
}

impl Actor {
    pub fn new(work: Work, message: Option<u64>, skew: Duration, now: Time) -> Self {
        Self { work, message, frozen_until: None, wakes_at: now, skew, stood_still: Duration::zero(), clock_stops: false }
    }

    /// What its monotonic clock shows.
    pub fn monotonic(&self, now: Time) -> Time {
        now - self.stood_still
    }

    pub fn step(&mut self, world: &mut World, luck: Luck) -> Result<Led, Breach> {
        let monotonic = self.monotonic(world.now);
        match &mut self.work {
            Work::Pay(worker) => worker.step(world, luck, world.now + self.skew, monotonic),
            Work::Create(creator) => creator.step(world, luck, world.now + self.skew),
            Work::Sweep(sweeper) => sweeper.step(world, luck, world.now + self.skew),
        }
    }

    /// What it is about to do, for the report.
    pub fn boundary(&self) -> &'static str {
        match &self.work {
            Work::Pay(worker) => worker.boundary(),
            Work::Create(creator) => creator.boundary(),
            Work::Sweep(sweeper) => sweeper.boundary(),
        }
    }
}

pub fn chunk_message(chunk_id: ChunkId) -> Message {
    Message::ProcessChunk { chunk_id }
}

pub fn run_message(run_id: RunId) -> Message {
    Message::CreateBatch { run_id }
}
