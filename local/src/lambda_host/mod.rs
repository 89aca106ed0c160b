//! Runs functions as Lambda does: a pool of real processes per function, started when an event finds none idle.
//!
//! One event at a time per process. The function's timeout kills the process for real, and a process that dies is noticed at
//! once: the event it held has failed, and the next event starts another. A function holds at most as many processes as the
//! template allows at once, or a local cap where AWS would simply start more.

mod process;
mod runtime_api;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use tokio::sync::{Semaphore, oneshot};

use self::process::{Process, Start};
use self::runtime_api::{Answer, Desks, Job};
use crate::activity::Activity;
use crate::reaper::Reaper;
use crate::template::Function;

pub use self::process::Logs;
pub use self::runtime_api::MAX_PAYLOAD_BYTES;

/// AWS gives init 10 s; a debug build on a busy machine gets more, since only a hang should end it.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function {function} {kind}")]
pub struct InvokeError {
    pub function: String,
    pub kind: InvokeFailure,
}

/// The runtime's name for a boxed error says nothing to a person.
fn said_type(error_type: &str) -> String {
    if error_type.contains("dyn ") { String::new() } else { format!("{error_type}: ") }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeFailure {
    #[error("does not exist in the template")]
    Unknown,
    #[error("could not be started: {0}")]
    NotStarted(String),
    #[error("was killed: it ran over its timeout of {0:?}")]
    Timeout(Duration),
    #[error("{0} in the middle of its work")]
    Crashed(String),
    #[error("failed: {}{message}", said_type(error_type))]
    FunctionError { error_type: String, message: String },
}

/// What a function has done since the stack started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub invocations: u64,
    /// Of these: answered with an error, killed at the timeout, died.
    pub errors: u64,
    pub timeouts: u64,
    pub crashes: u64,
    /// From a process's start to its first request for an event, one for each process.
    pub inits: Vec<Duration>,
    pub max_rss_kb: u64,
}

pub struct HostOptions {
    /// Folder of the functions' binaries.
    pub bin_dir: PathBuf,
    pub logs: Logs,
    /// How many processes a function may hold where the template does not say.
    pub default_concurrency: usize,
}

/// All functions of a stack. Cheap to clone.
#[derive(Clone)]
pub struct LambdaHost(Arc<Inner>);

struct Inner {
    pools: BTreeMap<String, Arc<Pool>>,
    logs: Logs,
    desks: Desks,
    runtime_api: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    activity: Activity,
    reaper: Mutex<Option<Reaper>>,
    group: i32,
}

