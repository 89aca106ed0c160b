//! `test`: all tests of the repository. Cargo knows of no link from a test to the binaries it starts, so these come first.

use std::ffi::OsString;

use super::{FAILED, WRONG_USE, build, repository};
use crate::console::note;

/// `arguments` go to `cargo test`.
pub fn test(arguments: &[OsString]) -> u8 {
    let repository = repository();
    if let Err(error) = build::build(&repository) {
        note(&error.to_string());
        return WRONG_USE;
    }
    match build::cargo().current_dir(&repository).args(["test", "--workspace", "--no-fail-fast"]).args(arguments).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED),
        Err(error) => {
            note(&build::BuildError::NoCargo(error).to_string());
            WRONG_USE
        }
    }
}
