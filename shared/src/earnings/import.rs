//! The earnings file: `source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at` and optional
//! `fee_minor,charge_id,place`. Every wrong line is reported with its number and reason; one wrong line and nothing is imported.

use std::collections::{HashMap, HashSet};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Kind, NAME, NewEarning, Place, Sums, Value, is_name};
use crate::config::Policy;
use crate::money::Currency;

const COLUMNS: [&str; 10] =
    ["source_id", "creator_id", "kind", "tokens", "amount_minor", "currency", "occurred_at", "fee_minor", "charge_id", "place"];

/// A wrong line of a file, counted from 1 with the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    pub line: u64,
    pub reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// A CSV file being read line by line.
pub struct Table<'a> {
    reader: csv::Reader<&'a [u8]>,
}

impl<'a> Table<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        // Spreadsheets put a byte order mark in front.
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        Self { reader: csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file) }
    }

    /// Reads every line; all wrong ones together are the error.
    pub fn read<R: DeserializeOwned, T>(
        mut self,
        mut row: impl FnMut(u64, R) -> Result<T, String>,
    ) -> Result<Vec<T>, Vec<LineError>> {
        let mut rows = Vec::new();
        let mut wrong = Vec::new();
        let headers = self.reader.headers().cloned().unwrap_or_default();
        for record in self.reader.records() {
            let (line, read) = match record {
                Ok(record) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    let empty = record.iter().all(str::is_empty);
                    if empty {
                        continue;
                    }
                    let read = if record.iter().any(|field| field.contains('\0')) {
                        Err("has a NUL character".to_owned())
                    } else {
                        record.deserialize(Some(&headers)).map_err(|error| error.to_string()).and_then(|fields| row(line, fields))
                    };
                    (line, read)
                }
                Err(error) => (error.position().map_or(0, csv::Position::line), Err(malformed(&error))),
            };
            match read {
                Ok(read) => rows.push(read),
                Err(reason) => wrong.push(LineError { line, reason }),
            }
        }
        if wrong.is_empty() { Ok(rows) } else { Err(wrong) }
    }
}

fn malformed(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".to_owned(),
        _ => "is not CSV".to_owned(),
    }
}

/// Checks the header: all that must be there is, and nothing is there that would be ignored.
pub fn known_columns(table: &mut Table<'_>, known: &[&str], required: &[&str]) -> Result<(), Vec<LineError>> {
    let wrong = |reason: String| vec![LineError { line: 1, reason }];
    let header = table.reader.headers().map_err(|error| wrong(malformed(&error)))?;
    let mut seen = HashSet::new();
    for column in header {
        if !known.contains(&column) {
            return Err(wrong(format!("column {column:?} is not known; there are {}", known.join(","))));
        }
        if !seen.insert(column) {
            return Err(wrong(format!("column {column:?} stands twice")));
        }
    }
    match required.iter().find(|column| !seen.contains(**column)) {
        Some(missing) => Err(wrong(format!("column {missing:?} is missing"))),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
struct Row {
    source_id: String,
    creator_id: String,
    kind: String,
    tokens: String,
    amount_minor: String,
    currency: String,
    occurred_at: String,
    #[serde(default)]
    fee_minor: Option<String>,
    #[serde(default)]
    charge_id: Option<String>,
    #[serde(default)]
    place: Option<String>,
}

/// Reads the whole file and checks every line's worth under the policy. The same source id twice is fine with the same
/// content, and wrong with other.
pub fn parse(file: &[u8], policy: &Policy) -> Result<Vec<NewEarning>, Vec<LineError>> {
    let mut table = Table::new(file);
    known_columns(&mut table, &COLUMNS, &COLUMNS[..7])?;
    let mut seen: HashMap<String, (u64, i64)> = HashMap::new();
    let mut sums = Sums::default();
    table.read(|line, row: Row| {
        let earning = read(row, policy)?;
        let field = if matches!(earning.value, Value::Tokens(_)) { "tokens" } else { "amount_minor" };
        let wrong = |problem: &str| format!("{field}: {problem}");
        if let Value::Amount { minor, .. } = earning.value
            && let Some(problem) = earning.currency.refuses(minor)
        {
            return Err(wrong(&problem));
        }
        let frozen = earning.freeze(policy).map_err(wrong)?;
        sums.add(&earning, &frozen).map_err(wrong)?;
        let hash = earning.content_hash();
        match seen.get(&earning.source_id) {
            Some((before, other)) if *other != hash => {
                return Err(format!("source_id: {} stands on line {before} already with other content", earning.source_id));
            }
            Some(_) => {}
            None => {
                seen.insert(earning.source_id.clone(), (line, hash));
            }
        }
        Ok(earning)
    })
}

fn read(row: Row, policy: &Policy) -> Result<NewEarning, String> {
    if !is_name(&row.source_id) {
        return Err(format!("source_id: {NAME}"));
    }
    let charge_id = row.charge_id.filter(|text| !text.is_empty());
    if charge_id.as_deref().is_some_and(|id| !is_name(id)) {
        return Err(format!("charge_id: {NAME}"));
    }
    let fee_minor = row.fee_minor.filter(|text| !text.is_empty()).map(|text| whole("fee_minor", &text)).transpose()?;
    let value = match (row.tokens.as_str(), row.amount_minor.as_str()) {
        ("", "") => return Err("tokens: neither tokens nor amount_minor is given".to_owned()),
        (tokens, "") if fee_minor.is_none() => Value::Tokens(whole("tokens", tokens)?),
        (_, "") => return Err("fee_minor: goes with amount_minor, not with tokens".to_owned()),
        ("", amount) => Value::Amount { minor: whole("amount_minor", amount)?, fee_minor },
        _ => return Err("tokens: both tokens and amount_minor are given".to_owned()),
    };
    let place = row.place.filter(|text| !text.is_empty());
    Ok(NewEarning {
        source_id: row.source_id,
        creator_id: Uuid::parse_str(&row.creator_id).map_err(|_| "creator_id: must be a UUID".to_owned())?,
        kind: Kind::parse(&row.kind).ok_or("kind: must be tip, call, message, sale or other")?,
        value,
        // Tokens are of the platform's own currency, which the API does not ask for either.
        currency: match (value, row.currency.as_str()) {
            (Value::Tokens(_), "") => policy.default_currency,
            (_, code) => code.parse::<Currency>().map_err(|error| error.message)?,
        },
        place: place.map_or(Some(Place::Platform), |text| Place::parse(&text)).ok_or("place: must be platform or connected")?,
        charge_id,
        occurred_at: DateTime::parse_from_rfc3339(&row.occurred_at)
            .map_err(|_| "occurred_at: must be an instant like 2026-11-01T12:00:00Z".to_owned())?
            .with_timezone(&Utc),
    })
}

fn whole(column: &str, text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("{column}: must be a whole number"))
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
