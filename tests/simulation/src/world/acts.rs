//! What each step of a history does.

use chrono::Duration;
use payday::clock::Schedule;
use payday::earnings::{Kind as EarningKind, NewEarning, Place, Value};

use super::World;
use crate::deeds::Deed;
use crate::engine::sweeper::{Sweeper, retry_item};
use crate::engine::{Actor, Work, run_message};
use crate::history::{Act, Button, Change, History, Person};
use crate::oracle::unit;
use crate::stripe::accounts::Described;
use crate::stripe::events::What;
use crate::stripe::{BankHabits, Kind};
use crate::tables::{Breach, CURRENCIES, Coin, Payee, Time, currency, payee_id};

/// Steps that a job is given at once; what it has not done then goes on beside what follows.
const AT_ONCE: u32 = 80;

impl World {
    /// Enters a payee at the beginning.
    pub(super) fn enter(&mut self, person: &Person) {
        let number = self.tables.payees.len();
        self.tables.payees.push(Payee {
            enabled: true,
            schedule: person.schedule,
            minimum: person.minimum,
            blocked_reason: None,
            account: None,
        });
        self.did(|| Deed::Settle { payee: number, enabled: true, schedule: person.schedule, minimum: person.minimum });
        self.tables.balances.push([[0; 14]; CURRENCIES.len()]);
        if person.has_account {
            self.onboard(number, person);
        }
    }

    /// Connects a new account and tells us so.
    fn onboard(&mut self, payee: usize, person: &Person) {
        let id = format!("acct_{payee}_{}", self.number());
        let described = Described {
            id: id.clone(),
            transfers_active: true,
            payouts_enabled: true,
            past_due: false,
            manual: person.manual,
            bank: format!("bank of {id}"),
        };
        self.stripe.open(described.clone());
        if let Some(account) = self.stripe.accounts.get_mut(&id) {
            account.pends_hours = person.pends_hours;
        }
        self.oracle.account(&id, payee);
        self.tables.describe(payee, &described, self.now, self.now);
        let at = self.now;
        self.did(|| Deed::Describe { payee, said: described, at });
    }

    pub(super) fn act(&mut self, act: &Act, history: &History) -> Result<(), Breach> {
        match act {
            Act::Earn { person, coin, minor, charge } => self.earn(*person, *coin, *minor, *charge)?,
            Act::Charge { person, coin, minor } => self.charge(*person, *coin, *minor),
            Act::TakeBack { charge, per_mille, dispute } => self.take_back(*charge, *per_mille, *dispute),
            Act::Fund { coin, minor } => *self.stripe.platform.entry(CURRENCIES[*coin].to_owned()).or_default() += minor,
            Act::Fire { schedule, cycle_on } => self.fire(*schedule, *cycle_on, history)?,
            Act::Mature => self.mature(self.now)?,
            Act::Sweep => self.start(Sweeper::sweep())?,
            Act::Retry if self.tables.is_stopped() => {}
            Act::Retry => self.start(Sweeper::retry(self.tables.failed_items()))?,
            Act::Press(button) => self.press(*button)?,
            Act::Account { person, change } => self.change(*person, *change, history),
            Act::Trouble { trouble, minutes } => {
                self.counts.add("troubles", if *minutes > 1_000 { "26 hours" } else { "minutes" });
                self.stripe.weather.add(*trouble, self.now + Duration::minutes(*minutes));
            }
            Act::Reverse { transfer, per_mille } => self.reverse(*transfer, *per_mille),
            Act::Bank { fails_per_mille, returns_per_mille } => {
                let (fails_per_mille, returns_per_mille) = (*fails_per_mille, *returns_per_mille);
                self.stripe.bank = BankHabits { days: 3, fails_per_mille, returns_per_mille };
            }
            Act::Rules(rules) => self.obey(rules),
            Act::Freeze { minutes, clock_stops } => {
                let mut actors = std::mem::take(&mut self.actors);
                for actor in &mut actors {
                    actor.clock_stops = *clock_stops;
                    self.counts.add("frozen before", actor.boundary());
                    self.freeze(actor, *minutes);
                }
                self.actors = actors;
            }
            Act::Run { steps } => self.run(*steps)?,
        }
        self.check()
    }

