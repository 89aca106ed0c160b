//! Who is paid what, and why not: `payout_candidates` as a table of cases. Each case is a creator of its own; all are asked
//! about one by one and then all at once.

use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::earnings::{NewEarning, Place, Value};
use payday::money::Ppm;
use payday_tests::world::{World, account_of, at, creator, currency, cutoff, earning, ready_account};
use serde_json::{Value as Json, json};

/// What a creator is like. The default is a ready one in the US with 100.00 on the platform and nothing else.
struct Case {
    name: &'static str,
    country: &'static str,
    currency: &'static str,
    /// Minor units, matured.
    platform: i64,
    connected: i64,
    held: i64,
    debt_micros: i64,
    account: fn(Json) -> Option<Json>,
    /// Columns of the settings to change, as SQL.
    settings: &'static str,
    /// What else to do: statements, `$me` is the creator's id.
    also: &'static str,
    reserve_ppm: i64,
    threshold_minor: i64,
    beta_only: bool,
    schedules: Option<&'static [&'static str]>,
    /// The reason, or `pay`; payable, transfer and connected minor units.
    wanted: &'static str,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            country: "US",
            currency: "usd",
            platform: 10_000,
            connected: 0,
            held: 0,
            debt_micros: 0,
            account: Some,
            settings: "",
            also: "",
            reserve_ppm: 0,
            threshold_minor: 0,
            beta_only: false,
            schedules: Some(&["semimonthly"]),
            wanted: "pay 10000 10000 0",
        }
    }
}

async fn enter(world: &World, n: u128, case: &Case) {
    world.creator(n).await;
    let mut account = ready_account(&account_of(n));
    account["country"] = json!(case.country);
    match (case.account)(account) {
        Some(account) => world.describe(n, account, "2026-01-02T00:00:00Z").await,
        None => drop(world.run(format!("delete from stripe_accounts where payee_id = '{}'", creator(n))).await),
    }
    let mut earnings = Vec::new();
    for (name, minor, place, occurred_at) in [
        ("platform", case.platform, Place::Platform, "2026-10-01T00:00:00Z"),
        ("connected", case.connected, Place::Connected, "2026-10-01T00:00:00Z"),
        ("held", case.held, Place::Platform, "2026-11-14T00:00:00Z"),
    ] {
        if minor > 0 {
            let value = Value::Amount { minor, fee_minor: Some(0) };
            let source_id = format!("{name}:{n}");
            let it = earning(&source_id, n, minor);
            earnings.push(NewEarning { value, place, currency: currency(case.currency), occurred_at: at(occurred_at), ..it });
        }
    }
    world.record(earnings).await;
    if case.debt_micros > 0 {
        world
            .run(format!(
                "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                 values ('debt:{n}', 'test', '{}', '{}', 'debt', 'paid_out', {})",
                creator(n),
                case.currency,
                case.debt_micros
            ))
            .await;
    }
    if !case.settings.is_empty() {
        world.run(format!("update creator_payout_settings set {} where creator_id = '{}'", case.settings, creator(n))).await;
    }
    if !case.also.is_empty() {
        world.run(case.also.replace("$me", &format!("'{}'", creator(n)))).await;
    }
}

/// The case's policy, as JSON.
fn policy(world: &World, case: &Case) -> String {
    let mut policy = world.policy.clone();
    policy.reserve = Ppm(case.reserve_ppm);
    policy.beta_only = case.beta_only;
    policy.thresholds_minor.insert("usd".to_owned(), case.threshold_minor);
    policy.thresholds_minor.insert("jpy".to_owned(), 1_500);
    serde_json::to_string(&policy).expect("json")
}

/// The same of one creator, as the creator is told it: only what there is money of.
async fn standing(world: &World, case: &Case, n: u128) -> Vec<String> {
    let (policy, cutoff, creator) = (policy(world, case), cutoff().to_rfc3339(), creator(n));
    world
        .rows(&format!("select {COLUMNS}, minimum_minor from creator_standing('{creator}', '{policy}', '{cutoff}') where held_micros + available_micros > 0 order by currency"))
        .await
}

