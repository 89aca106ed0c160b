//! EventBridge Scheduler: whether the schedules that should fire are there and switched on, switching them, and schedules that
//! fire once.
//!
//! Whether payouts are paused is Postgres' to say, and the Scheduler's state mirrors it (`payouts::controls`).

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_scheduler::Client;
use aws_sdk_scheduler::error::SdkError;
use aws_sdk_scheduler::operation::get_schedule::GetScheduleOutput;
use aws_sdk_scheduler::types::{ActionAfterCompletion, FlexibleTimeWindow, FlexibleTimeWindowMode, ScheduleState, Target};
use chrono::{DateTime, Utc};

use crate::boundary::{Boundary, cross};
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

fn unavailable<E, R>(error: SdkError<E, R>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    Error::unavailable("SCHEDULER_UNAVAILABLE", "The scheduler does not answer; try again in a moment.").with_source(error)
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
            let list = self.client.list_schedules().group_name(&self.group).max_results(100).set_next_token(next);
            let page = list.send().await.map_err(unavailable)?;
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

    /// Switches a schedule on or off. The Scheduler takes an update for the whole schedule, so all else is sent again as it is.
    /// A schedule that is not there is refused by name.
    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    pub async fn switch(&self, name: &str, on: bool) -> Result<()> {
        let state = if on { ScheduleState::Enabled } else { ScheduleState::Disabled };
        let whole = self.read(name).await?;
        if whole.state() == Some(&state) {
            return Ok(());
        }
        let update = self
            .client
            .update_schedule()
            .name(name)
            .group_name(&self.group)
            .state(state)
            .set_schedule_expression(whole.schedule_expression)
            .set_schedule_expression_timezone(whole.schedule_expression_timezone)
            .set_start_date(whole.start_date)
            .set_end_date(whole.end_date)
            .set_description(whole.description)
            .set_kms_key_arn(whole.kms_key_arn)
            .set_target(whole.target)
            .set_flexible_time_window(whole.flexible_time_window)
            .set_action_after_completion(whole.action_after_completion);
        cross(Boundary::ChangeSchedule, || {
            let update = update.clone();
            async { update.send().await.map(|_| ()).map_err(unavailable) }
        })
        .await
    }

    /// Makes a schedule that fires once, starts what the schedule `like` starts, with another input, and is gone then. One that
    /// is there under that name already is left as it is: `false`.
    #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
    pub async fn once(&self, name: &str, at: DateTime<Utc>, like: &str, input: &serde_json::Value) -> Result<bool> {
        let target = self.read(like).await?.target;
        let target: Target = target.ok_or_else(|| Error::internal(format!("The schedule {like} has no target.")))?;
        let target = target_with(target, input.to_string())?;
        let window = FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off).build();
        let window = window.map_err(|error| Error::internal("A window cannot be written.").with_source(error))?;
        let create = self
            .client
            .create_schedule()
            .name(name)
            .group_name(&self.group)
            .schedule_expression(format!("at({})", at.format("%Y-%m-%dT%H:%M:%S")))
            .schedule_expression_timezone("UTC")
            .flexible_time_window(window)
            .action_after_completion(ActionAfterCompletion::Delete)
            .target(target);
        cross(Boundary::ChangeSchedule, || {
            let create = create.clone();
            async {
                match create.send().await {
                    Ok(_) => Ok(true),
                    Err(error) if error.as_service_error().is_some_and(|error| error.is_conflict_exception()) => Ok(false),
                    Err(error) => Err(unavailable(error)),
                }
            }
        })
        .await
    }

    async fn read(&self, name: &str) -> Result<GetScheduleOutput> {
        let read = self.client.get_schedule().name(name).group_name(&self.group).send().await;
        read.map_err(|error| match error.as_service_error() {
            Some(known) if known.is_resource_not_found_exception() => {
                Error::conflict("NO_SUCH_SCHEDULE", format!("EventBridge Scheduler has no schedule {name} in {}.", self.group))
            }
            _ => unavailable(error),
        })
    }
}

/// The same target, started with another input.
fn target_with(target: Target, input: String) -> Result<Target> {
    Target::builder()
        .arn(target.arn)
        .role_arn(target.role_arn)
        .set_dead_letter_config(target.dead_letter_config)
        .set_retry_policy(target.retry_policy)
        .input(input)
        .build()
        .map_err(|error| Error::internal("A schedule's target cannot be written.").with_source(error))
}
