//! Builds the functions, since `cargo run` builds only the binary that it runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot run cargo: {0}. Install Rust from https://rustup.rs")]
    NoCargo(std::io::Error),
    #[error("the functions do not build; cargo's messages above say why")]
    Failed,
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// The functions by their folders' names, which are the names of their packages and binaries.
pub fn functions(repository: &Path) -> Result<Vec<String>, BuildError> {
    let path = repository.join("functions");
    let io = |source| BuildError::Io { path: path.clone(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds all functions in the profile that this program was built in, and returns the folder of their binaries.
pub fn build(repository: &Path) -> Result<PathBuf, BuildError> {
    let own = std::env::current_exe().map_err(|source| BuildError::Io { path: PathBuf::from("payday"), source })?;
    // target/<profile>/payday
    let bin_dir = own.parent().map(Path::to_owned).unwrap_or_default();
    let mut cargo = cargo();
    cargo.current_dir(repository).args(["build", "--quiet"]);
    for name in functions(repository)? {
        cargo.args(["--package", &name]);
    }
    if let Some(target) = bin_dir.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    match bin_dir.file_name().and_then(|profile| profile.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
    }
    let status = cargo.status().map_err(BuildError::NoCargo)?;
    if status.success() { Ok(bin_dir) } else { Err(BuildError::Failed) }
}
