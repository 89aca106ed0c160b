//! Withdrawals: tokens that a creator asks to be paid, beside the cycles.
//!
//! A request reserves its money at once and is `pending`; once it is due (at once, or with the next cycle of the creator's
//! schedule: `WITHDRAWAL_TIMING`), the batch creator makes a run of kind `withdrawal` for it, with one batch, one chunk and one
//! item, which takes the reservation over. From then on it is paid by the very same engine, which asks about eligibility once
//! more before it sends, and the request follows its item: `batched`, then `paid`, or `failed` when the money was released.
//!
//! Invariants: a pending request has reserved what it asks for, any other has nothing of its own. Whoever changes a pending one
//! holds the lock of its payee's balance and finds it pending under its own lock; so it is canceled or batched, never both,
//! and batched once however often its message comes. The batch's hash is the request's id.

pub mod routes;
pub mod store;

use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::boundary::Boundary;
use crate::clock;
use crate::config::{Policy, Withdrawals};
use crate::db::{Db, Tx};
use crate::earnings;
use crate::error::{Error, Kind, Result};
use crate::ledger::store::{Balance, lock_balance, post};
use crate::ledger::{Account, Posting};
use crate::money::Currency;
use crate::notifications::store as outbox;
use crate::payouts::reason::Exclusion;
use crate::payouts::store::batches;
use crate::payouts::store::creators::{self, Standing};
use crate::queue::{Message, Queue};
use store::{Locked, New, Request};

/// A caller who sent the same key a moment ago waits so long.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Requests brought back by one sweep at most; the next sweep brings more.
const TAKEN_AT_ONCE: i64 = 500;

/// What a creator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    pub creator: Uuid,
    /// Above zero.
    pub tokens: i64,
    /// What they are worth: the rate less the fee.
    pub micros: i64,
    pub currency: Currency,
}

impl Withdrawal {
    pub fn new(creator: Uuid, tokens: i64, policy: &Policy) -> Result<Self> {
        let wrong = |problem: &str| Error::field("tokenAmount", problem);
        if tokens <= 0 {
            return Err(wrong("must be above zero"));
        }
        let micros = tokens.checked_mul(policy.token_net_micros()).filter(|micros| *micros > 0);
        let micros = micros.ok_or_else(|| wrong("is more than the ledger can hold, or worth nothing"))?;
        Ok(Self { creator, tokens, micros, currency: policy.default_currency })
    }
}

/// What a request sets aside, in minor units: the part on the platform, and the part on the connected account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub transfer_minor: i64,
    pub connected_minor: i64,
}

impl Parts {
    fn is_booked(self, balance: &Balance, unit: i64) -> bool {
        balance.available_platform >= self.transfer_minor.saturating_mul(unit)
            && balance.available_connected >= self.connected_minor.saturating_mul(unit)
    }
}

/// What of the creator's money a request takes, or why it is refused. Connected money goes first, as everywhere; what is worth
/// less than Stripe's smallest step stays in the balance.
pub fn decide(asked: &Withdrawal, standing: Option<&Standing>) -> Result<Parts> {
    let refused = |reason: Exclusion| {
        let advice = reason.advice();
        Err(Error::conflict(reason.code(), format!("{} {}", advice.cause, advice.action)))
    };
    let Some(standing) = standing else { return refused(Exclusion::NoAccount) };
    match standing.reason.as_deref().and_then(Exclusion::parse) {
        Some(
            reason @ (Exclusion::PayoutsDisabled
            | Exclusion::NotInBeta
            | Exclusion::NoAccount
            | Exclusion::AccountNotReady
            | Exclusion::Blocked
            | Exclusion::DestinationCooloff),
        ) => return refused(reason),
        // About the whole balance: what is asked for has to be looked at by itself.
        Some(
            Exclusion::ScheduleNotDue | Exclusion::UnsettledItem | Exclusion::Held | Exclusion::Debt | Exclusion::BelowMinimum,
        )
        | None => {}
    }
    let multiple = if standing.automatic { asked.currency.transfer_multiple() } else { asked.currency.payout_multiple() };
    let step = asked.currency.micros_per_minor() * multiple;
    let minor = asked.micros / step * multiple;
    if minor > standing.payable_minor {
        let message = format!(
            "Not enough: {} {} (minor units) can be withdrawn now, and the tokens are worth {minor}.",
            standing.payable_minor, asked.currency
        );
        return Err(Error::invalid("INSUFFICIENT_BALANCE", message));
    }
    let minimum = standing.minimum_minor.unwrap_or(multiple);
    if minor < minimum {
        let message = format!(
            "Below the minimum: the least that is paid is {minimum} {} (minor units), and the tokens are worth {minor}.",
            asked.currency
        );
        return Err(Error::invalid(Exclusion::BelowMinimum.code(), message));
    }
    let connected_minor = minor.min(standing.payable_minor - standing.transfer_minor);
    Ok(Parts { transfer_minor: minor - connected_minor, connected_minor })
}