/// `(reason or pay) payable transfer connected` of creators, as the case's policy has it.
async fn ask(world: &World, case: &Case, who: &str, columns: &str) -> Vec<String> {
    let policy = policy(world, case);
    let schedules = case.schedules.map_or("null".to_owned(), |names| format!("array['{}']", names.join("', '")));
    let cutoff = cutoff().to_rfc3339();
    world
        .rows(&format!("select {columns} from payout_candidates({schedules}, '{{}}', '{cutoff}', '{policy}', '{cutoff}', {who}) order by creator_id, currency"))
        .await
}

const COLUMNS: &str = "coalesce(reason, 'pay'), payable_minor, transfer_minor, connected_minor";

async fn check(cases: Vec<Case>) {
    let world = World::new().await;
    for (n, case) in (1..).zip(&cases) {
        enter(&world, n, case).await;
    }
    world.mature(cutoff()).await;
    for (n, case) in (1..).zip(&cases) {
        let found = ask(&world, case, &format!("'{}'", creator(n)), COLUMNS).await;
        assert_eq!(found, if case.wanted.is_empty() { vec![] } else { vec![case.wanted.to_owned()] }, "{}", case.name);
        // What the creator is told is the same, whichever the schedule.
        let any = Case { schedules: None, ..*case };
        let candidate = ask(&world, &any, &format!("'{}'", creator(n)), &format!("{COLUMNS}, minimum_minor")).await;
        if !candidate.is_empty() && !candidate[0].starts_with("unsettled_item") {
            assert_eq!(standing(&world, &any, n).await, candidate, "{}", case.name);
        }
    }
    // Asked about together, the answers are the same.
    let together = Case::default();
    let all = ask(&world, &together, "null", &format!("{COLUMNS}, creator_id")).await;
    for (n, _) in (1..).zip(&cases) {
        let alone = ask(&world, &together, &format!("'{}'", creator(n)), &format!("{COLUMNS}, creator_id")).await;
        assert!(alone.iter().all(|row| all.contains(row)), "{alone:?} of {all:?}");
    }
    world.audit_ledger().await;
}

fn changed(mut account: Json, change: fn(&mut Json)) -> Option<Json> {
    change(&mut account);
    Some(account)
}

