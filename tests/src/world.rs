//! Creators, accounts, earnings and cycles in a test's database, entered by the library's own functions; and the audit that
//! every test about money ends with.

use std::collections::BTreeMap;
use std::ops::Deref;

use chrono::{DateTime, NaiveDate, Utc};
use payday::boundary::Boundary;
use payday::clock::{Calendar, Schedule, parse_date};
use payday::config::Policy;
use payday::earnings::{Kind, NewEarning, Place, Recorded, Value};
use payday::id::{ChunkId, RunId};
use payday::money::{Currency, Ppm};
use payday::payees::{self, NewPayee};
use payday::payouts::checks::{self, Breach, Check};
use payday::payouts::store::batches::{self, Created};
use payday::rails::stripe::Account;
use serde_json::json;
use uuid::Uuid;

use crate::database::Database;

/// The cycle that the tests run: its cut-off is 06:00 UTC.
pub const CYCLE: &str = "2026-11-15";

pub fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).expect("an instant").with_timezone(&Utc)
}

pub fn cutoff() -> DateTime<Utc> {
    at("2026-11-15T06:00:00Z")
}

pub fn day(text: &str) -> NaiveDate {
    parse_date(text).expect("a date")
}

/// The n-th creator; ids sort like their numbers.
pub fn creator(n: u128) -> Uuid {
    Uuid::from_u128((0xc0de << 112) | n)
}

/// An American payee without an account. The minimum is in whole units; 0 is none of their own.
pub fn person(id: Uuid, payout_enabled: bool, minimum: i64, schedule: Schedule) -> NewPayee {
    NewPayee {
        id,
        account: None,
        country: Some("US".to_owned()),
        email: None,
        payout_enabled,
        minimum_payout: (minimum > 0).then(|| minimum.to_string()),
        schedule,
        beta: false,
    }
}

/// The connected account of the n-th creator.
pub fn account_of(n: u128) -> String {
    format!("acct_{n}")
}

pub fn currency(code: &str) -> Currency {
    code.parse().expect("a currency")
}

/// The defaults of the product, except that nobody's balance is too small: tests about minimums say so.
pub fn policy() -> Policy {
    Policy {
        token_rate_micros: 50_000,
        platform_fee: Ppm(100_000),
        default_currency: Currency::USD,
        hold_days: 7,
        thresholds_minor: BTreeMap::new(),
        reserve: Ppm(0),
        beta_only: false,
        destination_cooloff_hours: 72,
        two_person_above_cents: 0,
        auto_resume: true,
        calendar: Calendar { zone: "UTC".parse().expect("a zone"), hour: 6 },
    }
}

/// So many minor units of dollars without a fee, earned on the platform long before the cycle.
pub fn earning(source_id: &str, n: u128, minor: i64) -> NewEarning {
    NewEarning {
        source_id: source_id.to_owned(),
        creator_id: creator(n),
        kind: Kind::Sale,
        value: Value::Amount { minor, fee_minor: Some(0) },
        currency: Currency::USD,
        place: Place::Platform,
        charge_id: None,
        occurred_at: at("2026-10-01T00:00:00Z"),
    }
}

/// A connected account as Stripe describes one that is ready, with payouts on our command.
pub fn ready_account(id: &str) -> serde_json::Value {
    json!({
        "id": id, "object": "account", "country": "US", "charges_enabled": true, "payouts_enabled": true,
        "capabilities": { "transfers": "active" },
        "requirements": { "past_due": [], "disabled_reason": null },
        "settings": { "payouts": { "schedule": { "interval": "manual" } } },
        "external_accounts": { "data": [{ "id": "ba_1", "fingerprint": format!("bank of {id}"), "default_for_currency": true }] },
    })
}

/// A database with people and money in it.
pub struct World {
    pub database: Database,
    pub policy: Policy,
}

impl Deref for World {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl World {
    pub async fn new() -> Self {
        Self::on(Database::new().await)
    }

    /// In a database that is there.
    pub fn on(database: Database) -> Self {
        Self { database, policy: policy() }
    }

    /// Enters the n-th creator with default settings and a ready account in the US.
    pub async fn creator(&self, n: u128) -> Uuid {
        self.creators(n..=n).await;
        creator(n)
    }

    pub async fn creators(&self, numbers: std::ops::RangeInclusive<u128>) {
        let new = |n: u128| NewPayee { account: Some(account_of(n)), ..person(creator(n), true, 0, Schedule::Semimonthly) };
        let people: Vec<NewPayee> = numbers.clone().map(new).collect();
        let account = |n| (creator(n), serde_json::from_value(ready_account(&account_of(n))).expect("an account"));
        let accounts: Vec<(Uuid, Account)> = numbers.map(account).collect();
        let mut tx = self.tx().await;
        payees::store::import(&mut tx, &people).await.expect("payees");
        payees::store::describe(&mut tx, &accounts, at("2026-01-01T00:00:00Z")).await.expect("accounts");
        tx.commit(Boundary::Outside).await.expect("a commit");
    }

