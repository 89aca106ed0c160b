//! The sweep and the daily retry: what `jobs`, `sweep`, `payees::read_stale` and `stripe_events::retry_waiting` do, a commit or
//! a read at a time.

use chrono::{Duration, SubsecRound};
use payday::id::{ChunkId, ItemId, RunId};
use payday::ledger::Account;
use payday::payouts::item::{Event, Status};
use payday::payouts::settle;
use payday::payouts::wave::Wave;

use super::{Led, Luck, chunk_message, run_message};
use crate::deeds::Deed;
use crate::stripe::accounts::Described;
use crate::tables::{Breach, CURRENCIES, Coin, Time, coin, payee_number};
use crate::world::World;

/// A message younger than this is not yet thought lost.
const QUIET: Duration = Duration::seconds(60);

pub struct Sweeper {
    phase: Phase,
    /// Whether failed items are taken up again first.
    failed: Vec<ItemId>,
    events: Vec<u64>,
    stale: Vec<(usize, String)>,
    coins: Vec<Coin>,
    runs: Vec<RunId>,
    chunks: Vec<ChunkId>,
}

#[derive(Clone)]
enum Phase {
    Retry,
    Begin,
    Events,
    Stale,
    Describe(usize, String, Option<Described>, Time),
    Complete,
    Key,
    Resume,
    Funds,
    Release(Coin, i64),
    TakeRuns,
    SendRuns,
    TakeChunks,
    SendChunks,
}

impl Sweeper {
    pub fn sweep() -> Self {
        Self {
            phase: Phase::Begin,
            failed: Vec::new(),
            events: Vec::new(),
            stale: Vec::new(),
            coins: Vec::new(),
            runs: Vec::new(),
            chunks: Vec::new(),
        }
    }

    pub fn retry(failed: Vec<ItemId>) -> Self {
        Self { phase: Phase::Retry, failed, ..Self::sweep() }
    }

