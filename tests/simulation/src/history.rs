//! A history: who is there, and an explicit list of what happens when. Each step brings its own seed for the choices inside it,
//! so that a step means the same when others are taken away.

use std::fmt;

use chrono::{DateTime, Datelike, Duration, NaiveDate, TimeZone, Timelike, Utc};
use chrono_tz::Tz;
use fastrand::Rng;
use payday::clock::Schedule;

use crate::stripe::trouble::{Mishap, Trouble};
use crate::tables::Coin;

type Time = DateTime<Utc>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub seed: u64,
    pub begins_at: Time,
    pub zone: Tz,
    pub hour: u32,
    pub people: Vec<Person>,
    pub rules: Rules,
    pub perils: Perils,
    pub steps: Vec<Step>,
}

/// A payee at the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub schedule: Schedule,
    pub minimum: i64,
    pub has_account: bool,
    pub manual: bool,
    pub pends_hours: i64,
    pub coins: Vec<Coin>,
}

/// Settings that do not change the money owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub chunk_size: usize,
    pub sends_per_worker: usize,
    pub rate: i64,
    pub threshold_usd: i64,
    pub reserve_ppm: i64,
    pub hold_days: i64,
}

/// How many of a thousand steps of a function, or deliveries, meet which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Perils {
    pub killed: u32,
    pub frozen: u32,
    pub away: u32,
    pub answer_lost: u32,
    pub message_lost: u32,
    pub doubled: u32,
    pub late: u32,
    pub never: u32,
    pub skew_seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Seconds after the beginning.
    pub at: i64,
    pub act: Act,
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Something is earned on the platform.
    Earn {
        person: usize,
        coin: Coin,
        minor: i64,
        charge: bool,
    },
    /// A fan pays by a destination charge.
    Charge {
        person: usize,
        coin: Coin,
        minor: i64,
    },
    /// A dispute or refund claims a part of the n-th charge.
    TakeBack {
        charge: usize,
        per_mille: i64,
        dispute: bool,
    },
    Fund {
        coin: Coin,
        minor: i64,
    },
    Fire {
        schedule: Schedule,
        cycle_on: NaiveDate,
    },
    Mature,
    Sweep,
    Retry,
    Press(Button),
    Account {
        person: usize,
        change: Change,
    },
    Trouble {
        trouble: Trouble,
        minutes: i64,
    },
    /// Somebody at Stripe takes back a part of the n-th transfer.
    Reverse {
        transfer: usize,
        per_mille: i64,
    },
    Bank {
        fails_per_mille: u32,
        returns_per_mille: u32,
    },
    Rules(Rules),
    /// All that runs stands still.
    Freeze {
        minutes: i64,
        clock_stops: bool,
    },
    /// Functions run for so many steps.
    Run {
        steps: u32,
    },
}

/// What an operator presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    Pause,
    Kill,
    Resume,
    RetryFailed,
}

/// What changes about a payee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Connects an account, or another one.
    Onboard,
    Restrict,
    Restore,
    BankRefuses,
    NewBank,
    /// Leaves the platform.
    Leave,
    Disable,
    Enable,
    Schedule(Schedule),
    Unblock,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.at / 86_400, self.at % 86_400);
        write!(f, "day {days:>3} {:02}:{:02}:{:02}  {:?}", rest / 3_600, rest / 60 % 60, rest % 60, self.act)
    }
}

const ZONES: [Tz; 6] =
    [Tz::UTC, Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Pacific__Apia, Tz::America__Santiago];

/// The history of a seed.
pub fn of_seed(seed: u64) -> History {
    let mut rng = Rng::with_seed(seed);
    let month = rng.i64(0..24);
    let begins_at =
        Utc.with_ymd_and_hms(2026, 1, 2, 0, 0, 0).single().unwrap_or_default() + Duration::days(month * 30 + rng.i64(0..20));
    let people: Vec<Person> = (0..rng.usize(2..=8)).map(|_| person(&mut rng)).collect();
    let rules = rules(&mut rng);
    let wild = rng.u32(0..4);
    let perils = Perils {
        killed: wild * rng.u32(0..8),
        frozen: wild * rng.u32(0..3),
        away: wild * rng.u32(0..8),
        answer_lost: wild * rng.u32(0..8),
        message_lost: wild * rng.u32(0..60),
        doubled: wild * rng.u32(0..100),
        late: wild * rng.u32(0..100),
        never: if rng.u32(0..8) == 0 { 15 } else { 0 },
        skew_seconds: if wild > 0 { rng.i64(0..120) } else { 0 },
    };
    let zone = ZONES[rng.usize(..ZONES.len())];
    let hour = if rng.u32(0..4) == 0 { 2 } else { 6 };
    let mut history = History { seed, begins_at, zone, hour, people, rules, perils, steps: Vec::new() };
    Author { history: &mut history, rng }.write();
    history.steps.sort_by_key(|step| step.at);
    history
}

