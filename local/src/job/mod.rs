//! The main job on somebody's data: one cycle through the real functions, from two CSV files to a report.
//!
//! Nothing is half done: files, cycle date, port and Stripe are all looked at before anything is written, and what is
//! imported is imported whole. Then the schedules of the date are fired at their cut-off and the functions do the rest; this
//! only sweeps faster than the schedule would, watches, and reports.

mod accounts;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use payday::boundary::Boundary;
use payday::clock::{self, Schedule};
use payday::config::{self, Policy};
use payday::db::Db;
use payday::earnings::import::LineError;
use payday::error::Kind;
use payday::payouts::report::{self, Progress, Report};
use payday::{earnings, payees, rails};

use crate::postgres::{Postgres, PostgresError};
use crate::samples::World;
use crate::stack::{Stack, StackError, StackOptions};
use crate::stripe_double::{StripeDouble, WebhookTarget};

/// Settings that a function may take from the environment of whoever runs the job.
const SETTINGS: [&str; 25] = [
    "TOKEN_TO_USD_RATE",
    "PLATFORM_FEE_PERCENT",
    "PLATFORM_DEFAULT_CURRENCY",
    "HOLD_DAYS",
    "PAYOUT_MIN_THRESHOLD_CENTS",
    "PAYOUT_MIN_THRESHOLDS",
    "PAYOUT_RESERVE_PERCENT",
    "PAYOUT_TIMEZONE",
    "PAYOUT_HOUR",
    "PAYOUT_BETA_ONLY",
    "DESTINATION_COOLOFF_HOURS",
    "TWO_PERSON_ABOVE_CENTS",
    "AUTO_RESUME",
    "CHUNK_SIZE",
    "SENDS_PER_WORKER",
    "STRIPE_RATE_TRANSFERS",
    "STRIPE_RATE_PAYOUTS",
    "STRIPE_TIMEOUT_MS",
    "ATTEMPT_COOLING_SECONDS",
    "REPLAY_WINDOW_HOURS",
    "STUCK_RUN_MINUTES",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "FRONTEND_URL",
    "RUST_LOG",
];

/// The settings that stand in this process's environment.
pub fn settings_given() -> impl Iterator<Item = (String, String)> {
    SETTINGS.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
}

/// Which Stripe is talked to.
pub enum Target {
    Double(StripeDouble),
    Other { base_url: String, key: String, webhook_secret: String },
}

/// The key that the double is addressed with.
const DOUBLE_KEY: &str = "sk_test_payday_local";
const DOUBLE_SECRETS: [&str; 2] = ["whsec_local_platform", "whsec_local_connect"];

impl Target {
    pub fn base_url(&self) -> String {
        match self {
            Self::Double(double) => double.base_url(),
            Self::Other { base_url, .. } => base_url.trim_end_matches('/').to_owned(),
        }
    }

    pub fn key(&self) -> &str {
        match self {
            Self::Double(_) => DOUBLE_KEY,
            Self::Other { key, .. } => key,
        }
    }

    /// As the setting has it: a list.
    pub fn webhook_secrets(&self) -> String {
        match self {
            Self::Double(_) => DOUBLE_SECRETS.join(","),
            Self::Other { webhook_secret, .. } => webhook_secret.clone(),
        }
    }
}

/// One main job.
pub struct Job {
    pub earnings: Vec<u8>,
    pub accounts: Vec<u8>,
    pub cycle_on: NaiveDate,
    pub target: Target,
    /// What happens at the double between the import and the cycle.
    pub world: Option<World>,
    pub http_port: Option<u16>,
    pub timeout: Duration,
    /// The private folder: database, logs.
    pub folder: PathBuf,
    pub bin_dir: PathBuf,
    pub template: PathBuf,
    /// Settings that win over the environment's.
    pub settings: BTreeMap<String, String>,
}

/// Why a job ended without a report.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong use or input, a busy port, no Postgres: exit code 2.
    #[error("{0}")]
    Use(String),
    /// Stripe is down or refuses the key, or something of ours broke: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Use(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl From<payday::error::Error> for Failure {
    fn from(error: payday::error::Error) -> Self {
        let causes = error.causes();
        let text = if causes.is_empty() || error.kind != Kind::Internal {
            error.message
        } else {
            format!("{} ({causes})", error.message)
        };
        Self::Failed(text)
    }
}

