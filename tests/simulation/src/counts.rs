//! What a run exercised, so that one that exercises nothing is seen.

use std::collections::BTreeMap;
use std::fmt;

/// How often what happened, by kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<(&'static str, &'static str), u64>);

impl Counts {
    pub fn add(&mut self, kind: &'static str, name: &'static str) {
        self.add_many(kind, name, 1);
    }

    pub fn add_many(&mut self, kind: &'static str, name: &'static str, times: u64) {
        *self.0.entry((kind, name)).or_default() += times;
    }

    pub fn merge(&mut self, other: &Self) {
        for ((kind, name), times) in &other.0 {
            self.add_many(kind, name, *times);
        }
    }

    pub fn of(&self, kind: &'static str, name: &'static str) -> u64 {
        self.0.get(&(kind, name)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Counts {
    /// One line per kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for ((kind, name), times) in &self.0 {
            match *kind == last {
                true => write!(f, ", {name} {times}")?,
                false if last.is_empty() => write!(f, "{kind}: {name} {times}")?,
                false => write!(f, "\n{kind}: {name} {times}")?,
            }
            last = kind;
        }
        Ok(())
    }
}
