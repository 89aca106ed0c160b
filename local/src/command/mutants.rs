//! `mutants`: plants known bugs, one at a time, in a copy of the repository, and tells which test or seed catches each.
//!
//! A mutant is `tests/mutants/NAME.patch`: a sentence saying what somebody once got wrong, then a diff against the repository.
//! One more file there is one more mutant.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{DONE, FAILED, WRONG_USE, build, repository};
use crate::console::{note, say};

/// Who may catch a mutant, the quickest first: a name, and what cargo runs.
const CATCHERS: [(&str, &[&str]); 5] = [
    ("rules", &["test", "--quiet", "--package", "payday", "--lib"]),
    ("simulation", &["test", "--quiet", "--package", "payday-simulation"]),
    ("differential", &["test", "--quiet", "--package", "payday-tests", "--test", "differential"]),
    ("database", &["test", "--quiet", "--package", "payday-tests", "--test", "store"]),
    ("crash matrix", &["test", "--quiet", "--package", "payday-tests", "--test", "matrix"]),
];

struct Mutant {
    name: String,
    patch: PathBuf,
    bug: String,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("there is no mutant {0:?}; there are: {1}")]
    Unknown(String, String),
    #[error("{name} does not fit the code any more: {why}")]
    DoesNotApply { name: String, why: String },
    #[error("{name} does not build: {why}")]
    DoesNotBuild { name: String, why: String },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

/// `check`: only whether each fits the code. `names`: only these; none: all. Results go to standard output as lines of a table.
pub fn mutants(check: bool, names: &[String]) -> u8 {
    let repository = repository();
    match chosen(&repository, names)
        .and_then(|mutants| if check { fit(&repository, &mutants) } else { plant(&repository, &mutants) })
    {
        Ok(0) => DONE,
        Ok(survivors) => {
            note(&format!("{survivors} of them {}", if check { "do not fit: make their diffs anew" } else { "not caught" }));
            FAILED
        }
        Err(problem) => {
            note(&problem.to_string());
            WRONG_USE
        }
    }
}

/// How many do not fit the code.
fn fit(repository: &Path, mutants: &[Mutant]) -> Result<usize, Problem> {
    let mut unfit = 0;
    for mutant in mutants {
        let tried = run(Command::new("git").current_dir(repository).args(["apply", "--check"]).arg(&mutant.patch))?;
        if !tried.status.success() {
            note(&format!("{}: {}", mutant.name, String::from_utf8_lossy(&tried.stderr).trim()));
            unfit += 1;
        }
    }
    Ok(unfit)
}

/// How many nobody caught.
fn plant(repository: &Path, mutants: &[Mutant]) -> Result<usize, Problem> {
    let tree = repository.join("target/mutants/tree");
    say("| mutant | the bug | caught by |\n|---|---|---|");
    let mut survivors = 0;
    for (index, mutant) in mutants.iter().enumerate() {
        note(&format!("{} of {}: {}", index + 1, mutants.len(), mutant.name));
        copy(repository, &tree)?;
        apply(&tree, mutant)?;
        let caught = caught_by(&tree, mutant)?;
        survivors += usize::from(caught.is_none());
        say(&format!("| `{}` | {} | {} |", mutant.name, mutant.bug, caught.as_deref().unwrap_or("**nobody**")));
    }
    Ok(survivors)
}

fn io(what: &Path) -> impl FnOnce(std::io::Error) -> Problem + use<> {
    let what = what.display().to_string();
    |source| Problem::Io { what, source }
}

fn all(repository: &Path) -> Result<Vec<Mutant>, Problem> {
    let folder = repository.join("tests/mutants");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(io(&folder))? {
        let patch = entry.map_err(io(&folder))?.path();
        if patch.extension().is_some_and(|extension| extension == "patch") {
            let text = std::fs::read_to_string(&patch).map_err(io(&patch))?;
            let bug = text.split("diff --git").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            all.push(Mutant { name, patch, bug });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn chosen(repository: &Path, names: &[String]) -> Result<Vec<Mutant>, Problem> {
    let all = all(repository)?;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|mutant| mutant.name == **name)) {
        let known: Vec<&str> = all.iter().map(|mutant| mutant.name.as_str()).collect();
        return Err(Problem::Unknown(unknown.clone(), known.join(", ")));
    }
    Ok(all.into_iter().filter(|mutant| names.is_empty() || names.contains(&mutant.name)).collect())
}

/// Makes the tree what git knows of the repository, uncommitted changes included; a file that is the same is left alone, so
/// that cargo builds only what a mutant changes.
fn copy(repository: &Path, tree: &Path) -> Result<(), Problem> {
    let listed =
        run(Command::new("git").current_dir(repository).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (repository.join(name), tree.join(name));
        // A file that was deleted and not yet committed so.
        let Ok(content) = std::fs::read(&from) else { continue };
        if std::fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        let folder = to.parent().unwrap_or(tree);
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        std::fs::copy(&from, &to).map_err(io(&to))?;
        let touched =
            std::fs::File::options().append(true).open(&to).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        touched.map_err(io(&to))?;
    }
    Ok(())
}

fn apply(tree: &Path, mutant: &Mutant) -> Result<(), Problem> {
    // The tree lies within the repository's folder and is not to be taken for it.
    let mut git = Command::new("git");
    git.current_dir(tree).env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree)).arg("apply").arg(&mutant.patch);
    let output = run(&mut git)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Problem::DoesNotApply { name: mutant.name.clone(), why: String::from_utf8_lossy(&output.stderr).into_owned() })
}

fn caught_by(tree: &Path, mutant: &Mutant) -> Result<Option<String>, Problem> {
    for (catcher, arguments) in CATCHERS {
        let mut cargo = build::cargo();
        cargo.current_dir(tree).args(arguments).env("CARGO_TARGET_DIR", tree.with_file_name("target")).env("RUST_BACKTRACE", "0");
        let output = run(&mut cargo)?;
        if output.status.success() {
            continue;
        }
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if text.contains("could not compile") {
            let why = text.lines().find(|line| line.starts_with("error")).unwrap_or_default().to_owned();
            return Err(Problem::DoesNotBuild { name: mutant.name.clone(), why });
        }
        return Ok(Some(format!("{catcher}: {}", told(&text))));
    }
    Ok(None)
}

/// The failed tests, and the seed if one is named.
fn told(text: &str) -> String {
    let failed = text.lines().skip_while(|line| *line != "failures:").filter_map(|line| line.strip_prefix("    "));
    let mut names: Vec<&str> = failed.filter(|line| !line.contains(' ')).collect();
    names.dedup();
    let more = names.len().saturating_sub(2);
    let mut said =
        names.iter().take(2).map(|name| format!("`{}`", name.rsplit("::").next().unwrap_or(name))).collect::<Vec<_>>().join(", ");
    if more > 0 {
        said.push_str(&format!(" and {more} more"));
    }
    if let Some(seed) = text.split("--from ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()) {
        said.push_str(&format!(" (seed {seed})"));
    }
    said
}

fn run(command: &mut Command) -> Result<Output, Problem> {
    let what = format!("{:?}", command.get_program());
    command.output().map_err(|source| Problem::Io { what, source })
}