    pub fn boundary(&self) -> &'static str {
        match self.phase {
            Phase::Retry => "retry item",
            Phase::Begin => "find waiting events",
            Phase::Events => "apply waiting event",
            Phase::Stale => "read account",
            Phase::Describe(..) => "describe account",
            Phase::Complete => "complete",
            Phase::Key => "ask whether the key is taken",
            Phase::Resume => "resume after key change",
            Phase::Funds => "read balance",
            Phase::Release(..) => "release funded",
            Phase::TakeRuns => "take runs",
            Phase::SendRuns => "queue runs again",
            Phase::TakeChunks => "take due chunks",
            Phase::SendChunks => "queue chunks again",
        }
    }

    pub fn step(&mut self, world: &mut World, luck: Luck, now: Time) -> Result<Led, Breach> {
        if luck == Luck::Away {
            return Ok(Led::Failed);
        }
        self.phase = match self.phase.clone() {
            Phase::Retry => match self.failed.pop() {
                Some(item) if !world.tables.is_stopped() => {
                    retry_item(world, item, now)?;
                    Phase::Retry
                }
                _ => Phase::Begin,
            },
            Phase::Begin => {
                self.events = world.tables.due_events(world.now);
                world.did(|| Deed::DueEvents { came: self.events.clone() });
                self.events.reverse();
                Phase::Events
            }
            Phase::Events => match self.events.pop() {
                Some(id) => {
                    world.retry_event(id)?;
                    Phase::Events
                }
                None => {
                    self.stale = world.tables.stale();
                    Phase::Stale
                }
            },
            Phase::Stale => match self.stale.pop() {
                Some((payee, account)) => match world.stripe.account(world.now, &account) {
                    Some(described) => Phase::Describe(payee, account, described, now.trunc_subsecs(0)),
                    None => Phase::Complete,
                },
                None => Phase::Complete,
            },
            Phase::Describe(payee, account, Some(described), at) => {
                let known_from = world.tables.known_from(payee, &account);
                if known_from.is_some_and(|known_from| known_from <= at) {
                    world.tables.describe(payee, &described, at, world.now);
                }
                if known_from.is_some_and(|known_from| known_from < at) {
                    world.tables.mark_stale(&account, false);
                }
                world.did(|| Deed::Read { payee, account, said: Some(described), at });
                Phase::Stale
            }
            Phase::Describe(payee, account, None, at) => {
                world.tables.deauthorize(&account, at);
                world.tables.mark_stale(&account, false);
                world.did(|| Deed::Read { payee, account, said: None, at });
                Phase::Stale
            }
            Phase::Complete => {
                let stopped = world.tables.is_stopped();
                world.tables.complete_all();
                world.did(|| Deed::CompleteAll);
                if stopped {
                    return Ok(Led::Done);
                }
                Phase::Key
            }
            Phase::Key => {
                let asks = world.tables.is_halted_for("stripe_key_rejected");
                let taken = asks && world.stripe.available(world.now, "usd").is_some();
                if taken { Phase::Resume } else { self.look_for_waiting(world) }
            }
            Phase::Resume => {
                world.tables.resume("stripe_key_rejected", None);
                world.did(|| Deed::Resume { reason: "stripe_key_rejected" });
                self.look_for_waiting(world)
            }
            Phase::Funds => match self.coins.pop() {
                Some(coin) => match world.stripe.available(world.now, CURRENCIES[coin]) {
                    Some(available) => Phase::Release(coin, available),
                    None => Phase::TakeRuns,
                },
                None => Phase::TakeRuns,
            },
            Phase::Release(coin, available) => {
                world.tables.release_funded(coin, available, now);
                world.did(|| Deed::ReleaseFunded { coin, available_minor: available, now });
                Phase::Funds
            }
            Phase::TakeRuns => {
                self.runs = world.tables.take_runs_without_batches(world.now, QUIET);
                world.did(|| Deed::TakeRuns { quiet: QUIET, came: self.runs.clone() });
                Phase::SendRuns
            }
            Phase::SendRuns => {
                for run in &self.runs {
                    world.send(run_message(*run));
                }
                // Messages that still wait are hints enough.
                if world.has_visible_chunk_messages() {
                    return Ok(Led::Done);
                }
                Phase::TakeChunks
            }
            Phase::TakeChunks => {
                self.chunks = world.tables.take_due_chunks(world.now, QUIET);
                world.did(|| Deed::TakeChunks { quiet: QUIET, came: self.chunks.clone() });
                Phase::SendChunks
            }
            Phase::SendChunks => {
                for chunk in &self.chunks {
                    world.send(chunk_message(*chunk));
                }
                return Ok(Led::Done);
            }
        };
        Ok(if luck == Luck::Fine { Led::On } else { Led::Failed })
    }

    fn look_for_waiting(&mut self, world: &mut World) -> Phase {
        self.coins = world.tables.awaiting_funds();
        world.did(|| Deed::AwaitingFunds { came: self.coins.clone() });
        Phase::Funds
    }
}

/// Takes a failed item up again, unless its payee is not eligible or a newer item has the money.
pub fn retry_item(world: &mut World, id: ItemId, now: Time) -> Result<(), Breach> {
    let Some(mut it) = world.tables.load(id).filter(|it| it.item.status == Status::Failed) else { return Ok(()) };
    let balance = world.tables.balance(payee_number(it.item.payee), coin(&it.item.currency.code()));
    let unit = it.item.currency.micros_per_minor();
    let there = balance[Account::AvailablePlatform as usize] >= it.item.transfer_minor * unit
        && balance[Account::AvailableConnected as usize] >= it.item.connected_minor * unit;
    let superseded = !there || world.tables.has_newer_item(id);
    let eligible = world.tables.recheck(&[id], &world.settings.policy, now).first().is_some_and(|it| it.reason.is_none());
    let Some(event) = settle::retry(superseded, eligible) else { return Ok(()) };
    let postings = it.item.apply(event)?;
    let mut row = settle::item_row(&it);
    row.due_at = (event == Event::Retried).then_some(now);
    if event == Event::Canceled {
        row.failure_code = Some("superseded".to_owned());
    }
    let wave = Wave { postings, items: vec![row], ..Wave::default() };
    world.save(&wave)?;
    world.did(|| Deed::RetryItem { item: id, now, came: event == Event::Retried });
    Ok(())
}
