//! The double's own side, for curl from another terminal: `GET /_double/` lists what there is.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StripeDouble;
use super::charges::DestinationCharge;
use super::faults::FaultRule;
use super::pipeline::Answer;
use super::rates::Rates;
use super::spec::{AccountSpec, Settlement};
use super::state::Inner;
use super::webhooks::{DeliveryOptions, DeliveryRule, WebhookTarget};

const HELP: &str = r#"{"GET":["accounts","transfers","payouts","events","calls","counts","deliveries","faults","audit","clock"],
"POST":{"accounts":"an AccountSpec","accounts/ID":"fields of it to change","accounts/ID/finish":"","accounts/ID/deauthorize":"",
"fund":{"currency":"usd","amount":100000,"account":null},"charges":"a DestinationCharge",
"refunds":{"charge":"ch_…","amount":100,"reverse_transfer":true,"refund_application_fee":false},
"disputes":{"charge":"ch_…","amount":100,"reason":"fraudulent"},"disputes/ID/close":{"won":false},
"settle":"","payouts/ID/settle":"","payouts/ID/send":"","payouts/ID/fail":{"code":"account_closed"},"transfers/ID/reverse":{"amount":100},
"settlement":"manual","faults":"a FaultRule","faults/clear":"","keys/revoke":{"key":"…"},"keys/allow":{"key":"…"},"keys/expire":"",
"down":{"for_ms":1000},"rates":"Rates","latency":{"ms":120},"clock":{"advance_ms":86400000},
"webhooks":"a WebhookTarget","delivery":"DeliveryOptions","delivery/rules":"a DeliveryRule","delivery/pause":"","delivery/resume":"","delivery/release":""}}
"#;

#[derive(Deserialize)]
struct Fund {
    currency: String,
    amount: i64,
    account: Option<String>,
}

#[derive(Deserialize)]
struct Refund {
    charge: String,
    amount: i64,
    #[serde(default)]
    reverse_transfer: bool,
    #[serde(default)]
    refund_application_fee: bool,
}

#[derive(Deserialize)]
struct NewDispute {
    charge: String,
    amount: i64,
    reason: String,
}

