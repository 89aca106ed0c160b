//! CloudFormation's little language: short tags (`!Ref`), their long forms (`Fn::Join`), parameters, conditions, mappings.
//!
//! A value is resolved when somebody asks for it, so what the local runtime has no use for (an alarm's dimensions) is never
//! looked at. Whatever cannot be resolved is an error that names the path in the template; nothing is guessed.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use serde_yaml_ng::Value as Yaml;

use super::{Place, TemplateError};

pub(super) type Result<T> = std::result::Result<T, TemplateError>;

pub(super) struct Resolver<'a> {
    pub(super) place: &'a Place,
    pub(super) parameters: BTreeMap<String, Json>,
    pub(super) conditions: BTreeMap<String, Yaml>,
    pub(super) mappings: Yaml,
    pub(super) resources: BTreeMap<String, Resource>,
    /// How many names are being worked out inside each other; a name that needs itself must not exhaust the stack.
    pub(super) naming: std::cell::Cell<u32>,
}

/// A resource before its properties are resolved.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) kind: String,
    pub(super) properties: Yaml,
    pub(super) metadata: Yaml,
    pub(super) condition: Option<String>,
}

pub(super) fn fail<T>(path: &str, what: impl std::fmt::Display) -> Result<T> {
    Err(TemplateError::At { path: path.to_owned(), what: what.to_string() })
}

/// Pairs of a mapping, with string keys.
pub(super) fn entries<'y>(yaml: &'y Yaml, path: &str) -> Result<Vec<(&'y str, &'y Yaml)>> {
    match yaml {
        Yaml::Null => Ok(Vec::new()),
        Yaml::Mapping(mapping) => mapping
            .iter()
            .map(|(key, value)| match key {
                Yaml::String(key) => Ok((key.as_str(), value)),
                other => fail(path, format!("has the key {other:?}; keys must be text")),
            })
            .collect(),
        other => fail(path, format!("must be a mapping, not {}", kind_of(other))),
    }
}

pub(super) fn kind_of(yaml: &Yaml) -> &'static str {
    match yaml {
        Yaml::Null => "nothing",
        Yaml::Bool(_) => "true or false",
        Yaml::Number(_) => "a number",
        Yaml::String(_) => "text",
        Yaml::Sequence(_) => "a list",
        Yaml::Mapping(_) => "a mapping",
        Yaml::Tagged(_) => "a function",
    }
}

/// A call of an intrinsic function, whichever way it is written.
fn call(yaml: &Yaml) -> Option<(String, &Yaml)> {
    match yaml {
        Yaml::Tagged(tagged) => Some((tagged.tag.to_string().trim_start_matches('!').to_owned(), &tagged.value)),
        Yaml::Mapping(mapping) if mapping.len() == 1 => {
            let (key, value) = mapping.iter().next()?;
            let key = key.as_str()?;
            match key.strip_prefix("Fn::") {
                Some(name) => Some((name.to_owned(), value)),
                None if key == "Ref" || key == "Condition" && value.is_string() => Some((key.to_owned(), value)),
                None => None,
            }
        }
        _ => None,
    }
}

