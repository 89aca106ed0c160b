//! From resources to the wiring: one function for each type of resource that runs on one machine.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml_ng::{Mapping, Value as Yaml};

use super::intrinsics::{Resolver, Resource, Result, entries, fail};
use super::properties::Properties;
use super::{Asynchronous, EventSource, Function, Queue, Redrive, Route, Schedule, Statement, Wiring};

/// Types that deploy but do nothing on one machine: alarms, logs, and rights (a function's role is read with the function).
const QUIET: [&str; 9] = [
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
];

pub(super) fn assemble(resolver: &Resolver<'_>, globals: &Yaml) -> Result<Wiring> {
    let mut function_globals = Yaml::Null;
    for (name, section) in entries(globals, "Globals")? {
        match name {
            "Function" => function_globals = section.clone(),
            other => return fail(&format!("Globals.{other}"), "is nothing that the local runtime knows"),
        }
    }
    let mut wiring = Wiring {
        functions: BTreeMap::new(),
        queues: BTreeMap::new(),
        event_sources: Vec::new(),
        schedule_groups: Vec::new(),
        schedules: Vec::new(),
        routes: Vec::new(),
    };
    for (logical, resource) in &resolver.resources {
        let path = format!("Resources.{logical}");
        if let Some(condition) = &resource.condition
            && !resolver.condition(condition, &format!("{path}.Condition"))?
        {
            continue;
        }
        let name = resolver.physical_name(logical, resource)?;
        match resource.kind.as_str() {
            "AWS::Serverless::Function" => {
                let merged = Resource { properties: merge(&function_globals, &resource.properties), ..resource.clone() };
                let function = function(resolver, logical, &name, &merged, &mut wiring)?;
                if let Some(twin) = wiring.functions.insert(name.clone(), function) {
                    return fail(&path, format!("has the same binary as {}", twin.logical_id));
                }
            }
            "AWS::SQS::Queue" => {
                let queue =
                    queue(resolver, &name, &Properties::of(resolver, &resource.properties, format!("{path}.Properties"))?)?;
                wiring.queues.insert(name, queue);
            }
            "AWS::Scheduler::ScheduleGroup" => {
                let properties = Properties::of(resolver, &resource.properties, format!("{path}.Properties"))?;
                properties.known(&["Name", "Tags"]);
                properties.finish()?;
                wiring.schedule_groups.push(name);
            }
            "AWS::Scheduler::Schedule" => {
                let properties = Properties::of(resolver, &resource.properties, format!("{path}.Properties"))?;
                let Some(target) = properties.nested("Target")? else {
                    return fail(&path, "has no Target");
                };
                let arn = target.required_text("Arn")?;
                wiring.schedules.push(schedule(&properties, &target, arn, name)?);
                target.finish()?;
            }
            "AWS::Serverless::HttpApi" => {
                let properties = Properties::of(resolver, &resource.properties, format!("{path}.Properties"))?;
                // Throttles and access logs are AWS's; one machine has one caller.
                properties.known(&[
                    "AccessLogSettings",
                    "DefaultRouteSettings",
                    "Description",
                    "FailOnWarnings",
                    "Name",
                    "RouteSettings",
                    "StageName",
                    "Tags",
                ]);
                properties.finish()?;
            }
            quiet if QUIET.contains(&quiet) => {}
            other => return fail(&path, format!("has the type {other}, which the local runtime does not know")),
        }
    }
    check(&wiring)?;
    Ok(wiring)
}

/// What only shows when everything is there: names that lead nowhere.
fn check(wiring: &Wiring) -> Result<()> {
    for queue in wiring.queues.values() {
        if let Some(redrive) = &queue.redrive
            && !wiring.queues.contains_key(&redrive.dead_letter_queue)
        {
            return fail(
                &format!("queue {}", queue.name),
                format!("redrives to {}, which is no queue here", redrive.dead_letter_arn),
            );
        }
    }
    for source in &wiring.event_sources {
        let (Some(queue), Some(function)) = (wiring.queues.get(&source.queue), wiring.functions.get(&source.function)) else {
            return fail(
                &format!("function {}", source.function),
                format!("reads from {}, which is no queue here", source.queue),
            );
        };
        // AWS refuses such a mapping: a message would come back while its first worker still runs.
        if queue.visibility_timeout < function.timeout {
            return fail(
                &format!("queue {}", queue.name),
                format!(
                    "hides messages for {:?}, shorter than the timeout of {} ({:?})",
                    queue.visibility_timeout, function.name, function.timeout
                ),
            );
        }
    }
    for schedule in &wiring.schedules {
        let known = wiring.schedule_groups.contains(&schedule.group) || schedule.group == "default";
        if !known {
            return fail(
                &format!("schedule {}", schedule.name),
                format!("is of the group {}, which is not here", schedule.group),
            );
        }
        if !wiring.functions.values().any(|function| function.arn == schedule.target_arn) {
            return fail(
                &format!("schedule {}", schedule.name),
                format!("starts {}, which is no function here", schedule.target_arn),
            );
        }
    }
    Ok(())
}

