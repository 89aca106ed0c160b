//! What `payouts::store::jobs` does: halts and their end, lost messages, funding, retries.

use chrono::Duration;
use payday::id::{BatchId, ChunkId, ItemId, RunId};
use payday::payouts::item::Status;

use super::chunks::holds_open;
use super::{Coin, Tables, Time, coin, payee_number, place};

/// A failed item is taken up again so often.
pub const MAX_RETRIES: i32 = 5;
/// Chunks brought back by one sweep at most.
const CHUNKS_AT_ONCE: usize = 200;

impl Tables {
    /// Halts a batch that is being processed; whether it was.
    pub fn halt(&mut self, batch: BatchId, reason: &'static str) -> bool {
        let row = &mut self.batches[place(batch.0)];
        let ends_by_itself = |reason| ["awaiting_funds", "stripe_key_rejected"].contains(&reason);
        let gives_way = reason == "frozen_operation" && row.halt_reason.is_some_and(ends_by_itself);
        let halts = !row.completed && (row.halt_reason.is_none() || gives_way);
        if halts {
            row.halt_reason = Some(reason);
        }
        halts
    }

    pub fn halt_all(&mut self, reason: &'static str) -> bool {
        let mut any = false;
        for row in &mut self.batches {
            if !row.completed && (row.halt_reason.is_none() || row.halt_reason == Some("awaiting_funds")) {
                row.halt_reason = Some(reason);
                any = true;
            }
        }
        any
    }

    pub fn resume(&mut self, reason: &str, only: Option<Coin>) {
        for row in &mut self.batches {
            if row.halt_reason == Some(reason) && only.is_none_or(|only| row.coin == only) {
                row.halt_reason = None;
            }
        }
    }

    pub fn is_halted_for(&self, reason: &str) -> bool {
        self.batches.iter().any(|row| row.halt_reason == Some(reason))
    }

    pub fn block_payee_of(&mut self, item: ItemId, reason: &str) {
        let payee = payee_number(self.items[place(item.0)].item.payee);
        self.payees[payee].blocked_reason.get_or_insert_with(|| reason.to_owned());
    }

    pub fn take_due_chunks(&mut self, now: Time, quiet: Duration) -> Vec<ChunkId> {
        let mut due: Vec<(Option<Time>, ChunkId)> = Vec::new();
        for row in &self.chunks {
            let goes_on = matches!(self.batches[place(row.batch.0)].halt_reason, None | Some("awaiting_funds"));
            let free = row.leased_until.is_none_or(|until| until < now);
            let silent = row.queued_at.is_none_or(|queued| queued < now - quiet);
            let is_due = |id: &ItemId| self.items[place(id.0)].due_at.is_some_and(|due| due <= now);
            if goes_on && free && silent && row.items.iter().any(is_due) {
                due.push((row.queued_at, row.id));
            }
        }
        due.sort_unstable();
        due.truncate(CHUNKS_AT_ONCE);
        for (_, id) in &due {
            self.chunks[place(id.0)].queued_at = Some(now);
        }
        due.into_iter().map(|(_, id)| id).collect()
    }

    pub fn take_runs_without_batches(&mut self, now: Time, quiet: Duration) -> Vec<RunId> {
        let mut taken = Vec::new();
        for run in &mut self.runs {
            if !run.completed && !run.batches_created && run.queued_at < now - quiet {
                run.queued_at = now;
                taken.push(run.id);
            }
        }
        taken
    }

    /// Completes every batch and run that can be.
    pub fn complete_all(&mut self) {
        for batch in 0..self.batches.len() {
            self.complete_batch(self.batches[batch].id);
        }
        for run in 0..self.runs.len() {
            self.complete_run(self.runs[run].id);
        }
    }

    pub fn complete_batch(&mut self, batch: BatchId) -> Option<RunId> {
        let row = &self.batches[place(batch.0)];
        let may = !row.completed && (row.halt_reason.is_none() || row.halt_reason == Some("awaiting_funds"));
        if !may || self.items_of(batch).any(|it| holds_open(it.item.status)) {
            return None;
        }
        let row = &mut self.batches[place(batch.0)];
        (row.completed, row.halt_reason) = (true, None);
        let run = row.run;
        self.complete_run(run);
        Some(run)
    }

    pub fn complete_run(&mut self, run: RunId) {
        let all_completed = self.batches.iter().all(|batch| batch.run != run || batch.completed);
        let row = &mut self.runs[place(run.0)];
        if row.batches_created && all_completed && !row.completed {
            row.completed = true;
            self.outbox.insert(format!("run_completed:{run}"));
        }
    }

    /// The currencies in which items wait for the platform's balance.
    pub fn awaiting_funds(&self) -> Vec<Coin> {
        let waits = |row: &&super::ItemRow| row.item.status == Status::AwaitingFunds && row.due_at.is_none();
        let mut coins: Vec<Coin> = self.items.iter().filter(waits).map(|row| coin(&row.item.currency.code())).collect();
        coins.sort_unstable();
        coins.dedup();
        coins
    }

    /// Makes due what the available balance covers, oldest items first.
    pub fn release_funded(&mut self, of: Coin, available_minor: i64, now: Time) {
        let currency = super::currency(of);
        let claims = |row: &&super::ItemRow| {
            row.item.currency == currency
                && (row.item.status == Status::Transferring || row.item.status == Status::AwaitingFunds && row.due_at.is_some())
        };
        let mut until_here: i64 = self.items.iter().filter(claims).map(|row| row.item.transfer_minor).sum();
        let mut released = false;
        for row in &mut self.items {
            if row.item.currency == currency && row.item.status == Status::AwaitingFunds && row.due_at.is_none() {
                until_here += row.item.transfer_minor;
                if until_here <= available_minor {
                    row.due_at = Some(now);
                    released = true;
                }
            }
        }
        if released {
            self.resume("awaiting_funds", Some(of));
        }
    }

    pub fn failed_items(&self) -> Vec<ItemId> {
        let may = |row: &&super::ItemRow| row.item.status == Status::Failed && row.item.retries < MAX_RETRIES;
        self.items.iter().filter(may).map(|row| row.item.id).collect()
    }

    pub fn has_newer_item(&self, id: ItemId) -> bool {
        let item = &self.items[place(id.0)].item;
        self.items.iter().any(|row| {
            row.item.id > id
                && (row.item.payee, row.item.currency) == (item.payee, item.currency)
                && !matches!(row.item.status, Status::Canceled | Status::Failed)
        })
    }
}
