//! The world of one history: simulated time, the model of the tables, the fake Stripe, the queue between the functions, and
//! who runs when. Everything random comes from the seed.

mod acts;
mod ending;
mod story;

use std::collections::BTreeMap;

use chrono::{Duration, SubsecRound};
use fastrand::Rng;
use payday::clock::Calendar;
use payday::config::{Policy, Sending};
use payday::http_client::{Answer, Failure};
use payday::id::RunId;
use payday::ledger::Account;
use payday::money::Ppm;
use payday::payouts::wave::Wave;
use payday::queue::Message;
use payday::rails::{Leg, Outcome, Reply};

use crate::checks;
use crate::counts::Counts;
use crate::deeds::{Deed, Done};
use crate::engine::creator::Creator;
use crate::engine::worker::Worker;
use crate::engine::{Actor, Led, Luck, Work};
use crate::history::{History, Perils, Rules};
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::stripe::events::{Event, What};
use crate::stripe::{Request, Stripe};
use crate::tables::events::Effect;
use crate::tables::{Breach, CURRENCIES, Tables, Time};

/// All checks are made once in so many steps; the cheap ones after each.
const ALL_CHECKS_EVERY: u32 = 60;
/// So often a message is handed out before it goes to the dead letters.
const MAX_RECEIVES: u32 = 8;

pub struct Settings {
    pub policy: Policy,
    pub sending: Sending,
    pub chunk_size: usize,
}

/// A message in the queue.
struct Waiting {
    id: u64,
    message: Message,
    visible_at: Time,
    receives: u32,
}

pub struct World {
    pub now: Time,
    pub tables: Tables,
    pub stripe: Stripe,
    pub settings: Settings,
    pub luck: Rng,
    pub counts: Counts,
    pub planted: Option<Planted>,
    perils: Perils,
    oracle: Oracle,
    queue: Vec<Waiting>,
    actors: Vec<Actor>,
    deliveries: BTreeMap<(Time, u64), Event>,
    next: u64,
    unchecked: u32,
    begins_at: Time,
    /// Charges and what they were, for those who claim them back.
    charges: Vec<(String, i64, &'static str)>,
    /// What happened, if somebody wants to read it.
    story: Option<Vec<String>>,
    /// What was done to the tables, if a test is to do the same.
    deeds: Option<Vec<Done>>,
}

impl World {
    /// `records`: whether what it does to the tables is kept.
    pub fn new(history: &History, planted: Option<Planted>, records: bool) -> Self {
        let begins_at = history.begins_at;
        let sending = Sending {
            sends_per_worker: 5,
            rate_transfers: 20,
            rate_payouts: 12,
            attempt_cooling: Duration::seconds(910),
            replay_window: Duration::hours(if planted == Some(Planted::ReplayForTwoDays) { 48 } else { 23 }),
        };
        let policy = Policy {
            token_rate_micros: 50_000,
            platform_fee: Ppm(100_000),
            default_currency: payday::money::Currency::USD,
            hold_days: 7,
            thresholds_minor: BTreeMap::new(),
            reserve: Ppm(0),
            beta_only: false,
            destination_cooloff_hours: 72,
            two_person_above_cents: 0,
            auto_resume: false,
            calendar: Calendar { zone: history.zone, hour: history.hour },
        };
        let mut world = Self {
            now: begins_at,
            tables: Tables::new("5eed5eed5eed5eed".to_owned(), begins_at),
            stripe: Stripe::new(),
            settings: Settings { policy, sending, chunk_size: 25 },
            luck: Rng::with_seed(history.seed),
            counts: Counts::default(),
            planted,
            perils: history.perils,
            oracle: Oracle::default(),
            queue: Vec::new(),
            actors: Vec::new(),
            deliveries: BTreeMap::new(),
            next: 0,
            unchecked: 0,
            begins_at,
            charges: Vec::new(),
            story: None,
            deeds: None,
        };
        // What is held how long does not change under earnings that are there.
        world.settings.policy.hold_days = history.rules.hold_days;
        world.deeds = records.then(Vec::new);
        world.obey(&history.rules);
        for person in &history.people {
            world.enter(person);
        }
        world
    }

