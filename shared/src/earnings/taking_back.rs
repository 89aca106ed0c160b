//! What a dispute or refund takes of an earning, and from where. Pure.

use super::Place;
use crate::ledger::Account;

/// An earning and what was taken of it so far, micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub gross_micros: i64,
    pub net_micros: i64,
    pub taken_back_gross_micros: i64,
    pub taken_back_net_micros: i64,
    /// Of the gross, by the very dispute or refund that claims now.
    pub by_source_micros: i64,
}

/// What a claim of so much of the gross in all takes that was not taken before: gross and the creator's share of it, micros.
/// `None`: nothing is new.
pub fn newly(earning: &Parts, claimed_micros: i64) -> Option<(i64, i64)> {
    let left = earning.gross_micros - earning.taken_back_gross_micros;
    let gross = (claimed_micros - earning.by_source_micros).min(left);
    if gross <= 0 {
        return None;
    }
    // The net's share of all that was ever taken, less what was: so that parts add up to exactly the net in the end.
    let whole =
        i128::from(earning.net_micros) * i128::from(earning.taken_back_gross_micros + gross) / i128::from(earning.gross_micros);
    Some((gross, i64::try_from(whole).unwrap_or(i64::MAX) - earning.taken_back_net_micros))
}

/// The accounts that so much net is taken from, with the posting's leg: the hold if that very earning is still held, else what
/// is available, at its own place first, else debt. `available`: on the platform, and connected.
pub fn sources(held: bool, place: Place, net_micros: i64, available: (i64, i64)) -> Vec<(&'static str, Account, i64)> {
    if held {
        let account = if place == Place::Platform { Account::HeldPlatform } else { Account::HeldConnected };
        return vec![("held", account, net_micros)];
    }
    let (platform, connected) = ((Account::AvailablePlatform, available.0), (Account::AvailableConnected, available.1));
    let (own, other) = if place == Place::Platform { (platform, connected) } else { (connected, platform) };
    let from_own = net_micros.min(own.1);
    let from_other = (net_micros - from_own).min(other.1);
    vec![("own", own.0, from_own), ("other", other.0, from_other), ("debt", Account::Debt, net_micros - from_own - from_other)]
}
