//! The model of the tables: the rows that money depends on, and what the database itself refuses. The files beside this one
//! do to it what the library's stores do to Postgres. A transaction is one call, so it happens as a whole or not at all.

pub mod accounts;
pub mod batches;
pub mod chunks;
pub mod earnings;
pub mod events;
pub mod jobs;
pub mod rows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use chrono::{DateTime, NaiveDate, Utc};
use payday::clock::Schedule;
use payday::id::{BatchId, ChunkId, ItemId, OperationId, RunId};
use payday::ledger::{Account, Posting};
use payday::money::Currency;
use payday::payouts::item::Item;
use payday::payouts::operation::State;
use payday::rails::Leg;
use uuid::Uuid;

use crate::stripe::events::Event;

pub type Time = DateTime<Utc>;

/// The currencies of the simulation, in the order in which SQL sorts them: two decimals, none, three, and payouts in hundreds.
pub const CURRENCIES: [&str; 5] = ["bhd", "eur", "huf", "jpy", "usd"];

/// A rule is broken: the history ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub rule: &'static str,
    pub detail: String,
}

impl Breach {
    pub fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

impl From<payday::payouts::item::Illegal> for Breach {
    fn from(illegal: payday::payouts::item::Illegal) -> Self {
        Self::new("every transition is known", illegal.to_string())
    }
}

/// Place in [`CURRENCIES`].
pub type Coin = usize;

pub fn currency(coin: Coin) -> Currency {
    static ALL: OnceLock<Vec<Currency>> = OnceLock::new();
    ALL.get_or_init(|| CURRENCIES.iter().filter_map(|code| code.parse().ok()).collect())[coin]
}

pub fn coin(code: &str) -> Coin {
    CURRENCIES.iter().position(|known| known.eq_ignore_ascii_case(code)).unwrap_or(CURRENCIES.len())
}

/// The n-th payee's id; ids sort like their numbers.
pub fn payee_id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

pub fn payee_number(id: Uuid) -> usize {
    usize::try_from(id.as_u128() - 1).unwrap_or(usize::MAX)
}

/// The place of a row in its table: ids count from one.
pub fn place(id: i64) -> usize {
    usize::try_from(id - 1).unwrap_or(usize::MAX)
}

fn next_id<T>(rows: &[T]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX) + 1
}

#[derive(Debug, Clone)]
pub struct Payee {
    pub enabled: bool,
    pub schedule: Schedule,
    /// The payee's own minimum, whole units.
    pub minimum: i64,
    pub blocked_reason: Option<String>,
    pub account: Option<AccountRow>,
}

/// What Stripe last said of an account.
#[derive(Debug, Clone)]
pub struct AccountRow {
    pub account: String,
    pub transfers_active: bool,
    pub payouts_enabled: bool,
    pub past_due: bool,
    pub manual: bool,
    pub destination: Option<String>,
    pub destination_changed_at: Option<Time>,
    pub deauthorized_at: Option<Time>,
    pub state_at: Time,
    pub stale: bool,
}

#[derive(Debug, Clone)]
pub struct EarningRow {
    pub payee: usize,
    pub coin: Coin,
    pub connected: bool,
    pub gross_micros: i64,
    pub net_micros: i64,
    pub taken_back_gross_micros: i64,
    pub taken_back_net_micros: i64,
    pub charge: Option<String>,
    pub available_at: Time,
}

#[derive(Debug, Clone)]
pub struct RunRow {
    pub id: RunId,
    pub schedule: Schedule,
    pub cycle_on: NaiveDate,
    pub cutoff_at: Time,
    pub completed: bool,
    pub batches_created: bool,
    pub queued_at: Time,
}

#[derive(Debug, Clone)]
pub struct BatchRow {
    pub id: BatchId,
    pub run: RunId,
    pub coin: Coin,
    pub hash: String,
    pub completed: bool,
    pub halt_reason: Option<&'static str>,
    pub items: i64,
    pub amount_minor: i64,
}

#[derive(Debug, Clone)]
pub struct ChunkRow {
    pub id: ChunkId,
    pub batch: BatchId,
    pub items: Vec<ItemId>,
    pub lease: Option<u64>,
    pub leased_until: Option<Time>,
    pub queued_at: Option<Time>,
}

#[derive(Debug, Clone)]
pub struct ItemRow {
    pub item: Item,
    pub batch: BatchId,
    pub key: String,
    pub account: String,
    pub failure_code: Option<String>,
    pub failure_reason: Option<String>,
    pub due_at: Option<Time>,
    pub waiting_since: Option<Time>,
    pub operations: Vec<OperationId>,
}

#[derive(Debug, Clone)]
pub struct OperationRow {
    pub id: OperationId,
    pub item: ItemId,
    pub leg: Leg,
    pub attempt: i32,
    pub state: State,
    pub key: String,
    pub account: String,
    pub amount_minor: i64,
    pub currency: String,
    pub body: String,
    pub first_dispatched_at: Time,
    pub dispatched_at: Time,
    pub sends: i32,
    pub lookups: i32,
    pub look_up: bool,
    pub cleared: bool,
    pub stripe_id: Option<String>,
    pub reversed_minor: i64,
    pub unknown_since: Option<Time>,
}

