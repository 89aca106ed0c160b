//! Does to Postgres what the simulation did to its model, and says where something else came of it.

use std::fmt::Debug;

use payday::boundary::Boundary;
use payday::clock;
use payday::config::Policy;
use payday::db::{Tx, query};
use payday::earnings::store as earnings;
use payday::id::ChunkId;
use payday::payees;
use payday::payouts::checks;
use payday::payouts::store::{batches, chunks, jobs};
use payday::payouts::sweep::Sweeper;
use payday::payouts::wave::Loaded;
use payday::rails::stripe::Account;
use payday::stripe_events;
use payday_local::stripe_double::{StripeDouble, StripeDoubleOptions};
use payday_simulation::deeds::{Deed, Done, Turn};
use payday_simulation::stripe::accounts::Described;
use payday_simulation::stripe::events::{Event, What};
use payday_simulation::tables::events::Effect;
use payday_simulation::tables::{CURRENCIES, payee_id};
use payday_tests::database::Database;
use payday_tests::queues::QueueServer;
use payday_tests::stage::{KEY, stripe};
use payday_tests::world::{person, policy};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rows;

const LEASE_SECONDS: i32 = 5;
const QUEUE: &str = "nobody-listens";

/// What came of it is something else than in the model.
pub type Difference = String;

pub struct Again {
    database: Database,
    policy: Policy,
    /// For the sweeper, which speaks to them in other transactions than those that are done again here.
    _double: StripeDouble,
    queues: QueueServer,
    sweeper: Sweeper,
}

/// A deed, without the long ones' rows.
pub fn brief(done: &Done) -> String {
    let text = match &done.deed {
        Deed::Compare(_) => "Compare".to_owned(),
        deed => format!("{deed:?}"),
    };
    format!("  {} {}", done.at, text.chars().take(900).collect::<String>())
}

fn same(what: &str, here: &impl Debug, model: &impl Debug) -> Result<(), Difference> {
    let (here, model) = (format!("{here:#?}"), format!("{model:#?}"));
    if here == model {
        return Ok(());
    }
    let differ: Vec<String> = here
        .lines()
        .zip(model.lines())
        .filter(|(a, b)| a != b)
        .take(6)
        .map(|(a, b)| format!("{a}\n  in the model {b}"))
        .collect();
    Err(format!("{what}: {}", if differ.is_empty() { format!("{here}\n  in the model {model}") } else { differ.join("\n") }))
}

/// Of Stripe's ids it only counts which there are.
fn in_order(mut loaded: Vec<Loaded>) -> Vec<Loaded> {
    loaded.iter_mut().for_each(|it| it.stripe_ids.sort());
    loaded
}

async fn commit(tx: Tx) {
    tx.commit(Boundary::Outside).await.expect("a commit");
}

