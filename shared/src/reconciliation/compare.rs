//! Whether an object at Stripe and an operation of ours say the same. Pure: knows no SQL, no clock, no HTTP.

use chrono::{Duration, NaiveDate};
use uuid::Uuid;

use crate::id::{ItemId, OperationId};
use crate::payouts::item::Status;
use crate::payouts::operation::State;
use crate::rails::Leg;
use crate::rails::stripe::Object;

/// A bank has so long after the day on which it should have paid.
pub const OVERDUE_AFTER: Duration = Duration::days(7);

macro_rules! kinds {
    ($($name:ident = $text:literal, $urgency:ident: $sentence:literal;)+) => {
        /// What is wrong at a place where Stripe and these books do not say the same.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(#[doc = $sentence] $name),+ }

        impl Kind {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
            }

            /// What it means, for whoever reads the list.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }

            pub fn urgency(self) -> Urgency {
                match self { $(Self::$name => Urgency::$urgency),+ }
            }
        }
    };
}

/// When people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// At once: money may have moved that nobody knows of.
    AtOnce,
    /// When the reconciliation ends.
    AtTheEnd,
    /// When a second reconciliation finds it too: news may have come between the two looks of the first.
    WhenSeenAgain,
}

kinds! {
    UnknownObject = "unknown_object", AtOnce: "Stripe has an object with our mark that no operation here made.";
    SecondObject = "second_object", AtOnce: "Stripe has a second object for one attempt.";
    ObjectDiffers = "object_differs", AtOnce: "The object at Stripe has another amount, currency or account than was asked for.";
    RefusedButThere = "refused_but_there", AtOnce: "An attempt that counts as refused has a live object at Stripe.";
    MissingAtStripe = "missing_at_stripe", AtOnce: "An attempt that counts as accepted has no object at Stripe.";
    ReversalDiffers = "reversal_differs", WhenSeenAgain: "More came back here than Stripe says was reversed.";
    StatusDiffers = "status_differs", WhenSeenAgain: "Stripe says something else of a payout than these books, and its news could not be applied.";
    PayoutOverdue = "payout_overdue", AtTheEnd: "A bank has not said a week after the arrival date whether it paid.";
    AccountGone = "account_gone", AtTheEnd: "A connected account with payouts of ours cannot be asked any more.";
    HeldTooLong = "held_too_long", AtTheEnd: "Money on a connected account comes near the time for which Stripe holds it.";
    SumsDiffer = "sums_differ", AtTheEnd: "Stripe's sum of the objects that were compared is not the ledger's.";
}

/// An operation as the comparison sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub operation: OperationId,
    pub item: ItemId,
    pub payee: Uuid,
    pub state: State,
    pub stripe_id: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    pub account: String,
    pub reversed_minor: i64,
    pub item_status: Status,
}

/// What a comparison of one object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not an object of ours: another system's, or one that somebody made by hand.
    Foreign,
    /// `settled`: nothing more will be asked of it.
    Agrees {
        settled: bool,
    },
    /// Stripe knows more than we do: the same as a webhook that never came.
    News,
    Differs {
        kind: Kind,
        expected: String,
        found: String,
    },
}

fn agrees(settled: bool) -> Verdict {
    Verdict::Agrees { settled }
}

/// Compares an object with the operation that its id or mark names. `account` is the one it was listed for, or goes to; `instance`
/// begins our marks.
pub fn compare(leg: Leg, theirs: &Object, account: &str, ours: Option<&Ours>, instance: &str, today: NaiveDate) -> Verdict {
    let is_dead = matches!(theirs.status.as_deref(), Some("failed" | "canceled"))
        || leg == Leg::Transfer && theirs.reversed_minor >= theirs.amount_minor;
    let amount = |minor: i64, currency: &str, account: &str| format!("{minor} {currency} for {account}");
    let said = amount(theirs.amount_minor, &theirs.currency, account);
    let differs = |kind: Kind, expected: String, found: String| Verdict::Differs { kind, expected, found };
    let Some(ours) = ours else {
        let ours_by_mark = [&theirs.operation_mark, &theirs.item_mark].into_iter().flatten().any(|mark| is_of(mark, instance));
        return match (ours_by_mark, is_dead) {
            (false, _) => Verdict::Foreign,
            (true, true) => agrees(true),
            (true, false) => differs(Kind::UnknownObject, "no such object".to_owned(), said),
        };
    };
    if let Some(known) = ours.stripe_id.as_ref().filter(|known| **known != theirs.stripe_id) {
        let found = format!("{known} and {}, {said}", theirs.stripe_id);
        return if is_dead { agrees(true) } else { differs(Kind::SecondObject, format!("{known} alone"), found) };
    }
    if theirs.amount_minor != ours.amount_minor || theirs.currency != ours.currency || account != ours.account {
        return differs(Kind::ObjectDiffers, amount(ours.amount_minor, &ours.currency, &ours.account), said);
    }
    match ours.state {
        State::Rejected | State::Canceled if is_dead => agrees(true),
        State::Rejected | State::Canceled => {
            differs(Kind::RefusedButThere, format!("an attempt that is {}", ours.state.as_str()), said)
        }
        State::Unknown | State::Unresolved => Verdict::News,
        // A worker has it, or a person.
        State::Dispatched | State::NotRun | State::Frozen => agrees(false),
        State::Accepted | State::Returned if leg == Leg::Transfer => compare_reversals(theirs, ours),
        State::Accepted | State::Returned => compare_payouts(theirs, ours, today),
    }
}