/// SAM's rule for Globals: mappings merge, lists follow each other, the resource's own value wins.
fn merge(global: &Yaml, own: &Yaml) -> Yaml {
    match (global, own) {
        (Yaml::Null, own) => own.clone(),
        (global, Yaml::Null) => global.clone(),
        (Yaml::Mapping(global), Yaml::Mapping(own)) => {
            let mut merged: Mapping = global.clone();
            for (key, value) in own {
                let value = merged.get(key).map_or_else(|| value.clone(), |global| merge(global, value));
                merged.insert(key.clone(), value);
            }
            Yaml::Mapping(merged)
        }
        (Yaml::Sequence(global), Yaml::Sequence(own)) => Yaml::Sequence(global.iter().chain(own).cloned().collect()),
        (_, own) => own.clone(),
    }
}

fn function(resolver: &Resolver<'_>, logical: &str, name: &str, resource: &Resource, wiring: &mut Wiring) -> Result<Function> {
    let path = format!("Resources.{logical}.Properties");
    if resource.metadata.get("BuildProperties").and_then(|properties| properties.get("Binary")).is_none() {
        return fail(
            &format!("Resources.{logical}.Metadata.BuildProperties"),
            "has no Binary: the local runtime does not know what to start",
        );
    }
    let properties = Properties::of(resolver, &resource.properties, path.clone())?;
    // Build, network, logs and traces of the deployed function; here the binary is started as it is.
    properties.known(&[
        "Architectures",
        "CodeUri",
        "Description",
        "FunctionName",
        "Handler",
        "Layers",
        "LoggingConfig",
        "Tags",
        "Tracing",
        "VpcConfig",
    ]);
    match properties.required_text("Runtime")?.as_str() {
        "provided.al2023" | "provided.al2" => {}
        other => {
            return fail(
                &format!("{path}.Runtime"),
                format!("is {other:?}; the local runtime starts Rust binaries (provided.al2023)"),
            );
        }
    }
    let mut environment = BTreeMap::new();
    if let Some(section) = properties.nested("Environment")? {
        if let Some(variables) = section.nested("Variables")? {
            for key in variables.keys() {
                if let Some(value) = variables.text(&key)? {
                    environment.insert(key, value);
                }
            }
        }
        section.finish()?;
    }
    if let Some(events) = properties.nested("Events")? {
        for event in events.keys() {
            if let Some(event) = events.nested(&event)? {
                self::event(resolver, name, &event, wiring)?;
            }
        }
    }
    let function = Function {
        name: name.to_owned(),
        logical_id: logical.to_owned(),
        arn: resolver.place.arn("lambda", &format!("function:{name}")),
        timeout: properties.seconds("Timeout", 3, 1..=900)?,
        memory_mb: properties.number("MemorySize", 128, 128..=10_240)?,
        environment,
        reserved_concurrency: match properties.raw("ReservedConcurrentExecutions") {
            Some(_) => Some(properties.number("ReservedConcurrentExecutions", 0, 0..=10_000)?),
            None => None,
        },
        asynchronous: asynchronous(&properties)?,
        statements: statements(resolver, &properties)?,
    };
    properties.finish()?;
    Ok(function)
}

fn asynchronous(properties: &Properties<'_>) -> Result<Asynchronous> {
    let mut asynchronous = Asynchronous { retries: 2, max_age: Duration::from_secs(21_600), on_failure_queue: None };
    if let Some(config) = properties.nested("EventInvokeConfig")? {
        asynchronous.retries = config.number("MaximumRetryAttempts", 2, 0..=2)?;
        asynchronous.max_age = config.seconds("MaximumEventAgeInSeconds", 21_600, 60..=21_600)?;
        if let Some(destinations) = config.nested("DestinationConfig")? {
            if let Some(failure) = destinations.nested("OnFailure")? {
                match failure.required_text("Type")?.as_str() {
                    "SQS" => asynchronous.on_failure_queue = last_part(&failure.required_text("Destination")?),
                    other => return fail(&failure.at("Type"), format!("is {other:?}; the local runtime knows SQS")),
                }
                failure.finish()?;
            }
            destinations.finish()?;
        }
        config.finish()?;
    }
    Ok(asynchronous)
}

