//! The legal transitions of an item, and what each posts. This file owns them; `store::save` is the one place that writes a
//! status. Pure: knows no SQL, no clock, no Stripe.
//!
//! ```text
//! pending ─▶ transferring ─▶ transferred ─▶ awaiting_available ─▶ paying_out ─▶ in_transit ─▶ paid
//!    │            │ │                             ▲                   │ │           │           │
//!    │            │ └▶ failed ─▶ pending          └───────────────────┘ └▶ payout_blocked ◀─────┘
//!    └▶ canceled  └▶ awaiting_funds ─▶ transferring                     paid ─▶ returned ─▶ paying_out (a new payout leg,
//!                                                                                       never a new transfer)
//! ```
//! A leg that is frozen or unresolved makes the item `needs_review`. `paid` is never final: a bank can send money back days later.

use crate::id::{ItemId, PayeeId};
use crate::ledger::{Account, Posting};
use crate::money::Currency;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// Where an item is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Status { $($(#[$doc])* $name),+ }

        impl Status {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|status| status.as_str() == text)
            }
        }
    };
}

statuses! {
    Pending = "pending",
    /// The platform's balance was short; continues by itself when funded.
    AwaitingFunds = "awaiting_funds",
    Transferring = "transferring",
    /// Between the two legs; never rests in the database, the next status follows in the same transaction.
    Transferred = "transferred",
    /// The connected account's money is not available yet.
    AwaitingAvailable = "awaiting_available",
    PayingOut = "paying_out",
    /// Stripe has accepted the payout; the bank has not confirmed.
    InTransit = "in_transit",
    Paid = "paid",
    /// The money is on the connected account and its way to the bank is closed.
    PayoutBlocked = "payout_blocked",
    /// It was paid and the bank sent it back.
    Returned = "returned",
    /// The transfer was refused; the money is available again.
    Failed = "failed",
    /// A person must look.
    NeedsReview = "needs_review",
    Canceled = "canceled",
}

impl Status {
    /// Whether the item still keeps its batch from being completed.
    pub fn is_sending(self) -> bool {
        matches!(self, Self::Pending | Self::Transferring | Self::Transferred | Self::PayingOut)
    }
}

/// An item as the decisions see it. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: ItemId,
    pub payee: PayeeId,
    pub currency: Currency,
    pub status: Status,
    pub amount_minor: i64,
    /// The part that lies on the platform: the transfer leg. Zero: there is none.
    pub transfer_minor: i64,
    /// The part that is on the connected account already.
    pub connected_minor: i64,
    /// The payout leg. Zero: the account pays out by itself.
    pub payout_minor: i64,
    /// The last attempt of each leg; zero before the first.
    pub transfer_attempt: i32,
    pub payout_attempt: i32,
    /// Whether the connected part has left `reserved` for `at_stripe`.
    pub connected_moved: bool,
    /// How often a failed item was taken up again: keys the postings that repeat then.
    pub retries: i32,
}

/// What happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An attempt of the transfer leg is committed and about to be sent.
    TransferDispatched,
    TransferAccepted,
    TransferRejected,
    /// Rejected because the platform's balance is short.
    TransferShort,
    /// The batch halts for want of funds before this item was ever sent.
    FundsHalted,
    /// An attempt of the payout leg is committed and about to be sent.
    PayoutDispatched,
    PayoutAccepted,
    /// The connected balance is not there yet.
    PayoutNotYetAvailable,
    PayoutRejected,
    PayoutPaid,
    /// The bank or Stripe refused an accepted payout (`payout.failed`, `payout.canceled`).
    PayoutFailed,
    /// Not sent, and no longer to be.
    Canceled,
    /// A failed item is taken up again.
    Retried,
    /// An operation is frozen or unresolved.
    NeedsReview,
}

/// Where an item's money is, as far as its status does not tell; minor units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Arrived by the item's transfer, and not reversed.
    pub at_stripe_minor: i64,
    /// The item's transfer was reversed in full: its money is available again.
    pub came_back: bool,
    pub available_platform_minor: i64,
    pub available_connected_minor: i64,
}

/// A transition that the rules do not know. Nothing may be written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Illegal {
    pub from: Status,
    pub event: Event,
}

impl std::fmt::Display for Illegal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an item that is {} cannot have {:?}", self.from.as_str(), self.event)
    }
}

