//! Faults on order: which calls they meet, how often, and what goes wrong then. What each does to the
//! idempotency key is part of its description, because that is what a client can get wrong.

use serde::{Deserialize, Serialize};

use super::errors::ApiError;
use super::ids::mix;

/// One order. The first rule that matches a call and is due decides it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// `GET`, `POST`; none: any.
    #[serde(default)]
    pub method: Option<String>,
    /// Path with `*` for any text: `/v1/transfers`, `/v1/payouts/*`.
    pub path: String,
    /// Only calls made in the name of, or (a transfer) to, this account.
    #[serde(default)]
    pub account: Option<String>,
    #[serde(default)]
    pub when: When,
    pub action: Fault,
}

impl FaultRule {
    pub fn post(path: &str, when: When, action: Fault) -> Self {
        Self { method: Some("POST".to_owned()), path: path.to_owned(), account: None, when, action }
    }

    pub fn get(path: &str, when: When, action: Fault) -> Self {
        Self { method: Some("GET".to_owned()), path: path.to_owned(), account: None, when, action }
    }

    pub fn for_account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }
}

/// Which of the matching calls, counted from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    #[default]
    Always,
    /// The n-th only.
    Nth(u64),
    /// The first n.
    First(u64),
    /// From the n-th on.
    From(u64),
    /// Every n-th.
    Every(u64),
    /// So many of a million, by this seed.
    PerMillion { chance: u64, seed: u64 },
}

impl When {
    pub(super) fn is_due(self, seen: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(n) => seen == n,
            Self::First(n) => seen <= n,
            Self::From(n) => seen >= n,
            Self::Every(n) => n > 0 && seen.is_multiple_of(n),
            Self::PerMillion { chance, seed } => mix(seed ^ mix(seen)) % 1_000_000 < chance,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    // Nothing is executed, the key stays free.
    /// Never answers.
    TimeoutBefore,
    /// Closes the connection with a reset.
    ResetBefore,
    /// A 500 of the edge, not kept under the key.
    Error500Before,
    /// An HTML page with this status (502, 503, 504).
    Html {
        status: u16,
    },
    RateLimited {
        reason: String,
        retry_after: Option<u32>,
    },
    LockTimeout,
    Unauthorized,
    Forbidden,
    AccountInvalid,
    KeyInUse,
    /// The listener closes, open connections are cut, and after so long it listens again.
    Refused {
        for_ms: u64,
    },

    // Nothing is executed, but the answer is kept under the key.
    /// A 500 from inside the endpoint.
    Error500Stored,
    NotFound,
    BalanceInsufficient,
    /// Any other answer of the endpoint.
    Error {
        status: u16,
        code: String,
        message: String,
        stored: bool,
    },

    // Executed; the key keeps the true answer unless said otherwise.
    /// Never answers.
    ExecuteThenHang,
    ExecuteThenReset,
    /// A 500, which is also what the key keeps.
    ExecuteThen500,
    ExecuteThenHtml {
        status: u16,
    },
    /// The first half of the body, then the connection ends.
    Truncated,
    /// `status`, or `type` where there is none, has a value nobody knows; so has `source_type`.
    UnknownEnum,
    /// This field of the answer is absent.
    MissingField {
        name: String,
    },
    /// The answer's `amount` is off by one.
    WrongAmount,
    WrongDestination,
    WrongCurrency,
    /// 200, but not JSON.
    Garbage,
    /// All well, but this much later.
    Slow {
        ms: u64,
    },
}

impl Fault {
    /// The refusal it stands for, when it refuses before anything runs.
    pub(super) fn refusal(&self, key: &str, account: &str) -> Option<ApiError> {
        match self {
            Self::Error500Before => Some(ApiError::server(false)),
            Self::RateLimited { reason, retry_after } => {
                let mut error = ApiError::rate_limited(reason);
                error.retry_after = *retry_after;
                Some(error)
            }
            Self::LockTimeout => Some(ApiError::lock_timeout()),
            Self::Unauthorized => {
                Some(ApiError::unauthorized(format!("Invalid API Key provided: {}", super::errors::masked(key))))
            }
            Self::Forbidden => Some(ApiError::forbidden(key)),
            Self::AccountInvalid => Some(ApiError::account_invalid(key, account)),
            Self::KeyInUse => Some(ApiError::key_in_use("…")),
            _ => None,
        }
    }

