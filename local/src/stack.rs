//! Everything of one stack together: what `template.yaml` describes, running in one private folder.
//!
//! The same stack serves `cargo payday` and the end-to-end tests. The database is the caller's: a stack is given its URL.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::activity::Activity;
use crate::front::{self, FrontError};
use crate::identity::Identities;
use crate::lambda_host::{HostOptions, InvokeError, LambdaHost, Logs};
use crate::post_office::PostOffice;
use crate::queues::Queues;
use crate::scheduler::{FireError, Scheduler, SchedulerParts};
use crate::secrets;
use crate::template::{self, Function, Place, TemplateError, Wiring};

/// The account and region that ARNs name. `winterbaume` knows only this region when it is not asked through AWS's hosts.
const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

pub struct StackOptions {
    /// The stack's private folder; created, and locked as long as the stack runs.
    pub folder: PathBuf,
    pub template: PathBuf,
    /// Folder of the functions' binaries.
    pub bin_dir: PathBuf,
    pub stack_name: String,
    /// Values for the template's parameters, by their names there.
    pub parameters: BTreeMap<String, String>,
    /// Values for environment variables that the template gives to functions, by name. A function that does not get the variable
    /// from the template does not get it from here either.
    pub environment: BTreeMap<String, String>,
    /// Secrets by their names, like `CRON_SECRET`; the template takes the ARN of each as the parameter `CronSecretArn`.
    /// `DATABASE_URL` and `MIGRATION_DATABASE_URL` are the database's unless given.
    pub secrets: BTreeMap<String, String>,
    pub database_url: String,
    /// Whether the template has the two secrets of the database. Only a test's template has not.
    pub database_secrets: bool,
    /// Port of the HTTP API; a free one if none.
    pub http_port: Option<u16>,
    /// Whether schedules fire by themselves.
    pub autofire: bool,
    /// When a failed message is delivered again, and a failed event of a schedule repeated. AWS waits for the queue's visibility
    /// timeout (90 minutes for some) and for one and two minutes; none keeps that.
    pub retry_after: Option<Duration>,
    /// How many processes a function may hold where the template does not say.
    pub default_concurrency: usize,
    /// Also show what functions log on the terminal.
    pub echo_logs: bool,
    /// Whether the function `migrator` is invoked before anything else runs.
    pub migrate: bool,
    /// Where emails go, and Slack's messages if the secret `SLACK_PAYOUT_WEBHOOK_URL` says so; none: nowhere.
    pub post_office: Option<PostOffice>,
}