impl From<PostgresError> for Failure {
    fn from(error: PostgresError) -> Self {
        Self::Use(error.to_string())
    }
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        match error {
            StackError::Port(_) | StackError::InUse { .. } | StackError::Template(_) | StackError::NoBinary { .. } => {
                Self::Use(error.to_string())
            }
            StackError::Io { .. } | StackError::Schedule(_) | StackError::Migration(_) | StackError::Busy { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}

/// What happens, for whoever shows it.
pub enum News<'a> {
    /// A step begins.
    Step(&'a str),
    /// The cycle has come so far.
    Progress(&'a Progress),
    /// Something to tell.
    Note(String),
}

/// How a job ended.
pub struct Done {
    pub report: Report,
    /// All money of every eligible payee was accepted by Stripe, and every check holds.
    pub good: bool,
    /// Why not, one sentence each.
    pub problems: Vec<String>,
    /// Attempts that Stripe accepted in this job, earlier ones of a kept database not counted.
    pub newly_accepted: i64,
    pub imported: earnings::Recorded,
}

/// Runs the job to its end.
pub async fn run(job: Job, mut tell: impl FnMut(News<'_>)) -> Result<Done, Failure> {
    let began = Instant::now();
    for (name, value) in &job.settings {
        if !SETTINGS.contains(&name.as_str()) {
            return Err(Failure::Use(format!("{name}={value}: there is no such setting")));
        }
    }
    let policy = Policy::load().map_err(|error| Failure::Use(error.message))?;
    let sending = config::Sending::load().map_err(|error| Failure::Use(error.message))?;
    check_cycle(&policy, job.cycle_on)?;
    let earned = earnings::import::parse(&job.earnings, &policy).map_err(|wrong| wrong_lines("earnings", &wrong))?;
    let people = payees::import::parse(&job.accounts).map_err(|wrong| wrong_lines("accounts", &wrong))?;
    if job.http_port.is_some() {
        drop(crate::front::bind(job.http_port).await.map_err(StackError::from)?);
    }

    tell(News::Step("Asking Stripe about the connected accounts"));
    let stripe = rails::stripe::Stripe::new(&config::Stripe {
        secret_key: job.target.key().to_owned(),
        api_base: job.target.base_url(),
        timeout: Duration::from_secs(20),
    })?;
    let described_at = clock::now();
    let described = accounts::describe(&stripe, &people).await?;

    tell(News::Step("Starting Postgres"));
    let postgres = Postgres::start(&job.folder).await?;
    if !postgres.has_database("payday").await? {
        postgres.create_database("payday").await?;
    }
    let url = postgres.url("payday");

    tell(News::Step("Starting the functions"));
    let stack = Stack::start(stack_options(&job, &url)).await?;
    let [platform_secret, connect_secret] = DOUBLE_SECRETS.map(str::to_owned);
    let url_of_webhooks = format!("{}/webhooks/stripe", stack.http_url);
    let webhooks = WebhookTarget { url: url_of_webhooks, platform_secret, connect_secret, enabled_events: Vec::new() };
    if let Target::Double(double) = &job.target {
        double.set_webhooks(Some(webhooks.clone()));
    }
    let worked = async {
        let db = Db::connect(&url, 2)?;
        tell(News::Step("Importing earnings and accounts"));
        let mut tx = db.begin().await?;
        let payees: Vec<payees::NewPayee> = people.into_iter().map(|(_, payee)| payee).collect();
        payees::store::import(&mut tx, &payees).await?;
        payees::describe_all(&mut tx, &described, described_at).await?;
        let imported = earnings::store::record(&mut tx, &policy, &earned).await.map_err(contradictions)?;
        tx.commit(Boundary::Outside).await?;
        drop((earned, payees, described));
        let before = report::of_cycle(&db, job.cycle_on).await?.operations.accepted;

        if let (Target::Double(double), Some(world)) = (&job.target, &job.world) {
            tell(News::Step("Letting happen what happens before a pay day"));
            happen(&db, world, double, &webhooks).await?;
        }

        tell(News::Step("Paying"));
        for schedule in Schedule::due_on(job.cycle_on) {
            let fired = stack.fire(&format!("payout-{}", schedule.as_str()), policy.calendar.cutoff(job.cycle_on)).await;
            fired.map_err(|error| {
                Failure::Failed(format!("The schedule {} did not start the cycle: {error}.", schedule.as_str()))
            })?;
        }
        let mut problems = watch::watch(&stack, &db, &job, &sending, &mut tell).await?;

        tell(News::Step("Checking the books"));
        let mut report = report::of_cycle(&db, job.cycle_on).await?;
        report.seconds = report::thousandths(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
        let accepted = report::all_accepted(&db, job.cycle_on).await?;
        if !accepted {
            problems.push(
                "Not all money was accepted by Stripe: see not_paid in the report for whose, why, and what to do.".to_owned(),
            );
        }
        if !report.ledger.balanced {
            problems.push("The ledger does not balance: see ledger in the report.".to_owned());
        }
        let newly_accepted = report.operations.accepted - before;
        Ok::<_, Failure>(Done { good: problems.is_empty(), problems, newly_accepted, imported, report })
    }
    .await;
    stack.shutdown().await;
    postgres.stop().await;
    worked
}

/// Disputes and changed bank accounts: between the import and the cycle.
async fn happen(db: &Db, world: &World, double: &StripeDouble, webhooks: &WebhookTarget) -> Result<(), Failure> {
    let failed = |error: anyhow::Error| Failure::Failed(format!("{error:#}"));
    if let Some(through) = world.matured_before_disputes {
        earnings::mature(db, through).await?;
    }
    world.raise(double, webhooks).await.map_err(failed)?;
    double.all_delivered().await;
    Ok(())
}

fn check_cycle(policy: &Policy, cycle_on: NaiveDate) -> Result<(), Failure> {
    if Schedule::due_on(cycle_on).is_empty() {
        return Err(Failure::Use(format!("No schedule has a cycle on {cycle_on}: choose a 1st, a 15th or a Monday.")));
    }
    let cutoff = policy.calendar.cutoff(cycle_on);
    if cutoff > clock::now() {
        return Err(Failure::Use(format!(
            "The cycle of {cycle_on} is in the future; it can be run from {} on.",
            cutoff.to_rfc3339()
        )));
    }
    Ok(())
}

fn stack_options(job: &Job, url: &str) -> StackOptions {
    let mut options = StackOptions::new(&job.folder, &job.template, &job.bin_dir, url);
    options.environment.extend(settings_given());
    options.environment.extend(job.settings.clone());
    options.environment.insert("STRIPE_API_BASE".to_owned(), job.target.base_url());
    options.secrets.extend([
        ("STRIPE_SECRET_KEY".to_owned(), job.target.key().to_owned()),
        ("STRIPE_WEBHOOK_SECRET".to_owned(), job.target.webhook_secrets()),
        ("CRON_SECRET".to_owned(), "local-cron-secret".to_owned()),
        ("JWT_SECRET".to_owned(), "local-jwt-secret-of-at-least-32-characters".to_owned()),
    ]);
    options.http_port = job.http_port;
    options.retry_after = Some(Duration::from_secs(2));
    options
}

/// Wrong lines shown of a file at most; the rest are counted.
const LINES_SHOWN: usize = 20;

fn wrong_lines(file: &str, wrong: &[LineError]) -> Failure {
    let mut text = format!(
        "The {file} file has {} wrong line{}; nothing was imported.",
        wrong.len(),
        if wrong.len() == 1 { "" } else { "s" }
    );
    for line in wrong.iter().take(LINES_SHOWN) {
        text.push_str(&format!("\n  {line}"));
    }
    if wrong.len() > LINES_SHOWN {
        text.push_str(&format!("\n  … and {} more", wrong.len() - LINES_SHOWN));
    }
    Failure::Use(text)
}

fn contradictions(error: payday::error::Error) -> Failure {
    if error.code != "SOURCE_ID_CONFLICT" {
        return error.into();
    }
    let ids: Vec<&str> = error.details.iter().take(LINES_SHOWN).map(|detail| detail.error.as_str()).collect();
    Failure::Use(format!("Nothing was imported: {}. Use a new source_id for a new earning.", ids.join("; ")))
}

/// The repository's root, where the template and the samples are.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}
