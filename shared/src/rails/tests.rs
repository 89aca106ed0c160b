//! Every answer of Stripe, on the first send and on a send in doubt: the table of the money rules.

use http::{HeaderMap, StatusCode};

use super::*;

fn asked() -> Asked {
    Asked { leg: Leg::Transfer, amount_minor: 4_500, currency: "usd".to_owned(), account: "acct_1".to_owned() }
}

fn answer(status: u16, body: &str) -> Result<Answer, Failure> {
    Ok(Answer {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
    })
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(accepted) => format!("accepted {}", accepted.stripe_id),
        Outcome::Rejected(refusal) => format!("rejected {refusal:?}"),
        Outcome::NotRun(hindrance) => format!("not run {hindrance:?}"),
        Outcome::Unknown { look_up: true, .. } => "unknown, look up".to_owned(),
        Outcome::Unknown { look_up: false, .. } => "unknown".to_owned(),
        Outcome::Frozen { .. } => "frozen".to_owned(),
    }
}

fn refusal(code: &str) -> String {
    format!(r#"{{"error":{{"type":"invalid_request_error","code":"{code}","message":"no"}}}}"#)
}

#[test]
fn each_answer_means_what_the_money_rules_say() {
    let good = r#"{"id":"tr_1","amount":4500,"currency":"usd","destination":"acct_1"}"#;
    let table: Vec<(u16, String, &str, &str)> = vec![
        (200, good.into(), "accepted tr_1", "accepted tr_1"),
        (200, good.replace("\"acct_1\"", r#"{"id":"acct_1"}"#), "accepted tr_1", "accepted tr_1"),
        (200, good.replace('}', r#","new_enum":{"x":[1]}}"#), "accepted tr_1", "accepted tr_1"),
        (200, good.replace("4500", "4501"), "frozen", "frozen"),
        (200, good.replace("usd", "eur"), "frozen", "frozen"),
        (200, good.replace("acct_1", "acct_2"), "frozen", "frozen"),
        (200, good[..30].into(), "unknown", "unknown"),
        (200, "<html>".into(), "unknown", "unknown"),
        (400, r#"{"error":{"type":"idempotency_error","message":"other parameters"}}"#.into(), "frozen", "frozen"),
        (400, refusal("balance_insufficient"), "rejected Funds", "rejected Funds"),
        (400, refusal("payouts_not_allowed"), "rejected Other", "rejected Other"),
        (400, refusal("parameter_invalid_integer"), "rejected Other", "unknown, look up"),
        (401, refusal("api_key_expired"), "not run KeyRefused", "unknown"),
        (403, refusal("more_permissions_required"), "not run KeyRefused", "unknown"),
        (403, refusal("account_invalid"), "rejected NoAccount", "unknown, look up"),
        (404, refusal("resource_missing"), "rejected NoAccount", "unknown, look up"),
        (409, refusal("idempotency_key_in_use"), "unknown", "unknown"),
        (429, refusal("rate_limit"), "not run RateLimited", "unknown"),
        (429, "".into(), "not run RateLimited", "unknown"),
        (400, refusal("lock_timeout"), "not run RateLimited", "unknown"),
        (500, refusal("api_error"), "unknown, look up", "unknown, look up"),
        (502, "<html>".into(), "unknown", "unknown"),
        (503, "".into(), "unknown", "unknown"),
        (504, "".into(), "unknown", "unknown"),
    ];
    for (status, body, first, in_doubt) in table {
        assert_eq!(word(&read_answer(&asked(), answer(status, &body), false).outcome), first, "{status} {body}, first send");
        assert_eq!(word(&read_answer(&asked(), answer(status, &body), true).outcome), in_doubt, "{status} {body}, in doubt");
    }
}

#[test]
fn a_request_that_never_left_was_not_run_unless_an_earlier_one_may_have_been() {
    let refused = || Err(Failure::NotSent("connection refused".to_owned()));
    assert_eq!(word(&read_answer(&asked(), refused(), false).outcome), "not run Unreachable");
    assert_eq!(word(&read_answer(&asked(), refused(), true).outcome), "unknown");
    for in_doubt in [false, true] {
        assert_eq!(word(&read_answer(&asked(), Err(Failure::Unanswered("timed out".to_owned())), in_doubt).outcome), "unknown");
    }
}

#[test]
fn a_replayed_error_is_looked_up_because_saying_it_again_will_not_change_it() {
    let mut answer = answer(503, "").expect("an answer");
    answer.headers.insert("idempotent-replayed", http::HeaderValue::from_static("true"));
    let reply = read_answer(&asked(), Ok(answer), true);
    assert_eq!(word(&reply.outcome), "unknown, look up");
    assert!(reply.replayed);
}

#[test]
fn an_answer_with_a_nul_in_it_can_be_kept() {
    let body = r#"{"error":{"type":"card_error","code":"a\u0000b","message":"\u0000"}}"#;
    let reply = read_answer(&asked(), answer(402, body), false);
    assert_eq!((reply.code.as_deref(), reply.message.as_deref()), (Some("a\u{fffd}b"), Some("\u{fffd}")));
}
