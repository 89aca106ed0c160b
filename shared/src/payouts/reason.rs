//! Why somebody was not paid: the cause, who must act, and the one thing to do. The words are for the payee or the operator who
//! reads them; timelines, statuses and reports all take them from here.
//!
//! Three sources, looked up apart because their words overlap (`no_account` is one thing to us and another to a bank): our
//! reasons for leaving somebody out of a cycle ([`Exclusion`]), the statuses of items, and failure codes. Those are Stripe's,
//! an open set: one that is not here gets the advice of the item's status. [docs.stripe.com/api/payouts/failures]

use serde::Serialize;
use utoipa::ToSchema;

use crate::payouts::item::Status;

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// Who is to be paid.
    Creator,
    /// The platform's people.
    Operator,
    /// It goes on by itself.
    Nobody,
}

/// What is known of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    pub cause: &'static str,
    pub who: Actor,
    pub action: &'static str,
}

const fn advice(who: Actor, cause: &'static str, action: &'static str) -> Advice {
    Advice { cause, who, action }
}

macro_rules! exclusions {
    ($($name:ident = $text:literal, $code:literal, $who:ident: $cause:literal, $action:literal;)+) => {
        /// Why somebody with a balance is not paid now; the first that applies, in this order. `first_exclusion` in the
        /// database finds it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Exclusion { $($name),+ }

        impl Exclusion {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// As the code of a refused request.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            pub fn advice(self) -> Advice {
                match self { $(Self::$name => advice(Actor::$who, $cause, $action)),+ }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
            }
        }
    };
}

exclusions! {
    PayoutsDisabled = "payouts_disabled", "PAYOUTS_DISABLED", Creator:
        "Payouts are switched off in the payout settings.", "Enable payouts in the payout settings.";
    NotInBeta = "not_in_beta", "NOT_IN_BETA", Nobody:
        "Payouts are being rolled out, and this creator is not in it yet.",
        "Nothing: payouts are being rolled out and will include this creator later.";
    ScheduleNotDue = "schedule_not_due", "SCHEDULE_NOT_DUE", Nobody:
        "The creator's schedule has no cycle on this date.", "Nothing: the next cycle of the creator's schedule pays it.";
    NoAccount = "no_account", "NO_ACCOUNT", Creator:
        "No Stripe account is connected that could be paid.", "Connect a Stripe account.";
    AccountNotReady = "account_not_ready", "ACCOUNT_NOT_READY", Creator:
        "Stripe does not let the connected account receive or pay out money.",
        "Finish what Stripe asks for on the connected account.";
    Blocked = "blocked", "BLOCKED", Operator:
        "Something about this payee has to be looked at first.", "An operator must look at this payee and lift the block.";
    UnsettledItem = "unsettled_item", "UNSETTLED_ITEM", Nobody:
        "An earlier payment is still on its way.", "Nothing: an earlier payment must be settled first.";
    DestinationCooloff = "destination_cooloff", "DESTINATION_COOLOFF", Nobody:
        "The bank account was changed a short while ago.",
        "Nothing: the bank account changed; it is paid once the cool-off is over, a large amount once an operator has confirmed it.";
    Held = "held", "HELD", Nobody:
        "All of the balance is held against chargebacks.", "Nothing: the earnings are paid once their hold is over.";
    Debt = "debt", "DEBT", Nobody:
        "Disputes and refunds took back more than there was.",
        "Nothing: new earnings first cover what disputes and refunds took back.";
    BelowMinimum = "below_minimum", "BELOW_MINIMUM", Nobody:
        "The balance is below the least that is paid.", "Nothing: it is paid once the balance reaches the minimum.";
}