#[tokio::test]
async fn every_reason_has_its_case() {
    check(vec![
        Case { name: "nothing stands against it", ..Case::default() },
        Case {
            name: "payouts disabled",
            settings: "payout_enabled = false",
            wanted: "payouts_disabled 10000 10000 0",
            ..Case::default()
        },
        Case { name: "not in the beta", beta_only: true, wanted: "not_in_beta 10000 10000 0", ..Case::default() },
        Case { name: "in the beta", beta_only: true, settings: "beta_enabled = true", ..Case::default() },
        Case { name: "weekly", settings: "schedule = 'weekly'", wanted: "schedule_not_due 10000 10000 0", ..Case::default() },
        Case { name: "manual", settings: "schedule = 'manual'", wanted: "schedule_not_due 10000 10000 0", ..Case::default() },
        Case { name: "weekly on a Monday", settings: "schedule = 'weekly'", schedules: Some(&["weekly"]), ..Case::default() },
        Case { name: "manual, schedule not asked", settings: "schedule = 'manual'", schedules: None, ..Case::default() },
        Case { name: "no account", account: |_| None, wanted: "no_account 10000 10000 0", ..Case::default() },
        Case {
            name: "transfers inactive",
            account: |it| changed(it, |it| it["capabilities"]["transfers"] = json!("pending")),
            wanted: "account_not_ready 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "payouts not enabled",
            account: |it| changed(it, |it| it["payouts_enabled"] = json!(false)),
            wanted: "account_not_ready 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "past due",
            account: |it| changed(it, |it| it["requirements"]["past_due"] = json!(["individual.id_number"])),
            wanted: "account_not_ready 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "charges not enabled is no matter",
            account: |it| changed(it, |it| it["charges_enabled"] = json!(false)),
            ..Case::default()
        },
        Case {
            name: "deauthorized",
            also: "update stripe_accounts set deauthorized_at = now() where payee_id = $me",
            wanted: "account_not_ready 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "blocked",
            also: "update payees set blocked_reason = 'looks odd' where id = $me",
            wanted: "blocked 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "a reversal behind us",
            also: "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
                   values ('behind', 'x', $me, 'usd', 'at_stripe', 'available_platform', 1000000)",
            wanted: "blocked 10100 10100 0",
            ..Case::default()
        },
        Case {
            name: "another bank account a day ago",
            also: "update stripe_accounts set destination_changed_at = '2026-11-14T06:00:00Z' where payee_id = $me",
            wanted: "destination_cooloff 10000 10000 0",
            ..Case::default()
        },
        Case {
            name: "another bank account, and the cool-off just over",
            also: "update stripe_accounts set destination_changed_at = '2026-11-12T06:00:00Z' where payee_id = $me",
            ..Case::default()
        },
        Case { name: "all is held", platform: 0, held: 500, wanted: "held 0 0 0", ..Case::default() },
        Case { name: "debt takes all", debt_micros: 100_000_000, wanted: "debt 0 0 0", ..Case::default() },
        Case { name: "debt takes more", debt_micros: 150_000_000, wanted: "debt 0 0 0", ..Case::default() },
        Case { name: "debt takes a part", debt_micros: 25_000_000, wanted: "pay 7500 7500 0", ..Case::default() },
        Case {
            name: "without the debt it would have been enough",
            debt_micros: 60_000_000,
            threshold_minor: 5_000,
            wanted: "debt 4000 4000 0",
            ..Case::default()
        },
        Case {
            name: "too little with or without the debt",
            debt_micros: 10_000,
            threshold_minor: 20_000,
            wanted: "below_minimum 9999 9999 0",
            ..Case::default()
        },
        Case { name: "below the threshold", threshold_minor: 10_001, wanted: "below_minimum 10000 10000 0", ..Case::default() },
        Case { name: "at the threshold", threshold_minor: 10_000, ..Case::default() },
        Case { name: "held money is not payable", held: 700, ..Case::default() },
        Case { name: "no money", platform: 0, wanted: "", ..Case::default() },
        Case { name: "only a debt", platform: 0, debt_micros: 1_000, wanted: "", ..Case::default() },
    ])
    .await;
}

/// Each case has all the reasons from its own on: the first that applies is told.
#[tokio::test]
async fn the_first_reason_that_applies_is_told_in_the_order_of_the_contract() {
    let world = World::new().await;
    let order = [
        "payouts_disabled",
        "not_in_beta",
        "schedule_not_due",
        "no_account",
        "account_not_ready",
        "blocked",
        "unsettled_item",
        "destination_cooloff",
        "held",
        "debt",
        "below_minimum",
    ];
    for first in 0..=order.len() {
        // The arguments say what is well for the first five and what is wrong for the others.
        let arguments: Vec<&str> =
            (0..order.len()).map(|place| if (place < 5) == (place < first) { "true" } else { "false" }).collect();
        let told: Option<String> = world.value(format!("select first_exclusion({})", arguments.join(", "))).await;
        assert_eq!(told.as_deref(), order.get(first).copied());
    }
    let known = world
        .row("select pg_get_constraintdef(oid) from pg_constraint where conname = 'payout_exclusions_reason_is_known'")
        .await;
    let in_constraint: Vec<&str> = known.split('\'').skip(1).step_by(2).collect();
    assert_eq!(in_constraint, order);
}

