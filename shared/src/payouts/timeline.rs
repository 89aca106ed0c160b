//! A payout's way from the earnings to the bank, step by step, for its creator. Pure.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::item::Status;
use super::store::creators::Story;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    Earned,
    HeldUntil,
    Reserved,
    Transferred,
    ExpectedArrival,
    Paid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Done,
    /// It comes by itself.
    Waiting,
    /// It does not come before something is done, or not at all; `why` says what.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Step {
    pub step: StepName,
    pub state: StepState,
    pub at: Option<DateTime<Utc>>,
    /// Where only a day is known.
    pub on: Option<NaiveDate>,
}

/// The steps that this payout has: money that is on the connected account already is not transferred, and an account that
/// Stripe pays out by itself has no day of arrival that we would know.
pub fn timeline(story: &Story, status: Status) -> Vec<Step> {
    let open = match status {
        Status::Pending
        | Status::Transferring
        | Status::Transferred
        | Status::AwaitingAvailable
        | Status::PayingOut
        | Status::InTransit
        | Status::Paid => StepState::Waiting,
        Status::AwaitingFunds
        | Status::PayoutBlocked
        | Status::Returned
        | Status::Failed
        | Status::NeedsReview
        | Status::Canceled => StepState::Stopped,
    };
    let step =
        |step, at: Option<DateTime<Utc>>| Step { step, state: if at.is_some() { StepState::Done } else { open }, at, on: None };
    let mut steps = Vec::new();
    steps.extend(story.earned_at.map(|at| step(StepName::Earned, Some(at))));
    steps.extend(story.held_until.map(|at| step(StepName::HeldUntil, Some(at))));
    steps.push(step(StepName::Reserved, Some(story.reserved_at)));
    if story.transfer_minor > 0 {
        steps.push(step(StepName::Transferred, story.transferred_at));
    }
    let paid_at = story.payout.paid_at;
    if story.payout_minor > 0 {
        // Of a payout that the bank refused the day meant nothing.
        let on = story.payout.arrival_on.filter(|_| open == StepState::Waiting);
        let arrival = step(StepName::ExpectedArrival, paid_at);
        steps.push(Step { at: None, on, ..arrival });
    }
    steps.push(step(StepName::Paid, paid_at));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ItemId;
    use crate::payouts::store::creators::Payout;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    fn story(status: Status) -> Story {
        Story {
            payout: Payout {
                id: ItemId(7),
                kind: "scheduled".to_owned(),
                cycle_on: "2026-11-15".parse().expect("a date"),
                currency: "usd".to_owned(),
                amount_minor: 1_000,
                status: status.as_str().to_owned(),
                failure_code: None,
                arrival_on: "2026-11-17".parse().ok(),
                created_at: at("2026-11-15T06:00:01Z"),
                paid_at: (status == Status::Paid).then(|| at("2026-11-17T09:00:00Z")),
            },
            transfer_minor: 1_000,
            payout_minor: 1_000,
            earned_at: Some(at("2026-11-01T00:00:00Z")),
            held_until: Some(at("2026-11-08T00:00:00Z")),
            reserved_at: at("2026-11-15T06:00:01Z"),
            transferred_at: Some(at("2026-11-15T06:00:02Z")),
        }
    }

    fn told(story: &Story, status: Status) -> Vec<(StepName, StepState)> {
        timeline(story, status).into_iter().map(|step| (step.step, step.state)).collect()
    }

    use StepName::{Earned, ExpectedArrival, HeldUntil, Paid, Reserved, Transferred};
    use StepState::{Done, Stopped, Waiting};

    #[test]
    fn a_payout_that_arrived_has_every_step_done_and_one_on_its_way_its_day() {
        let paid = told(&story(Status::Paid), Status::Paid);
        assert_eq!(paid, [Earned, HeldUntil, Reserved, Transferred, ExpectedArrival, Paid].map(|step| (step, Done)));
        let way = timeline(&story(Status::InTransit), Status::InTransit);
        let arrival = &way[4];
        assert_eq!((arrival.step, arrival.state, arrival.on), (ExpectedArrival, Waiting, "2026-11-17".parse().ok()));
        assert_eq!(way[5].state, Waiting);
    }

    #[test]
    fn what_is_refused_stops_where_it_was_refused() {
        let blocked = timeline(&story(Status::PayoutBlocked), Status::PayoutBlocked);
        assert_eq!(blocked[3].state, Done);
        assert_eq!((blocked[4].state, blocked[4].on, blocked[5].state), (Stopped, None, Stopped));
        let failed = Story { transferred_at: None, ..story(Status::Failed) };
        assert_eq!(told(&failed, Status::Failed)[3..], [(Transferred, Stopped), (ExpectedArrival, Stopped), (Paid, Stopped)]);
    }

    #[test]
    fn a_payout_has_only_the_steps_of_its_way() {
        let connected = Story { transfer_minor: 0, transferred_at: None, ..story(Status::Pending) };
        assert_eq!(told(&connected, Status::Pending)[3..], [(ExpectedArrival, Waiting), (Paid, Waiting)]);
        let automatic = Story { payout_minor: 0, earned_at: None, held_until: None, ..story(Status::Paid) };
        assert_eq!(told(&automatic, Status::Paid), [(Reserved, Done), (Transferred, Done), (Paid, Done)]);
    }
}
