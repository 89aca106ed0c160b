//! Rules about the Rust files and the migrations.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{self, File, has_word, none};

const OURS: [&str; 4] = ["shared", "functions", "local", "tests"];
/// What runs on Lambda.
const PRODUCT: [&str; 2] = ["shared/src", "functions"];

/// Breaches of "none of these words here", with file and line.
fn lines_with(files: &[File], words: &[&str], may: impl Fn(&File) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !may(file)) {
        for (number, line) in file.code() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    found
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let long = |file: &File| Some((file.path.clone(), file.text.lines().count())).filter(|(_, lines)| *lines > 600);
    let breaches =
        files::rust_in(&OURS).iter().filter_map(long).map(|(path, lines)| format!("{path} has {lines} lines")).collect();
    none(breaches, "a file is one idea; find the second one in it and give it a name.");
}

#[test]
fn every_file_says_at_the_top_what_it_is_for() {
    let files = files::rust_in(&OURS);
    let bare = files.iter().filter(|file| !file.text.trim_start().starts_with("//!")).map(|file| file.path.clone()).collect();
    none(bare, "start with `//!`: what it does, when it runs, why running it twice is safe.");
}

#[test]
fn the_library_s_map_has_a_sentence_for_every_module() {
    let map = files::read("shared/src/lib.rs");
    let header: String = map.lines().filter(|line| line.starts_with("//!")).collect();
    let mut breaches = Vec::new();
    let lines: Vec<&str> = map.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(module) = line
            .trim()
            .strip_prefix("pub mod ")
            .or_else(|| line.trim().strip_prefix("mod "))
            .and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
        let above =
            index.checked_sub(1).and_then(|above| lines.get(above)).is_some_and(|above| above.trim_start().starts_with("///"));
        if !above && !header.contains(&format!("`{module}`")) && !header.contains(&format!("[`{module}`]")) {
            breaches.push(format!("shared/src/lib.rs: {module}"));
        }
    }
    none(breaches, "write `/// One sentence.` above its `mod` line, in an order in which a newcomer would read.");
}

#[test]
fn no_file_is_dead() {
    let files = files::rust_in(&OURS);
    let known: BTreeMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut open: Vec<String> = roots(&known);
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if reached.insert(path.clone()) {
            open.extend(
                known
                    .get(path.as_str())
                    .into_iter()
                    .flat_map(|file| modules_of(file))
                    .filter(|path| known.contains_key(path.as_str())),
            );
        }
    }
    let dead = known.keys().filter(|path| !reached.contains(**path)).map(|path| (*path).to_owned()).collect();
    none(dead, "no `mod` line leads there, so it is never compiled: add the line or delete the file.");
}

/// Where compilation starts: libraries, binaries, and what a Cargo.toml names with `path = "….rs"`.
fn roots(known: &BTreeMap<&str, &File>) -> Vec<String> {
    let packages: Vec<File> = files::all().into_iter().filter(|file| file.path.ends_with("/Cargo.toml")).collect();
    let mut found = Vec::new();
    for package in &packages {
        let folder = package.path.trim_end_matches("Cargo.toml");
        found.extend(["src/lib.rs", "src/main.rs", "build.rs"].map(|name| format!("{folder}{name}")));
        let named = package.text.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim_start().strip_prefix('='));
        found.extend(named.map(|path| format!("{folder}{}", path.trim().trim_matches('"'))));
        for place in ["src/bin/", "tests/", "benches/", "examples/"] {
            let place = format!("{folder}{place}");
            let direct = |path: &&&str| {
                path.strip_prefix(place.as_str()).is_some_and(|rest| !rest.contains('/') || rest.ends_with("/main.rs"))
            };
            found.extend(known.keys().filter(direct).map(|path| (*path).to_owned()));
        }
    }
    found.into_iter().filter(|path| known.contains_key(path.as_str())).collect()
}

/// The files that a file's `mod` lines may lead to.
fn modules_of(file: &File) -> Vec<String> {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let named_by_path: BTreeSet<String> = file
        .text
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("path = \"")
                .or_else(|| line.trim().strip_prefix("#[path = \""))?
                .split('"')
                .next()
                .map(|path| format!("{folder}/{path}"))
        })
        .collect();
    // A crate's root may have any name (a test with `path`), so both places are looked at; a wrong one does not exist.
    let places = [folder.to_owned(), format!("{folder}/{}", name.trim_end_matches(".rs"))];
    let mut found: Vec<String> = named_by_path.into_iter().collect();
    for line in file.text.lines() {
        let line = line.trim();
        let line = line
            .strip_prefix("pub ")
            .or_else(|| line.strip_prefix("pub(crate) "))
            .or_else(|| line.strip_prefix("pub(super) "))
            .unwrap_or(line);
        if let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.extend(places.iter().flat_map(|place| [format!("{place}/{module}.rs"), format!("{place}/{module}/mod.rs")]));
        }
    }
    found
}

#[test]
fn only_config_reads_the_environment() {
    let files = files::rust_in(&PRODUCT);
    let found = lines_with(&files, &["env::var", "env::var_os", "env::vars"], |file| file.path == "shared/src/config.rs");
    none(found, "add a function to shared/src/config.rs and pass its value on.");
}

#[test]
fn only_clock_reads_the_time() {
    let files = files::rust_in(&PRODUCT);
    let found = lines_with(&files, &["Utc::now", "Local::now", "SystemTime::now"], |file| file.path == "shared/src/clock.rs");
    none(found, "call clock::now, or better take the instant as an argument.");
}