    fn start(&mut self, job: Sweeper) -> Result<(), Breach> {
        self.actors.push(Actor::new(Work::Sweep(Box::new(job)), None, Duration::zero(), self.now));
        self.run(AT_ONCE)
    }

    fn earn(&mut self, person: usize, coin: Coin, minor: i64, charge: bool) -> Result<(), Breach> {
        let number = self.number();
        let charge_id = charge.then(|| format!("ch_{number}"));
        let fee_minor = self.luck.bool().then_some(minor / 7);
        let earning = NewEarning {
            source_id: format!("sale:{number}"),
            creator_id: payee_id(person),
            kind: EarningKind::Sale,
            value: Value::Amount { minor, fee_minor },
            currency: currency(coin),
            place: Place::Platform,
            charge_id: charge_id.clone(),
            occurred_at: self.now,
        };
        self.tables.record(&self.settings.policy, &earning)?;
        self.did(|| Deed::Record(earning));
        let gross = minor * unit(CURRENCIES[coin]);
        let fee = fee_minor.map_or(gross / 10, |fee| fee * unit(CURRENCIES[coin]));
        let available_at = self.now + Duration::days(self.settings.policy.hold_days);
        self.charges.extend(charge_id.clone().map(|id| (id, minor, CURRENCIES[coin])));
        self.oracle.earned(person, CURRENCIES[coin], gross, gross - fee, available_at, charge_id);
        self.counts.add("money", "earned on the platform");
        Ok(())
    }

    fn charge(&mut self, person: usize, coin: Coin, minor: i64) {
        let Some(row) = &self.tables.payees[person].account else { return };
        let (id, number, fee) = (row.account.clone(), self.number(), minor / 10);
        let Some(account) = self.stripe.accounts.get_mut(&id).filter(|account| !account.gone) else { return };
        account.credit(CURRENCIES[coin], minor - fee, self.now + Duration::hours(self.luck.i64(1..100)));
        self.counts.add("money", "charged for an account");
        let (intent, charge) = (format!("pi_{number}"), format!("ch_{number}"));
        self.charges.push((charge.clone(), minor, CURRENCIES[coin]));
        let what = What::Payment { intent, charge, account: id, amount: minor, fee, currency: CURRENCIES[coin].to_owned() };
        self.stripe.tell(self.now, what);
    }

    fn take_back(&mut self, nth: usize, per_mille: i64, dispute: bool) {
        if self.charges.is_empty() {
            return;
        }
        let nth = nth % self.charges.len();
        let (charge, minor, currency) = self.charges[nth].clone();
        let amount = (minor * per_mille / 1_000).max(1);
        let source = if dispute { format!("dispute:dp_{nth}") } else { format!("refund:{charge}") };
        self.counts.add("money", if dispute { "disputed" } else { "refunded" });
        self.stripe.tell(self.now, What::TakenBack { source, charge, amount, currency: currency.to_owned() });
    }

    /// A schedule fires: what `cycle::fired` does. Between the run's commit and its message the function may die.
    pub(super) fn fire(&mut self, schedule: Schedule, cycle_on: chrono::NaiveDate, history: &History) -> Result<(), Breach> {
        let scheduled = crate::history::due_at(cycle_on, history.zone, history.hour);
        self.oracle.cycle_due(scheduled);
        let calendar = self.settings.policy.calendar;
        let date = calendar.date_of(scheduled);
        if date != cycle_on || !schedule.is_due_on(date) || calendar.cutoff(date) != scheduled {
            return Err(Breach::new(
                "a cycle is on its date",
                format!("{cycle_on} was scheduled for {scheduled}, taken for {date}"),
            ));
        }
        self.counts.add("schedules", "fired");
        if self.tables.is_stopped() {
            return Ok(());
        }
        let (run, new) = self.tables.start_run(schedule, date, scheduled, self.now);
        self.did(|| Deed::StartRun { schedule, cycle_on: date, cutoff_at: scheduled, came: (run, new) });
        if !new {
            self.counts.add("schedules", "fired again");
        } else if !self.happens(self.perils.killed) {
            self.send(run_message(run));
        }
        Ok(())
    }