    fn obey(&mut self, rules: &Rules) {
        self.settings.chunk_size = rules.chunk_size;
        self.settings.sending.sends_per_worker = rules.sends_per_worker;
        self.settings.sending.rate_transfers = rules.rate;
        self.settings.sending.rate_payouts = rules.rate;
        self.settings.policy.thresholds_minor.insert("usd".to_owned(), rules.threshold_usd);
        self.settings.policy.reserve = Ppm(rules.reserve_ppm);
        let policy = self.settings.policy.clone();
        self.did(|| Deed::Policy(policy));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.luck.u32(..1_000) < per_mille
    }

    /// Makes every step of the history, then the ending.
    pub fn live(&mut self, history: &History) -> Result<(), Breach> {
        self.live_steps(history)?;
        self.luck = Rng::with_seed(history.seed ^ 0x00e5_d1e5);
        self.end(history)
    }

    pub fn live_steps(&mut self, history: &History) -> Result<(), Breach> {
        for step in &history.steps {
            self.advance(self.begins_at + Duration::seconds(step.at))?;
            self.luck = Rng::with_seed(step.seed);
            self.tell(|| format!("{:?}", step.act));
            self.act(&step.act, history)?;
            self.settle_news()?;
        }
        Ok(())
    }

    /// Adds what the fake Stripe counted.
    pub fn sum_up(&mut self) {
        for (mishap, times) in std::mem::take(&mut self.stripe.struck) {
            self.counts.add_many("stripe", mishap.name(), times);
        }
        self.counts.add_many("stripe", "replayed from memory", self.stripe.replays);
        self.counts.add_many("stripe", "balance_insufficient", self.stripe.balance_refusals);
        self.counts.add_many(
            "people",
            "blocked",
            self.tables.payees.iter().filter(|it| it.blocked_reason.is_some()).count() as u64,
        );
        let debts = self.tables.balances.iter().flatten().filter(|it| it[Account::Debt as usize] < 0).count();
        self.counts.add_many("money", "debts at the end", debts as u64);
    }

    /// A message for a function; it may get lost, or come twice.
    pub fn send(&mut self, message: Message) {
        if self.happens(self.perils.message_lost) {
            self.counts.add("queue", "lost");
            return;
        }
        let times = if self.happens(self.perils.doubled) { 2 } else { 1 };
        for _ in 0..times {
            let id = self.number();
            self.queue.push(Waiting { id, message, visible_at: self.now, receives: 0 });
        }
        self.counts.add_many("queue", "sent", times);
    }

    pub fn has_visible_chunk_messages(&self) -> bool {
        self.queue.iter().any(|it| it.visible_at <= self.now && matches!(it.message, Message::ProcessChunk { .. }))
    }

    /// Sends a request, as long as its attempt is committed, and lets the oracle see it.
    pub fn post(&mut self, request: &Request) -> Result<(Result<Answer, Failure>, Duration), Breach> {
        let committed = self.tables.operations.iter().rev().find(|it| it.body == request.body);
        if committed.is_none() {
            return Err(Breach::new("no send without a committed dispatch", format!("{request:?}")));
        }
        self.oracle.request(request, self.now)?;
        let (answer, took) = self.stripe.post(self.now, request, &mut self.luck);
        let not_run = match &answer {
            Err(Failure::NotSent(_)) => true,
            Err(Failure::Unanswered(_)) => false,
            Ok(answer) => matches!(answer.status.as_u16(), 401 | 403 | 429),
        };
        self.oracle.answered(&request.key, !not_run, self.now);
        self.tell(|| {
            let heard = match &answer {
                Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(failure) => format!("{failure:?}"),
            };
            format!("Stripe is sent {}: {heard}", request.key)
        });
        self.oracle.look(&self.stripe.objects, self.now)?;
        self.settle_news()?;
        Ok((answer, took))
    }

    pub fn count_reply(&mut self, reply: &Reply, in_doubt: bool) {
        let outcome = match &reply.outcome {
            Outcome::Accepted(_) => "accepted",
            Outcome::Rejected(_) => "rejected",
            Outcome::NotRun(_) => "not run",
            Outcome::Unknown { .. } => "unknown",
            Outcome::Frozen { .. } => "frozen",
        };
        self.counts.add(if in_doubt { "replays" } else { "first sends" }, outcome);
        if reply.replayed {
            self.counts.add("sends", "answered from memory");
        }
    }