struct Pool {
    function: Function,
    binary: PathBuf,
    environment: BTreeMap<String, String>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Arc<Process>>>,
    alive: Mutex<Vec<Arc<Process>>>,
    counters: Mutex<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LambdaHost {
    /// `functions` come with their whole environment and how many of each may run at once, if the template says.
    pub async fn start(
        functions: Vec<(Function, BTreeMap<String, String>, Option<usize>)>,
        options: HostOptions,
        activity: Activity,
    ) -> std::io::Result<Self> {
        let desks = Desks::default();
        let (runtime_api, server) = runtime_api::serve(desks.clone()).await?;
        let reaper = Reaper::of_group()?;
        let pools = functions
            .into_iter()
            .map(|(function, environment, concurrency)| {
                let pool = Pool {
                    binary: options.bin_dir.join(&function.name),
                    environment,
                    permits: Arc::new(Semaphore::new(concurrency.unwrap_or(options.default_concurrency))),
                    idle: Mutex::default(),
                    alive: Mutex::default(),
                    counters: Mutex::default(),
                    function,
                };
                (pool.function.name.clone(), Arc::new(pool))
            })
            .collect();
        let group = reaper.group();
        Ok(Self(Arc::new(Inner {
            pools,
            logs: options.logs,
            desks,
            runtime_api,
            server,
            activity,
            reaper: Mutex::new(Some(reaper)),
            group,
        })))
    }

    /// Hands one event to the function and waits for what comes of it. Goes on to its end even if the caller stops waiting,
    /// as Lambda does.
    pub async fn invoke(&self, function: &str, payload: &Json) -> Result<Json, InvokeError> {
        let failed = |kind| InvokeError { function: function.to_owned(), kind };
        let Some(pool) = self.0.pools.get(function).cloned() else {
            return Err(failed(InvokeFailure::Unknown));
        };
        let running = self.0.activity.begin();
        let inner = Arc::clone(&self.0);
        let payload = Bytes::from(payload.to_string());
        let task = tokio::spawn(async move {
            let result = inner.run(&pool, payload).await;
            drop(running);
            result
        });
        match task.await {
            Ok(result) => result.map_err(failed),
            Err(error) => Err(failed(InvokeFailure::NotStarted(error.to_string()))),
        }
    }

    /// Kills every process of the function with SIGKILL, and returns their numbers.
    pub fn kill(&self, function: &str) -> Vec<u32> {
        self.signal(function, Signal::SIGKILL)
    }

    /// Stops every process of the function where it is, as Lambda may freeze one.
    pub fn freeze(&self, function: &str) -> Vec<u32> {
        let pids = self.signal(function, Signal::SIGSTOP);
        self.alive(function).iter().for_each(|process| process.wait_until_stopped());
        pids
    }

    pub fn thaw(&self, function: &str) -> Vec<u32> {
        self.signal(function, Signal::SIGCONT)
    }

    /// The process numbers of the function.
    pub fn pids(&self, function: &str) -> Vec<u32> {
        self.alive(function).iter().map(|process| process.pid).collect()
    }

    fn alive(&self, function: &str) -> Vec<Arc<Process>> {
        match self.0.pools.get(function) {
            Some(pool) => lock(&pool.alive).iter().filter(|process| process.is_alive()).cloned().collect(),
            None => Vec::new(),
        }
    }

    fn signal(&self, function: &str, signal: Signal) -> Vec<u32> {
        let processes = self.alive(function);
        processes.iter().for_each(|process| process.signal(signal));
        processes.iter().map(|process| process.pid).collect()
    }

    pub fn counters(&self) -> BTreeMap<String, Counters> {
        let of = |pool: &Pool| {
            let mut counters = lock(&pool.counters).clone();
            let alive = lock(&pool.alive).iter().map(|process| process.max_rss_kb()).max().unwrap_or(0);
            counters.max_rss_kb = counters.max_rss_kb.max(alive);
            counters
        };
        self.0.pools.iter().map(|(name, pool)| (name.clone(), of(pool))).collect()
    }

    /// Asks every process to end, then makes it. Nothing of the group is left afterwards.
    pub async fn shutdown(&self) {
        let processes: Vec<_> = self.0.pools.values().flat_map(|pool| lock(&pool.alive).clone()).collect();
        for process in &processes {
            process.signal(Signal::SIGTERM);
            process.signal(Signal::SIGCONT);
        }
        let all = futures::future::join_all(processes.iter().map(|process| process.end()));
        if tokio::time::timeout(Duration::from_secs(2), all).await.is_err() {
            processes.iter().for_each(|process| process.signal(Signal::SIGKILL));
            futures::future::join_all(processes.iter().map(|process| process.end())).await;
        }
        self.0.server.abort();
        drop(lock(&self.0.reaper).take());
    }
}

impl LambdaHost {
    /// Ends every process at once, without waiting for anything but their reaper.
    pub fn abandon(&self) {
        self.0.server.abort();
        drop(lock(&self.0.reaper).take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Inner {
    async fn run(&self, pool: &Pool, payload: Bytes) -> Result<Json, InvokeFailure> {
        let Ok(_permit) = pool.permits.acquire().await else {
            return Err(InvokeFailure::NotStarted("the stack is shutting down".to_owned()));
        };
        lock(&pool.counters).invocations += 1;
        let result = loop {
            let (process, fresh) = match idle(pool) {
                Some(process) => (process, false),
                None => (self.start_process(pool)?, true),
            };
            match attempt(pool, &process, payload.clone(), fresh).await {
                // An idle process that dies before it takes the event has not seen it: another may have it.
                Outcome::NotTaken if !fresh => {}
                Outcome::NotTaken => {
                    let end = process.end().await;
                    let why = process.desk.init_error().map_or(end.clone(), |error| format!("{end} after saying: {error}"));
                    break Err(InvokeFailure::NotStarted(format!("it {why}; its log is {}", self.log_of(pool))));
                }
                Outcome::Answered(answer) => {
                    lock(&pool.idle).push(process);
                    break answer;
                }
                Outcome::Ended(failure) => break Err(failure),
            }
        };
        let mut counters = lock(&pool.counters);
        match &result {
            Err(InvokeFailure::Timeout(_)) => counters.timeouts += 1,
            Err(InvokeFailure::Crashed(_) | InvokeFailure::NotStarted(_)) => counters.crashes += 1,
            Err(_) => counters.errors += 1,
            Ok(_) => {}
        }
        result
    }

    fn log_of(&self, pool: &Pool) -> String {
        self.logs.folder.join(format!("{}.log", pool.function.name)).display().to_string()
    }

    fn start_process(&self, pool: &Pool) -> Result<Arc<Process>, InvokeFailure> {
        let start = Start {
            function: &pool.function.name,
            binary: &pool.binary,
            environment: &pool.environment,
            runtime_api: self.runtime_api,
            group: self.group,
            logs: &self.logs,
        };
        let process = Process::start(&start, &self.desks)
            .map_err(|error| InvokeFailure::NotStarted(format!("{}: {error}", pool.binary.display())))?;
        let mut alive = lock(&pool.alive);
        let dead_rss = alive.iter().filter(|process| !process.is_alive()).map(|process| process.max_rss_kb()).max();
        alive.retain(|process| process.is_alive());
        alive.push(Arc::clone(&process));
        drop(alive);
        let mut counters = lock(&pool.counters);
        counters.max_rss_kb = counters.max_rss_kb.max(dead_rss.unwrap_or(0));
        Ok(process)
    }
}

fn idle(pool: &Pool) -> Option<Arc<Process>> {
    let mut idle = lock(&pool.idle);
    while let Some(process) = idle.pop() {
        if process.is_fit() {
            return Some(process);
        }
    }
    None
}

enum Outcome {
    NotTaken,
    Answered(Result<Json, InvokeFailure>),
    Ended(InvokeFailure),
}

async fn attempt(pool: &Pool, process: &Process, payload: Bytes, fresh: bool) -> Outcome {
    let timeout = pool.function.timeout;
    let (answer, answered) = oneshot::channel();
    let (taken, was_taken) = oneshot::channel();
    let job = Job {
        request_id: uuid::Uuid::new_v4().to_string(),
        payload,
        arn: pool.function.arn.clone(),
        timeout_ms: i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX / 2),
        answer,
        taken,
    };
    if process.jobs.send(job).await.is_err() {
        return Outcome::NotTaken;
    }
    // A frozen process never takes its event; the function's timeout ends that too.
    let until_taken = if fresh { INIT_TIMEOUT.max(timeout) } else { timeout };
    tokio::select! {
        biased;
        taken = was_taken => if taken.is_err() { return Outcome::NotTaken },
        _ = process.end() => return Outcome::NotTaken,
        () = tokio::time::sleep(until_taken) => {
            process.signal(Signal::SIGKILL);
            process.end().await;
            return Outcome::Ended(InvokeFailure::Timeout(until_taken));
        }
    }
    if fresh {
        let mut init = process.init.clone();
        if let Ok(init) = init.wait_for(Option::is_some).await
            && let Some(init) = *init
        {
            lock(&pool.counters).inits.push(init);
        }
    }
    let answer = tokio::select! {
        // An answer that came before the end counts, even if both are there to see.
        biased;
        answer = answered => answer.ok(),
        _ = process.end() => None,
        () = tokio::time::sleep(timeout) => {
            process.signal(Signal::SIGKILL);
            process.end().await;
            return Outcome::Ended(InvokeFailure::Timeout(timeout));
        }
    };
    // Read while it still lives: a dead process tells nothing.
    process.max_rss_kb();
    match answer {
        Some(Answer::Response(body)) => {
            Outcome::Answered(serde_json::from_slice(&body).map_err(|error| InvokeFailure::FunctionError {
                error_type: "Runtime.InvalidResponse".to_owned(),
                message: format!("its answer is not JSON: {error}"),
            }))
        }
        Some(Answer::Error { error_type, message }) => {
            Outcome::Answered(Err(InvokeFailure::FunctionError { error_type, message }))
        }
        None => Outcome::Ended(InvokeFailure::Crashed(process.end().await)),
    }
}
