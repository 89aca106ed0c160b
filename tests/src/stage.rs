//! A world with a Stripe double beside it, and the library's worker and sweeper between the two: chunks are paid without the
//! runtime around them. Time is moved instead of waited for.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use chrono::Duration as Span;
use payday::boundary::Boundary;
use payday::config::{self, Sending};
use payday::db::Db;
use payday::id::ChunkId;
use payday::payouts::pay::Payer;
use payday::payouts::sweep::{Pace, Sweeper};
use payday::rails::stripe::Stripe;
use payday::stripe_events::{self, Event, Received};
use payday_local::stripe_double::{self, AccountSpec, StripeDouble, StripeDoubleOptions};
use serde_json::{Value, json};

use crate::queues::QueueServer;
use crate::world::{World, account_of};

pub const KEY: &str = "sk_test_stage";
/// Longer than any wait that the engine sets for itself within a test, and shorter than the 23 hours.
const ROUNDS: usize = 60;

pub struct Stage {
    pub world: World,
    pub double: StripeDouble,
    pub payer: Payer,
    /// Events of the double that have been taken in.
    heard: tokio::sync::Mutex<usize>,
}

impl Deref for Stage {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Unlimited rates, 25 sends at once, everything else as by default.
pub fn sending() -> Sending {
    Sending {
        sends_per_worker: 25,
        rate_transfers: 0,
        rate_payouts: 0,
        attempt_cooling: Span::seconds(910),
        replay_window: Span::hours(23),
    }
}

impl Stage {
    /// A platform with a million dollars at Stripe, and nobody to pay.
    pub async fn new() -> Self {
        Self::with(double_options()).await
    }

    pub async fn with(options: StripeDoubleOptions) -> Self {
        Self::on(World::new().await, options).await
    }

    /// Around a world that is there.
    pub async fn on(world: World, options: StripeDoubleOptions) -> Self {
        let double = StripeDouble::start(options).await.expect("a free port");
        double.fund("usd", 100_000_000);
        let payer = Payer::new(world.db.clone(), stripe(&double, KEY), world.policy.clone(), sending());
        Self { world, double, payer, heard: tokio::sync::Mutex::new(0) }
    }

    /// Creators 1 to `count` with a ready account here and at Stripe and so many cents on the platform each, batched.
    pub async fn crowd(&self, count: u128, minor: i64) -> Vec<ChunkId> {
        self.crowd_in_chunks(count, minor, 25).await
    }

    /// The same in chunks of another size.
    pub async fn crowd_in_chunks(&self, count: u128, minor: i64, chunk_size: i64) -> Vec<ChunkId> {
        self.accounts(1..=count);
        self.creators(1..=count).await;
        self.record((1..=count).map(|n| crate::world::earning(&format!("e{n}"), n, minor)).collect()).await;
        self.cycle(payday::clock::Schedule::Semimonthly, crate::world::CYCLE, chunk_size).await;
        self.chunks().await
    }

    /// Accounts at Stripe, as the world describes them.
    pub fn accounts(&self, numbers: std::ops::RangeInclusive<u128>) {
        self.double.add_accounts(numbers.map(|n| {
            let mut account = AccountSpec::ready(&account_of(n), "US", "usd");
            account.banks[0].fingerprint = format!("bank of {}", account_of(n));
            account
        }));
    }

    /// Another chunk processor, with a database of its own to speak to.
    pub fn worker(&self, db: Db) -> Payer {
        let Payer { stripe, policy, sending, .. } = self.payer.clone();
        Payer::new(db, stripe, policy, sending)
    }

    /// Works on a chunk as a chunk processor does that has just been invoked.
    pub async fn process(&self, chunk: ChunkId) -> payday::error::Result<()> {
        self.payer.process_chunk(chunk, Instant::now() + Duration::from_secs(900)).await
    }

    /// Works once on each chunk that has something due.
    pub async fn work(&self) {
        let due: Vec<(ChunkId,)> =
            self.all("select distinct chunk_id from payout_items where due_at <= now() order by chunk_id").await;
        for (chunk,) in due {
            let worked = self.process(chunk).await;
            worked.unwrap_or_else(|error| panic!("chunk {chunk}: {error}: {}", error.causes()));
        }
    }

