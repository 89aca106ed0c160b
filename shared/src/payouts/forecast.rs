//! The funding forecast: keeps what the platform has at Stripe for previews to look at, and tells operators two days before a
//! cycle that it will not suffice. Runs every hour, and may run twice at once: a cycle is told of once per currency.

use chrono::{DateTime, Duration, Utc};
use serde_json::json;

use super::preview;
use super::store::preview as store;
use crate::boundary::Boundary;
use crate::clock::Schedule;
use crate::config::Policy;
use crate::db::Db;
use crate::error::Result;
use crate::notifications::store as outbox;
use crate::rails::stripe::Stripe;

/// How long before a cycle its funding is looked at.
const AHEAD: Duration = Duration::days(2);

pub async fn forecast(db: &Db, stripe: &Stripe, policy: &Policy, now: DateTime<Utc>) -> Result<()> {
    let balances = stripe.balances().await?;
    let mut tx = db.begin().await?;
    store::keep_balances(&mut tx, &balances, now).await?;
    let today = policy.calendar.date_of(now);
    for cycle_on in today.iter_days().take(4) {
        let cutoff_at = policy.calendar.cutoff(cycle_on);
        if Schedule::due_on(cycle_on).is_empty() || cutoff_at <= now || cutoff_at - now > AHEAD {
            continue;
        }
        let occasion = preview::occasion(cycle_on, None, policy.calendar, now)?;
        let foreseen = store::foresee(&mut tx, &occasion, policy, None, 0).await?;
        for need in preview::funding(&mut tx, &foreseen.sums).await? {
            let short_minor = need.short_minor();
            tracing::info!(%cycle_on, currency = need.currency, needed_minor = need.needed_minor, short_minor, "forecast");
            if short_minor > 0 {
                let payload = json!({
                    "cycleDate": cycle_on, "currency": need.currency, "neededMinor": need.needed_minor, "claimedMinor": need.claimed_minor,
                    "availableMinor": need.available_minor, "shortMinor": short_minor,
                });
                outbox::put(&mut tx, &format!("funding_short:{cycle_on}:{}", need.currency), "funding_short", payload).await?;
            }
        }
    }
    tx.commit(Boundary::Forecast).await
}
