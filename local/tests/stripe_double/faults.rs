//! Faults do what they say to the money, to the key and to the connection.

use payday_local::stripe_double::{Fault, FaultRule, When};

use crate::harness::{Stripe, TEN_TO_A, With, keyed};

async fn stripe_with(fault: Fault) -> Stripe {
    let stripe = Stripe::funded().await;
    stripe.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), fault));
    stripe
}

/// Sends the same transfer twice and returns both answers (none: no answer) and how often it was made.
async fn twice(fault: Fault) -> (Option<u16>, Option<u16>, usize) {
    let stripe = stripe_with(fault).await;
    let send = || async { stripe.send("POST", "/v1/transfers", TEN_TO_A, keyed("k")).await.map(|a| a.status) };
    let (first, second) = (send().await, send().await);
    (first, second, stripe.double.transfers().len())
}

/// <https://docs.stripe.com/error-low-level#network-errors>: whether it ran cannot be told from outside.
#[tokio::test]
async fn after_every_fault_the_same_key_ends_in_one_transfer_or_a_stored_error() {
    let error = |status, stored| Fault::Error { status, code: "x".to_owned(), message: "x".to_owned(), stored };
    let limited = Fault::RateLimited { reason: "global-rate".to_owned(), retry_after: Some(1) };
    let cases = [
        (Fault::ResetBefore, None, Some(200), 1),
        (Fault::Error500Before, Some(500), Some(200), 1),
        (Fault::Html { status: 502 }, Some(502), Some(200), 1),
        (limited, Some(429), Some(200), 1),
        (Fault::LockTimeout, Some(429), Some(200), 1),
        (Fault::Unauthorized, Some(401), Some(200), 1),
        (Fault::Forbidden, Some(403), Some(200), 1),
        (Fault::AccountInvalid, Some(403), Some(200), 1),
        (Fault::KeyInUse, Some(409), Some(200), 1),
        (Fault::Error500Stored, Some(500), Some(500), 0),
        (Fault::NotFound, Some(404), Some(404), 0),
        (Fault::BalanceInsufficient, Some(400), Some(400), 0),
        (error(402, true), Some(402), Some(402), 0),
        (error(402, false), Some(402), Some(200), 1),
        (Fault::ExecuteThenReset, None, Some(200), 1),
        (Fault::ExecuteThen500, Some(500), Some(500), 1),
        (Fault::ExecuteThenHtml { status: 504 }, Some(504), Some(200), 1),
        (Fault::Truncated, None, Some(200), 1),
        (Fault::Garbage, Some(200), Some(200), 1),
        (Fault::Slow { ms: 1 }, Some(200), Some(200), 1),
    ];
    for (fault, first, second, made) in cases {
        assert_eq!(twice(fault.clone()).await, (first, second, made), "{fault:?}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_waited_in_vain_finds_out_by_its_key() {
    for (fault, made_at_once) in [(Fault::TimeoutBefore, 0), (Fault::ExecuteThenHang, 1)] {
        let stripe = stripe_with(fault).await;
        let met = || stripe.double.faults()[0].fired == 1 && stripe.double.transfers().len() == made_at_once;
        tokio::select! {
            _ = stripe.transfer(TEN_TO_A, "k") => panic!("there is no answer"),
            () = until(met) => {}
        }
        let again = stripe.transfer(TEN_TO_A, "k").await;
        assert_eq!(again.header("idempotent-replayed").is_some(), made_at_once == 1);
        assert_eq!(stripe.double.transfers().len(), 1);
        assert!(stripe.double.audit().is_clean());
    }
}

/// A client that hangs up does not stop Stripe.
#[tokio::test]
async fn a_request_whose_client_left_is_executed_all_the_same() {
    let stripe = Stripe::funded().await;
    stripe.double.hold();
    tokio::select! {
        _ = stripe.transfer(TEN_TO_A, "k") => panic!("it is held"),
        () = stripe.double.held_requests(1) => {}
    }
    stripe.double.release();
    // The key is in use until it ran.
    loop {
        let again = stripe.transfer(TEN_TO_A, "k").await;
        if again.status != 409 {
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
            break;
        }
    }
    assert_eq!(stripe.double.transfers().len(), 1);
}

#[tokio::test]
async fn bent_answers_are_wrong_where_they_say_and_the_stored_ones_are_right() {
    type IsBent = fn(&serde_json::Value) -> bool;
    let cases: [(Fault, IsBent); 5] = [
        (Fault::WrongAmount, |t| t["amount"] == 1_001),
        (Fault::WrongCurrency, |t| t["currency"] == "eur"),
        (Fault::WrongDestination, |t| t["destination"] != "acct_a"),
        (Fault::UnknownEnum, |t| t["source_type"] == "from_the_future"),
        (Fault::MissingField { name: "created".to_owned() }, |t| t.get("created").is_none()),
    ];
    for (fault, is_bent) in cases {
        let stripe = stripe_with(fault.clone()).await;
        let first = stripe.transfer(TEN_TO_A, "k").await;
        let second = stripe.transfer(TEN_TO_A, "k").await;
        assert!(first.status == 200 && is_bent(&first.json), "{fault:?}: {}", first.text);
        assert!(second.status == 200 && !is_bent(&second.json), "{fault:?}: {}", second.text);
    }
}

#[tokio::test]
async fn a_fault_meets_the_calls_it_is_ordered_for_and_no_others() {
    let stripe = Stripe::funded().await;
    stripe.double.add_account(payday_local::stripe_double::AccountSpec::ready("acct_b", "US", "usd"));
    let rule = FaultRule::post("/v1/transfers", When::Every(2), Fault::BalanceInsufficient).for_account("acct_b");
    stripe.double.fault(rule);
    stripe.double.fault(FaultRule::get("/v1/payouts/*", When::First(1), Fault::Html { status: 503 }));
    let to_b = TEN_TO_A.replace("acct_a", "acct_b");
    let mut statuses = Vec::new();
    for n in 0..4 {
        stripe.transfer(TEN_TO_A, &format!("a{n}")).await;
        statuses.push(stripe.transfer(&to_b, &format!("b{n}")).await.status);
    }
    assert_eq!(statuses, [200, 400, 200, 400]);
    assert_eq!(stripe.get("/v1/payouts", "").await.status, 200);
    let unreachable = stripe.get("/v1/payouts/po_1", "").await;
    assert_eq!((unreachable.status, unreachable.header("content-type")), (503, Some("text/html")));
    assert_eq!(stripe.get("/v1/payouts/po_1", "").await.status, 404);
    let fired: Vec<u64> = stripe.double.faults().iter().map(|f| f.fired).collect();
    assert_eq!(fired, [2, 1]);
}

#[tokio::test]
async fn chance_is_repeatable_by_its_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let stripe = Stripe::funded().await;
        let when = When::PerMillion { chance: 300_000, seed: 11 };
        stripe.double.fault(FaultRule::get("/v1/balance", when, Fault::LockTimeout));
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(stripe.get("/v1/balance", "").await.status);
        }
        assert!(statuses.contains(&429) && statuses.contains(&200));
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_stripe_that_is_down_refuses_connections_and_comes_back_at_the_same_address() {
    let stripe = Stripe::funded().await;
    assert_eq!(stripe.get("/v1/balance", "").await.status, 200);
    stripe.double.go_down();
    // Open connections are cut and new ones refused, as soon as the listener is gone.
    while stripe.send("GET", "/v1/balance", "", With::default()).await.is_some() {}
    assert_eq!(stripe.double.transfers().len(), 0);
    stripe.double.go_up();
    let back = loop {
        if let Some(answer) = stripe.send("GET", "/v1/balance", "", With::default()).await {
            break answer;
        }
    };
    assert_eq!(back.status, 200);
}

#[tokio::test]
async fn a_fault_can_take_stripe_down_for_a_while() {
    let stripe = Stripe::funded().await;
    stripe.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), Fault::Refused { for_ms: 1 }));
    assert!(stripe.send("POST", "/v1/transfers", TEN_TO_A, keyed("k")).await.is_none());
    let again = loop {
        if let Some(answer) = stripe.send("POST", "/v1/transfers", TEN_TO_A, keyed("k")).await {
            break answer;
        }
    };
    assert_eq!((again.status, stripe.double.transfers().len()), (200, 1));
}

