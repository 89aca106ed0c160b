//! What the commands do. Each returns its exit code: 0 done, 1 it failed, 2 wrong use or a machine that lacks something.

mod bench;
pub mod build;
pub mod demo;
mod fire;
mod mutants;
mod reset;
pub mod run;
mod sim;
mod test;
pub mod up;
mod verify;

pub use bench::{Bench, bench};
pub use fire::fire;
pub use mutants::mutants;
pub use reset::reset;
pub use sim::sim;
pub use test::test;
pub use verify::verify;

use std::path::{Path, PathBuf};

pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const WRONG_USE: u8 = 2;

/// The repository: the nearest folder with a `template.yaml`, from here upwards, else the one this was built from.
pub fn repository() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let is_ours = |folder: &&Path| folder.join("template.yaml").is_file() && folder.join("functions").is_dir();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    here.ancestors().find(is_ours).unwrap_or(built_from).to_owned()
}

/// The private folder of a command that was not given one.
pub fn private_folder(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| repository().join(".payday"), Path::to_owned)
}