    /// Works, sweeps and lets time pass until nothing is due any more and nothing will be.
    pub async fn finish(&self) {
        for _ in 0..ROUNDS {
            self.work().await;
            let wait: Option<i64> = self
                .value("select case when due_at is not null then greatest(ceil(extract(epoch from due_at - now()) * 1000), 0) end::bigint from (select min(due_at) as due_at from payout_items) as next")
                .await;
            match wait {
                None => return,
                Some(0) => {}
                Some(wait_ms) => self.later(Span::milliseconds(wait_ms)).await,
            }
        }
        panic!(
            "it does not come to rest: {:?}",
            self.rows("select id, status, due_at, failure_code from payout_items where due_at is not null").await
        );
    }

    /// So much time passes, here and at Stripe: every instant that decisions compare with now moves into the past.
    pub async fn later(&self, by: Span) {
        let by_ms = by.num_milliseconds();
        let passed = format!("interval '{by_ms} milliseconds'");
        self.run(format!(
            "update payout_operations set first_dispatched_at = first_dispatched_at - {passed}, dispatched_at = dispatched_at - {passed},
                send_deadline = send_deadline - {passed}, unknown_since = unknown_since - {passed};
             update payout_items set due_at = due_at - {passed}, waiting_since = waiting_since - {passed} where due_at is not null or waiting_since is not null;
             update payout_chunks set leased_until = leased_until - {passed}, queued_at = queued_at - {passed};
             update stripe_accounts set destination_changed_at = destination_changed_at - {passed}, cured_at = cured_at - {passed},
                state_at = case when stale then state_at - date_trunc('second', {passed}) else state_at end;
             update outbox set queued_at = queued_at - {passed} where sent_at is null;
             update outbox_deliveries set due_at = due_at - {passed} where due_at is not null;
             update payout_runs set started_at = started_at - {passed}, queued_at = queued_at - {passed};
             update withdrawal_requests set due_at = due_at - {passed}, queued_at = queued_at - {passed} where status = 'pending';
             update stripe_events set due_at = due_at - {passed};
             update reconciliations set leased_until = leased_until - {passed}, started_at = started_at - {passed};
             update rate_budgets set next_at = next_at - {passed}, slowed_at = slowed_at - {passed}"
        ))
        .await;
        self.double.advance(Duration::from_millis(by_ms.unsigned_abs()));
    }

    /// Takes in what the double has to tell since the last time, in the order in which it happened.
    pub async fn hear(&self) {
        let mut heard = self.heard.lock().await;
        let events = self.double.events();
        for event in &events[*heard..] {
            self.take_in(&event_body(event)).await;
        }
        *heard = events.len();
    }

    /// Takes in one event.
    pub async fn take_in(&self, body: &Value) -> Received {
        let event: Event = serde_json::from_value(body.clone()).expect("an event");
        let taken = stripe_events::take_in(&self.db, &self.policy, &event, body).await;
        taken.unwrap_or_else(|error| panic!("{body}: {error}: {}", error.causes()))
    }

    /// How many items are in which status: `paid=3 failed=1`.
    pub async fn statuses(&self) -> String {
        self.row(
            "select coalesce(string_agg(status || '=' || items, ' ' order by status), 'none')
             from (select status, count(*) as items from payout_items group by status) as s",
        )
        .await
    }

    /// `leg.attempt state sends`, of an item, in order.
    pub async fn operations(&self, item: &str) -> Vec<String> {
        self.rows(&format!(
            "select leg || '.' || attempt, state, sends from payout_operations where item_id in ({item}) order by id"
        ))
        .await
    }

    /// Calls that the double met with this method and path, by how they were answered.
    pub fn calls(&self, method: &str, path: &str) -> Vec<stripe_double::Call> {
        self.double.calls().into_iter().filter(|call| call.method == method && call.path.starts_with(path)).collect()
    }