/// Of an item by its status; none where there is nothing to explain.
fn of_status(status: Status) -> Option<Advice> {
    use Actor::{Creator, Nobody, Operator};
    Some(match status {
        Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut => {
            advice(Nobody, "The payment is being made.", "Nothing: the payment is on its way; it continues by itself.")
        }
        Status::InTransit | Status::Paid => return None,
        Status::AwaitingFunds => advice(
            Operator,
            "The platform's Stripe balance is short.",
            "Add funds to the platform's Stripe balance; the payment then continues by itself.",
        ),
        Status::AwaitingAvailable => advice(
            Nobody,
            "The money is on the connected account and Stripe has not made it available yet.",
            "Nothing: it is paid out once the money is available on the connected account.",
        ),
        Status::PayoutBlocked => advice(
            Creator,
            "The bank did not take the money.",
            "Update the bank account at Stripe; the payout is then made anew, without a second transfer.",
        ),
        Status::Returned => advice(
            Creator,
            "The bank sent the money back.",
            "Update the bank account at Stripe; the payout is then made anew, without a second transfer.",
        ),
        Status::Failed => advice(
            Operator,
            "Stripe refused the transfer; the money is in the balance again.",
            "Stripe refused the transfer; it is tried again daily. Look at the code and the connected account.",
        ),
        Status::NeedsReview => advice(
            Operator,
            "What became of this payment is not certain.",
            "An operator must compare this payment with Stripe and decide.",
        ),
        Status::Canceled => {
            advice(Nobody, "The payment was called off before it was sent.", "Nothing: the money is in the balance again.")
        }
    })
}

const UPDATE: &str = "Update the bank account at Stripe; the payout is then made anew, without a second transfer.";
const CONTACT: &str = "Ask the bank, or name another bank account at Stripe; the payout is then made anew.";
const DETAILS: &str = "Correct the bank account's details at Stripe; the payout is then made anew.";
const CARD: &str = "Name a bank account or another card at Stripe; the payout is then made anew.";
const READY: &str = "Finish what Stripe asks for on the connected account.";

/// Codes of failures, Stripe's and those of ours that the engine writes.
const FAILURES: &[(&str, Advice)] = &[
    // A payout that a bank refused.
    ("account_closed", advice(Actor::Creator, "The bank account has been closed.", UPDATE)),
    ("account_frozen", advice(Actor::Creator, "The bank account has been frozen.", CONTACT)),
    (
        "bank_account_restricted",
        advice(Actor::Creator, "The bank account does not take such payments; often it is a savings account.", UPDATE),
    ),
    (
        "bank_ownership_changed",
        advice(Actor::Creator, "The bank's branch has a new owner, and the bank account's number with it.", DETAILS),
    ),
    ("could_not_process", advice(Actor::Creator, "The bank could not process the payment.", CONTACT)),
    ("debit_not_authorized", advice(Actor::Creator, "The bank account does not allow debits, which Stripe asks for.", CONTACT)),
    ("declined", advice(Actor::Creator, "The bank declined the payment.", CONTACT)),
    (
        "incorrect_account_holder_address",
        advice(Actor::Creator, "The bank knows another address of the account's holder.", DETAILS),
    ),
    ("incorrect_account_holder_name", advice(Actor::Creator, "The bank knows another name of the account's holder.", DETAILS)),
    (
        "incorrect_account_holder_tax_id",
        advice(Actor::Creator, "The bank knows another tax number of the account's holder.", DETAILS),
    ),
    ("incorrect_account_type", advice(Actor::Creator, "The bank account is of another type than was said.", DETAILS)),
    ("invalid_account_number", advice(Actor::Creator, "The bank account's number is wrong.", DETAILS)),
    ("invalid_account_number_length", advice(Actor::Creator, "The bank account's number is too long or too short.", DETAILS)),
    ("invalid_currency", advice(Actor::Creator, "The bank account does not take this currency.", UPDATE)),
    ("no_account", advice(Actor::Creator, "The bank has no account with these details.", DETAILS)),
    ("unsupported_card", advice(Actor::Creator, "The card's bank no longer takes payouts to it.", CARD)),
    ("expired_card", advice(Actor::Creator, "The card has expired.", CARD)),
    ("invalid_card", advice(Actor::Creator, "The card's number is wrong, or the card is closed.", CARD)),
    ("lost_or_stolen_card", advice(Actor::Creator, "The card was reported lost or stolen.", CARD)),
    (
        "canceled",
        advice(
            Actor::Operator,
            "The payout was canceled at Stripe.",
            "An operator must find out who canceled it at Stripe, then make the payout anew.",
        ),
    ),
    // A transfer or payout that Stripe refused.
    (
        "account_invalid",
        advice(
            Actor::Operator,
            "Stripe does not know the connected account, or the platform has no access to it any more.",
            "The creator must connect a Stripe account anew; an operator then lifts the block.",
        ),
    ),
    ("account_number_invalid", advice(Actor::Creator, "The bank account's number is wrong.", DETAILS)),
    ("bank_account_declined", advice(Actor::Creator, "The bank account cannot be used.", UPDATE)),
    ("bank_account_unusable", advice(Actor::Creator, "The bank account cannot be used.", UPDATE)),
    ("insufficient_capabilities_for_transfer", advice(Actor::Creator, "The connected account may not receive transfers.", READY)),
    ("instant_payouts_unsupported", advice(Actor::Creator, "The card does not take instant payouts.", CARD)),
    ("payouts_not_allowed", advice(Actor::Creator, "Stripe does not let the connected account pay out.", READY)),
    ("transfers_not_allowed", advice(Actor::Creator, "The connected account may not receive transfers.", READY)),
    (
        "balance_insufficient",
        advice(
            Actor::Operator,
            "The platform's Stripe balance is short.",
            "Add funds to the platform's Stripe balance; the payment then continues by itself.",
        ),
    ),
    (
        "insufficient_funds",
        advice(
            Actor::Operator,
            "The Stripe balance was short of the payout.",
            "An operator must look at the balances at Stripe, then make the payout anew.",
        ),
    ),
    (
        "currency_not_supported",
        advice(
            Actor::Operator,
            "Stripe cannot send this currency to the connected account.",
            "An operator must pay in a currency that the account's country takes.",
        ),
    ),
    (
        "amount_too_large",
        advice(
            Actor::Operator,
            "The amount is above what Stripe takes at once.",
            "An operator must pay it in parts outside, and adopt the payments.",
        ),
    ),
    (
        "amount_too_small",
        advice(Actor::Operator, "The amount is below what Stripe takes.", "An operator must raise the minimum of this currency."),
    ),
    // What the engine writes.
    (
        "account_gone",
        advice(
            Actor::Operator,
            "The connected account has left the platform; what became of its payment cannot be asked.",
            "An operator must ask the creator or Stripe whether the money arrived, and decide.",
        ),
    ),
    (
        "second_object",
        advice(
            Actor::Operator,
            "Stripe has a second object for this payment.",
            "An operator must compare this payment with Stripe and reverse one of the two.",
        ),
    ),
    (
        "unresolved",
        advice(
            Actor::Operator,
            "Stripe never said what became of this payment.",
            "An operator must look for it at Stripe and decide.",
        ),
    ),
    ("superseded", advice(Actor::Nobody, "A newer payment has the money.", "Nothing: a newer payment has the money.")),
    (
        "transfer_reversed",
        advice(
            Actor::Nobody,
            "The transfer was taken back before the bank was asked.",
            "Nothing: the money is in the balance again.",
        ),
    ),
];

