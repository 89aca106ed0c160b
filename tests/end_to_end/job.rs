//! The main job as `cargo payday run` runs it: the report's form, a second run, and every wrong input with its exit code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use payday_local::job::{self, Done, Failure, Job, News, Target, root};
use payday_local::postgres::Postgres;
use payday_local::stripe_double::{AccountSpec, ClockMode, PayoutOutcome, Settlement, StripeDouble, StripeDoubleOptions};
use payday_tests::system::binaries;
use payday_tests::world::{account_of, creator};
use serde_json::{Value as Json, json};

const EARNINGS: &str = "source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at\n";
const ACCOUNTS: &str = "creator_id,stripe_account,country,email\n";

fn earnings(rows: &[(u128, &str)]) -> String {
    let line = |(n, rest): &(u128, &str)| rest.replace("{}", &creator(*n).to_string()) + "\n";
    EARNINGS.to_owned() + &rows.iter().map(line).collect::<String>()
}

fn accounts(numbers: &[u128]) -> String {
    let line = |n: &u128| format!("{},{},US,creator{n}@example.com\n", creator(*n), account_of(*n));
    ACCOUNTS.to_owned() + &numbers.iter().map(line).collect::<String>()
}

/// A double that knows ten creators and settles at once; the bank of the third refuses.
async fn double() -> StripeDouble {
    let double = StripeDouble::start(StripeDoubleOptions {
        settlement: Settlement::Automatic { in_transit_after_ms: 5, paid_after_ms: 20 },
        clock: ClockMode::Real,
        ..StripeDoubleOptions::default()
    })
    .await
    .expect("a double");
    for n in 1..=10 {
        let mut spec = AccountSpec::ready(&account_of(n), "US", "usd");
        if n == 3 {
            spec.banks[0].outcome = PayoutOutcome::Failed("account_closed".to_owned());
        }
        double.add_account(spec);
    }
    double.fund("usd", 1_000_000);
    double
}

fn folder(name: &str) -> PathBuf {
    root().join("target/test-stacks").join(name)
}

fn a_job(double: &StripeDouble, folder: PathBuf) -> Job {
    Job {
        earnings: earnings(&[
            (1, "a,{},tip,,2000,usd,2026-10-01T00:00:00Z"),
            (2, "b,{},call,1000,,,2026-10-01T00:00:00Z"),
            (3, "c,{},sale,,3000,usd,2026-10-01T00:00:00Z"),
            (4, "d,{},tip,,500,usd,2026-10-01T00:00:00Z"),
            (5, "e,{},tip,,5000,usd,2026-10-01T00:00:00Z"),
        ])
        .into_bytes(),
        accounts: accounts(&[1, 2, 3, 4]).into_bytes(),
        cycle_on: "2026-11-15".parse().expect("a date"),
        target: Target::Double(double.clone()),
        world: None,
        http_port: None,
        timeout: Duration::from_secs(60),
        folder,
        bin_dir: binaries(),
        template: root().join("template.yaml"),
        settings: BTreeMap::new(),
    }
}

