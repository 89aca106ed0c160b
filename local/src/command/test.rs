//! `test`: all tests of the repository. Cargo knows of no link from a test to the binaries it starts, so these come first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use sha2::{Digest, Sha256};

use super::{FAILED, WRONG_USE, build, repository};
use crate::console::note;
use crate::postgres::Postgres;

/// The tests' folder for Postgres; without it they use one under `target/`.
const POSTGRES_FOLDER: &str = "PAYDAY_TEST_POSTGRES";
/// The tests take a tenth of it.
const ROOM: u64 = 2 << 30;

/// `arguments` go to `cargo test`.
pub fn test(arguments: &[OsString]) -> u8 {
    let repository = repository();
    if let Err(error) = build::build(&repository) {
        note(&error.to_string());
        return WRONG_USE;
    }
    let mut cargo = build::cargo();
    cargo.current_dir(&repository).args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
    let memory = in_memory(&repository);
    if let Some(folder) = &memory {
        cargo.env(POSTGRES_FOLDER, folder);
    }
    let ended = match cargo.status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED),
        Err(error) => {
            note(&build::BuildError::NoCargo(error).to_string());
            WRONG_USE
        }
    };
    if let Some(folder) = &memory {
        remove(folder);
    }
    ended
}

/// Where the tests' databases can be in memory: a quarter faster, because ext4 looks long for inodes that were not just deleted.
fn in_memory(repository: &Path) -> Option<PathBuf> {
    let memory = Path::new("/dev/shm");
    let of = statvfs(memory).ok()?;
    let folder = memory.join(format!("payday-{}", hex::encode(&Sha256::digest(repository.as_os_str().as_encoded_bytes())[..6])));
    (of.blocks_available() * of.fragment_size() >= ROOM && std::fs::create_dir_all(&folder).is_ok()).then_some(folder)
}

/// A cluster that another run uses stays.
fn remove(folder: &Path) {
    for cluster in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if Postgres::remove(&cluster.path()).is_ok() {
            let _ = std::fs::remove_dir_all(cluster.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}
