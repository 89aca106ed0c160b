//! One machine as AWS: runs what `template.yaml` describes with the very binaries that deploy.
//!
//! In reading order: `cli` and `command` are what a person types, `control` reaches a running payday; `stack` puts everything
//! together and `template` says what there is; `lambda_host`, `queues`, `scheduler`, `front` and `secrets` play the services,
//! `stripe_double` plays Stripe, `post_office` people's letter boxes, `postgres` is the database; `activity`, `identity`, `reaper`, `cron` and `console` are what
//! these stand on.

pub mod cli;
pub mod command;
pub mod control;

pub mod bench;
pub mod job;
pub mod stack;

pub mod template;

pub mod front;
pub mod lambda_host;
pub mod post_office;
pub mod queues;
pub mod samples;
pub mod scheduler;
pub mod secrets;
pub mod stripe_double;

pub mod postgres;

pub mod activity;
pub mod console;
pub mod cron;
pub mod identity;
pub mod reaper;