#[tokio::test]
async fn the_minimum_is_the_largest_of_the_platform_s_the_creator_s_and_stripe_s() {
    let usd = |name, settings, threshold_minor, platform, wanted| Case {
        name,
        settings,
        threshold_minor,
        platform,
        wanted,
        ..Case::default()
    };
    check(vec![
        usd("own above the platform's", "minimum_payout_amount = 100.01", 1_000, 10_000, "below_minimum 10000 10000 0"),
        usd("own reached", "minimum_payout_amount = 100", 1_000, 10_000, "pay 10000 10000 0"),
        usd("own below the platform's", "minimum_payout_amount = 1", 10_001, 10_000, "below_minimum 10000 10000 0"),
        usd("own finer than a cent rounds up", "minimum_payout_amount = 99.991", 0, 9_999, "below_minimum 9999 9999 0"),
        usd("own of zero", "minimum_payout_amount = 0", 0, 1, "pay 1 1 0"),
        // The platform's threshold is of dollars; nothing is said of euros, and yen have their own.
        Case {
            name: "another currency has no threshold",
            currency: "eur",
            threshold_minor: 99_999,
            platform: 100,
            wanted: "pay 100 100 0",
            ..Case::default()
        },
        Case {
            name: "yen below theirs",
            currency: "jpy",
            platform: 1_499,
            wanted: "below_minimum 1499 1499 0",
            ..Case::default()
        },
        Case { name: "yen at theirs", currency: "jpy", platform: 1_500, wanted: "pay 1500 1500 0", ..Case::default() },
        Case {
            name: "own in yen",
            currency: "jpy",
            settings: "minimum_payout_amount = 2000",
            platform: 1_999,
            wanted: "below_minimum 1999 1999 0",
            ..Case::default()
        },
        // What Stripe asks for in the country of the bank.
        Case {
            name: "El Salvador below",
            country: "SV",
            platform: 2_999,
            wanted: "below_minimum 2999 2999 0",
            ..Case::default()
        },
        Case { name: "El Salvador at", country: "SV", platform: 3_000, wanted: "pay 3000 3000 0", ..Case::default() },
        Case {
            name: "Albania below",
            country: "AL",
            currency: "all",
            platform: 299_999,
            wanted: "below_minimum 299999 299999 0",
            ..Case::default()
        },
        Case { name: "Albania in dollars, one unit", country: "AL", platform: 100, wanted: "pay 100 100 0", ..Case::default() },
    ])
    .await;
}

#[tokio::test]
async fn amounts_are_rounded_down_to_what_stripe_takes_connected_money_first() {
    let of =
        |name, currency, platform, connected, wanted| Case { name, currency, platform, connected, wanted, ..Case::default() };
    let automatic: fn(Json) -> Option<Json> = |it| changed(it, |it| it["settings"] = json!({}));
    let daily: fn(Json) -> Option<Json> =
        |it| changed(it, |it| it["settings"]["payouts"]["schedule"]["interval"] = json!("daily"));
    check(vec![
        of("connected first", "usd", 300, 700, "pay 1000 300 700"),
        of("connected only", "usd", 0, 700, "pay 700 0 700"),
        of("yen", "jpy", 2_345, 0, "pay 2345 2345 0"),
        of("forint to the bank in hundreds", "huf", 12_345, 0, "pay 12300 12300 0"),
        of("forint from both: the platform's part gives way", "huf", 1_234, 5_678, "pay 6900 1222 5678"),
        of("forint: all of the platform's part gives way", "huf", 10, 5_678, "pay 5600 0 5600"),
        of("less than a hundred forint", "huf", 99, 0, "below_minimum 0 0 0"),
        of("crowns without hellers", "isk", 12_345, 0, "pay 12300 12300 0"),
        of("crowns from both", "isk", 12_345, 6_789, "pay 19000 12300 6700"),
        of("dinar end in 0", "kwd", 12_345, 0, "pay 12340 12340 0"),
        of("new Taiwan dollars", "twd", 12_345, 0, "pay 12300 12300 0"),
        Case {
            name: "automatic: no payout leg, so no hundreds",
            currency: "huf",
            platform: 12_345,
            account: automatic,
            wanted: "pay 12345 12345 0",
            ..Case::default()
        },
        Case {
            name: "automatic: connected money is not ours to pay",
            platform: 300,
            connected: 700,
            account: automatic,
            wanted: "pay 300 300 0",
            ..Case::default()
        },
        Case {
            name: "daily is automatic",
            platform: 300,
            connected: 700,
            account: daily,
            wanted: "pay 300 300 0",
            ..Case::default()
        },
        Case { name: "reserve", reserve_ppm: 100_000, wanted: "pay 9000 9000 0", ..Case::default() },
        Case { name: "reserve of a third", reserve_ppm: 333_333, wanted: "pay 6666 6666 0", ..Case::default() },
        Case { name: "reserve of all", reserve_ppm: 1_000_000, wanted: "below_minimum 0 0 0", ..Case::default() },
        Case {
            name: "reserve stays with the platform's part",
            platform: 300,
            connected: 700,
            reserve_ppm: 100_000,
            wanted: "pay 900 200 700",
            ..Case::default()
        },
        Case {
            name: "reserve deep into the connected part",
            platform: 300,
            connected: 700,
            reserve_ppm: 500_000,
            wanted: "pay 500 0 500",
            ..Case::default()
        },
        Case {
            name: "debt first from the platform's part",
            platform: 300,
            connected: 700,
            debt_micros: 1_500_000,
            wanted: "pay 850 150 700",
            ..Case::default()
        },
        Case {
            name: "debt beyond the platform's part",
            platform: 300,
            connected: 700,
            debt_micros: 4_005_000,
            wanted: "pay 599 0 599",
            ..Case::default()
        },
        Case {
            name: "reserve of what the debt leaves",
            debt_micros: 50_000_000,
            reserve_ppm: 100_000,
            wanted: "pay 4500 4500 0",
            ..Case::default()
        },
    ])
    .await;
}

