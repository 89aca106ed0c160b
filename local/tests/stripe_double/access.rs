//! Keys, accounts, pages and rates.

use payday_local::stripe_double::{AccountSpec, Rates, StripeDoubleOptions};

use crate::harness::{KEY, Stripe, TEN_TO_A, With, for_account, keyed, options};

fn as_key(key: &str) -> With<'_> {
    With { api_key: Some(key), ..With::default() }
}

/// <https://docs.stripe.com/api/authentication>, <https://docs.stripe.com/keys>
#[tokio::test]
async fn a_missing_wrong_revoked_or_live_key_is_a_401() {
    let stripe = Stripe::start(StripeDoubleOptions { keys: vec![KEY.to_owned()], ..options() }).await;
    for key in ["", "sk_test_other", "sk_live_double", "nonsense"] {
        let answer = stripe.get_as("/v1/balance", "", as_key(key)).await;
        assert_eq!((answer.status, answer.str("/error/type").as_str()), (401, "invalid_request_error"), "{key}");
        assert!(!answer.text.contains("sk_test_other"), "a key is masked in the message");
    }
    assert_eq!(stripe.get("/v1/balance", "").await.status, 200);
    stripe.double.revoke_key(KEY);
    let revoked = stripe.get("/v1/balance", "").await;
    assert_eq!((revoked.status, revoked.code().as_str()), (401, "api_key_expired"));
    stripe.double.allow_key("sk_test_new");
    assert_eq!(stripe.get_as("/v1/balance", "", as_key("sk_test_new")).await.status, 200);
}

/// <https://docs.stripe.com/keys#limit-access>
#[tokio::test]
async fn a_restricted_key_that_may_only_read_cannot_pay() {
    let stripe = Stripe::start(StripeDoubleOptions { read_only_keys: vec!["rk_test_reader".to_owned()], ..options() }).await;
    assert_eq!(stripe.get_as("/v1/balance", "", as_key("rk_test_reader")).await.status, 200);
    assert_eq!(stripe.post("/v1/transfers", TEN_TO_A, as_key("rk_test_reader")).await.status, 403);
}

/// <https://docs.stripe.com/error-codes#account-invalid>
#[tokio::test]
async fn an_account_that_is_not_ours_is_a_403_and_not_a_404() {
    let stripe = Stripe::funded().await;
    let header = stripe.get_as("/v1/balance", "", for_account("acct_none")).await;
    assert_eq!((header.status, header.code().as_str()), (403, "account_invalid"));
    let path = stripe.get("/v1/accounts/acct_none", "").await;
    assert_eq!((path.status, path.code().as_str()), (403, "account_invalid"));
    stripe.double.deauthorize("acct_a");
    assert_eq!(stripe.get("/v1/accounts/acct_a", "").await.code(), "account_invalid");
    assert_eq!(stripe.payout("acct_a", "amount=100&currency=usd", "k").await.code(), "account_invalid");
    assert_eq!(stripe.transfer(TEN_TO_A, "k").await.code(), "resource_missing");
    assert_eq!(stripe.get("/v1/accounts", "").await.ids().len(), 0);
    assert_eq!(stripe.double.events().last().map(|e| e.kind.clone()).as_deref(), Some("account.application.deauthorized"));
}

/// <https://docs.stripe.com/api/errors>, <https://docs.stripe.com/api/request_ids>
#[tokio::test]
async fn every_answer_has_a_request_id_and_every_error_its_envelope() {
    let stripe = Stripe::funded().await;
    let fine = stripe.get("/v1/balance", "").await;
    assert!(fine.header("request-id").is_some_and(|id| id.starts_with("req_")));
    let error = stripe.get("/v1/payouts/po_none", "").await;
    let request_id = error.header("request-id").expect("a request id").to_owned();
    assert!(error.str("/error/request_log_url").contains(&request_id));
    assert_eq!(error.str("/error/doc_url"), "https://stripe.com/docs/error-codes/resource-missing");
    let unknown = stripe.get("/v1/nothing", "").await;
    assert_eq!((unknown.status, unknown.str("/error/type").as_str()), (404, "invalid_request_error"));
}

/// "A limit on the number of objects to be returned, between 1 and 100." <https://docs.stripe.com/api/pagination>
#[tokio::test]
async fn pages_hold_at_most_100_newest_first_and_follow_each_other() {
    let stripe = Stripe::start(options()).await;
    let specs = (0..230).map(|n| AccountSpec::ready(&format!("acct_{n:03}"), "US", "usd"));
    stripe.double.add_accounts(specs);
    assert_eq!(stripe.get("/v1/accounts", "").await.ids().len(), 10);
    for limit in ["0", "101", "1000000000", "-1", "x"] {
        assert_eq!(stripe.get("/v1/accounts", &format!("limit={limit}")).await.status, 400, "{limit}");
    }
    let mut all = Vec::new();
    let mut query = "limit=100".to_owned();
    loop {
        let page = stripe.get("/v1/accounts", &query).await;
        let ids = page.ids();
        query = format!("limit=100&starting_after={}", ids.last().expect("no empty page"));
        all.extend(ids);
        if page.json["has_more"] == false {
            break;
        }
    }
    let expected: Vec<String> = (0..230).rev().map(|n| format!("acct_{n:03}")).collect();
    assert_eq!(all, expected);
    let newer = stripe.get("/v1/accounts", "limit=2&ending_before=acct_100").await;
    assert_eq!(newer.ids(), ["acct_102", "acct_101"]);
    let forged = stripe.get("/v1/accounts", "starting_after=acct_zzz").await;
    assert_eq!((forged.status, forged.str("/error/param").as_str()), (400, "starting_after"));
}

