//! How a history ends: the faults stop, the system recovers by its own means, and everybody who can be paid is.

use chrono::{Datelike, Duration, NaiveDate};
use payday::clock::Schedule;
use payday::ledger::Account;
use payday::payouts::item::Status;
use payday::payouts::operation::State;

use super::World;
use crate::checks::{self, is_at_rest};
use crate::engine::Actor;
use crate::engine::Work;
use crate::engine::sweeper::Sweeper;
use crate::history::{History, Perils, due_at};
use crate::oracle::Oracle;
use crate::stripe::events::What;
use crate::stripe::{BankHabits, Kind};
use crate::tables::{Breach, CURRENCIES, ItemRow, OperationRow, Time, coin, payee_number};

/// The longest that the engine waits before it looks again at what is in doubt: an hour, and then the cooling time.
const LONGEST_WAIT: Duration = Duration::minutes(80);

/// What a payee should have got at the end, minor units.
struct Expected {
    payee: usize,
    code: &'static str,
    at_least: i64,
}

impl World {
    pub(super) fn end(&mut self, history: &History) -> Result<(), Breach> {
        self.calm();
        self.advance(self.now + Duration::seconds(30))?;
        self.recover()?;
        // Days for funds to pend, banks to decide, holds to end and cool-offs to pass.
        for _ in 0..12 {
            self.advance(self.now + Duration::hours(24))?;
            self.mature(self.now)?;
            self.sweep()?;
        }
        for row in &self.tables.items {
            if !is_at_rest(&self.tables, row) {
                return Err(Breach::new("every item is settled or waits for a person", describe(self, row)));
            }
        }
        self.accounts_are_known()?;
        let expected = self.last_cycles(history)?;
        self.check_all()?;
        self.books_agree()?;
        self.everybody_is_paid(&expected)
    }

    /// The faults stop and there is money. What never came of accounts is told once more.
    fn calm(&mut self) {
        self.perils = Perils::default();
        self.stripe.weather.clear();
        self.stripe.bank = BankHabits { days: 2, fails_per_mille: 0, returns_per_mille: 0 };
        (self.tables.paused, self.tables.killed) = (false, false);
        self.controlled();
        for code in CURRENCIES {
            *self.stripe.platform.entry(code.to_owned()).or_default() += 1_000_000_000;
        }
        self.now += Duration::seconds(2);
        if self.counts.of("webhooks", "never") == 0 {
            return;
        }
        let accounts: Vec<_> = self.stripe.accounts.values().map(|account| (account.described.clone(), account.gone)).collect();
        for (described, gone) in accounts {
            let what = if gone { What::Deauthorized(described.id) } else { What::AccountUpdated(described) };
            self.stripe.tell(self.now, what);
        }
    }

    fn sweep(&mut self) -> Result<(), Breach> {
        self.actors.push(Actor::new(Work::Sweep(Box::new(Sweeper::sweep())), None, Duration::zero(), self.now));
        self.run(2_000)
    }

    /// Two sweeps, far enough apart for every wait that the engine sets for itself: after them every item is settled, or waits
    /// for somebody with a reason. The second time the day is over for which Stripe remembers errors.
    fn recover(&mut self) -> Result<(), Breach> {
        for after_sweeps in ["two sweeps bring everything to its end", "two sweeps a day later leave nothing in doubt"] {
            self.sweep()?;
            self.advance(self.now + LONGEST_WAIT)?;
            self.sweep()?;
            let in_doubt_is_fine = after_sweeps.ends_with("its end");
            for row in &self.tables.items {
                let waits = self.waits_for_stripe(row) || in_doubt_is_fine && self.is_remembered_as_refused(row);
                if !is_at_rest(&self.tables, row) && !waits {
                    return Err(Breach::new(after_sweeps, describe(self, row)));
                }
            }
            self.advance(self.now + Duration::hours(24))?;
        }
        Ok(())
    }