const WITHDRAWAL_FAILED: Advice = advice(
    Actor::Creator,
    "Stripe refused the transfer; the money is in the balance again.",
    "Look at what Stripe asks for on the connected account, then ask for the withdrawal again.",
);

const UNKNOWN: Advice = advice(Actor::Operator, "The reason is not known.", "Ask the platform's support.");

fn of_failure(code: &str) -> Option<Advice> {
    FAILURES.iter().find(|(known, _)| *known == code).map(|(_, advice)| *advice)
}

/// Of an item, by its status and the code of its failure. A canceled item's code is the exclusion for which it was not sent.
pub fn of_item(status: Status, code: Option<&str>) -> Option<Advice> {
    let general = of_status(status)?;
    let special = match status {
        Status::Canceled => code.and_then(|code| Exclusion::parse(code).map(Exclusion::advice).or_else(|| of_failure(code))),
        // What was to be looked into at an earlier attempt says nothing of one that is under way.
        Status::Pending | Status::Transferring | Status::Transferred | Status::PayingOut | Status::AwaitingAvailable => None,
        Status::AwaitingFunds
        | Status::InTransit
        | Status::Paid
        | Status::PayoutBlocked
        | Status::Returned
        | Status::Failed
        | Status::NeedsReview => code.and_then(of_failure),
    };
    Some(special.unwrap_or(general))
}

/// Of what reports call a reason: an exclusion's, or the status of an item that did not arrive.
pub fn of_reason(reason: &str, code: Option<&str>) -> Advice {
    let exclusion = Exclusion::parse(reason).map(Exclusion::advice);
    exclusion.or_else(|| of_item(Status::parse(reason)?, code)).unwrap_or(UNKNOWN)
}

