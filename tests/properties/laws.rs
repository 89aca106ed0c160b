//! Laws of what is signed, written and read back, and of files of many lines.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDate};
use jsonwebtoken::{EncodingKey, Header, encode};
use payday::clock::parse_date;
use payday::earnings::{self, NewEarning, Value};
use payday::http::{Csv, Cursor};
use payday::id::{ChunkId, RunId};
use payday::payouts::store::creators::Standing;
use payday::queue::Message;
use payday::rails::{Leg, Outcome};
use payday::stripe_events::signature::verify;
use payday::withdrawals::{Parts, Withdrawal, decide};
use payday_local::cron::Timing;
use payday_local::stripe_double::signature;
use payday_tests::world::policy;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde_json::json;
use uuid::Uuid;

use crate::parsers::{SECRET, answered, bearer, earnings_body, is_cron_secret, now};

/// The same cases every time; `PROPTEST_CASES` makes more of them, `PROPTEST_RNG_SEED` others.
pub fn config() -> Config {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config.failure_persistence = None;
    config
}

/// One byte of it changed into another.
fn altered(bytes: &[u8], at: usize, by: u8) -> Vec<u8> {
    let mut altered = bytes.to_vec();
    let at = at % altered.len();
    altered[at] ^= by;
    altered
}

fn earning() -> impl Strategy<Value = NewEarning> {
    let value = prop_oneof![
        (1..=1_000_000_000_i64).prop_map(Value::Tokens),
        (1..=1_000_000_000_i64, prop::option::of(0..=100_i64))
            .prop_map(|(hundreds, fee)| { Value::Amount { minor: hundreds * 100, fee_minor: fee } }),
    ];
    let currency = prop::sample::select(vec!["usd", "eur", "jpy", "isk", "kwd"]);
    let kind = prop::sample::select(earnings::Kind::ALL.to_vec());
    let names = ("[ -~äé=+@🎁-]{0,40}", prop::option::of("ch_[a-zA-Z0-9]{1,20}"));
    (value, currency, kind, names, any::<u128>(), 0..=1_790_000_000_i64, any::<bool>()).prop_map(
        |(value, currency, kind, (source, charge_id), creator, seconds, connected)| NewEarning {
            // A space at the edge would be the file's, not the id's.
            source_id: format!("s{}:{creator:x}", source.trim()),
            creator_id: Uuid::from_u128(creator),
            kind,
            value,
            currency: if matches!(value, Value::Tokens(_)) { "usd" } else { currency }.parse().expect("a currency"),
            place: match value {
                Value::Amount { .. } if connected => earnings::Place::Connected,
                _ => earnings::Place::Platform,
            },
            charge_id,
            occurred_at: DateTime::from_timestamp(seconds, 0).expect("an instant"),
        },
    )
}

const HEADER: &str = "source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at,fee_minor,charge_id,place\n";

fn line(it: &NewEarning) -> String {
    let (tokens, minor, fee) = match it.value {
        Value::Tokens(tokens) => (tokens.to_string(), String::new(), String::new()),
        Value::Amount { minor, fee_minor } => {
            (String::new(), minor.to_string(), fee_minor.map(|fee| fee.to_string()).unwrap_or_default())
        }
    };
    let charge = it.charge_id.as_deref().unwrap_or_default();
    let (kind, place, at) = (it.kind.as_str(), it.place.as_str(), it.occurred_at.to_rfc3339());
    let source = it.source_id.replace('"', "\"\"");
    format!("\"{source}\",{},{kind},{tokens},{minor},{},{at},{fee},{charge},{place}\n", it.creator_id, it.currency)
}

fn row(it: &NewEarning) -> serde_json::Value {
    let mut row = json!({
        "sourceId": it.source_id, "creatorId": it.creator_id, "kind": it.kind.as_str(), "currency": it.currency.code(),
        "place": it.place.as_str(), "chargeId": it.charge_id, "occurredAt": it.occurred_at,
    });
    match it.value {
        Value::Tokens(tokens) => row["tokens"] = tokens.into(),
        Value::Amount { minor, fee_minor } => {
            row["amount"] = minor.into();
            row["fee"] = fee_minor.into();
        }
    }
    row
}

