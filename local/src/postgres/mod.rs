//! A private Postgres: its own data folder, port and password, started and stopped by us, never the system's cluster.
//!
//! If the server dies by itself (a `kill -9` of the postmaster), it is started again on the same port, as RDS would; what was
//! committed is there. The settings give up safety against a power cut for speed: nothing is forced to the disk. A killed
//! process loses nothing by that, because what it has written is with the kernel. `synchronous_commit` stays on for the same
//! reason: without it a commit could still lie in the server's own memory.

mod place;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::place::Account;
use crate::reaper::Reaper;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("Postgres is not installed on this machine. Install it with: {command}")]
    NotInstalled { command: &'static str },
    #[error(
        "Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as. Run this as another user"
    )]
    NoUser,
    #[error(
        "there is no folder that the user {user} can reach; run this as another user than root, or give {user} a way to /var/tmp"
    )]
    NoFolder { user: String },
    #[error("another payday uses {0}. Let it finish, or stop it, then try again", folder.display())]
    InUse { folder: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{program} failed: {said}")]
    Program { program: &'static str, said: String },
    #[error("Postgres did not start within {0:?}; its log says: {1}")]
    Silent(Duration, String),
    #[error("Postgres said: {0}")]
    Sql(#[from] sqlx::Error),
}

/// The superuser of the cluster.
const USER: &str = "payday";

/// A running cluster. It stops when this is dropped, or by `stop`, which waits for it.
pub struct Postgres {
    inner: Arc<Inner>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Held as long as this lives: one payday per folder.
    _lock: File,
}

struct Inner {
    programs: PathBuf,
    account: Account,
    folder: PathBuf,
    port: u16,
    password: String,
    /// Whether the server shall run; the keeper brings it back while this is true.
    wanted: watch::Sender<bool>,
    state: watch::Sender<State>,
    reaper: Mutex<Option<Reaper>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Stopped,
    Running { pid: u32 },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> PostgresError {
    let path = path.to_owned();
    move |source| PostgresError::Io { path, source }
}

impl Postgres {
    /// Starts the cluster of the private folder `home`, creating it the first time.
    pub async fn start(home: &Path) -> Result<Self, PostgresError> {
        let programs = place::programs()?;
        let account = Account::choose()?;
        let folder = place::folder(home, &account)?;
        let lock_path = home.join("postgres.lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        lock.try_lock().map_err(|_| PostgresError::InUse { folder: home.to_owned() })?;

        let password = password(&folder, &account)?;
        let data = folder.join("data");
        if !data.join("PG_VERSION").exists() || !folder.join("complete").exists() {
            initialize(&programs, &account, &folder)?;
        }
        end_leftover(&data);
        let until = Instant::now() + Duration::from_secs(15);
        let inner = loop {
            let inner = Arc::new(Inner {
                port: free_port().map_err(io(&folder))?,
                programs: programs.clone(),
                account: account.clone(),
                folder: folder.clone(),
                password: password.clone(),
                wanted: watch::Sender::new(true),
                state: watch::Sender::new(State::Stopped),
                reaper: Mutex::default(),
            });
            // Somebody may take the port before Postgres does, and the backends of a killed postmaster keep its memory for a
            // moment: both pass.
            match inner.launch().await {
                Ok(()) => break inner,
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let keeper = tokio::spawn(keep(Arc::clone(&inner)));
        Ok(Self { inner, keeper: Mutex::new(Some(keeper)), _lock: lock })
    }

    /// Connection string of a database of this cluster, as its superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(USER, &self.inner.password, database)
    }

    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.inner.port)
    }

    pub async fn connect(&self, database: &str) -> Result<PgConnection, PostgresError> {
        Ok(PgConnection::connect(&self.url(database)).await?)
    }

    async fn execute(&self, sql: String) -> Result<(), PostgresError> {
        let mut connection = self.connect("postgres").await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await?;
        Ok(())
    }

    pub async fn create_database(&self, name: &str) -> Result<(), PostgresError> {
        self.execute(format!("create database {}", quoted(name))).await
    }

    /// A copy of a database that nobody is connected to: for tests, much quicker than migrating again.
    pub async fn clone_database(&self, template: &str, name: &str) -> Result<(), PostgresError> {
        self.execute(format!("create database {} template {}", quoted(name), quoted(template))).await
    }

    /// Drops a database if it is there, whoever is connected.
    pub async fn drop_database(&self, name: &str) -> Result<(), PostgresError> {
        self.execute(format!("drop database if exists {} with (force)", quoted(name))).await
    }

    pub async fn has_database(&self, name: &str) -> Result<bool, PostgresError> {
        let mut connection = self.connect("postgres").await?;
        let row: (bool,) = sqlx::query_as("select exists (select from pg_database where datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(row.0)
    }

    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// The process number of the postmaster, if it runs now.
    pub fn pid(&self) -> Option<u32> {
        match *self.inner.state.borrow() {
            State::Running { pid } => Some(pid),
            State::Stopped => None,
        }
    }

    /// Kills the postmaster with SIGKILL and returns its number. It comes back by itself.
    pub fn kill(&self) -> Option<u32> {
        let pid = self.pid()?;
        signal(pid, Signal::SIGKILL);
        Some(pid)
    }

    /// Stops the server and keeps it stopped until `up`, as a database that is gone for a while.
    pub async fn down(&self) {
        self.inner.wanted.send_replace(false);
        self.inner.end(Signal::SIGINT).await;
    }

    /// Starts it again after `down`, and waits until it answers.
    pub async fn up(&self) -> Result<(), PostgresError> {
        self.inner.wanted.send_replace(true);
        self.ready(Duration::from_secs(30)).await
    }

    /// Waits until the server answers.
    pub async fn ready(&self, within: Duration) -> Result<(), PostgresError> {
        self.inner.answers(within, None).await
    }

    /// Stops the server in good order and waits for its end.
    pub async fn stop(self) {
        self.inner.wanted.send_replace(false);
        self.inner.end(Signal::SIGINT).await;
    }

    /// Removes the cluster of a folder that no payday uses, stopping a server that was left behind.
    pub fn remove(home: &Path) -> Result<(), PostgresError> {
        if !home.exists() {
            return Ok(());
        }
        let lock_path = home.join("postgres.lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        lock.try_lock().map_err(|_| PostgresError::InUse { folder: home.to_owned() })?;
        if let Ok(account) = Account::choose()
            && let Ok(folder) = place::folder(home, &account)
        {
            end_leftover(&folder.join("data"));
        }
        place::remove(home).map_err(io(home))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.inner.wanted.send_replace(false);
        if let Some(keeper) = lock(&self.keeper).take() {
            keeper.abort();
        }
        // Its postmaster is told to end, and waited for: whoever starts the cluster next must not meet it.
        let running = self.pid();
        drop(lock(&self.inner.reaper).take());
        if let Some(pid) = running {
            wait_for_end(pid, Duration::from_secs(10));
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Waits for a process that may be no child of ours. Only for the ends of things: it blocks.
fn wait_for_end(pid: u32, within: Duration) -> bool {
    let Ok(raw) = i32::try_from(pid) else { return true };
    let until = Instant::now() + within;
    loop {
        // A child that ended but was not waited for still has its number.
        let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')));
        if zombie || kill(Pid::from_raw(raw), None).is_err() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Brings the server back whenever it ends while it is wanted.
async fn keep(inner: Arc<Inner>) {
    let mut wanted = inner.wanted.subscribe();
    let mut state = inner.state.subscribe();
    loop {
        if state.wait_for(|state| *state == State::Stopped).await.is_err() || wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        if *state.borrow() != State::Stopped {
            continue;
        }
        tracing::warn!("postgres has stopped and is started again");
        // The backends of a killed postmaster keep its memory for a moment, during which a new one ends at once.
        if let Err(error) = inner.launch().await {
            tracing::debug!(%error, "postgres did not start yet");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Inner {
    /// Starts the postmaster and waits until it answers. An error if it ends before that.
    async fn launch(self: &Arc<Self>) -> Result<(), PostgresError> {
        self.spawn()?;
        self.answers(Duration::from_secs(60), Some(State::Stopped)).await
    }

    fn spawn(self: &Arc<Self>) -> Result<(), PostgresError> {
        let data = self.folder.join("data");
        let log_path = self.folder.join("postgres.log");
        let log = File::options().create(true).append(true).open(&log_path).map_err(io(&log_path))?;
        self.account.own(&log_path).map_err(io(&log_path))?;
        let program = self.programs.join("postgres");
        let mut command = self.account.command(&program, &self.folder);
        command.arg("-D").arg(&data).args(["-p", &self.port.to_string()]);
        for setting in self.settings() {
            command.args(["-c", &setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io(&log_path))?).stderr(log);
        {
            use std::os::unix::process::CommandExt;
            // Away from the terminal's Ctrl-C, which the runtime answers first.
            command.process_group(0);
        }
        let mut child = tokio::process::Command::from(command).spawn().map_err(io(&program))?;
        let pid = child.id().unwrap_or_default();
        let reaper = Reaper::of_process(pid, "INT").map_err(io(&self.folder))?;
        if let Some(old) = lock(&self.reaper).replace(reaper) {
            old.dismiss();
        }
        self.state.send_replace(State::Running { pid });
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let _ = child.wait().await;
            inner.state.send_replace(State::Stopped);
        });
        Ok(())
    }

    fn settings(&self) -> Vec<String> {
        let mut settings: Vec<String> = [
            "listen_addresses=127.0.0.1",
            // A socket's path may be at most about 100 bytes long, which a deep clone exceeds.
            "unix_socket_directories=",
            "max_connections=300",
            "shared_buffers=128MB",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=on",
            "wal_level=minimal",
            "max_wal_senders=0",
            "max_wal_size=2GB",
            "checkpoint_timeout=30min",
            "timezone=UTC",
            "log_timezone=UTC",
            "jit=off",
        ]
        .map(str::to_owned)
        .into();
        if self.has_statement_statistics() {
            settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
            settings.push("pg_stat_statements.max=10000".to_owned());
        }
        settings
    }

    fn has_statement_statistics(&self) -> bool {
        let folders = ["../lib", "../lib/postgresql", "../lib64", "../lib64/pgsql"];
        let names = ["pg_stat_statements.so", "pg_stat_statements.dylib"];
        // A program in PATH may be a link into the folder where its libraries are.
        let program = self.programs.join("postgres");
        let program = std::fs::canonicalize(&program).unwrap_or(program);
        let programs = program.parent().unwrap_or(&self.programs);
        folders.iter().any(|folder| names.iter().any(|name| programs.join(folder).join(name).is_file()))
    }

    /// Waits until a connection succeeds; gives up at once when the server's state becomes `unless`.
    async fn answers(&self, within: Duration, unless: Option<State>) -> Result<(), PostgresError> {
        let url = format!("postgres://{USER}:{}@127.0.0.1:{}/postgres", self.password, self.port);
        let until = Instant::now() + within;
        loop {
            // The server says nowhere but in its log that it is ready, so it is asked.
            if let Ok(connection) = PgConnection::connect(&url).await {
                connection.close().await?;
                return Ok(());
            }
            if Instant::now() > until || unless.is_some_and(|unless| *self.state.borrow() == unless) {
                return Err(PostgresError::Silent(within, self.end_of_log()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("postgres.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }

    async fn end(&self, how: Signal) {
        let mut state = self.state.subscribe();
        let State::Running { pid } = *state.borrow_and_update() else { return };
        signal(pid, how);
        let stopped = state.wait_for(|state| *state == State::Stopped);
        if tokio::time::timeout(Duration::from_secs(20), stopped).await.is_err() {
            signal(pid, Signal::SIGKILL);
            let _ = state.wait_for(|state| *state == State::Stopped).await;
        }
        if let Some(reaper) = lock(&self.reaper).take() {
            reaper.dismiss();
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The superuser's password: random, kept with the data, readable by the server's user only.
fn password(folder: &Path, account: &Account) -> Result<String, PostgresError> {
    let path = folder.join("password");
    let mut password = String::new();
    if let Ok(mut file) = File::open(&path) {
        file.read_to_string(&mut password).map_err(io(&path))?;
    }
    if password.is_empty() {
        password = uuid::Uuid::new_v4().simple().to_string();
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(io(&path))?;
        file.write_all(password.as_bytes()).map_err(io(&path))?;
        account.own(&path).map_err(io(&path))?;
    }
    Ok(password)
}

/// Creates the cluster. One that was left half made is made anew.
fn initialize(programs: &Path, account: &Account, folder: &Path) -> Result<(), PostgresError> {
    let data = folder.join("data");
    end_leftover(&data);
    if data.exists() {
        std::fs::remove_dir_all(&data).map_err(io(&data))?;
    }
    let mut command = account.command(&programs.join("initdb"), folder);
    // The password goes in the clear over the loopback: proving it by SCRAM costs an unoptimised client 40 ms for each connection.
    command.arg("-D").arg(&data).args(["-U", USER, "-A", "password", "--no-sync", "--encoding=UTF8", "--locale=C"]);
    command.arg(format!("--pwfile={}", folder.join("password").display()));
    let output = command.stdin(Stdio::null()).output().map_err(io(programs))?;
    if !output.status.success() {
        return Err(PostgresError::Program {
            program: "initdb",
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let complete = folder.join("complete");
    std::fs::write(&complete, "").map_err(io(&complete))
}

/// Ends a postmaster that a killed payday left behind on this data folder. The caller holds the folder's lock, so nobody else
/// uses it.
fn end_leftover(data: &Path) {
    let path = data.join("postmaster.pid");
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let mut lines = text.lines();
    let pid = lines.next().and_then(|line| line.trim().parse::<u32>().ok()).filter(|pid| *pid > 1);
    let of_this_folder = lines.next().is_some_and(|folder| Path::new(folder.trim()) == data);
    let Some(pid) = pid.filter(|_| of_this_folder) else { return };
    // The number may be another process's by now; only a postmaster of this folder is told to end.
    let is_postmaster = match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(command) => String::from_utf8_lossy(&command).contains(&*data.to_string_lossy()),
        Err(_) => !Path::new("/proc/self").exists(),
    };
    if is_postmaster {
        signal(pid, Signal::SIGINT);
        if !wait_for_end(pid, Duration::from_secs(10)) {
            signal(pid, Signal::SIGKILL);
            wait_for_end(pid, Duration::from_secs(5));
        }
    }
    // Left by a kill: Postgres would take it for a running server if the number is in use again.
    let _ = std::fs::remove_file(&path);
}
