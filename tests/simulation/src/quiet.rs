//! Quiet histories: a single cycle, long past, in which nothing is lost and nobody dies. A test does the same with the real
//! binaries, whose clock no test can set.

use chrono::{Duration, NaiveDate};
use chrono_tz::Tz;
use fastrand::Rng;
use payday::clock::Schedule;

use crate::history::{self, Act, Change, History, Perils, Person, Rules, Step};
use crate::tables::CURRENCIES;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// So long after the beginning the cycle is due.
const CYCLE: i64 = 20 * DAY;
/// When those whose bank refuses have another one.
const NEW_BANKS: i64 = CYCLE + 5 * DAY;
/// Banks have decided, also about what goes out once more.
const SETTLED: i64 = CYCLE + 16 * DAY;

/// Within so long after a step its webhook has come: none crosses what happens later.
const APART: i64 = 60;

/// The 1st and the 15th of a month, Mondays and not: one, two or all three schedules are due.
const DATES: [(i32, u32, u32); 4] = [(2025, 9, 1), (2025, 9, 15), (2025, 10, 15), (2025, 11, 1)];

/// The quiet history of a seed.
pub fn of_seed(seed: u64) -> History {
    let mut rng = Rng::with_seed(seed);
    let (year, month, day) = DATES[rng.usize(..DATES.len())];
    let cycle_on = NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default();
    let begins_at = history::due_at(cycle_on, Tz::UTC, 6) - Duration::seconds(CYCLE);
    // Money that arrives can be paid out: to wait for it would need a clock.
    let people = (0..rng.usize(10..=16)).map(|_| Person { pends_hours: 0, ..history::person(&mut rng) }).collect();
    let rules = Rules { rate: 0, hold_days: 7, ..history::rules(&mut rng) };
    let perils = Perils::default();
    let history = History { seed, begins_at, zone: Tz::UTC, hour: 6, people, rules, perils, steps: Vec::new() };
    let mut author = Author { history, rng };
    author.write(cycle_on);
    author.history.steps.sort_by_key(|step| step.at);
    let mut free_from = 0;
    for step in &mut author.history.steps {
        step.at = step.at.max(free_from);
        free_from = step.at + APART;
    }
    author.history
}

struct Author {
    history: History,
    rng: Rng,
}

impl Author {
    fn step(&mut self, at: i64, act: Act) {
        let seed = self.rng.u64(..);
        self.history.steps.push(Step { at, act, seed });
    }

    fn write(&mut self, cycle_on: NaiveDate) {
        for coin in 0..CURRENCIES.len() {
            self.step(0, Act::Fund { coin, minor: 1_000_000_000 });
        }
        self.step(0, Act::Bank { fails_per_mille: 150, returns_per_mille: 150 });
        // From then on nothing is refused: of which bank account a refusal is, the time between tells, and the binaries are done
        // with all of it within a second.
        self.step(NEW_BANKS - 1, Act::Bank { fails_per_mille: 0, returns_per_mille: 0 });
        for person in 0..self.history.people.len() {
            self.earns(person);
            self.changes(person);
        }
        self.charges();
        for (at, schedule) in (CYCLE..).step_by(600).zip(Schedule::due_on(cycle_on)) {
            self.step(at, Act::Fire { schedule, cycle_on });
        }
        for at in (CYCLE + DAY..SETTLED).step_by(43_200) {
            self.step(at, Act::Sweep);
        }
        self.step(SETTLED, Act::Sweep);
    }

    fn amount(&mut self) -> i64 {
        // Of dinars the API takes no less than tens of fils.
        self.rng.i64(20..900) * 10
    }

    /// Up to two days after the cycle; what is earned in the last week before it is held.
    fn earns(&mut self, person: usize) {
        for _ in 0..self.rng.u32(1..6) {
            let coins = &self.history.people[person].coins;
            let coin = coins[self.rng.usize(..coins.len())];
            let (at, minor) = (self.rng.i64(0..CYCLE + 2 * DAY), self.amount());
            self.step(at, Act::Earn { person, coin, minor, charge: false });
        }
    }

    /// What becomes of somebody before the cycle, and of a bank that refuses what it is paid.
    fn changes(&mut self, person: usize) {
        let before = self.rng.i64(CYCLE - 5 * DAY..CYCLE - 2 * DAY);
        let changes: &[(i64, Change)] = match self.rng.u32(0..14) {
            0 => &[(before, Change::Restrict)],
            1 => &[(before, Change::Restrict), (before + DAY, Change::Restore)],
            2 => &[(before, Change::Leave)],
            3 => &[(before, Change::Disable)],
            4 => &[(before, Change::BankRefuses)],
            5 | 6 => &[(before, Change::BankRefuses), (NEW_BANKS, Change::NewBank)],
            _ => &[],
        };
        for (at, change) in changes {
            self.step(*at, Act::Account { person, change: *change });
        }
    }

    /// Charges of fans before anything becomes of their creators, and what is taken back of them, before the cycle or after it.
    fn charges(&mut self) {
        let people: Vec<usize> = (0..self.history.people.len()).filter(|it| self.history.people[*it].has_account).collect();
        if people.is_empty() {
            return;
        }
        let mut times: Vec<i64> = (0..self.rng.usize(4..14)).map(|_| self.rng.i64(0..CYCLE - 6 * DAY)).collect();
        times.sort_unstable();
        for (charge, at) in times.into_iter().enumerate() {
            let person = people[self.rng.usize(..people.len())];
            let (coin, minor) = (self.history.people[person].coins[0], self.amount());
            self.step(at, Act::Charge { person, coin, minor });
            if self.rng.bool() {
                let (per_mille, dispute) = ([200, 500, 1_000][self.rng.usize(0..3)], self.rng.bool());
                let later = at + self.rng.i64(HOUR..CYCLE);
                self.step(later, Act::TakeBack { charge, per_mille, dispute });
            }
        }
    }
}