impl Resolver<'_> {
    /// The value, or nothing where the template says `AWS::NoValue`.
    pub(super) fn resolve(&self, yaml: &Yaml, path: &str) -> Result<Option<Json>> {
        if let Some((function, argument)) = call(yaml) {
            return self.function(&function, argument, path);
        }
        Ok(Some(match yaml {
            Yaml::Null => Json::Null,
            Yaml::Bool(flag) => Json::Bool(*flag),
            Yaml::Number(_) => match serde_json::to_value(yaml) {
                Ok(number) => number,
                Err(error) => return fail(path, error),
            },
            Yaml::String(text) => Json::String(text.clone()),
            Yaml::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    list.extend(self.resolve(item, &format!("{path}[{index}]"))?);
                }
                Json::Array(list)
            }
            Yaml::Mapping(_) => {
                let mut object = Map::new();
                for (key, value) in entries(yaml, path)? {
                    if let Some(value) = self.resolve(value, &format!("{path}.{key}"))? {
                        object.insert(key.to_owned(), value);
                    }
                }
                Json::Object(object)
            }
            Yaml::Tagged(_) => return fail(path, "is a function the local runtime cannot read"),
        }))
    }

    fn required(&self, yaml: &Yaml, path: &str) -> Result<Json> {
        match self.resolve(yaml, path)? {
            Some(value) => Ok(value),
            None => fail(path, "must have a value, not AWS::NoValue"),
        }
    }

    pub(super) fn text(&self, yaml: &Yaml, path: &str) -> Result<String> {
        scalar(&self.required(yaml, path)?, path)
    }

    fn function(&self, function: &str, argument: &Yaml, path: &str) -> Result<Option<Json>> {
        let text = |value: String| Ok(Some(Json::String(value)));
        match function {
            "Ref" => match argument.as_str() {
                Some("AWS::NoValue") => Ok(None),
                Some(name) => self.reference(name, path).map(Some),
                None => fail(path, "!Ref takes the name of a parameter or a resource"),
            },
            "GetAtt" => {
                let parts: Vec<&str> = match argument {
                    Yaml::String(dotted) => dotted.splitn(2, '.').collect(),
                    Yaml::Sequence(parts) => parts.iter().filter_map(Yaml::as_str).collect(),
                    _ => Vec::new(),
                };
                match parts[..] {
                    [resource, attribute] => text(self.attribute(resource, attribute, path)?),
                    _ => fail(path, "!GetAtt takes a resource and an attribute, like Queue.Arn"),
                }
            }
            "Sub" => match argument {
                Yaml::String(pattern) => text(self.substitute(pattern, &[], path)?),
                Yaml::Sequence(parts) => match &parts[..] {
                    [Yaml::String(pattern), extra] => text(self.substitute(pattern, &entries(extra, path)?, path)?),
                    _ => fail(path, "!Sub takes a text, or a list of a text and a mapping"),
                },
                other => fail(path, format!("!Sub takes a text, not {}", kind_of(other))),
            },
            "Join" => match self.list(argument, 2, "!Join", path)? {
                [separator, items] => {
                    let separator = self.text(separator, path)?;
                    let Json::Array(items) = self.required(items, path)? else {
                        return fail(path, "!Join takes a separator and a list");
                    };
                    let items: Vec<String> = items.iter().map(|item| scalar(item, path)).collect::<Result<_>>()?;
                    text(items.join(&separator))
                }
                _ => fail(path, "!Join takes a separator and a list"),
            },
            "Split" => match self.list(argument, 2, "!Split", path)? {
                [separator, whole] => {
                    let (separator, whole) = (self.text(separator, path)?, self.text(whole, path)?);
                    Ok(Some(Json::Array(whole.split(&separator).map(|part| Json::String(part.to_owned())).collect())))
                }
                _ => fail(path, "!Split takes a separator and a text"),
            },
            "Select" => match self.list(argument, 2, "!Select", path)? {
                [index, items] => {
                    let index: Option<usize> = self.text(index, path)?.parse().ok();
                    let Json::Array(items) = self.required(items, path)? else {
                        return fail(path, "!Select takes an index and a list");
                    };
                    match index.and_then(|index| items.get(index)) {
                        Some(item) => Ok(Some(item.clone())),
                        None => fail(path, "!Select has no such index"),
                    }
                }
                _ => fail(path, "!Select takes an index and a list"),
            },
            "FindInMap" => match self.list(argument, 3, "!FindInMap", path)? {
                [map, first, second] => {
                    let keys = [self.text(map, path)?, self.text(first, path)?, self.text(second, path)?];
                    let found = keys.iter().try_fold(&self.mappings, |level, key| level.get(key.as_str()));
                    match found {
                        Some(found) => self.resolve(found, path),
                        None => fail(path, format!("no entry {} in Mappings", keys.join(" → "))),
                    }
                }
                _ => fail(path, "!FindInMap takes a map and two keys"),
            },
            "If" => match self.list(argument, 3, "!If", path)? {
                [condition, yes, no] => match condition.as_str() {
                    Some(name) => self.resolve(if self.condition(name, path)? { yes } else { no }, path),
                    None => fail(path, "!If takes the name of a condition first"),
                },
                _ => fail(path, "!If takes a condition and two values"),
            },
            "Equals" | "Not" | "And" | "Or" | "Condition" => {
                self.truth(&Yaml::Tagged(Box::new(tagged(function, argument))), path, 0).map(|truth| Some(Json::Bool(truth)))
            }
            other => fail(path, format!("uses !{other}, which the local runtime does not know")),
        }
    }

    fn list<'y>(&self, argument: &'y Yaml, length: usize, function: &str, path: &str) -> Result<&'y [Yaml]> {
        match argument {
            Yaml::Sequence(items) if items.len() == length => Ok(items),
            _ => fail(path, format!("{function} takes a list of {length}")),
        }
    }

    pub(super) fn condition(&self, name: &str, path: &str) -> Result<bool> {
        self.condition_at(name, path, 0)
    }

    fn condition_at(&self, name: &str, path: &str, depth: usize) -> Result<bool> {
        // CloudFormation refuses conditions that need themselves; without this they would exhaust the stack.
        if depth > 32 {
            return fail(path, format!("the condition {name} needs itself"));
        }
        match self.conditions.get(name) {
            Some(rule) => self.truth(rule, &format!("Conditions.{name}"), depth + 1),
            None => fail(path, format!("names the condition {name}, which is not in Conditions")),
        }
    }

    fn truth(&self, rule: &Yaml, path: &str, depth: usize) -> Result<bool> {
        let Some((function, argument)) = call(rule) else {
            return fail(path, "must be one of !Equals, !Not, !And, !Or, !Condition");
        };
        let several = || match argument {
            Yaml::Sequence(rules) if !rules.is_empty() => Ok(rules.iter()),
            _ => fail(path, format!("!{function} takes a list of conditions")),
        };
        match function.as_str() {
            "Equals" => match self.list(argument, 2, "!Equals", path)? {
                [left, right] => Ok(self.text(left, path)? == self.text(right, path)?),
                _ => fail(path, "!Equals takes a list of 2"),
            },
            "Not" => match several()?.next() {
                Some(inner) => Ok(!self.truth(inner, path, depth + 1)?),
                None => fail(path, "!Not takes one condition"),
            },
            "And" => several()?.try_fold(true, |all, rule| Ok(all && self.truth(rule, path, depth + 1)?)),
            "Or" => several()?.try_fold(false, |any, rule| Ok(any || self.truth(rule, path, depth + 1)?)),
            "Condition" => match argument.as_str() {
                Some(name) => self.condition_at(name, path, depth),
                None => fail(path, "!Condition takes a name"),
            },
            other => fail(path, format!("!{other} is no condition")),
        }
    }

    fn substitute(&self, pattern: &str, extra: &[(&str, &Yaml)], path: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let after = &rest[start + 2..];
            let Some(end) = after.find('}') else {
                return fail(path, "has a ${ without its }");
            };
            let name = &after[..end];
            match (name.strip_prefix('!'), extra.iter().find(|(key, _)| *key == name)) {
                // `${!Literal}` is how a template writes `${Literal}` itself.
                (Some(literal), _) => out.push_str(&format!("${{{literal}}}")),
                (None, Some((_, value))) => out.push_str(&self.text(value, path)?),
                (None, None) => out.push_str(&match name.split_once('.') {
                    Some((resource, attribute)) => self.attribute(resource, attribute, path)?,
                    None => scalar(&self.reference(name, path)?, path)?,
                }),
            }
            rest = &after[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn reference(&self, name: &str, path: &str) -> Result<Json> {
        let place = self.place;
        let pseudo = match name {
            "AWS::Region" => Some(place.region.as_str()),
            "AWS::AccountId" => Some(place.account.as_str()),
            "AWS::StackName" => Some(place.stack_name.as_str()),
            "AWS::Partition" => Some("aws"),
            "AWS::URLSuffix" => Some("amazonaws.com"),
            _ => None,
        };
        if let Some(value) = pseudo {
            return Ok(Json::String(value.to_owned()));
        }
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        let Some(resource) = self.resources.get(name) else {
            return fail(path, format!("refers to {name}, which is neither a parameter nor a resource"));
        };
        Ok(Json::String(match resource.kind.as_str() {
            "AWS::SQS::Queue" => place.queue_url(&self.physical_name(name, resource)?),
            "AWS::SNS::Topic" | "AWS::IAM::ManagedPolicy" | "AWS::Logs::LogGroup" => name.to_owned(),
            _ => self.physical_name(name, resource)?,
        }))
    }

    fn attribute(&self, name: &str, attribute: &str, path: &str) -> Result<String> {
        let Some(resource) = self.resources.get(name) else {
            return fail(path, format!("refers to {name}, which is no resource"));
        };
        let physical = self.physical_name(name, resource)?;
        let place = self.place;
        match (resource.kind.as_str(), attribute) {
            ("AWS::SQS::Queue", "Arn") => Ok(place.arn("sqs", &physical)),
            ("AWS::SQS::Queue", "QueueName") => Ok(physical),
            ("AWS::SQS::Queue", "QueueUrl") => Ok(place.queue_url(&physical)),
            ("AWS::Serverless::Function", "Arn") => Ok(place.arn("lambda", &format!("function:{physical}"))),
            ("AWS::Scheduler::ScheduleGroup", "Arn") => Ok(place.arn("scheduler", &format!("schedule-group/{physical}"))),
            // Roles, log groups and the like have no life here: a name that can be compared is enough.
            ("AWS::IAM::Role" | "AWS::Logs::LogGroup", "Arn") => Ok(place.arn("local", name)),
            (kind, attribute) => fail(path, format!("the local runtime does not know {attribute} of {name} ({kind})")),
        }
    }

    /// The name a resource has when it runs. A function is called like its binary, which is its folder too.
    pub(super) fn physical_name(&self, logical: &str, resource: &Resource) -> Result<String> {
        let path = format!("Resources.{logical}.Properties");
        let given = match resource.kind.as_str() {
            "AWS::SQS::Queue" => resource.properties.get("QueueName"),
            "AWS::Scheduler::ScheduleGroup" | "AWS::Scheduler::Schedule" => resource.properties.get("Name"),
            "AWS::Serverless::Function" => {
                resource.metadata.get("BuildProperties").and_then(|properties| properties.get("Binary"))
            }
            _ => None,
        };
        let Some(name) = given else { return Ok(logical.to_owned()) };
        if self.naming.get() > 16 {
            return fail(&path, "has a name that needs itself");
        }
        self.naming.set(self.naming.get() + 1);
        let name = self.text(name, &path);
        self.naming.set(self.naming.get() - 1);
        name
    }
}

fn tagged(function: &str, argument: &Yaml) -> serde_yaml_ng::value::TaggedValue {
    serde_yaml_ng::value::TaggedValue { tag: serde_yaml_ng::value::Tag::new(function), value: argument.clone() }
}

pub(super) fn scalar(value: &Json, path: &str) -> Result<String> {
    match value {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        Json::Bool(flag) => Ok(flag.to_string()),
        _ => fail(path, "must be a text, a number, or true or false"),
    }
}
