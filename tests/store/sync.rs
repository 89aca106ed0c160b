//! The daily reading of all accounts makes good what no event told.

use payday::payees::{read_stale, sync};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::Stage;

async fn reads(stage: &Stage) -> u64 {
    sync::sync(&stage.db, &stage.payer.stripe).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()))
}

fn pages(stage: &Stage) -> usize {
    stage.double.calls().iter().filter(|call| call.endpoint == "GET /v1/accounts").count()
}

#[tokio::test]
async fn whatever_events_were_lost_readiness_is_right_after_a_day() {
    let stage = Stage::new().await;
    stage.accounts(1..=250);
    stage.creators(1..=240).await;
    stage.double.update_account("acct_1", |account| account.payouts_enabled = false);
    stage.double.update_account("acct_2", |account| account.past_due = vec!["external_account".to_owned()]);
    stage.double.deauthorize("acct_3");
    stage.run("update stripe_accounts set payouts_enabled = false where account = 'acct_4'").await;
    stage.run("update stripe_accounts set deauthorized_at = now() - interval '1 hour' where account = 'acct_5'").await;
    assert_eq!(reads(&stage).await, 239, "240 of the 250 are ours, and one has left");
    assert_eq!(pages(&stage), 3, "in pages of 100");
    assert_eq!(stage.rows("select account from stripe_accounts where stale").await, ["acct_3"], "the list lacks it");
    read_stale(&stage.db, &stage.payer.stripe).await.expect("read");
    let not_ready = "select account from payee_facts where not ready order by account";
    assert_eq!(stage.rows(not_ready).await, ["acct_1", "acct_2", "acct_3"]);
    assert_eq!(
        stage.row("select requirements->'past_due'->>0 from stripe_accounts where account = 'acct_2'").await,
        "external_account"
    );
    // Again: nothing is different.
    assert_eq!(reads(&stage).await, 239);
    assert_eq!(stage.rows(not_ready).await.len(), 3);
    assert_eq!(stage.count("outbox").await, 0);
}

#[tokio::test]
async fn interrupted_it_goes_on_where_it_was_and_what_is_known_from_later_stays() {
    let stage = Stage::new().await;
    stage.accounts(1..=250);
    stage.creators(1..=250).await;
    stage
        .run("update stripe_accounts set state_at = now() + interval '1 hour', payouts_enabled = false where account = 'acct_7'")
        .await;
    let fault = stage.double.fault(FaultRule::get("/v1/accounts", When::Nth(3), Fault::Html { status: 503 }));
    sync::sync(&stage.db, &stage.payer.stripe).await.expect_err("Stripe is away at the third page");
    stage.double.remove_fault(fault);
    let before = pages(&stage);
    assert_eq!(stage.count("stripe_accounts where stale").await, 0, "what was not read yet is not missing");
    assert_eq!(reads(&stage).await, 49, "the last page but the one that is known from later");
    assert_eq!(pages(&stage) - before, 1);
    assert_eq!(stage.rows("select account from stripe_accounts where not payouts_enabled").await, ["acct_7"]);
    assert_eq!(stage.count("stripe_accounts where stale").await, 0);
    assert_eq!(reads(&stage).await, 249, "the next day all of them again");
}
