//! Eight times the input takes about eight times the work: nobody keeps a function busy with a megabyte of commas.
//!
//! Measured is the processor time of this thread, the best of several, so that a busy machine does not matter. What is
//! quadratic takes 64 times as long; the bound lies well between.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::parsers::{PARSERS, Parser};

/// Work that is long enough to be measured.
const MEASURABLE: Duration = Duration::from_millis(2);
const MOST_BYTES: usize = 1 << 20;
const TIMES: usize = 8;
const BOUND: u32 = 30;

type Shape = (&'static str, &'static str, fn(usize) -> Vec<u8>);

const ROW: &str = r#"{"sourceId":"s","creatorId":"7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001","kind":"tip","amount":5,"currency":"usd","occurredAt":"2026-11-01T12:00:00Z"}"#;
const CSV: &str = "source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at\n";
const PERSON: &str = "creator_id,stripe_account,country,email\n";

/// An input of about so many bytes.
const SHAPES: [Shape; 43] = [
    ("earnings-json", "good rows", |n| json_rows(n, ROW)),
    ("earnings-json", "rows that break every rule", |n| {
        json_rows(n, r#"{"sourceId":"","creatorId":"","kind":"","occurredAt":""}"#)
    }),
    ("earnings-json", "lists in lists", |n| format!("{{\"earnings\":{}", "[".repeat(n)).into()),
    ("earnings-json", "one long text", |n| json_rows(0, &ROW.replace("\"s\"", &format!("\"{}\"", "s".repeat(n))))),
    ("earnings-json", "escapes", |n| json_rows(0, &ROW.replace("\"s\"", &format!("\"{}\"", "\\u0041".repeat(n / 6))))),
    ("earnings-json", "NULs behind a long text", |n| {
        json_rows(0, &ROW.replace("\"s\"", &format!("\"{}\\u0000\"", "s".repeat(n))))
    }),
    ("earnings-json", "one long number", |n| json_rows(0, &ROW.replace(":5,", &format!(":{},", "9".repeat(n))))),
    ("earnings-json", "one long unknown field", |n| format!("{{\"{}\":1}}", "x".repeat(n)).into()),
    ("earnings-json", "many unknown fields", |n| format!("{{{}\"x\":1}}", "\"x\":1,".repeat(n / 6)).into()),
    ("webhook-body", "objects in objects", |n| format!("{{\"data\":{}", "{\"a\":".repeat(n / 5)).into()),
    ("webhook-body", "many fields", |n| {
        let fields: String = (0..n / 12).map(|field| format!("\"f{field:07}\":1,")).collect();
        format!("{{\"id\":\"e\",\"type\":\"t\",\"created\":1,\"data\":{{\"object\":{{{fields}\"z\":1}}}}}}").into()
    }),
    ("webhook-body", "a long list", |n| format!("[{}1]", "1,".repeat(n / 2)).into()),
    ("signature-header", "many signatures", |n| format!("t=1{}", ",v1=00".repeat(n / 6)).into()),
    ("signature-header", "one long value", |n| format!("t=1,v1={}", "0".repeat(n)).into()),
    ("signature-header", "commas", |n| ",".repeat(n).into()),
    ("earnings-csv", "good lines", |n| {
        csv_lines(n, CSV, |i| format!("s{i},7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001,tip,5,,usd,2026-11-01T12:00:00Z"))
    }),
    ("earnings-csv", "wrong lines", |n| csv_lines(n, CSV, |i| format!("s{i},nobody,tip,5,,usd,yesterday"))),
    ("earnings-csv", "contradictions", |n| {
        csv_lines(n, CSV, |i| format!("s,7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001,tip,{},,usd,2026-11-01T12:00:00Z", i + 1))
    }),
    ("earnings-csv", "commas", |n| format!("{CSV}{}", ",".repeat(n)).into()),
    ("earnings-csv", "quotes", |n| format!("{CSV}{}", "\"".repeat(n)).into()),
    ("earnings-csv", "one long field", |n| format!("{CSV}{}", "x".repeat(n)).into()),
    ("earnings-csv", "empty lines", |n| format!("{CSV}{}", "\n".repeat(n)).into()),
    ("earnings-csv", "a header of commas", |n| ",".repeat(n).into()),
    ("earnings-csv", "a column again and again", |n| "source_id,".repeat(n / 10).into()),
    ("accounts-csv", "good lines", |n| csv_lines(n, PERSON, |i| format!("{},acct_{i},US,", uuid::Uuid::from_u128(i as u128)))),
    ("accounts-csv", "one account again and again", |n| {
        csv_lines(n, PERSON, |i| format!("{},acct_1,US,", uuid::Uuid::from_u128(i as u128)))
    }),
    ("queue-message", "lists in lists", |n| format!("{{\"type\":{}", "[".repeat(n)).into()),
    ("queue-message", "many fields", |n| format!("{{{}\"type\":\"x\"}}", "\"a\":1,".repeat(n / 6)).into()),
    ("stripe-answer", "one long text", |n| format!("{{\"error\":{{\"message\":\"{}\"}}}}", "x".repeat(n)).into()),
    ("stripe-answer", "objects in objects", |n| "{\"error\":".repeat(n / 9).into()),
    ("schedule", "a list of days that never come", |n| format!("cron(0 0 {}31 2 ? *)", "31,".repeat(n / 3)).into()),
    ("schedule", "every minute again and again", |n| format!("cron({}* * * * ? *)", "*,".repeat(n / 2)).into()),
    ("template", "many resources", |n| {
        let queues = (0..n / 40).map(|i| format!("  Q{i}: {{ Type: AWS::SQS::Queue }}\n"));
        format!("Resources:\n{}", queues.collect::<String>()).into()
    }),
    ("template", "one long text to fill in", |n| {
        let text = "${AWS::Region}".repeat(n / 14);
        format!("Resources:\n  Q:\n    Type: AWS::SQS::Queue\n    Properties: {{ QueueName: !Sub \"{text}\" }}\n").into()
    }),
    ("template", "lists in lists", |n| format!("Resources: {}", "[".repeat(n)).into()),
    ("template", "items in items", |n| format!("Resources:\n {}", "- ".repeat(n / 2)).into()),
    ("template", "lines ever further in", |n| {
        let depth = (1..).take_while(|depth| depth * depth < 2 * n).count();
        (0..depth).map(|in_by| format!("{}a:\n", " ".repeat(in_by))).collect::<String>().into()
    }),
    ("decimal", "digits", |n| "9".repeat(n).into()),
    ("withdrawal-json", "one long number", |n| format!("{{\"tokenAmount\":{}}}", "9".repeat(n)).into()),
    ("settings-json", "one long amount", |n| format!("{{\"minimumPayoutAmount\":\"{}\"}}", "9".repeat(n)).into()),
    ("settings-json", "one long zone", |n| format!("{{\"timezone\":\"{}\"}}", "Europe/".repeat(n / 7)).into()),
    ("statement-query", "many fields", |n| "year=2026&".repeat(n / 10).into()),
    ("token", "a long token", |n| format!("eyJhbGciOiJIUzI1NiJ9.{}.AAAA", "A".repeat(n)).into()),
];

fn json_rows(bytes: usize, row: &str) -> Vec<u8> {
    let rows = vec![row; bytes / row.len() + 1];
    format!("{{\"earnings\":[{}]}}", rows.join(",")).into()
}

fn csv_lines(bytes: usize, header: &str, line: fn(usize) -> String) -> Vec<u8> {
    let length = line(0).len();
    let lines: Vec<String> = (0..bytes / length + 1).map(line).collect();
    format!("{header}{}\n", lines.join("\n")).into()
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("this thread has a clock").into()
}

fn best_of(times: usize, parser: fn(&[u8]) -> bool, input: &[u8]) -> Duration {
    let once = || {
        let began = processor_time();
        std::hint::black_box(parser(std::hint::black_box(input)));
        processor_time() - began
    };
    (0..times).map(|_| once()).min().expect("once at least")
}

#[test]
fn no_parser_takes_quadratic_time() {
    let mut slow = Vec::new();
    for (name, shape, make) in SHAPES {
        let (_, parser): Parser = PARSERS.into_iter().find(|(known, _)| *known == name).expect("a parser of that name");
        let mut bytes = 1 << 10;
        while bytes * TIMES < MOST_BYTES && best_of(2, parser, &make(bytes)) < MEASURABLE {
            bytes *= 2;
        }
        let (small, large) = (best_of(3, parser, &make(bytes)), best_of(2, parser, &make(bytes * TIMES)));
        // What is over at once has no slope that could be measured.
        if large > MEASURABLE && large > small * BOUND {
            slow.push(format!("{name}, {shape}: {bytes} bytes take {small:?}, {TIMES} times as many {large:?}"));
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}

#[test]
fn every_parser_that_reads_more_than_a_word_is_measured() {
    let measured = |name: &str| SHAPES.iter().any(|(known, ..)| *known == name);
    // Each of these refuses by its length or by its first letters.
    let words = ["currency", "date", "idempotency-key", "page"];
    let missing: Vec<_> =
        PARSERS.iter().filter(|(name, _)| !measured(name) && !words.contains(name)).map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "give them a shape: {missing:?}");
}
