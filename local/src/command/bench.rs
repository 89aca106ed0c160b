//! `bench`: builds this program and the functions as they deploy, then measures. Progress goes to standard error, one JSON to
//! standard output.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use super::run::{built, stopped};
use super::{DONE, FAILED, build, repository};
use crate::bench::{self, Rig, Section};
use crate::console::{note, say};
use crate::job::Failure;

pub struct Bench {
    pub folder: PathBuf,
    pub large: bool,
    pub only: Vec<Section>,
    /// Measure the binaries that are there in this program's profile, whatever it is.
    pub as_built: bool,
}

pub async fn bench(bench: Bench) -> u8 {
    let profile = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.file_name()?.to_owned()));
    if !bench.as_built && profile.is_none_or(|profile| profile != "release") {
        return again_in_release();
    }
    let ended = tokio::select! {
        ended = work(&bench) => ended,
        () = stopped() => Err(Failure::Failed("Stopped.".to_owned())),
    };
    match ended {
        Ok(text) => {
            say(&text);
            DONE
        }
        Err(failure) => {
            note(&failure.to_string());
            failure.exit_code()
        }
    }
}

async fn work(bench: &Bench) -> Result<String, Failure> {
    let bin_dir = built()?;
    let folder = bench.folder.join(format!("bench-{}", uuid::Uuid::new_v4().simple()));
    let rig = Rig::start(folder, bin_dir, repository()).await?;
    let measured = bench::measure(&rig, &bench.only, bench.large).await;
    rig.stop().await;
    Ok(format!("{:#}", measured?))
}

/// Figures of a debug build say nothing: becomes the same command of the release build.
fn again_in_release() -> u8 {
    note("Building in release, as it deploys: the first time takes minutes");
    let mut cargo = build::cargo();
    cargo.current_dir(repository()).args(["run", "--quiet", "--release", "--package", "payday-local", "--bin", "payday", "--"]);
    let error = cargo.args(std::env::args_os().skip(1)).exec();
    note(&format!("cannot run cargo: {error}"));
    FAILED
}
