//! When a schedule is due: EventBridge Scheduler's `cron(…)`, `rate(…)` and `at(…)`, in the schedule's time zone.
//!
//! Written here because the cron crates follow Unix: they count weekdays from 0 and run a job whose time the clocks skip
//! in spring a little later. AWS counts from 1 (Sunday), wants `?` in one of the two day fields, leaves a skipped time out,
//! and runs a time that comes twice in autumn once.

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

/// A parsed schedule expression with its time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    kind: Kind,
    timezone: Tz,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Rate(TimeDelta),
    At(NaiveDateTime),
    Cron(Box<Cron>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cron {
    minutes: Vec<u32>,
    hours: Vec<u32>,
    days: Option<Vec<DayOfMonth>>,
    months: Vec<u32>,
    weekdays: Option<Vec<DayOfWeek>>,
    years: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DayOfMonth {
    Day(u32),
    Last,
    NearestWeekday(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DayOfWeek {
    Every(u32),
    Nth(u32, u32),
    Last(u32),
}

impl Timing {
    pub fn parse(expression: &str, timezone: &str) -> Result<Self, String> {
        let timezone: Tz = timezone.parse().map_err(|_| format!("names the time zone {timezone:?}, which does not exist"))?;
        let expression = expression.trim();
        let inside = |head: &str| expression.strip_prefix(head).and_then(|rest| rest.strip_suffix(')')).map(str::trim);
        let wrong = |why: &str| format!("is {expression:?}: {why}");
        let kind = if let Some(rate) = inside("rate(") {
            Kind::Rate(parse_rate(rate).ok_or_else(|| wrong("a rate is like rate(1 minute) or rate(5 hours)"))?)
        } else if let Some(at) = inside("at(") {
            let at = NaiveDateTime::parse_from_str(at, "%Y-%m-%dT%H:%M:%S");
            Kind::At(at.map_err(|_| wrong("a time is like at(2026-11-15T06:00:00)"))?)
        } else if let Some(fields) = inside("cron(") {
            Kind::Cron(Box::new(Cron::parse(fields).map_err(|why| wrong(&why))?))
        } else {
            return Err(wrong("it must be cron(…), rate(…) or at(…)"));
        };
        Ok(Self { kind, timezone })
    }

    pub fn is_once(&self) -> bool {
        matches!(self.kind, Kind::At(_))
    }

    /// The first instant after `after` at which the schedule is due. A rate counts from `created`.
    pub fn next(&self, after: DateTime<Utc>, created: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.kind {
            Kind::Rate(step) => {
                let step = step.num_milliseconds();
                let passed = (after - created).num_milliseconds().div_euclid(step).max(0);
                created.checked_add_signed(TimeDelta::milliseconds(step.checked_mul(passed + 1)?))
            }
            Kind::At(at) => self.instant(*at).filter(|at| *at > after),
            Kind::Cron(cron) => {
                let mut day = after.with_timezone(&self.timezone).date_naive();
                // Every date that can ever be due lies within AWS's years; a 29 February is at most eight years off.
                while day.year() <= 2199 {
                    if cron.is_day(day) {
                        for hour in &cron.hours {
                            for minute in &cron.minutes {
                                let local = day.and_hms_opt(*hour, *minute, 0)?;
                                if let Some(instant) = self.instant(local).filter(|instant| *instant > after) {
                                    return Some(instant);
                                }
                            }
                        }
                    }
                    day = day.checked_add_days(Days::new(1))?;
                }
                None
            }
        }
    }

    /// The instant of a local time: none if the clocks skip it, the first if they show it twice.
    fn instant(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self.timezone.from_local_datetime(&local) {
            MappedLocalTime::Single(instant) | MappedLocalTime::Ambiguous(instant, _) => Some(instant.with_timezone(&Utc)),
            MappedLocalTime::None => None,
        }
    }
}

fn parse_rate(text: &str) -> Option<TimeDelta> {
    let (count, unit) = text.split_once(' ')?;
    let count: i64 = count.parse().ok().filter(|count| *count > 0)?;
    let minutes = match unit.trim() {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 1440,
        _ => return None,
    };
    TimeDelta::try_minutes(count.checked_mul(minutes)?)
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Cron {
    fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays, years] = fields[..] else {
            return Err("it needs six fields: minutes hours day-of-month month day-of-week year".to_owned());
        };
        if (days == "?") == (weekdays == "?") {
            return Err("exactly one of day-of-month and day-of-week must be ?".to_owned());
        }
        Ok(Self {
            minutes: numbers(minutes, 0, 59, &[], "minutes")?,
            hours: numbers(hours, 0, 23, &[], "hours")?,
            months: numbers(months, 1, 12, &MONTHS, "month")?,
            years: numbers(years, 1970, 2199, &[], "year")?,
            days: if days == "?" { None } else { Some(split(days).map(day_of_month).collect::<Result<Vec<_>, _>>()?.concat()) },
            weekdays: if weekdays == "?" {
                None
            } else {
                Some(split(weekdays).map(day_of_week).collect::<Result<Vec<_>, _>>()?.concat())
            },
        })
    }

    fn is_day(&self, date: NaiveDate) -> bool {
        let year = u32::try_from(date.year()).unwrap_or(0);
        let day = |day: &DayOfMonth| match day {
            DayOfMonth::Day(day) => date.day() == *day,
            DayOfMonth::Last => date.day() == last_day(date),
            DayOfMonth::NearestWeekday(day) => nearest_weekday(date, *day) == Some(date),
        };
        let weekday = |weekday: &DayOfWeek| {
            let today = date.weekday().num_days_from_sunday() + 1;
            match weekday {
                DayOfWeek::Every(every) => today == *every,
                DayOfWeek::Nth(every, nth) => today == *every && date.day0() / 7 + 1 == *nth,
                DayOfWeek::Last(every) => today == *every && date.day() + 7 > last_day(date),
            }
        };
        self.years.contains(&year)
            && self.months.contains(&date.month())
            && self.days.as_ref().is_none_or(|days| days.iter().any(day))
            && self.weekdays.as_ref().is_none_or(|weekdays| weekdays.iter().any(weekday))
    }
}

fn split(field: &str) -> impl Iterator<Item = &str> {
    field.split(',')
}

fn last_day(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// The working day next to that day, never in another month.
fn nearest_weekday(date: NaiveDate, day: u32) -> Option<NaiveDate> {
    let wanted = date.with_day(day)?;
    match wanted.weekday() {
        Weekday::Sat => {
            wanted.pred_opt().filter(|moved| moved.month() == wanted.month()).or_else(|| wanted.checked_add_days(Days::new(2)))
        }
        Weekday::Sun => {
            wanted.succ_opt().filter(|moved| moved.month() == wanted.month()).or_else(|| wanted.checked_sub_days(Days::new(2)))
        }
        _ => Some(wanted),
    }
}

fn day_of_month(item: &str) -> Result<Vec<DayOfMonth>, String> {
    if item == "L" {
        return Ok(vec![DayOfMonth::Last]);
    }
    if let Some(day) = item.strip_suffix('W') {
        let day = numbers(day, 1, 31, &[], "day-of-month")?;
        return Ok(day.into_iter().map(DayOfMonth::NearestWeekday).collect());
    }
    Ok(numbers(item, 1, 31, &[], "day-of-month")?.into_iter().map(DayOfMonth::Day).collect())
}

fn day_of_week(item: &str) -> Result<Vec<DayOfWeek>, String> {
    let one = |text: &str| match numbers(text, 1, 7, &WEEKDAYS, "day-of-week")?[..] {
        [day] => Ok(day),
        _ => Err(format!("{item:?} is no day-of-week")),
    };
    if let Some((day, nth)) = item.split_once('#') {
        let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth)).ok_or_else(|| format!("{item:?} is no day-of-week"))?;
        return Ok(vec![DayOfWeek::Nth(one(day)?, nth)]);
    }
    if item == "L" {
        return Ok(vec![DayOfWeek::Every(7)]);
    }
    if let Some(day) = item.strip_suffix('L') {
        return Ok(vec![DayOfWeek::Last(one(day)?)]);
    }
    Ok(numbers(item, 1, 7, &WEEKDAYS, "day-of-week")?.into_iter().map(DayOfWeek::Every).collect())
}

/// `*`, `5`, `1-5`, `0/15`, `MON-FRI`, and lists of them, in order.
fn numbers(field: &str, least: u32, most: u32, names: &[&str], what: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("{field:?} is no {what} ({least} to {most})");
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(index) => u32::try_from(index).ok().map(|index| index + 1),
            None => text.parse().ok(),
        };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(wrong)
    };
    let mut found = Vec::new();
    for item in split(field) {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|step| *step > 0).ok_or_else(wrong)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, if step.is_some() { most } else { number(range)? }),
        };
        if first > last {
            return Err(wrong());
        }
        found.extend((first..=last).step_by(step.unwrap_or(1)));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(expression: &str, timezone: &str, after: &str, count: usize) -> Vec<String> {
        let timing = Timing::parse(expression, timezone).expect("the test's expression is right");
        let mut at: DateTime<Utc> = after.parse().expect("the test's instant is right");
        let created = at;
        let mut found = Vec::new();
        while found.len() < count {
            let Some(next) = timing.next(at, created) else { break };
            found.push(next.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
            at = next;
        }
        found
    }

    #[test]
    fn a_schedule_is_due_when_aws_says() {
        for (expression, timezone, after, expected) in [
            ("cron(0 6 1,15 * ? *)", "UTC", "2026-11-01T06:00:00Z", vec!["2026-11-15T06:00:00Z", "2026-12-01T06:00:00Z"]),
            (
                "cron(0 6 1 * ? *)",
                "America/New_York",
                "2026-10-15T00:00:00Z",
                vec!["2026-11-01T11:00:00Z", "2026-12-01T11:00:00Z"],
            ),
            ("cron(0 6 ? * MON *)", "UTC", "2026-11-14T00:00:00Z", vec!["2026-11-16T06:00:00Z", "2026-11-23T06:00:00Z"]),
            ("cron(0 6 ? * 2 *)", "UTC", "2026-11-14T00:00:00Z", vec!["2026-11-16T06:00:00Z"]),
            (
                "cron(0/30 9-10 ? * MON-FRI *)",
                "UTC",
                "2026-11-13T10:15:00Z",
                vec!["2026-11-13T10:30:00Z", "2026-11-16T09:00:00Z"],
            ),
            ("cron(0 0 L * ? *)", "UTC", "2028-02-01T00:00:00Z", vec!["2028-02-29T00:00:00Z"]),
            ("cron(0 0 15W * ? *)", "UTC", "2026-11-01T00:00:00Z", vec!["2026-11-16T00:00:00Z"]),
            ("cron(0 0 ? * 6L *)", "UTC", "2026-11-01T00:00:00Z", vec!["2026-11-27T00:00:00Z"]),
            ("cron(0 0 ? * TUE#2 *)", "UTC", "2026-11-01T00:00:00Z", vec!["2026-11-10T00:00:00Z"]),
            ("cron(0 0 29 2 ? *)", "UTC", "2026-11-01T00:00:00Z", vec!["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
            ("rate(1 hour)", "UTC", "2026-11-15T05:59:30Z", vec!["2026-11-15T06:59:30Z", "2026-11-15T07:59:30Z"]),
            ("at(2026-11-15T06:00:00)", "Europe/Berlin", "2026-11-01T00:00:00Z", vec!["2026-11-15T05:00:00Z"]),
        ] {
            assert_eq!(due(expression, timezone, after, expected.len()), expected, "{expression} in {timezone}");
        }
        assert!(due("at(2026-11-15T06:00:00)", "UTC", "2026-11-15T06:00:00Z", 1).is_empty());
        assert!(due("cron(0 0 1 1 ? 2020)", "UTC", "2026-11-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_left_out_and_one_that_comes_twice_is_due_once() {
        // New York springs forward on 2026-03-08 at 02:00 and falls back on 2026-11-01 at 02:00.
        assert_eq!(due("cron(30 2 * * ? *)", "America/New_York", "2026-03-07T12:00:00Z", 1), ["2026-03-09T06:30:00Z"]);
        assert_eq!(
            due("cron(30 1 * * ? *)", "America/New_York", "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
    }

    #[test]
    fn a_wrong_expression_is_refused_with_its_reason() {
        for (expression, reason) in [
            ("cron(0 6 1 * *)", "six fields"),
            ("cron(0 6 1 * MON *)", "must be ?"),
            ("cron(0 6 ? * ? *)", "must be ?"),
            ("cron(60 6 1 * ? *)", "minutes"),
            ("cron(0 6 1 13 ? *)", "month"),
            ("cron(0 6 ? * FRI-MON *)", "day-of-week"),
            ("cron(0/0 6 1 * ? *)", "minutes"),
            ("rate(0 minutes)", "a rate is like"),
            ("rate(1 second)", "a rate is like"),
            ("at(tomorrow)", "a time is like"),
            ("hourly", "it must be"),
        ] {
            let refused = Timing::parse(expression, "UTC").expect_err(expression);
            assert!(refused.contains(reason), "{expression}: {refused}");
        }
        assert!(Timing::parse("rate(1 hour)", "Europe/Atlantis").is_err());
    }
}
