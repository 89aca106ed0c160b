//! The sample's own tests: the files are the generator's, the importers take them, and every role ends as it says it does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use payday::clock::Calendar;
use payday::config::Policy;
use payday::earnings::import as earnings_file;
use payday::money::{Currency, Ppm};
use payday::payees::import as accounts_file;

use super::*;
use crate::stripe_double::{StripeDouble, StripeDoubleOptions, WebhookTarget, signature};

fn sample() -> Files {
    generate(SEED, SampleSize::CHECKED_IN)
}

fn world(files: &Files) -> World {
    World::load(&files.stripe).expect("the generator's own file")
}

fn outcome(files: &Files, assumed: Assumed) -> Expected {
    expected(&files.earnings, &files.accounts, &world(files), assumed)
}

fn policy() -> Policy {
    Policy {
        token_rate_micros: 50_000,
        platform_fee: Ppm(100_000),
        default_currency: Currency::USD,
        hold_days: 7,
        thresholds_minor: BTreeMap::from([("usd".to_owned(), 1_000)]),
        reserve: Ppm(0),
        beta_only: false,
        destination_cooloff_hours: 72,
        two_person_above_cents: 0,
        auto_resume: true,
        calendar: Calendar { zone: "UTC".parse().expect("a zone"), hour: 6 },
    }
}

/// Everything that comes of a creator's balances, as words.
fn endings(expected: &Expected) -> HashMap<Uuid, BTreeSet<String>> {
    let mut endings: HashMap<Uuid, BTreeSet<String>> = HashMap::new();
    for item in &expected.items {
        endings.entry(item.creator).or_default().insert(item.status.to_owned());
    }
    for unpaid in &expected.unpaid {
        endings.entry(unpaid.creator).or_default().insert(unpaid.reason.as_str().to_owned());
    }
    endings
}

#[test]
fn the_checked_in_files_are_what_the_generator_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("local/ lies in the repository").join("samples");
    for (name, text) in sample().by_name() {
        let there = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(there == text, "samples/{name} is not what the generator writes; run `cargo payday samples`");
    }
}

#[test]
fn the_seed_decides_everything() {
    let size = SampleSize { creators: 400 };
    assert_eq!(generate(1, size), generate(1, size));
    assert_ne!(generate(1, size).earnings, generate(2, size).earnings);
}

#[test]
fn the_importers_take_the_files_and_they_are_of_a_real_size() {
    let files = sample();
    let earnings = earnings_file::parse(files.earnings.as_bytes(), &policy()).expect("no wrong line");
    let payees = accounts_file::parse(files.accounts.as_bytes()).expect("no wrong line");
    assert_eq!(files.roles.len(), 1_000);
    assert_eq!(payees.len(), 1_000 - 12, "those without a line are not in it");
    assert!((6_000..=10_000).contains(&earnings.len()), "{} earnings", earnings.len());
    assert!(files.earnings.len() < 1_500_000, "{} bytes", files.earnings.len());
    let currencies: BTreeSet<String> = earnings.iter().map(|it| it.currency.code()).collect();
    for code in ["usd", "eur", "gbp", "jpy", "huf", "isk", "kwd"] {
        assert!(currencies.contains(code), "nobody earned {code}");
    }
}

#[test]
fn every_role_ends_as_it_says() {
    let files = sample();
    let endings = endings(&outcome(&files, Assumed::default()));
    for (creator, role) in &files.roles {
        let wanted: &[&str] = match role {
            Role::OneCurrencyBelow => &["below_minimum", "paid"],
            Role::BankFails => &["payout_blocked"],
            Role::PayoutsDisabled => &["payouts_disabled"],
            Role::Weekly | Role::Monthly | Role::Manual => &["schedule_not_due"],
            Role::WithoutLine | Role::WithoutAccount => &["no_account"],
            Role::TransfersInactive | Role::TransfersPending | Role::PayoutsNotEnabled | Role::PastDue => &["account_not_ready"],
            Role::BankChanged => &["destination_cooloff"],
            Role::Held | Role::HeldConnected | Role::HeldByAMicrosecond => &["held"],
            Role::InDebt => &["debt"],
            Role::BelowThreshold
            | Role::HundredTips
            | Role::BelowOwnMinimum
            | Role::BelowStripesMinimum
            | Role::DisputedToBelow => &["below_minimum"],
            Role::DisputedWhole | Role::OnlyConnectedOnAutomatic | Role::NothingEarned => &[],
            Role::SeveralReasons => continue,
            _ => &["paid"],
        };
        let ends: Vec<&str> = endings.get(creator).into_iter().flatten().map(String::as_str).collect();
        assert_eq!(ends, wanted, "{role:?} {creator}");
    }
}