impl From<Illegal> for crate::error::Error {
    fn from(illegal: Illegal) -> Self {
        Self::internal(format!("A transition is missing: {illegal}."))
    }
}

impl Item {
    /// Applies an event: the new status and fields in place, and the postings that belong to it.
    pub fn apply(&mut self, event: Event) -> Result<Vec<Posting>, Illegal> {
        use Status::{
            AwaitingAvailable, AwaitingFunds, Canceled, Failed, InTransit, NeedsReview, Paid, PayingOut, PayoutBlocked, Pending,
            Returned, Transferring,
        };
        let mut posts = Vec::new();
        let next = match (self.status, event) {
            (Pending | AwaitingFunds, Event::TransferDispatched) if self.transfer_minor > 0 => {
                self.transfer_attempt += 1;
                posts.push(self.post(
                    "dispatch",
                    self.transfer_attempt,
                    Account::ReservedPlatform,
                    Account::InFlight,
                    self.transfer_minor,
                ));
                Transferring
            }
            (Transferring, Event::TransferAccepted) => {
                posts.push(self.post("arrive", self.transfer_attempt, Account::InFlight, Account::AtStripe, self.transfer_minor));
                if self.payout_minor == 0 {
                    posts.push(self.post(
                        "settle_automatic",
                        self.transfer_attempt,
                        Account::AtStripe,
                        Account::PaidOut,
                        self.transfer_minor,
                    ));
                    Paid
                } else {
                    AwaitingAvailable
                }
            }
            (Transferring, Event::TransferRejected) => {
                posts.push(self.undispatch());
                posts.extend(self.release());
                Failed
            }
            (Transferring, Event::TransferShort) => {
                posts.push(self.undispatch());
                AwaitingFunds
            }
            (Pending | AwaitingFunds, Event::FundsHalted) if self.transfer_minor > 0 => AwaitingFunds,
            (Pending, Event::PayoutDispatched) if self.transfer_minor == 0 => self.dispatch_payout(&mut posts),
            (AwaitingAvailable | PayoutBlocked | Returned, Event::PayoutDispatched) => self.dispatch_payout(&mut posts),
            (PayingOut, Event::PayoutAccepted) => InTransit,
            (PayingOut, Event::PayoutNotYetAvailable) => AwaitingAvailable,
            (PayingOut, Event::PayoutRejected) | (PayingOut | InTransit, Event::PayoutFailed) => PayoutBlocked,
            (PayingOut | InTransit, Event::PayoutPaid) => {
                posts.push(self.post("settle", self.payout_attempt, Account::AtStripe, Account::PaidOut, self.payout_minor));
                Paid
            }
            // The news come in the wrong order: it was paid before the bank sent it back.
            (PayoutBlocked, Event::PayoutPaid) => {
                posts.push(self.post("settle", self.payout_attempt, Account::AtStripe, Account::PaidOut, self.payout_minor));
                posts.push(self.post("return", self.payout_attempt, Account::PaidOut, Account::AtStripe, self.payout_minor));
                Returned
            }
            (Paid, Event::PayoutFailed) => {
                posts.push(self.post("return", self.payout_attempt, Account::PaidOut, Account::AtStripe, self.payout_minor));
                Returned
            }
            (Pending | AwaitingFunds, Event::Canceled) => {
                posts.extend(self.release());
                Canceled
            }
            // The attempt was dispatched and definitely not run.
            (Transferring, Event::Canceled) => {
                posts.push(self.undispatch());
                posts.extend(self.release());
                Canceled
            }
            (Failed, Event::Canceled) => Canceled,
            (Failed, Event::Retried) => {
                self.retries += 1;
                posts.extend(self.reserve());
                Pending
            }
            (
                Pending | AwaitingFunds | Transferring | AwaitingAvailable | PayingOut | InTransit | PayoutBlocked | Returned,
                Event::NeedsReview,
            ) => NeedsReview,
            // What a person or a late webhook finds out about a frozen or unresolved leg.
            (NeedsReview, Event::TransferAccepted | Event::TransferRejected) => {
                self.status = Transferring;
                return self.apply(event);
            }
            (NeedsReview, Event::PayoutAccepted | Event::PayoutRejected | Event::PayoutPaid | Event::PayoutFailed) => {
                self.status = PayingOut;
                return self.apply(event);
            }
            (from, event) => return Err(Illegal { from, event }),
        };
        self.status = next;
        posts.retain(|posting| posting.micros != 0);
        Ok(posts)
    }