/// Somebody as anybody may be.
pub(crate) fn person(rng: &mut Rng) -> Person {
    let schedules = [Schedule::Semimonthly, Schedule::Semimonthly, Schedule::Weekly, Schedule::Monthly, Schedule::Manual];
    let coins = if rng.u32(0..3) == 0 {
        vec![rng.usize(0..5), rng.usize(0..5)]
    } else {
        vec![if rng.bool() { 4 } else { rng.usize(0..5) }]
    };
    Person {
        schedule: schedules[if rng.u32(0..12) == 0 { 4 } else { rng.usize(0..4) }],
        minimum: if rng.u32(0..4) == 0 { rng.i64(1..40) } else { 0 },
        has_account: rng.u32(0..10) > 0,
        manual: rng.u32(0..6) > 0,
        pends_hours: if rng.bool() { 0 } else { rng.i64(0..60) },
        coins,
    }
}

pub(crate) fn rules(rng: &mut Rng) -> Rules {
    Rules {
        chunk_size: [1, 2, 3, 25][rng.usize(0..4)],
        sends_per_worker: [1, 2, 5][rng.usize(0..3)],
        rate: [0, 1, 20][rng.usize(0..3)],
        threshold_usd: [0, 100, 1_000, 5_000][rng.usize(0..4)],
        reserve_ppm: if rng.u32(0..4) == 0 { 100_000 } else { 0 },
        hold_days: [1, 2, 7][rng.usize(0..3)],
    }
}

/// Writes the steps of a history.
struct Author<'a> {
    history: &'a mut History,
    rng: Rng,
}

const DAY: i64 = 86_400;