    /// Its money has arrived and Stripe does not pay it out yet: asked again within six hours.
    fn waits_for_stripe(&self, row: &ItemRow) -> bool {
        row.item.status == Status::AwaitingAvailable
            && row.failure_code.as_deref() == Some("balance_insufficient")
            && row.due_at.is_some_and(|due| due <= self.now + Duration::hours(6))
    }

    /// Stripe answers the attempt's key with the error that it stored, which proves nothing of an earlier send. What became of it is
    /// asked once more when the time of keys is over.
    fn is_remembered_as_refused(&self, row: &ItemRow) -> bool {
        let in_doubt = self.tables.latest(row).filter(|latest| latest.state == State::Unknown);
        in_doubt.is_some_and(|latest| self.stripe.remembers_refusal(&latest.key, self.now)) && row.due_at.is_some()
    }

    /// What we know of an account is what Stripe says of it, in whatever order it was told.
    fn accounts_are_known(&self) -> Result<(), Breach> {
        for row in self.tables.payees.iter().filter_map(|payee| payee.account.as_ref()) {
            let Some(account) = self.stripe.accounts.get(&row.account) else { continue };
            let said = &account.described;
            let same = (row.transfers_active, row.payouts_enabled, row.past_due, row.destination.as_deref())
                == (said.transfers_active, said.payouts_enabled, said.past_due, Some(said.bank.as_str()));
            if account.gone != row.deauthorized_at.is_some() || !account.gone && !same {
                return Err(Breach::new("accounts are known as they are", format!("{row:?} is {account:?}")));
            }
        }
        Ok(())
    }

    /// One more cycle of each schedule, without faults. Returns what everybody who can be paid should have after it.
    fn last_cycles(&mut self, history: &History) -> Result<Vec<Expected>, Breach> {
        let mut expected = Vec::new();
        let mut done: Vec<Schedule> = Vec::new();
        let mut day = self.now.date_naive() + Duration::days(1);
        while done.len() < 3 {
            for schedule in [Schedule::Semimonthly, Schedule::Monthly, Schedule::Weekly] {
                if !is_due(schedule, day) || done.contains(&schedule) {
                    continue;
                }
                let at = due_at(day, history.zone, history.hour);
                self.advance(at + Duration::seconds(1))?;
                expected.extend(self.expect(schedule, at));
                self.fire(schedule, day, history)?;
                self.run(2_000)?;
                done.push(schedule);
            }
            day += Duration::days(1);
        }
        for _ in 0..8 {
            self.advance(self.now + Duration::hours(24))?;
            self.sweep()?;
        }
        Ok(expected)
    }

    /// Who should be paid how much in a cycle that is about to run: those against whom nothing stands, as far as the world
    /// knows. Whether something else waits to be settled first only the items tell.
    fn expect(&self, schedule: Schedule, cutoff: Time) -> Vec<Expected> {
        let mut expected = Vec::new();
        for (payee, facts) in self.tables.payees.iter().enumerate() {
            let Some(account) = facts.account.as_ref().filter(|_| facts.enabled && facts.blocked_reason.is_none()) else {
                continue;
            };
            let able = self.stripe.accounts.get(&account.account).is_some_and(|it| {
                let said = &it.described;
                !it.gone && said.transfers_active && said.payouts_enabled && !said.past_due
            });
            // What Stripe pays out by itself is not ours to pay.
            let by_itself = !account.manual && self.tables.earnings.iter().any(|it| it.payee == payee && it.connected);
            if !able || facts.schedule != schedule || by_itself {
                continue;
            }
            for (of, code) in CURRENCIES.into_iter().enumerate() {
                let waits = |row: &ItemRow| {
                    (payee_number(row.item.payee), coin(&row.item.currency.code())) == (payee, of)
                        && !matches!(row.item.status, Status::Paid | Status::Canceled | Status::InTransit | Status::Failed)
                };
                let blocked = self.tables.balance(payee, of)[Account::AtStripe as usize] < 0;
                if blocked || self.tables.items.iter().any(waits) {
                    continue;
                }
                let policy = &self.settings.policy;
                let payable = self.oracle.still_payable(payee, code, cutoff, policy.reserve.0, &self.stripe.objects);
                let threshold = policy.thresholds_minor.get(code).copied().unwrap_or(0);
                if payable >= Oracle::least(code, facts.minimum, threshold) {
                    let got = self.oracle.got_minor(payee, code, &self.stripe.objects);
                    expected.push(Expected { payee, code, at_least: got + payable });
                }
            }
        }
        expected
    }