async fn ran(job: Job) -> Result<Done, Failure> {
    job::run(job, |_: News<'_>| {}).await
}

/// A JSON value with every leaf replaced by what kind it is.
fn shape(value: &Json) -> Json {
    match value {
        Json::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Json::Array(values) => values.iter().map(shape).collect(),
        Json::Null => json!("null"),
        Json::Bool(_) => json!("bool"),
        Json::Number(number) => json!(if number.is_i64() { "integer" } else { "decimal" }),
        Json::String(_) => json!("text"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_pays_reports_as_promised_and_a_second_one_pays_nobody_again() {
    let double = double().await;
    let folder = folder("job");
    let _ = Postgres::remove(&folder);
    let done = ran(a_job(&double, folder.clone())).await.unwrap_or_else(|failure| panic!("{failure}"));
    // A bank that refuses later does not make the run a failure: Stripe accepted the money.
    assert!(done.good, "{:?}", done.problems);
    assert_eq!((done.imported.recorded, done.imported.already_there, done.newly_accepted), (5, 0, 6));
    let report = serde_json::to_value(&done.report).expect("json");
    let sum = json!({ "items": "integer", "amount_minor": "integer" });
    let not_paid = |code: &str| json!({ "creator_id": "text", "currency": "text", "balance_minor": "integer", "payable_minor": "integer", "reason": "text", "code": code, "action": "text" });
    assert_eq!(
        shape(&report),
        json!({
            "cycle": "text", "run_ids": ["integer"], "seconds": "decimal",
            "batches": [{ "id": "integer", "currency": "text", "items": "integer", "amount_minor": "integer",
                          "by_status": { "paid": sum, "payout_blocked": sum } }],
            "not_paid": [not_paid("null"), not_paid("null"), not_paid("text")],
            "operations": { "accepted": "integer", "rejected": "integer", "unknown": "integer", "unresolved": "integer" },
            "ledger": { "balanced": "bool", "differences": [] },
            "sql_statements_per_item": "decimal",
        })
    );
    // Ten per cent are the platform's; a thousand tokens are fifty dollars.
    assert_eq!(
        report["batches"],
        json!([{ "id": 1, "currency": "usd", "items": 3, "amount_minor": 9000, "by_status": {
            "paid": { "items": 2, "amount_minor": 6300 }, "payout_blocked": { "items": 1, "amount_minor": 2700 } } }])
    );
    assert_eq!(report["operations"], json!({ "accepted": 6, "rejected": 0, "unknown": 0, "unresolved": 0 }));
    assert_eq!(report["ledger"], json!({ "balanced": true, "differences": [] }));
    let mut reasons: Vec<String> = done
        .report
        .not_paid
        .iter()
        .map(|it| format!("{} {} {:?} {} {}", it.creator_id, it.reason, it.code, it.balance_minor, it.payable_minor))
        .collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            format!("{} payout_blocked Some(\"account_closed\") 2700 2700", creator(3)),
            format!("{} below_minimum None 450 450", creator(4)),
            format!("{} no_account None 4500 4500", creator(5)),
        ]
    );
    let sent = double.transfers().len();
    let again = ran(a_job(&double, folder.clone())).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(again.good, "{:?}", again.problems);
    assert_eq!((again.imported.recorded, again.imported.already_there, again.newly_accepted), (0, 5, 0));
    assert_eq!(double.transfers().len(), sent);
    assert_eq!(again.report.batches, done.report.batches);

    // The same source_id with another content, on what was kept: refused whole.
    let mut other = a_job(&double, folder.clone());
    other.earnings =
        earnings(&[(1, "new,{},tip,,9000,usd,2026-10-01T00:00:00Z"), (1, "a,{},tip,,2001,usd,2026-10-01T00:00:00Z")])
            .into_bytes();
    let failure = ran(other).await.err().expect("refused");
    assert_eq!(failure.exit_code(), 2, "{failure}");
    assert!(failure.to_string().contains("Nothing was imported") && failure.to_string().contains('a'), "{failure}");
    let postgres = Postgres::start(&folder).await.unwrap_or_else(|error| panic!("{error}"));
    let mut connection = postgres.connect("payday").await.expect("a connection");
    let rows: (i64,) = sqlx::query_as("select count(*) from creator_earnings").fetch_one(&mut connection).await.expect("a count");
    assert_eq!(rows, (5,), "nothing half done");
    drop(connection);
    postgres.stop().await;
    assert!(double.audit().is_clean());
    Postgres::remove(&folder).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_ends_in_one_sentence_before_anything_is_begun() {
    let double = double().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let good = "a,{},tip,,2000,usd,2026-10-01T00:00:00Z";
    let with = |lines: &[&str]| earnings(&lines.iter().map(|line| (1, *line)).collect::<Vec<_>>()).into_bytes();
    type Change<'a> = Box<dyn Fn(&mut Job) + 'a>;
    let cases: Vec<(&str, &[&str], u8, Change<'_>)> = vec![
        ("malformed CSV", &["line 3", "fields"], 2, Box::new(|job| job.earnings = with(&[good, "x,y"]))),
        ("a missing column", &["line 1", "missing"], 2, Box::new(|job| job.earnings = b"source_id,creator_id\n".to_vec())),
        ("not text", &["UTF-8"], 2, Box::new(|job| job.earnings = [EARNINGS.as_bytes(), b"\xff\xfe,,,,,,\n"].concat())),
        ("an empty file", &["line 1"], 2, Box::new(|job| job.earnings = Vec::new())),
        (
            "an unknown currency",
            &["line 2", "currency"],
            2,
            Box::new(|job| job.earnings = with(&["a,{},tip,,2000,xxx,2026-10-01T00:00:00Z"])),
        ),
        (
            "tokens and an amount",
            &["line 2", "tokens"],
            2,
            Box::new(|job| job.earnings = with(&["a,{},tip,5,2000,usd,2026-10-01T00:00:00Z"])),
        ),
        (
            "a negative amount",
            &["line 2", "amount"],
            2,
            Box::new(|job| job.earnings = with(&["a,{},tip,,-1,usd,2026-10-01T00:00:00Z"])),
        ),
        (
            "a kind nobody knows",
            &["line 2", "kind"],
            2,
            Box::new(|job| job.earnings = with(&["a,{},gift,,100,usd,2026-10-01T00:00:00Z"])),
        ),
        (
            "one source_id, two contents",
            &["line 3", "source_id"],
            2,
            Box::new(|job| job.earnings = with(&[good, "a,{},tip,,2001,usd,2026-10-01T00:00:00Z"])),
        ),
        ("a creator twice", &["line 3", "creator_id"], 2, Box::new(|job| job.accounts = accounts(&[1, 1]).into_bytes())),
        (
            "an account Stripe does not know",
            &["line 3", "acct_77"],
            2,
            Box::new(|job| job.accounts = accounts(&[1, 77]).into_bytes()),
        ),
        ("no day of any cycle", &["2026-11-14", "1st"], 2, Box::new(|job| job.cycle_on = "2026-11-14".parse().expect("a date"))),
        ("a future cycle", &["2999-12-01", "future"], 2, Box::new(|job| job.cycle_on = "2999-12-01".parse().expect("a date"))),
        ("a busy port", &["port"], 2, Box::new(|job| job.http_port = Some(port))),
        ("no such setting", &["HOLD_DAYZ"], 2, Box::new(|job| drop(job.settings.insert("HOLD_DAYZ".to_owned(), "1".to_owned())))),
    ];
    for (number, (what, words, code, change)) in cases.into_iter().enumerate() {
        let folder = folder(&format!("wrong-{number}"));
        let _ = std::fs::remove_dir_all(&folder);
        let mut job = a_job(&double, folder.clone());
        change(&mut job);
        let failure = ran(job).await.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert_eq!(failure.exit_code(), code, "{what}: {failure}");
        for word in words {
            assert!(failure.to_string().contains(word), "{what} names {word}: {failure}");
        }
        assert!(!folder.exists(), "{what}: nothing was begun");
    }
    assert_eq!(double.calls().iter().filter(|call| call.method == "POST").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_stands_twice_with_the_same_content_counts_as_already_there() {
    let double = double().await;
    let folder = folder("twice");
    let _ = Postgres::remove(&folder);
    let mut job = a_job(&double, folder.clone());
    let line = (1, "a,{},tip,,2000,usd,2026-10-01T00:00:00Z");
    job.earnings = earnings(&[line, line]).into_bytes();
    let done = ran(job).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(done.good, "{:?}", done.problems);
    assert_eq!((done.imported.recorded, done.imported.already_there, done.newly_accepted), (1, 1, 2));
    Postgres::remove(&folder).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripe_that_is_down_or_refuses_the_key_is_said_in_one_sentence() {
    let double = double().await;
    let target =
        |base_url: String, key: &str| Target::Other { base_url, key: key.to_owned(), webhook_secret: "whsec_x".to_owned() };
    double.revoke_key("sk_test_revoked");
    for (what, target, word) in [
        ("down", target("http://127.0.0.1:1".to_owned(), "sk_test_x"), "Stripe"),
        ("refuses the key", target(double.base_url(), "sk_test_revoked"), "key"),
    ] {
        let folder = folder(&format!("stripe-{}", what.split(' ').next().unwrap_or_default()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut job = a_job(&double, folder.clone());
        job.target = target;
        let failure = ran(job).await.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert_eq!(failure.exit_code(), 1, "{what}: {failure}");
        assert!(failure.to_string().contains(word), "{what}: {failure}");
        assert!(!failure.to_string().contains("sk_test"), "{what}: {failure}");
        assert!(!folder.exists(), "{what}: nothing was begun");
    }
}
