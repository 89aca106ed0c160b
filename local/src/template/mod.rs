//! Reads `template.yaml` into what the local runtime runs: functions, queues, event sources, schedules, routes.
//!
//! The template is the one description of the wiring, so nothing here has a default that AWS does not have, and a property
//! that is neither acted on nor listed as known is an error: a setting that deploys but is silently absent on one machine
//! would make every local test a lie. Errors name the path in the template.

mod intrinsics;
mod properties;
mod wiring;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use serde_yaml_ng::Value as Yaml;

use self::intrinsics::{Resolver, Resource, Result, entries, fail};
pub use self::wiring::allowed;

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("{path} in the template {what}")]
    At { path: String, what: String },
    #[error("cannot read the template {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("the template is not YAML: {0}")]
    NotYaml(serde_yaml_ng::Error),
}

/// Where the stack lives: what the pseudo parameters and the ARNs are made of.
#[derive(Debug, Clone)]
pub struct Place {
    pub region: String,
    pub account: String,
    pub stack_name: String,
    /// Origin of the SQS endpoint, like `http://127.0.0.1:41234`.
    pub sqs_origin: String,
}

impl Place {
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{}:{}:{resource}", self.region, self.account)
    }

    pub fn queue_url(&self, queue: &str) -> String {
        format!("{}/{}/{queue}", self.sqs_origin, self.account)
    }
}

/// What runs. Everything is keyed by the name it has when it runs; a function's is that of its binary.
#[derive(Debug, Clone, PartialEq)]
pub struct Wiring {
    pub functions: BTreeMap<String, Function>,
    pub queues: BTreeMap<String, Queue>,
    pub event_sources: Vec<EventSource>,
    pub schedule_groups: Vec<String>,
    pub schedules: Vec<Schedule>,
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: String,
    pub logical_id: String,
    pub arn: String,
    pub timeout: Duration,
    pub memory_mb: u32,
    pub environment: BTreeMap<String, String>,
    pub reserved_concurrency: Option<usize>,
    /// What Lambda does with an event of a schedule that the function fails.
    pub asynchronous: Asynchronous,
    /// Statements of the function's role.
    pub statements: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Asynchronous {
    pub retries: u32,
    pub max_age: Duration,
    pub on_failure_queue: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub allow: bool,
    pub actions: Vec<String>,
    pub resources: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    pub name: String,
    pub url: String,
    pub arn: String,
    pub visibility_timeout: Duration,
    pub delay: Duration,
    pub retention: Duration,
    pub max_message_bytes: usize,
    pub redrive: Option<Redrive>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Redrive {
    pub dead_letter_queue: String,
    pub dead_letter_arn: String,
    pub max_receive_count: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EventSource {
    pub function: String,
    pub queue: String,
    pub batch_size: usize,
    pub window: Duration,
    pub report_batch_item_failures: bool,
    pub maximum_concurrency: Option<usize>,
    pub enabled: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub name: String,
    pub group: String,
    pub expression: String,
    pub timezone: String,
    pub enabled: bool,
    pub description: Option<String>,
    pub target_arn: String,
    pub role_arn: String,
    pub input: Option<String>,
    pub max_retries: u32,
    pub max_age: Duration,
    pub dead_letter_arn: Option<String>,
}

impl Schedule {
    /// The body that would create this schedule through EventBridge Scheduler's API.
    pub fn as_request(&self) -> Json {
        let mut target = json!({
            "Arn": self.target_arn,
            "RoleArn": self.role_arn,
            "RetryPolicy": { "MaximumEventAgeInSeconds": self.max_age.as_secs(), "MaximumRetryAttempts": self.max_retries },
        });
        if let Some(input) = &self.input {
            target["Input"] = json!(input);
        }
        if let Some(arn) = &self.dead_letter_arn {
            target["DeadLetterConfig"] = json!({ "Arn": arn });
        }
        json!({
            "GroupName": self.group,
            "Description": self.description,
            "ScheduleExpression": self.expression,
            "ScheduleExpressionTimezone": self.timezone,
            "State": if self.enabled { "ENABLED" } else { "DISABLED" },
            "FlexibleTimeWindow": { "Mode": "OFF" },
            "Target": target,
        })
    }
}

/// One route of the HTTP API.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `ANY` or a method.
    pub method: String,
    /// `$default` or a path, perhaps with `{name}` and `{name+}`.
    pub path: String,
    pub function: String,
    pub timeout: Duration,
}

/// Reads the template at `path` with parameters given instead of their defaults.
pub fn read(path: &Path, parameters: &BTreeMap<String, String>, place: &Place) -> std::result::Result<Wiring, TemplateError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| TemplateError::Unreadable { path: path.display().to_string(), source })?;
    parse(&text, parameters, place)
}

/// Brackets in brackets; more than that nobody writes, and the YAML reader's time grows with the square of their number.
const MOST_OPEN_BRACKETS: usize = 64;

