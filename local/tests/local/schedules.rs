//! Schedules: when they fire, what they say, and what happens when their function fails.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use payday_local::scheduler::FireError;
use serde_json::json;

use crate::{World, until};

fn at() -> DateTime<Utc> {
    "2026-11-15T06:00:00Z".parse().expect("an instant")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_its_function_with_the_scheduled_time() {
    let world = World::start().await;
    assert_eq!(world.stack.fire("hourly", at()).await, Ok(json!({ "scheduledTime": "2026-11-15T06:00:00Z" })));
    let unknown = world.stack.fire("never", at()).await.expect_err("unknown");
    assert_eq!(unknown.to_string(), "there is no schedule never; there are failing, hourly");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_pauses_a_schedule_without_losing_anything_of_it() {
    let world = World::start().await;
    let order = |act: &str| json!({ "act": act, "schedule": "hourly", "group": "test" });
    let paused = world.stack.invoke("actor", order("pause")).await.expect("paused");
    let expected = |state: &str| json!({ "state": state, "timezone": "UTC", "input": "{\"scheduledTime\":\"<aws.scheduler.scheduled-time>\"}", "retries": 7, "listed": 2 });
    assert_eq!(paused, expected("DISABLED"));
    assert_eq!(world.stack.fire("hourly", at()).await, Err(FireError::Disabled("hourly".to_owned())));
    let resumed = world.stack.invoke("actor", order("resume")).await.expect("resumed");
    assert_eq!(resumed, expected("ENABLED"));
    assert!(world.stack.fire("hourly", at()).await.is_ok());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_its_function_fails_is_repeated_and_then_a_dead_letter() {
    let world = World::with(|options| options.retry_after = Some(Duration::ZERO)).await;
    let failed = world.stack.fire("failing", at()).await.expect_err("failed");
    assert!(matches!(failed, FireError::Failed(_)), "{failed}");
    world.idle().await;
    assert_eq!(world.stack.lambda.counters()["actor"].errors, 2, "once, and again once");
    let letters = world.stack.queues.bodies("Letters").expect("a queue");
    assert_eq!(letters.len(), 1);
    let letter: serde_json::Value = serde_json::from_str(&letters[0]).expect("json");
    assert_eq!(letter["requestPayload"], json!({ "act": "fail" }));
    assert_eq!(letter["requestContext"]["approximateInvokeCount"], 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_schedule_fires_by_itself_and_is_gone() {
    let world = World::with(|options| options.autofire = true).await;
    let path = world.folder.path().join("done");
    let when = (Utc::now() + TimeDelta::seconds(2)).format("%Y-%m-%dT%H:%M:%S").to_string();
    let order = json!({
        "act": "schedule-once",
        "schedule": "once",
        "group": "test",
        "at": when,
        "target": "arn:aws:lambda:us-east-1:123456789012:function:actor",
        "input": json!({ "act": "write", "path": path, "line": "<aws.scheduler.scheduled-time>" }).to_string(),
    });
    assert_eq!(world.stack.invoke("actor", order).await, Ok(json!("created")));
    let names = || world.stack.scheduler.schedules().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(), ["failing", "hourly", "once"]);
    until("the schedule fires and goes", || names() == ["failing", "hourly"]).await;
    assert_eq!(std::fs::read_to_string(path).expect("written"), format!("{when}Z\n"));
    world.end().await;
}
