//! A function for the tests of the local runtime: does what its event asks for, well or badly.
//!
//! It is a test of this very binary, started by the scripts that `main.rs` puts in place of the functions' binaries, because
//! cargo builds an example or a second binary only for some ways of running the tests.

use std::time::Duration;

use aws_smithy_http_client::Builder;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "not a test of its own"]
async fn acts_as_a_function() -> Result<(), Error> {
    if std::env::var("FAIL_INIT").is_ok_and(|fail| fail == "true") {
        return Err("the init of this function fails".into());
    }
    lambda_runtime::run(service_fn(handle)).await
}

/// An SQS event does what its messages say; an HTTP event, what its body says; anything else, what it says itself.
async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let payload = event.payload;
    if let Some(records) = payload.get("Records").and_then(Value::as_array) {
        let mut failures = Vec::new();
        for record in records {
            let body: Value = serde_json::from_str(record["body"].as_str().unwrap_or("null")).unwrap_or_default();
            if act(&body).await? == "item failed" {
                failures.push(json!({ "itemIdentifier": record["messageId"] }));
            }
        }
        return Ok(json!({ "batchItemFailures": failures }));
    }
    if payload.get("requestContext").is_some() {
        let body: Value = serde_json::from_str(payload["body"].as_str().unwrap_or("null")).unwrap_or_default();
        let done = if body["act"].is_string() { act(&body).await? } else { Value::Null };
        return Ok(match done {
            Value::Null => {
                json!({ "statusCode": 200, "headers": { "content-type": "application/json" }, "cookies": ["seen=1"], "body": payload.to_string() })
            }
            done => done,
        });
    }
    act(&payload).await
}

async fn act(order: &Value) -> Result<Value, Error> {
    let text = |key: &str| order[key].as_str().unwrap_or_default().to_owned();
    match text("act").as_str() {
        "fail" => Err("told to fail".into()),
        "crash" => std::process::abort(),
        "exit" => std::process::exit(3),
        "hang" => std::future::pending().await,
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(order["ms"].as_u64().unwrap_or(0))).await;
            Ok(json!("slept"))
        }
        "large" => Ok(json!("x".repeat(usize::try_from(order["bytes"].as_u64().unwrap_or(0))?))),
        "answer" => Ok(order["with"].clone()),
        "fail-item" => Ok(json!("item failed")),
        "pid" => Ok(json!(std::process::id())),
        "environment" => Ok(std::env::vars().map(|(name, value)| (name, json!(value))).collect::<serde_json::Map<_, _>>().into()),
        kind @ ("write" | "write-and-hang") => {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(text("path"))?;
            // In one piece: two functions may write at once.
            file.write_all(format!("{}\n", text("line")).as_bytes())?;
            if kind == "write-and-hang" {
                std::future::pending::<()>().await;
            }
            Ok(json!("written"))
        }
        "send" => {
            let client = aws_sdk_sqs::Client::new(&aws().await);
            let sent = client.send_message().queue_url(text("queue_url")).message_body(text("body")).send().await;
            Ok(match sent {
                Ok(sent) => json!(sent.message_id()),
                Err(error) => json!({ "error": error.into_service_error().meta().code() }),
            })
        }
        "send-batch" => {
            let client = aws_sdk_sqs::Client::new(&aws().await);
            let mut request = client.send_message_batch().queue_url(text("queue_url"));
            for number in 0..order["count"].as_u64().unwrap_or(1) {
                let entry = aws_sdk_sqs::types::SendMessageBatchRequestEntry::builder();
                request = request.entries(entry.id(number.to_string()).message_body(text("body")).build()?);
            }
            Ok(match request.send().await {
                Ok(sent) => json!(sent.successful().len()),
                Err(error) => json!({ "error": error.into_service_error().meta().code() }),
            })
        }
        "pause" => pause(&text("schedule"), &text("group"), aws_sdk_scheduler::types::ScheduleState::Disabled).await,
        "resume" => pause(&text("schedule"), &text("group"), aws_sdk_scheduler::types::ScheduleState::Enabled).await,
        "schedule-once" => {
            use aws_sdk_scheduler::types::{ActionAfterCompletion, FlexibleTimeWindow, FlexibleTimeWindowMode, Target};
            let client = aws_sdk_scheduler::Client::new(&aws().await);
            let target =
                Target::builder().arn(text("target")).role_arn("arn:aws:iam::123456789012:role/any").input(text("input"));
            client
                .create_schedule()
                .name(text("schedule"))
                .group_name(text("group"))
                .schedule_expression(format!("at({})", text("at")))
                .flexible_time_window(FlexibleTimeWindow::builder().mode(FlexibleTimeWindowMode::Off).build()?)
                .action_after_completion(ActionAfterCompletion::Delete)
                .target(target.build()?)
                .send()
                .await?;
            Ok(json!("created"))
        }
        "secret" => secret(&std::env::var(text("variable"))?).await,
        _ => Ok(order.clone()),
    }
}

/// Reads the schedule and writes all of it back with another state, as one must.
async fn pause(schedule: &str, group: &str, state: aws_sdk_scheduler::types::ScheduleState) -> Result<Value, Error> {
    let client = aws_sdk_scheduler::Client::new(&aws().await);
    let found = client.get_schedule().name(schedule).group_name(group).send().await?;
    client
        .update_schedule()
        .name(schedule)
        .group_name(group)
        .set_schedule_expression(found.schedule_expression)
        .set_schedule_expression_timezone(found.schedule_expression_timezone)
        .set_flexible_time_window(found.flexible_time_window)
        .set_target(found.target)
        .state(state)
        .send()
        .await?;
    let found = client.get_schedule().name(schedule).group_name(group).send().await?;
    let listed = client.list_schedules().group_name(group).send().await?;
    let target = found.target.ok_or("no target")?;
    Ok(json!({
        "state": found.state.map(|state| state.as_str().to_owned()),
        "timezone": found.schedule_expression_timezone,
        "input": target.input,
        "retries": target.retry_policy.and_then(|policy| policy.maximum_retry_attempts),
        "listed": listed.schedules().len(),
    }))
}

async fn aws() -> aws_config::SdkConfig {
    let http = Builder::new().build_http();
    aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http).load().await
}

async fn secret(arn: &str) -> Result<Value, Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let port = std::env::var("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT")?;
    let token = std::env::var("AWS_SESSION_TOKEN")?;
    let mut stream = tokio::net::TcpStream::connect(format!("localhost:{port}")).await?;
    let request = format!(
        "GET /secretsmanager/get?secretId={arn} HTTP/1.1\r\nHost: localhost\r\nX-Aws-Parameters-Secrets-Token: {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok(serde_json::from_str(body)?)
}
