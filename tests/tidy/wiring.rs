//! Rules about the wiring: functions, their settings, queues, rights and alarms.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use payday::clock::{Calendar, Schedule, parse_date};
use payday_local::cron::Timing;
use serde_json::Value as Json;

use crate::files::{self, none};
use crate::template::{Function, Template, entries, mentions, pascal_case, strings, text};

/// Set by Lambda itself, so the template has none of them.
const GIVEN_BY_LAMBDA: [&str; 3] = ["AWS_ENDPOINT_URL_SQS", "AWS_SESSION_TOKEN", "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"];
/// Another name that config.rs also reads.
const OTHER_NAMES: [&str; 1] = ["CRON_SECRET_KEY"];

/// The variables that config.rs names, by their literals; without Lambda's own.
fn variables_of_the_code() -> BTreeSet<String> {
    let config = files::rust_in(&["shared/src"]).into_iter().find(|file| file.path == "shared/src/config.rs");
    let config = config.expect("shared/src/config.rs exists");
    let shape = |name: &str| {
        name.len() > 3
            && name.contains('_')
            && name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
    };
    let code: Vec<&str> = config.code().into_iter().map(|(_, line)| line).collect();
    let names: BTreeSet<String> =
        files::literals(&code.join("\n")).into_iter().filter(|name| shape(name)).map(str::to_owned).collect();
    assert!(
        names.len() > 20,
        "only {} settings found in config.rs: this rule reads string literals like \"HOLD_DAYS\"",
        names.len()
    );
    names.into_iter().filter(|name| !GIVEN_BY_LAMBDA.contains(&name.as_str()) && !OTHER_NAMES.contains(&name.as_str())).collect()
}

