//! The sample against the database: whom the engine's own SQL would pay what, and why not, is what the sample's independent
//! computation says.

use std::collections::BTreeMap;

use payday::clock::{self, Calendar};
use payday::config::{self, Policy};
use payday::db::{self, Db, query_as};
use payday::money::{Currency, Ppm};
use payday::payees::NewPayee;
use payday::rails::stripe::{Account, Stripe};
use payday::{earnings, payees};
use payday_local::postgres::Postgres;
use payday_local::samples::{Assumed, Expected, Files, SEED, SampleSize, World, expected, generate};
use payday_local::stripe_double::{StripeDouble, StripeDoubleOptions};
use uuid::Uuid;

fn policy(beta_only: bool) -> Policy {
    Policy {
        token_rate_micros: 50_000,
        platform_fee: Ppm(100_000),
        default_currency: Currency::USD,
        hold_days: 7,
        thresholds_minor: BTreeMap::from([("usd".to_owned(), 1_000)]),
        reserve: Ppm(0),
        beta_only,
        destination_cooloff_hours: 72,
        two_person_above_cents: 0,
        auto_resume: true,
        calendar: Calendar { zone: "UTC".parse().expect("a zone"), hour: 6 },
    }
}

/// (creator, currency) → (reason or none, balance, payable, transfer), in minor units
type Answers = BTreeMap<(Uuid, String), (Option<String>, i64, i64, i64)>;

async fn described(double: &StripeDouble, people: &[NewPayee]) -> Vec<(Uuid, Account)> {
    let key = "sk_test_samples".to_owned();
    let config = config::Stripe { secret_key: key, api_base: double.base_url(), timeout: std::time::Duration::from_secs(20) };
    let stripe = Stripe::new(&config).expect("a client");
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let (page, more) = stripe.accounts(after.as_deref()).await.expect("a page");
        after = page.last().map(|account| account.id.clone());
        all.extend(page.into_iter().map(|account| (account.id.clone(), account)));
        if !more {
            break;
        }
    }
    people.iter().filter_map(|payee| Some((payee.id, all.remove(payee.account.as_ref()?).expect("Stripe knows it")))).collect()
}

/// Everything that a run does to the database up to the choice of whom to pay.
async fn answers(url: &str, files: &Files, world: &World, assumed: Assumed) -> Answers {
    let policy = policy(assumed.beta_only);
    let double = StripeDouble::start(StripeDoubleOptions::default()).await.expect("a free port");
    world.apply(&double).expect("known currencies");
    let people: Vec<NewPayee> =
        payees::import::parse(files.accounts.as_bytes()).expect("no wrong line").into_iter().map(|(_, payee)| payee).collect();
    let earned = earnings::import::parse(files.earnings.as_bytes(), &policy).expect("no wrong line");
    let db = Db::connect(url, 2).expect("an address");
    let mut tx = db.begin().await.expect("a transaction");
    payees::store::import(&mut tx, &people).await.expect("payees");
    payees::store::describe(&mut tx, &described(&double, &people).await, clock::now()).await.expect("accounts");
    earnings::store::record(&mut tx, &policy, &earned).await.expect("earnings");
    if assumed.matured_first {
        let through = world.matured_before_disputes.expect("the sample says when");
        earnings::store::mature(&mut tx, through).await.expect("matured");
    }
    for dispute in &world.disputes {
        let (charge, minor) = (&dispute.charge, dispute.amount_minor);
        earnings::store::take_back(&mut tx, &dispute.id, charge, minor, &dispute.currency).await.expect("taken back");
    }
    for account in &world.bank_changes {
        double.update_account(account, |spec| spec.banks[0].fingerprint = "another".to_owned());
    }
    payees::store::describe(&mut tx, &described(&double, &people).await, clock::now()).await.expect("accounts");
    let cutoff = policy.calendar.cutoff(clock::parse_date("2026-11-15").expect("a date"));
    earnings::store::mature(&mut tx, cutoff).await.expect("matured");
    let rows: Vec<(Uuid, String, Option<String>, i64, i64, i64)> = tx
        .all(
            query_as(
                "select creator_id, currency::text, reason, balance_micros / minor_micros, payable_minor, transfer_minor
                 from payout_candidates(array['semimonthly'], '{}', $1, $2, $3)",
            )
            .bind(cutoff)
            .bind(serde_json::to_value(&policy).expect("it is written"))
            .bind(clock::now()),
        )
        .await
        .expect("candidates");
    rows.into_iter()
        .map(|(creator, currency, reason, balance, payable, transfer)| {
            ((creator, currency), (reason, balance, payable, transfer))
        })
        .collect()
}

fn compare(found: &Answers, expected: &Expected, assumed: Assumed) {
    let mut wrong = Vec::new();
    let mut left = found.clone();
    for item in &expected.items {
        let answer = left.remove(&(item.creator, item.currency.clone()));
        let paid = answer.as_ref().map(|(reason, _, payable, transfer)| (reason.as_deref(), *payable, *transfer));
        if paid != Some((None, item.amount_minor, item.transfer_minor)) {
            wrong.push(format!("{item:?}, but {answer:?}"));
        }
    }
    for unpaid in &expected.unpaid {
        let answer = left.remove(&(unpaid.creator, unpaid.currency.clone()));
        let told = answer.as_ref().map(|(reason, balance, payable, _)| (reason.as_deref(), *balance, *payable));
        if told != Some((Some(unpaid.reason.as_str()), unpaid.balance_minor, unpaid.payable_minor)) {
            wrong.push(format!("{unpaid:?}, but {answer:?}"));
        }
    }
    wrong.extend(left.iter().map(|answer| format!("nothing expected, but {answer:?}")));
    assert!(wrong.is_empty(), "{assumed:?}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_would_pay_whom_the_sample_says_and_gives_its_reasons() {
    let files = generate(SEED, SampleSize::CHECKED_IN);
    let world = World::load(&files.stripe).expect("the generator's own file");
    let folder = tempfile::tempdir().expect("a folder");
    let postgres = Postgres::start(folder.path()).await.expect("Postgres");
    postgres.create_database("empty").await.expect("a database");
    db::migrate(&postgres.url("empty")).await.expect("migrated");
    let usual = Assumed::default();
    for (name, assumed) in
        [("usual", usual), ("held", Assumed { matured_first: false, ..usual }), ("beta", Assumed { beta_only: true, ..usual })]
    {
        postgres.clone_database("empty", name).await.expect("a database");
        let found = answers(&postgres.url(name), &files, &world, assumed).await;
        compare(&found, &expected(&files.earnings, &files.accounts, &world, assumed), assumed);
    }
    postgres.stop().await;
}
