//! A creator's statement: what was earned, taken back and paid out within a period, line by line, and added up per currency
//! for tax forms. Pure; the same lines make the JSON and the CSV.
//!
//! A cycle's statement is about what the cycle paid: the earnings whose hold ended since the cycle before, and the payouts of
//! its date and of withdrawals since then. A year's is about the calendar, in the creator's zone: what was earned in it, by
//! when it was earned, and what arrived in it. Either is bounded however much there is: earnings are summed by day or by month.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Duration, NaiveDate, TimeZone, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use utoipa::ToSchema;

use super::store::statements::{Paid, Summed};
use crate::clock::{Calendar, Schedule};
use crate::error::{Error, Result};
use crate::id::ItemId;
use crate::money::{Currency, Money};

/// Which instant of an earning puts it into a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its hold ended.
    Matured,
    /// It was earned.
    Occurred,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Included.
    pub from: DateTime<Utc>,
    /// Not included.
    pub until: DateTime<Utc>,
    /// The cycle before: its payouts are of the statement before.
    pub after: NaiveDate,
    pub to: NaiveDate,
    pub zone: Tz,
    pub earned: Moment,
}

impl Period {
    /// Of the cycle of a date, since the one before it of the same schedule: the creator's own, if it has a cycle on the date.
    pub fn of_cycle(cycle_on: NaiveDate, own: Schedule, calendar: Calendar, zone: Tz, now: DateTime<Utc>) -> Result<Self> {
        let due = Schedule::due_on(cycle_on);
        let schedule = if due.contains(&own) { Some(own) } else { due.first().copied() };
        let wrong = |problem: &str| Error::field("cycle", problem);
        let schedule = schedule.ok_or_else(|| wrong("is not a pay day"))?;
        let cutoff = calendar.cutoff(cycle_on);
        if cutoff > now {
            return Err(wrong("is in the future; a cycle has its statement from its hour on"));
        }
        let before =
            std::iter::successors(cycle_on.pred_opt(), NaiveDate::pred_opt).take(62).find(|date| schedule.is_due_on(*date));
        let after = before.ok_or_else(|| wrong("is too long ago"))?;
        // What matures at the cut-off belongs to its cycle.
        let just_after = |instant: DateTime<Utc>| instant + Duration::microseconds(1);
        let (from, until) = (just_after(calendar.cutoff(after)), just_after(cutoff));
        Ok(Self { from, until, after, to: cycle_on, zone, earned: Moment::Matured })
    }

    /// Of a calendar year in the zone; the current one so far.
    pub fn of_year(year: i32, zone: Tz, now: DateTime<Utc>) -> Result<Self> {
        let wrong = || Error::field("year", "must be a year from 2000 to the current one");
        if !(2000..=now.with_timezone(&zone).year()).contains(&year) {
            return Err(wrong());
        }
        let new_year = |year| {
            let date = NaiveDate::from_ymd_opt(year, 1, 1)?;
            Some((date, zone.from_local_datetime(&date.and_time(chrono::NaiveTime::MIN)).earliest()?.with_timezone(&Utc)))
        };
        let ((after, from), (to, until)) = new_year(year).zip(new_year(year + 1)).ok_or_else(wrong)?;
        Ok(Self { from, until, after, to, zone, earned: Moment::Occurred })
    }

    /// How Postgres writes the day or the month that earnings are summed by.
    pub fn format(&self) -> &'static str {
        match self.earned {
            Moment::Matured => "YYYY-MM-DD",
            Moment::Occurred => "YYYY-MM",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    Earned,
    /// By disputes and refunds.
    TakenBack,
    Payout,
}

impl Entry {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earned => "earned",
            Self::TakenBack => "taken_back",
            Self::Payout => "payout",
        }
    }
}

/// Amounts in whole units of the currency, exact, without a sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub entry: Entry,
    /// A month (of a year's earnings) or a day.
    #[schema(example = "2026-11-15")]
    pub period: String,
    #[schema(example = "usd")]
    pub currency: String,
    /// Of earnings: `tip`, `call`, `message`, `sale` or `other`.
    pub kind: Option<String>,
    pub payout_id: Option<ItemId>,
    /// Of a payout.
    pub status: Option<String>,
    /// How many it sums up.
    pub count: i64,
    #[schema(example = "50.00")]
    pub gross: Option<String>,
    #[schema(example = "5.00")]
    pub fees: Option<String>,
    #[schema(example = "45.00")]
    pub net: String,
}