/// The last part of an ARN, which is a queue's name.
fn last_part(arn: &str) -> Option<String> {
    arn.rsplit(':').next().map(str::to_owned)
}

fn event(resolver: &Resolver<'_>, function: &str, event: &Properties<'_>, wiring: &mut Wiring) -> Result<()> {
    let kind = event.required_text("Type")?;
    let Some(properties) = event.nested("Properties")? else {
        return fail(&event.at("Properties"), "is missing");
    };
    match kind.as_str() {
        "SQS" => {
            let queue = properties.required_text("Queue")?;
            let scaling = properties.nested("ScalingConfig")?;
            let responses = properties.json("FunctionResponseTypes")?.unwrap_or_default();
            let source = EventSource {
                function: function.to_owned(),
                queue: last_part(&queue).unwrap_or_default(),
                batch_size: properties.number("BatchSize", 10, 1..=10_000)?,
                window: properties.seconds("MaximumBatchingWindowInSeconds", 0, 0..=300)?,
                report_batch_item_failures: match responses.as_array().map(Vec::as_slice) {
                    None | Some([]) => false,
                    Some([Json::String(only)]) if only == "ReportBatchItemFailures" => true,
                    Some(_) => return fail(&properties.at("FunctionResponseTypes"), "can only hold ReportBatchItemFailures"),
                },
                maximum_concurrency: match &scaling {
                    Some(scaling) => Some(scaling.number("MaximumConcurrency", 0, 2..=1000)?),
                    None => None,
                },
                enabled: properties.flag("Enabled", true)?,
            };
            // AWS: a batch over ten needs a window to gather it in.
            if source.batch_size > 10 && source.window.is_zero() {
                return fail(&properties.at("BatchSize"), "over 10 needs MaximumBatchingWindowInSeconds");
            }
            if let Some(scaling) = scaling {
                scaling.finish()?;
            }
            wiring.event_sources.push(source);
        }
        "ScheduleV2" => {
            let name = properties.required_text("Name")?;
            let arn = resolver.place.arn("lambda", &format!("function:{function}"));
            wiring.schedules.push(schedule(&properties, &properties, arn, name)?);
        }
        "HttpApi" => {
            properties.known(&["ApiId", "RouteSettings"]);
            if let Some(version) = properties.text("PayloadFormatVersion")?
                && version != "2.0"
            {
                return fail(&properties.at("PayloadFormatVersion"), "must be 2.0");
            }
            let route = Route {
                method: properties.text("Method")?.unwrap_or_else(|| "ANY".to_owned()).to_uppercase(),
                path: properties.text("Path")?.unwrap_or_else(|| "$default".to_owned()),
                function: function.to_owned(),
                timeout: Duration::from_millis(properties.number("TimeoutInMillis", 30_000, 50..=30_000)?),
            };
            wiring.routes.push(route);
        }
        other => return fail(&event.at("Type"), format!("is {other:?}; the local runtime knows SQS, ScheduleV2 and HttpApi")),
    }
    properties.finish()?;
    event.finish()
}

/// `outer` holds the schedule's own properties, `target` those of its target: SAM writes them side by side.
fn schedule(outer: &Properties<'_>, target: &Properties<'_>, target_arn: String, name: String) -> Result<Schedule> {
    outer.known(&["Name"]);
    if let Some(window) = outer.nested("FlexibleTimeWindow")? {
        if window.required_text("Mode")? != "OFF" {
            return fail(&outer.at("FlexibleTimeWindow"), "must be OFF: a pay day has an instant");
        }
        window.finish()?;
    }
    let expression = outer.required_text("ScheduleExpression")?;
    let timezone = outer.text("ScheduleExpressionTimezone")?.unwrap_or_else(|| "UTC".to_owned());
    if let Err(wrong) = crate::cron::Timing::parse(&expression, &timezone) {
        return fail(&outer.at("ScheduleExpression"), wrong);
    }
    let (mut max_retries, mut max_age) = (185, Duration::from_secs(86_400));
    if let Some(policy) = target.nested("RetryPolicy")? {
        max_retries = policy.number("MaximumRetryAttempts", 185, 0..=185)?;
        max_age = policy.seconds("MaximumEventAgeInSeconds", 86_400, 60..=86_400)?;
        policy.finish()?;
    }
    let dead_letter_arn = match target.nested("DeadLetterConfig")? {
        Some(config) => {
            let arn = config.required_text("Arn")?;
            config.finish()?;
            Some(arn)
        }
        None => None,
    };
    let schedule = Schedule {
        name,
        group: outer.text("GroupName")?.unwrap_or_else(|| "default".to_owned()),
        expression,
        timezone,
        enabled: match outer.text("State")?.as_deref() {
            None | Some("ENABLED") => true,
            Some("DISABLED") => false,
            Some(other) => return fail(&outer.at("State"), format!("must be ENABLED or DISABLED, not {other:?}")),
        },
        description: outer.text("Description")?,
        target_arn,
        role_arn: target.text("RoleArn")?.unwrap_or_default(),
        input: target.text("Input")?,
        max_retries,
        max_age,
        dead_letter_arn,
    };
    outer.finish()?;
    Ok(schedule)
}