    /// Saves a wave and looks at what it changed.
    pub fn save(&mut self, wave: &Wave) -> Result<(), Breach> {
        for update in &wave.items {
            if update.was != update.item.status {
                self.counts.add("items", update.item.status.as_str());
            }
        }
        for update in &wave.operations {
            self.counts.add("attempts", update.state.as_str());
        }
        self.counts.add_many("attempts", "dispatched", wave.new_operations.len() as u64);
        for it in &wave.items {
            self.tell(|| format!("item {} is {}, due {:?}", it.item.id, it.item.status.as_str(), it.due_at));
        }
        for it in &wave.operations {
            self.tell(|| format!("attempt {} is {}", it.id, it.state.as_str()));
        }
        for new in &wave.new_operations {
            self.oracle.decided(&format!("{}-{}", self.tables.instance, new.item), new.leg == Leg::Transfer, self.now);
        }
        self.tables.save(wave)
    }

    pub fn note_exclusions(&mut self, run: RunId) {
        let reasons: Vec<String> =
            self.tables.exclusions.iter().filter(|((of, _, _), _)| *of == run).map(|(_, reason)| reason.clone()).collect();
        for reason in reasons {
            let known = crate::eligibility::REASONS.into_iter().find(|known| *known == reason);
            self.counts.add("exclusions", known.unwrap_or("other"));
        }
    }

    /// The checks that follow each commit.
    fn check(&mut self) -> Result<(), Breach> {
        for id in std::mem::take(&mut self.tables.touched) {
            checks::item(&self.tables, id)?;
        }
        self.unchecked += 1;
        if self.unchecked >= ALL_CHECKS_EVERY {
            self.check_all()?;
        }
        Ok(())
    }

    fn check_all(&mut self) -> Result<(), Breach> {
        self.unchecked = 0;
        checks::all(&self.tables, &self.stripe.objects)
    }

    /// Lets time pass: functions run until nothing is left to do, banks decide, webhooks come.
    pub fn advance(&mut self, to: Time) -> Result<(), Breach> {
        loop {
            self.run(300)?;
            let thaws = self.actors.iter().map(|actor| actor.frozen_until.unwrap_or(actor.wakes_at));
            let messages = self.queue.iter().map(|it| it.visible_at);
            let deliveries = self.deliveries.first_key_value().map(|((at, _), _)| *at);
            let next = thaws.chain(messages).chain(deliveries).chain(self.stripe.next_at()).filter(|at| *at > self.now).min();
            match next.filter(|at| *at <= to) {
                Some(at) => self.now = at,
                None => break,
            }
            self.happen()?;
        }
        self.now = self.now.max(to);
        self.happen()
    }

    /// What is due at Stripe and on the wire.
    fn happen(&mut self) -> Result<(), Breach> {
        self.stripe.happen(self.now, &mut self.luck);
        self.oracle.look(&self.stripe.objects, self.now)?;
        self.settle_news()?;
        while let Some(first) = self.deliveries.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = first.remove();
            self.deliver(event)?;
        }
        Ok(())
    }

    /// Sends Stripe's news on their way: at once, late, twice, or never.
    fn settle_news(&mut self) -> Result<(), Breach> {
        for event in std::mem::take(&mut self.stripe.news) {
            if self.happens(self.perils.never) {
                self.counts.add("webhooks", "never");
                continue;
            }
            let mut at = self.now + Duration::milliseconds(self.luck.i64(50..20_000));
            if self.happens(self.perils.late) {
                self.counts.add("webhooks", "late");
                at += Duration::minutes(self.luck.i64(1..72 * 60));
            }
            if self.happens(self.perils.doubled) {
                self.counts.add("webhooks", "doubled");
                let (number, mut again) = (self.number(), event.clone());
                // One fact under two ids.
                if self.luck.bool() {
                    again.id = u64::MAX - number;
                }
                self.deliveries.insert((at + Duration::seconds(self.luck.i64(0..4_000)), number), again);
            }
            let number = self.number();
            self.deliveries.insert((at, number), event);
        }
        Ok(())
    }

