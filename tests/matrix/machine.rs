//! All functions on one machine, without the runtime around them: what comes in is worked off one after the other, and what
//! fails or dies is delivered again, as SQS, Stripe and the Scheduler do. Time is moved instead of waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lambda_events::sqs::SqsEvent;
use chrono::{DateTime, Duration as Span, Utc};
use payday::audit::By;
use payday::boundary::Boundary;
use payday::boundary::faults::Plan;
use payday::clock::Schedule;
use payday::config::Withdrawals;
use payday::db::Db;
use payday::earnings::NewEarning;
use payday::error::Result;
use payday::http::Connect;
use payday::jobs::{self, Job, Jobs};
use payday::messages::Messenger;
use payday::payees::onboarding::{self, Asked};
use payday::payouts::controls::{self, Press};
use payday::payouts::cycle::{self, Why};
use payday::payouts::preview::Agreed;
use payday::payouts::store::creators::{self, Changes};
use payday::payouts::sweep::{Pace, Sweeper};
use payday::queue::{self, Message};
use payday::schedule::Scheduler;
use payday::withdrawals::{self, Withdrawal};
use payday::{config, earnings, stripe_events};
use payday_local::post_office::PostOffice;
use payday_tests::database::Database;
use payday_tests::queues::{QueueServer, aws_at};
use payday_tests::schedules::Schedules;
use payday_tests::stage::{Stage, double_options, event_body};
use payday_tests::world::{CYCLE, World, creator, day};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub const CREATE_BATCH: &str = "create-batch";
pub const PROCESS_CHUNK: &str = "process-chunk";
const NOTIFICATION: &str = "notification";
const QUEUES: [&str; 3] = [CREATE_BATCH, PROCESS_CHUNK, NOTIFICATION];

/// How often something is delivered before it counts as dead.
const DELIVERIES: u32 = 5;
/// A sweep a minute, for so long at most.
const SWEEPS: usize = 60;
const SWEEP_EVERY_MS: i64 = 61_000;
/// How many sweeps may pass over what is due.
const PATIENCE: u32 = 2;
/// What Stripe tells here. `payout.created` and `payout.updated` say nothing that is not known by then.
const EVENTS: [&str; 13] = [
    "account.updated",
    "account.external_account.created",
    "capability.updated",
    "payout.paid",
    "payout.failed",
    "payout.canceled",
    "transfer.reversed",
    "payment_intent.succeeded",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
];

/// Something that a function is started with.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A request to record earnings; the sender repeats it until it is told that it was done.
    Earnings(Vec<NewEarning>),
    Fired(Schedule, DateTime<Utc>),
    Job(Job, Option<DateTime<Utc>>),
    /// A creator asks for so many tokens; the sender repeats it under the same key until it is told that it was done.
    Withdraw(u128, i64, Withdrawals),
    /// A creator takes back what was asked for.
    CancelWithdrawal(u128),
    /// A creator chooses another schedule.
    Settings(u128, Schedule),
    Message(&'static str, String),
    Event(Value),
    /// A creator asks to be connected to Stripe, and asks again until it is done.
    Connect(u128),
    /// An operator presses a switch; like the sender of earnings, until told that it was done.
    Press(Press),
    /// An operator asks for the cycle, for the facts that a preview showed or for any.
    Run(Option<Agreed>),
}

/// A database and queues, for one case after the other.
pub struct Place {
    database: Database,
    queues: QueueServer,
}

impl Place {
    pub async fn new() -> Self {
        Self { database: Database::new().await, queues: QueueServer::start(&QUEUES).await }
    }

    /// Forgets what the last case has left.
    pub async fn renew(&self) {
        self.database.renew().await;
        for queue in QUEUES {
            self.queues.taken(queue);
        }
    }
}

pub struct Machine {
    pub stage: Stage,
    pub plan: Arc<Plan>,
    queues: QueueServer,
    /// What people were told.
    pub post_office: PostOffice,
    messenger: Messenger,
    pub schedules: Schedules,
    scheduler: Scheduler,
    scheduler_server: JoinHandle<()>,
    chunk_size: i64,
    /// What a warm function instance keeps; a killed one leaves nothing behind.
    db: Db,
    /// Whether no function with a Stripe key has told its mode yet.
    is_cold: bool,
    is_killed: bool,
    waiting: VecDeque<(Delivery, u32)>,
    /// Queues whose next message gets lost.
    losing: BTreeSet<&'static str>,
    /// By how much time was moved: what Stripe says is so much ahead.
    moved: Span,
    heard: usize,
}

