//! `reset`: stops what runs in the private folder and deletes the folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{DONE, FAILED};
use crate::console::{note, say};
use crate::control::Running;
use crate::postgres::Postgres;

/// How long a running payday may take to stop before reset gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A folder with one of these is payday's.
const LOCKS: [&str; 2] = ["stack.lock", "postgres.lock"];

pub async fn reset(folder: &Path) -> u8 {
    if !folder.exists() {
        say(&format!("there is nothing to reset: {} does not exist", folder.display()));
        return DONE;
    }
    // A wrong `--folder` must not cost somebody's files.
    let homes = homes(folder);
    if homes.is_empty() {
        note(&format!("{} is no folder of payday's; nothing was deleted", folder.display()));
        return FAILED;
    }
    for home in &homes {
        if let Err(problem) = stop(home).await {
            note(&problem);
            return FAILED;
        }
    }
    match std::fs::remove_dir_all(folder) {
        Ok(()) => {
            say(&format!("removed {} and the database in it", folder.display()));
            DONE
        }
        Err(error) => {
            note(&format!("{}: {error}", folder.display()));
            FAILED
        }
    }
}

/// The folders in which a payday runs or ran: `up` uses the private folder itself, `demo` and `run` one inside.
fn homes(folder: &Path) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_ours = |home: &PathBuf| LOCKS.iter().any(|name| home.join(name).is_file());
    std::iter::once(folder.to_owned()).chain(inside).filter(is_ours).collect()
}

async fn stop(home: &Path) -> Result<(), String> {
    if let Ok(running) = Running::find(home)
        && running.stop(home).await.is_ok()
    {
        note(&format!("stopping the payday with process number {}", running.pid));
    }
    // Both locks are free once it has stopped.
    let until = Instant::now() + PATIENCE;
    for name in LOCKS {
        let path = home.join(name);
        while File::options().read(true).open(&path).is_ok_and(|file| file.try_lock().is_err()) {
            if Instant::now() > until {
                return Err(format!("a payday still runs in {}. End it, then try again", home.display()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Postgres::remove(home).map_err(|error| error.to_string())
}
