//! Takes the properties of one thing apart: each is read once, and what nobody read or listed is an error.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml_ng::Value as Yaml;

use super::intrinsics::{Resolver, Result, entries, fail, kind_of};

pub(super) struct Properties<'a> {
    resolver: &'a Resolver<'a>,
    path: String,
    values: BTreeMap<String, Yaml>,
    seen: RefCell<BTreeSet<String>>,
}

impl<'a> Properties<'a> {
    pub(super) fn of(resolver: &'a Resolver<'a>, yaml: &Yaml, path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let values = entries(yaml, &path)?.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        Ok(Self { resolver, path, values, seen: RefCell::default() })
    }

    pub(super) fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// The raw value; asking for it counts as reading it.
    pub(super) fn raw(&self, key: &str) -> Option<&Yaml> {
        self.seen.borrow_mut().insert(key.to_owned());
        self.values.get(key)
    }

    /// Properties that mean nothing on one machine. Each list says why at its place.
    pub(super) fn known(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Fails for the first property that was neither read nor known.
    pub(super) fn finish(&self) -> Result<()> {
        match self.values.keys().find(|key| !self.seen.borrow().contains(*key)) {
            Some(key) => fail(&self.at(key), "is a property that the local runtime neither acts on nor knows to be harmless"),
            None => Ok(()),
        }
    }

    pub(super) fn json(&self, key: &str) -> Result<Option<Json>> {
        match self.raw(key) {
            Some(value) => self.resolver.resolve(value, &self.at(key)),
            None => Ok(None),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        self.json(key)?.map(|value| super::intrinsics::scalar(&value, &self.at(key))).transpose()
    }

    pub(super) fn required_text(&self, key: &str) -> Result<String> {
        match self.text(key)? {
            Some(text) => Ok(text),
            None => fail(&self.path, format!("has no {key}")),
        }
    }

    pub(super) fn number<N: TryFrom<i64>>(&self, key: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> Result<N> {
        let number = match self.text(key)? {
            Some(text) => match text.parse::<i64>() {
                Ok(number) if range.contains(&number) => number,
                _ => {
                    return fail(
                        &self.at(key),
                        format!("must be a whole number from {} to {}, not {text:?}", range.start(), range.end()),
                    );
                }
            },
            None => default,
        };
        N::try_from(number).or_else(|_| fail(&self.at(key), "is too large"))
    }

    pub(super) fn seconds(&self, key: &str, default: i64, range: std::ops::RangeInclusive<i64>) -> Result<Duration> {
        self.number::<u64>(key, default, range).map(Duration::from_secs)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.text(key)?.as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => fail(&self.at(key), format!("must be true or false, not {other:?}")),
        }
    }

    pub(super) fn nested(&self, key: &str) -> Result<Option<Properties<'a>>> {
        match self.raw(key) {
            None | Some(Yaml::Null) => Ok(None),
            Some(value @ Yaml::Mapping(_)) => Properties::of(self.resolver, value, self.at(key)).map(Some),
            Some(other) => fail(&self.at(key), format!("must be a mapping, not {}", kind_of(other))),
        }
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }
}
