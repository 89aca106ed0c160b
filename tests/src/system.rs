//! Everything that runs, as it is deployed: the real function binaries under the local runtime, a database of its own on real
//! Postgres, and the Stripe double. A test ends with [`System::ends`], which audits the world.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config;
use payday::earnings::NewEarning;
use payday::payees::{self, NewPayee};
use payday::rails::stripe::{Account, Stripe};
use payday_local::job::root;
use payday_local::post_office::PostOffice;
use payday_local::stack::{Stack, StackOptions};
use payday_local::stripe_double::{AccountSpec, FaultRule, StripeDouble, StripeDoubleOptions, WebhookTarget};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::audit;
use crate::database::Database;
use crate::http::{self, Answer};
use crate::pooler::Pooler;
use crate::world::{account_of, at, creator, cutoff, earning, person, policy};

/// For everything that happens by itself; only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const STRIPE_KEY: &str = "sk_test_of_the_tests";
pub const STRIPE_CONNECT_KEY: &str = "rk_test_of_the_tests";
pub const FRONTEND: &str = "https://app.example.com";
pub const CRON_SECRET: &str = "cron-secret-of-the-tests";
pub const JWT_SECRET: &str = "jwt-secret-of-the-tests-with-32-characters";
pub const PLATFORM_SECRET: &str = "whsec_platform";
pub const CONNECT_SECRET: &str = "whsec_connect";

/// Changes the account of the creator with that number.
type Describe = Box<dyn Fn(u128, &mut AccountSpec) + Send>;

