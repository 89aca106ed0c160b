//! The SQL of payouts: [`batches`] makes them, [`chunks`] pays them, [`jobs`] keeps them going, [`checks`] asks
//! whether they add up, [`reports`] and [`kpis`] tell operators of them, [`creators`] and [`statements`] the creators.

pub mod batches;
pub mod checks;
pub mod chunks;
pub mod creators;
pub mod cycle_report;
pub mod jobs;
pub mod kpis;
pub mod reports;
pub mod resume;
pub mod statements;
