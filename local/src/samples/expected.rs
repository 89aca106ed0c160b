//! What the sample's cycle should end in under the default settings, computed from the files alone: read, counted and judged by
//! code that shares nothing with the engine, so that a mistake in one shows against the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::DateTime;
use uuid::Uuid;

use super::world::{ConnectedBalance, KnownAccount, World};

/// 2026-11-15T06:00:00Z in microseconds.
const CUTOFF: i64 = 1_794_722_400_000_000;
const HOLD: i64 = 7 * 86_400 * 1_000_000;
const TOKEN_MICROS: i64 = 50_000;
const FEE_PERCENT: i64 = 10;
const USD_THRESHOLD: i64 = 1_000;

/// What is assumed of the run, beside the default settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assumed {
    /// Disputes and changes of bank accounts were raised (`World::raise`).
    pub troubles: bool,
    /// Before that, earnings were matured through `World::matured_before_disputes`; else everything was still held.
    pub matured_first: bool,
    /// `World::raise_refusals` was called.
    pub refusals: bool,
    /// `PAYOUT_BETA_ONLY=true`
    pub beta_only: bool,
}

impl Default for Assumed {
    fn default() -> Self {
        Self { troubles: true, matured_first: true, refusals: false, beta_only: false }
    }
}

/// Why somebody with a balance is not paid, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    PayoutsDisabled,
    NotInBeta,
    ScheduleNotDue,
    NoAccount,
    AccountNotReady,
    DestinationCooloff,
    Held,
    Debt,
    BelowMinimum,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PayoutsDisabled => "payouts_disabled",
            Self::NotInBeta => "not_in_beta",
            Self::ScheduleNotDue => "schedule_not_due",
            Self::NoAccount => "no_account",
            Self::AccountNotReady => "account_not_ready",
            Self::DestinationCooloff => "destination_cooloff",
            Self::Held => "held",
            Self::Debt => "debt",
            Self::BelowMinimum => "below_minimum",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub creator: Uuid,
    pub currency: String,
    pub amount_minor: i64,
    /// The part of it that lies on the platform; zero: no transfer.
    pub transfer_minor: i64,
    /// In the end: `paid` or `payout_blocked`.
    pub status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpaid {
    pub creator: Uuid,
    pub currency: String,
    pub reason: Reason,
    pub balance_minor: i64,
    pub payable_minor: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// By creator and currency.
    pub items: Vec<Item>,
    /// By creator and currency.
    pub unpaid: Vec<Unpaid>,
}

impl Expected {
    /// Items and minor units by currency and status.
    pub fn batches(&self) -> BTreeMap<&str, BTreeMap<&'static str, (usize, i64)>> {
        let mut batches: BTreeMap<&str, BTreeMap<&'static str, (usize, i64)>> = BTreeMap::new();
        for item in &self.items {
            let sum = batches.entry(&item.currency).or_default().entry(item.status).or_default();
            *sum = (sum.0 + 1, sum.1 + item.amount_minor);
        }
        batches
    }

    pub fn reasons(&self) -> BTreeMap<Reason, usize> {
        let mut reasons = BTreeMap::new();
        for unpaid in &self.unpaid {
            *reasons.entry(unpaid.reason).or_default() += 1;
        }
        reasons
    }
}

/// Micros of a minor unit, and what transfers and payouts must be multiples of (minor units).
fn rules(currency: &str) -> (i64, i64, i64) {
    match currency {
        "jpy" | "krw" => (1_000_000, 1, 1),
        "isk" => (10_000, 100, 100),
        "huf" => (10_000, 1, 100),
        "kwd" => (1_000, 10, 10),
        _ => (10_000, 1, 1),
    }
}

/// Stripe's minimum, minor units: one unit of the currency, with the exceptions of
/// <https://docs.stripe.com/connect/cross-border-payouts/special-requirements>.
fn stripes_minimum(country: &str, currency: &str) -> i64 {
    match (country, currency) {
        ("US", "usd") | ("AU", "aud") | ("CA", "cad") => 1,
        ("MX", "mxn") => 10 * 100,
        ("KR", "krw") => 40_000,
        _ => 1_000_000 / rules(currency).0,
    }
}

