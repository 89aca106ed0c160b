//! Payday pays people on time and never twice: the library behind every function, in reading order.

/// The only clock, and the calendar of cycles.
pub mod clock;
/// One error type that knows nothing of HTTP.
pub mod error;
/// Identifiers, and the keys that make sending again safe.
pub mod id;
/// Amounts: micros, minor units, currencies and Stripe's rules for them.
pub mod money;

/// Who did what to what: append-only and chained by hashes.
pub mod audit;
/// What creators earn: recorded once, held, matured, taken back.
pub mod earnings;
/// Double entry.
pub mod ledger;
/// The outbox: messages to people, waiting.
pub mod notifications;
/// Who is paid, and their connected accounts as Stripe describes them.
pub mod payees;
/// The engine: cycles, batches, items, operations.
pub mod payouts;
/// Webhooks: stored once, applied in any order.
pub mod stripe_events;
/// Money that creators ask for on demand: reserved at once, paid by the engine.
pub mod withdrawals;

/// Stripe's transfers and payouts against ours, both ways, every day.
pub mod reconciliation;

/// What people are told, and its way to them by Slack and email.
pub mod messages;

/// The ways money travels, and what their answers mean. Never sees the database.
pub mod rails;

/// What routes stand on; knows no domain.
pub mod http;
/// Every scheduled job by name: the top of the library for the clock.
pub mod jobs;
/// Every route of every domain: the top of the library for HTTP.
pub mod router;

/// Names for the points where the engine touches the world, which fault tests strike at.
pub mod boundary;

/// How AWS is reached.
pub mod aws;
/// Settings and secrets: the only reader of the environment.
pub mod config;
/// The one door to the database.
pub mod db;
/// An HTTP client that is exact about how far a request got.
pub mod http_client;
/// The queues between the functions, and their messages.
pub mod queue;
/// Whether EventBridge Scheduler's schedules are armed.
pub mod schedule;
/// Logs and metrics.
pub mod telemetry;
