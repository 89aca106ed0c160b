//! `verify`: every standing check over a live database, and the rows that disagree. It only reads.

use std::path::{Path, PathBuf};

use payday::db::Db;
use payday::payouts::checks::{self, Check};

use super::up::DATABASE;
use super::{DONE, FAILED, WRONG_USE};
use crate::console::{note, say};
use crate::control::Running;
use crate::job::Failure;
use crate::postgres::Postgres;

/// 0: all checks hold. 1: some row disagrees. 2: there is no database to ask.
pub async fn verify(folder: &Path, database_url: Option<&str>) -> u8 {
    let given = database_url.filter(|url| !url.is_empty());
    let asked = match given {
        Some(url) => ask(url).await,
        None => ask_ours(folder).await,
    };
    match asked {
        Ok(true) => DONE,
        Ok(false) => FAILED,
        Err(failure) => {
            note(&format!("nothing was verified: {failure}"));
            WRONG_USE
        }
    }
}

/// Asks the database of the payday that runs in the private folder, else those that were kept there.
async fn ask_ours(folder: &Path) -> Result<bool, Failure> {
    if let Ok(running) = Running::find(folder) {
        return ask(&running.database_url).await;
    }
    let homes = kept(folder);
    if homes.is_empty() {
        let what = format!("there is no database in {}. Give one with --database-url, or DATABASE_URL", folder.display());
        return Err(Failure::Use(what));
    }
    let mut all_hold = true;
    for home in homes {
        say(&format!("the database in {}", home.display()));
        let postgres = Postgres::start(&home).await?;
        let asked = ask(&postgres.url(DATABASE)).await;
        postgres.stop().await;
        all_hold &= asked?;
    }
    Ok(all_hold)
}

/// Where `up`, `demo` and `run --keep` leave their databases.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let homes = [folder.to_owned(), folder.join("demo"), folder.join("run")];
    homes.into_iter().filter(|home| home.join("postgres.lock").is_file()).collect()
}

/// Prints each check with what it found; whether all of them hold.
async fn ask(url: &str) -> Result<bool, Failure> {
    let db = Db::connect(url, 1)?;
    let mut tx = db.begin().await?;
    let breaches = checks::of_everything(&mut tx).await?;
    let breached = checks::by_check(&breaches);
    for check in Check::ALL {
        let rows = breached.iter().find(|(other, _)| other == check).map_or(&[][..], |(_, rows)| rows);
        let verdict = if rows.is_empty() { "ok" } else { "BREACHED" };
        say(&format!("  {verdict:<9} {:<30} {}", check.name(), check.sentence()));
        for row in rows {
            say(&format!("            {row}"));
        }
    }
    match breached.len() {
        0 => say(&format!("all {} standing checks hold", Check::ALL.len())),
        count => say(&format!("{count} of {} standing checks are breached, by {} rows", Check::ALL.len(), breaches.len())),
    }
    Ok(breached.is_empty())
}