/// Half of the latency lies before the execution, half after: a webhook can come before the answer.
#[tokio::test]
async fn latency_is_at_least_what_was_asked_for() {
    let stripe = Stripe::funded().await;
    stripe.double.set_latency(30);
    let started = std::time::Instant::now();
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.status, 200);
    assert!(started.elapsed().as_millis() >= 30);
}

/// Two doubles never share an event id, or a database that was kept would take new events for old ones.
#[tokio::test]
async fn ids_differ_between_doubles_unless_they_have_the_same_seed() {
    let mut ids = Vec::new();
    for seed in [None, None, Some(1), Some(1)] {
        let options = payday_local::stripe_double::StripeDoubleOptions { seed, ..crate::harness::options() };
        let stripe = Stripe::start(options).await;
        ids.push(stripe.double.add_account(payday_local::stripe_double::AccountSpec::default()));
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2], ids[3]);
}

/// The same from another terminal.
#[tokio::test]
async fn curl_can_do_it_too() {
    let stripe = Stripe::funded().await;
    let admin = |path: &'static str, body: &'static str| {
        let stripe = &stripe;
        async move { stripe.send("POST", path, body, With::default()).await.expect("an answer") }
    };
    let fault = r#"{"method":"POST","path":"/v1/transfers","when":{"nth":1},"action":"balance_insufficient"}"#;
    assert_eq!(admin("/_double/faults", fault).await.status, 200);
    assert_eq!(admin("/_double/faults", r#"{"path":"/","action":"nonsense"}"#).await.status, 422);
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.code(), "balance_insufficient");
    let account = admin("/_double/accounts", r#"{"id":"acct_c","country":"DE","default_currency":"eur"}"#).await;
    assert_eq!(account.id(), "acct_c");
    assert_eq!(admin("/_double/accounts/acct_c", r#"{"payouts_enabled":false}"#).await.status, 200);
    assert_eq!(stripe.get("/v1/accounts/acct_c", "").await.json["payouts_enabled"], false);
    assert_eq!(admin("/_double/fund", r#"{"currency":"eur","amount":5000}"#).await.status, 200);
    assert_eq!(stripe.available(None, "eur"), 5_000);
    stripe.transfer(TEN_TO_A, "k2").await;
    stripe.payout("acct_a", "amount=500&currency=usd", "p").await;
    assert_eq!(admin("/_double/settle", "").await.int("/settled"), Some(1));
    assert_eq!(admin("/_double/clock", r#"{"advance_ms":1000}"#).await.int("/now_ms"), Some(crate::harness::START_MS + 1_000));
    for what in ["", "accounts", "transfers", "payouts", "events", "calls", "counts", "deliveries", "faults", "audit", "clock"] {
        assert_eq!(stripe.get(&format!("/_double/{what}"), "").await.status, 200, "{what}");
    }
    assert_eq!(stripe.get("/_double/nothing", "").await.status, 404);
}
