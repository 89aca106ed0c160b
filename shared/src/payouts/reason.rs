//! Why somebody was not paid, and the one thing to do about it. The words are for the payee or the operator who reads them.

use crate::payouts::item::Status;

/// What to do, for an exclusion's reason or the status of an item that did not arrive.
pub fn action(reason: &str) -> &'static str {
    match reason {
        "payouts_disabled" => "Enable payouts in the payout settings.",
        "not_in_beta" => "Nothing: payouts are being rolled out and will include this creator later.",
        "schedule_not_due" => "Nothing: the next cycle of the creator's schedule pays it.",
        "no_account" => "Connect a Stripe account.",
        "account_not_ready" => "Finish what Stripe asks for on the connected account.",
        "blocked" => "An operator must look at this payee and lift the block.",
        "unsettled_item" => "Nothing: an earlier payment must be settled first.",
        "destination_cooloff" => "Nothing: the bank account changed; it is paid once the cool-off is over.",
        "held" => "Nothing: the earnings are paid once their hold is over.",
        "debt" => "Nothing: new earnings first cover what disputes and refunds took back.",
        "below_minimum" => "Nothing: it is paid once the balance reaches the minimum.",
        "failed" => "Stripe refused the transfer; it is tried again daily. Look at the code and the connected account.",
        "awaiting_funds" => "Add funds to the platform's Stripe balance; the payment then continues by itself.",
        "awaiting_available" => "Nothing: it is paid out once the money is available on the connected account.",
        "payout_blocked" | "returned" => {
            "Update the bank account at Stripe; the payout is then made anew, without a second transfer."
        }
        "needs_review" => "An operator must compare this payment with Stripe and decide.",
        "pending" | "transferring" | "transferred" | "paying_out" => {
            "Nothing: the payment is on its way; it continues by itself."
        }
        _ => "Ask the platform's support.",
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