#[tokio::test]
async fn tokens_leave_the_fraction_of_a_cent_in_the_balance() {
    let world = World::new().await;
    world.creator(1).await;
    let tips = |count: i64| NewEarning { value: Value::Tokens(count), ..earning(&format!("tips {count}"), 1, 1) };
    world.record(vec![tips(1)]).await;
    world.mature(cutoff()).await;
    let case = Case::default();
    assert_eq!(ask(&world, &case, "null", COLUMNS).await, ["pay 4 4 0"], "4.5 cents");
    world.batches().await;
    assert_eq!(world.balance(1, "usd").await, "available_platform=5000 reserved_platform=40000");
    world.audit().await;
}

#[tokio::test]
async fn the_reserve_is_taken_anew_each_cycle_of_what_is_then_available() {
    let mut world = World::new().await;
    world.policy.reserve = Ppm(100_000);
    world.creator(1).await;
    world.earned(1, 10_000).await;
    let paid = |cycle| {
        format!(
            "select i.amount_minor from payout_items i join payout_batches b on b.id = i.batch_id join payout_runs r on r.id = b.run_id where cycle_on = '{cycle}'"
        )
    };
    world.batches().await;
    assert_eq!(world.row(&paid("2026-11-15")).await, "9000", "100 available at 10 % pays 90");
    // The 90 arrive.
    world.run("update payout_items set status = 'paid', due_at = null").await;
    world
        .run(
            "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
              select 'arrived', 'x', creator_id, currency, 'reserved_platform', 'paid_out', 90000000 from payout_items",
        )
        .await;
    world.earned(1, 10_000).await;
    world.cycle(Schedule::Semimonthly, "2026-12-01", 25).await;
    assert_eq!(world.row(&paid("2026-12-01")).await, "9900", "100 more makes 110 and pays 99");
    world.audit_ledger().await;
}

#[tokio::test]
async fn what_matured_after_the_cut_off_is_not_payable_at_it() {
    let world = World::new().await;
    world.creators(1..=2).await;
    let hold = chrono::Duration::days(7);
    let second = chrono::Duration::microseconds(1);
    world
        .record(vec![
            NewEarning { occurred_at: cutoff() - hold, ..earning("at the cut-off", 1, 1_000) },
            NewEarning { occurred_at: cutoff() - hold + second, ..earning("after it", 1, 500) },
            NewEarning {
                occurred_at: cutoff() - hold + second,
                place: Place::Connected,
                ..earning("after it, connected", 1, 300)
            },
            NewEarning { occurred_at: cutoff() - hold + second, ..earning("only after it", 2, 500) },
        ])
        .await;
    // The run comes days late, when everything has matured.
    world.mature(cutoff() + chrono::Duration::days(3)).await;
    assert_eq!(world.balance(1, "usd").await, "available_platform=15000000 available_connected=3000000");
    let case = Case::default();
    assert_eq!(ask(&world, &case, "null", COLUMNS).await, ["pay 1000 1000 0", "held 0 0 0"]);
    // Half of the late one is refunded since: what is payable at the cut-off stays the same.
    world.run("update creator_earnings set charge_id = 'ch_1' where source_id = 'after it'").await;
    let mut tx = world.tx().await;
    payday::earnings::store::take_back(&mut tx, "refund:ch_1", "ch_1", 250, "usd").await.expect("taken back");
    tx.commit(Boundary::Outside).await.expect("a commit");
    assert_eq!(ask(&world, &case, "null", COLUMNS).await, ["pay 1000 1000 0", "held 0 0 0"]);
    world.audit().await;
}

