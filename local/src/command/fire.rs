//! `fire`: fires a schedule of the payday that runs in the private folder.

use std::path::Path;

use chrono::{DateTime, Utc};

use super::{DONE, FAILED, WRONG_USE};
use crate::console::{note, say};
use crate::control::{ControlError, Running};

pub async fn fire(folder: &Path, name: &str, at: Option<DateTime<Utc>>) -> u8 {
    let at = at.unwrap_or_else(Utc::now);
    let fired = match Running::find(folder) {
        Ok(running) => running.fire(folder, name, at).await,
        Err(error) => Err(error),
    };
    match fired {
        Ok(answer) => {
            say(&format!("fired {name} as of {}; its function answered {answer}", at.to_rfc3339()));
            DONE
        }
        Err(error @ ControlError::NotRunning { .. }) => {
            note(&error.to_string());
            WRONG_USE
        }
        Err(error) => {
            note(&format!("{name} was not fired: {error}"));
            FAILED
        }
    }
}