impl Deref for Machine {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Machine {
    /// In a place that is as new.
    pub async fn new(place: Place, plan: Arc<Plan>, chunk_size: i64) -> Self {
        let Place { database, queues } = place;
        let stage = Stage::on(World::on(database), double_options()).await;
        let db = stage.db.clone();
        let post_office = PostOffice::start().await.expect("letter boxes");
        let alerts = config::Alerts {
            slack_url: Some(post_office.slack_url()),
            email_to: vec!["ops@example.com".to_owned()],
            email_from: Some("payday@example.com".to_owned()),
            may_be_inside: true,
        };
        let messenger = Messenger::new(db.clone(), &alerts, &aws_at(post_office.url.clone()).await);
        let schedules = Schedules::default();
        let (scheduler, scheduler_server) = schedules.serve(queues.aws()).await;
        Self {
            stage,
            plan,
            queues,
            post_office,
            messenger,
            schedules,
            scheduler,
            scheduler_server,
            chunk_size,
            db,
            is_cold: true,
            is_killed: false,
            waiting: VecDeque::new(),
            losing: BTreeSet::new(),
            moved: Span::zero(),
            heard: 0,
        }
    }

    /// Nobody was told the same message twice, and what nobody may have been told is known.
    pub fn audit_messages(&self) {
        let numbered = |text: &str| text.lines().last().unwrap_or_default().to_owned();
        for (channel, texts) in [
            ("slack", self.post_office.posts()),
            ("email", self.post_office.mails().into_iter().map(|mail| mail.text).collect::<Vec<_>>()),
        ] {
            let mut numbers: Vec<String> = texts.iter().map(|text| numbered(text)).collect();
            numbers.sort();
            let all = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), all, "told twice by {channel}: {texts:?}");
        }
    }

    /// Gives the place back, without what killed functions have left connected.
    pub async fn leave(self) -> Place {
        self.scheduler_server.abort();
        let database = self.stage.world.database;
        if self.is_killed {
            database.disconnect_others().await;
        }
        Place { database, queues: self.queues }
    }

    /// Something comes in.
    pub fn comes(&mut self, delivery: Delivery) {
        self.waiting.push_back((delivery, 0));
    }

    /// The next message of a queue gets lost.
    pub fn lose_the_next_of(&mut self, queue: &'static str) {
        self.losing.insert(queue);
    }

    /// Stripe tells what has happened since the last time; `backwards`: the last first.
    pub fn hear(&mut self, backwards: bool) {
        let events = self.double.events();
        let new = events[self.heard..].iter().filter(|event| EVENTS.contains(&event.kind.as_str()));
        let mut news: Vec<_> = new.map(|event| (Delivery::Event(self.in_our_time(event_body(event))), 0)).collect();
        if backwards {
            news.reverse();
        }
        self.waiting.extend(news);
        self.heard = events.len();
    }

    /// Stripe's clock was moved ahead, ours was not.
    fn in_our_time(&self, mut body: Value) -> Value {
        for place in ["/created", "/data/object/created"] {
            if let Some(created) = body.pointer_mut(place)
                && let Some(seconds) = created.as_i64()
            {
                *created = json!(seconds - self.moved.num_seconds());
            }
        }
        body
    }

    /// Works, lets time pass and the sweep run until nothing goes on by itself any more.
    pub async fn rest(&mut self) {
        let mut passed_over: BTreeMap<i64, u32> = BTreeMap::new();
        for _ in 0..SWEEPS {
            self.work_off().await;
            let Some(wait_ms) = self.next_ms().await else { return };
            let by = Span::milliseconds(wait_ms.max(SWEEP_EVERY_MS));
            self.later(by).await;
            self.moved += by;
            let may_strike = self.plan.left() > 0;
            let due = self.due().await;
            self.waiting.push_back((Delivery::Job(Job::Sweep, None), 0));
            self.work_off().await;
            let still_due = self.due().await;
            passed_over.retain(|item, _| still_due.contains(item));
            for item in still_due.intersection(&due).filter(|_| !may_strike) {
                let sweeps = passed_over.entry(*item).or_default();
                *sweeps += 1;
                if *sweeps >= PATIENCE {
                    panic!("item {item} is still due after {PATIENCE} sweeps\n{}", self.state().await);
                }
            }
        }
        panic!("it does not come to rest\n{}", self.state().await);
    }

    /// What goes on, and what there is to see of items that are not at their end.
    async fn state(&self) -> String {
        let goes_on = self.rows(&format!("select what, at - now() from ({NEXT}) as next where at is not null order by at")).await;
        let open = self
            .rows(
                "select i.id, i.status, i.due_at - now() as due_in, i.failure_code, b.status, b.halt_reason, k.leased_until - now() as leased_for,
                        k.queued_at - now() as queued, o.leg, o.attempt, o.state, o.sends, o.lookups
                 from payout_items i join payout_chunks k on k.id = i.chunk_id join payout_batches b on b.id = i.batch_id
                 left join payout_operations o on o.item_id = i.id where i.due_at is not null order by i.id, o.id",
            )
            .await;
        [goes_on, open].concat().join("\n")
    }

    async fn work_off(&mut self) {
        while let Some((delivery, deliveries)) = self.waiting.pop_front() {
            if !self.deliver(&delivery).await {
                assert!(deliveries < DELIVERIES, "a dead letter: {delivery:?}");
                self.waiting.push_back((delivery, deliveries + 1));
            }
            for queue in QUEUES {
                for body in self.queues.taken(queue) {
                    if !self.losing.remove(queue) {
                        self.waiting.push_back((Delivery::Message(queue, body), 0));
                    }
                }
            }
        }
    }

    /// Starts a function with a delivery; `false`: it must come again.
    async fn deliver(&mut self, delivery: &Delivery) -> bool {
        let (db, plan, is_cold) = (self.db.clone(), Arc::clone(&self.plan), self.is_cold);
        let others = async {
            loop {
                plan.asks_for_another().await;
                // What becomes of it is its own affair: the delivery is acknowledged or not by the first.
                let _ = Box::pin(self.function(&instance(&self.stage), true, delivery)).await;
                plan.another_is_done();
            }
        };
        let done = tokio::select! {
            done = plan.follow(Box::pin(self.function(&db, is_cold, delivery))) => Some(done),
            () = plan.killed() => None,
            () = others => None,
        };
        self.is_cold &= !matches!(delivery, Delivery::Job(..) | Delivery::Message(PROCESS_CHUNK, _));
        if done.is_none() {
            (self.db, self.is_cold, self.is_killed) = (instance(&self.stage), true, true);
        }
        done == Some(true)
    }

    /// What the main of the function in question does. `true`: it says that it is done.
    async fn function(&self, db: &Db, is_cold: bool, delivery: &Delivery) -> bool {
        self.try_function(db, is_cold, delivery).await.unwrap_or(false)
    }

    async fn try_function(&self, db: &Db, is_cold: bool, delivery: &Delivery) -> Result<bool> {
        let policy = &self.policy;
        match delivery {
            Delivery::Earnings(new) => {
                earnings::record(db, policy, new.clone()).await?;
            }
            Delivery::Fired(schedule, scheduled_time) => {
                let fired = cycle::Fired { schedule: *schedule, scheduled_time: *scheduled_time };
                cycle::fired(db, &self.queues.client(CREATE_BATCH), &fired, policy.calendar).await?;
            }
            Delivery::Event(body) => {
                let event: stripe_events::Event = serde_json::from_value(body.clone()).expect("an event");
                stripe_events::take_in(db, policy, &event, body).await?;
            }
            Delivery::Press(press) => {
                controls::press(db, *press, "as the story wants it", &operator()).await?;
                controls::mirror(db, &self.scheduler).await?;
            }
            Delivery::Run(agreed) => {
                let by = operator();
                let why = Why::Person { by: &by, agreed: agreed.as_ref() };
                cycle::asked(db, &self.queues.client(CREATE_BATCH), day(CYCLE), policy.calendar, why).await?;
            }
            Delivery::Job(job, scheduled_time) => {
                if is_cold {
                    stripe_events::remember_mode(db, false).await?;
                }
                let fired = jobs::Fired { job: *job, scheduled_time: *scheduled_time, pace: Pace::default(), item: None };
                self.jobs(db).run(&fired).await?;
            }
            Delivery::Withdraw(n, tokens, go_out) => {
                let asked = Withdrawal::new(creator(*n), *tokens, policy)?;
                let queue = self.queues.client(CREATE_BATCH);
                withdrawals::request(db, &queue, policy, *go_out, &asked, Some("the one".to_owned())).await?;
            }
            Delivery::CancelWithdrawal(n) => {
                let sql = format!("select id from withdrawal_requests where creator_id = '{}'", creator(*n));
                withdrawals::cancel(db, creator(*n), self.value(&sql).await).await?;
            }
            Delivery::Settings(n, schedule) => {
                let changes = Changes { schedule: Some(schedule.as_str()), ..Changes::default() };
                let mut tx = db.begin().await?;
                creators::change_settings(&mut tx, creator(*n), changes).await?;
                tx.commit(Boundary::SaveByRequest).await?;
            }
            Delivery::Connect(n) => {
                let stripe = self.payer.stripe.clone();
                let frontend = "https://app.example.com".into();
                let connect = Connect { stripe, platform_country: "US".into(), frontend };
                let asked = Asked { payee: creator(*n), country: "US".to_owned(), email: None };
                let (account, _) = onboarding::start(db, &connect, &asked).await?;
                onboarding::link(&connect, &account, "/again", "/").await?;
            }
            Delivery::Message(queue, body) => return self.message(db, is_cold, queue, body).await,
        }
        Ok(true)
    }

    async fn message(&self, db: &Db, is_cold: bool, queue: &str, body: &str) -> Result<bool> {
        let record = json!({ "Records": [{ "messageId": "1", "body": body }] });
        let event: SqsEvent = serde_json::from_value(record).expect("an event");
        let boundary = match queue {
            CREATE_BATCH => Boundary::RunMessage,
            PROCESS_CHUNK => Boundary::ChunkMessage,
            _ => Boundary::NotificationMessage,
        };
        if is_cold && queue == PROCESS_CHUNK {
            stripe_events::remember_mode(db, false).await?;
        }
        let payer = self.worker(db.clone());
        let messenger = Messenger { db: db.clone(), ..self.messenger.clone() };
        let (payer, messenger, chunks) = (&payer, &messenger, &self.queues.client(PROCESS_CHUNK));
        let work = |message| async move {
            match message {
                Message::CreateBatch { run_id } => cycle::create_batches(db, chunks, &self.policy, self.chunk_size, run_id).await,
                Message::Withdraw { request_id } => withdrawals::make_batch(db, chunks, &self.policy, request_id).await,
                Message::ProcessChunk { chunk_id } => {
                    payer.process_chunk(chunk_id, Instant::now() + Duration::from_secs(900)).await
                }
                Message::Notification { outbox_id } => messenger.deliver(outbox_id).await,
            }
        };
        Ok(queue::each(boundary, event, work).await.batch_item_failures.is_empty())
    }

    fn jobs(&self, db: &Db) -> Jobs {
        let stripe = self.payer.stripe.clone();
        let sweeper = Sweeper {
            db: db.clone(),
            stripe: stripe.clone(),
            policy: self.policy.clone(),
            create_batch: self.queues.client(CREATE_BATCH),
            process_chunk: self.queues.client(PROCESS_CHUNK),
        };
        let notification = self.queues.client(NOTIFICATION);
        Jobs {
            db: db.clone(),
            stripe,
            policy: self.policy.clone(),
            notification,
            sweeper,
            scheduler: self.scheduler.clone(),
            stuck_run_minutes: 60,
            reads_per_second: 0,
        }
    }

    async fn due(&self) -> BTreeSet<i64> {
        let due = "select i.id from payout_items i join payout_batches b on b.id = i.batch_id
                   where i.due_at <= now() and b.halt_reason is distinct from 'frozen_operation'";
        self.all::<(i64,)>(due).await.into_iter().map(|(id,)| id).collect()
    }

    /// How long until something goes on by itself; `None`: nothing will.
    async fn next_ms(&self) -> Option<i64> {
        self.value(&format!("select min(ceil(extract(epoch from at - now()) * 1000))::bigint from ({NEXT}) as next")).await
    }
}

/// What goes on by itself, and when.
const NEXT: &str = "
    select 'item ' || i.id as what, i.due_at as at
        from payout_items i join payout_batches b on b.id = i.batch_id where b.halt_reason is distinct from 'frozen_operation'
    union all select 'event ' || id, due_at from stripe_events
    union all select 'account ' || account || case when stale then ' (stale)' else ' (cured)' end, now() from stripe_accounts where stale or cured_at is not null
    union all select 'message ' || kind, now() from outbox where sent_at is null
    union all select 'run ' || r.id, now() from payout_runs r where status = 'running' and facts_changed_at is null
              and not exists (select from payout_batches b where b.run_id = r.id and b.halt_reason = 'frozen_operation')
    union all select 'withdrawal ' || id, now() from withdrawal_requests where status = 'pending' and due_at is not null
    union all select 'batch ' || id, now() from payout_batches where status = 'processing' or halt_reason = 'stripe_key_rejected'";

fn operator() -> By {
    By::new("an operator", "a request")
}

/// The database as a new function instance opens it.
fn instance(stage: &Stage) -> Db {
    Db::connect(&stage.url(), 2).expect("an address")
}
