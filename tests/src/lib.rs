//! What the tests stand on: a database of its own for each test, creators with money in it, a Stripe double to pay from, and
//! all of it together as it runs.

pub mod database;
pub mod stage;
pub mod world;

pub mod system;

pub mod audit;
pub mod gate;
pub mod http;
pub mod pooler;
pub mod proxy;
pub mod queues;
pub mod schedules;