    /// What the endpoint answers in place of executing.
    pub(super) fn instead(&self, account: &str) -> Option<ApiError> {
        match self {
            Self::Error500Stored => Some(ApiError::server(true)),
            Self::NotFound => Some(ApiError::no_such("account", account)),
            Self::BalanceInsufficient => Some(ApiError::balance_insufficient()),
            Self::Error { status, code, message, stored } => {
                let mut error = ApiError::refused(code, message.clone()).status(*status);
                error.saved = *stored;
                if *status >= 500 {
                    error.kind = "api_error";
                }
                Some(error)
            }
            _ => None,
        }
    }

    /// Bends a good answer on its way out.
    pub(super) fn bend(&self, body: &[u8]) -> Option<Vec<u8>> {
        if *self == Self::Garbage {
            return Some(b"\x1f\x8b\x00not json at all".to_vec());
        }
        let mut value: serde_json::Value = match self {
            Self::UnknownEnum | Self::MissingField { .. } | Self::WrongAmount | Self::WrongDestination | Self::WrongCurrency => {
                serde_json::from_slice(body).ok()?
            }
            _ => return None,
        };
        let object = value.as_object_mut()?;
        match self {
            Self::UnknownEnum => {
                let field = if object.contains_key("status") { "status" } else { "type" };
                object.insert(field.to_owned(), "from_the_future".into());
                object.insert("source_type".to_owned(), "from_the_future".into());
                if object.contains_key("reconciliation_status") {
                    object.insert("reconciliation_status".to_owned(), "from_the_future".into());
                }
            }
            Self::MissingField { name } => {
                object.remove(name);
            }
            Self::WrongAmount => {
                let amount = object.get("amount").and_then(serde_json::Value::as_i64).unwrap_or(0);
                object.insert("amount".to_owned(), (amount + 1).into());
            }
            Self::WrongDestination => {
                object.insert("destination".to_owned(), "acct_1Psomebodyelse".into());
            }
            Self::WrongCurrency => {
                let other = if object.get("currency").and_then(serde_json::Value::as_str) == Some("eur") { "usd" } else { "eur" };
                object.insert("currency".to_owned(), other.into());
            }
            _ => {}
        }
        serde_json::to_vec(&value).ok()
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Ordered>,
    next_id: u64,
}

#[derive(Debug)]
struct Ordered {
    id: u64,
    rule: FaultRule,
    seen: u64,
    fired: u64,
}

/// How often a rule has met a call, and how often it acted.
#[derive(Debug, Clone, Serialize)]
pub struct FaultCount {
    pub id: u64,
    pub seen: u64,
    pub fired: u64,
    pub rule: FaultRule,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) -> u64 {
        self.next_id += 1;
        self.rules.push(Ordered { id: self.next_id, rule, seen: 0, fired: 0 });
        self.next_id
    }

    pub(super) fn remove(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|r| r.id != id);
        self.rules.len() < before
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn counts(&self) -> Vec<FaultCount> {
        self.rules.iter().map(|r| FaultCount { id: r.id, seen: r.seen, fired: r.fired, rule: r.rule.clone() }).collect()
    }

    pub(super) fn pick(&mut self, method: &str, path: &str, account: &str, destination: &str) -> Option<Fault> {
        let mut chosen = None;
        for ordered in &mut self.rules {
            let rule = &ordered.rule;
            if rule.method.as_deref().is_some_and(|m| m != method)
                || rule.account.as_deref().is_some_and(|a| a != account && a != destination)
                || !matches_pattern(&rule.path, path)
            {
                continue;
            }
            ordered.seen += 1;
            if chosen.is_none() && rule.when.is_due(ordered.seen) {
                ordered.fired += 1;
                chosen = Some(rule.action.clone());
            }
        }
        chosen
    }
}

/// `*` stands for any text, also none.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut rest = rest;
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
