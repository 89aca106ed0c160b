//! The double's own time. Either the machine's clock plus an offset, or a clock that stands still until
//! a test moves it; key expiry, pending funds, payout progress and rate limits all follow this one.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the double's time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockMode {
    /// The machine's clock; `advance` adds an offset.
    Real,
    /// Stands still at this unix time (milliseconds) until `advance` or `set`.
    Manual {
        /// Unix time in milliseconds at which the clock starts.
        start_ms: i64,
    },
}

#[derive(Debug)]
pub(super) struct DoubleClock {
    manual: bool,
    /// Manual: the time itself. Real: what is added to the machine's time.
    value_ms: AtomicI64,
}

impl DoubleClock {
    pub(super) fn new(mode: ClockMode) -> Self {
        match mode {
            ClockMode::Real => Self { manual: false, value_ms: AtomicI64::new(0) },
            ClockMode::Manual { start_ms } => Self { manual: true, value_ms: AtomicI64::new(start_ms) },
        }
    }

    pub(super) fn is_manual(&self) -> bool {
        self.manual
    }

    /// Unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        let value = self.value_ms.load(Ordering::Acquire);
        if self.manual { value } else { machine_ms() + value }
    }

    pub(super) fn advance_ms(&self, by_ms: i64) {
        self.value_ms.fetch_add(by_ms, Ordering::AcqRel);
    }

    pub(super) fn set_ms(&self, to_ms: i64) {
        let value = if self.manual { to_ms } else { to_ms - machine_ms() };
        self.value_ms.store(value, Ordering::Release);
    }
}

/// The machine's own unix milliseconds: what signatures of webhooks carry by default, because the
/// receiver compares them with its own clock.
pub(super) fn machine_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}
