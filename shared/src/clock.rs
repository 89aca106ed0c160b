//! The only file that reads the time, and the calendar of cycles.
//!
//! A cycle's date and cut-off come from the schedule's own time, never from the clock of the machine that happens to run;
//! `now` serves what really is about now: deadlines, leases, ages.

use std::time::Instant;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, SubsecRound, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[cfg(debug_assertions)]
tokio::task_local! {
    static PRETENDED: DateTime<Utc>;
}

/// Lets it be that instant for whatever runs meanwhile: for tests that live through months.
#[cfg(debug_assertions)]
pub async fn at<Work: Future>(instant: DateTime<Utc>, work: Work) -> Work::Output {
    PRETENDED.scope(instant, work).await
}

/// The instant now, in microseconds as Postgres keeps it.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> DateTime<Utc> {
    #[cfg(debug_assertions)]
    if let Ok(instant) = PRETENDED.try_with(|instant| *instant) {
        return instant;
    }
    Utc::now().trunc_subsecs(6)
}

/// A point of the monotonic clock, for measuring durations.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// When cycles are: at this hour of their date in this zone (`PAYOUT_HOUR`, `PAYOUT_TIMEZONE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    pub zone: Tz,
    pub hour: u32,
}

/// How often a payee is paid. `Manual` is never due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Semimonthly,
    Monthly,
    Weekly,
    Manual,
}

impl Schedule {
    pub const ALL: [Self; 4] = [Self::Semimonthly, Self::Monthly, Self::Weekly, Self::Manual];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Semimonthly => "semimonthly",
            Self::Monthly => "monthly",
            Self::Weekly => "weekly",
            Self::Manual => "manual",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|schedule| schedule.as_str() == text)
    }

    /// Whether a cycle of this schedule falls on the date.
    pub fn is_due_on(self, date: NaiveDate) -> bool {
        match self {
            Self::Semimonthly => matches!(date.day(), 1 | 15),
            Self::Monthly => date.day() == 1,
            Self::Weekly => date.weekday() == Weekday::Mon,
            Self::Manual => false,
        }
    }

    /// The schedules with a cycle on the date, in the order in which their runs are made.
    pub fn due_on(date: NaiveDate) -> Vec<Self> {
        Self::ALL.into_iter().filter(|schedule| schedule.is_due_on(date)).collect()
    }

    /// The first cycle of this schedule after the instant; none for `Manual`.
    pub fn next_after(self, instant: DateTime<Utc>, calendar: Calendar) -> Option<NaiveDate> {
        if self == Self::Manual {
            return None;
        }
        let mut date = calendar.date_of(instant);
        // Two months of days hold a cycle of every schedule.
        for _ in 0..62 {
            if self.is_due_on(date) && calendar.cutoff(date) > instant {
                return Some(date);
            }
            date = date.succ_opt()?;
        }
        None
    }
}

impl Calendar {
    /// The instant at which the cycle of a date is scheduled, which is also its cut-off. On a day when the clocks jump over
    /// that hour it is the first instant after the gap; when the hour comes twice, the first.
    pub fn cutoff(self, cycle_on: NaiveDate) -> DateTime<Utc> {
        let mut local = cycle_on.and_time(NaiveTime::from_hms_opt(self.hour, 0, 0).unwrap_or_default());
        for _ in 0..8 {
            if let Some(instant) = self.zone.from_local_datetime(&local).earliest() {
                return instant.with_timezone(&Utc);
            }
            local += chrono::Duration::minutes(30);
        }
        Utc.from_utc_datetime(&local)
    }

    /// The zone that somebody has chosen, else this one.
    pub fn zone_of(self, chosen: Option<&str>) -> Tz {
        chosen.and_then(|name| name.parse().ok()).unwrap_or(self.zone)
    }

    /// The date in the zone at an instant.
    pub fn date_of(self, instant: DateTime<Utc>) -> NaiveDate {
        instant.with_timezone(&self.zone).date_naive()
    }
}

/// Parses `2026-11-15`, nothing looser.
pub fn parse_date(text: &str) -> Result<NaiveDate> {
    // Without this a sign would pass for the first digit of the year.
    let strict = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && !text.starts_with('-');
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .filter(|_| strict)
        .ok_or_else(|| Error::field("cycleDate", format!("{text:?} is not a date; write it like 2026-11-15")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        parse_date(text).expect("a date")
    }

    #[test]
    fn each_schedule_is_due_on_its_days_only() {
        for (date, due) in [
            ("2026-11-01", vec![Schedule::Semimonthly, Schedule::Monthly]),
            ("2026-11-15", vec![Schedule::Semimonthly]),
            ("2026-11-16", vec![Schedule::Weekly]),
            ("2026-06-01", vec![Schedule::Semimonthly, Schedule::Monthly, Schedule::Weekly]),
            ("2026-11-17", vec![]),
        ] {
            assert_eq!(Schedule::due_on(day(date)), due, "{date}");
        }
    }

    fn six(zone: &str) -> Calendar {
        Calendar { zone: zone.parse().expect("a zone"), hour: 6 }
    }

    #[test]
    fn the_cutoff_is_six_in_the_zone_and_follows_daylight_saving() {
        assert_eq!(six("Europe/Berlin").cutoff(day("2026-07-15")).to_rfc3339(), "2026-07-15T04:00:00+00:00");
        assert_eq!(six("Europe/Berlin").cutoff(day("2026-11-15")).to_rfc3339(), "2026-11-15T05:00:00+00:00");
        assert_eq!(six("UTC").cutoff(day("2026-11-15")).to_rfc3339(), "2026-11-15T06:00:00+00:00");
    }

    #[test]
    fn a_cutoff_in_the_hour_that_the_clocks_skip_is_right_after_it() {
        let two = Calendar { hour: 2, ..six("Europe/Berlin") };
        assert_eq!(two.cutoff(day("2026-03-29")).to_rfc3339(), "2026-03-29T01:00:00+00:00");
    }

    #[test]
    fn the_next_cycle_is_the_first_whose_cutoff_is_still_to_come() {
        let at = six("UTC").cutoff(day("2026-11-15"));
        assert_eq!(Schedule::Semimonthly.next_after(at - chrono::Duration::seconds(1), six("UTC")), Some(day("2026-11-15")));
        assert_eq!(Schedule::Semimonthly.next_after(at, six("UTC")), Some(day("2026-12-01")));
        assert_eq!(Schedule::Manual.next_after(at, six("UTC")), None);
    }

    #[test]
    fn a_date_is_read_strictly() {
        for wrong in ["2026-11-31", "2026-1-15", "15.11.2026", "", "2026-11-15T06:00", "+026-11-15", "-026-11-15"] {
            assert!(parse_date(wrong).is_err(), "{wrong}");
        }
    }
}