struct Line {
    creator: Uuid,
    currency: String,
    gross: i64,
    net: i64,
    available_at: i64,
    charge: String,
    connected: bool,
}

struct Payee {
    account: String,
    country: String,
    enabled: bool,
    minimum: String,
    schedule: String,
    beta: bool,
}

/// A creator's money of one currency, in micros.
#[derive(Default)]
struct Purse {
    // By place: platform, connected.
    available: [i64; 2],
    held: [i64; 2],
    debt: i64,
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().skip(1).map(|line| line.split(',').collect())
}

fn earnings(text: &str) -> Vec<Line> {
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    let read = |row: Vec<&str>| {
        let micros = rules(row[5]).0;
        let gross = if row[3].is_empty() { number(row[4]) * micros } else { number(row[3]) * TOKEN_MICROS };
        let fee = if row[7].is_empty() { gross * FEE_PERCENT / 100 } else { number(row[7]) * micros };
        let at = DateTime::parse_from_rfc3339(row[6]).unwrap_or_default().timestamp_micros();
        Line {
            creator: row[1].parse().unwrap_or_default(),
            currency: row[5].to_owned(),
            gross,
            net: gross - fee,
            available_at: at + HOLD,
            charge: row[8].to_owned(),
            connected: row[9] == "connected",
        }
    };
    rows(text).map(read).collect()
}

fn payees(text: &str) -> HashMap<Uuid, Payee> {
    let read = |row: Vec<&str>| {
        let payee = Payee {
            account: row[1].to_owned(),
            country: row[2].to_owned(),
            enabled: row[4] == "true",
            minimum: row[5].to_owned(),
            schedule: row[6].to_owned(),
            beta: row[7] == "true",
        };
        (row[0].parse().unwrap_or_default(), payee)
    };
    rows(text).map(read).collect()
}

/// What the cycle of the sample's date should end in. The files are the generator's; they are not checked here.
pub fn expected(earnings_csv: &str, accounts_csv: &str, world: &World, assumed: Assumed) -> Expected {
    let payees = payees(accounts_csv);
    let known: HashMap<&str, &KnownAccount> = world.accounts.iter().map(|account| (account.id.as_str(), account)).collect();
    let account_of = |creator: &Uuid| payees.get(creator).and_then(|payee| known.get(payee.account.as_str())).copied();
    let changed: HashSet<&str> = world.bank_changes.iter().map(String::as_str).collect();
    let refused: HashSet<&str> = world.refusals.iter().map(String::as_str).collect();
    let mut result = Expected::default();
    for ((creator, currency), purse) in
        purses(earnings_csv, world, assumed, &|creator| account_of(creator).is_some_and(automatic))
    {
        let account = account_of(&creator);
        let (unit, transfer_multiple, payout_multiple) = rules(&currency);
        let multiple = if account.is_some_and(automatic) { transfer_multiple } else { payout_multiple };
        let [platform, connected] = purse.available;
        let rounded = |micros: i64| micros.max(0) / (unit * multiple) * multiple;
        let payable = rounded(platform + connected - purse.debt);
        let balance = platform + connected + purse.held[0] + purse.held[1];
        if balance <= 0 {
            continue;
        }
        let payee = payees.get(&creator);
        let minimum = payee.map_or(0, |payee| minimum(payee, &currency));
        let asked = [
            (Reason::PayoutsDisabled, payee.is_some_and(|it| !it.enabled)),
            (Reason::NotInBeta, assumed.beta_only && !payee.is_some_and(|it| it.beta)),
            (Reason::ScheduleNotDue, payee.is_some_and(|it| it.schedule != "semimonthly")),
            (Reason::NoAccount, account.is_none()),
            (Reason::AccountNotReady, account.is_some_and(|it| !it.is_ready())),
            (Reason::DestinationCooloff, assumed.troubles && account.is_some_and(|it| changed.contains(it.id.as_str()))),
            (Reason::Held, platform + connected == 0),
            (Reason::Debt, purse.debt > 0 && payable < minimum && rounded(platform + connected) >= minimum),
            (Reason::BelowMinimum, payable < minimum),
        ];
        match asked.into_iter().find(|(_, applies)| *applies) {
            Some((reason, _)) => {
                result.unpaid.push(Unpaid { creator, currency, reason, balance_minor: balance / unit, payable_minor: payable });
            }
            None => {
                let blocked = account.is_some_and(|it| {
                    !automatic(it) && (it.bank_fails.is_some() || assumed.refusals && refused.contains(it.id.as_str()))
                });
                let transfer_minor = (payable - connected / unit).max(0);
                let status = if blocked { "payout_blocked" } else { "paid" };
                result.items.push(Item { creator, currency, amount_minor: payable, transfer_minor, status });
            }
        }
    }
    result
}

