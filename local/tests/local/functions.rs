//! The Lambda hosts with real processes: cold starts, timeouts, crashes, concurrency.

use std::time::Duration;

use payday_local::lambda_host::InvokeFailure;
use payday_local::stack::{Stack, StackError};
use serde_json::json;

use crate::{PATIENCE, World, is_alive, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_answered_by_a_process_that_serves_the_next_one_too() {
    let world = World::start().await;
    assert_eq!(world.stack.invoke("actor", json!({ "hello": "you" })).await, Ok(json!({ "hello": "you" })));
    let first = world.stack.invoke("actor", json!({ "act": "pid" })).await.expect("a pid");
    let second = world.stack.invoke("actor", json!({ "act": "pid" })).await.expect("a pid");
    assert_eq!(first, second);

    let counters = &world.stack.lambda.counters()["actor"];
    assert_eq!((counters.invocations, counters.errors, counters.inits.len()), (3, 0, 1));
    assert!(counters.inits[0] > Duration::ZERO);
    assert!(counters.max_rss_kb > 0 || !cfg!(target_os = "linux"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_sees_what_the_template_gives_it_and_nothing_else() {
    let world = World::with(|options| {
        options.environment =
            [("ZONE", "Mars"), ("NOT_IN_TEMPLATE", "x")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    let environment = world.stack.invoke("actor", json!({ "act": "environment" })).await.expect("an environment");
    assert_eq!(environment["COMMON"], "test in us-east-1");
    assert_eq!(environment["ZONE"], "Mars");
    assert_eq!(environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "256");
    assert_eq!(environment["WORK_URL"], format!("{}/123456789012/Work", world.stack.sqs_url));
    for absent in ["NOT_IN_TEMPLATE", "CARGO_MANIFEST_DIR", "OPEN_SECRET"] {
        assert!(environment.get(absent).is_none(), "{absent}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_a_crash_and_a_timeout_are_told_apart_and_the_next_event_is_served() {
    let world = World::start().await;
    let failure = |error: payday_local::lambda_host::InvokeError| error.kind;
    let invoke = |event| world.stack.invoke("actor", event);

    let failed = failure(invoke(json!({ "act": "fail" })).await.expect_err("a failure"));
    assert!(matches!(&failed, InvokeFailure::FunctionError { message, .. } if message == "told to fail"), "{failed:?}");
    let begun = std::time::Instant::now();
    let crashed = failure(invoke(json!({ "act": "crash" })).await.expect_err("a crash"));
    assert_eq!(crashed, InvokeFailure::Crashed("was ended by SIGABRT".to_owned()));
    let exited = failure(invoke(json!({ "act": "exit" })).await.expect_err("an exit"));
    assert_eq!(exited, InvokeFailure::Crashed("exited with 3".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(3), "a crash is seen before the timeout");

    let pid =
        invoke(json!({ "act": "pid" })).await.expect("a pid").as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    let hung = failure(invoke(json!({ "act": "hang" })).await.expect_err("a timeout"));
    assert_eq!(hung, InvokeFailure::Timeout(Duration::from_secs(3)));
    assert!(!is_alive(pid), "the timeout kills");
    assert_eq!(invoke(json!(7)).await, Ok(json!(7)));

    let unknown = world.stack.invoke("nobody", json!({})).await.expect_err("no such function");
    assert_eq!(unknown.to_string(), "function nobody does not exist in the template");
    let counters = &world.stack.lambda.counters()["actor"];
    assert_eq!((counters.errors, counters.crashes, counters.timeouts), (1, 2, 1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_killed_in_the_middle_has_crashed_and_one_killed_while_idle_is_replaced() {
    let world = World::start().await;
    let stack = &world.stack;
    stack.invoke("actor", json!(1)).await.expect("an answer");
    let idle = stack.kill("actor");
    assert_eq!(idle.len(), 1);
    assert_eq!(stack.invoke("actor", json!(2)).await, Ok(json!(2)));

    let mark = world.folder.path().join("mark");
    let busy = stack.invoke("actor", json!({ "act": "write-and-hang", "path": mark, "line": "begun" }));
    let kill = async {
        until("the function is busy", || mark.exists()).await;
        stack.kill("actor")
    };
    let (crashed, killed) = tokio::join!(busy, kill);
    assert_eq!(killed.len(), 1);
    assert_eq!(crashed.expect_err("no answer").kind, InvokeFailure::Crashed("was ended by SIGKILL".to_owned()));
    assert_eq!(stack.invoke("actor", json!(3)).await, Ok(json!(3)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_function_answers_after_it_is_thawed() {
    let world = World::start().await;
    world.stack.invoke("actor", json!(1)).await.expect("an answer");
    world.stack.lambda.freeze("actor");
    let answer = world.stack.invoke("actor", json!(2));
    let mut answer = Box::pin(answer);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut answer).await.is_err(), "a frozen process does nothing");
    world.stack.lambda.thaw("actor");
    assert_eq!(answer.as_mut().await, Ok(json!(2)));
    drop(answer);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_six_megabytes_fails_the_function() {
    let world = World::start().await;
    let failed =
        world.stack.invoke("actor", json!({ "act": "large", "bytes": 6 * 1024 * 1024 + 1 })).await.expect_err("too large");
    assert!(failed.to_string().contains("Function.ResponseSizeTooLarge"), "{failed}");
    let answer = world.stack.invoke("actor", json!({ "act": "large", "bytes": 5_000_000 })).await.expect("fits");
    assert_eq!(answer.as_str().map(str::len), Some(5_000_000));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_whose_init_fails_says_so() {
    let world = World::with(|options| {
        options.parameters.insert("FailInit".to_owned(), "true".to_owned());
    })
    .await;
    let failed = world.stack.invoke("actor", json!(1)).await.expect_err("no init");
    assert!(failed.to_string().contains("exited with 101"), "{failed}");
    assert!(failed.to_string().contains("actor.log"), "{failed}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_given_to_the_function_whose_role_may_read_it() {
    let world = World::start().await;
    let open = world.stack.invoke("actor", json!({ "act": "secret", "variable": "OPEN_SECRET_ARN" })).await.expect("an answer");
    assert_eq!(open["SecretString"], "sesame");
    let hidden =
        world.stack.invoke("actor", json!({ "act": "secret", "variable": "HIDDEN_SECRET_ARN" })).await.expect("an answer");
    assert!(hidden["message"].as_str().is_some_and(|message| message.contains("AccessDenied")), "{hidden}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_a_shutdown_not_even_of_a_busy_or_frozen_function() {
    let world = World::start().await;
    world.stack.invoke("actor", json!(1)).await.expect("an answer");
    world.stack.lambda.freeze("actor");
    let pids = world.stack.lambda.pids("actor");
    assert!(!pids.is_empty());
    let url = world.stack.http_url.replace("http://", "");
    world.end().await;
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(tokio::net::TcpStream::connect(url).await.is_err(), "the port is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_dropped_takes_its_functions_along() {
    let world = World::start().await;
    world.stack.invoke("actor", json!(1)).await.expect("an answer");
    let pids = world.stack.lambda.pids("actor");
    drop(world);
    until("the processes end", || pids.iter().all(|pid| !is_alive(*pid))).await;
}

/// Started by the test below as a process of its own, which is then killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test of its own"]
async fn helper_that_runs_a_function_until_it_is_killed() {
    let world = World::start().await;
    world.stack.invoke("actor", json!(1)).await.expect("an answer");
    world.stack.lambda.freeze("actor");
    let report = std::env::var("REPORT").expect("the path for the report");
    std::fs::write(report, world.stack.lambda.pids("actor")[0].to_string()).expect("a report");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_killed_takes_its_functions_along_even_frozen_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report");
    let mut runtime = tokio::process::Command::new(std::env::current_exe().expect("the test knows its own path"))
        .args(["--ignored", "--exact", "functions::helper_that_runs_a_function_until_it_is_killed"])
        .env("REPORT", &report)
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a process");
    let pid = || std::fs::read_to_string(&report).ok().and_then(|pid| pid.parse::<u32>().ok());
    until("the function runs", || pid().is_some()).await;
    let pid = pid().expect("a pid");
    assert!(is_alive(pid));
    runtime.kill().await.expect("killed");
    until("the function ends", || !is_alive(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stacks_do_not_share_a_folder_and_a_missing_binary_is_named() {
    let world = World::start().await;
    let other = tempfile::tempdir().expect("a folder");
    let mut second = crate::options(other.path());
    second.folder = world.folder.path().join("stack");
    let refused = Stack::start(second).await.err().expect("refused");
    assert!(matches!(refused, StackError::InUse { .. }), "{refused}");
    world.end().await;

    let folder = tempfile::tempdir().expect("a folder");
    let options = crate::options(folder.path());
    std::fs::remove_file(options.bin_dir.join("worker")).expect("removed");
    let refused = Stack::start(options).await.err().expect("refused").to_string();
    assert!(refused.contains("bin/worker") && refused.contains("cargo build"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_idle_names_what_is_still_to_do() {
    let world = World::start().await;
    world.stack.wait_idle(PATIENCE).await.expect("nothing to do");
    world.stack.queues.send("Letters", "not read by anybody").expect("sent");
    world.stack.wait_idle(PATIENCE).await.expect("a dead letter is no work");
    world.stack.queues.send("Work", &json!({ "act": "hang" }).to_string()).expect("sent");
    let busy = world.stack.wait_idle(Duration::from_millis(100)).await.expect_err("busy").to_string();
    assert!(busy.contains("Work: 0 visible, 1 in flight"), "{busy}");
    world.end().await;
}