/// <https://docs.stripe.com/api/transfers/list>, <https://docs.stripe.com/api/payouts/list>
#[tokio::test]
async fn lists_are_filtered_by_group_destination_and_time() {
    let stripe = Stripe::funded().await;
    stripe.double.add_account(AccountSpec::ready("acct_b", "US", "usd"));
    stripe.transfer(TEN_TO_A, "k1").await;
    stripe.double.advance(crate::harness::HOUR);
    let since = stripe.double.now_ms() / 1000;
    stripe.transfer(&TEN_TO_A.replace("item_1", "item_2"), "k2").await;
    stripe.transfer(&TEN_TO_A.replace("acct_a", "acct_b"), "k3").await;
    let cases = [
        ("transfer_group=item_1".to_owned(), 2),
        ("transfer_group=item_1&destination=acct_b".to_owned(), 1),
        ("transfer_group=none".to_owned(), 0),
        ("destination=acct_a".to_owned(), 2),
        (format!("created[gte]={since}"), 2),
        (format!("created[lt]={since}"), 1),
        (format!("created={since}&destination=acct_a"), 1),
    ];
    for (query, count) in cases {
        assert_eq!(stripe.get("/v1/transfers", &query).await.ids().len(), count, "{query}");
    }
    // Payouts cannot be searched by metadata or group.
    let by_metadata = stripe.get_as("/v1/payouts", "metadata[item_id]=1", for_account("acct_a")).await;
    assert_eq!(by_metadata.code(), "parameter_unknown");
}

/// An event of a connected account is listed in its name only, and for 30 days. <https://docs.stripe.com/api/events>
#[tokio::test]
async fn events_are_listed_by_type_for_whom_they_concern_and_forgotten_after_30_days() {
    let stripe = Stripe::funded().await;
    stripe.transfer(TEN_TO_A, "k1").await;
    stripe.payout("acct_a", "amount=1000&currency=usd", "k2").await;
    stripe.double.settle_payouts();
    assert_eq!(stripe.get("/v1/events", "").await.json["data"][0]["type"], "transfer.created");
    assert_eq!(stripe.get("/v1/events", "type=payout.*").await.ids().len(), 0);
    let own = |query: &str| {
        let query = query.to_owned();
        let stripe = &stripe;
        async move { stripe.get_as("/v1/events", &query, for_account("acct_a")).await }
    };
    assert_eq!(own("type=payout.*").await.ids().len(), 3);
    assert_eq!(own("types[]=payout.paid&types[]=payout.failed").await.ids().len(), 1);
    let event = own("types[0]=payout.paid").await;
    assert_eq!(event.json["data"][0]["account"], "acct_a");
    assert_eq!(event.json["data"][0]["data"]["object"]["status"], "paid");
    stripe.double.advance(crate::harness::DAY * 31);
    assert_eq!(own("").await.ids().len(), 0);
}

/// <https://docs.stripe.com/rate-limits>: "create payout … 15 requests per second", 25 for other endpoints
#[tokio::test]
async fn rates_hold_per_endpoint_and_together_and_say_which() {
    let stripe = Stripe::start(StripeDoubleOptions { rates: Rates::live(), ..options() }).await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    stripe.double.fund_account(Some("acct_a"), "usd", 100_000);
    let mut limited = Vec::new();
    for n in 0..16 {
        let answer = stripe.payout("acct_a", "amount=100&currency=usd", &format!("p{n}")).await;
        if answer.status == 429 {
            limited.push((n, answer.header("stripe-rate-limited-reason").map(str::to_owned), answer.code()));
        }
    }
    assert_eq!(limited, [(15, Some("endpoint-rate".to_owned()), "rate_limit".to_owned())]);
    for _ in 0..25 {
        assert_eq!(stripe.get("/v1/balance", "").await.status, 200);
    }
    assert_eq!(stripe.get("/v1/balance", "").await.status, 429);
    stripe.double.set_rates(Rates { global: Some(3), endpoint: None, ..Rates::live() });
    for _ in 0..3 {
        assert_eq!(stripe.get("/v1/balance", "").await.status, 200);
    }
    let all = stripe.get("/v1/accounts", "").await;
    assert_eq!(all.header("stripe-rate-limited-reason"), Some("global-rate"));
    // A third of a second later there is room for one.
    stripe.double.advance(std::time::Duration::from_millis(334));
    assert_eq!(stripe.get("/v1/accounts", "").await.status, 200);
    assert_eq!(stripe.get("/v1/accounts", "").await.status, 429);
    let counts = stripe.double.counts();
    assert_eq!((counts.accepted, counts.limited), (15 + 25 + 4, 4));
}