/// A reason as answers of the API carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// An exclusion's reason, or the status of a payment that has not arrived.
    #[schema(example = "payout_blocked")]
    pub reason: String,
    /// Stripe's code, where it gave one; ours else.
    #[schema(example = "account_closed")]
    pub code: Option<String>,
    pub cause: &'static str,
    pub who_acts: Actor,
    /// The one thing to do.
    pub action: &'static str,
}

impl Why {
    pub fn new(reason: &str, code: Option<&str>) -> Self {
        let Advice { cause, who, action } = of_reason(reason, code);
        Self { reason: reason.to_owned(), code: code.map(str::to_owned), cause, who_acts: who, action }
    }

    /// Of a withdrawal whose transfer failed, which nobody but its creator takes up again.
    pub fn of_failed_withdrawal(code: Option<&str>) -> Self {
        let Advice { cause, who, action } = code.and_then(of_failure).unwrap_or(WITHDRAWAL_FAILED);
        Self { reason: Status::Failed.as_str().to_owned(), code: code.map(str::to_owned), cause, who_acts: who, action }
    }

    /// Of an item; none where there is nothing to explain.
    pub fn of_item(status: &str, code: Option<&str>) -> Option<Self> {
        let known = Status::parse(status)?;
        let code = code.filter(|_| !known.is_sending());
        of_item(known, code).map(|_| Self::new(status, code))
    }
}

/// What to do about a halted batch.
pub fn halt_action(reason: &str) -> &'static str {
    match reason {
        "awaiting_funds" => "Add funds to the platform's Stripe balance; the batch then continues by itself.",
        "stripe_key_rejected" => "Give Payday a key that Stripe takes; the batch then continues by itself.",
        "frozen_operation" => "An operator must compare the frozen operation with Stripe and decide.",
        "standing_check" => {
            "An operator must find out why the books contradict themselves; `cargo payday verify` names the rows."
        }
        _ => "An operator must look at the batch.",
    }
}

/// Whether an item in this status has to be explained to its payee.
pub fn did_not_arrive(status: Status) -> bool {
    !matches!(status, Status::Paid | Status::InTransit | Status::Canceled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_cause_and_one_thing_to_do() {
        let exclusions = Exclusion::ALL.iter().map(|it| (it.as_str(), it.advice()));
        let statuses = Status::ALL.iter().filter_map(|it| Some((it.as_str(), of_item(*it, None)?)));
        for (reason, advice) in exclusions.chain(statuses).chain(FAILURES.iter().copied()) {
            assert!(advice.cause.ends_with('.') && advice.action.ends_with('.'), "{reason}");
            // Whoever has nothing to do is told so, and nobody else is.
            assert_eq!(advice.action.starts_with("Nothing"), advice.who == Actor::Nobody, "{reason}");
        }
        for status in Status::ALL {
            assert!(!did_not_arrive(*status) || of_item(*status, None).is_some(), "{status:?}");
        }
        let codes: BTreeSet<&str> = FAILURES.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), FAILURES.len(), "a code stands twice");
        for exclusion in Exclusion::ALL {
            assert_eq!(exclusion.code().to_lowercase(), exclusion.as_str());
        }
    }

    #[test]
    fn a_code_says_more_than_its_status_and_an_unknown_one_says_as_much() {
        let blocked = |code| of_reason("payout_blocked", code);
        assert_eq!(blocked(Some("account_closed")).cause, "The bank account has been closed.");
        assert_eq!(blocked(Some("a_code_of_next_year")), blocked(None));
        assert_eq!(blocked(None).who, Actor::Creator);
        // The same word is a cause of ours in one place and a bank's in another.
        assert_ne!(of_reason("no_account", None), blocked(Some("no_account")));
        assert_eq!(of_reason("canceled", Some("no_account")), Exclusion::NoAccount.advice());
        assert_eq!(of_reason("a reason of next year", None), UNKNOWN);
        // What once failed is not told of a payment that is being made.
        assert_eq!(Why::of_item("pending", Some("account_closed")).and_then(|why| why.code), None);
        assert_eq!(Why::of_item("paid", None), None);
    }
}