impl Line {
    pub const COLUMNS: [&'static str; 10] =
        ["entry", "period", "currency", "kind", "payout_id", "status", "count", "gross", "fees", "net"];

    /// As a line of a file; what it does not have is empty.
    pub fn cells(&self) -> [String; 10] {
        let or_empty = |cell: &Option<String>| cell.clone().unwrap_or_default();
        [
            self.entry.as_str().to_owned(),
            self.period.clone(),
            self.currency.clone(),
            or_empty(&self.kind),
            self.payout_id.map(|id| id.to_string()).unwrap_or_default(),
            or_empty(&self.status),
            self.count.to_string(),
            or_empty(&self.gross),
            or_empty(&self.fees),
            self.net.clone(),
        ]
    }
}

/// What a statement's lines of one currency add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    #[schema(example = "usd")]
    pub currency: String,
    pub earnings: i64,
    pub gross: String,
    pub fees: String,
    pub net: String,
    pub taken_back: i64,
    pub taken_back_gross: String,
    pub taken_back_fees: String,
    pub taken_back_net: String,
    pub payouts: i64,
    /// What has arrived.
    pub paid_out: String,
    /// What is on its way to the bank.
    pub under_way: String,
}

#[derive(Default)]
struct Sums {
    earned: [i64; 3],
    taken_back: [i64; 3],
    payouts: i64,
    paid_out: i64,
    under_way: i64,
}

/// The lines of a statement, and what they add up to.
pub fn write(earned: &[Summed], taken_back: &[Summed], paid: &[Paid], period: &Period) -> Result<(Vec<Line>, Vec<Total>)> {
    let mut lines = Vec::with_capacity(earned.len() + taken_back.len() + paid.len());
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    for (entry, rows) in [(Entry::Earned, earned), (Entry::TakenBack, taken_back)] {
        for row in rows {
            let (currency, net) = (row.currency.parse()?, row.gross_micros - row.fee_micros);
            let of_currency = sums.entry(row.currency.clone()).or_default();
            let sum = if entry == Entry::Earned { &mut of_currency.earned } else { &mut of_currency.taken_back };
            for (sum, more) in sum.iter_mut().zip([row.count, row.gross_micros, row.fee_micros]) {
                *sum += more;
            }
            lines.push(Line {
                entry,
                period: row.period.clone(),
                currency: row.currency.clone(),
                kind: Some(row.kind.clone()),
                payout_id: None,
                status: None,
                count: row.count,
                gross: Some(exact(row.gross_micros, currency)),
                fees: Some(exact(row.fee_micros, currency)),
                net: exact(net, currency),
            });
        }
    }
    for payout in paid {
        let of_currency = sums.entry(payout.currency.clone()).or_default();
        of_currency.payouts += 1;
        *(if payout.status == "paid" { &mut of_currency.paid_out } else { &mut of_currency.under_way }) += payout.amount_micros;
        let on = match (period.earned, payout.paid_at) {
            (Moment::Occurred, Some(paid_at)) => paid_at.with_timezone(&period.zone).date_naive(),
            _ => payout.cycle_on,
        };
        lines.push(Line {
            entry: Entry::Payout,
            period: on.to_string(),
            currency: payout.currency.clone(),
            kind: None,
            payout_id: Some(payout.id),
            status: Some(payout.status.clone()),
            count: 1,
            gross: None,
            fees: None,
            net: exact(payout.amount_micros, payout.currency.parse()?),
        });
    }
    let totals = sums.into_iter().map(|(code, sums)| total(code, &sums)).collect::<Result<_>>()?;
    Ok((lines, totals))
}

fn total(code: String, sums: &Sums) -> Result<Total> {
    let currency: Currency = code.parse()?;
    let written = |micros| exact(micros, currency);
    let ([earnings, gross, fees], [taken_back, gross_back, fees_back]) = (sums.earned, sums.taken_back);
    Ok(Total {
        currency: code,
        earnings,
        gross: written(gross),
        fees: written(fees),
        net: written(gross - fees),
        taken_back,
        taken_back_gross: written(gross_back),
        taken_back_fees: written(fees_back),
        taken_back_net: written(gross_back - fees_back),
        payouts: sums.payouts,
        paid_out: written(sums.paid_out),
        under_way: written(sums.under_way),
    })
}