    /// Every standing check, here and at Stripe, and that the two agree about what moved.
    pub async fn audit(&self) {
        self.world.audit().await;
        self.audit_double();
        let ours = self
            .rows(
                "select account || ' ' || currency || ' ' || coalesce(sum(amount_minor) filter (where leg = 'transfer' and state in ('accepted', 'returned')), 0)
                        || ' ' || coalesce(sum(reversed_minor), 0)
                        || ' ' || coalesce(sum(amount_minor) filter (where leg = 'payout' and state = 'accepted'), 0)
                 from payout_operations where state in ('accepted', 'returned') group by account, currency order by account, currency",
            )
            .await;
        let theirs: BTreeMap<(String, String), String> = self
            .double
            .audit()
            .destinations
            .into_iter()
            .filter(|it| it.transferred_minor > 0 || it.paid_out_minor > 0 || it.returned_minor > 0)
            .map(|it| {
                let line = format!(
                    "{} {} {} {} {}",
                    it.account, it.currency, it.transferred_minor, it.reversed_minor, it.paid_out_minor
                );
                ((it.account, it.currency), line)
            })
            .collect();
        assert_eq!(
            ours,
            theirs.into_values().collect::<Vec<_>>(),
            "what we know and what Stripe did: transferred, reversed, paid out"
        );
        let ledger = self
            .rows(
                "select i.account, b.currency, sum(b.at_stripe + b.paid_out) from payee_balances b
                 join (select distinct creator_id, currency, account from payout_items) i on i.creator_id = b.payee_id and i.currency = b.currency
                 group by 1, 2 having sum(b.at_stripe + b.paid_out) <>
                    (select coalesce(sum((o.amount_minor - o.reversed_minor) * c.micros_per_minor), 0) from payout_operations o join payout_items p on p.id = o.item_id
                     join currencies c on c.code = o.currency where o.leg = 'transfer' and o.state in ('accepted', 'returned') and o.account = i.account and o.currency = b.currency)
                    + (select coalesce(sum(p.connected_minor * c.micros_per_minor), 0) from payout_items p join currencies c on c.code = p.currency
                       where p.connected_moved and p.account = i.account and p.currency = b.currency)",
            )
            .await;
        assert_eq!(ledger, [""; 0], "what the ledger has at Stripe and paid out is what was sent there");
    }

    /// The double's own opinion.
    pub fn audit_double(&self) {
        let audit = self.double.audit();
        assert!(audit.is_clean(), "{audit:#?}");
    }

    /// From now on the worker has so many sends under way at once.
    pub fn send_at_once(&mut self, sends_per_worker: usize) {
        let Payer { db, stripe, policy, sending, .. } = self.payer.clone();
        self.payer = Payer::new(db, stripe, policy, Sending { sends_per_worker, ..sending });
    }

    /// The sweeper, with queues of its own.
    pub async fn sweeper(&self) -> Sweeping {
        Sweeping::new(self.payer.clone()).await
    }
}

/// A double whose ids are the same every time.
pub fn double_options() -> StripeDoubleOptions {
    StripeDoubleOptions { seed: Some(1), ..StripeDoubleOptions::default() }
}

/// Stripe under a key, where the double is.
pub fn stripe(double: &StripeDouble, key: &str) -> Stripe {
    impatient(double, key, Duration::from_secs(5))
}

/// The same with another timeout.
pub fn impatient(double: &StripeDouble, key: &str, timeout: Duration) -> Stripe {
    let settings = config::Stripe { secret_key: key.to_owned(), api_base: double.base_url(), timeout };
    Stripe::new(&settings).expect("a client")
}

/// An event as it is delivered.
pub fn event_body(event: &stripe_double::Event) -> Value {
    let object: Value = serde_json::from_slice(&event.object).expect("an object");
    let mut body = json!({
        "id": event.id, "object": "event", "type": event.kind, "created": event.created, "livemode": false, "data": { "object": object },
    });
    if let Some(account) = &event.account {
        body["account"] = json!(account);
    }
    body
}

/// A sweeper and the two queues it speaks to.
pub struct Sweeping {
    pub sweeper: Sweeper,
    queues: QueueServer,
}

const CREATE_BATCH: &str = "create-batch";
const PROCESS_CHUNK: &str = "process-chunk";

impl Sweeping {
    async fn new(payer: Payer) -> Self {
        let queues = QueueServer::start(&[CREATE_BATCH, PROCESS_CHUNK]).await;
        let sweeper = Sweeper {
            db: payer.db,
            stripe: payer.stripe,
            policy: payer.policy,
            create_batch: queues.client(CREATE_BATCH),
            process_chunk: queues.client(PROCESS_CHUNK),
        };
        Self { sweeper, queues }
    }

    /// Sweeps, and returns what was queued by that: for the batch creator, and for the chunk processors.
    pub async fn sweep(&self) -> (Vec<String>, Vec<String>) {
        let pace = Pace { quiet_seconds: 0, ask_stripe: true };
        self.sweeper.sweep(pace).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
        (self.queues.taken(CREATE_BATCH), self.queues.taken(PROCESS_CHUNK))
    }
}

/// Pause, resume, kill.
pub async fn control(db: &Db, column: &'static str, on: bool) {
    let mut tx = db.begin().await.expect("a transaction");
    let sql = match column {
        "killed" => "update payout_controls set killed = $1, changed_at = now()",
        _ => "update payout_controls set paused = $1, changed_at = now()",
    };
    tx.run(payday::db::query(sql).bind(on)).await.expect("a change");
    tx.commit(Boundary::Outside).await.expect("a commit");
}
