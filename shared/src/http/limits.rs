//! How often one caller may call: a bucket of requests each, so that a flood of one takes nothing from the others.
//!
//! Known callers are counted by who they are, so a whole office behind one address is many callers; those who are turned away
//! are counted by their address. The buckets are in this process's memory: a flood costs no statement and never reaches the
//! database. Lambda runs several processes, so a caller may get up to as many times the rate. That still keeps one from
//! crowding out the rest; being exact would cost every request two more round trips. All callers together are bounded by API
//! Gateway's throttle (template.yaml), which knows no callers and never says when to come back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use lambda_http::request::RequestContext;
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, Kind, Result};

/// The holder of the cron secret is the platform's own machinery, which reports earnings as they come.
const CRON_TIMES: u32 = 10;
/// Seconds of requests that may come at once.
const BURST_SECONDS: u32 = 2;
/// Above so many callers, those whose bucket is full again are forgotten.
const MOST_CALLERS: usize = 10_000;

/// Whose bucket it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Cron,
    User(Uuid),
    /// Turned away, from this address.
    Stranger(String),
}

impl Who {
    /// The address is API Gateway's word; what a client says of itself (`X-Forwarded-For`) is not believed.
    pub(super) fn stranger(parts: &Parts) -> Self {
        let address = match parts.extensions.get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.clone(),
            _ => None,
        };
        Self::Stranger(address.unwrap_or_default())
    }
}

/// Cheap to clone; clones share their buckets.
#[derive(Clone)]
pub struct Limits {
    per_second: u32,
    // When each bucket will be full again: that one instant is all there is to know of a bucket.
    full_at: Arc<Mutex<HashMap<Who, Instant>>>,
}

impl Limits {
    /// Requests that a caller may make each second; zero is any number.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, full_at: Arc::default() }
    }

    /// Counts a request of this caller, or refuses it.
    pub(super) fn count(&self, who: Who) -> Result<()> {
        self.take(who, clock::monotonic()).map_err(|wait| {
            let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
            let message = format!("Too many requests; try again in {seconds} s.");
            Error::new(Kind::RateLimited { retry_after_seconds: seconds }, "RATE_LIMITED", message)
        })
    }

    /// Takes one request out of the bucket; the error is how long it takes until there is one in it.
    fn take(&self, who: Who, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let rate = if who == Who::Cron { self.per_second.saturating_mul(CRON_TIMES) } else { self.per_second };
        let one = Duration::from_secs(1) / rate;
        let all = one * rate.saturating_mul(BURST_SECONDS);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MOST_CALLERS {
            full_at.retain(|_, at| *at > now);
        }
        let then = full_at.get(&who).map_or(now, |at| (*at).max(now)) + one;
        match (then - now).checked_sub(all) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                full_at.insert(who, then);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u128) -> Who {
        Who::User(Uuid::from_u128(number))
    }

    #[test]
    fn a_flood_of_one_caller_takes_nothing_from_another() {
        let (limits, now) = (Limits::new(5), clock::monotonic());
        let taken = |who: Who, at| (0..1_000).filter(|_| limits.take(who.clone(), at).is_ok()).count();
        assert_eq!(taken(user(1), now), 10);
        assert_eq!(taken(user(2), now), 10);
        assert_eq!(taken(Who::Stranger("192.0.2.1".to_owned()), now), 10);
        assert_eq!(taken(Who::Cron, now), 100);
        // What was refused is not counted: a second later there is a second's worth again, and never more than two.
        assert_eq!(taken(user(1), now + Duration::from_secs(1)), 5);
        assert_eq!(taken(user(1), now + Duration::from_secs(3_600)), 10);
    }

    #[test]
    fn who_waits_as_long_as_told_is_served() {
        let (limits, now) = (Limits::new(2), clock::monotonic());
        for _ in 0..4 {
            limits.take(user(1), now).expect("room");
        }
        let wait = limits.take(user(1), now).expect_err("no room");
        assert_eq!(wait, Duration::from_millis(500));
        assert!(limits.take(user(1), now + wait - Duration::from_millis(1)).is_err());
        assert!(limits.take(user(1), now + wait).is_ok());
        let refused = (0..5).find_map(|_| limits.count(user(3)).err()).expect("a refusal");
        assert_eq!(refused.kind, Kind::RateLimited { retry_after_seconds: 1 });
    }

    #[test]
    fn callers_who_went_away_are_forgotten_and_no_limit_is_none() {
        let (limits, now) = (Limits::new(1), clock::monotonic());
        for number in 0..u128::try_from(MOST_CALLERS).expect("a number") {
            limits.take(user(number), now).expect("room");
        }
        let later = now + Duration::from_secs(2);
        limits.take(user(0), later).expect("room");
        assert_eq!(limits.full_at.lock().expect("a lock").len(), 1);
        let none = Limits::new(0);
        assert!((0..100_000).all(|_| none.take(user(1), now).is_ok()));
    }
}
