//! The SQL of payouts: [`preview`] looks ahead to them, [`batches`] makes them, [`chunks`] pays them, [`jobs`] keeps them going,
//! [`resume`] pays what somebody missed, [`controls`] stops them, [`by_hand`] is for what operators decide, [`checks`] asks whether
//! they add up, [`reports`] and [`kpis`] tell operators of them, [`creators`] and [`statements`] the creators.

pub mod batches;
pub mod by_hand;
pub mod checks;
pub mod chunks;
pub mod controls;
pub mod creators;
pub mod cycle_report;
pub mod jobs;
pub mod kpis;
pub mod preview;
pub mod reports;
pub mod resume;
pub mod statements;
