//! What happens between the import and the cycle: disputes of charges that earnings name, and creators who give Stripe another
//! bank account.
//!
//! The double knows only charges that it made itself, and gives them ids of its own; the sample's charges are older than it. So a
//! dispute's event is made and signed here, and its money taken from the platform's balance. Raising the same world twice is
//! harmless: the event ids repeat, and a receiver takes each once.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::world::{Dispute, World};
use crate::stripe_double::{StripeDouble, WebhookTarget, signature};

/// Stripe's fee for a dispute in the default currency, whoever wins.
const DISPUTE_FEE_MINOR: i64 = 1_500;
/// Stripe delivers again what is not answered with a 2xx; a receiver that starts gets a few chances here too.
const ATTEMPTS: u32 = 20;

impl World {
    /// Whether anything happens between the import and the cycle.
    pub fn has_troubles(&self) -> bool {
        !self.disputes.is_empty() || !self.bank_changes.is_empty()
    }

    /// The `charge.dispute.created` events, as Stripe would send them.
    pub fn dispute_events(&self, now_seconds: i64) -> Vec<Value> {
        self.disputes.iter().map(|dispute| event(dispute, now_seconds)).collect()
    }

    /// Raises the disputes, waiting until each event was taken, and changes the bank accounts; the double delivers the events of
    /// the latter (`StripeDouble::all_delivered`). Call it when payees and earnings are imported and nothing was dispatched.
    pub async fn raise(&self, double: &StripeDouble, webhooks: &WebhookTarget) -> Result<()> {
        if !self.has_troubles() {
            return Ok(());
        }
        let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        for dispute in &self.disputes {
            let body = event(dispute, double.now_ms().div_euclid(1000)).to_string();
            deliver(&http, webhooks, body).await.with_context(|| format!("dispute {} was not taken", dispute.id))?;
            double.fund(&dispute.currency, -(dispute.amount_minor + DISPUTE_FEE_MINOR));
        }
        // Events carry whole seconds. One of the second in which the accounts were read could not be told from an older one.
        let into_second = u64::try_from(double.now_ms().rem_euclid(1000)).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(1_001 - into_second)).await;
        for account in &self.bank_changes {
            double.update_account(account, |spec| {
                for bank in &mut spec.banks {
                    // Without an id and a fingerprint it is a new one.
                    bank.id = String::new();
                    bank.fingerprint = String::new();
                    "4242".clone_into(&mut bank.last4);
                }
            });
        }
        Ok(())
    }
}

fn event(dispute: &Dispute, now_seconds: i64) -> Value {
    json!({
        "id": format!("evt_{}", dispute.id.trim_start_matches("dp_")), "object": "event", "api_version": "2026-09-30.endive",
        "type": "charge.dispute.created", "created": now_seconds, "livemode": false, "pending_webhooks": 1,
        "request": { "id": null, "idempotency_key": null },
        "data": { "object": {
            "id": dispute.id, "object": "dispute", "amount": dispute.amount_minor, "balance_transactions": [], "charge": dispute.charge,
            "created": now_seconds, "currency": dispute.currency, "evidence": {}, "is_charge_refundable": false, "livemode": false,
            "metadata": {}, "reason": dispute.reason, "status": "needs_response",
        } },
    })
}

async fn deliver(
    http: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    webhooks: &WebhookTarget,
    body: String,
) -> Result<()> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let at = payday::clock::now().timestamp();
        let request = http::Request::post(&webhooks.url)
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", signature(&webhooks.platform_secret, at, body.as_bytes()))
            .body(Full::new(Bytes::from(body.clone())))?;
        match http.request(request).await {
            Ok(answer) if answer.status().is_success() => {
                answer.into_body().collect().await?;
                return Ok(());
            }
            Ok(answer) => last = format!("{} answered {}", webhooks.url, answer.status()),
            Err(error) => last = format!("{} cannot be reached: {error}", webhooks.url),
        }
    }
    bail!(last)
}