    fn deliver(&mut self, event: Event) -> Result<(), Breach> {
        let again = self.now + Duration::minutes(self.luck.i64(5..200));
        let number = self.number();
        if self.happens(self.perils.away) {
            self.deliveries.insert((again, number), event);
            return Ok(());
        }
        let statuses = self.statuses();
        let effect = self.tables.take_in(&self.settings.policy, &event, self.now)?;
        self.counts.add("events", event.what.name());
        self.tell(|| format!("event {} {:?}: {effect:?}", event.id, event.what));
        self.did(|| Deed::Event { event: event.clone(), came: effect.clone() });
        match effect {
            Some(Effect::Applied) => self.came_in(&event),
            Some(Effect::Waiting(_)) => self.counts.add("webhooks", "waiting"),
            Some(_) => self.counts.add("webhooks", "ignored"),
            None => self.counts.add("webhooks", "repeated"),
        }
        self.count_changes(&statuses);
        if self.happens(self.perils.answer_lost) {
            self.deliveries.insert((again, number), event);
        }
        self.check()
    }

    /// A waiting event is tried again.
    pub fn retry_event(&mut self, id: u64) -> Result<(), Breach> {
        let statuses = self.statuses();
        if let Some((event, Effect::Applied)) = self.tables.retry_event(&self.settings.policy, id, self.now)? {
            self.came_in(&event);
        }
        self.did(|| Deed::RetryEvent { id });
        self.count_changes(&statuses);
        Ok(())
    }