fn exact(micros: i64, currency: Currency) -> String {
    Money::new(micros, currency).exact()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::parse_date;

    fn day(text: &str) -> NaiveDate {
        parse_date(text).expect("a date")
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    fn cycle(date: &str, schedule: Schedule) -> Result<Period> {
        let calendar = Calendar { zone: Tz::UTC, hour: 6 };
        Period::of_cycle(day(date), schedule, calendar, Tz::UTC, at("2026-12-20T00:00:00Z"))
    }

    #[test]
    fn a_cycle_begins_where_the_one_before_it_ended() {
        for (date, schedule, after) in [
            ("2026-11-15", Schedule::Semimonthly, "2026-11-01"),
            ("2026-12-01", Schedule::Semimonthly, "2026-11-15"),
            ("2026-12-01", Schedule::Monthly, "2026-11-01"),
            ("2026-11-16", Schedule::Weekly, "2026-11-09"),
            // Whose schedule was another one then, or who asks for withdrawals only.
            ("2026-11-15", Schedule::Monthly, "2026-11-01"),
            ("2026-11-15", Schedule::Manual, "2026-11-01"),
        ] {
            let period = cycle(date, schedule).expect("a cycle");
            assert_eq!((period.after, period.to), (day(after), day(date)), "{date} {schedule:?}");
            assert_eq!(period.until.to_rfc3339(), format!("{date}T06:00:00.000001+00:00"));
        }
        let before = cycle("2026-11-15", Schedule::Semimonthly).expect("a cycle");
        let next = cycle("2026-12-01", Schedule::Semimonthly).expect("a cycle");
        assert_eq!(before.until, next.from);
    }

    #[test]
    fn what_is_no_cycle_or_no_year_yet_is_refused() {
        for date in ["2026-11-14", "2027-01-01"] {
            assert_eq!(cycle(date, Schedule::Semimonthly).expect_err("refused").details[0].field, "cycle", "{date}");
        }
        let now = at("2026-12-31T23:30:00Z");
        let berlin: Tz = "Europe/Berlin".parse().expect("a zone");
        assert!(Period::of_year(2027, Tz::UTC, now).is_err() && Period::of_year(1999, Tz::UTC, now).is_err());
        let period = Period::of_year(2027, berlin, now).expect("it has begun there");
        assert_eq!(period.from, at("2026-12-31T23:00:00Z"));
        assert_eq!(period.until, at("2027-12-31T23:00:00Z"));
    }

    #[test]
    fn lines_add_up_to_the_totals_of_each_currency() {
        let summed = |kind: &str, currency: &str, count, gross_micros, fee_micros| Summed {
            period: "2026-11-02".to_owned(),
            currency: currency.to_owned(),
            kind: kind.to_owned(),
            count,
            gross_micros,
            fee_micros,
        };
        let earned = [
            summed("tip", "usd", 100, 5_000_000, 500_000),
            summed("call", "usd", 1, 2_000_000, 0),
            summed("sale", "jpy", 1, 900_000_000, 0),
        ];
        let back = [summed("tip", "usd", 1, 50_000, 5_000)];
        let payout = |id, status: &str| Paid {
            id: ItemId(id),
            currency: "usd".to_owned(),
            amount_micros: 3_000_000,
            status: status.to_owned(),
            cycle_on: day("2026-11-15"),
            paid_at: None,
        };
        let period = cycle("2026-11-15", Schedule::Semimonthly).expect("a cycle");
        let (lines, totals) = write(&earned, &back, &[payout(7, "paid"), payout(8, "in_transit")], &period).expect("a statement");
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0].cells().join(","), "earned,2026-11-02,usd,tip,,,100,5.00,0.50,4.50");
        assert_eq!(lines[3].cells().join(","), "taken_back,2026-11-02,usd,tip,,,1,0.05,0.005,0.045");
        assert_eq!(lines[4].cells().join(","), "payout,2026-11-15,usd,,7,paid,1,,,3.00");
        let usd = &totals[1];
        assert_eq!(
            (usd.currency.as_str(), usd.earnings, usd.gross.as_str(), usd.fees.as_str(), usd.net.as_str()),
            ("usd", 101, "7.00", "0.50", "6.50")
        );
        assert_eq!((usd.taken_back, usd.taken_back_net.as_str(), usd.payouts), (1, "0.045", 2));
        assert_eq!((usd.paid_out.as_str(), usd.under_way.as_str()), ("3.00", "3.00"));
        assert_eq!((totals[0].currency.as_str(), totals[0].gross.as_str()), ("jpy", "900"));
    }
}