/// A stored event that waits, or what became of it.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub event: Event,
    pub effect: events::Effect,
    pub tries: i32,
    pub due_at: Option<Time>,
}

/// The rate budget of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub next_at: Time,
    pub slowed_by: i64,
    pub slowed_at: Time,
}

/// What a payee has in one currency, by account; the platform's accounts as well, of that payee's postings.
pub type Balance = [i64; 14];

#[derive(Debug, Clone)]
pub struct Tables {
    pub instance: String,
    pub paused: bool,
    pub killed: bool,
    pub payees: Vec<Payee>,
    pub earnings: Vec<EarningRow>,
    pub sources: HashSet<String>,
    /// What a source has taken of an earning: by earning and source.
    pub taken_back: BTreeMap<(usize, String), i64>,
    pub matured_through: Option<Time>,
    pub balances: Vec<[Balance; CURRENCIES.len()]>,
    pub posted: HashSet<(String, &'static str, i32)>,
    pub runs: Vec<RunRow>,
    pub batches: Vec<BatchRow>,
    pub chunks: Vec<ChunkRow>,
    pub items: Vec<ItemRow>,
    pub operations: Vec<OperationRow>,
    pub by_stripe_id: HashMap<String, OperationId>,
    pub by_key: HashMap<String, OperationId>,
    pub exclusions: BTreeMap<(RunId, usize, Coin), String>,
    pub events: BTreeMap<u64, EventRow>,
    pub outbox: BTreeSet<String>,
    pub budgets: [Budget; 2],
    /// Items whose rows changed since the checks last looked.
    pub touched: BTreeSet<ItemId>,
}

impl Tables {
    pub fn new(instance: String, now: Time) -> Self {
        let idle = Budget { next_at: now, slowed_by: 1, slowed_at: DateTime::UNIX_EPOCH };
        Self {
            instance,
            paused: false,
            killed: false,
            payees: Vec::new(),
            earnings: Vec::new(),
            sources: HashSet::new(),
            taken_back: BTreeMap::new(),
            matured_through: None,
            balances: Vec::new(),
            posted: HashSet::new(),
            runs: Vec::new(),
            batches: Vec::new(),
            chunks: Vec::new(),
            items: Vec::new(),
            operations: Vec::new(),
            by_stripe_id: HashMap::new(),
            by_key: HashMap::new(),
            exclusions: BTreeMap::new(),
            events: BTreeMap::new(),
            outbox: BTreeSet::new(),
            budgets: [idle; 2],
            touched: BTreeSet::new(),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.paused || self.killed
    }

    pub fn item(&self, id: ItemId) -> Option<&ItemRow> {
        self.items.get(place(id.0))
    }

    pub fn operation(&self, id: OperationId) -> Option<&OperationRow> {
        self.operations.get(place(id.0))
    }

    /// The item's latest attempt of either leg.
    pub fn latest(&self, item: &ItemRow) -> Option<&OperationRow> {
        self.operation(*item.operations.last()?)
    }

    pub fn batch_of(&self, item: &ItemRow) -> &BatchRow {
        &self.batches[place(item.batch.0)]
    }

    pub fn balance(&self, payee: usize, coin: Coin) -> &Balance {
        &self.balances[payee][coin]
    }

    /// Posts in one statement. What the database's keys and constraints refuse is a breach: whoever posts has looked before.
    pub fn post(&mut self, postings: &[Posting]) -> Result<(), Breach> {
        for posting in postings.iter().filter(|posting| posting.micros != 0) {
            if posting.micros < 0 {
                return Err(Breach::new("the database takes it: ledger_transfers_amount_is_positive", format!("{posting:?}")));
            }
            if !self.posted.insert((posting.event.clone(), posting.leg, posting.attempt)) {
                return Err(Breach::new("the database takes it: ledger_transfers_once", format!("{posting:?}")));
            }
            let balance = &mut self.balances[payee_number(posting.payee)][coin(&posting.currency)];
            balance[posting.from as usize] -= posting.micros;
            balance[posting.to as usize] += posting.micros;
        }
        for posting in postings {
            refuse_negative(&self.balances[payee_number(posting.payee)][coin(&posting.currency)], posting)?;
        }
        Ok(())
    }
}

fn refuse_negative(balance: &Balance, posting: &Posting) -> Result<(), Breach> {
    let not_negative = [
        Account::HeldPlatform,
        Account::HeldConnected,
        Account::AvailablePlatform,
        Account::AvailableConnected,
        Account::ReservedPlatform,
        Account::ReservedConnected,
        Account::InFlight,
        Account::PaidOut,
    ];
    let negative = not_negative.into_iter().find(|account| balance[*account as usize] < 0);
    let owed = (balance[Account::Debt as usize] > 0).then_some(Account::Debt);
    match negative.or(owed) {
        None => Ok(()),
        Some(account) => {
            let detail = format!("{} would be {} after {posting:?}", account.as_str(), balance[account as usize]);
            Err(Breach::new("the database takes it: payee_balances", detail))
        }
    }
}
