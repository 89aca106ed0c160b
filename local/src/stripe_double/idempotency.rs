//! API v1's idempotency layer. "Stripe saves the status code and body of the first request made with a
//! given idempotency key after endpoint execution begins. Retries with the same key return the saved
//! response, including 500 errors"; keys are pruned once they are 24 hours old, and used again after that
//! they run anew. <https://docs.stripe.com/api/idempotent_requests>

use std::collections::{HashMap, VecDeque};

use hyper::body::Bytes;

/// "Keys are removed … after they're at least 24 hours old." The double removes them at once.
pub(super) const KEY_LIFE_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Default)]
pub(super) struct Keys {
    /// By account the request is for (empty: the platform) and key.
    entries: HashMap<(String, String), Entry>,
    by_age: VecDeque<(i64, String, String)>,
}

#[derive(Debug)]
struct Entry {
    fingerprint: u128,
    first_ms: i64,
    answer: Option<Saved>,
}

#[derive(Debug, Clone)]
pub(super) struct Saved {
    pub status: u16,
    pub body: Bytes,
    pub request_id: String,
    pub object_id: Option<String>,
}

pub(super) enum Claim {
    /// First use, or first since the key was pruned.
    Run,
    Replay(Saved),
    OtherParameters,
    InUse,
}

impl Keys {
    pub(super) fn claim(&mut self, account: &str, key: &str, fingerprint: u128, now_ms: i64) -> Claim {
        self.prune(now_ms);
        let id = (account.to_owned(), key.to_owned());
        if let Some(entry) = self.entries.get(&id) {
            return if entry.fingerprint != fingerprint {
                Claim::OtherParameters
            } else {
                entry.answer.as_ref().map_or(Claim::InUse, |saved| Claim::Replay(saved.clone()))
            };
        }
        self.by_age.push_back((now_ms, id.0.clone(), id.1.clone()));
        self.entries.insert(id, Entry { fingerprint, first_ms: now_ms, answer: None });
        Claim::Run
    }

    /// The endpoint answered: kept from now on.
    pub(super) fn save(&mut self, account: &str, key: &str, saved: Saved) {
        if let Some(entry) = self.entries.get_mut(&(account.to_owned(), key.to_owned())) {
            entry.answer = Some(saved);
        }
    }

    /// The request never began to execute: the key is free again.
    pub(super) fn release(&mut self, account: &str, key: &str) {
        let id = (account.to_owned(), key.to_owned());
        if self.entries.get(&id).is_some_and(|entry| entry.answer.is_none()) {
            self.entries.remove(&id);
        }
    }

    pub(super) fn prune(&mut self, now_ms: i64) {
        while let Some((at, _, _)) = self.by_age.front() {
            if now_ms - *at < KEY_LIFE_MS {
                break;
            }
            let Some((at, account, key)) = self.by_age.pop_front() else {
                break;
            };
            let id = (account, key);
            // A released and reclaimed key has a later line in the queue.
            if self.entries.get(&id).is_some_and(|entry| entry.first_ms == at) {
                self.entries.remove(&id);
            }
        }
    }

    /// As if all keys had reached their age.
    pub(super) fn expire_all(&mut self) {
        self.entries.clear();
        self.by_age.clear();
    }
}