#[derive(Deserialize)]
struct Won {
    won: bool,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Amount {
    amount: i64,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ForMs {
    for_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Ms {
    ms: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Time {
    advance_ms: Option<u64>,
    set_ms: Option<i64>,
}

type Outcome = Result<serde_json::Value, (u16, String)>;

pub(super) fn answer(inner: &Arc<Inner>, method: &str, path: &str, body: &[u8]) -> Answer {
    let double = StripeDouble::handle(inner);
    let path = path.strip_prefix("/_double").unwrap_or_default().trim_matches('/');
    let outcome = match method {
        "GET" => read(&double, path),
        "POST" => act(&double, path, body),
        _ => Err((405, "GET or POST".to_owned())),
    };
    let (status, value) = match outcome {
        Ok(value) => (200, value),
        Err((status, message)) => (status, serde_json::json!({ "error": message })),
    };
    let mut text = serde_json::to_vec(&value).unwrap_or_default();
    text.push(b'\n');
    Answer { status, html: false, body: Bytes::from(text), headers: Vec::new() }
}

fn read(double: &StripeDouble, path: &str) -> Outcome {
    match path {
        "" => serde_json::from_str(HELP).map_err(|e| (500, e.to_string())),
        "accounts" => shown(&double.accounts()),
        "transfers" => shown(&double.transfers()),
        "payouts" => shown(&double.payouts()),
        "events" => {
            let events = double.events();
            let line = |event: &Arc<super::Event>| {
                serde_json::json!({ "id": event.id, "type": event.kind, "account": event.account,
                    "object_id": event.object_id, "created": event.created })
            };
            Ok(events.iter().map(line).collect())
        }
        "calls" => shown(&double.calls()),
        "counts" => shown(&double.counts()),
        "deliveries" => Ok(serde_json::json!({ "state": double.delivery_state(), "attempts": double.deliveries() })),
        "faults" => shown(&double.faults()),
        "audit" => shown(&double.audit()),
        "clock" => Ok(serde_json::json!({ "now_ms": double.now_ms() })),
        _ => Err(unknown(path)),
    }
}

fn act(double: &StripeDouble, path: &str, body: &[u8]) -> Outcome {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["accounts"] => Ok(serde_json::json!({ "id": double.add_account(parsed(body)?) })),
        ["accounts", id] => change_account(double, id, body),
        ["accounts", id, "finish"] => found(double.finish_onboarding(id)),
        ["accounts", id, "deauthorize"] => found(double.deauthorize(id)),
        ["fund"] => {
            let fund: Fund = parsed(body)?;
            found(double.fund_account(fund.account.as_deref(), &fund.currency, fund.amount))
        }
        ["charges"] => {
            let charge: DestinationCharge = parsed(body)?;
            shown(&double.create_destination_charge(&charge).map_err(refused)?)
        }
        ["refunds"] => {
            let r: Refund = parsed(body)?;
            let id = double.refund(&r.charge, r.amount, r.reverse_transfer, r.refund_application_fee).map_err(refused)?;
            Ok(serde_json::json!({ "id": id }))
        }
        ["disputes"] => {
            let d: NewDispute = parsed(body)?;
            Ok(serde_json::json!({ "id": double.dispute(&d.charge, d.amount, &d.reason).map_err(refused)? }))
        }
        ["disputes", id, "close"] => {
            double.close_dispute(id, parsed::<Won>(body)?.won).map_err(refused)?;
            done()
        }
        ["settle"] => Ok(serde_json::json!({ "settled": double.settle_payouts() })),
        ["settlement"] => {
            double.set_settlement(parsed::<Settlement>(body)?);
            done()
        }
        ["payouts", id, "settle"] => found(double.settle_payout(id)),
        ["payouts", id, "send"] => found(double.send_payout(id)),
        ["payouts", id, "fail"] => found(double.fail_payout(id, &parsed::<Code>(body)?.code)),
        ["transfers", id, "reverse"] => {
            double.reverse_transfer(id, parsed::<Amount>(body)?.amount).map_err(refused)?;
            done()
        }
        ["faults"] => Ok(serde_json::json!({ "id": double.fault(parsed::<FaultRule>(body)?) })),
        ["faults", "clear"] => {
            double.clear_faults();
            done()
        }
        ["keys", "revoke"] => {
            double.revoke_key(&parsed::<Key>(body)?.key);
            done()
        }
        ["keys", "allow"] => {
            double.allow_key(&parsed::<Key>(body)?.key);
            done()
        }
        ["keys", "expire"] => {
            double.expire_keys();
            done()
        }
        ["down"] => match parsed_or_default::<ForMs>(body)?.for_ms {
            Some(ms) => {
                double.go_down_for(Duration::from_millis(ms));
                done()
            }
            None => Err((422, "for_ms is needed: nobody could be told to come up again".to_owned())),
        },
        ["rates"] => {
            double.set_rates(parsed::<Rates>(body)?);
            done()
        }
        ["latency"] => {
            double.set_latency(parsed::<Ms>(body)?.ms);
            done()
        }
        ["clock"] => {
            let time: Time = parsed(body)?;
            if let Some(to) = time.set_ms {
                double.set_time_ms(to);
            }
            double.advance(Duration::from_millis(time.advance_ms.unwrap_or(0)));
            Ok(serde_json::json!({ "now_ms": double.now_ms() }))
        }
        ["webhooks"] => {
            double.set_webhooks(Some(parsed::<WebhookTarget>(body)?));
            done()
        }
        ["delivery"] => {
            double.set_delivery(parsed::<DeliveryOptions>(body)?);
            done()
        }
        ["delivery", "rules"] => {
            double.delivery_rule(parsed::<DeliveryRule>(body)?);
            done()
        }
        ["delivery", "rules", "clear"] => {
            double.clear_delivery_rules();
            done()
        }
        ["delivery", "pause"] => {
            double.pause_webhooks();
            done()
        }
        ["delivery", "resume"] => {
            double.resume_webhooks();
            done()
        }
        ["delivery", "release"] => {
            double.release_held_webhooks();
            done()
        }
        ["events", id, "resend"] => found(double.resend_event(id)),
        _ => Err(unknown(path)),
    }
}

/// The given fields replace those of the account.
fn change_account(double: &StripeDouble, id: &str, body: &[u8]) -> Outcome {
    let patch: serde_json::Map<String, serde_json::Value> = parsed(body)?;
    let spec = double.account(id).ok_or_else(|| (404, format!("no account {id}")))?;
    let mut value = serde_json::to_value(&spec).map_err(|e| (500, e.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        fields.extend(patch);
    }
    let changed: AccountSpec = serde_json::from_value(value).map_err(|e| (422, e.to_string()))?;
    found(double.update_account(id, |spec| *spec = changed))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, (u16, String)> {
    serde_json::from_slice(body).map_err(|e| (422, e.to_string()))
}

fn parsed_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, (u16, String)> {
    if body.is_empty() { Ok(T::default()) } else { parsed(body) }
}

fn shown<T: Serialize>(value: &T) -> Outcome {
    serde_json::to_value(value).map_err(|e| (500, e.to_string()))
}

/// All done.
fn done() -> Outcome {
    Ok(serde_json::json!({ "ok": true }))
}

fn found(was: bool) -> Outcome {
    if was { done() } else { Err((404, "no such object, or an unknown currency".to_owned())) }
}

fn refused(message: String) -> (u16, String) {
    (422, message)
}

fn unknown(path: &str) -> (u16, String) {
    (404, format!("no {path}; GET /_double/ lists what there is"))
}
