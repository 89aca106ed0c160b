//! Whole histories, lived by the simulation's model and once more by the real binaries: the same rows come of both.
//!
//! What came from outside is done again: what was earned, who connected which account, what fans, banks and Stripe did, and when
//! schedules fired. What the engine made of it is not: the binaries make it of their own accord.

#[path = "../differential/rows.rs"]
mod rows;

use std::collections::{BTreeSet, HashMap};

use payday::boundary::Boundary;
use payday::earnings::{NewEarning, Value};
use payday::payees;
use payday_local::stripe_double::{AccountSpec, BankSpec, ClockMode, DestinationCharge};
use payday_simulation::deeds::{Deed, Done};
use payday_simulation::history::History;
use payday_simulation::stripe::accounts::Described;
use payday_simulation::stripe::events::{PayoutSaid, What};
use payday_simulation::tables::{CURRENCIES, payee_id};
use payday_simulation::{deeds_of_steps, quiet};
use payday_tests::http::request;
use payday_tests::system::{STRIPE_KEY, Setup, System};
use payday_tests::world::person;
use serde_json::json;

/// What is compared of each table, by column of `rows`: everything but ids of rows, keys and hashes made of them, and the instants
/// at which something was done.
const COMPARED: [(&str, &[usize]); 8] = [
    ("items", &[2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    ("operations", &[2, 3, 4, 6, 7, 8, 17]),
    ("balances", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ("runs", &[1, 2, 3, 4, 5]),
    ("batches", &[2, 4, 5, 6, 7]),
    ("exclusions", &[1, 2, 3]),
    ("earnings", &[0, 1, 2, 3, 4, 5, 6, 8]),
    ("accounts", &[0, 1, 2, 3, 4, 5]),
];

/// In any order: of two workers either may be first.
fn compared(columns: &[usize], rows: &[String]) -> Vec<String> {
    let pick = |row: &String| {
        let values: Vec<&str> = row.split(' ').collect();
        columns.iter().map(|column| values[*column]).collect::<Vec<_>>().join(" ")
    };
    let mut picked: Vec<String> = rows.iter().map(pick).collect();
    picked.sort();
    picked
}

/// So many in every test run, from the first seed on.
const HISTORIES: u64 = 4;

/// What came of these histories here, in words of the database. Each has a system of its own, audited at its end.
async fn live_again(seeds: impl Iterator<Item = u64>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for seed in seeds {
        let history = quiet::of_seed(seed);
        let deeds = deeds_of_steps(&history).unwrap_or_else(|breach| panic!("seed {seed}: {breach:?}"));
        let mut again = Again::begin(&history).await;
        for done in &deeds {
            again.does(done).await;
        }
        let Some(Deed::Compare(model)) = deeds.last().map(|done| &done.deed) else { panic!("the rows come last") };
        let database = &again.system.database;
        let mut differences = Vec::new();
        for (table, columns) in COMPARED {
            let (_, model) = model.iter().find(|(name, _)| *name == table).expect("a table of the model");
            let (here, model) = (compared(columns, &rows::of(database, table).await), compared(columns, model));
            if here != model {
                let only = |these: &[String], others: &[String]| -> Vec<String> {
                    these.iter().filter(|row| !others.contains(row)).cloned().collect()
                };
                let (rows, others) = (only(&here, &model), only(&model, &here));
                let counts = (here.len(), model.len());
                differences.push(format!("{table} {counts:?}: {rows:#?}\nin the model: {others:#?}"));
            }
        }
        assert!(differences.is_empty(), "seed {seed}: {}", differences.join("\n"));
        seen.extend(
            database
                .rows(
                    "select status from payout_items union select reason from payout_exclusions
                     union select 'sent to another bank' from payout_items where payout_attempt > 1
                     union select 'taken back' from creator_earnings where taken_back_net_micros > 0
                     union select 'in debt' from payee_balances where debt <> 0",
                )
                .await,
        );
        let statuses = again.system.statuses().await;
        again.system.ends(&statuses).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_quiet_history_the_real_binaries_make_the_same_rows_as_the_simulation() {
    let seen = live_again(1..=HISTORIES).await;
    for what in [
        "paid",
        "payout_blocked",
        "returned",
        "sent to another bank",
        "taken back",
        "in debt",
        "no_account",
        "account_not_ready",
        "held",
        "below_minimum",
    ] {
        assert!(seen.contains(what), "{what} is not among {seen:?}");
    }
}

/// `PAYDAY_HISTORIES=FROM-TO`: these seeds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: by command, see ARCHITECTURE.md"]
async fn of_chosen_quiet_histories_the_real_binaries_make_the_same_rows() {
    let chosen = std::env::var("PAYDAY_HISTORIES").unwrap_or_else(|_| "5-34".to_owned());
    let (from, to) = chosen.split_once('-').expect("like 5-34");
    live_again(from.parse().expect("a seed")..=to.parse().expect("a seed")).await;
}

/// A system to which the same comes from outside.
struct Again {
    system: System,
    /// The double's charges by the ids that the model's Stripe gave them.
    charges: HashMap<String, String>,
    /// And its payouts.
    payouts: HashMap<String, String>,
}

impl Again {
    async fn begin(history: &History) -> Self {
        let rules = history.rules;
        let start_ms = history.begins_at.timestamp_millis();
        let system = Setup::of(0)
            .setting("CHUNK_SIZE", rules.chunk_size)
            .setting("SENDS_PER_WORKER", rules.sends_per_worker)
            .setting("PAYOUT_MIN_THRESHOLD_CENTS", rules.threshold_usd)
            .setting("PAYOUT_RESERVE_PERCENT", rules.reserve_ppm / 10_000)
            .setting("HOLD_DAYS", rules.hold_days)
            .double(|double| double.clock = ClockMode::Manual { start_ms })
            .start()
            .await;
        for code in CURRENCIES {
            system.double.fund(code, 1_000_000_000);
        }
        Self { system, charges: HashMap::new(), payouts: HashMap::new() }
    }

    async fn does(&mut self, done: &Done) {
        let at = if let Deed::Event { event, .. } = &done.deed { event.created } else { done.at };
        self.system.double.set_time_ms(at.timestamp_millis());
        match &done.deed {
            Deed::Settle { payee, enabled, schedule, minimum } => {
                let person = person(payee_id(*payee), *enabled, *minimum, *schedule);
                let mut tx = self.system.database.tx().await;
                payees::store::import(&mut tx, &[person]).await.expect("a payee");
                tx.commit(Boundary::Outside).await.expect("a commit");
            }
            Deed::Describe { payee, said, at } => {
                let mut spec = AccountSpec { id: said.id.clone(), ..AccountSpec::default() };
                become_as(&mut spec, said);
                self.system.double.add_account(spec);
                let account = self.system.stripe().account(&said.id).await.expect("an answer").expect("an account");
                let mut tx = self.system.database.tx().await;
                payees::describe(&mut tx, payee_id(*payee), account, *at).await.expect("described");
                tx.commit(Boundary::Outside).await.expect("a commit");
            }
            Deed::Record(earning) => self.earn(earning).await,
            Deed::StartRun { schedule, cutoff_at, .. } => {
                let schedule = format!("payout-{}", schedule.as_str());
                self.system.stack.fire(&schedule, *cutoff_at).await.unwrap_or_else(|error| panic!("{error}"));
                self.system.drain().await;
            }
            Deed::Event { event, .. } => {
                self.happens(&event.what).await;
                self.system.drain().await;
            }
            // Of another bank the model's Stripe may tell no more than that there is one.
            Deed::Read { said: Some(said), .. } => {
                self.changes(said);
                self.system.drain().await;
            }
            _ => {}
        }
    }

    async fn earn(&self, earning: &NewEarning) {
        let Value::Amount { minor, fee_minor } = earning.value else { panic!("{earning:?}") };
        let body = json!({ "earnings": [{
            "sourceId": earning.source_id,
            "creatorId": earning.creator_id,
            "kind": earning.kind.as_str(),
            "amount": minor,
            "fee": fee_minor,
            "currency": earning.currency.code(),
            "occurredAt": earning.occurred_at.to_rfc3339(),
        }] });
        let answer = self.system.post("/internal/earnings", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What Stripe tells of has happened there.
    async fn happens(&mut self, what: &What) {
        let double = &self.system.double;
        match what {
            What::Payment { charge, account, amount, fee, currency, .. } => {
                let new = DestinationCharge {
                    amount: *amount,
                    currency: currency.clone(),
                    destination: account.clone(),
                    application_fee_amount: *fee,
                    ..DestinationCharge::default()
                };
                let made = double.create_destination_charge(&new).expect("a charge");
                self.charges.insert(charge.clone(), made.charge);
            }
            What::TakenBack { source, charge, amount, .. } => {
                let charge = &self.charges[charge];
                let taken = match source.starts_with("dispute") {
                    true => double.dispute(charge, *amount, "fraudulent"),
                    false => double.refund(charge, *amount, false, false),
                };
                taken.expect("as much was charged");
            }
            What::AccountUpdated(said) => self.changes(said),
            What::Deauthorized(account) => assert!(double.deauthorize(account)),
            What::Payout(said) => self.bank_decides(said).await,
            What::ExternalAccount(_) => {}
            What::TransferReversed { .. } => panic!("nobody reverses transfers in a quiet history"),
        }
    }

    fn changes(&self, said: &Described) {
        assert!(self.system.double.update_account(&said.id, |account| become_as(account, said)));
    }

    /// The double's payout that this one of the model's is. Of two that are alike either may be.
    fn payout_of(&mut self, said: &PayoutSaid) -> String {
        if let Some(known) = self.payouts.get(&said.id) {
            return known.clone();
        }
        let payouts = self.system.double.payouts();
        let alike = payouts.iter().find(|it| {
            (&it.account, &it.currency, it.amount) == (&said.account, &said.currency, said.amount)
                && !self.payouts.values().any(|taken| *taken == it.id)
        });
        let id = alike.unwrap_or_else(|| panic!("{said:?} is not among {payouts:#?}")).id.clone();
        self.payouts.insert(said.id.clone(), id.clone());
        id
    }

    async fn bank_decides(&mut self, said: &PayoutSaid) {
        let id = &self.payout_of(said);
        let double = &self.system.double;
        match (said.status, said.failure_code) {
            ("pending", _) => {}
            ("paid", _) => assert!(double.settle_payout(id)),
            ("failed", Some(code)) => assert!(double.fail_payout(id, code)),
            ("canceled", _) => {
                let key = format!("Bearer {STRIPE_KEY}");
                let headers = [
                    ("authorization", key.as_str()),
                    ("stripe-account", said.account.as_str()),
                    ("idempotency-key", said.id.as_str()),
                ];
                let answer = request(&double.base_url(), "POST", &format!("/v1/payouts/{id}/cancel"), &headers, "").await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            other => panic!("no bank says {other:?}"),
        }
    }
}

/// An account as the model's Stripe describes it, with a bank that takes every currency.
fn become_as(spec: &mut AccountSpec, said: &Described) {
    spec.transfers = if said.transfers_active { "active" } else { "inactive" }.to_owned();
    spec.payouts_enabled = said.payouts_enabled;
    spec.past_due = if said.past_due { vec!["individual.verification.document".to_owned()] } else { Vec::new() };
    spec.payout_interval = Some(if said.manual { "manual" } else { "daily" }.to_owned());
    if spec.banks.iter().any(|bank| bank.fingerprint != said.bank) {
        let bank = |code: &str| BankSpec {
            id: format!("ba_{code}_{}", said.bank.replace(' ', "_")),
            currency: code.to_owned(),
            fingerprint: said.bank.clone(),
            ..BankSpec::default()
        };
        spec.banks = CURRENCIES.map(bank).to_vec();
    }
}