/// How a system starts.
pub struct Setup {
    creators: u128,
    funds_minor: i64,
    settings: Vec<(&'static str, String)>,
    secrets: Vec<(&'static str, Option<String>)>,
    double: StripeDoubleOptions,
    database: Option<Database>,
    database_url: Option<String>,
    accounts: Describe,
    faults: Vec<FaultRule>,
}

impl Setup {
    /// So many creators with a ready account, each with 20 dollars and a few cents matured at the cycle's cut-off; the
    /// platform has enough to pay them.
    pub fn of(creators: u128) -> Self {
        Self {
            creators,
            funds_minor: 100_000_000,
            settings: Vec::new(),
            secrets: Vec::new(),
            double: StripeDoubleOptions::default(),
            database: None,
            database_url: None,
            accounts: Box::new(|_, _| {}),
            faults: Vec::new(),
        }
    }

    pub fn funds(mut self, minor: i64) -> Self {
        self.funds_minor = minor;
        self
    }

    pub fn setting(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// Another secret than the tests' own, or none.
    pub fn secret(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.secrets.push((name, value.map(str::to_owned)));
        self
    }

    pub fn double(mut self, change: impl FnOnce(&mut StripeDoubleOptions)) -> Self {
        change(&mut self.double);
        self
    }

    /// Changes the n-th account before anybody sees it.
    pub fn accounts(mut self, change: impl Fn(u128, &mut AccountSpec) + Send + 'static) -> Self {
        self.accounts = Box::new(change);
        self
    }

    /// A fault that is there from the start.
    pub fn fault(mut self, rule: FaultRule) -> Self {
        self.faults.push(rule);
        self
    }

    /// Another database than a clone in the shared cluster.
    pub fn database(mut self, database: Database) -> Self {
        self.database = Some(database);
        self
    }

    /// Another way to the database than the direct one.
    pub fn database_url(mut self, url: String) -> Self {
        self.database_url = Some(url);
        self
    }

    pub async fn start(self) -> System {
        System::start(self).await
    }
}

/// With this variable set everything that runs reaches the database through PgBouncer in transaction mode.
const THROUGH_POOLER: &str = "PAYDAY_TEST_POOLER";

pub struct System {
    pub database: Database,
    pub stack: Stack,
    pub double: StripeDouble,
    pub post_office: PostOffice,
    pub pooler: Option<Pooler>,
    folder: PathBuf,
}

/// What was true while the system ran and need not be, to its audit.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Messages in dead-letter queues.
    pub dead_letters: usize,
    /// Events that wait for an object of theirs.
    pub waiting_events: i64,
    /// Batches that are halted.
    pub halted: i64,
    /// Keys that were used in two ways, because Stripe was made to say nonsense.
    pub contradictions: bool,
    /// Accounts that have left: what became of their last payout nobody here can know.
    pub gone: Vec<String>,
}

impl System {
    async fn start(setup: Setup) -> Self {
        let database = match setup.database {
            Some(database) => database,
            None => Database::new().await,
        };
        let double = StripeDouble::start(setup.double).await.expect("a double");
        double.fund("usd", setup.funds_minor);
        let pooler = match std::env::var_os(THROUGH_POOLER) {
            Some(_) => Some(Pooler::start(&database).await),
            None => None,
        };
        let url = setup.database_url.unwrap_or_else(|| way(&database, pooler.as_ref()));
        let post_office = PostOffice::start().await.expect("letter boxes");
        let (stack, folder) = start_stack(url, &double, &post_office, setup.settings, setup.secrets).await;
        let system = Self { database, stack, double, post_office, pooler, folder };
        system.listen();
        for n in 1..=setup.creators {
            let mut spec = AccountSpec::ready(&account_of(n), "US", "usd");
            (setup.accounts)(n, &mut spec);
            system.double.add_account(spec);
        }
        if setup.creators > 0 {
            system.creators(1..=setup.creators).await;
            system.earn("first", 1..=setup.creators).await;
        }
        for rule in setup.faults {
            system.double.fault(rule);
        }
        system
    }

    /// Lets the double send its webhooks here.
    pub fn listen(&self) {
        self.double.set_webhooks(Some(WebhookTarget {
            url: format!("{}/webhooks/stripe", self.stack.http_url),
            platform_secret: PLATFORM_SECRET.to_owned(),
            connect_secret: CONNECT_SECRET.to_owned(),
            enabled_events: Vec::new(),
        }));
    }

    /// Another stack on the same database and the same Stripe, as during a deployment, with other settings.
    pub async fn beside(&self, settings: Vec<(&'static str, String)>) -> Stack {
        start_stack(way(&self.database, self.pooler.as_ref()), &self.double, &self.post_office, settings, Vec::new()).await.0
    }

    /// Enters creators, with their accounts as the double describes them.
    pub async fn creators(&self, numbers: std::ops::RangeInclusive<u128>) {
        let new = |n: u128| NewPayee { account: Some(account_of(n)), ..person(creator(n), true, 0, Schedule::Semimonthly) };
        let people: Vec<NewPayee> = numbers.clone().map(new).collect();
        let stripe = self.stripe();
        let mut accounts: Vec<(Uuid, Account)> = Vec::new();
        for n in numbers {
            let account = stripe.account(&account_of(n)).await.expect("an answer").expect("an account");
            accounts.push((creator(n), account));
        }
        let mut tx = self.database.tx().await;
        payees::store::import(&mut tx, &people).await.expect("payees");
        payees::store::describe(&mut tx, &accounts, Utc::now() - chrono::Duration::hours(1)).await.expect("accounts");
        tx.commit(Boundary::Outside).await.expect("a commit");
    }

    /// Gives each of them 20 dollars and as many cents as their number, earned long ago; `name` makes it an earning of its own.
    pub async fn earn(&self, name: &str, numbers: std::ops::RangeInclusive<u128>) {
        let minor = |n: u128| 2_000 + i64::try_from(n).expect("a small number");
        let long_ago = at("2026-01-01T00:00:00Z");
        let earnings =
            numbers.map(|n| NewEarning { occurred_at: long_ago, ..earning(&format!("{name}:{n}"), n, minor(n)) }).collect();
        payday::earnings::record(&self.database.db, &policy(), earnings).await.expect("recorded");
    }

    pub fn stripe(&self) -> Stripe {
        let config = config::Stripe { secret_key: STRIPE_KEY.to_owned(), api_base: self.double.base_url(), timeout: PATIENCE };
        Stripe::new(&config).expect("a client")
    }

    /// Fires the semimonthly schedule of the cycle.
    pub async fn fire(&self) {
        self.fire_at(cutoff()).await;
    }

    pub async fn fire_at(&self, at: DateTime<Utc>) {
        self.stack.fire("payout-semimonthly", at).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until nothing runs, no message is open and no webhook is under way.
    pub async fn idle(&self) {
        loop {
            self.stack.wait_idle(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
            tokio::time::timeout(PATIENCE, self.double.all_delivered()).await.expect("every webhook is taken");
            if self.stack.activity.running() == 0 && self.stack.queues.open() == 0 {
                return;
            }
        }
    }

    pub async fn job(&self, job: &str) {
        let input = json!({ "job": job, "pace": { "quietSeconds": 0, "askStripe": true } });
        self.stack.invoke("scheduled-jobs", input).await.unwrap_or_else(|error| panic!("{error}"));
    }

    pub async fn sweep(&self) {
        self.job("sweep").await;
    }

    /// As if so much time had passed for everything that waits: leases, due times, cooling and replay windows. Only while
    /// nothing runs. The double's clock is its own.
    pub async fn later(&self, by: Duration) {
        let by = format!("interval '{} milliseconds'", by.as_millis());
        for (table, columns) in [
            ("payout_items", &["due_at", "waiting_since"][..]),
            ("payout_chunks", &["leased_until", "queued_at"]),
            ("payout_operations", &["first_dispatched_at", "dispatched_at", "send_deadline", "unknown_since"]),
            ("payout_runs", &["queued_at", "started_at"]),
            ("withdrawal_requests", &["due_at", "queued_at"]),
            ("stripe_events", &["due_at"]),
            ("stripe_accounts", &["destination_changed_at", "state_at"]),
            ("rate_budgets", &["next_at", "slowed_at"]),
            ("outbox", &["queued_at"]),
            ("outbox_deliveries", &["due_at"]),
            ("reconciliations", &["leased_until", "started_at"]),
        ] {
            let set: Vec<String> = columns.iter().map(|column| format!("{column} = {column} - {by}")).collect();
            self.database.run(format!("update {table} set {}", set.join(", "))).await;
        }
    }

    /// Lets everything go on until nothing can: sweeps, and lets time pass in steps of half a minute.
    pub async fn drain(&self) {
        let mut left = Vec::new();
        for _ in 0..20 {
            self.idle().await;
            left = self
                .database
                .rows(
                    "select 'item', i.id, i.status, i.due_at from payout_items i join payout_batches b on b.id = i.batch_id
                     where i.due_at is not null and (b.halt_reason is null or b.halt_reason = 'awaiting_funds')
                     union all select 'run', id, status, null from payout_runs r where status = 'running'
                        and not exists (select from payout_batches b where b.run_id = r.id and b.status = 'halted')
                     union all select 'withdrawal', null, w.id::text, due_at from withdrawal_requests w where status = 'pending' and due_at is not null
                        and not exists (select from payout_items i where i.creator_id = w.creator_id and i.currency = w.currency and is_unsettled(i.status))
                     union all select 'event', null, id, due_at from stripe_events where due_at <= now()
                     union all select 'account', null, account, null from stripe_accounts where stale or cured_at is not null
                     union all select 'message', id, kind, queued_at from outbox where sent_at is null",
                )
                .await;
            if left.is_empty() {
                return;
            }
            self.later(Duration::from_secs(31)).await;
            if left.iter().any(|line| line.starts_with("message")) {
                self.later(Duration::from_secs(300)).await;
            }
            self.sweep().await;
        }
        panic!("it does not come to an end: {}; {left:?}", self.statuses().await);
    }

    /// Waits until the database answers the statement with true.
    pub async fn until(&self, what: &str, condition: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.database.value::<bool>(format!("select coalesce(({condition}), false)")).await {
            assert!(Instant::now() < end, "in vain: {what}; {}", self.statuses().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until something outside of the database is so.
    pub async fn see(&self, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < end, "in vain: {what}; {}", self.statuses().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many items are in which status: `failed=1 paid=11`.
    pub async fn statuses(&self) -> String {
        let counts =
            self.database.rows("select status || '=' || count(*) from payout_items group by status order by status").await;
        if counts.is_empty() { "no items".to_owned() } else { counts.join(" ") }
    }

    /// Calls to an endpoint that the double executed.
    pub fn executed(&self, endpoint: &str) -> usize {
        self.double.calls().iter().filter(|call| call.endpoint == endpoint && call.executed).count()
    }

    /// Calls to an endpoint that came to the double.
    pub fn called(&self, endpoint: &str) -> usize {
        self.double.calls().iter().filter(|call| call.endpoint == endpoint).count()
    }

    /// A request to the API with the cron secret and a JSON body.
    pub async fn post(&self, path: &str, body: &Json) -> Answer {
        let headers = [("x-cron-secret", CRON_SECRET), ("content-type", "application/json")];
        http::request(&self.stack.http_url, "POST", path, &headers, body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        http::request(&self.stack.http_url, "GET", path, &[("x-cron-secret", CRON_SECRET)], "").await
    }

    /// The bodies of the messages in all dead-letter queues.
    pub fn dead_letters(&self) -> Vec<String> {
        let queues = &self.stack.queues;
        queues.dead_letter_names().iter().flat_map(|name| queues.bodies(name).unwrap_or_default()).collect()
    }

    /// Lets the banks decide and everything come to its end, and audits the world.
    pub async fn ends(self, statuses: &str) {
        self.ends_with(statuses, &Expected::default()).await;
    }

    pub async fn ends_with(self, statuses: &str, expected: &Expected) {
        self.drain().await;
        self.double.settle_payouts();
        self.drain().await;
        assert_eq!(self.statuses().await, statuses);
        audit::audit(&self, expected).await;
        self.stack.shutdown().await;
        // What failed keeps its logs.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn way(database: &Database, pooler: Option<&Pooler>) -> String {
    pooler.map_or_else(|| database.url(), |pooler| pooler.url.clone())
}

async fn start_stack(
    url: String,
    double: &StripeDouble,
    post_office: &PostOffice,
    settings: Vec<(&'static str, String)>,
    others: Vec<(&'static str, Option<String>)>,
) -> (Stack, PathBuf) {
    let folder = folder();
    let mut options = StackOptions::new(&folder, root().join("template.yaml"), binaries(), url);
    options.migrate = false;
    options.post_office = Some(post_office.clone());
    options.default_concurrency = 2;
    options.retry_after = Some(Duration::from_millis(200));
    let defaults = [
        ("STRIPE_API_BASE", double.base_url()),
        ("STRIPE_RATE_TRANSFERS", "0".to_owned()),
        ("STRIPE_RATE_PAYOUTS", "0".to_owned()),
        ("STRIPE_TIMEOUT_MS", "2000".to_owned()),
        ("ATTEMPT_COOLING_SECONDS", "0".to_owned()),
        ("CHUNK_SIZE", "10".to_owned()),
        ("FRONTEND_URL", FRONTEND.to_owned()),
        ("EMAIL_FROM", "payday@example.com".to_owned()),
        ("PAYOUT_ALERT_EMAIL", "ops@example.com, finance@example.com".to_owned()),
    ];
    options.environment.extend(defaults.map(|(name, value)| (name.to_owned(), value)));
    options.environment.extend(settings.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let secrets = [
        ("STRIPE_SECRET_KEY", STRIPE_KEY.to_owned()),
        ("STRIPE_WEBHOOK_SECRET", format!("{PLATFORM_SECRET},{CONNECT_SECRET}")),
        ("STRIPE_CONNECT_KEY", STRIPE_CONNECT_KEY.to_owned()),
        ("CRON_SECRET", CRON_SECRET.to_owned()),
        ("JWT_SECRET", JWT_SECRET.to_owned()),
        ("SLACK_PAYOUT_WEBHOOK_URL", post_office.slack_url()),
    ];
    options.secrets.extend(secrets.map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in others {
        options.secrets.remove(name);
        options.secrets.extend(value.map(|value| (name.to_owned(), value)));
    }
    let stack = Stack::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    (stack, folder)
}

/// A folder for the stack of the test that runs on this thread.
fn folder() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
    let folder = root().join(format!("target/test-stacks/{test}-{number}"));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// The folder of the functions' binaries, which cargo does not build for a test: beside the test's own folder.
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let folder = test.parent().and_then(Path::parent).expect("target/debug").to_owned();
    let shared = newest(&root().join("shared/src")).max(newest(&root().join("migrations")));
    for entry in std::fs::read_dir(root().join("functions")).expect("the functions").flatten() {
        let binary = folder.join(entry.file_name());
        let built = modified(&binary);
        let source = newest(&entry.path().join("src")).max(shared);
        assert!(
            built.is_some() && built >= source,
            "{} is missing or older than its source. `cargo payday test` builds the functions before it tests; `cargo build` does too.",
            binary.display()
        );
    }
    folder
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|file| file.modified()).ok()
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}
