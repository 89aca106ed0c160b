//! What handlers work with; made once at start, cheap to clone.

use std::sync::Arc;

use axum::extract::FromRef;

use super::auth::Auth;
use crate::config::{self, Policy, Withdrawals};
use crate::db::Db;
use crate::error::Result;
use crate::queue::Queue;
use crate::rails::stripe::Stripe;
use crate::schedule::Scheduler;

#[derive(Clone)]
pub struct AppState {
    pub db: Db,
    pub policy: Arc<Policy>,
    pub withdrawals: Withdrawals,
    pub auth: Auth,
    pub queues: Queues,
    pub scheduler: Scheduler,
    /// How people are connected to Stripe; none: elsewhere.
    pub connect: Option<Connect>,
    /// Where Stripe is, without `/v1`, to ask whether it can be reached: this process has no key that moves money.
    pub stripe_api_base: Arc<str>,
    /// A run that has been running for longer is stuck.
    pub stuck_run_minutes: i64,
    /// Above so many hundredths of a unit two operators decide; 0: never.
    pub two_person_above_cents: i64,
}

/// Stripe under a key that creates accounts and moves no money.
#[derive(Clone)]
pub struct Connect {
    pub stripe: Stripe,
    /// The platform's own country, two capital letters.
    pub platform_country: Arc<str>,
    /// Where Stripe sends people back to, without a slash at the end.
    pub frontend: Arc<str>,
}

impl Connect {
    pub fn new(config: &config::Connect) -> Result<Self> {
        Ok(Self {
            stripe: Stripe::new(&config.stripe)?,
            platform_country: config.platform_country.as_str().into(),
            frontend: config.frontend.as_str().into(),
        })
    }
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
