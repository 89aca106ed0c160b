//! End to end: the real function binaries under the local runtime, on real Postgres, against the Stripe double. Every test has
//! its own database and its own stack, and ends by auditing the world.

#[path = "end_to_end/abuse.rs"]
mod abuse;
#[path = "end_to_end/controls.rs"]
mod controls;
#[path = "end_to_end/database.rs"]
mod database;
#[path = "end_to_end/docs.rs"]
mod docs;
#[path = "end_to_end/hints.rs"]
mod hints;
#[path = "end_to_end/histories.rs"]
mod histories;
#[path = "end_to_end/http.rs"]
mod http;
#[path = "end_to_end/job.rs"]
mod job;
#[path = "end_to_end/killed.rs"]
mod killed;
#[path = "end_to_end/messages.rs"]
mod messages;
#[path = "end_to_end/operators.rs"]
mod operators;
#[path = "end_to_end/reconciliation.rs"]
mod reconciliation;
#[path = "end_to_end/smoke.rs"]
mod smoke;
#[path = "end_to_end/stripe.rs"]
mod stripe;
#[path = "end_to_end/tokens.rs"]
mod tokens;
#[path = "end_to_end/webhooks.rs"]
mod webhooks;
#[path = "end_to_end/withdrawals.rs"]
mod withdrawals;
