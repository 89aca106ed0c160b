//! One execution environment: a process of a function's binary, watched from its start to its end.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};

use super::runtime_api::{Desk, Desks, Job};

/// Where the output of functions goes. It is always kept in `<folder>/<function>.log`.
#[derive(Debug, Clone)]
pub struct Logs {
    pub folder: PathBuf,
    /// Also to the terminal's standard error, each line with the function's name.
    pub echo: bool,
}

pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) desk: Arc<Desk>,
    /// Why it ended, once it has.
    pub(super) ended: watch::Receiver<Option<String>>,
    /// Time from start to the first request for an event.
    pub(super) init: watch::Receiver<Option<Duration>>,
    /// Told to die by us; it must get no event in the moment until it does.
    condemned: AtomicBool,
    max_rss_kb: AtomicU64,
}

pub(super) struct Start<'a> {
    pub(super) function: &'a str,
    pub(super) binary: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) runtime_api: std::net::SocketAddr,
    pub(super) group: i32,
    pub(super) logs: &'a Logs,
}

/// What a developer sets for the functions from outside: how much they log, and whom they trust.
const PASSED_ON: [&str; 7] = ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "LLVM_PROFILE_FILE"];

impl Process {
    pub(super) fn start(start: &Start<'_>, desks: &Desks) -> std::io::Result<Arc<Self>> {
        let name = uuid::Uuid::new_v4().to_string();
        let mut command = Command::new(start.binary);
        // As on Lambda, a function sees only what it is given; a variable of the developer's shell must not decide anything.
        command.env_clear();
        command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (*name, value))));
        command.envs(start.environment);
        command.env("AWS_LAMBDA_RUNTIME_API", format!("http://{}/{name}", start.runtime_api));
        command.process_group(start.group).stdin(Stdio::null());
        let log = OpenOptions::new().create(true).append(true).open(start.logs.folder.join(format!("{}.log", start.function)))?;
        if start.logs.echo {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        } else {
            command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        }

        let (jobs, receiver) = mpsc::channel(1);
        let (ready, first_next) = oneshot::channel();
        let desk = Arc::new(Desk::new(receiver, ready));
        desks.open(&name, Arc::clone(&desk));
        let started = Instant::now();
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                desks.close(&name);
                return Err(error);
            }
        };
        if start.logs.echo {
            let log = tokio::fs::File::from_std(log);
            let log = Arc::new(tokio::sync::Mutex::new(log));
            if let Some(output) = child.stdout.take() {
                tokio::spawn(echo(output, start.function.to_owned(), Arc::clone(&log)));
            }
            if let Some(output) = child.stderr.take() {
                tokio::spawn(echo(output, start.function.to_owned(), log));
            }
        }

        let (init_sender, init) = watch::channel(None);
        tokio::spawn(async move {
            if first_next.await.is_ok() {
                init_sender.send_replace(Some(started.elapsed()));
            }
        });
        let (ended_sender, ended) = watch::channel(None);
        let desks = desks.clone();
        let pid = child.id().unwrap_or_default();
        tokio::spawn(async move {
            let end = child.wait().await;
            desks.close(&name);
            ended_sender.send_replace(Some(describe(end)));
        });
        Ok(Arc::new(Self { pid, jobs, desk, ended, init, condemned: AtomicBool::new(false), max_rss_kb: AtomicU64::new(0) }))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Whether it may be given an event.
    pub(super) fn is_fit(&self) -> bool {
        self.is_alive() && !self.condemned.load(Ordering::Relaxed)
    }

    /// Sends a signal, unless the process has ended: its number may be another's by now.
    pub(super) fn signal(&self, signal: Signal) {
        if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
            self.condemned.store(true, Ordering::Relaxed);
        }
        if self.is_alive()
            && let Ok(pid) = i32::try_from(self.pid)
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            tracing::debug!(pid, %signal, %error, "the process could not be signalled");
        }
    }

    /// Waits until a SIGSTOP has reached every thread; the kernel takes a moment for that. Only Linux tells.
    pub(super) fn wait_until_stopped(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        let stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't', 'Z']));
        while self.is_alive() && Instant::now() < until {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid)) else { return };
            let stats = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
            if stats.into_iter().all(stopped) {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(super) async fn end(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "its watcher is gone".to_owned(),
        }
    }

    /// The most memory it ever held, in KiB. Only Linux tells; elsewhere 0.
    pub(super) fn max_rss_kb(&self) -> u64 {
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            && let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
            && let Some(kb) = line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok())
        {
            self.max_rss_kb.fetch_max(kb, Ordering::Relaxed);
        }
        self.max_rss_kb.load(Ordering::Relaxed)
    }
}

fn describe(end: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match end {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {signal}"),
            },
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("could not be watched: {error}"),
    }
}

async fn echo(output: impl tokio::io::AsyncRead + Unpin, function: String, log: Arc<tokio::sync::Mutex<tokio::fs::File>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().await;
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        let _ = log.flush().await;
        crate::console::note(&format!("{function}: {line}"));
    }
}
