//! What handlers work with; made once at start, cheap to clone.

use std::sync::Arc;

use axum::extract::FromRef;

use super::auth::Auth;
use crate::config::{Policy, Withdrawals};
use crate::db::Db;
use crate::queue::Queue;
use crate::schedule::Scheduler;

#[derive(Clone)]
pub struct AppState {
    pub db: Db,
    pub policy: Arc<Policy>,
    pub withdrawals: Withdrawals,
    pub auth: Auth,
    pub queues: Queues,
    pub scheduler: Scheduler,
    /// Where Stripe is, without `/v1`; only asked whether it can be reached, for this process has no key.
    pub stripe_api_base: Arc<str>,
    /// A run that has been running for longer is stuck.
    pub stuck_run_minutes: i64,
}

/// The three queues.
#[derive(Clone)]
pub struct Queues {
    pub create_batch: Queue,
    pub process_chunk: Queue,
    pub notification: Queue,
}

impl FromRef<AppState> for Auth {
    fn from_ref(state: &AppState) -> Self {
        state.auth.clone()
    }
}
