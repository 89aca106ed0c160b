//! Whether a delivery comes from Stripe: HMAC-SHA256 over the raw bytes, `v1` only, any of several `v1` values, any secret of
//! the list, compared in constant time, five minutes old at most. [docs.stripe.com/webhooks#verify-manually]

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const TOLERANCE_SECONDS: i64 = 300;
/// A header longer than this is no header of Stripe's.
const MAX_HEADER_BYTES: usize = 4_096;

pub fn verify(header: &str, body: &[u8], secrets: &[String], now: DateTime<Utc>) -> bool {
    if header.len() > MAX_HEADER_BYTES {
        return false;
    }
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => timestamp = value.parse::<i64>().ok(),
            Some(("v1", value)) => signatures.extend(hex::decode(value).ok()),
            _ => {}
        }
    }
    let Some(timestamp) = timestamp else { return false };
    if now.timestamp().abs_diff(timestamp) > TOLERANCE_SECONDS.unsigned_abs() {
        return false;
    }
    secrets.iter().any(|secret| {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        // `verify_slice` compares in constant time.
        signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("an instant")
    }

    fn sign(secret: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
        mac.update(format!("{timestamp}.").as_bytes());
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn only_what_stripe_signed_in_the_last_five_minutes_is_believed() {
        let secrets = ["old".to_owned(), "new".to_owned()];
        let t = at(0).timestamp();
        let good = sign("new", t, BODY);
        for (header, when, right) in [
            (format!("t={t},v1={good}"), 0, true),
            (format!("t={t},v1={good}"), 300, true),
            (format!("t={t},v1={good}"), 301, false),
            (format!("t={t},v1={good}"), -301, false),
            (format!("t={t},v1={},v1={good}", "00".repeat(32)), 0, true),
            (format!("t={t},v1={}", sign("old", t, BODY)), 0, true),
            (format!("t={t},v1={}", sign("other", t, BODY)), 0, false),
            (format!("t={},v1={good}", t + 1), 0, false),
            (format!("t={t},v0={good}"), 0, false),
            (format!("v1={good}"), 0, false),
            (format!("t={t},v1="), 0, false),
            (format!("t={t},v1=zz"), 0, false),
            (String::new(), 0, false),
        ] {
            assert_eq!(verify(&header, BODY, &secrets, at(when)), right, "{header} after {when} s");
        }
        assert!(!verify(&format!("t={t},v1={good}"), br#"{"id": "evt_1"}"#, &secrets, at(0)), "serialised anew");
    }
}