    /// All of a transfer came back before the bank was asked: the item is over. The reversal itself posts the money.
    pub fn reversed(&mut self) -> Result<(), Illegal> {
        if self.status != Status::AwaitingAvailable || self.connected_minor > 0 {
            return Err(Illegal { from: self.status, event: Event::Canceled });
        }
        self.status = Status::Canceled;
        Ok(())
    }

    /// It was paid outside of Payday: closes the item, and its money counts as paid out. What was given back when it failed and
    /// is not available any more becomes debt. `None`: not in this status, or its money is at Stripe and would be paid as well.
    pub fn adopt(&mut self, money: &Whereabouts) -> Option<Vec<Posting>> {
        let (platform, connected) = match self.status {
            Status::Pending | Status::AwaitingFunds => (Account::ReservedPlatform, Account::ReservedConnected),
            Status::Failed => (Account::AvailablePlatform, Account::AvailableConnected),
            Status::NeedsReview if money.at_stripe_minor > 0 || self.connected_moved => return None,
            Status::NeedsReview if money.came_back => (Account::AvailablePlatform, Account::ReservedConnected),
            Status::NeedsReview => (Account::ReservedPlatform, Account::ReservedConnected),
            _ => return None,
        };
        let there = |from: Account, part: i64| match from {
            Account::AvailablePlatform => part.min(money.available_platform_minor),
            Account::AvailableConnected => part.min(money.available_connected_minor),
            _ => part,
        };
        let (of_platform, of_connected) = (there(platform, self.transfer_minor), there(connected, self.connected_minor));
        let take = self.retries + 1;
        let mut posts = vec![
            self.post("adopt_platform", take, platform, Account::PaidOut, of_platform),
            self.post("adopt_connected", take, connected, Account::PaidOut, of_connected),
            self.post("adopt_debt", take, Account::Debt, Account::PaidOut, self.amount_minor - of_platform - of_connected),
        ];
        posts.retain(|posting| posting.micros != 0);
        self.status = Status::Paid;
        Some(posts)
    }

    /// A person has looked at an item without an open attempt and says that it goes on where it stopped: with a transfer that is
    /// not there yet, else with the payout. One whose transfer came back is over. `None`: not in this status.
    pub fn take_up(&mut self, money: &Whereabouts) -> Option<Vec<Posting>> {
        if self.status != Status::NeedsReview {
            return None;
        }
        if money.came_back {
            if self.connected_moved {
                return None;
            }
            let mut posts = self.release();
            posts.retain(|posting| posting.micros != 0 && posting.from == Account::ReservedConnected);
            self.status = Status::Canceled;
            return Some(posts);
        }
        let arrived = money.at_stripe_minor > 0 || self.connected_moved;
        self.status = if arrived { Status::AwaitingAvailable } else { Status::Pending };
        Some(Vec::new())
    }

    /// available → reserved, per place.
    pub fn reserve(&self) -> Vec<Posting> {
        vec![
            self.post(
                "reserve_platform",
                self.retries + 1,
                Account::AvailablePlatform,
                Account::ReservedPlatform,
                self.transfer_minor,
            ),
            self.post(
                "reserve_connected",
                self.retries + 1,
                Account::AvailableConnected,
                Account::ReservedConnected,
                self.connected_minor,
            ),
        ]
    }

    fn release(&self) -> Vec<Posting> {
        vec![
            self.post(
                "release_platform",
                self.retries + 1,
                Account::ReservedPlatform,
                Account::AvailablePlatform,
                self.transfer_minor,
            ),
            self.post(
                "release_connected",
                self.retries + 1,
                Account::ReservedConnected,
                Account::AvailableConnected,
                self.connected_minor,
            ),
        ]
    }

    fn undispatch(&self) -> Posting {
        self.post("undispatch", self.transfer_attempt, Account::InFlight, Account::ReservedPlatform, self.transfer_minor)
    }

    fn dispatch_payout(&mut self, posts: &mut Vec<Posting>) -> Status {
        self.payout_attempt += 1;
        if !self.connected_moved {
            self.connected_moved = true;
            posts.push(self.post(
                "move_connected",
                self.retries + 1,
                Account::ReservedConnected,
                Account::AtStripe,
                self.connected_minor,
            ));
        }
        Status::PayingOut
    }

