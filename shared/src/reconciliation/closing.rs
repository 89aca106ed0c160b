//! The end of a reconciliation: what only shows when everything has been read.

use serde_json::json;

use super::compare::{self, Kind, Urgency};
use super::{Finding, Reconciler, Stage, Standing, store};
use crate::clock;
use crate::db::Tx;
use crate::error::Result;
use crate::notifications::store as outbox;
use crate::telemetry::{Metric, metric};

/// Rows found by one look; the next day finds more.
const MOST_FOUND: i64 = 10_000;
/// Rows that a message names.
const MOST_TOLD: usize = 20;
/// What was sent or answered near the edges of what was read may be on either side of them.
const MARGIN: chrono::Duration = chrono::Duration::minutes(15);

impl Reconciler {
    pub(super) async fn close(&self, it: &mut Standing) -> Result<()> {
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        let mut findings = Vec::new();
        for ours in store::unseen_transfers(&mut tx, it.since + MARGIN, it.started_at - MARGIN, MOST_FOUND).await? {
            findings.push(Finding {
                kind: Kind::MissingAtStripe,
                subject: format!("operation {}", ours.operation),
                payee: Some(ours.payee),
                item: Some(ours.item),
                account: Some(ours.account),
                expected: format!("{}, {} {}", ours.stripe_id.unwrap_or_default(), ours.amount_minor, ours.currency),
                found: "in none of Stripe's pages".to_owned(),
            });
        }
        for sum in store::sums(&mut tx, it.id).await? {
            if sum.stripe_minor != sum.ledger_minor {
                findings.push(Finding {
                    kind: Kind::SumsDiffer,
                    subject: format!("{}s {}", sum.leg, sum.currency),
                    payee: None,
                    item: None,
                    account: None,
                    expected: format!("{} {} in the ledger", sum.ledger_minor, sum.currency),
                    found: format!("{} {} at Stripe, of {} objects", sum.stripe_minor, sum.currency, sum.objects),
                });
            }
        }
        for held in store::held(&mut tx, now, MOST_FOUND).await? {
            let days = (now - held.since).num_days();
            if let Some(expected) = compare::held_too_long(held.country.as_deref(), days) {
                findings.push(Finding {
                    kind: Kind::HeldTooLong,
                    subject: format!("{} {}", held.payee, held.currency),
                    payee: Some(held.payee),
                    item: None,
                    account: Some(held.account),
                    expected,
                    found: format!("{} micros of {}, for {days} days", held.micros, held.currency),
                });
            }
        }
        store::record(&mut tx, it, &findings).await?;
        store::resolve_gone(&mut tx, it).await?;
        (it.stage, it.cursor) = (Stage::Done, None);
        self.tell_people(&mut tx, it, true).await?;
        self.save(tx, it).await?;
        tracing::info!(reconciliation = it.id, "reconciliation is done");
        Ok(())
    }

    /// One message for all that people have not been told of yet and should be by now.
    pub(super) async fn tell_people(&self, tx: &mut Tx, it: &Standing, is_the_end: bool) -> Result<()> {
        let kinds = |urgency: Urgency| {
            Kind::ALL.iter().filter(move |kind| kind.urgency() == urgency).map(|kind| kind.as_str().to_owned())
        };
        let mut now: Vec<String> = kinds(Urgency::AtOnce).collect();
        if is_the_end {
            now.extend(kinds(Urgency::AtTheEnd));
        }
        let untold = store::untold(tx, now, kinds(Urgency::WhenSeenAgain).collect()).await?;
        if untold.is_empty() {
            return Ok(());
        }
        let rows: Vec<String> = untold
            .iter()
            .take(MOST_TOLD)
            .map(|(kind, subject, expected, found)| format!("{kind} {subject}: expected {expected}, found {found}"))
            .collect();
        tracing::error!(count = untold.len(), ?rows, "stripe and the books disagree");
        metric(Metric::DiscrepanciesFound, i64::try_from(untold.len()).unwrap_or(i64::MAX), &[]);
        // Each page is saved once.
        let key = format!("discrepancies:{}:{}:{}", it.id, it.stage.as_str(), it.cursor.as_deref().unwrap_or("last"));
        outbox::put(tx, &key, "discrepancies_found", json!({ "reconciliationId": it.id, "count": untold.len(), "rows": rows }))
            .await
    }
}
