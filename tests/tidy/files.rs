//! What the rules look at: the repository's own files, and a few ways to read Rust without a parser.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder that holds Cargo.toml of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// One file of ours: its path from the root, with `/`, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    /// The name without folders and ending.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }

    /// The lines a rule about code looks at: numbered, without comments, and without tests (a `tests.rs`, or the end of the
    /// file).
    pub fn code(&self) -> Vec<(usize, &str)> {
        if self.stem() == "tests" {
            return Vec::new();
        }
        let product = self.text.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
        let lines = self.text.lines().enumerate().take(product);
        lines.map(|(index, line)| (index + 1, without_comment(line))).filter(|(_, line)| !line.trim().is_empty()).collect()
    }
}

/// Everything before `//`, unless that stands in a string (an address).
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let mut previous = ' ';
    for (at, letter) in line.char_indices() {
        if letter == '"' && previous != '\\' {
            quoted = !quoted;
        }
        if !quoted && line[at..].starts_with("//") {
            return &line[..at];
        }
        previous = letter;
    }
    line
}

/// Every text file of the repository, sorted by path. What a build or a run leaves behind is not ours.
pub fn all() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "only {} files found in {}: the rules would see nothing", found.len(), root.display());
    found
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository can be listed").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_symlink() || ["target", ".git", ".payday", ".aws-sam", "node_modules", "__pycache__"].contains(&name.as_str())
        {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(root).expect("it lies below the root").to_string_lossy().replace('\\', "/");
            found.push(File { path, text });
        }
    }
}

/// The Rust files below one of the folders.
pub fn rust_in(folders: &[&str]) -> Vec<File> {
    let inside = |file: &File| folders.iter().any(|folder| file.path.starts_with(&format!("{folder}/")));
    all().into_iter().filter(|file| file.path.ends_with(".rs") && inside(file)).collect()
}

/// The text of one file, or a clear failure.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("{path} cannot be read ({error}); the repository needs it"))
}

/// The folders directly below one.
pub fn folders_of(path: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(path)).unwrap_or_else(|error| panic!("{path}/ cannot be listed ({error})"));
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The modules of the library: files and folders of shared/src, without lib.rs.
pub fn library_modules() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("shared/src")).expect("shared/src can be listed");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned());
    names.filter(|name| name != "lib").collect()
}

/// Whether `word` stands in the text by itself and not inside a longer name.
pub fn has_word(text: &str, word: &str) -> bool {
    let joins = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word)
        .any(|(at, _)| !joins(text[..at].chars().next_back()) && !joins(text[at + word.len()..].chars().next()))
}

/// The contents of the string literals in a piece of code (plain ones; that is what settings are written as).
pub fn literals(code: &str) -> Vec<&str> {
    code.split('"').skip(1).step_by(2).collect()
}

/// Fails with every breach at once and with what to do about them.
pub fn none(breaches: Vec<String>, mend: &str) {
    assert!(breaches.is_empty(), "{} breach(es):\n  {}\nHow to mend: {mend}", breaches.len(), breaches.join("\n  "));
}
