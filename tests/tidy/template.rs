//! `template.yaml` as the rules see it.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml_ng::Value;

use crate::files;

/// The parsed template. `!Ref X` and the like stay tagged values.
pub struct Template(Value);

/// One Lambda function of the template.
pub struct Function<'a> {
    pub id: String,
    pub folder: String,
    pub properties: &'a Value,
    /// Environment variables with what they are made of, those of Globals included.
    pub environment: BTreeMap<String, &'a Value>,
    pub role: &'a Value,
}

impl Template {
    pub fn load() -> Self {
        Self(serde_yaml_ng::from_str(&files::read("template.yaml")).expect("template.yaml is YAML"))
    }

    pub fn section(&self, name: &str) -> BTreeMap<String, &Value> {
        entries(self.0.get(name).unwrap_or_else(|| panic!("template.yaml has no {name}")))
    }

    pub fn resources_of_type(&self, kind: &str) -> BTreeMap<String, &Value> {
        let all = self.section("Resources").into_iter();
        all.filter(|(_, resource)| resource.get("Type").and_then(Value::as_str) == Some(kind)).collect()
    }

    pub fn functions(&self) -> Vec<Function<'_>> {
        let globals = self.0.get("Globals").and_then(|globals| globals.get("Function"));
        let shared = globals.and_then(|function| function.get("Environment")?.get("Variables")).map(entries).unwrap_or_default();
        let function = |(id, resource): (String, &'_ Value)| -> Function<'_> {
            let folder = resource.get("Metadata").and_then(|metadata| metadata.get("BuildProperties")?.get("Binary")?.as_str());
            let folder = folder.unwrap_or_else(|| panic!("{id} has no Metadata.BuildProperties.Binary")).to_owned();
            // Borrowed from the template itself, not from the map that was made of it.
            let properties = self.at(&["Resources", &id, "Properties"]);
            let own = properties.get("Environment").and_then(|environment| environment.get("Variables")).map(entries);
            let environment = shared.clone().into_iter().chain(own.unwrap_or_default()).collect();
            let role = properties.get("Role").map(text).unwrap_or_default();
            let role = role.split('.').next().unwrap_or_default().to_owned();
            assert!(role.ends_with("Role"), "{id} has no Role of its own; write `Role: !GetAtt <Name>Role.Arn`");
            Function { folder, properties, environment, role: self.at(&["Resources", &role, "Properties"]), id }
        };
        let found: Vec<_> = self.resources_of_type("AWS::Serverless::Function").into_iter().map(function).collect();
        assert!(found.len() >= 8, "template.yaml has only {} functions", found.len());
        found
    }

    pub fn at(&self, path: &[&str]) -> &Value {
        path.iter()
            .fold(&self.0, |value, key| value.get(*key).unwrap_or_else(|| panic!("template.yaml has no {}", path.join("."))))
    }

    /// The function that an event source feeds from the queue.
    pub fn consumer<'a>(functions: &'a [Function<'a>], queue: &str) -> Option<&'a Function<'a>> {
        functions.iter().find(|function| {
            function.events("SQS").iter().any(|event| event.get("Queue").is_some_and(|value| mentions(value).contains(queue)))
        })
    }
}

impl<'a> Function<'a> {
    /// The properties of its events of one type.
    pub fn events(&self, kind: &str) -> Vec<&'a Value> {
        let events = self.properties.get("Events").map(entries).unwrap_or_default().into_values();
        events
            .filter(|event| event.get("Type").and_then(Value::as_str) == Some(kind))
            .filter_map(|event| event.get("Properties"))
            .collect()
    }

    /// The statements of its role: actions, and the resources or parameters named there.
    pub fn statements(&self) -> Vec<(BTreeSet<String>, BTreeSet<String>)> {
        let policies = self.role.get("Policies").and_then(Value::as_sequence).into_iter().flatten();
        let statements = policies.filter_map(|policy| policy.get("PolicyDocument")?.get("Statement")?.as_sequence()).flatten();
        let part = |statement: &Value, name: &str, read: fn(&Value) -> BTreeSet<String>| {
            statement.get(name).map(read).unwrap_or_default()
        };
        statements.map(|statement| (part(statement, "Action", strings), part(statement, "Resource", mentions))).collect()
    }

    /// What its role allows for an action.
    pub fn allowed(&self, action: &str) -> BTreeSet<String> {
        self.statements()
            .into_iter()
            .filter(|(actions, _)| actions.contains(action))
            .flat_map(|(_, resources)| resources)
            .collect()
    }

    pub fn timeout(&self) -> u64 {
        self.properties.get("Timeout").and_then(Value::as_u64).unwrap_or_else(|| panic!("{} has no Timeout", self.id))
    }
}

/// A mapping as a map with text keys.
pub fn entries(value: &Value) -> BTreeMap<String, &Value> {
    let mapping = value.as_mapping().into_iter().flatten();
    mapping.filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value))).collect()
}

/// A scalar as it would be written, tags ignored.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Tagged(tagged) => text(&tagged.value),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => String::new(),
    }
}

/// Every scalar somewhere inside.
pub fn strings(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Sequence(items) => items.iter().flat_map(strings).collect(),
        Value::Mapping(mapping) => mapping.values().flat_map(strings).collect(),
        Value::Tagged(tagged) => strings(&tagged.value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::from([text(value)]),
    }
}

/// The logical ids and parameters that a value names through `!Ref`, `!GetAtt` or `!If`.
pub fn mentions(value: &Value) -> BTreeSet<String> {
    strings(value).into_iter().map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect()
}

/// `HOLD_DAYS` → `HoldDays`.
pub fn pascal_case(variable: &str) -> String {
    let word = |word: &str| {
        word.chars().enumerate().map(|(at, letter)| if at == 0 { letter } else { letter.to_ascii_lowercase() }).collect()
    };
    variable.split('_').map(word).collect::<Vec<String>>().concat()
}