fn compare_reversals(theirs: &Object, ours: &Ours) -> Verdict {
    match theirs.reversed_minor.cmp(&ours.reversed_minor) {
        std::cmp::Ordering::Equal => agrees(true),
        std::cmp::Ordering::Greater => Verdict::News,
        std::cmp::Ordering::Less => Verdict::Differs {
            kind: Kind::ReversalDiffers,
            expected: format!("{} reversed", ours.reversed_minor),
            found: format!("{} reversed", theirs.reversed_minor),
        },
    }
}

fn compare_payouts(theirs: &Object, ours: &Ours, today: NaiveDate) -> Verdict {
    let status = theirs.status.as_deref().unwrap_or("no status");
    let under_way = ours.item_status == Status::InTransit;
    match (status, ours.state) {
        ("paid", State::Accepted) if under_way => Verdict::News,
        ("paid", State::Accepted) => agrees(true),
        ("failed" | "canceled", State::Accepted) => Verdict::News,
        ("failed" | "canceled", _) => agrees(true),
        ("pending" | "in_transit", State::Accepted) if under_way => match theirs.arrival_on {
            Some(arrival_on) if arrival_on + OVERDUE_AFTER < today => Verdict::Differs {
                kind: Kind::PayoutOverdue,
                expected: format!("paid by {arrival_on}"),
                found: status.to_owned(),
            },
            _ => agrees(false),
        },
        _ => Verdict::Differs {
            kind: Kind::StatusDiffers,
            expected: format!("an attempt that is {}, of an item that is {}", ours.state.as_str(), ours.item_status.as_str()),
            found: status.to_owned(),
        },
    }
}

/// Whether a mark was written by this database.
fn is_of(mark: &str, instance: &str) -> bool {
    mark.strip_prefix(instance).is_some_and(|rest| rest.starts_with('-'))
}

/// Days for which Stripe holds money on a connected account with manual payouts, by its country.
/// [docs.stripe.com/connect/manual-payouts]
fn holding_days(country: Option<&str>) -> i64 {
    match country {
        Some("TH") => 10,
        Some("US") => 730,
        _ => 90,
    }
}

/// Whether money that has been on the account for so long must be told of: a fifth of the time is left, or three days.
pub fn held_too_long(country: Option<&str>, days: i64) -> Option<String> {
    let limit = holding_days(country);
    let left = limit - days;
    (left <= (limit / 5).max(3)).then(|| format!("paid out within {limit} days"))
}

