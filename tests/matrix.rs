//! The crash matrix: at each boundary at which the engine touches the world (`payday::boundary`), each fault, once. Then no more
//! faults: what is delivered again and what the sweep finds has to bring everything to the one right end, and the audits hold.
//!
//! A failing case prints its name. `PAYDAY_MATRIX="<name>" cargo test -p payday-tests --test matrix` replays it alone.

// The compiler looks deeper into the nested futures than its default allows.
#![recursion_limit = "256"]
// Without debug assertions there are no boundaries to strike at.
#![cfg(debug_assertions)]

mod matrix {
    pub mod cases;
    pub mod machine;
    pub mod stories;
}

use std::collections::BTreeMap;

use matrix::cases::{Case, play, replayed, report};
use matrix::stories::Story;
use payday::boundary::Boundary;
use payday::boundary::faults::{Fault, Strike};

/// How many crossings of a boundary are struck. In one commit a worker saves what came back and dispatches what goes next, so it
/// is another one each time; the others differ little from their first.
fn crossings_struck(boundary: Boundary) -> u32 {
    if boundary == Boundary::SaveRepliesAndDispatch { 4 } else { 1 }
}

#[test]
fn whatever_goes_wrong_at_any_boundary_all_is_paid_once_in_the_end() {
    let cases = match replayed() {
        Some(case) => vec![case],
        None => {
            let cases = all_cases(crossings_struck);
            let struck = |boundary: &Boundary| cases.iter().any(|case| case.strikes[0].boundary == *boundary);
            let elsewhere = [Boundary::Outside, Boundary::SaveByRequest];
            let without: Vec<&Boundary> = Boundary::ALL.iter().filter(|it| !elsewhere.contains(it) && !struck(it)).collect();
            assert!(without.is_empty(), "no story crosses {without:?}: give it its row in tests/matrix/stories.rs");
            cases
        }
    };
    report(&play(cases));
}

/// The same at every single crossing, by command.
#[test]
#[ignore = "minutes: cargo test -p payday-tests --test matrix -- --ignored at_any_crossing"]
fn whatever_goes_wrong_at_any_crossing_all_is_paid_once_in_the_end() {
    report(&play(all_cases(|_| u32::MAX)));
}

/// Two faults in a row, every boundary after every other: by command, `PAYDAY_MATRIX_PAIRS` says how many of them (`all`).
#[test]
#[ignore = "hours if all: PAYDAY_MATRIX_PAIRS=1000 cargo test -p payday-tests --test matrix -- --ignored twice"]
fn whatever_goes_wrong_twice_all_is_paid_once_in_the_end() {
    let single = all_cases(|_| 1);
    let mut pairs = Vec::new();
    for one in &single {
        for other in single.iter().filter(|other| other.story == one.story) {
            pairs.push(Case { story: one.story, strikes: vec![one.strikes[0], other.strikes[0]] });
        }
    }
    let wanted = std::env::var("PAYDAY_MATRIX_PAIRS").unwrap_or_else(|_| "200".to_owned());
    if let Ok(wanted) = wanted.parse::<usize>() {
        fastrand::shuffle(&mut pairs);
        pairs.truncate(wanted);
    }
    report(&play(pairs));
}

/// What each story crosses when nothing goes wrong, struck in every way.
fn all_cases(crossings_struck: impl Fn(Boundary) -> u32) -> Vec<Case> {
    let quiet = play(Story::ALL.map(|story| Case { story, strikes: Vec::new() }).into());
    report(&quiet);
    let mut cases = Vec::new();
    for ended in &quiet {
        let story = ended.case.story;
        let mut crossings: BTreeMap<Boundary, u32> = BTreeMap::new();
        for boundary in ended.crossed.iter().filter(|it| story.is_about(**it) && **it != Boundary::Outside) {
            *crossings.entry(*boundary).or_default() += 1;
        }
        for (boundary, crossings) in crossings {
            for nth in 1..=crossings.min(crossings_struck(boundary)) {
                cases.extend(Fault::ALL.map(|fault| Case { story, strikes: vec![Strike { boundary, nth, fault }] }));
            }
        }
    }
    cases
}