    fn post(&self, leg: &'static str, attempt: i32, from: Account, to: Account, minor: i64) -> Posting {
        Posting {
            event: format!("item:{}", self.id),
            leg,
            attempt,
            payee: self.payee,
            currency: self.currency.code(),
            from,
            to,
            // Amounts come from micros, so they fit.
            micros: minor.saturating_mul(self.currency.micros_per_minor()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(status: Status) -> Item {
        Item {
            id: ItemId(7),
            payee: uuid::Uuid::nil(),
            currency: Currency::USD,
            status,
            amount_minor: 1_000,
            transfer_minor: 700,
            connected_minor: 300,
            payout_minor: 1_000,
            transfer_attempt: 0,
            payout_attempt: 0,
            connected_moved: false,
            retries: 0,
        }
    }

    fn follow(item: &mut Item, events: &[Event]) -> Vec<String> {
        let posted = events.iter().flat_map(|event| item.apply(*event).expect("a legal event"));
        posted
            .map(|it| format!("{}.{} {}→{} {}", it.leg, it.attempt, it.from.as_str(), it.to.as_str(), it.micros / 10_000))
            .collect()
    }

    #[test]
    fn both_legs_take_the_money_from_reserved_to_the_bank() {
        let mut it = item(Status::Pending);
        let posted = follow(
            &mut it,
            &[
                Event::TransferDispatched,
                Event::TransferAccepted,
                Event::PayoutDispatched,
                Event::PayoutAccepted,
                Event::PayoutPaid,
            ],
        );
        assert_eq!(it.status, Status::Paid);
        assert_eq!(
            posted,
            [
                "dispatch.1 reserved_platform→in_flight 700",
                "arrive.1 in_flight→at_stripe 700",
                "move_connected.1 reserved_connected→at_stripe 300",
                "settle.1 at_stripe→paid_out 1000",
            ]
        );
    }

    #[test]
    fn an_automatic_account_is_paid_when_the_transfer_is_accepted() {
        let mut it = Item { transfer_minor: 1_000, connected_minor: 0, payout_minor: 0, ..item(Status::Pending) };
        let posted = follow(&mut it, &[Event::TransferDispatched, Event::TransferAccepted]);
        assert_eq!(it.status, Status::Paid);
        assert_eq!(posted[2], "settle_automatic.1 at_stripe→paid_out 1000");
    }

    #[test]
    fn a_rejected_transfer_gives_everything_back_and_a_retry_takes_it_again() {
        let mut it = item(Status::Pending);
        let posted =
            follow(&mut it, &[Event::TransferDispatched, Event::TransferRejected, Event::Retried, Event::TransferDispatched]);
        assert_eq!(
            posted[1..],
            [
                "undispatch.1 in_flight→reserved_platform 700",
                "release_platform.1 reserved_platform→available_platform 700",
                "release_connected.1 reserved_connected→available_connected 300",
                "reserve_platform.2 available_platform→reserved_platform 700",
                "reserve_connected.2 available_connected→reserved_connected 300",
                "dispatch.2 reserved_platform→in_flight 700",
            ]
        );
    }

    #[test]
    fn money_sent_back_by_the_bank_goes_out_by_a_new_payout_never_by_a_new_transfer() {
        let mut it = item(Status::Pending);
        follow(
            &mut it,
            &[
                Event::TransferDispatched,
                Event::TransferAccepted,
                Event::PayoutDispatched,
                Event::PayoutAccepted,
                Event::PayoutPaid,
            ],
        );
        let posted = follow(&mut it, &[Event::PayoutFailed, Event::PayoutDispatched]);
        assert_eq!(posted, ["return.1 paid_out→at_stripe 1000"], "the connected part is there already");
        assert_eq!((it.status, it.payout_attempt, it.transfer_attempt), (Status::PayingOut, 2, 1));
        for status in [Status::PayoutBlocked, Status::Returned, Status::InTransit, Status::Paid, Status::AwaitingAvailable] {
            assert!(item(status).apply(Event::TransferDispatched).is_err(), "{status:?}");
        }
    }

    #[test]
    fn what_was_sent_is_never_canceled() {
        for status in [
            Status::AwaitingAvailable,
            Status::PayingOut,
            Status::InTransit,
            Status::Paid,
            Status::PayoutBlocked,
            Status::NeedsReview,
        ] {
            assert!(item(status).apply(Event::Canceled).is_err(), "{status:?}");
        }
    }
}
