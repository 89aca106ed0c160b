//! What goes wrong between us and the fake Stripe: each trouble lasts for a while and strikes a part of the calls.

use chrono::{DateTime, Duration, Utc};
use fastrand::Rng;

/// What may happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// 429, with a reason or without.
    RateLimited,
    LockTimeout,
    /// The connection is refused: nothing was sent.
    Refused,
    /// 503 before anything happened.
    Unavailable,
    /// The request is lost.
    TimeoutBefore,
    /// It is run; the answer is lost.
    TimeoutAfter,
    /// It is run some seconds after the caller has given up.
    RunLate,
    /// A 500 that is remembered under the key; nothing was run.
    StoredError,
    /// A 500 that is remembered under the key, though it was run.
    ErrorAfter,
    /// The answer is cut off.
    Truncated,
    /// The answer tells of another amount.
    OtherAmount,
}

impl Mishap {
    pub const ALL: [Self; 11] = [
        Self::RateLimited,
        Self::LockTimeout,
        Self::Refused,
        Self::Unavailable,
        Self::TimeoutBefore,
        Self::TimeoutAfter,
        Self::RunLate,
        Self::StoredError,
        Self::ErrorAfter,
        Self::Truncated,
        Self::OtherAmount,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "429",
            Self::LockTimeout => "lock_timeout",
            Self::Refused => "connection refused",
            Self::Unavailable => "503",
            Self::TimeoutBefore => "timeout before it was run",
            Self::TimeoutAfter => "timeout after it was run",
            Self::RunLate => "run after the caller gave up",
            Self::StoredError => "stored 500, not run",
            Self::ErrorAfter => "500 after it was run",
            Self::Truncated => "truncated answer",
            Self::OtherAmount => "answer with another amount",
        }
    }
}

/// A time of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Stripe is away.
    Outage,
    /// So many of a thousand calls meet this mishap.
    Flaky(Mishap, u32),
    /// Our key is refused.
    KeyRevoked,
    /// Lists do not show what is younger than this.
    SlowLists(i64),
}

#[derive(Debug, Clone, Default)]
pub struct Weather {
    troubles: Vec<(DateTime<Utc>, Trouble)>,
}

impl Weather {
    pub fn add(&mut self, trouble: Trouble, until: DateTime<Utc>) {
        self.troubles.push((until, trouble));
    }

    pub fn clear(&mut self) {
        self.troubles.clear();
    }

    fn now(&mut self, now: DateTime<Utc>) -> impl Iterator<Item = Trouble> + '_ {
        self.troubles.retain(|(until, _)| *until > now);
        self.troubles.iter().map(|(_, trouble)| *trouble)
    }

    pub fn is_key_revoked(&mut self, now: DateTime<Utc>) -> bool {
        self.now(now).any(|trouble| trouble == Trouble::KeyRevoked)
    }

    pub fn is_out(&mut self, now: DateTime<Utc>) -> bool {
        self.now(now).any(|trouble| trouble == Trouble::Outage)
    }

    pub fn mishap(&mut self, now: DateTime<Utc>, luck: &mut Rng) -> Option<Mishap> {
        let mut found = None;
        for trouble in self.now(now) {
            match trouble {
                Trouble::Outage => {
                    let ways = [Mishap::Refused, Mishap::Unavailable, Mishap::TimeoutBefore, Mishap::TimeoutAfter];
                    found = Some(ways[luck.usize(..ways.len())]);
                }
                Trouble::Flaky(mishap, per_mille) if luck.u32(..1_000) < per_mille => found = Some(mishap),
                Trouble::Flaky(..) | Trouble::KeyRevoked | Trouble::SlowLists(_) => {}
            }
        }
        found
    }

    /// How old an object must be to be listed.
    pub fn list_delay(&mut self, now: DateTime<Utc>) -> Duration {
        let slow = |trouble| if let Trouble::SlowLists(seconds) = trouble { Some(seconds) } else { None };
        Duration::seconds(self.now(now).filter_map(slow).max().unwrap_or(0))
    }
}