#[test]
fn the_library_knows_no_floating_point_number() {
    let files = files::rust_in(&["shared/src"]);
    none(
        lines_with(&files, &["f32", "f64"], |_| false),
        "money is micros in an i64, a rate is parts per million; divide last and round down.",
    );
}

#[test]
fn sql_lives_in_stores_only() {
    let may = |file: &File| file.path == "shared/src/db.rs" || file.stem() == "store" || file.path.contains("/store/");
    let mut breaches = Vec::new();
    for file in files::rust_in(&PRODUCT).iter().filter(|file| !may(file)) {
        for (number, line) in file.code() {
            let statement = ["select ", "insert into ", "update ", "delete from ", "with "].iter().any(|verb| {
                let literal = |literal: &&str| {
                    literal.trim_start().starts_with(verb)
                        && [" from ", " into ", " set ", " as "].iter().any(|part| literal.contains(part))
                };
                files::literals(line).iter().any(literal)
            });
            let call = ["sqlx::query", "sqlx::query_as", "sqlx::raw_sql", "db::query", "db::query_as"]
                .iter()
                .any(|call| has_word(line, call));
            if statement || call {
                breaches.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    none(
        breaches,
        "move the statement into the domain's store.rs (a folder with mod.rs and store.rs, where the domain was one file).",
    );
}

/// The library's layers, lowest first. A module may use those of lower layers, and within its own as long as no circle
/// comes of it.
const LAYERS: [&[&str]; 6] = [
    &["money", "id", "clock", "error", "boundary"],
    &["config", "http_client", "aws", "db", "queue", "schedule", "telemetry", "http", "rails"],
    &["audit", "ledger", "notifications"],
    &["earnings", "payees", "fans"],
    &["payouts", "withdrawals", "partners", "calls"],
    &["stripe_events", "reconciliation", "messages", "jobs", "router"],
];

#[test]
fn no_arrow_runs_back() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let modules = files::library_modules();
    let mut breaches: Vec<String> =
        modules.iter().filter(|module| layer(module).is_none()).map(|module| format!("{module} has no layer")).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files::rust_in(&["shared/src"]) {
        let module =
            file.path.trim_start_matches("shared/src/").split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        for (number, line) in file.code() {
            for other in modules.iter().filter(|other| **other != module && has_word(line, &format!("crate::{other}"))) {
                if layer(other) > layer(&module) {
                    breaches.push(format!("{}:{number}: {module} uses {other}", file.path));
                }
                uses.entry(module.clone()).or_default().insert(other.clone());
            }
        }
    }
    for (module, others) in &uses {
        let back = |other: &&String| uses.get(*other).is_some_and(|theirs| theirs.contains(module)) && *other > module;
        breaches.extend(others.iter().filter(back).map(|other| format!("{module} and {other} use each other")));
    }
    none(
        breaches,
        "move what both need into the lower of the two, or pass it as an argument. A new module gets its layer in tests/tidy/code.rs.",
    );
}

#[test]
fn rails_never_see_the_database() {
    let rails: Vec<File> = files::rust_in(&["shared/src/rails"]);
    assert!(!rails.is_empty(), "shared/src/rails is gone, and with it what this rule protects");
    none(
        lines_with(&rails, &["crate::db", "sqlx"], |_| false),
        "a rail takes plain values and returns an outcome; its caller saves it.",
    );
}

#[test]
fn every_migration_goes_up_and_down() {
    let mut stamps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut breaches = Vec::new();
    let migrations: Vec<File> = files::all()
        .into_iter()
        .filter(|file| file.path.starts_with("migrations/") && !file.path.starts_with("migrations/."))
        .collect();
    assert!(!migrations.is_empty(), "migrations/ is empty");
    for file in &migrations {
        let name = file.path.trim_start_matches("migrations/");
        match migration(name) {
            Some((stamp, stem, direction)) => {
                stamps.entry(stamp.to_owned()).or_default().insert(stem.to_owned());
                let other = if direction == "up" { "down" } else { "up" };
                if !migrations.iter().any(|file| file.path == format!("migrations/{stamp}_{stem}.{other}.sql")) {
                    breaches.push(format!("{name} has no {other}"));
                }
            }
            None => breaches.push(format!("{name} is not named like 20261101000001_create_payees.up.sql")),
        }
        if file.text.trim().is_empty() {
            breaches.push(format!("{name} is empty"));
        }
    }
    breaches.extend(stamps.iter().filter(|(_, names)| names.len() > 1).map(|(stamp, _)| format!("{stamp} is used twice")));
    none(
        breaches,
        "a migration is two files, <14 digits>_<verb>_<object>.up.sql and .down.sql, and the second undoes the first.",
    );
}

/// `(timestamp, verb_object, up|down)` of a well-formed name.
fn migration(name: &str) -> Option<(&str, &str, &str)> {
    let (stem, direction) = name.strip_suffix(".sql")?.rsplit_once('.')?;
    let (stamp, rest) = stem.split_once('_')?;
    let (verb, object) = rest.split_once('_')?;
    let letters = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || more.contains(letter))
    };
    let well =
        stamp.len() == 14 && stamp.bytes().all(|digit| digit.is_ascii_digit()) && letters(verb, "") && letters(object, "_");
    (well && ["up", "down"].contains(&direction)).then_some((stamp, rest, direction))
}
