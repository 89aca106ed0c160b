//! `sim`: seeded histories in which everything goes wrong that can. The simulation is a program of its own, built when asked for.

use super::{FAILED, WRONG_USE, build, repository};
use crate::console::note;

/// Lives `seeds` histories, the first from the seed `from`.
pub fn sim(seeds: u64, from: u64) -> u8 {
    let mut cargo = build::cargo();
    cargo.current_dir(repository()).args(["run", "--quiet", "--package", "payday-simulation", "--"]);
    match cargo.args([seeds.to_string(), from.to_string()]).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED),
        Err(error) => {
            note(&build::BuildError::NoCargo(error).to_string());
            WRONG_USE
        }
    }
}
