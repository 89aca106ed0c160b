//! An operation is one attempt of one leg. What to do next about an item, given its operation and the time, is decided
//! here; pure: knows no SQL, no clock, no Stripe.
//!
//! ```text
//! (dispatch commit) ─▶ dispatched ─▶ accepted | rejected | not_run | unknown | frozen
//! not_run ─ same attempt, same key ─▶ dispatched        not_run ─ no longer wanted ─▶ canceled
//! unknown ─ same key, same bytes, inside the replay window ─▶ accepted | rejected | unknown
//! unknown ─ a lookup or webhook finds it ─▶ accepted    unknown ─ after the window, not found ─▶ unresolved
//! accepted ─ the payout failed, the transfer was reversed in full ─▶ returned
//! ```
//! Attempt n+1 exists only if n is rejected or returned, after the cooling time, and a lookup for n found nothing live: a
//! frozen worker can thaw and send n after all.

use chrono::{DateTime, Duration, Utc};

use super::item::{Item, Status};
use crate::config::Sending;
use crate::rails::{Hindrance, Leg, Outcome, Reply};

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Dispatched,
    Accepted,
    Rejected,
    NotRun,
    Unknown,
    Frozen,
    Unresolved,
    Returned,
    Canceled,
}

impl State {
    pub const ALL: [Self; 9] = [
        Self::Dispatched,
        Self::Accepted,
        Self::Rejected,
        Self::NotRun,
        Self::Unknown,
        Self::Frozen,
        Self::Unresolved,
        Self::Returned,
        Self::Canceled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatched => "dispatched",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::NotRun => "not_run",
            Self::Unknown => "unknown",
            Self::Frozen => "frozen",
            Self::Unresolved => "unresolved",
            Self::Returned => "returned",
            Self::Canceled => "canceled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the attempt may still turn out to have moved money, so that nothing else may be sent for the item.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Dispatched | Self::NotRun | Self::Unknown | Self::Frozen | Self::Unresolved)
    }
}

/// An attempt as the decisions see it: the item's latest operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub leg: Leg,
    pub attempt: i32,
    pub state: State,
    /// The first send that is not known to be not_run: the replay window counts from here.
    pub first_dispatched_at: DateTime<Utc>,
    pub dispatched_at: DateTime<Utc>,
    pub sends: i32,
    /// The last answer says that sending again will not tell: look up.
    pub look_up: bool,
    /// A lookup after the attempt was closed found nothing live.
    pub cleared: bool,
}

/// What to do about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Dispatch a new attempt of the leg.
    Dispatch(Leg),
    /// Send the same attempt for the first time: it was not run.
    Resend(Leg),
    /// Send the same attempt again, though it may have been run: same key, same bytes.
    Replay(Leg),
    /// Ask Stripe whether the open attempt's object exists.
    LookUp(Leg),
    /// Ask Stripe whether the closed attempt left something live, before a new attempt.
    Clear(Leg),
    /// The window is over and nothing was found: a person decides.
    GiveUp(Leg),
    /// Not before then.
    Wait(DateTime<Utc>),
    /// Nothing until something happens to it.
    Nothing,
}

/// What should happen next to an item, given its latest operation (of either leg) and the time.
pub fn next(item: &Item, operation: Option<&Operation>, now: DateTime<Utc>, sending: &Sending) -> Next {
    if let Some(operation) = operation.filter(|operation| operation.state.is_open()) {
        return next_of_open(operation, now, sending);
    }
    let leg = match item.status {
        Status::Pending | Status::AwaitingFunds if item.transfer_minor > 0 => Leg::Transfer,
        Status::Pending | Status::AwaitingAvailable | Status::PayoutBlocked | Status::Returned => Leg::Payout,
        Status::AwaitingFunds
        | Status::Transferring
        | Status::Transferred
        | Status::PayingOut
        | Status::InTransit
        | Status::Paid
        | Status::Failed
        | Status::NeedsReview
        | Status::Canceled => return Next::Nothing,
    };
    match operation.filter(|operation| operation.leg == leg) {
        // The attempt before this one is closed. It must be cold, and Stripe must not know anything live of it.
        Some(last) => {
            let cold_at = last.dispatched_at + sending.attempt_cooling;
            if now < cold_at {
                Next::Wait(cold_at)
            } else if last.cleared {
                Next::Dispatch(leg)
            } else {
                Next::Clear(leg)
            }
        }
        None => Next::Dispatch(leg),
    }
}

fn next_of_open(operation: &Operation, now: DateTime<Utc>, sending: &Sending) -> Next {
    match operation.state {
        State::NotRun => Next::Resend(operation.leg),
        State::Dispatched | State::Unknown => {
            let window_over = now >= operation.first_dispatched_at + sending.replay_window;
            match (window_over, operation.look_up, operation.cleared) {
                // Past the window nothing is sent any more: one lookup, then a person.
                (true, _, true) => Next::GiveUp(operation.leg),
                (true, _, false) | (false, true, _) => Next::LookUp(operation.leg),
                (false, false, _) => Next::Replay(operation.leg),
            }
        }
        State::Frozen | State::Unresolved | State::Accepted | State::Rejected | State::Returned | State::Canceled => {
            Next::Nothing
        }
    }
}

/// The state that an outcome leads to.
pub fn state_after(outcome: &Outcome) -> State {
    match outcome {
        Outcome::Accepted(_) => State::Accepted,
        Outcome::Rejected(_) => State::Rejected,
        Outcome::NotRun(_) => State::NotRun,
        Outcome::Unknown { .. } => State::Unknown,
        Outcome::Frozen { .. } => State::Frozen,
    }
}

