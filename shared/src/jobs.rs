//! Every scheduled job by its name in the template. A new job is one function in its domain, one variant here, one schedule
//! there. Each may run twice at once, late, or after a year of not running.

use chrono::{DateTime, Duration, Utc};
use serde::Deserialize;
use serde_json::json;

use crate::boundary::{Boundary, cross};
use crate::config::{self, Policy};
use crate::db::Db;
use crate::error::Result;
use crate::id::ItemId;
use crate::payouts::sweep::{Pace, Sweeper};
use crate::payouts::{checks, controls, cycle, forecast, kpis};
use crate::queue::Queue;
use crate::rails::stripe::Stripe;
use crate::reconciliation::{self, Reconciler};
use crate::schedule::Scheduler;
use crate::telemetry::{Metric, metric};
use crate::{aws, clock, earnings, notifications, payees, stripe_events, withdrawals};

/// What EventBridge Scheduler says when a job's schedule fires.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fired {
    pub job: Job,
    pub scheduled_time: Option<DateTime<Utc>>,
    /// How a sweep goes about it; the schedule leaves it out.
    #[serde(default)]
    pub pace: Pace,
    /// The one item that a retry is for; an operator's schedule that fires once names it.
    #[serde(default)]
    pub item: Option<ItemId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// Brings back what was lost, continues what waited, tells people what is in the outbox.
    Sweep,
    /// Makes available what is no longer held.
    Mature,
    /// Takes up failed items whose reason is gone; looks at runs that are stuck.
    Retry,
    /// Asks every standing check, and alerts if one is breached.
    Verify,
    /// Compares Stripe with the books, a part of it each hour until the day's comparison is done.
    Reconcile,
    /// Reads all connected accounts from Stripe.
    Sync,
    /// Looks whether the platform's balance will suffice for the next cycle.
    Forecast,
    /// Says that we are alive, which alarms when it is absent; starts a run that should have happened and did not.
    Heartbeat,
}

/// What the jobs work with.
pub struct Jobs {
    pub db: Db,
    pub stripe: Stripe,
    pub policy: Policy,
    pub notification: Queue,
    pub sweeper: Sweeper,
    pub scheduler: Scheduler,
    pub stuck_run_minutes: i64,
    /// Reads of Stripe that reconciliation may make each second.
    pub reads_per_second: u32,
}

impl Jobs {
    pub async fn load() -> Result<Self> {
        let aws = aws::settings().await;
        let db = Db::connect(&config::database_url().await?, 2)?;
        let key = config::Stripe::load().await?;
        let stripe = Stripe::new(&key)?;
        let policy = Policy::load()?;
        stripe_events::remember_mode(&db, key.is_live()).await?;
        let sweeper = Sweeper {
            db: db.clone(),
            stripe: stripe.clone(),
            policy: policy.clone(),
            create_batch: Queue::new(&aws, config::create_batch_queue_url()?),
            process_chunk: Queue::new(&aws, config::process_chunk_queue_url()?),
        };
        let notification = Queue::new(&aws, config::notification_queue_url()?);
        let scheduler = Scheduler::new(&aws, config::schedule_group()?);
        let (stuck_run_minutes, reads_per_second) = (config::stuck_run_minutes()?, config::stripe_reads_per_second()?);
        Ok(Self { db, stripe, policy, notification, sweeper, scheduler, stuck_run_minutes, reads_per_second })
    }

    pub async fn run(&self, fired: &Fired) -> Result<()> {
        cross(Boundary::JobStarts, || self.run_once(fired)).await
    }

    async fn run_once(&self, fired: &Fired) -> Result<()> {
        match fired.job {
            Job::Sweep => self.sweep(fired.pace).await,
            Job::Mature => {
                let postings = earnings::mature(&self.db, clock::now()).await?;
                tracing::info!(postings, "matured");
                Ok(())
            }
            Job::Retry => match fired.item {
                Some(item) => {
                    self.sweeper.retry_item(item).await.map(|retried| tracing::info!(item = item.0, retried, "retried as asked"))
                }
                None => self.sweeper.retry(self.stuck_run_minutes).await,
            },
            Job::Verify => checks::verify(&self.db).await,
            Job::Reconcile => self.reconciler().run().await,
            Job::Sync => payees::sync::sync(&self.db, &self.stripe).await.map(|_| ()),
            Job::Forecast => {
                let now = fired.scheduled_time.unwrap_or_else(clock::now);
                forecast::forecast(&self.db, &self.stripe, &self.policy, now).await
            }
            Job::Heartbeat => self.heartbeat(fired.scheduled_time.unwrap_or_else(clock::now)).await,
        }
    }

    fn reconciler(&self) -> Reconciler {
        let pace = reconciliation::Pace::per_second(self.reads_per_second);
        Reconciler { db: self.db.clone(), stripe: self.stripe.clone(), policy: self.policy.clone(), pace }
    }

    async fn sweep(&self, pace: Pace) -> Result<()> {
        stripe_events::retry_waiting(&self.db, &self.policy).await?;
        payees::read_stale(&self.db, &self.stripe).await?;
        // Nothing depends on the mirror: it waits for the next sweep if the Scheduler does not answer.
        if let Err(error) = controls::mirror(&self.db, &self.scheduler).await {
            tracing::warn!(error = %error, causes = error.causes(), "the schedules do not mirror the switches yet");
        }
        self.sweeper.sweep(pace).await?;
        withdrawals::sweep(&self.db, &self.sweeper.create_batch, Duration::seconds(pace.quiet_seconds)).await?;
        notifications::announce(&self.db, &self.notification, Duration::minutes(5)).await?;
        self.tell_ages().await
    }

    /// The ages that alarms watch.
    async fn tell_ages(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let oldest = crate::payouts::store::jobs::oldest_unknown(&mut tx).await?;
        let age = oldest.map_or(0, |since| (clock::now() - since).num_seconds());
        metric(Metric::UnknownOutcomeAgeSeconds, age, &[]);
        Ok(())
    }

    /// Beats only if the database answers and every cycle that was due has its run: the silence alarms. A run that is missing
    /// is told of and started, unless payouts are stopped.
    async fn heartbeat(&self, at: DateTime<Utc>) -> Result<()> {
        self.tell_ages().await?;
        kpis::tell(&self.db, clock::now()).await?;
        let missing = cycle::missing(&self.db, self.policy.calendar, at).await?;
        if missing.is_empty() {
            metric(Metric::Heartbeat, 1, &[]);
            return Ok(());
        }
        metric(Metric::RunsMissing, i64::try_from(missing.len()).unwrap_or(i64::MAX), &[]);
        for (cycle_on, schedules) in missing {
            tracing::error!(?schedules, %cycle_on, "a pay day has no run");
            let mut tx = self.db.begin().await?;
            let payload = json!({ "cycleDate": cycle_on, "schedules": schedules });
            notifications::store::put(&mut tx, &format!("run_missing:{cycle_on}"), "run_missing", payload).await?;
            tx.commit(Boundary::TellOfMissingRun).await?;
            let queue = &self.sweeper.create_batch;
            let started = cycle::make_good(&self.db, queue, cycle_on, &schedules, self.policy.calendar).await?;
            tracing::warn!(?started, %cycle_on, "made good");
        }
        Ok(())
    }
}