    /// Records what Stripe says of the n-th creator's account at an instant.
    pub async fn describe(&self, n: u128, account: serde_json::Value, when: &str) {
        let account: Account = serde_json::from_value(account).expect("an account");
        let mut tx = self.tx().await;
        payees::store::describe(&mut tx, &[(creator(n), account)], at(when)).await.expect("an account");
        tx.commit(Boundary::Outside).await.expect("a commit");
    }

    pub async fn record(&self, earnings: Vec<NewEarning>) -> Recorded {
        payday::earnings::record(&self.db, &self.policy, earnings)
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", error.causes()))
    }

    /// Gives the creator so many minor units, matured at the cycle's cut-off.
    pub async fn earned(&self, n: u128, minor: i64) {
        self.record(vec![earning(&format!("e:{n}:{}", self.count("creator_earnings").await), n, minor)]).await;
        self.mature(cutoff()).await;
    }

    pub async fn mature(&self, through: DateTime<Utc>) -> u64 {
        let mut tx = self.tx().await;
        let postings = payday::earnings::store::mature(&mut tx, through).await.expect("matured");
        tx.commit(Boundary::Outside).await.expect("a commit");
        postings
    }

    /// Starts the run of a schedule's cycle and makes its batches, as the batch creator does.
    pub async fn cycle(&self, schedule: Schedule, cycle_on: &str, chunk_size: i64) -> (RunId, Created) {
        let cycle_on = day(cycle_on);
        let mut tx = self.tx().await;
        let cutoff_at = self.policy.calendar.cutoff(cycle_on);
        let (run, _) = batches::start_run(&mut tx, schedule, cycle_on, cutoff_at, "test").await.expect("a run");
        tx.commit(Boundary::Outside).await.expect("a commit");
        self.mature(cutoff_at).await;
        let created = create_batches(&self.database, &self.policy, run, chunk_size).await;
        (run, created)
    }

    /// The semimonthly cycle that the tests run, in chunks of 25.
    pub async fn batches(&self) -> (RunId, Created) {
        self.cycle(Schedule::Semimonthly, CYCLE, 25).await
    }

    pub async fn chunks(&self) -> Vec<ChunkId> {
        self.all::<(ChunkId,)>("select id from payout_chunks order by id").await.into_iter().map(|(id,)| id).collect()
    }

    /// A payee's balances that are not zero, as `name=micros`.
    pub async fn balance(&self, n: u128, currency: &str) -> String {
        self.database
            .row(&format!(
                "select coalesce(string_agg(v.key || '=' || v.value, ' ' order by v.ordinality), 'nothing')
                 from payee_balances b cross join lateral json_each_text(to_json(b)) with ordinality as v
                 where b.payee_id = '{}' and b.currency = '{currency}' and v.value <> '0' and v.key not in ('payee_id', 'currency')",
                creator(n)
            ))
            .await
    }

    /// What must hold of the money whatever has happened.
    pub async fn audit(&self) {
        audit(&self.database).await;
    }

    /// The part of it that knows of no items, for tests that post by hand.
    pub async fn audit_ledger(&self) {
        audit_ledger(&self.database).await;
    }
}

/// Makes a run's batches in one transaction, unless they are there.
pub async fn create_batches(database: &Database, policy: &Policy, run: RunId, chunk_size: i64) -> Created {
    let mut tx = database.tx().await;
    let locked = batches::lock_run(&mut tx, run).await.expect("a lock").expect("the run");
    if locked.batches_created_at.is_some() {
        return Created::default();
    }
    let now = locked.cutoff_at;
    let created = batches::create_batches(&mut tx, &locked, policy, chunk_size, now).await;
    let created = created.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    tx.commit(Boundary::Outside).await.expect("a commit");
    created
}

async fn breaches(database: &Database) -> Vec<Breach> {
    let mut tx = database.tx().await;
    checks::of_everything(&mut tx).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()))
}

async fn audit_ledger(database: &Database) {
    let of_the_ledger = [Check::SumsToZero, Check::BalancesAreEntries, Check::PayeeIdentity];
    let found: Vec<Breach> = breaches(database).await.into_iter().filter(|it| of_the_ledger.contains(&it.check)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// The standing checks, all of them.
pub async fn audit(database: &Database) {
    let found = breaches(database).await;
    assert!(found.is_empty(), "{found:#?}");
}