impl StackOptions {
    pub fn new(
        folder: impl Into<PathBuf>,
        template: impl Into<PathBuf>,
        bin_dir: impl Into<PathBuf>,
        database_url: impl Into<String>,
    ) -> Self {
        Self {
            folder: folder.into(),
            template: template.into(),
            bin_dir: bin_dir.into(),
            stack_name: "payday".to_owned(),
            parameters: BTreeMap::new(),
            environment: BTreeMap::new(),
            secrets: BTreeMap::new(),
            database_url: database_url.into(),
            database_secrets: true,
            http_port: None,
            autofire: false,
            retry_after: None,
            default_concurrency: 4,
            echo_logs: false,
            migrate: true,
            post_office: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StackError {
    #[error("another payday runs in {0}. Stop it, or choose another folder", folder.display())]
    InUse { folder: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Port(#[from] FrontError),
    #[error("there is no binary {0}; build it with `cargo build`", path.display())]
    NoBinary { path: PathBuf },
    #[error("a schedule of the template is refused: {0}")]
    Schedule(String),
    #[error("the database could not be migrated: {0}. If it is an old one of this folder, `cargo payday reset` removes it")]
    Migration(InvokeError),
    #[error("after {after:?} there is still work: {what}")]
    Busy { after: Duration, what: String },
}

pub struct Stack {
    pub http_url: String,
    pub sqs_url: String,
    pub scheduler_url: String,
    /// The secrets by name, as functions get them.
    pub secrets: BTreeMap<String, String>,
    pub queues: Queues,
    pub scheduler: Scheduler,
    pub lambda: LambdaHost,
    pub wiring: Arc<Wiring>,
    pub activity: Activity,
    folder: PathBuf,
    tasks: Tasks,
    _lock: File,
}

/// What runs beside; ends when this is dropped, also if starting fails halfway.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Name of a secret's parameter: `CRON_SECRET` → `CronSecretArn`.
pub fn secret_parameter(name: &str) -> String {
    format!("{}Arn", parameter(name))
}

/// The parameter for a setting: `HOLD_DAYS` is `HoldDays`.
pub fn parameter(name: &str) -> String {
    let pascal = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{first}{}", rest.to_lowercase())
    });
    pascal.collect()
}

async fn listen() -> Result<(TcpListener, String, u16), StackError> {
    let listener = front::bind(None).await?;
    let address = listener.local_addr().map_err(|source| StackError::Io { path: PathBuf::from("127.0.0.1"), source })?;
    Ok((listener, format!("http://{address}"), address.port()))
}

/// Locks the folder for one stack.
fn lock_folder(folder: &Path) -> Result<File, StackError> {
    let io = |source| StackError::Io { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let lock = File::create(folder.join("stack.lock")).map_err(io)?;
    lock.try_lock().map_err(|_| StackError::InUse { folder: folder.to_owned() })?;
    // Logs are of this run only; without end they would fill the disk.
    let logs = folder.join("logs");
    match std::fs::remove_dir_all(&logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => std::fs::create_dir_all(&logs).map_err(io)?,
    }
    Ok(lock)
}

impl Stack {
    /// Starts everything, or leaves nothing behind.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let lock = lock_folder(&options.folder)?;
        let http = front::bind(options.http_port).await?;
        let http_address = http.local_addr().map_err(|source| StackError::Io { path: PathBuf::from("127.0.0.1"), source })?;
        let (sqs, sqs_url, _) = listen().await?;
        let (scheduler_listener, scheduler_url, _) = listen().await?;
        let (extension, _, extension_port) = listen().await?;

        let place = Place {
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            stack_name: options.stack_name.clone(),
            sqs_origin: sqs_url.clone(),
        };
        let mut secrets = options.secrets.clone();
        let of_database: &[&str] = if options.database_secrets { &["DATABASE_URL", "MIGRATION_DATABASE_URL"] } else { &[] };
        for name in of_database {
            secrets.entry((*name).to_owned()).or_insert_with(|| options.database_url.clone());
        }
        let arn = |name: &str| place.arn("secretsmanager", &format!("secret:{}/{name}-local1", options.stack_name));
        let mut parameters = options.parameters.clone();
        for name in secrets.keys() {
            parameters.entry(secret_parameter(name)).or_insert_with(|| arn(name));
        }
        let wiring = Arc::new(template::read(&options.template, &parameters, &place)?);
        if let Some(missing) = wiring.functions.keys().map(|name| options.bin_dir.join(name)).find(|path| !path.is_file()) {
            return Err(StackError::NoBinary { path: missing });
        }

        let activity = Activity::default();
        let mut identities = Identities::default();
        let ses = options.post_office.as_ref().map(|post_office| post_office.url.as_str());
        let endpoints = Endpoints { sqs: &sqs_url, scheduler: &scheduler_url, ses, extension_port };
        let functions = wiring
            .functions
            .values()
            .map(|function| {
                let environment = environment(function, &options, &endpoints, &mut identities);
                (function.clone(), environment, concurrency(&wiring, function))
            })
            .collect();
        let identities = Arc::new(identities);
        if let Some(post_office) = &options.post_office {
            post_office.obey(Arc::clone(&identities));
        }
        let host_options = HostOptions {
            bin_dir: options.bin_dir.clone(),
            logs: Logs { folder: options.folder.join("logs"), echo: options.echo_logs },
            default_concurrency: options.default_concurrency,
        };
        let started = LambdaHost::start(functions, host_options, activity.clone()).await;
        let lambda = started.map_err(|source| StackError::Io { path: options.folder.clone(), source })?;
        let queues = Queues::new(&wiring, activity.clone());
        let by_arn = secrets.iter().map(|(name, value)| (arn(name), value.clone())).collect();
        let mut tasks =
            Tasks(vec![queues.serve(sqs, Arc::clone(&identities)), secrets::serve(extension, by_arn, Arc::clone(&identities))]);

        let parts = SchedulerParts {
            place,
            wiring: Arc::clone(&wiring),
            identities,
            host: lambda.clone(),
            queues: queues.clone(),
            activity: activity.clone(),
            retry_after: options.retry_after,
        };
        let scheduler = Scheduler::new(parts).await.map_err(StackError::Schedule)?;
        tasks.0.push(scheduler.serve(scheduler_listener));
        let mut stack = Self {
            http_url: format!("http://{http_address}"),
            sqs_url,
            scheduler_url,
            secrets,
            queues,
            scheduler,
            lambda,
            wiring,
            activity,
            folder: options.folder,
            tasks,
            _lock: lock,
        };
        // Before anything can start by itself: code must not meet an older schema.
        if options.migrate
            && stack.wiring.functions.contains_key("migrator")
            && let Err(error) = stack.invoke("migrator", json!({})).await
        {
            stack.shutdown().await;
            return Err(StackError::Migration(error));
        }
        let default_concurrency = options.default_concurrency;
        let pollers =
            stack.queues.start_event_sources(&stack.wiring, REGION, &stack.lambda, options.retry_after, |_| default_concurrency);
        stack.tasks.0.extend(pollers);
        stack.tasks.0.push(front::serve(http, &stack.wiring.routes, stack.lambda.clone(), ACCOUNT));
        if options.autofire {
            stack.tasks.0.push(stack.scheduler.start());
        }
        Ok(stack)
    }

    /// Hands one event to a function and waits for its answer.
    pub async fn invoke(&self, function: &str, payload: Json) -> Result<Json, InvokeError> {
        self.lambda.invoke(function, &payload).await
    }

    /// Fires a schedule as of that instant, and waits for the function it starts.
    pub async fn fire(&self, schedule: &str, at: DateTime<Utc>) -> Result<Json, FireError> {
        self.scheduler.fire(schedule, at).await
    }

    /// Kills every process of the function with SIGKILL.
    pub fn kill(&self, function: &str) -> Vec<u32> {
        self.lambda.kill(function)
    }

    /// Waits until nothing runs and no message is open, dead letters not counted. A message that waits for its next delivery
    /// is open.
    pub async fn wait_idle(&self, within: Duration) -> Result<(), StackError> {
        let idle = self.activity.wait_until(|| self.activity.running() == 0 && self.queues.open() == 0);
        tokio::time::timeout(within, idle).await.map_err(|_| StackError::Busy { after: within, what: self.describe_work() })
    }

    fn describe_work(&self) -> String {
        let depths = self.queues.names().iter().filter_map(|name| self.queues.depth(name).ok().map(|depth| (name, depth)));
        let queues: Vec<String> = depths
            .filter(|(_, depth)| depth.total() > 0)
            .map(|(name, depth)| {
                format!("{name}: {} visible, {} in flight, {} delayed", depth.visible, depth.in_flight, depth.delayed)
            })
            .collect();
        format!("{} running; {}", self.activity.running(), queues.join("; "))
    }

    /// Folder of the functions' logs.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Stops everything: first what starts functions, then the functions, then what they talk to.
    pub async fn shutdown(mut self) {
        self.stop().await;
    }

    async fn stop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks.0);
        tasks.iter().for_each(JoinHandle::abort);
        self.lambda.shutdown().await;
        for task in tasks {
            let _ = task.await;
        }
    }
}

impl Drop for Stack {
    /// A stack that is dropped without `shutdown` ends its processes too: their group's reaper sees to that.
    fn drop(&mut self) {
        self.tasks.0.iter().for_each(JoinHandle::abort);
        self.lambda.abandon();
    }
}

struct Endpoints<'a> {
    sqs: &'a str,
    scheduler: &'a str,
    ses: Option<&'a str>,
    extension_port: u16,
}