/// When to come back to an attempt that is unknown: after one second, then ever longer up to thirty; once it is half an
/// hour old, after a twentieth of its age, so that a day's outage is not a day's hammering; never more than an hour, however
/// long ago the payment was.
pub fn unknown_retry_after(sends_and_lookups: i32, age: Duration) -> Duration {
    let doublings = u32::try_from(sends_and_lookups.saturating_sub(1).clamp(0, 5)).unwrap_or(5);
    let early = Duration::seconds((1_i64 << doublings).min(30));
    let late = Duration::seconds(age.num_seconds() / 20).min(Duration::hours(1));
    if age > Duration::minutes(30) { early.max(late) } else { early }
}

/// When to send again what was not run.
pub fn not_run_retry_after(reply: &Reply, sends: i32, age: Duration) -> Duration {
    match reply.outcome {
        // The rate budget spaces these out by itself; a stop is waited out by the gate.
        Outcome::NotRun(Hindrance::RateLimited | Hindrance::NotSent) => Duration::zero(),
        _ => unknown_retry_after(sends, age),
    }
}

/// When to try again a payout for which the connected balance was short: after the cooling time, then ever longer up to six hours.
pub fn not_available_retry_after(attempt: i32, sending: &Sending) -> Duration {
    let doublings = attempt.saturating_sub(1).clamp(0, 8);
    (sending.attempt_cooling * (1 << doublings)).min(Duration::hours(6)).max(sending.attempt_cooling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ItemId;
    use crate::money::Currency;

    fn sending() -> Sending {
        Sending {
            sends_per_worker: 5,
            rate_transfers: 20,
            rate_payouts: 12,
            attempt_cooling: Duration::seconds(910),
            replay_window: Duration::hours(23),
        }
    }

    fn at(hours: i64, seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + hours * 3_600 + seconds, 0).expect("an instant")
    }

    fn item(status: Status) -> Item {
        Item {
            id: ItemId(1),
            payee: uuid::Uuid::nil(),
            currency: Currency::USD,
            status,
            amount_minor: 10,
            transfer_minor: 10,
            connected_minor: 0,
            payout_minor: 10,
            transfer_attempt: 1,
            payout_attempt: 0,
            connected_moved: false,
            retries: 0,
        }
    }

    fn operation(leg: Leg, state: State) -> Operation {
        Operation {
            leg,
            attempt: 1,
            state,
            first_dispatched_at: at(0, 0),
            dispatched_at: at(0, 0),
            sends: 1,
            look_up: false,
            cleared: false,
        }
    }

    #[test]
    fn an_unknown_attempt_is_replayed_for_23_hours_then_looked_up_once_then_left_to_a_person() {
        let it = item(Status::Transferring);
        let unknown = operation(Leg::Transfer, State::Unknown);
        assert_eq!(next(&it, Some(&unknown), at(22, 3_599), &sending()), Next::Replay(Leg::Transfer));
        assert_eq!(next(&it, Some(&unknown), at(23, 0), &sending()), Next::LookUp(Leg::Transfer));
        let missed = Operation { cleared: true, ..unknown };
        assert_eq!(next(&it, Some(&missed), at(23, 0), &sending()), Next::GiveUp(Leg::Transfer));
    }

    #[test]
    fn a_new_attempt_waits_for_the_cooling_time_and_for_a_lookup() {
        let it = item(Status::AwaitingFunds);
        let rejected = operation(Leg::Transfer, State::Rejected);
        assert_eq!(next(&it, Some(&rejected), at(0, 909), &sending()), Next::Wait(at(0, 910)));
        assert_eq!(next(&it, Some(&rejected), at(0, 910), &sending()), Next::Clear(Leg::Transfer));
        let cleared = Operation { cleared: true, ..rejected };
        assert_eq!(next(&it, Some(&cleared), at(0, 910), &sending()), Next::Dispatch(Leg::Transfer));
    }

    #[test]
    fn nothing_is_dispatched_while_an_attempt_of_either_leg_is_open() {
        for state in State::ALL.into_iter().filter(|state| state.is_open()) {
            for status in Status::ALL {
                for hours in [0, 24] {
                    let decided = next(&item(*status), Some(&operation(Leg::Transfer, state)), at(hours, 0), &sending());
                    assert!(!matches!(decided, Next::Dispatch(_)), "{state:?} {status:?} {decided:?}");
                }
            }
        }
    }

    #[test]
    fn after_an_accepted_transfer_only_the_payout_leg_is_left() {
        let accepted = operation(Leg::Transfer, State::Accepted);
        assert_eq!(next(&item(Status::AwaitingAvailable), Some(&accepted), at(0, 0), &sending()), Next::Dispatch(Leg::Payout));
        let failed_payout = operation(Leg::Payout, State::Returned);
        assert_eq!(next(&item(Status::PayoutBlocked), Some(&failed_payout), at(0, 0), &sending()), Next::Wait(at(0, 910)));
    }

    #[test]
    fn unknown_attempts_are_asked_about_after_a_second_then_ever_more_rarely() {
        let seconds: Vec<i64> = (1..=8).map(|times| unknown_retry_after(times, Duration::minutes(1)).num_seconds()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(unknown_retry_after(8, Duration::hours(10)).num_minutes(), 30);
        assert_eq!(unknown_retry_after(8, Duration::days(90)).num_minutes(), 60);
    }
}
