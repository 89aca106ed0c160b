//! What `payouts::store::chunks` does: a worker's lease, loading under locks, and the one way a status is written.

use chrono::Duration;
use payday::id::{BatchId, ChunkId, ItemId, OperationId, RunId};
use payday::payouts::item::{Item, Status};
use payday::payouts::operation::{Operation, State};
use payday::payouts::wave::{ItemUpdate, Loaded, LoadedOperation, NewOperation, OperationUpdate, Wave};
use payday::rails::Leg;

use super::{Breach, Budget, ItemRow, OperationRow, Tables, Time, coin, next_id, payee_number, place};

/// What a worker learns when it takes a chunk.
#[derive(Debug, Clone)]
pub struct Claim {
    pub batch: BatchId,
    pub run: RunId,
    pub halt_reason: Option<&'static str>,
    pub stopped: bool,
}

/// What a worker hears while it works.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    pub stopped: bool,
    pub slowed: bool,
}

impl Tables {
    pub fn claim(&mut self, chunk: ChunkId, lease: u64, lease_for: Duration, now: Time) -> Option<Claim> {
        let row = self.chunks.get_mut(place(chunk.0))?;
        if row.leased_until.is_some_and(|until| until >= now) {
            return None;
        }
        (row.lease, row.leased_until) = (Some(lease), Some(now + lease_for));
        let (batch, items) = (row.batch, row.items.clone());
        for id in items {
            let Some(latest) = self.items[place(id.0)].operations.last() else { continue };
            let operation = &mut self.operations[place(latest.0)];
            if operation.state == State::Dispatched {
                operation.state = State::Unknown;
                operation.unknown_since = operation.unknown_since.or(Some(operation.dispatched_at));
            }
        }
        let batch_row = &self.batches[place(batch.0)];
        Some(Claim { batch, run: batch_row.run, halt_reason: batch_row.halt_reason, stopped: self.is_stopped() })
    }

    /// Prolongs the lease; `None`: it is lost.
    pub fn pulse(&mut self, chunk: ChunkId, lease: u64, lease_for: Duration, now: Time) -> Option<Pulse> {
        let row = self.chunks.get_mut(place(chunk.0)).filter(|row| row.lease == Some(lease))?;
        row.leased_until = Some(now + lease_for);
        let halted = self.batches[place(row.batch.0)].halt_reason.is_some_and(|reason| reason != "awaiting_funds");
        let slowed = self.budgets.iter().any(|budget| budget.slowed_at > now - Duration::minutes(1));
        Some(Pulse { stopped: self.is_stopped() || halted, slowed })
    }

    /// Gives the chunk back and completes its batch if nothing of it is pending or being sent.
    pub fn release(&mut self, chunk: ChunkId, lease: u64) -> Option<RunId> {
        let row = self.chunks.get_mut(place(chunk.0))?;
        let batch = row.batch;
        if row.lease == Some(lease) {
            (row.lease, row.leased_until) = (None, None);
        }
        self.complete_batch(batch)
    }

    pub fn load_due(&self, chunk: ChunkId, now: Time, named: &[ItemId]) -> Vec<Loaded> {
        let Some(row) = self.chunks.get(place(chunk.0)) else { return Vec::new() };
        let due = |id: &&ItemId| self.item(**id).is_some_and(|it| it.due_at.is_some_and(|due| due <= now)) || named.contains(id);
        row.items.iter().filter(due).filter_map(|id| self.load(*id)).collect()
    }

    pub fn load(&self, id: ItemId) -> Option<Loaded> {
        let row = self.item(id)?;
        let operation = self.latest(row).map(|it| LoadedOperation {
            id: it.id,
            facts: Operation {
                leg: it.leg,
                attempt: it.attempt,
                state: it.state,
                first_dispatched_at: it.first_dispatched_at,
                dispatched_at: it.dispatched_at,
                sends: it.sends,
                look_up: it.look_up,
                cleared: it.cleared,
            },
            key: it.key.clone(),
            account: it.account.clone(),
            body: it.body.clone(),
            lookups: it.lookups,
            unknown_since: it.unknown_since,
        });
        let attempts = row.operations.iter().filter_map(|id| self.operation(*id));
        Some(Loaded {
            was: row.item.status,
            item: row.item.clone(),
            key: row.key.clone(),
            account: row.account.clone(),
            destination: None,
            failure_code: row.failure_code.clone(),
            failure_reason: row.failure_reason.clone(),
            due_at: row.due_at,
            waiting_since: row.waiting_since,
            operation,
            stripe_ids: attempts.filter_map(|it| it.stripe_id.clone()).collect(),
        })
    }

    /// Writes a wave, guarded by what was loaded.
    pub fn save(&mut self, wave: &Wave) -> Result<(), Breach> {
        self.post(&wave.postings)?;
        for update in &wave.operations {
            self.update_operation(update)?;
        }
        for new in &wave.new_operations {
            self.insert_operation(new)?;
        }
        wave.items.iter().try_for_each(|update| self.update_item(update))
    }

