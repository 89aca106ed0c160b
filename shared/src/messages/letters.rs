//! The words of every message, in one place, as plain text: each channel escapes the whole for itself. A kind that has no words of
//! its own is told all the same, with what its payload says.

use chrono::NaiveDate;
use serde_json::Value;
use uuid::Uuid;

use super::store::{self, ItemFacts, Message, RunFacts};
use crate::db::Tx;
use crate::error::Result;
use crate::id::ItemId;
use crate::money::{Currency, Money};
use crate::payouts::reason;

/// Rows of a list that a message names.
const MOST_ROWS: usize = 20;

/// Who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    Operators,
    /// At these addresses; without one there is nobody to write to.
    Creator(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    pub audience: Audience,
    pub subject: String,
    pub paragraphs: Vec<String>,
    /// The number to ask about it by.
    pub footer: String,
}

impl Letter {
    pub fn new(audience: Audience, subject: impl Into<String>, paragraphs: Vec<String>, id: i64) -> Self {
        // A subject is one line, and no line is a header of its own.
        let subject: String =
            subject.into().split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let paragraphs = paragraphs.into_iter().map(|text| text.replace(|c: char| c.is_control() && c != '\n', " ")).collect();
        Self { audience, subject, paragraphs, footer: format!("Payday, message {id}") }
    }
}

/// Writes a message's letter, with the facts as they are now.
pub async fn write(tx: &mut Tx, message: &Message) -> Result<Letter> {
    let it = &message.payload;
    let number = |name: &str| it[name].as_i64();
    let letter = match message.kind.as_str() {
        "creator_paid" | "creator_not_paid" if it["itemId"].is_i64() => {
            let facts = store::item(tx, ItemId(number("itemId").unwrap_or(0))).await?;
            facts.map(|facts| of_item(message, &facts))
        }
        "creator_not_paid" => Some(left_out(message, emails_of(tx, it).await?)),
        "withdrawal_failed" => Some(withdrawal_failed(message, emails_of(tx, it).await?)),
        "destination_changed" => Some(destination_changed(message, emails_of(tx, it).await?)),
        "run_completed" => {
            let run = number("runId").unwrap_or(0);
            let facts = store::run(tx, run).await?;
            Some(Letter::new(Audience::Operators, format!("Payout run {run} is complete"), run_completed(&facts), message.id))
        }
        _ => None,
    };
    Ok(letter.unwrap_or_else(|| of_operators(message)))
}