/// What makes a line wrong, whatever it was.
fn spoilt(line: &str, how: u8) -> String {
    let line = line.trim_end();
    match how % 5 {
        0 => format!("{line},\n"),
        1 => "nobody knows\n".to_owned(),
        2 => format!("{}\n", line.replace(",tip,", ",gift,").replace("-", "−")),
        3 => format!("{line}\0\n"),
        _ => format!(",{}\n", line.split_once("\",").map_or(line, |(_, rest)| rest)),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_webhook_is_believed_only_as_it_was_signed(
        body in prop::collection::vec(any::<u8>(), 1..300), secret in "[a-z_]{1,30}", at in any::<usize>(), by in 1..=255_u8, seconds in -300..=300_i64,
    ) {
        let signed_at = now().timestamp() + seconds;
        let header = signature(&secret, signed_at, &body);
        let secrets = ["another".to_owned(), secret];
        prop_assert!(verify(&header, &body, &secrets, now()));
        prop_assert!(!verify(&header, &altered(&body, at, by), &secrets, now()));
        prop_assert!(!verify(&header, &body[1..], &secrets, now()));
        prop_assert!(!verify(&header, &body, &secrets[..1], now()));
        let (time, rest) = header.split_once(",v1=").expect("a signature");
        let mac = hex::decode(&rest[..64]).expect("hex");
        for mac in [altered(&mac, at, by), mac[..at % mac.len()].to_vec()] {
            let header = format!("{time},v1={}", hex::encode(mac));
            prop_assert!(!verify(&header, &body, &secrets, now()));
        }
        let other = format!("t={}", signed_at + 1);
        prop_assert!(!verify(&header.replacen(time, &other, 1), &body, &secrets, now()));
    }

    #[test]
    fn a_token_is_believed_only_as_it_was_signed(user in any::<u128>(), at in any::<usize>(), by in 1..=255_u8) {
        let claims = json!({ "sub": Uuid::from_u128(user), "aud": "authenticated", "exp": chrono::Utc::now().timestamp() + 600 });
        let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
        prop_assert_eq!(bearer(&token).expect("a user").id, Uuid::from_u128(user));
        if let Ok(altered) = String::from_utf8(altered(token.as_bytes(), at, by)) {
            prop_assert!(bearer(&altered).is_err(), "{}", altered);
        }
        prop_assert!(bearer(&token[..at % token.len()]).is_err());
    }

    #[test]
    fn a_cron_secret_is_the_whole_secret_and_nothing_else(at in any::<usize>(), by in 1..=255_u8, more in "[!-~]{1,8}") {
        for secret in ["new-cron-secret", "old"] {
            prop_assert!(is_cron_secret(secret.as_bytes()));
            prop_assert!(!is_cron_secret(&altered(secret.as_bytes(), at, by)));
            let longer = format!("{secret}{more}");
            prop_assert!(!is_cron_secret(longer.as_bytes()));
            prop_assert!(!is_cron_secret(&secret.as_bytes()[..at % secret.len()]));
        }
    }

    #[test]
    fn a_message_reads_back_as_it_was_sent(id in any::<i64>()) {
        for message in [
            Message::CreateBatch { run_id: RunId(id) },
            Message::Withdraw { request_id: Uuid::from_u64_pair(id.unsigned_abs(), 7) },
            Message::ProcessChunk { chunk_id: ChunkId(id) },
            Message::Notification { outbox_id: id },
        ] {
            let text = serde_json::to_string(&message).expect("JSON");
            prop_assert_eq!(Message::parse(&text).expect("a message"), message);
        }
    }

    #[test]
    fn a_cursor_is_taken_only_as_it_was_given_and_for_its_list(position in any::<i64>(), at in any::<usize>(), by in 1..=255_u8) {
        let cursor = Cursor::write("failures:1", &position);
        prop_assert_eq!(Cursor::read::<i64>("failures:1", &cursor).ok(), Some(position));
        prop_assert!(Cursor::read::<i64>("failures:2", &cursor).is_err());
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor).expect("base64");
        let forged = BASE64_URL_SAFE_NO_PAD.encode(altered(&bytes, at, by));
        prop_assert!(Cursor::read::<i64>("failures:1", &forged).is_err());
    }

    #[test]
    fn no_cell_of_a_file_is_a_formula_and_every_line_has_its_cells(cells in prop::collection::vec(prop::collection::vec("\\PC{0,12}|[=+@\\-\t\r\n\",]{0,6}", 3), 0..10)) {
        let mut file = Csv::new(&["a", "b", "c"]).expect("a header");
        for line in &cells {
            file.line(line.iter().map(String::as_str)).expect("a line");
        }
        let text = file.text().expect("a file");
        let read: Vec<csv::StringRecord> = csv::Reader::from_reader(text.as_bytes()).records().collect::<Result<_, _>>().expect("lines");
        prop_assert_eq!(read.len(), cells.len());
        for (record, line) in read.iter().zip(&cells) {
            for (cell, written) in record.iter().zip(line) {
                prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && !cell.contains(char::is_control), "{:?}", cell);
                let plain = |text: &str| text.chars().filter(|letter| !letter.is_control() && *letter != ' ').collect::<String>();
                prop_assert_eq!(plain(cell.strip_prefix('\'').unwrap_or(cell)), plain(written.strip_prefix('\'').filter(|_| cell == written).unwrap_or(written)));
            }
        }
    }

    #[test]
    fn a_withdrawal_takes_what_its_tokens_are_worth_and_no_more_than_there_is(
        tokens in 1..=10_000_000_i64, transfer in 0..=1_000_000_i64, connected in 0..=1_000_000_i64, minimum in 1..=5_000_i64, automatic in any::<bool>(),
        code in prop::sample::select(vec!["usd", "jpy", "isk", "huf", "kwd"]),
    ) {
        let mut policy = policy();
        policy.default_currency = code.parse().expect("a currency");
        let currency = policy.default_currency;
        let unit = if automatic { currency.transfer_multiple() } else { currency.payout_multiple() };
        // As the database splits what is payable: in steps that Stripe takes, nothing connected where Stripe pays out by itself.
        let connected = if automatic { 0 } else { connected / currency.transfer_multiple() * currency.transfer_multiple() };
        let payable = (transfer + connected) / unit * unit;
        let standing = Standing {
            schedule: "semimonthly".to_owned(), timezone: None, ready: true, automatic, currency: Some(currency.code()), held_micros: 0, available_micros: 0,
            under_way_micros: 0, paid_out_micros: 0, debt_micros: 0, payable_minor: payable, transfer_minor: (payable - connected).max(0),
            minimum_minor: Some(minimum), reason: None,
        };
        let asked = Withdrawal::new(Uuid::nil(), tokens, &policy).expect("tokens");
        let worth = asked.micros / currency.micros_per_minor();
        match decide(&asked, Some(&standing)) {
            Ok(Parts { transfer_minor, connected_minor }) => {
                let amount = transfer_minor + connected_minor;
                prop_assert!(amount >= minimum && amount <= worth && worth - amount < unit && amount % unit == 0);
                prop_assert!((0..=standing.transfer_minor).contains(&transfer_minor) && (0..=payable - standing.transfer_minor).contains(&connected_minor));
                prop_assert_eq!(transfer_minor % currency.transfer_multiple(), 0);
            }
            Err(error) if error.code == "INSUFFICIENT_BALANCE" => prop_assert!(worth > payable),
            Err(error) => prop_assert!(error.code == "BELOW_MINIMUM" && worth / unit * unit < minimum),
        }
    }

    #[test]
    fn a_date_reads_back_as_it_is_written(days in 1..=3_652_059_i32) {
        let date = NaiveDate::from_num_days_from_ce_opt(days).expect("a date");
        prop_assert_eq!(parse_date(&date.to_string()).ok(), Some(date));
    }

    #[test]
    fn a_schedule_is_due_later_and_later(
        minute in 0..60_u32, hour in 0..24_u32, day in 1..=31_u32, every in 1..=60_u32, zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"]),
    ) {
        for expression in [format!("cron({minute} {hour} {day} * ? *)"), format!("cron({minute}/{every} {hour} ? * MON-FRI *)"), format!("rate({every} minutes)")] {
            let timing = Timing::parse(&expression, zone).expect("a schedule");
            let mut last = now();
            for _ in 0..5 {
                let next = timing.next(last, now()).expect("it never ends");
                prop_assert!(next > last, "{} after {}", next, last);
                last = next;
            }
        }
    }

    #[test]
    fn a_file_reads_back_as_it_was_written_and_so_does_a_body(mut rows in prop::collection::vec(earning(), 1..20)) {
        rows.iter_mut().enumerate().for_each(|(index, row)| row.source_id.push_str(&format!(":{index}")));
        let file: String = std::iter::once(HEADER.to_owned()).chain(rows.iter().map(line)).collect();
        prop_assert_eq!(earnings::import::parse(file.as_bytes(), &policy()), Ok(rows.clone()));
        let body = json!({ "earnings": rows.iter().map(row).collect::<Vec<_>>() });
        prop_assert_eq!(earnings_body(body.to_string().into(), &policy()).expect("a good body"), rows);
    }

    #[test]
    fn a_file_with_wrong_lines_imports_nothing_and_names_each(
        mut rows in prop::collection::vec(earning(), 2..20), wrong in prop::collection::vec(any::<prop::sample::Index>(), 1..4), how in any::<u8>(),
    ) {
        rows.iter_mut().enumerate().for_each(|(index, row)| row.source_id.push_str(&format!(":{index}")));
        let mut lines: Vec<String> = rows.iter().map(line).collect();
        let mut numbers: Vec<usize> = wrong.iter().map(|index| index.index(rows.len())).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in &numbers {
            lines[*number] = spoilt(&lines[*number], how);
        }
        let file: String = std::iter::once(HEADER.to_owned()).chain(lines).collect();
        let problems = earnings::import::parse(file.as_bytes(), &policy()).expect_err("wrong lines");
        let named: Vec<u64> = problems.iter().map(|problem| problem.line).collect();
        let expected: Vec<u64> = numbers.iter().map(|number| u64::try_from(*number).expect("few") + 2).collect();
        prop_assert_eq!(named, expected, "{}", file);
    }

    #[test]
    fn a_wrong_row_is_named_by_its_path_and_none_is_taken(mut rows in prop::collection::vec(earning(), 1..20), wrong in any::<prop::sample::Index>(), minor in -1_000..=0_i64) {
        let wrong = wrong.index(rows.len());
        rows[wrong].value = Value::Amount { minor, fee_minor: None };
        let body = json!({ "earnings": rows.iter().map(row).collect::<Vec<_>>() });
        let error = earnings_body(body.to_string().into(), &policy()).expect_err("refused");
        let path = format!("earnings[{wrong}].amount");
        prop_assert!(!error.details.is_empty() && error.details.iter().all(|detail| detail.field == path), "{:?}", error.details);
    }

    #[test]
    fn only_an_answer_about_what_was_asked_is_an_acceptance(amount in -10_000..10_000_i64, same in any::<bool>(), destination in "acct_[12]", currency in "usd|eur") {
        let amount = if same { 4_500 } else { amount };
        let body = json!({ "id": "tr_1", "amount": amount, "currency": currency, "destination": destination }).to_string();
        let outcome = answered(200, body.as_bytes(), Leg::Transfer, false).outcome;
        let is_asked = amount == 4_500 && destination == "acct_1" && currency == "usd";
        prop_assert_eq!(matches!(outcome, Outcome::Accepted(_)), is_asked);
        prop_assert_eq!(matches!(outcome, Outcome::Frozen { .. }), !is_asked);
    }

    #[test]
    fn what_is_in_doubt_is_never_taken_for_not_run(status in 100..600_u16, code in "[a-z_]{0,20}|rate_limit|lock_timeout|account_invalid", cut in any::<usize>()) {
        let body = json!({ "error": { "type": "invalid_request_error", "code": code, "message": "no" } }).to_string();
        for body in [body.as_bytes(), &body.as_bytes()[..cut % body.len()]] {
            for leg in [Leg::Transfer, Leg::Payout] {
                let outcome = answered(status, body, leg, true).outcome;
                prop_assert!(!matches!(outcome, Outcome::NotRun(_) | Outcome::Accepted(_)), "{} {:?}", status, outcome);
            }
        }
    }
}