fn automatic(account: &KnownAccount) -> bool {
    account.interval != "manual"
}

fn minimum(payee: &Payee, currency: &str) -> i64 {
    let threshold = if currency == "usd" { USD_THRESHOLD } else { 0 };
    let (whole, part) = payee.minimum.split_once('.').unwrap_or((&payee.minimum, ""));
    // At most two decimals in the sample.
    let hundredths: i64 = format!("{whole:0>1}{part:0<2}").parse().unwrap_or_default();
    let own = hundredths * 10_000 / rules(currency).0;
    threshold.max(own).max(stripes_minimum(&payee.country, currency))
}

/// Everybody's money at the cut-off, after the disputes.
fn purses(
    earnings_csv: &str,
    world: &World,
    assumed: Assumed,
    automatic: &dyn Fn(&Uuid) -> bool,
) -> BTreeMap<(Uuid, String), Purse> {
    let mut lines = earnings(earnings_csv);
    let matured = match world.matured_before_disputes {
        Some(through) if assumed.matured_first => through.timestamp_micros(),
        _ => i64::MIN,
    };
    // (creator and currency, place, what is taken) of earnings that were available when the dispute came
    let mut taken: Vec<((Uuid, String), usize, i64)> = Vec::new();
    for dispute in world.disputes.iter().filter(|_| assumed.troubles) {
        for line in lines.iter_mut().filter(|line| line.charge == dispute.charge) {
            let share =
                i128::from(line.net) * i128::from(dispute.amount_minor * rules(&line.currency).0) / i128::from(line.gross);
            let share = i64::try_from(share).unwrap_or(line.net).min(line.net);
            if line.available_at > matured {
                line.net -= share;
            } else {
                taken.push(((line.creator, line.currency.clone()), usize::from(line.connected), share));
            }
        }
    }
    let mut purses: BTreeMap<(Uuid, String), Purse> = BTreeMap::new();
    let add = |line: &Line, purses: &mut BTreeMap<(Uuid, String), Purse>| {
        let purse = purses.entry((line.creator, line.currency.clone())).or_default();
        let place = usize::from(line.connected);
        if line.available_at > CUTOFF {
            purse.held[place] += line.net;
        } else if !(line.connected && automatic(&line.creator)) {
            purse.available[place] += line.net;
        }
    };
    lines.iter().filter(|line| line.available_at <= matured).for_each(|line| add(line, &mut purses));
    for (whose, own, mut share) in taken {
        let purse = purses.entry(whose).or_default();
        for place in [own, 1 - own] {
            let part = share.min(purse.available[place]);
            purse.available[place] -= part;
            share -= part;
        }
        purse.debt += share;
    }
    lines.iter().filter(|line| line.available_at > matured).for_each(|line| add(line, &mut purses));
    purses
}

/// Gives the platform and the connected accounts the money that the earnings say is there.
pub(super) fn fund(world: &mut World, earnings_csv: &str, accounts_csv: &str) {
    let payees = payees(accounts_csv);
    let mut connected: BTreeMap<(String, String), i64> = BTreeMap::new();
    for line in earnings(earnings_csv) {
        let minor = line.net / rules(&line.currency).0;
        if line.connected {
            let account = payees.get(&line.creator).map(|payee| payee.account.clone()).unwrap_or_default();
            *connected.entry((account, line.currency)).or_default() += minor;
        } else {
            *world.platform.entry(line.currency).or_default() += minor + 1;
        }
    }
    // A fifth more, in round figures: enough for disputes and their fees.
    for minor in world.platform.values_mut() {
        *minor = (*minor / 100_000 * 6 / 5 + 1) * 100_000;
    }
    world.balances = connected
        .into_iter()
        .map(|((account, currency), amount_minor)| ConnectedBalance { account, currency, amount_minor })
        .collect();
}
