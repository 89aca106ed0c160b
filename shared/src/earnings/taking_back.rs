//! What disputes and refunds take of an earning, from where, and what of it comes back when a dispute is won. Pure.
//!
//! Each dispute and refund (a source) claims so much of the gross. What is taken is the sum of the claims, at most the gross:
//! so it is the same in whatever order they come, and when one of them is dropped the others still hold.

use chrono::{DateTime, Utc};

use super::Place;
use crate::ledger::Account;

/// What a source was last heard to claim of an earning, micros of its gross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub micros: i64,
    /// When Stripe said so; none for totals that only grow.
    pub said_at: Option<DateTime<Utc>>,
}

/// The claim that counts after one more was heard; `None`: it is old news. Totals (without an instant) only grow. Of claims
/// that are told with an instant the newest counts, and within one second a dropped one does: it follows on what it drops.
pub fn heard(known: Option<Known>, claimed_micros: i64, said_at: Option<DateTime<Utc>>) -> Option<i64> {
    let Some(known) = known else { return (claimed_micros > 0 || said_at.is_some()).then_some(claimed_micros) };
    let is_news = if said_at > known.said_at {
        true
    } else if said_at < known.said_at || known.micros == 0 && said_at.is_some() {
        false
    } else {
        claimed_micros > known.micros || claimed_micros == 0 && said_at.is_some()
    };
    is_news.then_some(claimed_micros)
}

/// An earning and what was taken of it so far, micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub gross_micros: i64,
    pub net_micros: i64,
    pub taken_back_gross_micros: i64,
    pub taken_back_net_micros: i64,
}

/// By how much what is taken changes, gross and the creator's share of it, when the claims add up to this. Below zero: so much
/// comes back.
pub fn change(earning: &Parts, claims_micros: i64) -> (i64, i64) {
    let gross = claims_micros.min(earning.gross_micros);
    // The net's share of all that is taken, less what was: so that parts add up to exactly the net in the end.
    let net = i128::from(earning.net_micros) * i128::from(gross) / i128::from(earning.gross_micros);
    (gross - earning.taken_back_gross_micros, i64::try_from(net).unwrap_or(i64::MAX) - earning.taken_back_net_micros)
}

/// The accounts that so much net is taken from, with the posting's leg: the hold if that very earning is still held, else what
/// is available, at its own place first, else debt. `available`: on the platform, and connected.
pub fn sources(held: bool, place: Place, net_micros: i64, available: (i64, i64)) -> Vec<(&'static str, Account, i64)> {
    if held {
        return vec![("held", held_at(place), net_micros)];
    }
    let (platform, connected) = ((Account::AvailablePlatform, available.0), (Account::AvailableConnected, available.1));
    let (own, other) = if place == Place::Platform { (platform, connected) } else { (connected, platform) };
    let from_own = net_micros.min(own.1);
    let from_other = (net_micros - from_own).min(other.1);
    vec![("own", own.0, from_own), ("other", other.0, from_other), ("debt", Account::Debt, net_micros - from_own - from_other)]
}

/// What was taken of an earning, by the account it was taken from, micros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct TakenFrom {
    pub held: i64,
    pub platform: i64,
    pub connected: i64,
    pub debt: i64,
}

/// Where an earning's money goes that comes back.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    pub place: Place,
    /// The earning is still held.
    pub held: bool,
    /// Stripe pays the account out by itself.
    pub automatic: bool,
    /// What the payee owes, above zero.
    pub owed_micros: i64,
}

/// The accounts that so much net goes back to, with the posting's leg: what was taken last comes back first, to where it was
/// taken from. Debt that was netted meanwhile is money on the platform; what has matured meanwhile is not held any more.
pub fn destinations(net_micros: i64, taken: TakenFrom, home: Home) -> Vec<(&'static str, Account, i64)> {
    let mut left = net_micros;
    let mut part = |of: i64| {
        let part = left.min(of.max(0));
        left -= part;
        part
    };
    // On an account that Stripe pays out by itself nothing is ours to pay.
    let connected = if home.automatic { Account::PaidOut } else { Account::AvailableConnected };
    let debt = part(taken.debt);
    let (own, other) = match home.place {
        Place::Platform => ((Account::AvailablePlatform, taken.platform), (connected, taken.connected)),
        Place::Connected => ((connected, taken.connected), (Account::AvailablePlatform, taken.platform)),
    };
    let (to_other, to_own) = (part(other.1), part(own.1));
    let held = if home.held { held_at(home.place) } else { own.0 };
    let still_owed = debt.min(home.owed_micros);
    vec![
        ("debt", Account::Debt, still_owed),
        ("netted", Account::AvailablePlatform, debt - still_owed),
        ("other", other.0, to_other),
        ("own", own.0, to_own),
        ("held", held, left),
    ]
}

fn held_at(place: Place) -> Account {
    if place == Place::Platform { Account::HeldPlatform } else { Account::HeldConnected }
}