/// How far a request came in its transaction.
enum Step {
    /// It is recorded and has reserved its money.
    Made(Request),
    /// It was made before, under the same key.
    There(Request),
    /// What the creator was told is available is not booked as such yet.
    NotBooked,
}

/// Records a request and reserves its money. With a key, sending it again finds the first one, whatever became of it since.
pub async fn request(
    db: &Db,
    queue: &Queue,
    policy: &Policy,
    go_out: Withdrawals,
    asked: &Withdrawal,
    key: Option<String>,
) -> Result<Request> {
    for _ in 0..2 {
        let now = clock::now();
        let due_at = (go_out == Withdrawals::OnDemand).then_some(now);
        let mut tx = db.begin().await?;
        let made = match make(&mut tx, policy, asked, key.as_deref(), due_at, now).await {
            Ok(Step::Made(made)) => made,
            other => {
                tx.rollback().await;
                match other? {
                    Step::Made(there) | Step::There(there) => return Ok(there),
                    Step::NotBooked => earnings::mature(db, now).await?,
                };
                continue;
            }
        };
        tx.commit(Boundary::RequestWithdrawal).await?;
        if due_at.is_some() {
            let hint = queue.send_all(Boundary::QueueWithdrawal, &[Message::Withdraw { request_id: made.id }]).await;
            // The request stands, and the sweep finds it.
            if let Err(error) = hint {
                tracing::warn!(request = %made.id, error = %error, causes = error.causes(), "a withdrawal could not be queued");
            }
        }
        return Ok(made);
    }
    Err(Error::unavailable("BALANCE_CHANGING", "The balance is changing just now; try again."))
}