    fn press(&mut self, button: Button) -> Result<(), Breach> {
        self.counts.add(
            "buttons",
            match button {
                Button::Pause => "pause",
                Button::Kill => "kill",
                Button::Resume => "resume",
                Button::RetryFailed => "retry",
            },
        );
        match button {
            Button::Pause => self.tables.paused = true,
            Button::Kill => self.tables.killed = true,
            Button::Resume => (self.tables.paused, self.tables.killed) = (false, false),
            Button::RetryFailed => {
                for item in self.tables.failed_items() {
                    retry_item(self, item, self.now)?;
                }
            }
        }
        self.controlled();
        Ok(())
    }

    pub(super) fn controlled(&mut self) {
        let (paused, killed) = (self.tables.paused, self.tables.killed);
        self.did(|| Deed::Controls { paused, killed });
    }

    pub(super) fn mature(&mut self, through: Time) -> Result<(), Breach> {
        self.tables.mature(through)?;
        self.did(|| Deed::Mature(through));
        Ok(())
    }

    fn change(&mut self, person: usize, change: Change, history: &History) {
        let now = self.now;
        let payee = &mut self.tables.payees[person];
        match change {
            Change::Onboard => return self.onboard(person, &history.people[person]),
            Change::Disable => payee.enabled = false,
            Change::Enable => payee.enabled = true,
            Change::Schedule(schedule) => payee.schedule = schedule,
            Change::Unblock => payee.blocked_reason = None,
            Change::Restrict | Change::Restore | Change::BankRefuses | Change::NewBank | Change::Leave => {}
        }
        let (enabled, schedule, minimum) = (payee.enabled, payee.schedule, payee.minimum);
        let account = payee.account.as_ref().map(|row| row.account.clone());
        match change {
            Change::Unblock => self.did(|| Deed::Unblock { payee: person }),
            _ => self.did(|| Deed::Settle { payee: person, enabled, schedule, minimum }),
        }
        let Some(id) = account else { return };
        let bank = format!("bank {} of {id}", self.number());
        let roll = self.luck.u32(..3);
        let Some(account) = self.stripe.accounts.get_mut(&id) else { return };
        match change {
            Change::Restrict if roll == 0 => account.described.transfers_active = false,
            Change::Restrict if roll == 1 => account.described.payouts_enabled = false,
            Change::Restrict => account.described.past_due = true,
            Change::Restore => {
                let manual = account.described.manual;
                let described = Described {
                    transfers_active: true,
                    payouts_enabled: true,
                    past_due: false,
                    manual,
                    ..account.described.clone()
                };
                account.described = described;
            }
            Change::BankRefuses => account.bank_refuses = true,
            Change::NewBank => (account.described.bank, account.bank_refuses) = (bank, false),
            Change::Leave => account.gone = true,
            Change::Onboard | Change::Disable | Change::Enable | Change::Schedule(_) | Change::Unblock => return,
        }
        let described = account.described.clone();
        match change {
            Change::Leave => self.stripe.tell(now, What::Deauthorized(id)),
            Change::BankRefuses => {}
            Change::NewBank if roll == 0 => self.stripe.tell(now, What::ExternalAccount(id)),
            _ => self.stripe.tell(now, What::AccountUpdated(described)),
        }
    }

    fn reverse(&mut self, nth: usize, per_mille: i64) {
        let transfers: Vec<usize> =
            (0..self.stripe.objects.len()).filter(|at| self.stripe.objects[*at].kind == Kind::Transfer).collect();
        if transfers.is_empty() {
            return;
        }
        // Mostly the latest: those whose money is still there.
        let at = transfers[transfers.len() - 1 - nth % transfers.len().min(4)];
        let amount = (self.stripe.objects[at].amount * per_mille / 1_000).max(1);
        if self.stripe.reverse(self.now, at, amount) {
            self.counts.add("money", "transfers reversed");
        }
    }
}