/// Money that has been held for fewer days is nowhere near a limit.
pub const LEAST_HELD_DAYS: i32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "abc";

    fn theirs(id: &str) -> Object {
        Object {
            stripe_id: id.to_owned(),
            amount_minor: 1_000,
            currency: "usd".to_owned(),
            account: Some("acct_1".to_owned()),
            status: None,
            failure_code: None,
            failure_message: None,
            arrival_on: NaiveDate::from_ymd_opt(2026, 11, 17),
            reversed_minor: 0,
            operation_mark: Some("abc-7-transfer-1".to_owned()),
            item_mark: Some("abc-7".to_owned()),
        }
    }

    fn ours(state: State, item_status: Status) -> Ours {
        Ours {
            operation: OperationId(3),
            item: ItemId(7),
            payee: Uuid::nil(),
            state,
            stripe_id: Some("tr_1".to_owned()),
            amount_minor: 1_000,
            currency: "usd".to_owned(),
            account: "acct_1".to_owned(),
            reversed_minor: 0,
            item_status,
        }
    }

    fn day(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, day).expect("a date")
    }

    fn told(leg: Leg, theirs: &Object, ours: Option<&Ours>) -> String {
        match compare(leg, theirs, "acct_1", ours, INSTANCE, day(20)) {
            Verdict::Foreign => "foreign".to_owned(),
            Verdict::Agrees { settled } => if settled { "settled" } else { "agrees" }.to_owned(),
            Verdict::News => "news".to_owned(),
            Verdict::Differs { kind, .. } => kind.as_str().to_owned(),
        }
    }

    #[test]
    fn an_object_that_no_operation_knows_is_foreign_unless_it_bears_our_mark_and_lives() {
        for (operation_mark, item_mark, reversed_minor, expected) in [
            (None, None, 0, "foreign"),
            (None, Some("group_of_somebody"), 0, "foreign"),
            // Another database's, that shares the Stripe account; and one whose id only begins like ours.
            (Some("abd-7-transfer-1"), Some("abd-7"), 0, "foreign"),
            (Some("abcd-7-transfer-1"), None, 0, "foreign"),
            (Some("abc-7-transfer-1"), None, 0, "unknown_object"),
            // Somebody took the metadata away; the group stays.
            (None, Some("abc-7"), 0, "unknown_object"),
            (Some("abc-7-transfer-1"), None, 999, "unknown_object"),
            (Some("abc-7-transfer-1"), None, 1_000, "settled"),
        ] {
            let theirs = Object {
                operation_mark: operation_mark.map(str::to_owned),
                item_mark: item_mark.map(str::to_owned),
                reversed_minor,
                ..theirs("tr_9")
            };
            assert_eq!(told(Leg::Transfer, &theirs, None), expected, "{operation_mark:?} {item_mark:?} {reversed_minor}");
        }
    }

    #[test]
    fn a_transfer_agrees_is_news_or_differs_by_what_we_know_of_its_attempt() {
        for (state, known_as, reversed_here, reversed_there, expected) in [
            (State::Accepted, Some("tr_1"), 0, 0, "settled"),
            (State::Accepted, Some("tr_1"), 0, 300, "news"),
            (State::Accepted, Some("tr_1"), 300, 300, "settled"),
            (State::Accepted, Some("tr_1"), 300, 0, "reversal_differs"),
            (State::Returned, Some("tr_1"), 1_000, 1_000, "settled"),
            (State::Accepted, Some("tr_2"), 0, 0, "second_object"),
            (State::Accepted, Some("tr_2"), 0, 1_000, "settled"),
            (State::Unknown, None, 0, 0, "news"),
            (State::Unresolved, None, 0, 0, "news"),
            (State::NotRun, None, 0, 0, "agrees"),
            (State::Dispatched, None, 0, 0, "agrees"),
            (State::Frozen, None, 0, 0, "agrees"),
            (State::Rejected, None, 0, 0, "refused_but_there"),
            (State::Rejected, None, 0, 1_000, "settled"),
            (State::Canceled, None, 0, 0, "refused_but_there"),
        ] {
            let ours = Ours {
                stripe_id: known_as.map(str::to_owned),
                reversed_minor: reversed_here,
                ..ours(state, Status::Transferring)
            };
            let theirs = Object { reversed_minor: reversed_there, ..theirs("tr_1") };
            assert_eq!(
                told(Leg::Transfer, &theirs, Some(&ours)),
                expected,
                "{state:?} {known_as:?} {reversed_here} {reversed_there}"
            );
        }
    }

    #[test]
    fn an_amount_a_currency_or_an_account_that_differs_is_told_whatever_the_state() {
        for change in [
            |it: &mut Ours| it.amount_minor = 999,
            |it: &mut Ours| it.currency = "eur".to_owned(),
            |it: &mut Ours| it.account = "acct_2".to_owned(),
        ] {
            for state in [State::Accepted, State::Unknown, State::Rejected] {
                let mut ours = ours(state, Status::InTransit);
                change(&mut ours);
                assert_eq!(told(Leg::Transfer, &theirs("tr_1"), Some(&ours)), "object_differs", "{ours:?}");
            }
        }
    }

    #[test]
    fn a_payout_is_compared_by_its_status() {
        for (status, state, item, arrival_on, expected) in [
            ("paid", State::Accepted, Status::InTransit, 17, "news"),
            ("paid", State::Accepted, Status::Paid, 17, "settled"),
            ("failed", State::Accepted, Status::Paid, 17, "news"),
            ("failed", State::Accepted, Status::InTransit, 17, "news"),
            ("canceled", State::Accepted, Status::InTransit, 17, "news"),
            ("failed", State::Returned, Status::PayoutBlocked, 17, "settled"),
            // Another attempt followed, and is on its way.
            ("failed", State::Returned, Status::InTransit, 17, "settled"),
            ("in_transit", State::Accepted, Status::InTransit, 17, "agrees"),
            ("in_transit", State::Accepted, Status::InTransit, 13, "agrees"),
            ("in_transit", State::Accepted, Status::InTransit, 12, "payout_overdue"),
            ("pending", State::Accepted, Status::InTransit, 12, "payout_overdue"),
            ("in_transit", State::Accepted, Status::Paid, 17, "status_differs"),
            ("paid", State::Returned, Status::PayoutBlocked, 17, "status_differs"),
            ("something new", State::Accepted, Status::InTransit, 17, "status_differs"),
            ("paid", State::Unknown, Status::PayingOut, 17, "news"),
        ] {
            let theirs = Object { status: Some(status.to_owned()), arrival_on: Some(day(arrival_on)), ..theirs("tr_1") };
            assert_eq!(
                told(Leg::Payout, &theirs, Some(&ours(state, item))),
                expected,
                "{status} {state:?} {item:?} {arrival_on}"
            );
        }
    }

    #[test]
    fn money_that_is_held_is_told_of_before_stripe_s_limit_for_its_country() {
        for (country, quiet, told) in [(Some("TH"), 6, 7), (Some("US"), 583, 584), (Some("DE"), 71, 72), (None, 71, 72)] {
            assert_eq!(held_too_long(country, quiet), None, "{country:?}");
            assert!(held_too_long(country, told).is_some(), "{country:?}");
            assert!(told >= i64::from(LEAST_HELD_DAYS), "{country:?}");
        }
    }
}
