//! What a history does to the tables, transaction by transaction, with what came of each: so that a test can do the same to
//! Postgres and see that the same comes of it there.

use chrono::{Duration, NaiveDate};
use payday::clock::Schedule;
use payday::config::Policy;
use payday::earnings::NewEarning;
use payday::id::{BatchId, ChunkId, ItemId, RunId};
use payday::payouts::wave::{Loaded, Recheck, Wave};

use crate::stripe::accounts::Described;
use crate::stripe::events::Event;
use crate::tables::chunks::{Claim, Pulse};
use crate::tables::events::Effect;
use crate::tables::{Coin, Time};

/// A transaction, and the database's time of it.
#[derive(Debug)]
pub struct Done {
    pub at: Time,
    pub deed: Deed,
}

/// `came`: what the model answered. `now`: the time on the clock of whoever did it.
#[derive(Debug)]
pub enum Deed {
    /// From here on this policy holds.
    Policy(Policy),
    /// A payee, or their settings: the minimum in whole units.
    Settle {
        payee: usize,
        enabled: bool,
        schedule: Schedule,
        minimum: i64,
    },
    Unblock {
        payee: usize,
    },
    Controls {
        paused: bool,
        killed: bool,
    },
    Record(NewEarning),
    Mature(Time),
    /// An account as it was connected.
    Describe {
        payee: usize,
        said: Described,
        at: Time,
    },
    /// An account as a sweep has read it.
    Read {
        payee: usize,
        account: String,
        said: Option<Described>,
        at: Time,
    },
    StartRun {
        schedule: Schedule,
        cycle_on: NaiveDate,
        cutoff_at: Time,
        came: (RunId, bool),
    },
    CreateBatches {
        run: RunId,
        chunk_size: usize,
        now: Time,
    },
    ChunksToQueue {
        run: RunId,
        came: Vec<ChunkId>,
    },
    Claim {
        chunk: ChunkId,
        lease: u64,
        came: Option<Claim>,
    },
    Pulse {
        chunk: ChunkId,
        lease: u64,
        came: Option<Pulse>,
    },
    Turn(Box<Turn>),
    Release {
        chunk: ChunkId,
        lease: u64,
        came: Option<RunId>,
    },
    Block {
        item: ItemId,
        reason: &'static str,
    },
    Halt {
        batch: BatchId,
        reason: &'static str,
        came: bool,
    },
    HaltAll {
        reason: &'static str,
    },
    Event {
        event: Event,
        came: Option<Effect>,
    },
    DueEvents {
        came: Vec<u64>,
    },
    RetryEvent {
        id: u64,
    },
    RetryItem {
        item: ItemId,
        now: Time,
        came: bool,
    },
    CompleteAll,
    Resume {
        reason: &'static str,
    },
    AwaitingFunds {
        came: Vec<Coin>,
    },
    ReleaseFunded {
        coin: Coin,
        available_minor: i64,
        now: Time,
    },
    TakeRuns {
        quiet: Duration,
        came: Vec<RunId>,
    },
    TakeChunks {
        quiet: Duration,
        came: Vec<ChunkId>,
    },
    /// How all rows are now.
    Compare(Vec<(&'static str, Vec<String>)>),
}

/// One commit of a worker.
#[derive(Debug)]
pub struct Turn {
    pub chunk: ChunkId,
    pub batch: BatchId,
    pub now: Time,
    pub named: Vec<ItemId>,
    pub loaded: Vec<Loaded>,
    pub asked: Vec<ItemId>,
    pub rechecks: Vec<Recheck>,
    pub canceled: Vec<(ItemId, String)>,
    pub wave: Wave,
}
