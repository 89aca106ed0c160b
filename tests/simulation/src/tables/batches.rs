//! What `payouts::store::batches` does: runs, and their batches with chunks, items and reservations.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use payday::clock::Schedule;
use payday::config::Policy;
use payday::id::{BatchId, ChunkId, ItemId, RunId, batch_hash, item_key};
use payday::ledger::{Account, Posting};
use payday::payouts::item::{Item, Status};

use super::{BatchRow, Breach, CURRENCIES, ChunkRow, Coin, ItemRow, RunRow, Tables, Time, next_id, payee_id, place};
use crate::eligibility::Candidate;

impl Tables {
    /// The run of a schedule's cycle: the one there is, else a new one. `true`: it is new.
    pub fn start_run(&mut self, schedule: Schedule, cycle_on: NaiveDate, cutoff_at: Time, now: Time) -> (RunId, bool) {
        let there = self.runs.iter().find(|run| (run.schedule, run.cycle_on) == (schedule, cycle_on));
        if let Some(run) = there {
            return (run.id, false);
        }
        let id = RunId(next_id(&self.runs));
        let run = RunRow { id, schedule, cycle_on, cutoff_at, completed: false, batches_created: false, queued_at: now };
        self.runs.push(run);
        (id, true)
    }

    /// Selects the eligible, nets debts, makes batches, chunks and items, reserves their money, and records why everyone else
    /// is not paid.
    pub fn create_batches(&mut self, run: RunId, policy: &Policy, chunk_size: usize, now: Time) -> Result<(), Breach> {
        let RunRow { schedule, cycle_on, .. } = self.runs[place(run.0)];
        let candidates = self.candidates(&self.runs[place(run.0)], policy, now);
        let mut netted = Vec::new();
        for it in &candidates {
            let parts = [
                ("net_platform", Account::AvailablePlatform, it.net_platform_micros),
                ("net_connected", Account::AvailableConnected, it.net_connected_micros),
            ];
            netted.extend(parts.map(|(leg, from, micros)| Posting {
                event: format!("run:{run}:{}:{}", it.payee, CURRENCIES[it.coin]),
                leg,
                attempt: 1,
                payee: payee_id(it.payee),
                currency: CURRENCIES[it.coin].to_owned(),
                from,
                to: Account::Debt,
                micros,
            }));
        }
        self.post(&netted)?;

        let mut by_coin: BTreeMap<Coin, Vec<&Candidate>> = BTreeMap::new();
        for it in &candidates {
            match &it.reason {
                None => by_coin.entry(it.coin).or_default().push(it),
                Some(reason) => {
                    self.exclusions.insert((run, it.payee, it.coin), (*reason).to_owned());
                }
            }
        }
        for (coin, payable) in by_coin {
            let id = BatchId(next_id(&self.batches));
            let hash = batch_hash(&self.instance, "scheduled", schedule.as_str(), &cycle_on.to_string(), CURRENCIES[coin]);
            if self.batches.iter().any(|batch| batch.hash == hash) {
                return Err(Breach::new("one batch per hash", format!("{hash} of run {run}")));
            }
            self.batches.push(BatchRow {
                id,
                run,
                coin,
                hash,
                completed: false,
                halt_reason: None,
                items: i64::try_from(payable.len()).unwrap_or(i64::MAX),
                amount_minor: payable.iter().map(|it| it.payable_minor).sum(),
            });
            for together in payable.chunks(chunk_size) {
                self.create_chunk(id, coin, together, now)?;
            }
        }
        self.runs[place(run.0)].batches_created = true;
        Ok(())
    }

    fn create_chunk(&mut self, batch: BatchId, coin: Coin, together: &[&Candidate], now: Time) -> Result<(), Breach> {
        let chunk = ChunkId(next_id(&self.chunks));
        let mut items = Vec::with_capacity(together.len());
        for it in together {
            let id = ItemId(next_id(&self.items));
            let payee = payee_id(it.payee);
            let item = Item {
                id,
                payee,
                currency: super::currency(coin),
                status: Status::Pending,
                amount_minor: it.payable_minor,
                transfer_minor: it.transfer_minor,
                connected_minor: it.connected_minor,
                payout_minor: if it.automatic { 0 } else { it.payable_minor },
                transfer_attempt: 0,
                payout_attempt: 0,
                connected_moved: false,
                retries: 0,
            };
            refuse_parts(&item)?;
            self.post(&item.reserve())?;
            self.items.push(ItemRow {
                item,
                batch,
                key: item_key(&self.instance, &self.batches[place(batch.0)].hash, payee),
                account: it.account.clone().unwrap_or_default(),
                failure_code: None,
                failure_reason: None,
                due_at: Some(now),
                waiting_since: None,
                operations: Vec::new(),
            });
            self.touched.insert(id);
            items.push(id);
        }
        self.chunks.push(ChunkRow { id: chunk, batch, items, lease: None, leased_until: None, queued_at: None });
        Ok(())
    }

    /// The run's chunks with something due, marked as queued.
    pub fn chunks_to_queue(&mut self, run: RunId, now: Time) -> Vec<ChunkId> {
        let mut taken = Vec::new();
        for row in &mut self.chunks {
            let waits = |id: &ItemId| self.items[place(id.0)].due_at.is_some();
            if self.batches[place(row.batch.0)].run == run && row.items.iter().any(waits) {
                row.queued_at = Some(now);
                taken.push(row.id);
            }
        }
        taken
    }
}

fn refuse_parts(item: &Item) -> Result<(), Breach> {
    let Item { amount_minor, transfer_minor, connected_minor, payout_minor, .. } = *item;
    let add_up = transfer_minor >= 0 && connected_minor >= 0 && transfer_minor + connected_minor == amount_minor;
    let one_way = payout_minor == amount_minor || payout_minor == 0 && connected_minor == 0;
    if amount_minor > 0 && add_up && one_way {
        return Ok(());
    }
    Err(Breach::new("the database takes it: payout_items_parts_add_up", format!("{item:?}")))
}