fn lease(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

impl Again {
    pub async fn new() -> Self {
        let database = Database::new().await;
        let double = StripeDouble::start(StripeDoubleOptions::default()).await.expect("a double");
        let queues = QueueServer::start(&[QUEUE]).await;
        let sweeper = Sweeper {
            db: database.db.clone(),
            stripe: stripe(&double, KEY),
            policy: policy(),
            create_batch: queues.client(QUEUE),
            process_chunk: queues.client(QUEUE),
        };
        Self { database, policy: policy(), _double: double, queues, sweeper }
    }

    /// An empty database whose clock a test sets: found before the built-in one, `now()` is what a table says.
    pub async fn renew(&mut self) {
        self.queues.taken(QUEUE);
        self.database.renew().await;
        let name = &self.database.name;
        for sql in [
            "create schema if not exists pretended".to_owned(),
            "create table if not exists pretended.clock (at timestamptz)".to_owned(),
            "truncate pretended.clock".to_owned(),
            "insert into pretended.clock values ('2026-01-01')".to_owned(),
            "create or replace function pretended.now() returns timestamptz language sql stable as 'select at from pretended.clock'".to_owned(),
            format!("alter database {name} set search_path = pretended, public, pg_catalog"),
            "update public.instance set id = '5eed5eed5eed5eed'".to_owned(),
        ] {
            self.database.run(sql).await;
        }
        // Connections that are there already have the old path.
        self.database.disconnect_others().await;
    }

    pub async fn does(&mut self, done: &Done) -> Result<(), Difference> {
        self.database.run(format!("update pretended.clock set at = '{}'", done.at.to_rfc3339())).await;
        clock::at(done.at, self.deed(&done.deed)).await
    }

    async fn tx(&self) -> Tx {
        self.database.tx().await
    }

    async fn deed(&mut self, deed: &Deed) -> Result<(), Difference> {
        match deed {
            Deed::Policy(policy) => {
                self.policy = policy.clone();
                self.sweeper.policy = policy.clone();
            }
            Deed::Compare(model) => return self.compare(model).await,
            Deed::Turn(turn) => return self.turn(turn).await,
            Deed::Event { event, came } => return self.event(event, came.as_ref()).await,
            Deed::StartRun { .. } | Deed::CreateBatches { .. } | Deed::ChunksToQueue { .. } => return self.cycle(deed).await,
            Deed::Claim { .. } | Deed::Pulse { .. } | Deed::Release { .. } => return self.lease(deed).await,
            Deed::Settle { .. } | Deed::Unblock { .. } | Deed::Controls { .. } | Deed::Describe { .. } | Deed::Read { .. } => {
                self.people(deed).await;
            }
            Deed::Record(earning) => {
                let mut tx = self.tx().await;
                earnings::record(&mut tx, &self.policy, std::slice::from_ref(earning)).await.expect("recorded");
                commit(tx).await;
            }
            Deed::Mature(through) => {
                let mut tx = self.tx().await;
                earnings::mature(&mut tx, *through).await.expect("matured");
                commit(tx).await;
            }
            Deed::Block { .. } | Deed::Halt { .. } | Deed::HaltAll { .. } | Deed::Resume { .. } => return self.halt(deed).await,
            Deed::DueEvents { .. }
            | Deed::RetryEvent { .. }
            | Deed::RetryItem { .. }
            | Deed::CompleteAll
            | Deed::AwaitingFunds { .. }
            | Deed::ReleaseFunded { .. }
            | Deed::TakeRuns { .. }
            | Deed::TakeChunks { .. } => return self.sweep(deed).await,
        }
        Ok(())
    }

    async fn compare(&self, model: &[(&'static str, Vec<String>)]) -> Result<(), Difference> {
        for (table, model) in model {
            same(table, &rows::of(&self.database, table).await, model)?;
        }
        let mut tx = self.tx().await;
        let breaches = checks::of_everything(&mut tx).await.expect("an answer");
        same("standing checks", &breaches, &[(); 0])
    }

    /// What `pay` does in one commit: the same is loaded, eligibility says the same, and the same is written.
    async fn turn(&self, turn: &Turn) -> Result<(), Difference> {
        let Turn { chunk, batch, now, named, loaded, asked, rechecks, canceled, wave } = turn;
        let mut tx = self.tx().await;
        let here = chunks::load_due(&mut tx, *chunk, *now, named).await.expect("loaded");
        same("loaded", &in_order(here), &in_order(loaded.clone()))?;
        let mut here = chunks::recheck(&mut tx, asked, &self.policy, *now).await.expect("asked again");
        here.sort_by_key(|it| it.item_id);
        same("asked again", &here, rechecks)?;
        chunks::exclude(&mut tx, *batch, canceled).await.expect("excluded");
        chunks::save(&mut tx, wave, *now).await.expect("saved");
        commit(tx).await;
        Ok(())
    }

    async fn lease(&self, deed: &Deed) -> Result<(), Difference> {
        let mut tx = self.tx().await;
        match deed {
            Deed::Claim { chunk, lease: number, came } => {
                let here = chunks::claim(&mut tx, *chunk, lease(*number), LEASE_SECONDS).await.expect("an answer");
                let here = here.map(|it| (it.batch_id, it.run_id, it.halt_reason, it.stopped));
                let model = came.as_ref().map(|it| (it.batch, it.run.0, it.halt_reason.map(str::to_owned), it.stopped));
                same("claimed", &here, &model)?;
            }
            Deed::Pulse { chunk, lease: number, came } => {
                let here = chunks::pulse(&mut tx, *chunk, lease(*number), LEASE_SECONDS).await.expect("an answer");
                same("pulse", &here.map(|it| it.stopped), &came.map(|it| it.stopped))?;
            }
            Deed::Release { chunk, lease: number, came } => {
                let breaches = checks::of_chunk(&mut tx, *chunk).await.expect("an answer");
                same("standing checks of the chunk", &breaches, &[(); 0])?;
                let here = chunks::release(&mut tx, *chunk, lease(*number), 1).await.expect("an answer");
                same("released", &here, came)?;
                if let Some(run) = here {
                    payday::payouts::complete_run(&mut tx, run).await.expect("completed");
                }
            }
            other => unreachable!("{other:?}"),
        }
        commit(tx).await;
        Ok(())
    }

    async fn cycle(&self, deed: &Deed) -> Result<(), Difference> {
        let mut tx = self.tx().await;
        match deed {
            Deed::StartRun { schedule, cycle_on, cutoff_at, came } => {
                // One that is there already uses up a number all the same.
                tx.run(query("select setval('payout_runs_id_seq', (select coalesce(max(id), 0) + 1 from payout_runs), false)"))
                    .await
                    .expect("the next number");
                let here = batches::start_run(&mut tx, *schedule, *cycle_on, *cutoff_at, "test").await.expect("a run");
                same("run", &here, came)?;
            }
            Deed::CreateBatches { run, chunk_size, now } => {
                let locked = batches::lock_run(&mut tx, *run).await.expect("a lock").expect("the run");
                let chunk_size = i64::try_from(*chunk_size).expect("small");
                batches::create_batches(&mut tx, &locked, &self.policy, chunk_size, *now).await.expect("batches");
            }
            Deed::ChunksToQueue { run, came } => {
                let here: Vec<ChunkId> = batches::chunks_to_queue(&mut tx, *run).await.expect("chunks");
                same("chunks to queue", &here, came)?;
                payday::payouts::complete_run(&mut tx, *run).await.expect("completed");
            }
            other => unreachable!("{other:?}"),
        }
        commit(tx).await;
        Ok(())
    }

    async fn people(&self, deed: &Deed) {
        match deed {
            Deed::Settle { payee, enabled, schedule, minimum } => {
                let person = person(payee_id(*payee), *enabled, *minimum, *schedule);
                let mut tx = self.tx().await;
                payees::store::import(&mut tx, &[person]).await.expect("a payee");
                commit(tx).await;
            }
            Deed::Unblock { payee } => {
                let id = payee_id(*payee);
                self.database.run(format!("update payees set blocked_reason = null, blocked_at = null where id = '{id}'")).await;
            }
            Deed::Controls { paused, killed } => {
                self.database.run(format!("update payout_controls set paused = {paused}, killed = {killed}")).await;
            }
            Deed::Describe { payee, said, at } => {
                let mut tx = self.tx().await;
                payees::describe(&mut tx, payee_id(*payee), account(said), *at).await.expect("described");
                commit(tx).await;
            }
            Deed::Read { payee, account: id, said, at } => {
                let mut tx = self.tx().await;
                payees::was_read(&mut tx, payee_id(*payee), id, said.as_ref().map(account), *at).await.expect("read");
                commit(tx).await;
            }
            other => unreachable!("{other:?}"),
        }
    }

    async fn halt(&self, deed: &Deed) -> Result<(), Difference> {
        let mut tx = self.tx().await;
        match deed {
            Deed::Block { item, reason } => jobs::block_payees(&mut tx, &[*item], reason).await.expect("blocked"),
            Deed::Halt { batch, reason, came } => {
                let here = jobs::halt(&mut tx, *batch, reason).await.expect("an answer") > 0;
                same("halted", &here, came)?;
            }
            Deed::HaltAll { reason } => {
                jobs::halt_all(&mut tx, reason).await.expect("halted");
            }
            Deed::Resume { reason } => {
                jobs::resume(&mut tx, reason).await.expect("resumed");
            }
            other => unreachable!("{other:?}"),
        }
        commit(tx).await;
        Ok(())
    }

    async fn sweep(&self, deed: &Deed) -> Result<(), Difference> {
        let now = clock::now();
        if let Deed::RetryItem { item, now, came } = deed {
            let here = clock::at(*now, self.sweeper.retry_item(*item)).await.expect("an answer");
            return same("taken up again", &here, came);
        }
        let mut tx = self.tx().await;
        match deed {
            Deed::DueEvents { came } => {
                let mut here = stripe_events::store::due(&mut tx, 200).await.expect("events");
                let mut model: Vec<String> = came.iter().map(|id| event_id(*id)).collect();
                here.sort();
                model.sort();
                same("due events", &here, &model)?;
            }
            Deed::RetryEvent { id } => {
                stripe_events::retry(&self.database.db, &self.policy, &event_id(*id)).await.expect("tried");
            }
            Deed::CompleteAll => {
                let completable = jobs::completable(&mut tx).await.expect("batches");
                let runs = jobs::completable_runs(&mut tx).await.expect("runs");
                for batch in completable {
                    payday::payouts::complete(&mut tx, batch).await.expect("completed");
                }
                for run in runs {
                    payday::payouts::complete_run(&mut tx, run).await.expect("completed");
                }
            }
            Deed::AwaitingFunds { came } => {
                let here: Vec<String> =
                    jobs::awaiting_funds(&mut tx).await.expect("currencies").into_iter().map(|it| it.currency).collect();
                let model: Vec<String> = came.iter().map(|coin| CURRENCIES[*coin].to_owned()).collect();
                same("waits for funds", &here, &model)?;
            }
            Deed::ReleaseFunded { coin, available_minor, now } => {
                jobs::release_funded(&mut tx, CURRENCIES[*coin], *available_minor, *now).await.expect("released");
            }
            Deed::TakeRuns { quiet, came } => {
                let here = jobs::take_runs_without_batches(&mut tx, now - *quiet).await.expect("runs");
                same("runs without batches", &here, came)?;
            }
            Deed::TakeChunks { quiet, came } => {
                let mut here = jobs::take_due_chunks(&mut tx, now, now - *quiet, 200).await.expect("chunks");
                let mut model = came.clone();
                here.sort_unstable();
                model.sort_unstable();
                same("due chunks", &here, &model)?;
            }
            other => unreachable!("{other:?}"),
        }
        commit(tx).await;
        Ok(())
    }

    async fn event(&self, event: &Event, came: Option<&Effect>) -> Result<(), Difference> {
        let body = event_body(event);
        let read: stripe_events::Event = serde_json::from_value(body.clone()).expect("an event");
        let received = stripe_events::take_in(&self.database.db, &self.policy, &read, &body).await.expect("taken in");
        same("new", &(received == stripe_events::Received::New), &came.is_some())
    }
}

pub fn event_id(id: u64) -> String {
    format!("evt_{id:020}")
}

/// An account as Stripe would describe it.
fn account(said: &Described) -> Account {
    serde_json::from_value(account_body(said)).expect("an account")
}

fn account_body(said: &Described) -> Value {
    json!({
        "id": said.id, "object": "account", "country": "US", "charges_enabled": true, "payouts_enabled": said.payouts_enabled,
        "capabilities": { "transfers": if said.transfers_active { "active" } else { "inactive" } },
        "requirements": { "past_due": if said.past_due { vec!["x"] } else { vec![] }, "disabled_reason": null },
        "settings": { "payouts": { "schedule": { "interval": if said.manual { "manual" } else { "daily" } } } },
        "external_accounts": { "data": [{ "id": "ba_1", "fingerprint": said.bank, "default_for_currency": true }] },
    })
}

fn event_body(event: &Event) -> Value {
    let (account, object) = match &event.what {
        What::Payout(said) => (
            Some("acct_of_a_payee"),
            json!({ "id": said.id, "object": "payout", "amount": said.amount, "currency": said.currency, "status": said.status,
                    "failure_code": said.failure_code, "metadata": { "operation_id": said.mark } }),
        ),
        What::TransferReversed { id, mark, amount_reversed } => (
            None,
            json!({ "id": id, "object": "transfer", "amount_reversed": amount_reversed, "metadata": { "operation_id": mark } }),
        ),
        What::AccountUpdated(said) => (Some(said.id.as_str()), account_body(said)),
        What::Deauthorized(account) | What::ExternalAccount(account) => (Some(account.as_str()), json!({})),
        What::Payment { intent, charge, account, amount, fee, currency } => (
            None,
            json!({ "id": intent, "object": "payment_intent", "amount_received": amount, "application_fee_amount": fee, "currency": currency,
                    "latest_charge": charge, "transfer_data": { "destination": account } }),
        ),
        What::TakenBack { source, charge, amount, currency } => match source.strip_prefix("dispute:") {
            Some(dispute) => (None, json!({ "id": dispute, "charge": charge, "amount": amount, "currency": currency })),
            None => (None, json!({ "id": charge, "amount_refunded": amount, "currency": currency })),
        },
    };
    let mut body = json!({
        "id": event_id(event.id), "object": "event", "type": event.what.name(), "created": event.created.timestamp(), "livemode": false,
        "data": { "object": object },
    });
    if let Some(account) = account {
        body["account"] = json!(account);
    }
    body
}
