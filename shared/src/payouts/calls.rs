//! A worker's calls to Stripe and the orders it hears while it makes them: pause, kill switch, halted batch, lost lease.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::plan::{Answer, Call, CallKind, Lookup, Said};
use super::settle;
use super::store::chunks;
use crate::boundary::Boundary;
use crate::clock;
use crate::db::Db;
use crate::error::{Error, Kind};
use crate::id::{ChunkId, ItemId};
use crate::rails::stripe::{Marks, Stripe};
use crate::rails::{Leg, Outcome, Reply};

/// How often a worker prolongs its lease and asks whether to stop: well within the second that a kill switch may take.
const PULSE: Duration = Duration::from_millis(400);
pub(super) const LEASE_SECONDS: i32 = 5;
/// Without a pulse for so long, the lease may be another's.
pub(super) const LEASE_DOUBT: Duration = Duration::from_secs(4);

/// What a worker is told while it works.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) stop: AtomicBool,
    /// A rate budget is slowed, so that slots are asked for even when rates are unlimited.
    pub(super) slowed: AtomicBool,
    /// When the lease was last known to be ours.
    pub(super) confirmed_at: Mutex<Option<Instant>>,
    pub(super) done: Notify,
}

impl Orders {
    /// Whether nothing may be sent any more: told so, or the lease may be another's by now.
    pub(super) fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.confirmed().is_some_and(|at| at.elapsed() > LEASE_DOUBT)
    }

    fn confirmed(&self) -> Option<Instant> {
        *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn confirm(&self) {
        *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::monotonic());
    }
}

/// Keeps the lease and the orders current until the work is done.
pub(super) async fn pulse(db: &Db, chunk: ChunkId, lease: Uuid, orders: &Orders) {
    while tokio::time::timeout(PULSE, orders.done.notified()).await.is_err() {
        let beat = async {
            let mut tx = db.begin().await?;
            let pulse = chunks::pulse(&mut tx, chunk, lease, LEASE_SECONDS).await?;
            tx.commit(Boundary::ProlongLease).await?;
            Ok::<_, Error>(pulse)
        };
        match beat.await {
            Ok(Some(pulse)) => {
                orders.confirm();
                orders.stop.fetch_or(pulse.stopped, Ordering::Relaxed);
                orders.slowed.store(pulse.slowed, Ordering::Relaxed);
            }
            Ok(None) => orders.stop.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!(chunk = chunk.0, error = %error, "lease not prolonged"),
        }
    }
}

/// Makes one call: waits for its slot and a free place, looks at the orders and the deadline, and only then sends.
pub(super) async fn make(call: Call, stripe: &Stripe, permits: &Semaphore, orders: &Orders) -> (ItemId, Answer) {
    let marks = Marks { operation: &call.operation_mark, item: &call.item_mark };
    match call.kind {
        CallKind::Send { asked, key, body, in_doubt, wait, deadline } => {
            wait_unless(wait, orders).await;
            let permit = permits.acquire().await;
            let late = clock::now() >= deadline;
            if orders.must_stop() || late || permit.is_err() {
                return (call.item, Answer { of: call.send, said: Said::Reply(settle::not_sent(in_doubt)) });
            }
            let reply = stripe.send(&asked, &key, &body, in_doubt).await;
            log(&call.operation_mark, &reply);
            // What halts the batch stops the next send at once, not when this answer has been gathered and saved.
            if settle::halts(&reply) {
                orders.stop.store(true, Ordering::Relaxed);
            }
            (call.item, Answer { of: call.send, said: Said::Reply(reply) })
        }
        CallKind::LookUp { since } => {
            let _permit = permits.acquire().await;
            let found = match call.send.leg {
                Leg::Transfer => stripe.find_transfer(&marks).await,
                Leg::Payout => stripe.find_payout(&call.account, &marks, since).await,
            };
            let lookup = match found {
                Ok(Some(found)) => Lookup::Found(found),
                Ok(None) => Lookup::Nothing,
                Err(error) => {
                    tracing::warn!(operation = call.operation_mark, error = %error, "lookup not answered");
                    if error.kind == Kind::NotFound { Lookup::NoAccount } else { Lookup::Unanswered }
                }
            };
            (call.item, Answer { of: call.send, said: Said::Lookup(lookup) })
        }
    }
}

fn log(operation: &str, reply: &Reply) {
    match &reply.outcome {
        Outcome::Accepted(accepted) => tracing::info!(operation, stripe_id = accepted.stripe_id, "accepted"),
        outcome @ (Outcome::Rejected(_) | Outcome::NotRun(_) | Outcome::Unknown { .. }) => {
            tracing::warn!(operation, outcome = ?outcome, code = reply.code, request_id = reply.request_id, "not accepted");
        }
        outcome @ Outcome::Frozen { .. } => {
            tracing::error!(operation, outcome = ?outcome, request_id = reply.request_id, "frozen");
        }
    }
}

/// Waits for a slot, and not a moment longer than the order to stop.
async fn wait_unless(wait: Duration, orders: &Orders) {
    let until = tokio::time::Instant::now() + wait;
    while !orders.must_stop() && tokio::time::Instant::now() < until {
        let step = tokio::time::Instant::now() + PULSE;
        tokio::time::sleep_until(until.min(step)).await;
    }
}
