//! Reconciliation after a cycle of 100,000 payees: how many reads of Stripe it takes, and how long it works beside waiting for them.
//!
//! The worst case: no webhook has come at all, so each account is asked about its payout. The rate is unlimited here; at the rate of
//! `STRIPE_RATE_READS` the reads take the seconds that the figures say.

use std::time::{Duration, Instant};

use payday::config::{self, Policy};
use payday::db::{Db, query_as};
use payday::rails::stripe::Stripe;
use payday::reconciliation::{Pace, Reconciler};
use serde_json::{Value as Json, json};
use sqlx::{Connection, Executor};

use super::cycle::{complete, start_double};
use super::figures::seconds;
use super::rig::{Rig, broken};
use crate::console::note;
use crate::job::Failure;
use crate::stripe_double::{Rates, StripeDouble};

const PAYEES: u64 = 100_000;
/// The default of `STRIPE_RATE_READS`.
const READS_PER_SECOND: i64 = 10;
const DAY: i64 = 24 * 60 * 60;

/// What the reconciliation of one day did.
struct Done {
    reads: i64,
    mended: i64,
    took: Duration,
}

impl Done {
    fn figures(&self) -> Json {
        json!({
            "reads": self.reads,
            "mended": self.mended,
            "seconds_without_a_limit": seconds(self.took),
            "seconds_at_10_reads_a_second": self.reads / READS_PER_SECOND,
        })
    }
}

pub async fn measure(rig: &Rig) -> Result<Json, Failure> {
    let loaded = rig.database("reconciliation", PAYEES, 2).await?;
    let double = start_double(0, Rates::unlimited()).await?;
    loaded.big.apply(&double);
    note(&format!("reconciliation: first a cycle of {PAYEES} creators"));
    let settings = [("SENDS_PER_WORKER", "25"), ("STRIPE_RATE_TRANSFERS", "0"), ("STRIPE_RATE_PAYOUTS", "0")];
    let stack = rig.stack(&loaded.url, &double, &settings).await?;
    let paid = complete(rig, &stack, &loaded.url, || double.counts().accepted >= PAYEES * 2).await;
    stack.shutdown().await;
    paid?;

    let db = rig.db(&loaded.url)?;
    let reconciler = reconciler(&db, &double)?;
    note("reconciliation: the day after");
    let day_after = reconcile(&db, &reconciler).await?;
    double.settle_payouts();
    later(rig, &loaded.name).await?;
    note("reconciliation: without a single webhook");
    let unheard = reconcile(&db, &reconciler).await?;
    let mut tx = db.begin().await?;
    let (paid, open): (i64, i64) = tx
        .one(query_as("select (select count(*) from payout_items where status = 'paid'), (select count(*) from discrepancies)"))
        .await?;
    drop(tx);
    let days = [&day_after, &unheard];
    let is_faster = days.iter().all(|done| done.took.as_secs().cast_signed() < done.reads / READS_PER_SECOND);
    Ok(json!({
        "what": "the day after a cycle of 100,000 payees, and eleven days later when no webhook has come at all",
        "the_day_after": day_after.figures(),
        "without_webhooks": unheard.figures(),
        "paid_in_the_end": paid,
        "discrepancies": open,
        "aims": {
            "each_within_a_day_at_10_reads_a_second": { "holds": days.iter().all(|done| done.reads / READS_PER_SECOND < DAY) },
            "faster_than_the_reads_may_be": { "holds": is_faster },
            "everybody_is_known_to_be_paid": { "holds": u64::try_from(paid).is_ok_and(|paid| paid == PAYEES) && open == 0 },
        },
    }))
}

/// Eleven days pass: banks have had their time, and whatever was not heard of is asked about. Of moved instants no trigger has to know.
async fn later(rig: &Rig, name: &str) -> Result<(), Failure> {
    let mut connection = rig.postgres.connect(name).await?;
    let eleven_days = "set session_replication_role = replica;
        update reconciliations set started_at = started_at - interval '11 days';
        update payout_items set arrival_on = arrival_on - 11;
        update payout_operations set first_dispatched_at = first_dispatched_at - interval '11 days', dispatched_at = dispatched_at - interval '11 days';";
    connection.execute(eleven_days).await.map_err(broken)?;
    connection.execute("vacuum analyze").await.map_err(broken)?;
    connection.close().await.map_err(broken)
}

fn reconciler(db: &Db, double: &StripeDouble) -> Result<Reconciler, Failure> {
    let config = config::Stripe {
        secret_key: "sk_test_payday_bench".to_owned(),
        api_base: double.base_url(),
        timeout: Duration::from_secs(30),
    };
    Ok(Reconciler { db: db.clone(), stripe: Stripe::new(&config)?, policy: Policy::load()?, pace: Pace::per_second(0) })
}

/// Goes on until the day's reconciliation is done, as the hourly schedule does.
async fn reconcile(db: &Db, reconciler: &Reconciler) -> Result<Done, Failure> {
    let began = Instant::now();
    loop {
        reconciler.run().await?;
        let mut tx = db.begin().await?;
        let newest = query_as("select stage = 'done', reads, mended from reconciliations order by id desc limit 1");
        let (done, reads, mended): (bool, i64, i64) = tx.optional(newest).await?.ok_or_else(|| broken("none has begun"))?;
        drop(tx);
        if done {
            return Ok(Done { reads, mended, took: began.elapsed() });
        }
    }
}
