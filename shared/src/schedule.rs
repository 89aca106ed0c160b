//! Asks EventBridge Scheduler whether the schedules that should fire are there and switched on.
//!
//! Only reads: whether payouts are paused is Postgres' to say, and the Scheduler's state mirrors it.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_scheduler::Client;
use aws_sdk_scheduler::types::ScheduleState;

use crate::error::{Error, Result};

/// What the Scheduler knows of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arming {
    Enabled,
    Disabled,
    Missing,
}

/// A client for one schedule group; cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    client: Client,
    group: String,
}

impl Scheduler {
    pub fn new(aws: &SdkConfig, group: String) -> Self {
        Self { client: Client::new(aws), group }
    }

    /// The state of each named schedule of the group, in one request per hundred schedules that it holds.
    pub async fn armed<'n>(&self, names: &[&'n str]) -> Result<BTreeMap<&'n str, Arming>> {
        let mut arming: BTreeMap<&'n str, Arming> = names.iter().map(|name| (*name, Arming::Missing)).collect();
        let mut next = None;
        loop {
            let page =
                self.client.list_schedules().group_name(&self.group).max_results(100).set_next_token(next).send().await.map_err(
                    |error| {
                        Error::unavailable("SCHEDULER_UNAVAILABLE", "The scheduler does not answer; try again in a moment.")
                            .with_source(error.into_service_error())
                    },
                )?;
            for schedule in page.schedules() {
                if let Some(state) = schedule.name().and_then(|name| arming.get_mut(name)) {
                    *state = if schedule.state() == Some(&ScheduleState::Enabled) { Arming::Enabled } else { Arming::Disabled };
                }
            }
            next = page.next_token;
            if next.is_none() {
                return Ok(arming);
            }
        }
    }
}
