//! A cycle through the real functions: calls a second, what they cost, and how well a rate budget is used.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::cpu::Used;
use super::figures::{micros, per_mille, per_second, ratio, seconds};
use super::rig::{Rig, broken, cutoff};
use crate::console::note;
use crate::job::Failure;
use crate::stack::Stack;
use crate::stripe_double::{Call, Rates, StripeDouble, StripeDoubleOptions};

const WORKERS: u64 = 5;
const SENDS: u64 = 25;
const LATENCY_MS: u64 = 120;
const LIMIT: Duration = Duration::from_secs(900);

/// One cycle to run.
struct Plan<'a> {
    name: &'a str,
    creators: u64,
    latency_ms: u64,
    rates: Rates,
    settings: &'a [(&'a str, &'a str)],
}

/// What it did.
struct Ran {
    creators: u64,
    /// From firing the schedule to the first call.
    until_first_call: Duration,
    /// From the first call to the last one's answer.
    sending: Duration,
    /// Of the sending.
    used: Used,
    calls: Vec<Call>,
    statements: u64,
    rss_kb: u64,
    problems: Vec<String>,
}

/// Runs a cycle; `then` may look at the stack before it is shut down.
async fn run(rig: &Rig, plan: &Plan<'_>) -> Result<Ran, Failure> {
    note(&format!("{}: a cycle of {} creators at {} ms", plan.name, plan.creators, plan.latency_ms));
    let loaded = rig.database("cycle", plan.creators, 2).await?;
    let double = start_double(plan.latency_ms, plan.rates.clone()).await?;
    loaded.big.apply(&double);
    let stack = rig.stack(&loaded.url, &double, plan.settings).await?;
    let ran = drive(rig, plan, &stack, &double, &loaded.url).await;
    stack.shutdown().await;
    ran
}

pub(super) async fn start_double(latency_ms: u64, rates: Rates) -> Result<StripeDouble, Failure> {
    let options = StripeDoubleOptions { latency_ms, rates, ..StripeDoubleOptions::default() };
    StripeDouble::start(options).await.map_err(broken)
}

/// Fires the cycle and waits until its run is completed. Looks at the database only once all calls were made, so that watching
/// costs what is measured nothing.
pub(super) async fn complete(rig: &Rig, stack: &Stack, url: &str, ready: impl Fn() -> bool) -> Result<(), Failure> {
    let db = rig.db(url)?;
    let began = Instant::now();
    stack.fire("payout-semimonthly", cutoff()).await.map_err(broken)?;
    let mut looked_at = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if ready() || looked_at.elapsed() > Duration::from_secs(10) {
            looked_at = Instant::now();
            let mut tx = db.begin().await?;
            let completed: Option<(bool,)> =
                tx.optional(payday::db::query_as("select status = 'completed' from payout_runs")).await?;
            if completed == Some((true,)) {
                return Ok(());
            }
        }
        if began.elapsed() > LIMIT {
            return Err(Failure::Failed(format!("The cycle was not done after {LIMIT:?}; see {}.", stack.logs().display())));
        }
    }
}

async fn drive(rig: &Rig, plan: &Plan<'_>, stack: &Stack, double: &StripeDouble, url: &str) -> Result<Ran, Failure> {
    let all = plan.creators * 2;
    let fired = Instant::now();
    let first = async {
        while double.counts().calls == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (fired.elapsed(), Used::now(stack, &rig.postgres))
    };
    // A cycle without any call is over without a first one.
    let done = complete(rig, stack, url, || double.counts().accepted >= all);
    tokio::pin!(first, done);
    let mut started = None;
    loop {
        tokio::select! {
            biased;
            at = &mut first, if started.is_none() => started = Some(at),
            ended = &mut done => { ended?; break }
        }
    }
    let (until_first_call, before) = started.ok_or_else(|| broken("nothing was sent"))?;
    let used = Used::now(stack, &rig.postgres).since(&before);
    let calls = double.calls();
    let span_ms = match (calls.iter().map(|call| call.at_ms).min(), calls.iter().map(|call| call.at_ms).max()) {
        (Some(first), Some(last)) => u64::try_from(last - first).unwrap_or(0) + plan.latency_ms,
        _ => 0,
    };
    let db = rig.db(url)?;
    let mut tx = db.begin().await?;
    let (statements, unpaid): (i64, i64) = tx
        .one(payday::db::query_as(
            "select (select sum(sql_statements)::bigint from payout_chunks), (select count(*) from payout_items where status <> 'in_transit')",
        ))
        .await?;
    let audit = double.audit();
    let mut problems = Vec::new();
    if unpaid > 0 {
        problems.push(format!("{unpaid} items were not accepted by Stripe"));
    }
    let twice = audit.double_transfers.len() + audit.double_payouts.len();
    if twice > 0 {
        problems.push(format!("{twice} were paid twice"));
    }
    Ok(Ran {
        creators: plan.creators,
        until_first_call,
        sending: Duration::from_millis(span_ms),
        used,
        calls,
        statements: u64::try_from(statements).unwrap_or(0),
        rss_kb: stack.lambda.counters().get("chunk-processor").map_or(0, |counters| counters.max_rss_kb),
        problems,
    })
}

impl Ran {
    fn calls(&self) -> u64 {
        self.calls.len() as u64
    }