/// How many of a function may run at once, if the template says.
fn concurrency(wiring: &Wiring, function: &Function) -> Option<usize> {
    let sources = wiring.event_sources.iter().filter(|source| source.function == function.name);
    function.reserved_concurrency.or_else(|| sources.filter_map(|source| source.maximum_concurrency).max())
}

fn environment(
    function: &Function,
    options: &StackOptions,
    endpoints: &Endpoints<'_>,
    identities: &mut Identities,
) -> BTreeMap<String, String> {
    let mut environment = function.environment.clone();
    for (name, value) in &options.environment {
        if let Some(own) = environment.get_mut(name) {
            own.clone_from(value);
        }
    }
    let credentials = identities.add(function);
    let lambda = [
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        // Without it the SDK looks for a metadata server that is not there, for seconds.
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
        ("AWS_SESSION_TOKEN", credentials.session_token),
        ("AWS_ENDPOINT_URL_SQS", endpoints.sqs.to_owned()),
        ("AWS_ENDPOINT_URL_SCHEDULER", endpoints.scheduler.to_owned()),
        ("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", endpoints.extension_port.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", function.name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", function.name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "local".to_owned()),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("_HANDLER", "bootstrap".to_owned()),
    ];
    environment.extend(lambda.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(endpoints.ses.map(|url| ("AWS_ENDPOINT_URL_SESV2".to_owned(), url.to_owned())));
    environment
}
