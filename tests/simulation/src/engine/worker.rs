//! A worker on a chunk: what `pay` and `calls` do, a commit or a call at a time. It keeps its lease by a pulse, stops when told
//! to, looks at the deadline right before each send, and saves answers in waves.

use std::collections::{HashMap, HashSet};

use chrono::Duration;
use payday::id::{ChunkId, ItemId};
use payday::payouts::plan::{self, Answer, Call, CallKind, Lookup, Said, Situation};
use payday::payouts::settle::{self, Consequence};
use payday::rails::stripe::Found;
use payday::rails::{Leg, Outcome, Refusal, read_answer};

use super::{Led, Luck};
use crate::deeds::{Deed, Turn};
use crate::planted::Planted;
use crate::stripe::{Kind, Listed, Request};
use crate::tables::chunks::Claim;
use crate::tables::{Breach, Time};
use crate::world::World;

const LEASE: Duration = Duration::seconds(5);
const LEASE_DOUBT: Duration = Duration::seconds(4);
const PULSE: Duration = Duration::milliseconds(400);
const TIME_TO_FINISH: Duration = Duration::seconds(45);
/// A function's life.
const LIFE: Duration = Duration::seconds(900);

pub struct Worker {
    chunk: ChunkId,
    lease: u64,
    claim: Option<Claim>,
    phase: Phase,
    stop: bool,
    slowed: bool,
    confirmed_at: Option<Time>,
    pulsed_at: Time,
    /// Its database does not answer the pulse until then.
    pub deaf_until: Time,
    until: Option<Time>,
    in_flight: HashSet<ItemId>,
    /// Calls still to be made, each with its slot.
    calls: Vec<(Time, Call)>,
    /// Answers on their way.
    arriving: Vec<(Time, ItemId, Answer)>,
    answers: HashMap<ItemId, Answer>,
    consequences: Vec<(ItemId, Consequence)>,
    more_due: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Claim,
    Plan,
    Follow,
    Calls,
    Release,
}

impl Worker {
    pub fn new(chunk: ChunkId, lease: u64, now: Time) -> Self {
        Self {
            chunk,
            lease,
            claim: None,
            phase: Phase::Claim,
            stop: false,
            slowed: false,
            confirmed_at: None,
            pulsed_at: now,
            deaf_until: now,
            until: None,
            in_flight: HashSet::new(),
            calls: Vec::new(),
            arriving: Vec::new(),
            answers: HashMap::new(),
            consequences: Vec::new(),
            more_due: false,
        }
    }

