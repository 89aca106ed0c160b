//! The double's own rules, each against the page of Stripe's documentation it comes from. Time stands
//! still unless a test moves it.

#[path = "stripe_double/harness.rs"]
mod harness;

#[path = "stripe_double/idempotency.rs"]
mod idempotency;

#[path = "stripe_double/transfers.rs"]
mod transfers;

#[path = "stripe_double/payouts.rs"]
mod payouts;

#[path = "stripe_double/charges.rs"]
mod charges;

#[path = "stripe_double/access.rs"]
mod access;

#[path = "stripe_double/faults.rs"]
mod faults;

#[path = "stripe_double/webhooks.rs"]
mod webhooks;