    fn update_operation(&mut self, update: &OperationUpdate) -> Result<(), Breach> {
        let Some(row) = self.operations.get_mut(place(update.id.0)).filter(|row| row.state == update.was) else {
            return Err(Breach::new("nothing is changed under a lock", format!("{update:?}")));
        };
        let opens = update.state.is_open() && !row.state.is_open();
        row.state = update.state;
        row.first_dispatched_at = update.first_dispatched_at;
        row.dispatched_at = update.dispatched_at;
        (row.sends, row.lookups) = (update.sends, update.lookups);
        (row.look_up, row.cleared) = (update.look_up, update.cleared);
        row.unknown_since = update.unknown_since;
        let item = row.item;
        if row.stripe_id.is_none() {
            row.stripe_id.clone_from(&update.stripe_id);
            if let Some(stripe_id) = row.stripe_id.clone()
                && let Some(other) = self.by_stripe_id.insert(stripe_id, update.id)
            {
                return Err(Breach::new(
                    "the database takes it: payout_operations_stripe_id_key",
                    format!("{update:?} and {other}"),
                ));
            }
        }
        let row = &self.operations[place(update.id.0)];
        if row.state == State::Accepted && row.stripe_id.is_none() {
            return Err(Breach::new("the database takes it: payout_operations_accepted_has_an_id", format!("{row:?}")));
        }
        self.touched.insert(item);
        if opens { self.refuse_second_open(item) } else { Ok(()) }
    }

    fn insert_operation(&mut self, new: &NewOperation) -> Result<(), Breach> {
        let id = OperationId(next_id(&self.operations));
        if self.by_key.insert(new.key.clone(), id).is_some() {
            return Err(Breach::new("the database takes it: payout_operations_key_key", new.key.clone()));
        }
        self.operations.push(OperationRow {
            id,
            item: new.item,
            leg: new.leg,
            attempt: new.attempt,
            state: State::Dispatched,
            key: new.key.clone(),
            account: new.account.clone(),
            amount_minor: new.amount_minor,
            currency: new.currency.clone(),
            body: new.body.clone(),
            first_dispatched_at: new.dispatched_at,
            dispatched_at: new.dispatched_at,
            sends: 1,
            lookups: 0,
            look_up: false,
            cleared: false,
            stripe_id: None,
            reversed_minor: 0,
            unknown_since: None,
        });
        self.items[place(new.item.0)].operations.push(id);
        self.touched.insert(new.item);
        self.refuse_second_open(new.item)
    }

    fn refuse_second_open(&self, item: ItemId) -> Result<(), Breach> {
        let row = &self.items[place(item.0)];
        let open = row.operations.iter().filter_map(|id| self.operation(*id)).filter(|it| it.state.is_open()).count();
        if open > 1 {
            return Err(Breach::new("the database takes it: payout_operations_one_open", format!("item {item}")));
        }
        Ok(())
    }

    fn update_item(&mut self, update: &ItemUpdate) -> Result<(), Breach> {
        let Some(row) = self.items.get_mut(place(update.item.id.0)).filter(|row| row.item.status == update.was) else {
            return Err(Breach::new("nothing is changed under a lock", format!("{update:?}")));
        };
        let Item { amount_minor, transfer_minor, connected_minor, .. } = row.item;
        row.item = Item { amount_minor, transfer_minor, connected_minor, ..update.item.clone() };
        row.account.clone_from(&update.account);
        row.failure_code.clone_from(&update.failure_code);
        row.failure_reason.clone_from(&update.failure_reason);
        (row.due_at, row.waiting_since) = (update.due_at, update.waiting_since);
        self.touched.insert(update.item.id);
        Ok(())
    }

    /// Why items that were batched are not paid after all.
    pub fn exclude(&mut self, run: RunId, canceled: &[(ItemId, String)]) {
        for (id, reason) in canceled {
            let Item { payee, currency, .. } = self.items[place(id.0)].item;
            self.exclusions.insert((run, payee_number(payee), coin(&currency.code())), reason.clone());
        }
    }

    /// Reserves slots of an endpoint's rate budget: the wait until the first, and between two.
    pub fn reserve_slots(&mut self, leg: Leg, count: usize, per_second: i64, now: Time) -> (Duration, Duration) {
        let budget = &mut self.budgets[endpoint(leg)];
        let slowed = slowed(budget, now);
        let gap_micros = match (per_second, slowed) {
            (0, 1) => 0,
            (0, slowed) => 10_200 * slowed,
            (per_second, slowed) => 1_020_000 * slowed / per_second,
        };
        let from_at = budget.next_at.max(now);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        budget.next_at = from_at + Duration::microseconds(gap_micros * count);
        (from_at - now, Duration::microseconds(gap_micros))
    }

    pub fn slow_down(&mut self, leg: Leg, now: Time) {
        let budget = &mut self.budgets[endpoint(leg)];
        if budget.slowed_at < now - Duration::seconds(1) {
            budget.slowed_by = (2 * slowed(budget, now)).min(32);
            budget.slowed_at = now;
            budget.next_at = budget.next_at.max(now + Duration::seconds(1));
        }
    }

    /// The items of a batch, for checks.
    pub fn items_of(&self, batch: BatchId) -> impl Iterator<Item = &ItemRow> {
        self.items.iter().filter(move |row| row.batch == batch)
    }
}

/// Whether an item in this status keeps its batch open.
pub fn holds_open(status: Status) -> bool {
    matches!(status, Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut)
}

fn slowed(budget: &Budget, now: Time) -> i64 {
    let halvings = ((now - budget.slowed_at).num_seconds() / 10).clamp(0, 5);
    (budget.slowed_by >> halvings).max(1)
}

fn endpoint(leg: Leg) -> usize {
    match leg {
        Leg::Transfer => 0,
        Leg::Payout => 1,
    }
}