    pub fn boundary(&self) -> &'static str {
        match self.phase {
            Phase::Claim => "claim chunk",
            Phase::Plan => "save replies and dispatch",
            Phase::Follow => "tell others",
            Phase::Calls => "call stripe",
            Phase::Release => "release chunk",
        }
    }

    /// Keeps the lease and the orders current, as the pulse beside the work does.
    pub fn pulse(&mut self, world: &mut World, monotonic: Time) {
        let beats = self.claim.is_some() && self.phase != Phase::Release;
        if !beats || world.now - self.pulsed_at < PULSE || world.now < self.deaf_until {
            return;
        }
        self.pulsed_at = world.now;
        let came = world.tables.pulse(self.chunk, self.lease, LEASE, world.now);
        world.did(|| Deed::Pulse { chunk: self.chunk, lease: self.lease, came });
        match came {
            Some(pulse) => {
                self.confirmed_at = Some(monotonic);
                self.stop |= pulse.stopped;
                self.slowed = pulse.slowed;
            }
            None => self.stop = true,
        }
    }

    /// The process thawed, and the next thing it does is not the pulse.
    pub fn oversleeps(&mut self, now: Time) {
        self.pulsed_at = now;
    }

    fn must_stop(&self, monotonic: Time) -> bool {
        self.stop || self.confirmed_at.is_some_and(|at| monotonic - at > LEASE_DOUBT)
    }

    fn has_time(&self, monotonic: Time) -> bool {
        self.until.is_none_or(|until| monotonic + TIME_TO_FINISH < until)
    }

    pub fn step(&mut self, world: &mut World, luck: Luck, now: Time, monotonic: Time) -> Result<Led, Breach> {
        let until = *self.until.get_or_insert(monotonic + LIFE);
        if monotonic > until {
            return Ok(Led::Failed);
        }
        match self.phase {
            Phase::Claim => Ok(self.claim(world, luck, monotonic)),
            Phase::Plan => self.settle_and_dispatch(world, luck, now, monotonic),
            Phase::Follow => {
                if luck != Luck::Away {
                    self.tell_others(world);
                }
                self.consequences.clear();
                self.phase = Phase::Calls;
                Ok(Led::On)
            }
            Phase::Calls => self.call(world, now, monotonic),
            Phase::Release => {
                if luck == Luck::Away {
                    return Ok(Led::Failed);
                }
                let came = world.tables.release(self.chunk, self.lease);
                world.did(|| Deed::Release { chunk: self.chunk, lease: self.lease, came });
                Ok(if luck == Luck::Fine { Led::Done } else { Led::Failed })
            }
        }
    }

    fn claim(&mut self, world: &mut World, luck: Luck, monotonic: Time) -> Led {
        if luck == Luck::Away {
            return Led::Failed;
        }
        let came = world.tables.claim(self.chunk, self.lease, LEASE, world.now);
        world.did(|| Deed::Claim { chunk: self.chunk, lease: self.lease, came: came.clone() });
        let Some(claim) = came else { return Led::Done };
        if luck == Luck::AnswerLost {
            return Led::Failed;
        }
        self.stop = claim.stopped || claim.halt_reason.is_some_and(|reason| reason != "awaiting_funds");
        self.claim = Some(claim);
        self.confirmed_at = Some(monotonic);
        self.pulsed_at = world.now;
        self.phase = Phase::Plan;
        Led::On
    }

    /// One commit: saves the answers and dispatches what may go next. Without an answer everything is read again.
    fn settle_and_dispatch(&mut self, world: &mut World, luck: Luck, now: Time, monotonic: Time) -> Result<Led, Breach> {
        let Some(claim) = self.claim.clone() else { return Ok(Led::Failed) };
        if luck == Luck::Away {
            return Ok(Led::Wait(world.now + Duration::milliseconds(500)));
        }
        let mut named: Vec<ItemId> = self.answers.keys().copied().collect();
        named.sort_unstable();
        let loaded = world.tables.load_due(self.chunk, now, &named);
        let before = loaded.clone();
        let instance = world.tables.instance.clone();
        let sending = world.settings.sending.clone();
        let situation = Situation {
            instance: &instance,
            sending: &sending,
            now,
            may_dispatch: !self.must_stop(monotonic) && self.has_time(monotonic),
            halted_for_funds: claim.halt_reason == Some("awaiting_funds"),
        };
        let mut plan = plan::settle(loaded, &self.answers, &self.in_flight, &situation)?;
        let asked = plan.asked_again();
        let rechecks = world.tables.recheck(&asked, &world.settings.policy, now);
        let decided = plan.decide(rechecks.clone(), &situation)?;
        let canceled = decided.canceled;
        world.tables.exclude(claim.run, &canceled);
        let mut calls: Vec<(Time, Call)> = decided.lookups.into_iter().map(|call| (world.now, call)).collect();
        let (transfers, payouts): (Vec<_>, Vec<_>) = decided.sends.into_iter().partition(|due| due.leg == Leg::Transfer);
        for (leg, sends) in [(Leg::Transfer, transfers), (Leg::Payout, payouts)] {
            let rate = if leg == Leg::Transfer { sending.rate_transfers } else { sending.rate_payouts };
            let (mut wait, gap) = match sends.len() {
                0 => continue,
                _ if rate == 0 && !self.slowed => (Duration::zero(), Duration::zero()),
                count => world.tables.reserve_slots(leg, count, rate, world.now),
            };
            for due in sends {
                let call = plan.prepare(due, wait.to_std().unwrap_or_default(), &situation)?;
                calls.push((world.now + wait, call));
                wait += gap;
            }
        }
        world.save(&plan.wave)?;
        let wave = std::mem::take(&mut plan.wave);
        world.did(|| {
            let (chunk, batch) = (self.chunk, claim.batch);
            Deed::Turn(Box::new(Turn { chunk, batch, now, named, loaded: before, asked, rechecks, canceled, wave }))
        });
        self.alert(world, &plan.consequences);
        if luck == Luck::AnswerLost {
            return Ok(Led::On);
        }
        for (item, _) in self.answers.drain() {
            self.in_flight.remove(&item);
        }
        self.in_flight.extend(calls.iter().map(|(_, call)| call.item));
        self.calls.extend(calls);
        self.more_due = plan.more_due;
        let contradicts = |(_, it): &&(ItemId, Consequence)| *it == Consequence::Contradiction;
        if let Some((item, _)) = plan.consequences.iter().find(contradicts).filter(|_| !world.stripe.has_lied()) {
            let detail = format!("{:?}", world.tables.item(*item));
            return Err(Breach::new("nothing contradicts itself unless Stripe lied", detail));
        }
        self.follow(std::mem::take(&mut plan.consequences));
        Ok(Led::On)
    }

    fn follow(&mut self, consequences: Vec<(ItemId, Consequence)>) {
        let any = |wanted: Consequence| consequences.iter().any(|(_, it)| *it == wanted);
        let halts = [
            (Consequence::Contradiction, "frozen_operation"),
            (Consequence::KeyRefused, "stripe_key_rejected"),
            (Consequence::OutOfFunds, "awaiting_funds"),
        ];
        if let Some((consequence, reason)) = halts.into_iter().find(|(consequence, _)| any(*consequence)) {
            if let Some(claim) = &mut self.claim {
                claim.halt_reason = Some(reason);
            }
            self.stop |= consequence != Consequence::OutOfFunds;
        }
        self.slowed |= any(Consequence::SlowDown(Leg::Transfer)) || any(Consequence::SlowDown(Leg::Payout));
        self.phase = if consequences.is_empty() { Phase::Calls } else { Phase::Follow };
        self.consequences = consequences;
    }

    /// Within the commit that saves the answers.
    fn alert(&self, world: &mut World, consequences: &[(ItemId, Consequence)]) {
        for (item, _) in consequences.iter().filter(|(_, it)| *it == Consequence::PageSomeone) {
            world.tables.outbox.insert(format!("page:item:{item}"));
        }
        if consequences.iter().any(|(_, it)| *it == Consequence::Contradiction) {
            self.halt(world, "frozen_operation");
        }
    }

    fn tell_others(&self, world: &mut World) {
        for (item, consequence) in &self.consequences {
            match consequence {
                Consequence::SlowDown(leg) => world.tables.slow_down(*leg, world.now),
                Consequence::BlockPayee => {
                    let (item, reason) = (*item, "Stripe does not know the account");
                    world.tables.block_payee_of(item, reason);
                    world.did(|| Deed::Block { item, reason });
                }
                _ => {}
            }
        }
        let any = |wanted: Consequence| self.consequences.iter().any(|(_, it)| *it == wanted);
        if any(Consequence::KeyRefused) {
            self.halt(world, "stripe_key_rejected");
        } else if any(Consequence::OutOfFunds) {
            self.halt(world, "awaiting_funds");
        }
    }

    fn halt(&self, world: &mut World, reason: &'static str) {
        let Some(claim) = &self.claim else { return };
        let halted = match reason {
            "stripe_key_rejected" => world.tables.halt_all(reason),
            _ => world.tables.halt(claim.batch, reason),
        };
        world.did(|| match reason {
            "stripe_key_rejected" => Deed::HaltAll { reason },
            _ => Deed::Halt { batch: claim.batch, reason, came: halted },
        });
        if halted {
            world.counts.add("halted", reason);
            world.tables.outbox.insert(format!("halted:{reason}:{}:{}", claim.run, world.now.timestamp()));
        }
    }

    /// Makes one call, or takes the answers that have arrived, or waits for what comes first.
    fn call(&mut self, world: &mut World, now: Time, monotonic: Time) -> Result<Led, Breach> {
        let arrived = self.arriving.iter().any(|(at, _, _)| *at <= world.now);
        let stops = self.must_stop(monotonic);
        let has_place = self.arriving.len() < world.settings.sending.sends_per_worker;
        let ready = self.calls.iter().position(|(at, _)| *at <= world.now || stops).filter(|_| has_place);
        match ready {
            Some(place) if !arrived || world.luck.bool() => {
                let (_, call) = self.calls.remove(place);
                let (item, answer, took) = self.make(world, call, now, monotonic)?;
                self.arriving.push((world.now + took, item, answer));
                return Ok(Led::On);
            }
            _ if arrived => {
                let (there, coming) = std::mem::take(&mut self.arriving).into_iter().partition(|(at, _, _)| *at <= world.now);
                self.arriving = coming;
                let there: Vec<(Time, ItemId, Answer)> = there;
                self.answers.extend(there.into_iter().map(|(_, item, answer)| (item, answer)));
                self.phase = Phase::Plan;
                return Ok(Led::On);
            }
            _ => {}
        }
        let slots = self.calls.iter().filter(|_| has_place).map(|(at, _)| *at);
        if let Some(next) = self.arriving.iter().map(|(at, _, _)| *at).chain(slots).min() {
            return Ok(Led::Wait(next));
        }
        self.phase = if self.more_due && !stops && self.has_time(monotonic) { Phase::Plan } else { Phase::Release };
        Ok(Led::On)
    }

    /// Looks at the orders and the deadline, and only then sends.
    fn make(&mut self, world: &mut World, call: Call, now: Time, monotonic: Time) -> Result<(ItemId, Answer, Duration), Breach> {
        let kind = if call.send.leg == Leg::Transfer { Kind::Transfer } else { Kind::Payout };
        match call.kind {
            CallKind::Send { asked, key, body, in_doubt, wait: _, deadline } => {
                if self.must_stop(monotonic) || now >= deadline {
                    world.counts.add("sends", "stopped before the write");
                    let said = Said::Reply(settle::not_sent(in_doubt));
                    return Ok((call.item, Answer { of: call.send, said }, Duration::zero()));
                }
                let key =
                    if world.planted == Some(Planted::FreshKeyPerSend) { format!("{key}:{}", world.luck.u32(..)) } else { key };
                let account = (kind == Kind::Payout).then(|| asked.account.clone());
                let request = Request { kind, account, key, body };
                let (answer, took) = world.post(&request)?;
                let mut reply = read_answer(&asked, answer, in_doubt);
                if world.planted == Some(Planted::TimeoutIsRefusal) && matches!(reply.outcome, Outcome::Unknown { .. }) {
                    reply.outcome = Outcome::Rejected(Refusal::Other);
                }
                world.count_reply(&reply, in_doubt);
                self.stop |= settle::halts(&reply);
                Ok((call.item, Answer { of: call.send, said: Said::Reply(reply) }, took))
            }
            CallKind::LookUp { since } => {
                let since = since - Duration::minutes(5);
                let lookup = match world.stripe.list(world.now, kind, &call.account, &call.operation_mark, since) {
                    Listed::Object(object) => Lookup::Found(Found {
                        stripe_id: object.id.clone(),
                        amount_minor: object.amount,
                        currency: object.currency.clone(),
                        status: (kind == Kind::Payout).then(|| object.status.to_owned()),
                        arrival_date: None,
                        reversed_minor: object.reversed,
                    }),
                    Listed::Nothing => Lookup::Nothing,
                    Listed::NoAccount => Lookup::NoAccount,
                    Listed::Unanswered => Lookup::Unanswered,
                };
                world.counts.add(
                    "lookups",
                    match &lookup {
                        Lookup::Found(_) => "found",
                        Lookup::Nothing => "nothing",
                        Lookup::NoAccount => "no account",
                        Lookup::Unanswered => "unanswered",
                    },
                );
                Ok((call.item, Answer { of: call.send, said: Said::Lookup(lookup) }, Duration::milliseconds(300)))
            }
        }
    }
}
