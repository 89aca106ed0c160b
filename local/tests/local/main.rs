//! The local runtime with real processes, queues, schedules and HTTP; the functions are a fixture that does as it is told.

mod commands;
mod database;
mod fixture;
mod functions;
mod http;
mod messages;
mod schedules;
mod template;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use payday_local::stack::{Stack, StackOptions};

/// A stack of the tests' own template, in a folder that goes with it.
pub struct World {
    pub stack: Stack,
    pub folder: tempfile::TempDir,
}

pub const PATIENCE: Duration = Duration::from_secs(30);

/// In place of the functions' binaries: scripts that become the fixture.
fn bin_dir(folder: &Path) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    for name in ["actor", "worker"] {
        let script = format!("#!/bin/sh\nexec '{}' --ignored --exact --nocapture fixture::acts_as_a_function\n", test.display());
        std::fs::write(bin.join(name), script).expect("a script");
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    bin
}

pub fn options(folder: &Path) -> StackOptions {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/local/template.yaml");
    let mut options = StackOptions::new(folder.join("stack"), template, bin_dir(folder), "postgres://nowhere");
    options.stack_name = "test".to_owned();
    options.secrets =
        BTreeMap::from([("OPEN_SECRET".to_owned(), "sesame".to_owned()), ("HIDDEN_SECRET".to_owned(), "hush".to_owned())]);
    options.database_secrets = false;
    options
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut StackOptions)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = options(folder.path());
        change(&mut options);
        let stack = Stack::start(options).await.expect("the stack starts");
        Self { stack, folder }
    }

    pub async fn idle(&self) {
        self.stack.wait_idle(PATIENCE).await.expect("everything is done");
    }

    pub async fn end(self) {
        self.stack.shutdown().await;
    }
}

pub fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).expect("a process number");
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z"));
    !zombie && nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

/// Waits for something that only the system knows, like the end of a process that is nobody's child.
pub async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(std::time::Instant::now() < end, "{what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
