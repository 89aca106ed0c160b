//! The accounts file: `creator_id,stripe_account,country,email` and optional `payout_enabled,minimum_payout,schedule,beta`.

use std::collections::HashMap;

use serde::Deserialize;
use uuid::Uuid;

use super::NewPayee;
use crate::clock::Schedule;
use crate::earnings::import::{LineError, Table, known_columns};
use crate::money::scaled;

const COLUMNS: [&str; 8] =
    ["creator_id", "stripe_account", "country", "email", "payout_enabled", "minimum_payout", "schedule", "beta"];

#[derive(Deserialize)]
struct Row {
    creator_id: String,
    stripe_account: String,
    country: String,
    email: String,
    #[serde(default)]
    payout_enabled: Option<String>,
    #[serde(default)]
    minimum_payout: Option<String>,
    #[serde(default)]
    schedule: Option<String>,
    #[serde(default)]
    beta: Option<String>,
}

/// Reads the whole file; every wrong line is reported. Returns each payee with its line number.
pub fn parse(file: &[u8]) -> Result<Vec<(u64, NewPayee)>, Vec<LineError>> {
    let mut table = Table::new(file);
    known_columns(&mut table, &COLUMNS, &COLUMNS[..4])?;
    let mut creators: HashMap<Uuid, u64> = HashMap::new();
    let mut accounts: HashMap<String, u64> = HashMap::new();
    table.read(|line, row: Row| {
        let payee = read(row)?;
        if let Some(before) = creators.insert(payee.id, line) {
            return Err(format!("creator_id: {} stands on line {before} already", payee.id));
        }
        if let Some(account) = &payee.account
            && let Some(before) = accounts.insert(account.clone(), line)
        {
            return Err(format!("stripe_account: {account} stands on line {before} already; an account belongs to one creator"));
        }
        Ok((line, payee))
    })
}

fn read(row: Row) -> Result<NewPayee, String> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let account = given(Some(row.stripe_account));
    if account
        .as_deref()
        .is_some_and(|id| !id.starts_with("acct_") || !id[5..].bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
    {
        return Err("stripe_account: must look like acct_1AbC".to_owned());
    }
    let country = given(Some(row.country)).map(|country| country.to_ascii_uppercase());
    if country.as_deref().is_some_and(|code| code.len() != 2 || !code.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return Err("country: must be a two-letter code like US".to_owned());
    }
    let minimum_payout = given(row.minimum_payout);
    if minimum_payout.as_deref().is_some_and(|text| scaled(text, 6).is_none()) {
        return Err("minimum_payout: must be an amount in whole units like 25 or 12.50".to_owned());
    }
    let schedule = given(row.schedule).unwrap_or_else(|| Schedule::Semimonthly.as_str().to_owned());
    Ok(NewPayee {
        id: Uuid::parse_str(&row.creator_id).map_err(|_| "creator_id: must be a UUID".to_owned())?,
        account,
        country,
        email: given(Some(row.email)),
        payout_enabled: flag("payout_enabled", given(row.payout_enabled), true)?,
        minimum_payout,
        schedule: Schedule::parse(&schedule).ok_or("schedule: must be semimonthly, weekly, monthly or manual")?,
        beta: flag("beta", given(row.beta), false)?,
    })
}

fn flag(name: &str, text: Option<String>, default: bool) -> Result<bool, String> {
    match text.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("true" | "1" | "yes") => Ok(true),
        Some("false" | "0" | "no") => Ok(false),
        Some(_) => Err(format!("{name}: must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "creator_id,stripe_account,country,email,payout_enabled,minimum_payout,schedule,beta\n";
    const ID: &str = "7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001";

    fn problems(lines: &str) -> Vec<String> {
        parse(format!("{HEAD}{lines}").as_bytes()).expect_err("wrong lines").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn optional_columns_have_defaults() {
        let read = parse(format!("creator_id,stripe_account,country,email\n{ID},acct_1,us,\n").as_bytes()).expect("a good file");
        let (line, payee) = &read[0];
        assert_eq!(
            (*line, payee.payout_enabled, payee.schedule, payee.country.as_deref()),
            (2, true, Schedule::Semimonthly, Some("US"))
        );
    }

    #[test]
    fn every_wrong_line_is_named_with_its_reason() {
        for (line, reason) in [
            ("nobody,acct_1,US,,,,,".to_owned(), "creator_id"),
            (format!("{ID},cus_1,US,,,,,"), "stripe_account"),
            (format!("{ID},acct_1,USA,,,,,"), "country"),
            (format!("{ID},acct_1,US,,maybe,,,"), "payout_enabled"),
            (format!("{ID},acct_1,US,,,-5,,"), "minimum_payout"),
            (format!("{ID},acct_1,US,,,,daily,"), "schedule"),
        ] {
            let problems = problems(&line);
            assert!(problems[0].starts_with(&format!("line 2: {reason}: ")), "{problems:?}");
        }
        let other = ID.replace("0001", "0002");
        assert!(problems(&format!("{ID},acct_1,US,,,,,\n{ID},acct_2,US,,,,,\n"))[0].starts_with("line 3: creator_id"));
        assert!(problems(&format!("{ID},acct_1,US,,,,,\n{other},acct_1,US,,,,,\n"))[0].starts_with("line 3: stripe_account"));
    }
}