#[test]
fn of_several_reasons_the_first_is_recorded() {
    let files = sample();
    let endings = endings(&outcome(&files, Assumed::default()));
    let several: BTreeSet<&String> = files
        .roles
        .iter()
        .filter(|(_, role)| *role == Role::SeveralReasons)
        .flat_map(|(creator, _)| endings.get(creator).expect("not paid"))
        .collect();
    let wanted = ["account_not_ready", "destination_cooloff", "no_account", "payouts_disabled", "schedule_not_due"];
    assert_eq!(several.into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_hundred_tips_of_one_token_are_worth_four_fifty() {
    let files = sample();
    let expected = outcome(&files, Assumed::default());
    let with = |wanted: Role| files.roles.iter().find(|(_, role)| *role == wanted).expect("one of each").0;
    let (poor, rich) = (with(Role::HundredTips), with(Role::HundredTipsAndMore));
    let tips = files.earnings.lines().filter(|line| line.contains(&poor.to_string())).count();
    let unpaid = expected.unpaid.iter().find(|it| it.creator == poor).expect("not paid");
    assert_eq!((tips, unpaid.balance_minor, unpaid.payable_minor), (100, 450, 450));
    assert_eq!(expected.items.iter().find(|it| it.creator == rich).map(|it| it.amount_minor), Some(450 + 1_350));
}

#[test]
fn a_dispute_takes_the_creators_share_and_what_is_not_there_becomes_debt() {
    let files = sample();
    let amounts = |assumed: Assumed, wanted: Role| -> Vec<i64> {
        let expected = outcome(&files, assumed);
        let role: HashMap<Uuid, Role> = files.roles.iter().copied().collect();
        expected.items.iter().filter(|it| role[&it.creator] == wanted).map(|it| it.amount_minor).collect()
    };
    let held = Assumed { matured_first: false, ..Assumed::default() };
    // 80.00 less 30.00, and 620 tokens; each less a tenth.
    assert_eq!(amounts(Assumed::default(), Role::DisputedInPart), [7_290; 3]);
    assert_eq!(amounts(held, Role::DisputedInPart), [7_290; 3]);
    // A charge on an automatic account has left it when it matures; what is still held is taken from the hold.
    assert_eq!(amounts(Assumed::default(), Role::DebtCovered), [2_700]);
    assert_eq!(amounts(held, Role::DebtCovered), [6_300]);
    assert_eq!(amounts(held, Role::InDebt), [3_600; 3]);
}

#[test]
fn settings_and_troubles_change_who_is_paid() {
    let files = sample();
    let usual = outcome(&files, Assumed::default());
    let beta = outcome(&files, Assumed { beta_only: true, ..Assumed::default() });
    assert!(beta.reasons()[&Reason::NotInBeta] > 300 && beta.items.len() > 100);
    assert!(!usual.reasons().contains_key(&Reason::NotInBeta));
    let blocked = |expected: &Expected| expected.items.iter().filter(|it| it.status == "payout_blocked").count();
    let refused = outcome(&files, Assumed { refusals: true, ..Assumed::default() });
    assert_eq!((blocked(&usual), blocked(&refused)), (3, 5));
}

#[tokio::test]
async fn the_double_has_the_money_for_every_item() {
    let files = sample();
    let double = StripeDouble::start(StripeDoubleOptions::default()).await.expect("a free port");
    let world = world(&files);
    world.apply(&double).expect("known currencies");
    let account: HashMap<String, String> = files
        .accounts
        .lines()
        .filter_map(|line| {
            line.split_once(',').map(|(id, rest)| (id.to_owned(), rest.split(',').next().unwrap_or_default().to_owned()))
        })
        .collect();
    let expected = outcome(&files, Assumed::default());
    let mut transfers: BTreeMap<&str, i64> = BTreeMap::new();
    for item in &expected.items {
        *transfers.entry(&item.currency).or_default() += item.transfer_minor;
        let there = double.funds(Some(&account[&item.creator.to_string()]), &item.currency).available;
        assert!(there >= item.amount_minor - item.transfer_minor, "{item:?} has {there}");
    }
    for (currency, minor) in transfers {
        assert!(double.funds(None, currency).available >= minor, "{currency}");
    }
    assert!(expected.items.iter().any(|it| it.transfer_minor == 0));
    assert!(expected.items.iter().any(|it| it.transfer_minor > 0 && it.transfer_minor < it.amount_minor));
}

#[test]
fn an_unknown_field_or_account_in_the_world_is_an_error() {
    let good = r#"{"platform":{"usd":1},"accounts":[{"id":"acct_1","country":"US","currencies":["usd"]}]}"#;
    assert!(World::load(good).is_ok());
    for (from, to) in [
        ("\"platform\"", "\"plattform\""),
        ("\"country\"", "\"land\""),
        ("\"usd\":1", "\"uds\":1"),
        ("\"accounts\"", "\"bank_changes\":[\"acct_2\"],\"accounts\""),
        ("[\"usd\"]", "[]"),
        ("\"US\"", "\"US\",\"interval\":\"often\""),
    ] {
        assert!(World::load(&good.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn the_world_is_written_as_it_is_read() {
    let files = sample();
    assert_eq!(world(&files).to_json(), files.stripe);
}

/// What arrived: signature and body.
type Arrived = Arc<Mutex<Vec<(String, String)>>>;

#[tokio::test]
async fn disputes_arrive_signed_until_they_are_taken_and_banks_change() {
    let arrived: Arrived = Arc::default();
    let receive = |State(arrived): State<Arrived>, headers: HeaderMap, body: String| async move {
        let mut arrived = arrived.lock().expect("no panic while it was held");
        let header = headers.get("stripe-signature").and_then(|it| it.to_str().ok()).unwrap_or_default();
        arrived.push((header.to_owned(), body));
        if arrived.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    };
    let app = Router::new().fallback(receive).with_state(Arc::clone(&arrived));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let double = StripeDouble::start(StripeDoubleOptions::default()).await.expect("a free port");
    let world = world(&sample());
    world.apply(&double).expect("known currencies");
    let before = double.funds(None, "usd").available;
    let target =
        WebhookTarget { url, platform_secret: "p".to_owned(), connect_secret: "c".to_owned(), enabled_events: Vec::new() };

    world.raise(&double, &target).await.expect("taken at the second attempt");

    let arrived = arrived.lock().expect("no panic while it was held").clone();
    assert_eq!(arrived.len(), world.disputes.len() + 1, "one came twice");
    for (header, body) in &arrived {
        let at = header.split(['=', ',']).nth(1).and_then(|at| at.parse().ok()).expect("t=…");
        assert_eq!(header, &signature("p", at, body.as_bytes()));
    }
    let lost: i64 = world.disputes.iter().map(|dispute| dispute.amount_minor + 1_500).sum();
    assert_eq!(double.funds(None, "usd").available, before - lost);
    for account in &world.bank_changes {
        assert_eq!(double.account(account).expect("it is there").banks[0].last4, "4242");
        assert!(double.events().iter().any(|event| event.kind == "account.updated" && event.account.as_ref() == Some(account)));
    }
}

#[test]
fn a_users_own_files_get_a_world_in_which_everybody_can_be_paid() {
    let files = sample();
    let earnings = earnings_file::parse(files.earnings.as_bytes(), &policy()).expect("no wrong line");
    let payees = accounts_file::parse(files.accounts.as_bytes()).expect("no wrong line");
    let kind = World::default_for(&payees, &earnings, &policy());
    let known = world(&files);
    assert_eq!(kind.accounts.len(), known.accounts.len());
    assert!(kind.accounts.iter().all(|it| it.is_ready() && it.interval == "manual"));
    assert_eq!(kind.platform.len(), Currency::all().count());
    let sum = |world: &World| world.balances.iter().map(|it| it.amount_minor).sum::<i64>();
    assert_eq!(sum(&kind), sum(&known));
    assert!(World::load(&kind.to_json()).is_ok());
}

#[test]
fn the_big_ones_are_all_payable_and_nobody_is_there_twice() {
    let big = big(1_000, 3, 7);
    let (mut earnings, mut accounts) = (Vec::new(), Vec::new());
    big.write_earnings(&mut earnings).expect("memory takes it");
    big.write_accounts(&mut accounts).expect("memory takes it");
    let payees = accounts_file::parse(&accounts).expect("no wrong line, no account twice");
    let earned = earnings_file::parse(&earnings, &policy()).expect("no wrong line");
    assert_eq!((payees.len(), earned.len()), (1_000, 3_000));
    let last_payable = DateTime::parse_from_rfc3339("2026-11-08T06:00:00Z").expect("an instant");
    let mut worth: HashMap<Uuid, i64> = HashMap::new();
    for it in &earned {
        assert!(it.occurred_at <= last_payable);
        let frozen = it.freeze(&policy()).expect("a good value");
        *worth.entry(it.creator_id).or_default() += frozen.gross_micros - frozen.fee_micros;
    }
    assert!(payees.iter().all(|(_, payee)| worth[&payee.id] >= 18_000_000));
    let ids: BTreeSet<String> = big.accounts().map(|spec| spec.id).collect();
    assert_eq!(ids, payees.iter().filter_map(|(_, payee)| payee.account.clone()).collect());
}