/// The addresses that the message names, else the creator's.
async fn emails_of(tx: &mut Tx, payload: &Value) -> Result<Vec<String>> {
    match &payload["to"] {
        Value::String(to) => return Ok(vec![to.clone()]),
        Value::Array(all) => return Ok(all.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => {}
    }
    match payload["creatorId"].as_str().and_then(|id| id.parse::<Uuid>().ok()) {
        Some(creator) => Ok(store::email_of(tx, creator).await?.into_iter().collect()),
        None => Ok(Vec::new()),
    }
}

fn amount(minor: i64, currency: &str) -> String {
    let known: Option<Money> = currency.parse::<Currency>().ok().and_then(|currency| Money::from_minor(minor, currency));
    known.map_or_else(|| format!("{minor} {currency}"), |money| money.to_string().to_uppercase())
}

fn of_item(message: &Message, facts: &ItemFacts) -> Letter {
    let amount = amount(facts.amount_minor, &facts.currency);
    let creator = Audience::Creator(facts.email.iter().cloned().collect());
    if message.kind == "creator_paid" {
        let arrives = facts.arrival_on.map_or_else(
            || "Your bank shows it in the next few days.".to_owned(),
            |on: NaiveDate| format!("It should arrive by {}.", on.format("%-d %B %Y")),
        );
        let paragraphs = vec![format!("We have sent {amount} to your bank account."), arrives];
        return Letter::new(creator, format!("Your payout of {amount} is on its way"), paragraphs, message.id);
    }
    let status = message.payload["status"].as_str().unwrap_or_default();
    let happened = match status {
        "returned" => format!("Your bank sent back your payout of {amount}. The money is safe with us."),
        "failed" => format!("Your payout of {amount} could not be made. The money is still in your balance."),
        _ => format!("Your bank did not take your payout of {amount}. The money is safe with us."),
    };
    let why = facts.failure_reason.as_ref().map(|reason| format!("The reason we were given: {reason}"));
    let what_to_do = match status {
        "failed" => "Please look whether Stripe asks you for something.".to_owned(),
        status => reason::of_reason(status, None).action.to_owned(),
    };
    let paragraphs = [Some(happened), why, Some(what_to_do)].into_iter().flatten().collect();
    Letter::new(creator, format!("Your payout of {amount} did not arrive"), paragraphs, message.id)
}

/// To somebody with money who was not among those paid.
fn left_out(message: &Message, emails: Vec<String>) -> Letter {
    let it = &message.payload;
    let currency = it["currency"].as_str().unwrap_or_default();
    let known: Option<Currency> = currency.parse().ok();
    let balance =
        known.zip(it["balanceMicros"].as_i64()).map(|(currency, micros)| Money::new(micros, currency).to_string().to_uppercase());
    let reason = it["status"].as_str().unwrap_or_default();
    let why = match reason {
        "no_account" => "You have not connected an account yet that we could pay to.",
        "account_not_ready" => "Stripe needs something from you before it can pay you.",
        "destination_cooloff" => "Your bank account was changed a short while ago, and we wait to keep your money safe.",
        "debt" => "Disputes and refunds took back more than you had.",
        "below_minimum" => "Your balance is below the least that we pay out.",
        _ => "Something stood in the way.",
    };
    let kept = balance
        .map_or_else(|| "Your balance stays yours.".to_owned(), |balance| format!("Your balance of {balance} stays yours."));
    let paragraphs = vec![format!("You were not paid this time. {why}"), reason::of_reason(reason, None).action.to_owned(), kept];
    Letter::new(Audience::Creator(emails), "You were not paid this time", paragraphs, message.id)
}

fn withdrawal_failed(message: &Message, emails: Vec<String>) -> Letter {
    let paragraphs = vec![
        "The withdrawal that you asked for could not be made. The money is in your balance again.".to_owned(),
        reason::of_reason(message.payload["reason"].as_str().unwrap_or_default(), None).action.to_owned(),
    ];
    Letter::new(Audience::Creator(emails), "Your withdrawal was not made", paragraphs, message.id)
}

fn destination_changed(message: &Message, emails: Vec<String>) -> Letter {
    let paragraphs = vec![
        "The bank account that your payouts go to was changed.".to_owned(),
        "If this was you, there is nothing to do. If it was not, please tell us at once: new payouts wait for some time before they go there.".to_owned(),
    ];
    Letter::new(Audience::Creator(emails), "Your bank account was changed", paragraphs, message.id)
}

fn run_completed(facts: &[RunFacts]) -> Vec<String> {
    let Some(first) = facts.first() else { return vec!["There was nobody to pay.".to_owned()] };
    let mut paragraphs = vec![format!("The {} cycle of {} has been sent.", first.schedule, first.cycle_on)];
    for it in facts {
        let mut line = format!("{}: {} paid or on their way", amount(it.sent_minor, &it.currency), it.sent_items);
        if it.waiting_items > 0 {
            line.push_str(&format!(", {} wait", it.waiting_items));
        }
        if it.failed_items > 0 {
            line.push_str(&format!(", {} failed ({})", it.failed_items, amount(it.failed_minor, &it.currency)));
        }
        paragraphs.push(line);
    }
    paragraphs
}

/// What happened, and what to do.
fn of_operators(message: &Message) -> Letter {
    let it = &message.payload;
    let text = |name: &str| match &it[name] {
        Value::String(text) => text.clone(),
        Value::Null => "?".to_owned(),
        other => other.to_string(),
    };
    let (subject, happened, action) = match message.kind.as_str() {
        "run_missing" => (
            format!("No payout run on {}", text("cycleDate")),
            format!("{} is a pay day and has no run for {}.", text("cycleDate"), text("schedules")),
            "Look at the schedules (GET /internal/payouts/health) and start it: POST /internal/payouts/run with that cycleDate.",
        ),
        "batch_halted" => (
            format!("Payout batch {} is halted: {}", text("batchId"), text("reason")),
            format!("Nothing more of batch {} is sent.", text("batchId")),
            reason::halt_action(it["reason"].as_str().unwrap_or_default()),
        ),
        "item_needs_a_person" => (
            format!("Payment {} needs a person", text("itemId")),
            format!("What became of payment {} of batch {} cannot be known without looking.", text("itemId"), text("batchId")),
            "Compare it with Stripe by its transfer group, and decide.",
        ),
        "standing_check_breached" => (
            format!("The books contradict themselves: {}", text("check")),
            format!("Expected: {} {} rows disagree.", text("expected"), text("disagreeing")),
            "Run `cargo payday verify` and find out why before anything is resumed.",
        ),
        "event_given_up" => (
            format!("Stripe's event {} fits nothing", text("eventId")),
            "It was tried for three days, and what it is about never came.".to_owned(),
            "Look at its payload in stripe_events; reconciliation says whether money is concerned.",
        ),
        "funding_short" => (
            format!("The balance will not suffice on {}", text("cycleDate")),
            format!(
                "{} minor units of {} are missing for the cycle of {}.",
                text("shortMinor"),
                text("currency"),
                text("cycleDate")
            ),
            "Add funds to the platform's Stripe balance. What is short waits, and goes on by itself once there is enough.",
        ),
        "facts_changed" => (
            format!("Payout run {} waits: the facts have changed", text("runId")),
            format!("Since the preview of the cycle of {} something has changed; nothing was made.", text("cycleDate")),
            "Look at a new preview and run it with its hash.",
        ),
        "destination_shared" => (
            "One bank account, several payees".to_owned(),
            format!("Payee {} is paid to the bank account of others.", text("creatorId")),
            "Look at them: one person with two accounts, or somebody who took over another's.",
        ),
        "discrepancies_found" => (
            format!("Stripe and the books disagree in {} places", text("count")),
            format!("Reconciliation {} found what it cannot explain.", text("reconciliationId")),
            "GET /internal/discrepancies has them all; take them over there.",
        ),
        kind => (format!("Payday says: {}", kind.replace('_', " ")), "Details are below.".to_owned(), ""),
    };
    let mut paragraphs = vec![happened];
    paragraphs.extend(Some(action.to_owned()).filter(|action| !action.is_empty()));
    paragraphs.extend(details(it));
    Letter::new(Audience::Operators, subject, paragraphs, message.id)
}

/// What else the payload says, a line for each field.
fn details(payload: &Value) -> Option<String> {
    let fields = payload.as_object().filter(|fields| !fields.is_empty())?;
    let lines = fields.iter().map(|(name, value)| match value {
        Value::String(text) => format!("{name}: {text}"),
        Value::Array(rows) => {
            let rows: Vec<String> =
                rows.iter().take(MOST_ROWS).map(|row| row.as_str().map_or_else(|| row.to_string(), str::to_owned)).collect();
            format!("{name}: {}", rows.join("\n  "))
        }
        other => format!("{name}: {other}"),
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, payload: Value) -> Message {
        Message { id: 7, kind: kind.to_owned(), payload }
    }

    fn facts() -> ItemFacts {
        ItemFacts {
            email: Some("ada@example.com".to_owned()),
            currency: "usd".to_owned(),
            amount_minor: 9_050,
            arrival_on: NaiveDate::from_ymd_opt(2026, 11, 17),
            failure_reason: Some("The bank account has been closed.".to_owned()),
        }
    }

    #[test]
    fn a_creator_is_told_how_much_and_when_or_why_not_and_what_to_do() {
        let paid = of_item(&message("creator_paid", json!({ "itemId": 1, "status": "in_transit" })), &facts());
        assert_eq!(paid.audience, Audience::Creator(vec!["ada@example.com".to_owned()]));
        assert_eq!(paid.subject, "Your payout of 90.50 USD is on its way");
        assert_eq!(paid.paragraphs, ["We have sent 90.50 USD to your bank account.", "It should arrive by 17 November 2026."]);
        assert_eq!(paid.footer, "Payday, message 7");
        for (status, happened, what_to_do) in [
            ("payout_blocked", "Your bank did not take", "Update the bank account"),
            ("returned", "Your bank sent back", "Update the bank account"),
            ("failed", "could not be made", "whether Stripe asks you"),
        ] {
            let letter = of_item(&message("creator_not_paid", json!({ "itemId": 1, "status": status })), &facts());
            assert_eq!(letter.subject, "Your payout of 90.50 USD did not arrive", "{status}");
            assert!(letter.paragraphs[0].contains(happened), "{letter:?}");
            assert_eq!(letter.paragraphs[1], "The reason we were given: The bank account has been closed.");
            assert!(letter.paragraphs[2].contains(what_to_do), "{letter:?}");
        }
        let yen = ItemFacts { currency: "jpy".to_owned(), arrival_on: None, ..facts() };
        assert_eq!(
            of_item(&message("creator_paid", json!({})), &yen).paragraphs[0],
            "We have sent 9050 JPY to your bank account."
        );
    }

    #[test]
    fn whoever_was_left_out_is_told_why_and_what_they_have() {
        for reason in ["no_account", "account_not_ready", "destination_cooloff", "debt", "below_minimum"] {
            let payload = json!({ "runId": 1, "status": reason, "currency": "usd", "balanceMicros": 8_250_000 });
            let letter = left_out(&message("creator_not_paid", payload), Vec::new());
            assert!(!letter.paragraphs[0].contains("Something stood"), "{reason} has its own words");
            assert!(letter.paragraphs[1] == reason::of_reason(reason, None).action, "{reason}");
            assert_eq!(letter.paragraphs[2], "Your balance of 8.25 USD stays yours.");
        }
    }

    #[test]
    fn every_alert_says_what_happened_and_what_to_do_and_one_without_words_is_told_all_the_same() {
        let payload = json!({ "batchId": 3, "itemId": 4, "reason": "awaiting_funds", "check": "c", "expected": "e", "disagreeing": 1, "rows": ["one", "two"],
            "runId": 6, "shortMinor": 7, "currency": "usd", "creatorId": "c", "eventId": "evt_1", "cycleDate": "2026-11-15", "schedules": ["semimonthly"], "count": 2, "reconciliationId": 5 });
        for kind in [
            "run_missing",
            "batch_halted",
            "item_needs_a_person",
            "standing_check_breached",
            "event_given_up",
            "discrepancies_found",
        ] {
            let letter = of_operators(&message(kind, payload.clone()));
            assert_eq!(letter.audience, Audience::Operators);
            assert!(!letter.subject.contains('?') && !letter.subject.contains("Payday says"), "{letter:?}");
            assert_eq!(letter.paragraphs.len(), 3, "{kind}: what happened, what to do, the details");
        }
        let unknown = of_operators(&message("something_new", json!({ "requestId": "r", "amountMinor": 5 })));
        assert_eq!(unknown.subject, "Payday says: something new");
        assert_eq!(unknown.paragraphs, ["Details are below.", "amountMinor: 5\nrequestId: r"]);
        assert_eq!(of_operators(&message("x", json!(null))).paragraphs, ["Details are below."]);
    }

    #[test]
    fn control_characters_do_not_get_into_a_letter() {
        let letter = Letter::new(Audience::Operators, "a\r\n\tb\u{0}c", vec!["x\u{1b}[31my\nz".to_owned()], 1);
        assert_eq!((letter.subject.as_str(), letter.paragraphs[0].as_str()), ("a b c", "x [31my\nz"));
    }
}