fn variables_of_the_template(functions: &[Function<'_>]) -> BTreeSet<String> {
    functions.iter().flat_map(|function| function.environment.keys().cloned()).collect()
}

#[test]
fn every_function_folder_has_a_template_entry_an_event_and_a_short_main() {
    let template = Template::load();
    let functions = template.functions();
    let deployed: BTreeSet<String> = functions.iter().map(|function| function.folder.clone()).collect();
    let folders = files::folders_of("functions");
    let mut breaches = Vec::new();
    for folder in folders.difference(&deployed) {
        breaches.push(format!("functions/{folder}: no function in template.yaml has BuildProperties.Binary: {folder}"));
    }
    for folder in deployed.difference(&folders) {
        breaches.push(format!("template.yaml deploys {folder}, but functions/{folder} does not exist"));
    }
    for folder in &folders {
        let main = files::read(&format!("functions/{folder}/src/main.rs"));
        if main.lines().count() >= 60 {
            breaches.push(format!("functions/{folder}/src/main.rs has {} lines", main.lines().count()));
        }
        if !files::root().join(format!("tests/events/{folder}.json")).exists() {
            breaches.push(format!("tests/events/{folder}.json is missing"));
        }
        if !files::read(&format!("functions/{folder}/Cargo.toml")).contains(&format!("name = \"{folder}\"")) {
            breaches.push(format!("functions/{folder}/Cargo.toml: the package is not named {folder}"));
        }
    }
    none(
        breaches,
        "folder, package, binary and template entry have one name; a main under 60 lines leaves the work to the library; save one event in the shape AWS sends it.",
    );
}

#[test]
fn every_event_is_of_the_shape_its_function_is_wired_to() {
    let template = Template::load();
    let mut breaches = Vec::new();
    for function in template.functions() {
        let path = format!("tests/events/{}.json", function.folder);
        let event: Json = serde_json::from_str(&files::read(&path)).unwrap_or_else(|error| panic!("{path} is not JSON: {error}"));
        if !function.events("SQS").is_empty() {
            let records = event["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
            let whole = records.iter().all(|record| {
                record["eventSource"] == "aws:sqs"
                    && ["messageId", "receiptHandle", "body", "eventSourceARN"].iter().all(|key| record[key].is_string())
                    && record["body"].as_str().is_some_and(|body| serde_json::from_str::<Json>(body).is_ok())
            });
            if records.is_empty() || !whole {
                breaches.push(format!("{path}: {} is fed by a queue, this is no SQS event", function.id));
            }
        }
        for http in function.events("HttpApi") {
            let (method, route) = (text(&http["Method"]), text(&http["Path"]));
            let route = if route == "$default" { route } else { format!("{method} {route}") };
            if event["version"] != "2.0"
                || event["routeKey"] != route.as_str()
                || !event["requestContext"]["http"]["method"].is_string()
            {
                breaches.push(format!("{path}: {} serves {route:?}, this is no payload 2.0 event of it", function.id));
            }
        }
        let schedules = function.events("ScheduleV2");
        let keys =
            |json: &Json| json.as_object().map(|object| object.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
        let inputs = schedules.iter().map(|schedule| serde_json::from_str::<Json>(&text(&schedule["Input"])).unwrap_or_default());
        if !schedules.is_empty() && !inputs.into_iter().any(|input| !keys(&input).is_empty() && keys(&input) == keys(&event)) {
            breaches.push(format!("{path}: has other keys than the Input of {}'s schedules", function.id));
        }
    }
    none(breaches, "save an event as AWS sends it for the trigger that template.yaml gives the function.");
}

#[test]
fn every_event_file_belongs_to_a_function() {
    let folders = files::folders_of("functions");
    let events = files::all().into_iter().filter(|file| file.path.starts_with("tests/events/"));
    let stray = events.filter(|file| !folders.contains(file.stem())).map(|file| file.path).collect();
    none(stray, "name the file after its function's folder, or delete it.");
}

#[test]
fn the_template_sets_what_the_code_reads_and_nothing_else() {
    let template = Template::load();
    let functions = template.functions();
    let (set, read) = (variables_of_the_template(&functions), variables_of_the_code());
    let mut breaches = Vec::new();
    for name in set.difference(&read) {
        breaches.push(format!("{name} is set in template.yaml, but config.rs never reads it"));
    }
    for name in &read {
        if !set.contains(name) && !set.contains(&format!("{name}_ARN")) {
            breaches.push(format!("{name} is read in config.rs, but no function in template.yaml is given it"));
        }
    }
    none(
        breaches,
        "a setting is one read in config.rs, one parameter and one line under Environment of each function that reads it.",
    );
}

#[test]
fn no_function_is_given_a_secret_itself() {
    let template = Template::load();
    let functions = template.functions();
    let names = variables_of_the_template(&functions);
    let secrets: BTreeSet<&str> = names.iter().filter_map(|name| name.strip_suffix("_ARN")).collect();
    let breaches =
        names.iter().filter(|name| secrets.contains(name.as_str())).map(|name| format!("{name} is set in template.yaml"));
    none(breaches.collect(), "give the function NAME_ARN; config.rs asks the secrets extension for the value.");
}

#[test]
fn a_setting_has_the_same_name_and_default_in_template_and_code() {
    let template = Template::load();
    let parameters = template.section("Parameters");
    let code: String = files::read("shared/src/config.rs").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut breaches = Vec::new();
    for function in template.functions() {
        for (name, value) in &function.environment {
            let named: Vec<String> = mentions(value).into_iter().filter(|name| parameters.contains_key(name)).collect();
            let expected = pascal_case(name);
            if named.iter().any(|parameter| *parameter != expected) {
                breaches.push(format!("{}: {name} comes from parameter {}, not {expected}", function.id, named.join(", ")));
            }
            let Some(default) = parameters.get(&expected).and_then(|parameter| parameter.get("Default")).map(text) else {
                continue;
            };
            // config.rs writes a setting and its default side by side: `whole("HOLD_DAYS", "7", …`.
            let in_code = ["parsed(", "whole(", "flag(", "percent(", "rate("].iter().find_map(|reader| {
                let after = code
                    .split(&format!("{reader}\"{name}\", \""))
                    .nth(1)
                    .or_else(|| code.split(&format!("{reader} \"{name}\", \"")).nth(1))?;
                after.split('"').next()
            });
            if in_code.is_some_and(|in_code| in_code != default) {
                breaches.push(format!("{name}: the template says {default:?}, config.rs {:?}", in_code.unwrap_or_default()));
            }
        }
    }
    breaches.sort();
    breaches.dedup();
    none(breaches, "the parameter is the variable in PascalCase, with the default that config.rs has.");
}

#[test]
fn every_setting_is_in_the_readme() {
    let readme = files::read("README.md");
    let missing = variables_of_the_code().into_iter().filter(|name| {
        // A secret is documented by its own name; the ARN follows from it.
        let name = name.strip_suffix("_ARN").unwrap_or(name);
        !readme.contains(&format!("`{name}`"))
    });
    none(missing.collect(), "add the variable to README's table of settings, in backquotes, with its default and its meaning.");
}

#[test]
fn every_parameter_has_a_description_and_a_place_in_the_console() {
    let template = Template::load();
    let groups = strings(template.at(&["Metadata", "AWS::CloudFormation::Interface", "ParameterGroups"]));
    let mut breaches = Vec::new();
    for (name, parameter) in template.section("Parameters") {
        if parameter.get("Description").is_none() {
            breaches.push(format!("{name} has no Description"));
        }
        if !groups.contains(&name) {
            breaches.push(format!("{name} is in none of the ParameterGroups"));
        }
    }
    none(breaches, "whoever deploys sees the parameters in the console: say there what each is for.");
}

#[test]
fn the_deployment_guide_names_every_parameter_without_a_default_and_every_output() {
    let (template, guide) = (Template::load(), files::read("docs/deploy.md"));
    let needed = template
        .section("Parameters")
        .into_iter()
        .filter(|(_, parameter)| parameter.get("Default").is_none())
        .map(|(name, _)| name);
    let outputs = template.section("Outputs").into_keys();
    let missing = needed.chain(outputs).filter(|name| !files::has_word(&guide, name)).collect();
    none(missing, "docs/deploy.md says where to get it or what it is for.");
}

#[test]
fn a_role_is_for_one_function_and_allows_nothing_that_the_function_does_not_use() {
    let template = Template::load();
    let queues = template.resources_of_type("AWS::SQS::Queue");
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut breaches = Vec::new();
    for function in template.functions() {
        let role = text(&function.properties["Role"]);
        if let Some(other) = owners.insert(role.clone(), function.id.clone()) {
            breaches.push(format!("{} and {other} share {role}", function.id));
        }
        let given = |suffix: &str| -> BTreeSet<String> {
            let named =
                function.environment.iter().filter(|(name, _)| name.ends_with(suffix)).flat_map(|(_, value)| mentions(value));
            named.filter(|name| queues.contains_key(name) || template.section("Parameters").contains_key(name)).collect()
        };
        let secrets: BTreeSet<String> =
            function.allowed("secretsmanager:GetSecretValue").into_iter().filter(|name| name.ends_with("Arn")).collect();
        for name in given("_ARN").symmetric_difference(&secrets) {
            breaches.push(format!("{}: {name} is either given but not readable, or readable but not given", function.id));
        }
        let to = given("_QUEUE_URL");
        let mut sends: BTreeSet<String> = function.allowed("sqs:SendMessage");
        if function.properties.get("EventInvokeConfig").is_some() {
            sends.remove("ScheduleDlq");
        }
        for name in sends.difference(&to) {
            breaches.push(format!("{}: may send to {name}, whose address it does not know", function.id));
        }
        for name in to.iter().filter(|name| !sends.contains(*name) && !function.allowed("sqs:GetQueueAttributes").contains(*name))
        {
            breaches.push(format!("{}: knows the address of {name} and may do nothing with it", function.id));
        }
        for event in function.events("SQS") {
            for name in event.get("Queue").map(mentions).unwrap_or_default() {
                if !function.allowed("sqs:DeleteMessage").contains(&name) {
                    breaches.push(format!("{}: is fed by {name} and may not delete from it", function.id));
                }
            }
        }
        for (actions, resources) in function.statements() {
            // Listing schedules takes no narrower resource.
            let everything = resources.contains("*") && actions != BTreeSet::from(["scheduler:ListSchedules".to_owned()]);
            if everything || actions.iter().any(|action| action.contains('*')) {
                breaches.push(format!("{}: its role allows {actions:?} on {resources:?}", function.id));
            }
        }
    }
    none(breaches, "a role has exactly what its function's environment and triggers need; change both together.");
}

#[test]
fn only_those_who_pay_hold_a_key_that_moves_money() {
    let template = Template::load();
    let holders = template.functions().into_iter().filter(|function| function.environment.contains_key("STRIPE_SECRET_KEY_ARN"));
    let holders: BTreeSet<String> = holders.map(|function| function.folder).collect();
    assert_eq!(
        holders,
        BTreeSet::from(["chunk-processor".to_owned(), "scheduled-jobs".to_owned()]),
        "invariant 6: nobody else gets the Stripe key"
    );
}

#[test]
fn a_queue_outwaits_its_worker_and_loses_nothing() {
    let template = Template::load();
    let functions = template.functions();
    let queues = template.resources_of_type("AWS::SQS::Queue");
    let alarms: BTreeSet<String> =
        template.resources_of_type("AWS::CloudWatch::Alarm").into_values().flat_map(alarm_subject).collect();
    let mut breaches = Vec::new();
    for (id, queue) in &queues {
        let properties = &queue["Properties"];
        if properties.get("SqsManagedSseEnabled").and_then(serde_yaml_ng::Value::as_bool) != Some(true) {
            breaches.push(format!("{id} is not encrypted"));
        }
        if id.ends_with("Dlq") {
            if !alarms.contains(&format!("ApproximateNumberOfMessagesVisible of {id}")) {
                breaches.push(format!("{id} has no alarm on its depth"));
            }
            continue;
        }
        let Some(function) = Template::consumer(&functions, id) else {
            breaches.push(format!("{id} feeds no function"));
            continue;
        };
        let visibility = properties.get("VisibilityTimeout").and_then(serde_yaml_ng::Value::as_u64).unwrap_or(30);
        if visibility != 6 * function.timeout() || visibility > 43_200 {
            breaches.push(format!("{id} hides messages for {visibility} s, {} may run {} s", function.id, function.timeout()));
        }
        if properties.get("RedrivePolicy").and_then(|redrive| redrive.get("deadLetterTargetArn")).is_none() {
            breaches.push(format!("{id} has no dead-letter queue"));
        }
        if !alarms.contains(&format!("ApproximateAgeOfOldestMessage of {id}")) {
            breaches.push(format!("{id} has no alarm on its oldest message"));
        }
        let whole = function.events("SQS").iter().all(|event| {
            event.get("FunctionResponseTypes").map(strings) == Some(BTreeSet::from(["ReportBatchItemFailures".to_owned()]))
        });
        if !whole {
            breaches.push(format!("{} does not report single failures of {id}", function.id));
        }
    }
    for function in &functions {
        if !alarms.contains(&format!("Errors of {}", function.id)) {
            breaches.push(format!("{} has no alarm on errors", function.id));
        }
        if function.properties.get("LoggingConfig").and_then(|logging| logging.get("LogGroup")).is_none() {
            breaches.push(format!("{} logs to a group that keeps everything for ever", function.id));
        }
    }
    none(
        breaches,
        "visibility is six times the worker's timeout; each queue has redrive, encryption and alarms; each function a log group of ours and an alarm.",
    );
}

/// What an alarm watches, as `metric of resource`.
fn alarm_subject(alarm: &serde_yaml_ng::Value) -> Vec<String> {
    let properties = &alarm["Properties"];
    let metric = text(&properties["MetricName"]);
    let dimensions = properties.get("Dimensions").and_then(serde_yaml_ng::Value::as_sequence).into_iter().flatten();
    dimensions.flat_map(|dimension| mentions(&dimension["Value"])).map(|resource| format!("{metric} of {resource}")).collect()
}

#[test]
fn each_cycle_s_schedule_fires_on_its_days_at_the_cut_off_and_on_no_other() {
    let template = Template::load();
    let functions = template.functions();
    let schedules: Vec<_> = functions.iter().flat_map(|function| function.events("ScheduleV2")).collect();
    for schedule in Schedule::ALL.iter().filter(|schedule| **schedule != Schedule::Manual) {
        let name = format!("payout-{}", schedule.as_str());
        let wired = schedules.iter().find(|wired| text(&wired["Name"]) == name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(text(&wired["Input"]).contains(&format!("\"schedule\":\"{}\"", schedule.as_str())), "{name}");
        // Over a leap year, in a zone whose clocks change.
        let zone = "America/New_York";
        let calendar = Calendar { zone: zone.parse().expect("a zone"), hour: 6 };
        let expression = text(&wired["ScheduleExpression"]).replace("${PayoutHour}", "6");
        let timing = Timing::parse(&expression, zone).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut at, end) = (instant("2027-12-31T23:00:00Z"), instant("2029-01-01T00:00:00Z"));
        let days = parse_date("2028-01-01").expect("a date").iter_days().take(366);
        for date in days.filter(|date| schedule.is_due_on(*date)) {
            at = timing.next(at, at).expect("it never ends");
            assert_eq!(at, calendar.cutoff(date), "{name}");
        }
        assert!(timing.next(at, at).is_some_and(|next| next > end), "{name} fires once more");
    }
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

#[test]
fn every_schedule_is_repeated_and_its_failures_are_kept() {
    let template = Template::load();
    let mut breaches = Vec::new();
    for function in template.functions() {
        let schedules = function.events("ScheduleV2");
        for schedule in &schedules {
            let name = text(&schedule["Name"]);
            let parts = entries(schedule);
            for part in ["RetryPolicy", "DeadLetterConfig", "RoleArn", "GroupName", "Input", "State"] {
                if !parts.contains_key(part) {
                    breaches.push(format!("schedule {name} has no {part}"));
                }
            }
            if text(&schedule["ScheduleExpression"]).starts_with("cron") && !parts.contains_key("ScheduleExpressionTimezone") {
                breaches.push(format!("schedule {name} has no ScheduleExpressionTimezone"));
            }
        }
        let kept =
            function.properties.get("EventInvokeConfig").and_then(|config| config.get("DestinationConfig")?.get("OnFailure"));
        if !schedules.is_empty() && kept.is_none() {
            breaches.push(format!("{} has no EventInvokeConfig.DestinationConfig.OnFailure", function.id));
        }
    }
    none(
        breaches,
        "the Scheduler only hands an event to Lambda; what the function then fails needs a destination too, or a pay day is lost in silence.",
    );
}