#[tokio::test]
async fn a_first_destination_is_no_change_and_another_one_cools_off() {
    let world = World::new().await;
    let bank = |fingerprint: Option<&str>| {
        let mut account = ready_account("acct_1");
        account["external_accounts"]["data"] =
            fingerprint.map_or(json!([]), |it| json!([{ "id": "ba_x", "fingerprint": it, "default_for_currency": true }]));
        account
    };
    world.run(format!("insert into payees (id) values ('{}')", creator(1))).await;
    world.earned(1, 10_000).await;
    let case = Case::default();
    for (when, account, wanted) in [
        ("2026-11-14T00:00:00Z", bank(None), "pay 10000 10000 0"),
        ("2026-11-14T01:00:00Z", bank(Some("a")), "pay 10000 10000 0"),
        ("2026-11-14T02:00:00Z", bank(Some("a")), "pay 10000 10000 0"),
        ("2026-11-14T03:00:00Z", bank(None), "pay 10000 10000 0"),
        ("2026-11-14T04:00:00Z", bank(Some("b")), "destination_cooloff 10000 10000 0"),
        ("2026-11-14T05:00:00Z", bank(Some("b")), "destination_cooloff 10000 10000 0"),
    ] {
        world.describe(1, account, when).await;
        assert_eq!(ask(&world, &case, "null", COLUMNS).await, [wanted], "{when}");
    }
    assert_eq!(world.row("select destination_changed_at = '2026-11-14T04:00:00Z' from stripe_accounts").await, "true");
    // Another account is another destination too.
    world.run("update stripe_accounts set destination_changed_at = null").await;
    let mut other = bank(Some("b"));
    other["id"] = json!("acct_1_new");
    world.describe(1, other, "2026-11-14T06:00:00Z").await;
    assert_eq!(ask(&world, &case, "null", COLUMNS).await, ["destination_cooloff 10000 10000 0"]);
}

#[tokio::test]
async fn an_earlier_item_in_the_same_currency_blocks_until_it_is_settled() {
    let world = World::new().await;
    world.creator(1).await;
    world.earned(1, 10_000).await;
    world.batches().await;
    world.earned(1, 500).await;
    world.record(vec![NewEarning { currency: currency("eur"), ..earning("eur", 1, 700) }]).await;
    let case = Case::default();
    for (status, wanted) in [
        ("pending", "unsettled_item"),
        ("awaiting_funds", "unsettled_item"),
        ("transferring", "unsettled_item"),
        ("transferred", "unsettled_item"),
        ("awaiting_available", "unsettled_item"),
        ("paying_out", "unsettled_item"),
        ("payout_blocked", "unsettled_item"),
        ("returned", "unsettled_item"),
        ("needs_review", "unsettled_item"),
        ("in_transit", "pay"),
        ("paid", "pay"),
        ("failed", "pay"),
        ("canceled", "pay"),
    ] {
        world.run(format!("update payout_items set status = '{status}'")).await;
        let found = ask(&world, &case, "null", "currency, coalesce(reason, 'pay')").await;
        assert_eq!(found, ["eur pay".to_owned(), format!("usd {wanted}")], "{status}");
    }
    let mut known: Vec<&str> = payday::payouts::item::Status::ALL.iter().map(|status| status.as_str()).collect();
    known.sort_unstable();
    assert_eq!(known.len(), 13, "a new status has to be placed above: {known:?}");
}