    fn figures(&self) -> Json {
        let used = &self.used;
        let (worker, cores) = (used.of("chunk-processor"), std::thread::available_parallelism().map_or(1, usize::from));
        json!({
            "creators": self.creators,
            "calls": self.calls(),
            "seconds_until_first_call": seconds(self.until_first_call),
            "sending_seconds": seconds(self.sending),
            "items_per_second": per_second(self.creators, self.sending),
            "calls_per_second": per_second(self.calls(), self.sending),
            "cpu_seconds": {
                "chunk_processor": seconds(worker),
                "other_functions": seconds(used.of_others("chunk-processor")),
                "postgres": seconds(used.postgres),
                "double_and_local_runtime": seconds(used.payday),
            },
            "share_of_all_cores_used": ratio(micros(used.total()), micros(self.sending).saturating_mul(cores as u64)),
            "items_per_cpu_second_of_engine": per_second(self.creators, worker),
            "items_per_cpu_second_of_postgres": per_second(self.creators, used.postgres),
            "items_per_cpu_second_of_both": per_second(self.creators, worker + used.postgres),
            "sql_statements_per_item_and_leg": ratio(self.statements, self.creators * 2),
            "chunk_processor_max_rss_mb": super::figures::megabytes(self.rss_kb * 1024),
            "problems": self.problems,
        })
    }
}

/// Both legs of 10,000 creators with unlimited rates.
pub async fn engine(rig: &Rig) -> Result<Json, Failure> {
    let settings = |chunk_size| {
        [("CHUNK_SIZE", chunk_size), ("SENDS_PER_WORKER", "25"), ("STRIPE_RATE_TRANSFERS", "0"), ("STRIPE_RATE_PAYOUTS", "0")]
    };
    let plan = |name, latency_ms, settings| Plan { name, creators: 10_000, latency_ms, rates: Rates::unlimited(), settings };
    let (small, large) = (settings("25"), settings("100"));
    let at_0 = run(rig, &plan("engine", 0, &small)).await?;
    let at_120 = run(rig, &plan("engine", LATENCY_MS, &small)).await?;
    let larger = run(rig, &plan("engine, chunks of 100", LATENCY_MS, &large)).await?;

    let allowed_milli = WORKERS * SENDS * 1_000_000 / LATENCY_MS;
    // calls ÷ seconds ÷ allowed, all in thousandths
    let share = |ran: &Ran| {
        let done = u128::from(ran.calls()) * 1_000_000_000 / u128::from(micros(ran.sending).max(1));
        per_mille(u64::try_from(done).unwrap_or(u64::MAX), allowed_milli)
    };
    let well = [&at_0, &at_120, &larger].iter().all(|ran| ran.problems.is_empty());
    let legs = |ran: &Ran| per_mille(ran.statements, ran.creators * 2);
    Ok(json!({
        "what": "both legs of 10,000 creators, 5 workers, SENDS_PER_WORKER=25, rates unlimited",
        "at_0_ms": at_0.figures(),
        "at_120_ms": at_120.figures(),
        "at_120_ms_with_chunks_of_100": larger.figures(),
        "calls_per_second_allowed_at_120_ms": payday::payouts::report::thousandths(i64::try_from(allowed_milli).unwrap_or(0)),
        "share_of_allowed": payday::payouts::report::thousandths(share(&at_120)),
        "share_of_allowed_with_chunks_of_100": payday::payouts::report::thousandths(share(&larger)),
        "aims": {
            "share_of_allowed_at_least_0.8": { "holds": share(&at_120) >= 800 },
            "sql_statements_per_item_and_leg_at_most_1": { "holds": legs(&at_0) <= 1000 && legs(&at_120) <= 1000 },
            "no_more_statements_with_chunks_of_100": { "holds": legs(&larger) <= legs(&at_120) },
            "everybody_paid_once": { "holds": well },
        },
    }))
}

const BUDGET: u32 = 20;

/// A budget of 20/s for each endpoint, which the double enforces.
pub async fn rate(rig: &Rig) -> Result<Json, Failure> {
    let settings = [("STRIPE_RATE_TRANSFERS", "20"), ("STRIPE_RATE_PAYOUTS", "20")];
    let plan = Plan { name: "rate", creators: 600, latency_ms: LATENCY_MS, rates: Rates::each(BUDGET), settings: &settings };
    let ran = run(rig, &plan).await?;
    let limited = ran.calls.iter().filter(|call| call.status == 429).count() as u64;
    let endpoint = |name: &str| {
        let at: Vec<i64> = ran.calls.iter().filter(|call| call.endpoint == name).map(|call| call.at_ms).collect();
        let span_ms = at.iter().max().zip(at.iter().min()).map_or(0, |(last, first)| last - first);
        let accepted =
            at.len() as u64 - ran.calls.iter().filter(|call| call.endpoint == name && call.status == 429).count() as u64;
        // The last call's own slot is not part of the span.
        let share = per_mille(accepted.saturating_sub(1) * 1_000, u64::from(BUDGET) * u64::try_from(span_ms).unwrap_or(0));
        let figures = json!({
            "calls": at.len(),
            "seconds": seconds(Duration::from_millis(u64::try_from(span_ms).unwrap_or(0))),
            "share_of_budget": payday::payouts::report::thousandths(share),
        });
        (share, figures)
    };
    let (transfers, payouts) = (endpoint("POST /v1/transfers"), endpoint("POST /v1/payouts"));
    Ok(json!({
        "what": "600 creators, 20/s for transfers and 20/s for payouts, SENDS_PER_WORKER=5, 120 ms; the double refuses the 21st",
        "transfers": transfers.1,
        "payouts": payouts.1,
        "answered_429": limited,
        "share_of_429": ratio(limited, ran.calls()),
        "problems": ran.problems,
        "aims": {
            "share_of_budget_at_least_0.95": { "holds": transfers.0 >= 950 && payouts.0 >= 950 },
            "share_of_429_below_0.001": { "holds": limited * 1_000 < ran.calls() },
            "everybody_paid_once": { "holds": ran.problems.is_empty() },
        },
    }))
}