/// The request's own transaction, under the lock of its key and of its payee's balance.
async fn make(
    tx: &mut Tx,
    policy: &Policy,
    asked: &Withdrawal,
    key: Option<&str>,
    due_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Step> {
    if let Some(key) = key {
        if !store::take_key(tx, asked.creator, key).await? {
            let kind = Kind::InProgress { retry_after_seconds: RETRY_AFTER_SECONDS };
            let message = "A request with this Idempotency-Key is being worked on; ask again in a moment.";
            return Err(Error::new(kind, "REQUEST_IN_PROGRESS", message));
        }
        if let Some(there) = store::by_key(tx, asked.creator, key).await? {
            return the_same(there, asked).map(Step::There);
        }
    }
    let code = asked.currency.code();
    let balance = lock_balance(tx, asked.creator, &code).await?;
    let standing = creators::standing(tx, asked.creator, policy, now).await?;
    let of_currency = standing.iter().find(|row| row.currency.as_ref() == Some(&code));
    let parts = decide(asked, of_currency.or(standing.first()))?;
    if !parts.is_booked(&balance, asked.currency.micros_per_minor()) {
        return Ok(Step::NotBooked);
    }
    let made = store::insert(tx, &New { asked: *asked, parts, key: key.map(str::to_owned), due_at }).await?;
    post(tx, &reserve(made.id, asked, parts)).await?;
    Ok(Step::Made(made))
}

/// The request that was made under the key, if it asked for the same.
fn the_same(there: Request, asked: &Withdrawal) -> Result<Request> {
    if there.token_amount == asked.tokens {
        return Ok(there);
    }
    Err(Error::invalid("IDEMPOTENCY_KEY_REUSED", "This Idempotency-Key was used for another request; take a new one."))
}

fn reserve(id: Uuid, asked: &Withdrawal, parts: Parts) -> [Posting; 2] {
    let posting = |leg, from, to, minor: i64| posting(id, asked.creator, asked.currency, leg, (from, to), minor);
    [
        posting("reserve_platform", Account::AvailablePlatform, Account::ReservedPlatform, parts.transfer_minor),
        posting("reserve_connected", Account::AvailableConnected, Account::ReservedConnected, parts.connected_minor),
    ]
}

/// Gives back what a pending request has reserved.
async fn release(tx: &mut Tx, request: &Locked) -> Result<()> {
    let currency: Currency = request.currency.parse()?;
    let posting = |leg, from, to, minor: i64| posting(request.id, request.creator_id, currency, leg, (from, to), minor);
    let postings = [
        posting("release_platform", Account::ReservedPlatform, Account::AvailablePlatform, request.transfer_minor),
        posting("release_connected", Account::ReservedConnected, Account::AvailableConnected, request.connected_minor),
    ];
    post(tx, &postings).await
}

fn posting(id: Uuid, payee: Uuid, currency: Currency, leg: &'static str, (from, to): (Account, Account), minor: i64) -> Posting {
    let event = format!("withdrawal:{id}");
    // Amounts come from micros, so they fit.
    let micros = minor.saturating_mul(currency.micros_per_minor());
    Posting { event, leg, attempt: 1, payee, currency: currency.code(), from, to, micros }
}

/// Takes a request of this creator back while it is pending. One that is canceled already stays so.
pub async fn cancel(db: &Db, creator: Uuid, id: Uuid) -> Result<Request> {
    let mut tx = db.begin().await?;
    match take_back(&mut tx, creator, id).await {
        Ok(canceled) => {
            tx.commit(Boundary::CancelWithdrawal).await?;
            Ok(canceled)
        }
        Err(error) => {
            tx.rollback().await;
            Err(error)
        }
    }
}

async fn take_back(tx: &mut Tx, creator: Uuid, id: Uuid) -> Result<Request> {
    let not_found = || Error::not_found("The withdrawal request");
    // Another's is not even locked.
    store::of_creator(tx, creator, id).await?.ok_or_else(not_found)?;
    let request = lock(tx, id).await?.ok_or_else(not_found)?;
    match request.status.as_str() {
        "pending" => {
            release(tx, &request).await?;
            store::close(tx, id, "canceled", None).await?;
        }
        "canceled" => {}
        status => {
            let message = format!("The withdrawal is {status} and cannot be canceled any more.");
            return Err(Error::conflict("NOT_PENDING", message));
        }
    }
    store::of_creator(tx, creator, id).await?.ok_or_else(not_found)
}

/// The request under its payee's lock and its own, in the order in which everyone takes them.
async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<Locked>> {
    let Some((payee, currency)) = store::owner(tx, id).await? else { return Ok(None) };
    lock_balance(tx, payee, &currency).await?;
    // Read by a statement of its own, which sees what was committed while it waited for the balance.
    store::lock(tx, id).await
}

/// The batch creator: makes the batch of a due request and queues its chunk. A request that is not pending any more has had its
/// turn. One whose payee has an earlier payment under way waits; the sweep brings it back.
pub async fn make_batch(db: &Db, queue: &Queue, policy: &Policy, id: Uuid) -> Result<()> {
    let mut tx = db.begin().await?;
    if batches::is_stopped(&mut tx).await? {
        tracing::info!(request = %id, "paused: the sweep brings the withdrawal back on resume");
        return Ok(());
    }
    let Some(request) = lock(&mut tx, id).await? else {
        tracing::warn!(request = %id, "there is no such withdrawal request");
        return Ok(());
    };
    let Some(due_at) = request.due_at.filter(|_| request.status == "pending") else {
        tx.rollback().await;
        return Ok(());
    };
    if store::has_unsettled_item(&mut tx, request.creator_id, &request.currency).await? {
        tracing::info!(request = %id, "an earlier payment of the payee is under way");
        tx.rollback().await;
        return Ok(());
    }
    let way = store::way(&mut tx, request.creator_id).await?;
    // Money on an account that Stripe pays out by itself is not ours to pay.
    let Some(way) = way.filter(|way| way.account.is_some() && !(way.automatic && request.connected_minor > 0)) else {
        release(&mut tx, &request).await?;
        let reason = Exclusion::AccountNotReady.as_str();
        store::close(&mut tx, id, "failed", Some(reason)).await?;
        let payload = json!({ "requestId": id, "creatorId": request.creator_id, "reason": reason });
        outbox::put(&mut tx, &format!("withdrawal_failed:{id}"), "withdrawal_failed", payload).await?;
        return tx.commit(Boundary::BatchWithdrawal).await;
    };
    let cycle_on = policy.calendar.date_of(due_at);
    let chunk_id = store::batch(&mut tx, &request, &way, policy, cycle_on, clock::now()).await?;
    tx.commit(Boundary::BatchWithdrawal).await?;
    tracing::info!(request = %id, chunk = chunk_id.0, "withdrawal batched");
    queue.send_all(Boundary::QueueChunks, &[Message::ProcessChunk { chunk_id }]).await
}

/// Brings back due requests whose message was lost, or whose payee had an earlier payment under way. `quiet`: a message younger
/// than this is not yet thought lost.
pub async fn sweep(db: &Db, queue: &Queue, quiet: Duration) -> Result<()> {
    let mut tx = db.begin().await?;
    if batches::is_stopped(&mut tx).await? {
        return Ok(());
    }
    let due = store::take_due(&mut tx, clock::now() - quiet, TAKEN_AT_ONCE).await?;
    tx.commit(Boundary::TakeDueWithdrawals).await?;
    let messages: Vec<Message> = due.into_iter().map(|request_id| Message::Withdraw { request_id }).collect();
    queue.send_all(Boundary::QueueWithdrawalsAgain, &messages).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(tokens: i64) -> Withdrawal {
        Withdrawal::new(Uuid::nil(), tokens, &crate::http::testing::policy()).expect("tokens")
    }

    /// 90.00 payable, of which 30.00 are on the connected account, at least 10.00 at once.
    fn standing() -> Standing {
        Standing {
            schedule: "semimonthly".to_owned(),
            timezone: None,
            ready: true,
            automatic: false,
            currency: Some("usd".to_owned()),
            held_micros: 0,
            available_micros: 90_000_000,
            under_way_micros: 0,
            paid_out_micros: 0,
            debt_micros: 0,
            payable_minor: 9_000,
            transfer_minor: 6_000,
            minimum_minor: Some(1_000),
            reason: None,
        }
    }

    #[test]
    fn tokens_ask_for_what_they_are_worth_rounded_down_and_connected_money_goes_first() {
        for (tokens, transfer_minor, connected_minor) in
            // A token is worth 4.5 cents.
            [(223, 0, 1_003), (667, 1, 3_000), (668, 6, 3_000), (2_000, 6_000, 3_000)]
        {
            let parts = decide(&asked(tokens), Some(&standing())).expect("granted");
            assert_eq!(parts, Parts { transfer_minor, connected_minor }, "{tokens}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let because = |reason: Exclusion| Some(Standing { reason: Some(reason.as_str().to_owned()), ..standing() });
        let nothing = Standing { payable_minor: 0, transfer_minor: 0, reason: Some("held".to_owned()), ..standing() };
        for (tokens, standing, code, kind) in [
            (1, None, "NO_ACCOUNT", Kind::Conflict),
            (1, because(Exclusion::PayoutsDisabled), "PAYOUTS_DISABLED", Kind::Conflict),
            (1, because(Exclusion::NotInBeta), "NOT_IN_BETA", Kind::Conflict),
            (1, because(Exclusion::AccountNotReady), "ACCOUNT_NOT_READY", Kind::Conflict),
            (1, because(Exclusion::Blocked), "BLOCKED", Kind::Conflict),
            (1, because(Exclusion::DestinationCooloff), "DESTINATION_COOLOFF", Kind::Conflict),
            (2_001, Some(standing()), "INSUFFICIENT_BALANCE", Kind::Invalid),
            (1_000, Some(nothing), "INSUFFICIENT_BALANCE", Kind::Invalid),
            (222, Some(standing()), "BELOW_MINIMUM", Kind::Invalid),
            (1, Some(standing()), "BELOW_MINIMUM", Kind::Invalid),
        ] {
            let error = decide(&asked(tokens), standing.as_ref()).expect_err("refused");
            assert_eq!((error.code, error.kind), (code, kind), "{tokens}");
        }
        let policy = crate::http::testing::policy();
        for tokens in [0, -1, i64::MIN, i64::MAX] {
            let error = Withdrawal::new(Uuid::nil(), tokens, &policy).expect_err("refused");
            assert_eq!(error.details[0].field, "tokenAmount", "{tokens}");
        }
    }
}