/// "… and 30 concurrent requests"
#[tokio::test]
async fn at_most_so_many_payouts_are_created_at_once() {
    let stripe =
        Stripe::start(StripeDoubleOptions { rates: Rates { payouts_at_once: Some(2), ..Rates::unlimited() }, ..options() }).await;
    stripe.double.add_account(AccountSpec::ready("acct_a", "US", "usd"));
    stripe.double.fund_account(Some("acct_a"), "usd", 1_000);
    stripe.double.hold();
    let third = async {
        stripe.double.held_requests(2).await;
        let third = stripe.payout("acct_a", "amount=100&currency=usd", "k3").await;
        stripe.double.release();
        third
    };
    let form = "amount=100&currency=usd";
    let (one, two, third) = tokio::join!(stripe.payout("acct_a", form, "k1"), stripe.payout("acct_a", form, "k2"), third);
    assert_eq!((one.status, two.status, third.status), (200, 200, 429));
    assert_eq!(third.header("stripe-rate-limited-reason"), Some("endpoint-concurrency"));
    assert_eq!(stripe.payout("acct_a", form, "k3").await.status, 200);
}

/// <https://docs.stripe.com/api/accounts/create>, <https://docs.stripe.com/api/account_links/create>
#[tokio::test]
async fn a_new_account_can_do_nothing_until_it_is_onboarded() {
    let stripe = Stripe::funded().await;
    let form = "type=express&country=DE&email=a@example.com&default_currency=eur&capabilities[transfers][requested]=true\
                &capabilities[card_payments][requested]=true&settings[payouts][schedule][interval]=manual&metadata[creator]=7";
    let account = stripe.post("/v1/accounts", form, keyed("a")).await;
    assert_eq!((account.status, account.str("/country").as_str()), (200, "DE"));
    assert_eq!(account.json["payouts_enabled"], false);
    assert_eq!(account.str("/settings/payouts/schedule/interval"), "manual");
    assert_eq!(account.str("/capabilities/transfers"), "inactive");
    let link = format!("account={}&type=account_onboarding&refresh_url=https://x/&return_url=https://x/", account.id());
    assert!(stripe.post("/v1/account_links", &link, keyed("l")).await.str("/url").starts_with("https://connect.stripe.com/"));
    let transfer = format!("amount=100&currency=usd&destination={}", account.id());
    assert_eq!(stripe.transfer(&transfer, "t").await.code(), "insufficient_capabilities_for_transfer");
    // Its owner gives what is wanted.
    stripe.double.finish_onboarding(&account.id());
    assert_eq!(stripe.transfer(&transfer, "t2").await.status, 200);
}

/// <https://docs.stripe.com/connect/service-agreement-types>
#[tokio::test]
async fn an_account_that_its_agreement_does_not_allow_is_refused_and_the_refusal_kept_under_the_key() {
    let stripe = Stripe::funded().await;
    let both = "capabilities[transfers][requested]=true&capabilities[card_payments][requested]=true";
    let transfers = "capabilities[transfers][requested]=true";
    let recipient = "tos_acceptance[service_agreement]=recipient";
    for (form, status) in [
        (format!("country=DE&{both}"), 200),
        (format!("country=TH&{transfers}&{recipient}"), 200),
        (format!("country=DE&{transfers}"), 400),
        (format!("country=TH&{both}"), 400),
        (format!("country=TH&{both}&{recipient}"), 400),
        (format!("country=US&{transfers}&{recipient}"), 400),
        (format!("country=ZZ&{both}"), 400),
        (format!("country=US&{both}&email=nobody"), 400),
        (format!("country=US&{both}&colour=red"), 400),
        (format!("country=US&{both}&type=express&controller[stripe_dashboard][type]=express"), 400),
    ] {
        assert_eq!(stripe.post("/v1/accounts", &form, keyed(&form)).await.status, status, "{form}");
    }
    let refused = stripe.post("/v1/accounts", "country=ZZ", keyed("z")).await;
    let again = stripe.post("/v1/accounts", "country=ZZ", keyed("z")).await;
    assert_eq!((refused.status, again.header("idempotent-replayed")), (400, Some("true")));
    assert_eq!(stripe.post("/v1/accounts", "country=US", keyed("z")).await.status, 400, "the key belongs to other bytes");
    let id = stripe.post("/v1/accounts", &format!("country=US&{both}"), keyed("us")).await.id();
    for link in [
        "type=account_onboarding",
        "type=account_onboarding&refresh_url=x&return_url=https://x/",
        "type=login&refresh_url=https://x/&return_url=https://x/",
    ] {
        assert_eq!(stripe.post("/v1/account_links", &format!("account={id}&{link}"), keyed(link)).await.status, 400, "{link}");
    }
}
