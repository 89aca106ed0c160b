//! Several currencies at once: a batch for each, by its own rules, thresholds and minimums, and never a sum over two.

use payday::earnings::{NewEarning, Value};
use payday_local::stripe_double::BankSpec;
use payday_tests::stage::{Stage, double_options};
use payday_tests::world::{World, account_of, creator, currency, cutoff, earning};

/// What creator 1 has earned (minor units), what is paid of it, and what stays.
const OF_ONE: [(&str, i64, i64, &str); 6] = [
    ("usd", 1_234, 1_234, "paid_out=12340000"),
    ("eur", 5_678, 5_678, "paid_out=56780000"),
    ("jpy", 9_000, 9_000, "paid_out=9000000000"),
    // Hundreds only: of transfers and payouts, and of payouts.
    ("isk", 12_300, 12_300, "paid_out=123000000"),
    ("huf", 12_345, 12_300, "available_platform=450000 paid_out=123000000"),
    // Three decimals, of which the last is zero.
    ("kwd", 4_560, 4_560, "paid_out=4560000"),
];

fn earned(n: u128, code: &str, minor: i64) -> NewEarning {
    let value = Value::Amount { minor, fee_minor: Some(0) };
    NewEarning { value, currency: currency(code), ..earning(&format!("{n}:{code}"), n, minor) }
}

#[tokio::test]
async fn each_currency_is_paid_by_its_own_rules_in_a_batch_of_its_own() {
    let mut world = World::new().await;
    world.policy.thresholds_minor = [("usd".to_owned(), 1_000), ("eur".to_owned(), 5_000)].into();
    let stage = Stage::on(world, double_options()).await;
    stage.accounts(1..=2);
    stage.creators(1..=2).await;
    for n in 1..=2 {
        stage.double.update_account(&account_of(n), |account| {
            let bank = account.banks[0].clone();
            let banks = OF_ONE.map(|(code, ..)| BankSpec { id: format!("ba_{code}"), currency: code.to_owned(), ..bank.clone() });
            account.banks = banks.into();
        });
    }
    for (code, ..) in OF_ONE {
        stage.double.fund(code, 100_000_000);
    }
    let mut earnings: Vec<NewEarning> = OF_ONE.iter().map(|(code, minor, ..)| earned(1, code, *minor)).collect();
    // The same number in each: enough of one currency is not enough of another.
    earnings.extend(["usd", "eur", "jpy"].map(|code| earned(2, code, 1_000)));
    stage.record(earnings).await;
    stage.batches().await;
    let batches = "select currency, items, amount_minor from payout_batches order by currency";
    let expected = ["eur 1 5678", "huf 1 12300", "isk 1 12300", "jpy 2 10000", "kwd 1 4560", "usd 2 2234"];
    assert_eq!(stage.rows(batches).await, expected);
    assert_eq!(
        stage.rows("select creator_id, currency, reason, payable_minor from payout_exclusions order by 2").await,
        [format!("{} eur below_minimum 1000", creator(2))],
        "the threshold of euros is of euros"
    );
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;
    assert_eq!(stage.statuses().await, "paid=8");
    for (code, _, paid, balance) in OF_ONE {
        let sent = format!(
            "select string_agg(distinct o.leg || ' ' || o.amount_minor, ', ' order by o.leg || ' ' || o.amount_minor) from payout_operations o
             join payout_items i on i.id = o.item_id where o.currency = '{code}' and i.creator_id = '{}'",
            creator(1)
        );
        assert_eq!(stage.row(&sent).await, format!("payout {paid}, transfer {paid}"), "{code}");
        assert_eq!(stage.balance(1, code).await, balance, "{code}");
    }
    assert_eq!(stage.balance(2, "eur").await, "available_platform=10000000");
    stage.audit().await;
}

#[tokio::test]
async fn a_debt_in_one_currency_is_not_paid_with_another() {
    let world = World::new().await;
    world.creator(1).await;
    world.record(vec![earned(1, "usd", 5_000), earned(1, "eur", 5_000)]).await;
    world.mature(cutoff()).await;
    world
        .run(format!(
            "insert into ledger_transfers (event, leg, payee_id, currency, from_account, to_account, amount_micros)
             values ('debt', 'test', '{}', 'usd', 'debt', 'earnings', 80000000)",
            creator(1)
        ))
        .await;
    let (run, created) = world.batches().await;
    assert_eq!((created.items, created.excluded), (1, 1));
    assert_eq!(world.rows("select currency, amount_minor from payout_items").await, ["eur 5000"]);
    assert_eq!(world.rows(&format!("select currency, reason from payout_exclusions where run_id = {run}")).await, ["usd debt"]);
    assert_eq!(world.balance(1, "usd").await, "debt=-30000000");
}
