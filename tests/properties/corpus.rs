//! What is in the corpus is read or refused as its name says, and no mutant of it causes a panic.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::parsers::{PARSERS, Parser};

/// Mutants of each parser's corpus in an ordinary run.
const ROUNDS: usize = 1_500;
const MOST_BYTES: usize = 16 << 10;

/// What parsers stumble over.
const MORSELS: [&[u8]; 40] = [
    b"\0",
    b"\\u0000",
    b"\\ud800",
    b"\"",
    b"\"\"",
    b"'",
    b"\\",
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\t",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\xc3",
    b"=cmd|' /C calc'!A0",
    b"-",
    b"+",
    b"-0",
    b"1e999",
    b"NaN",
    b"0.1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"99999999999999999999999999999999999999",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"]}",
    b"null",
    b"true",
    b": ",
    b"&a [*a]",
    b"!Sub \"${A}\"",
    b"!If [A, B, C]",
    b"*",
    b"0/0",
    b"?",
    b"%00",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

struct Input {
    /// The file, and for one of lines the number of the line.
    name: String,
    good: bool,
    bytes: Vec<u8>,
}

fn inputs(parser: &str) -> Vec<Input> {
    let files = fs::read_dir(folder().join(parser)).unwrap_or_else(|error| panic!("tests/corpus/{parser}: {error}"));
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let good = name.starts_with("good");
        assert!(good || name.starts_with("bad"), "{parser}/{name}: a corpus file is good… or bad…");
        let bytes = fs::read(&path).expect("the corpus is readable");
        if name.ends_with(".lines") {
            let lines = String::from_utf8(bytes).expect("text");
            let numbered = lines.lines().enumerate();
            found.extend(numbered.map(|(index, line)| Input { name: format!("{name}:{}", index + 1), good, bytes: line.into() }));
        } else {
            found.push(Input { name, good, bytes });
        }
    }
    found
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

#[test]
fn every_parser_has_a_corpus_and_every_corpus_a_parser() {
    let folders =
        fs::read_dir(folder()).expect("a corpus").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let parsers: BTreeSet<String> = PARSERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders.collect::<BTreeSet<_>>(), parsers);
    for (parser, _) in PARSERS {
        assert!(inputs(parser).iter().any(|input| !input.good), "{parser} has nothing that must be refused");
    }
}

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    let mut wrong = Vec::new();
    for (name, parser) in PARSERS {
        let other = inputs(name).into_iter().filter(|input| parser(&input.bytes) != input.good);
        wrong.extend(
            other.map(|input| format!("{name}/{} should be {}", input.name, if input.good { "read" } else { "refused" })),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_mutant_of_the_corpus_causes_a_panic() {
    let (rounds, first) = (number("PAYDAY_ROUNDS", ROUNDS), number("PAYDAY_SEED", 1));
    for (name, parser) in PARSERS {
        let corpus: Vec<Vec<u8>> = inputs(name).into_iter().map(|input| input.bytes).collect();
        for seed in first..first + rounds {
            let mut rng = Rng::with_seed(u64::try_from(seed).expect("a seed"));
            let mutant = mutated(&mut rng, &corpus);
            survives((name, parser), &mutant, seed);
        }
    }
}

fn survives((name, parser): Parser, input: &[u8], seed: usize) {
    if catch_unwind(AssertUnwindSafe(|| parser(input))).is_err() {
        panic!("{name} panicked, seed {seed}, on {:?}", String::from_utf8_lossy(input));
    }
}

/// One of the corpus after one to four accidents.
fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=bytes.len());
        let until = rng.usize(at..=bytes.len());
        match rng.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..until)),
            4 => {
                let part = bytes[at..until].to_vec();
                let times = rng.usize(1..=8);
                bytes.splice(at..at, part.repeat(times));
            }
            5 => {
                let other = &corpus[rng.usize(..corpus.len())];
                let from = rng.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => {
                let morsel = MORSELS[rng.usize(..MORSELS.len())];
                bytes.splice(at..at, morsel.iter().copied());
            }
        }
        bytes.truncate(MOST_BYTES);
    }
    bytes
}