fn open_brackets(text: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

pub fn parse(text: &str, parameters: &BTreeMap<String, String>, place: &Place) -> Result<Wiring> {
    if open_brackets(text) > MOST_OPEN_BRACKETS {
        return fail("the top", format!("has more than {MOST_OPEN_BRACKETS} brackets open at once"));
    }
    let document: Yaml = serde_yaml_ng::from_str(text).map_err(TemplateError::NotYaml)?;
    let mut sections: BTreeMap<&str, &Yaml> = BTreeMap::new();
    for (name, section) in entries(&document, "the top")? {
        match name {
            "Parameters" | "Conditions" | "Mappings" | "Globals" | "Resources" => {
                sections.insert(name, section);
            }
            "AWSTemplateFormatVersion" | "Transform" | "Description" | "Metadata" | "Outputs" => {}
            other => return fail(other, "is no section that the local runtime knows"),
        }
    }
    let section = |name: &str| sections.get(name).map_or(Yaml::Null, |section| (*section).clone());

    let mut resources = BTreeMap::new();
    for (name, resource) in entries(&section("Resources"), "Resources")? {
        resources.insert(name.to_owned(), resource_head(name, resource)?);
    }
    if resources.is_empty() {
        return fail("Resources", "is missing or empty: there is nothing to run");
    }
    let conditions = section("Conditions");
    let resolver = Resolver {
        place,
        parameters: parameter_values(&section("Parameters"), parameters)?,
        conditions: entries(&conditions, "Conditions")?.into_iter().map(|(name, rule)| (name.to_owned(), rule.clone())).collect(),
        mappings: section("Mappings"),
        resources,
        naming: std::cell::Cell::new(0),
    };
    wiring::assemble(&resolver, &section("Globals"))
}

fn resource_head(name: &str, resource: &Yaml) -> Result<Resource> {
    let path = format!("Resources.{name}");
    let mut head = Resource { kind: String::new(), properties: Yaml::Null, metadata: Yaml::Null, condition: None };
    for (key, value) in entries(resource, &path)? {
        match key {
            "Type" => head.kind = value.as_str().unwrap_or_default().to_owned(),
            "Properties" => head.properties = value.clone(),
            "Metadata" => head.metadata = value.clone(),
            "Condition" => head.condition = value.as_str().map(str::to_owned),
            // They order and protect deployments; on one machine there are none.
            "DependsOn" | "DeletionPolicy" | "UpdateReplacePolicy" | "UpdatePolicy" => {}
            other => return fail(&format!("{path}.{other}"), "is nothing that the local runtime knows"),
        }
    }
    if head.kind.is_empty() {
        return fail(&path, "has no Type");
    }
    Ok(head)
}

/// Parameters by name: what was given, else the default. What a deployment would refuse is refused here.
fn parameter_values(section: &Yaml, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, Json>> {
    let declared = entries(section, "Parameters")?;
    if let Some(unknown) = given.keys().find(|name| !declared.iter().any(|(declared, _)| declared == name)) {
        return fail("Parameters", format!("has no {unknown}, for which a value was given"));
    }
    let mut values = BTreeMap::new();
    for (name, declaration) in declared {
        let path = format!("Parameters.{name}");
        let mut kind = "";
        let mut default = None;
        let mut allowed = Vec::new();
        let (mut minimum, mut maximum) = (i64::MIN, i64::MAX);
        for (key, value) in entries(declaration, &path)? {
            let text = || match value {
                Yaml::String(text) => Ok(text.clone()),
                Yaml::Number(number) => Ok(number.to_string()),
                Yaml::Bool(flag) => Ok(flag.to_string()),
                other => {
                    fail(&format!("{path}.{key}"), format!("must be a text or a number, not {}", intrinsics::kind_of(other)))
                }
            };
            match key {
                "Type" => kind = value.as_str().unwrap_or_default(),
                "Default" => default = Some(text()?),
                "AllowedValues" => {
                    for value in value.as_sequence().into_iter().flatten() {
                        allowed.push(match value {
                            Yaml::String(text) => text.clone(),
                            Yaml::Number(number) => number.to_string(),
                            other => return fail(&path, format!("allows {}, which is no value", intrinsics::kind_of(other))),
                        });
                    }
                }
                "MinValue" => minimum = value.as_i64().unwrap_or(minimum),
                "MaxValue" => maximum = value.as_i64().unwrap_or(maximum),
                // A pattern guards what a person types into a deployment; the functions check the values again.
                "AllowedPattern" | "ConstraintDescription" | "Description" | "NoEcho" | "MinLength" | "MaxLength" => {}
                other => return fail(&format!("{path}.{other}"), "is nothing that the local runtime knows"),
            }
        }
        let Some(value) = given.get(name).cloned().or(default) else {
            return fail(&path, "has no default and no value was given");
        };
        if !allowed.is_empty() && !allowed.contains(&value) {
            return fail(&path, format!("does not allow {value:?}, only {}", allowed.join(", ")));
        }
        let value = match kind {
            "String" => Json::String(value),
            "Number" => match value.parse::<i64>() {
                Ok(number) if (minimum..=maximum).contains(&number) => Json::String(value),
                Ok(number) => return fail(&path, format!("does not allow {number}: it must be from {minimum} to {maximum}")),
                Err(_) => return fail(&path, format!("must be a whole number, not {value:?}")),
            },
            "CommaDelimitedList" => Json::Array(value.split(',').map(|item| Json::String(item.trim().to_owned())).collect()),
            other => return fail(&path, format!("has the type {other:?}, which the local runtime does not know")),
        };
        values.insert(name.to_owned(), value);
    }
    Ok(values)
}
