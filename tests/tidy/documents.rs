//! Rules about what people read, and about text that must not be in the repository at all.

use crate::files::{self, has_word, none};

/// The words of the project, one per concept. Saying "recipient" for a payee is how two meanings creep in.
const WORDS: [&str; 21] = [
    "payee",
    "cycle",
    "run",
    "payout batch",
    "payout item",
    "chunk",
    "leg",
    "operation",
    "attempt",
    "outcome",
    "rail",
    "hold",
    "reserve",
    "reserved",
    "ledger transfer",
    "entries",
    "reversal",
    "returned",
    "unknown",
    "reconciliation",
    "discrepancies",
];

#[test]
fn the_architecture_document_maps_every_function_and_every_module() {
    let map = files::read("ARCHITECTURE.md");
    let mut missing = Vec::new();
    for folder in files::folders_of("functions") {
        if !has_word(&map, &folder) {
            missing.push(format!("functions/{folder}"));
        }
    }
    for module in files::library_modules() {
        let named = [
            format!("`{module}`"),
            format!("`{module}/`"),
            format!("`{module}.rs`"),
            format!("{module}.rs"),
            format!("{module}/"),
        ];
        if !named.iter().any(|name| map.contains(name.as_str())) {
            missing.push(format!("shared/src/{module}"));
        }
    }
    none(missing, "give it its place in ARCHITECTURE.md's code map, in one sentence.");
}

#[test]
fn the_architecture_document_fixes_every_word() {
    let map = files::read("ARCHITECTURE.md").to_lowercase();
    let missing = WORDS.iter().filter(|word| !map.contains(&format!("**{word}**"))).map(|word| (*word).to_owned()).collect();
    none(missing, "ARCHITECTURE.md has a table of words, each in bold, with what it means and what not to say.");
}

#[test]
fn the_readme_starts_with_its_two_commands() {
    let readme = files::read("README.md");
    let missing =
        ["cargo payday demo", "cargo payday test"].into_iter().filter(|command| !readme.contains(command)).map(str::to_owned);
    none(missing.collect(), "README.md's two commands are how a newcomer begins.");
}

#[test]
fn a_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for file in files::all().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !files::root().join(format!("{folder}{target}")).exists() {
                broken.push(format!("{}: {target}", file.path));
            }
        }
    }
    none(broken, "correct the path; it counts from the document's own folder.");
}

#[test]
fn every_test_that_the_security_document_names_exists() {
    let document = files::read("docs/security.md");
    let code: String = files::rust_in(&["shared", "functions", "local", "tests"]).into_iter().map(|file| file.text).collect();
    let mut breaches = Vec::new();
    let mut risks = 0;
    for line in document.lines().filter(|line| line.starts_with("| ")) {
        let name = |text: &&str| {
            text.matches('_').count() >= 3
                && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        };
        let named: Vec<&str> = line.split('`').skip(1).step_by(2).filter(name).collect();
        breaches.extend(
            named.iter().filter(|name| !code.contains(&format!("fn {name}("))).map(|name| format!("there is no test {name}")),
        );
        risks += usize::from(line.starts_with("| **API"));
        let heads = line.starts_with("| risk ") || line.starts_with("| input ");
        if named.is_empty() && !heads && !line.contains("comes with the route") {
            breaches.push(format!("no test answers: {}", line.chars().take(60).collect::<String>()));
        }
    }
    assert_eq!(risks, 10, "the ten risks have a row each");
    none(breaches, "name the test that answers the row as it is called now, or say that it comes with the route.");
}

/// How secrets look, and how long what follows must be to be one and not an example of the prefix. Written in two halves so
/// that this file is none.
const SECRETS: [(&str, &str, usize); 11] = [
    ("sk_", "live_", 8),
    ("rk_", "live_", 8),
    ("sk_", "test_", 20),
    ("rk_", "test_", 20),
    ("whsec", "_", 20),
    ("AK", "IA", 16),
    ("AS", "IA", 16),
    ("xox", "b-", 10),
    ("gh", "p_", 30),
    ("hooks.slack.com", "/services/", 8),
    ("PRIVATE", " KEY-----", 0),
];

#[test]
fn nothing_looks_like_a_secret() {
    let mut breaches = Vec::new();
    for file in files::all() {
        for (number, line) in file.text.lines().enumerate() {
            for (first, second, least) in SECRETS {
                let prefix = format!("{first}{second}");
                let follows = |rest: &str| rest.chars().take_while(char::is_ascii_alphanumeric).count();
                let looks_real = |(at, _): (usize, &str)| {
                    let begins = !line[..at].ends_with(|letter: char| letter.is_ascii_alphanumeric());
                    begins && follows(&line[at + prefix.len()..]) >= least
                };
                if line.match_indices(&prefix).any(looks_real) {
                    breaches.push(format!("{}:{}: {prefix}…", file.path, number + 1));
                }
            }
        }
    }
    none(
        breaches,
        "if it is real, revoke it now: it is in the history. An example ends in an ellipsis or is put together with concat!.",
    );
}

#[test]
fn nothing_names_a_place_on_one_machine() {
    // Written in halves so that this file names none.
    let places =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("arti", "factory")];
    let mut breaches = Vec::new();
    for file in files::all() {
        for (number, line) in file.text.lines().enumerate() {
            for place in places {
                // A path starts there; in the middle of an address the same letters are harmless.
                let starts = |(at, _): (usize, &str)| {
                    !line[..at].ends_with(|letter: char| letter.is_alphanumeric() || "._-$}~".contains(letter))
                };
                if line.match_indices(place).any(starts) {
                    breaches.push(format!("{}:{}: {place}", file.path, number + 1));
                }
            }
        }
    }
    none(breaches, "write the path from the repository's root, or let the program find it.");
}