fn queue(resolver: &Resolver<'_>, name: &str, properties: &Properties<'_>) -> Result<Queue> {
    // Encryption at rest and tags are AWS's. Delivery by long polling is what the event sources do anyway.
    properties.known(&[
        "KmsDataKeyReusePeriodSeconds",
        "KmsMasterKeyId",
        "QueueName",
        "ReceiveMessageWaitTimeSeconds",
        "SqsManagedSseEnabled",
        "Tags",
    ]);
    let redrive = match properties.nested("RedrivePolicy")? {
        Some(policy) => {
            let dead_letter_arn = policy.required_text("deadLetterTargetArn")?;
            let redrive = Redrive {
                dead_letter_queue: last_part(&dead_letter_arn).unwrap_or_default(),
                dead_letter_arn,
                max_receive_count: policy.number("maxReceiveCount", 10, 1..=1000)?,
            };
            policy.finish()?;
            Some(redrive)
        }
        None => None,
    };
    let queue = Queue {
        name: name.to_owned(),
        url: resolver.place.queue_url(name),
        arn: resolver.place.arn("sqs", name),
        visibility_timeout: properties.seconds("VisibilityTimeout", 30, 0..=43_200)?,
        delay: properties.seconds("DelaySeconds", 0, 0..=900)?,
        retention: properties.seconds("MessageRetentionPeriod", 345_600, 60..=1_209_600)?,
        max_message_bytes: properties.number("MaximumMessageSize", 1_048_576, 1024..=1_048_576)?,
        redrive,
    };
    properties.finish()?;
    Ok(queue)
}

/// The statements of the role that the function names.
fn statements(resolver: &Resolver<'_>, properties: &Properties<'_>) -> Result<Vec<Statement>> {
    let Some(role) = properties.text("Role")? else { return Ok(Vec::new()) };
    let Some((logical, resource)) = resolver
        .resources
        .iter()
        .find(|(logical, resource)| resource.kind == "AWS::IAM::Role" && resolver.place.arn("local", logical) == role)
    else {
        return fail(&properties.at("Role"), "must be !GetAtt of a role in this template");
    };
    let path = format!("Resources.{logical}.Properties.Policies");
    let policies = resource.properties.get("Policies").cloned().unwrap_or_default();
    let mut statements = Vec::new();
    let policies = resolver.resolve(&policies, &path)?.unwrap_or_default();
    for policy in policies.as_array().into_iter().flatten() {
        for statement in policy.pointer("/PolicyDocument/Statement").and_then(Json::as_array).into_iter().flatten() {
            statements.push(Statement {
                allow: statement.get("Effect").and_then(Json::as_str) == Some("Allow"),
                actions: texts(statement.get("Action")),
                resources: texts(statement.get("Resource")),
            });
        }
    }
    Ok(statements)
}

fn texts(value: Option<&Json>) -> Vec<String> {
    match value {
        Some(Json::String(text)) => vec![text.clone()],
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Whether the statements allow the action on the resource. Conditions in statements are not looked at.
pub fn allowed(statements: &[Statement], action: &str, resource: &str) -> bool {
    let applies = |statement: &&Statement| {
        statement.actions.iter().any(|pattern| matches(pattern, action))
            && statement.resources.iter().any(|pattern| matches(pattern, resource))
    };
    let mut applying = statements.iter().filter(applies).peekable();
    applying.peek().is_some() && applying.all(|statement| statement.allow)
}

/// IAM's patterns: `*` is any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            rest.is_empty() || (0..=tail.len()).any(|at| tail.get(at..).is_some_and(|tail| matches(rest, tail)))
        }),
    }
}
