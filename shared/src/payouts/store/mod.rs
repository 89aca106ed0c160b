//! The SQL of payouts: [`batches`] makes them, [`chunks`] pays them, [`jobs`] keeps them going, [`checks`] asks
//! whether they add up, [`reports`] tells of them.

pub mod batches;
pub mod checks;
pub mod chunks;
pub mod cycle_report;
pub mod jobs;
pub mod reports;