impl Author<'_> {
    fn step(&mut self, at: i64, act: Act) {
        let seed = self.rng.u64(..);
        self.history.steps.push(Step { at, act, seed });
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(..one_in) == 0
    }

    fn write(&mut self) {
        let days = if self.chance(5) { self.rng.i64(60..130) } else { self.rng.i64(18..50) };
        for day in 0..days {
            self.ordinary(day);
            if self.chance(3) {
                self.extraordinary(day);
            }
            self.cycles(day);
        }
        self.step(days * DAY, Act::Run { steps: 40 });
    }

    fn during(&mut self, day: i64) -> i64 {
        day * DAY + self.rng.i64(0..DAY)
    }

    fn someone(&mut self) -> (usize, Coin) {
        let person = self.rng.usize(..self.history.people.len());
        let coins = &self.history.people[person].coins;
        (person, coins[self.rng.usize(..coins.len())])
    }

    /// An amount that is ordinary in the currency, and now and then one that is just not a round one.
    fn amount(&mut self, coin: Coin) -> i64 {
        let ordinary = self.rng.i64(200..9_000);
        match coin {
            0 => ordinary * 10 + self.rng.i64(0..10),
            2 => ordinary * 40 + self.rng.i64(0..100),
            _ => ordinary,
        }
    }

    /// What every day brings.
    fn ordinary(&mut self, day: i64) {
        for _ in 0..self.rng.u32(0..3) {
            let at = self.during(day);
            let (person, coin) = self.someone();
            let (minor, charge) = (self.amount(coin), self.chance(3));
            self.step(at, Act::Earn { person, coin, minor, charge });
            let short = self.chance(12);
            self.step(at + 5, Act::Fund { coin, minor: if short { minor / 3 } else { minor } });
        }
        if self.chance(3) {
            let at = self.during(day);
            let (person, coin) = self.someone();
            let minor = self.amount(coin);
            self.step(at, Act::Charge { person, coin, minor });
        }
        if day % 2 == 0 {
            let at = self.during(day);
            let job = if self.chance(4) { Act::Retry } else { Act::Sweep };
            self.step(at, job);
        }
        if self.chance(3) {
            let at = self.during(day);
            self.step(at, Act::Mature);
        }
    }

    /// What a day rarely brings.
    fn extraordinary(&mut self, day: i64) {
        let at = self.during(day);
        let (person, coin) = self.someone();
        let act = match self.rng.u32(0..14) {
            0..=2 => Act::TakeBack {
                charge: self.rng.usize(..1_000),
                per_mille: [200, 500, 1_000][self.rng.usize(0..3)],
                dispute: self.rng.bool(),
            },
            3..=6 => Act::Account { person, change: self.change() },
            7 => Act::Reverse { transfer: self.rng.usize(..1_000), per_mille: [300, 1_000][self.rng.usize(0..2)] },
            8 => Act::Bank { fails_per_mille: self.rng.u32(0..300), returns_per_mille: self.rng.u32(0..300) },
            9 => Act::Rules(rules(&mut self.rng)),
            10 => Act::Fund { coin, minor: 20_000 },
            11 => Act::Press(Button::RetryFailed),
            _ => Act::Trouble { trouble: self.trouble(), minutes: self.lasting() },
        };
        let twice = matches!(act, Act::Press(_) | Act::Retry) && self.rng.bool();
        if twice {
            self.step(at, act.clone());
        }
        self.step(at, act);
    }

    fn change(&mut self) -> Change {
        match self.rng.u32(0..14) {
            0 | 1 => Change::Onboard,
            2 => Change::Restrict,
            3 => Change::Restore,
            4 | 5 => Change::BankRefuses,
            6..=8 => Change::NewBank,
            9 => Change::Leave,
            10 => Change::Disable,
            11 => Change::Enable,
            12 => Change::Schedule([Schedule::Semimonthly, Schedule::Weekly, Schedule::Monthly][self.rng.usize(0..3)]),
            _ => Change::Unblock,
        }
    }

    fn trouble(&mut self) -> Trouble {
        match self.rng.u32(0..12) {
            0 => Trouble::KeyRevoked,
            1 | 2 => Trouble::Outage,
            3 => Trouble::SlowLists(self.rng.i64(30..600)),
            // Stripe rarely lies; when it does, the batch stands still for a person and little else is seen.
            4 if self.chance(4) => Trouble::Flaky(Mishap::OtherAmount, 50),
            _ => {
                let honest = Mishap::ALL.len() - 1;
                Trouble::Flaky(Mishap::ALL[self.rng.usize(..honest)], self.rng.u32(100..900))
            }
        }
    }

    /// Minutes; now and then 26 hours.
    fn lasting(&mut self) -> i64 {
        if self.chance(6) { 26 * 60 } else { self.rng.i64(2..90) }
    }

    /// The cycles of a day, and what can happen around them.
    fn cycles(&mut self, day: i64) {
        let date = (self.history.begins_at + Duration::days(day)).date_naive();
        for schedule in [Schedule::Semimonthly, Schedule::Monthly, Schedule::Weekly] {
            let due = match schedule {
                Schedule::Semimonthly => matches!(date.day(), 1 | 15),
                Schedule::Monthly => date.day() == 1,
                _ => date.weekday().num_days_from_monday() == 0,
            };
            if due {
                self.cycle(schedule, date);
            }
        }
    }

    fn cycle(&mut self, schedule: Schedule, cycle_on: NaiveDate) {
        let at = (due_at(cycle_on, self.history.zone, self.history.hour) - self.history.begins_at).num_seconds();
        if self.chance(3) {
            let (trouble, minutes) = (self.trouble(), self.lasting());
            self.step(at - 60, Act::Trouble { trouble, minutes });
        }
        let (times, delay) = match self.rng.u32(0..20) {
            0 => (0, 0),
            1 => (10, 0),
            2 => (1, DAY),
            3 => (2, 0),
            _ => (1, 0),
        };
        for time in 0..times {
            self.step(at + delay + time * 7, Act::Fire { schedule, cycle_on });
        }
        let begun = at + delay + 2;
        let some = self.rng.u32(3..40);
        self.step(begun, Act::Run { steps: some });
        if self.chance(4) {
            // Stripe knows, and its news are under way while the chunks are.
            let (person, _) = self.someone();
            let change = [Change::Restrict, Change::Restrict, Change::Leave][self.rng.usize(0..3)];
            self.step(begun - 1, Act::Account { person, change });
            let after = if change == Change::Leave { Change::Onboard } else { Change::Restore };
            self.step(begun + DAY, Act::Account { person, change: after });
        }
        if self.chance(4) {
            let button = [Button::Pause, Button::Kill][self.rng.usize(0..2)];
            let until = self.rng.i64(10..7_200);
            self.step(begun + 1, Act::Press(button));
            self.step(begun + 1 + until, Act::Press(Button::Resume));
        }
        if self.chance(6) {
            let (minutes, clock_stops) = ([1, 20, 180, 1_500][self.rng.usize(0..4)], self.rng.bool());
            self.step(begun + 1, Act::Freeze { minutes, clock_stops });
        }
        if self.chance(5) {
            self.extraordinary(begun / DAY);
        }
        for after in [90, 400, 1_800, 4_000, 20_000, DAY - 7_000] {
            if !self.chance(4) {
                self.step(begun + after, Act::Sweep);
            }
        }
    }
}

/// When a cycle is due, by the scheduler's own rules: the hour in its zone; on a day that skips it, right after the gap.
pub fn due_at(date: NaiveDate, zone: Tz, hour: u32) -> Time {
    let mut local = date.and_hms_opt(hour, 0, 0).unwrap_or_default();
    loop {
        if let Some(instant) = zone.from_local_datetime(&local).earliest() {
            return instant.with_timezone(&Utc);
        }
        local += Duration::minutes(30);
        if local.hour() > hour + 3 {
            return Utc.from_utc_datetime(&local);
        }
    }
}