    fn statuses(&self) -> Vec<&'static str> {
        self.tables.items.iter().map(|row| row.item.status.as_str()).collect()
    }

    fn count_changes(&mut self, before: &[&'static str]) {
        for (row, before) in self.tables.items.iter().zip(before) {
            if row.item.status.as_str() != *before {
                self.counts.add("items", row.item.status.as_str());
            }
        }
    }

    /// Tells the oracle of what came in.
    fn came_in(&mut self, event: &Event) {
        match &event.what {
            What::Payment { charge, account, amount, fee, currency, .. } => {
                let Some(payee) = self.tables.payee_of_account(account) else { return };
                let code = CURRENCIES[crate::tables::coin(currency)];
                let unit = crate::oracle::unit(code);
                let available_at = event.created + Duration::days(self.settings.policy.hold_days);
                self.oracle.earned(payee, code, amount * unit, (amount - fee) * unit, available_at, Some(charge.clone()));
            }
            What::TakenBack { source, charge, amount, currency } => {
                let micros = amount * crate::oracle::unit(CURRENCIES[crate::tables::coin(currency)]);
                self.oracle.claimed(charge, source, micros, self.now);
            }
            _ => {}
        }
    }

    /// Lets functions make steps until none has anything to do now, or so many were made.
    pub fn run(&mut self, steps: u32) -> Result<(), Breach> {
        for _ in 0..steps {
            if !self.tick()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One step of one function; `false`: nobody has anything to do now.
    fn tick(&mut self) -> Result<bool, Breach> {
        self.thaw();
        self.receive();
        let ready: Vec<usize> = (0..self.actors.len()).filter(|at| self.is_ready(*at)).collect();
        let Some(chosen) = (!ready.is_empty()).then(|| ready[self.luck.usize(..ready.len())]) else {
            let wakes = self.actors.iter().filter(|actor| actor.frozen_until.is_none()).map(|actor| actor.wakes_at);
            let Some(next) = wakes.min() else { return Ok(false) };
            self.now = next.max(self.now + Duration::milliseconds(1));
            self.happen()?;
            self.pulse();
            return Ok(true);
        };
        self.now = (self.now + Duration::microseconds(self.luck.i64(2_000..90_000))).trunc_subsecs(6);
        self.happen()?;
        self.pulse();
        let mut actor = self.actors.remove(chosen);
        let boundary = actor.boundary();
        if self.happens(self.perils.killed) {
            self.counts.add("killed before", boundary);
            self.tell(|| format!("killed before: {boundary}"));
            return Ok(true);
        }
        if self.happens(self.perils.frozen) {
            self.counts.add("frozen before", boundary);
            let minutes = if self.luck.u32(..3) == 0 { self.luck.i64(60..3_000) } else { self.luck.i64(1..30) };
            actor.clock_stops = self.luck.bool();
            self.freeze(&mut actor, minutes);
            self.tell(|| format!("frozen for {minutes} minutes before: {boundary}"));
            self.actors.insert(chosen, actor);
            return Ok(true);
        }
        if let (Work::Pay(worker), true) = (&mut actor.work, self.happens(self.perils.away)) {
            worker.deaf_until = self.now + Duration::seconds(self.luck.i64(2..40));
        }
        let luck = if self.happens(self.perils.away) {
            self.counts.add("database away", boundary);
            Luck::Away
        } else if self.happens(self.perils.answer_lost) {
            self.counts.add("answer lost", boundary);
            Luck::AnswerLost
        } else {
            Luck::Fine
        };
        // Sweeps are many, and mostly find nothing.
        if luck != Luck::Fine || !matches!(actor.work, Work::Sweep(_)) {
            self.tell(|| format!("{boundary}: {luck:?}"));
        }
        let led = actor.step(self, luck)?;
        self.check()?;
        if self.happens(self.perils.killed) {
            self.counts.add("killed after", boundary);
            self.tell(|| format!("killed after: {boundary}"));
            return Ok(true);
        }
        match led {
            Led::On => self.actors.insert(chosen.min(self.actors.len()), actor),
            Led::Wait(until) => {
                actor.wakes_at = until;
                self.actors.insert(chosen.min(self.actors.len()), actor);
            }
            Led::Failed => self.counts.add("handlers", "failed"),
            Led::Done => {
                self.counts.add("handlers", "done");
                let acknowledged = !self.happens(self.perils.answer_lost);
                self.queue.retain(|it| Some(it.id) != actor.message || !acknowledged);
            }
        }
        Ok(true)
    }

    fn is_ready(&self, at: usize) -> bool {
        let actor = &self.actors[at];
        actor.frozen_until.is_none() && actor.wakes_at <= self.now
    }

    fn freeze(&self, actor: &mut Actor, minutes: i64) {
        actor.frozen_until = Some(self.now + Duration::minutes(minutes));
        if actor.clock_stops {
            actor.stood_still += Duration::minutes(minutes);
        }
    }

    fn thaw(&mut self) {
        let now = self.now;
        for actor in self.actors.iter_mut().filter(|actor| actor.frozen_until.is_some_and(|until| until <= now)) {
            actor.frozen_until = None;
            self.counts.add("functions", "thawed");
            // Whatever it does first: its pulse, or a send with what it knew before.
            if let (Work::Pay(worker), true) = (&mut actor.work, self.luck.bool()) {
                worker.oversleeps(now);
            }
        }
    }

    /// Every worker that is not frozen keeps its lease meanwhile.
    fn pulse(&mut self) {
        let mut actors = std::mem::take(&mut self.actors);
        for actor in actors.iter_mut().filter(|actor| actor.frozen_until.is_none()) {
            let monotonic = actor.monotonic(self.now);
            if let Work::Pay(worker) = &mut actor.work {
                worker.pulse(self, monotonic);
            }
        }
        self.actors = actors;
    }

    /// Hands out messages: at most five functions at once, each message to one, unless the queue delivers twice.
    fn receive(&mut self) {
        let now = self.now;
        let busy = self.actors.iter().filter(|actor| actor.frozen_until.is_none()).count();
        if busy >= 5 || self.queue.is_empty() {
            return;
        }
        let Some(at) = self.queue.iter().position(|it| it.visible_at <= now) else { return };
        let twice = self.happens(self.perils.doubled / 4);
        let it = &mut self.queue[at];
        it.receives += 1;
        if it.receives > MAX_RECEIVES {
            self.queue.remove(at);
            self.counts.add("queue", "dead letters");
            return;
        }
        it.visible_at = if twice { now } else { now + Duration::seconds(960) };
        let (id, message) = (it.id, it.message);
        let lease = self.number();
        let work = match message {
            Message::CreateBatch { run_id } => Work::Create(Creator::new(run_id)),
            Message::ProcessChunk { chunk_id } => Work::Pay(Box::new(Worker::new(chunk_id, lease, now))),
            // Nobody withdraws here, and nobody is told.
            Message::Withdraw { .. } | Message::Notification { .. } => return,
        };
        let skew = Duration::seconds(if self.perils.skew_seconds > 0 {
            self.luck.i64(-self.perils.skew_seconds..=self.perils.skew_seconds)
        } else {
            0
        });
        self.actors.push(Actor::new(work, Some(id), skew, now));
    }
}