    /// What Stripe has and what the attempts say is the same, once all news have come.
    fn books_agree(&mut self) -> Result<(), Breach> {
        if self.counts.of("webhooks", "never") > 0 {
            return Ok(());
        }
        for it in &self.tables.operations {
            let Some(id) = &it.stripe_id else { continue };
            let Some(object) = self.stripe.objects.iter().find(|object| object.id == *id) else { continue };
            let waits_for_a_person = self.tables.item(it.item).is_some_and(|row| row.item.status == Status::NeedsReview);
            // News of a frozen attempt wait for the person who decides about it.
            let reversed = object.kind == Kind::Transfer && object.reversed != it.reversed_minor && it.state != State::Frozen;
            let returned =
                object.kind == Kind::Payout && it.state == State::Accepted && object.live() == 0 && !waits_for_a_person;
            if reversed || returned {
                return Err(Breach::new("Stripe's sums are the ledger's", format!("{it:?} against {object:?}")));
            }
        }
        Ok(())
    }

    /// Nobody has less than they should without a reason: a payout that a bank sent back, or one that waits for a person.
    fn everybody_is_paid(&self, expected: &[Expected]) -> Result<(), Breach> {
        if self.counts.of("webhooks", "never") > 0 {
            return Ok(());
        }
        for Expected { payee, code, at_least } in expected {
            let got = self.oracle.got_minor(*payee, code, &self.stripe.objects);
            let explained = self.tables.items.iter().any(|row| {
                (payee_number(row.item.payee), coin(&row.item.currency.code())) == (*payee, coin(code))
                    && matches!(row.item.status, Status::PayoutBlocked | Status::Returned | Status::NeedsReview)
            });
            if got < *at_least && !explained {
                let balance = self.tables.balance(*payee, coin(code));
                let detail = format!("payee {payee} has got {got} {code} and should have {at_least}; balance {balance:?}");
                return Err(Breach::new("everybody eligible has all of their money", detail));
            }
        }
        Ok(())
    }

    /// A hash of all rows, to compare two runs of a seed.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        let tables = &self.tables;
        // The order of the metadata in a body is any, once.
        let operations: Vec<OperationRow> =
            tables.operations.iter().map(|it| OperationRow { body: String::new(), ..it.clone() }).collect();
        format!("{:?}{operations:?}{:?}{:?}", tables.items, tables.exclusions, tables.outbox).hash(&mut hash);
        tables.balances.hash(&mut hash);
        format!("{:?}", self.stripe.objects).hash(&mut hash);
        hash.finish()
    }
}

fn is_due(schedule: Schedule, day: NaiveDate) -> bool {
    match schedule {
        Schedule::Semimonthly => matches!(day.day(), 1 | 15),
        Schedule::Monthly => day.day() == 1,
        Schedule::Weekly => day.weekday().num_days_from_monday() == 0,
        Schedule::Manual => false,
    }
}

fn describe(world: &World, row: &ItemRow) -> String {
    let latest = world.tables.latest(row);
    let batch = world.tables.batch_of(row);
    format!("at {}: {row:?}\n  {latest:?}\n  {batch:?}\n  {:?}", world.now, latest.map(|it| checks::mark(&world.tables, it)))
}
