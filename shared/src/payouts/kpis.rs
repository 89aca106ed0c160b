//! The figures by which the platform sees whether payouts are well: read by people over HTTP, and once a day by CloudWatch.

use chrono::{DateTime, Duration, Utc};

use super::store::kpis::{self as store, Arrived, Onboarded, Timed};
use crate::db::{Db, Tx};
use crate::error::Result;
use crate::telemetry::{Metric, metric};

/// Rates are of so many days.
pub const DAYS: i64 = 30;
/// Above this share of payments that arrive, in hundredths of a percent, all is as it should be.
pub const TARGET: i64 = 9_800;
/// Runs told of one by one.
const MOST_RUNS: i64 = 20;

#[derive(Debug, Clone)]
pub struct Kpis {
    /// Of the last 30 days, by currency.
    pub arrived: Vec<Arrived>,
    /// Since ever, by currency.
    pub ever: Vec<Arrived>,
    pub failed_over_a_day: i64,
    /// The newest first.
    pub runs: Vec<Timed>,
    pub onboarded: Onboarded,
}

impl Kpis {
    pub async fn read(tx: &mut Tx, now: DateTime<Utc>) -> Result<Self> {
        let since = now - Duration::days(DAYS);
        Ok(Self {
            arrived: store::arrived(tx, since).await?,
            ever: store::arrived(tx, DateTime::<Utc>::UNIX_EPOCH).await?,
            failed_over_a_day: store::failed_since_before(tx, now - Duration::days(1)).await?,
            runs: store::timed(tx, since, MOST_RUNS).await?,
            onboarded: store::onboarded(tx).await?,
        })
    }

    /// Payments that arrived of those that have an end, over all currencies: payments are counted, not added up.
    pub fn success(&self) -> Option<i64> {
        let (arrived, failed) = self
            .arrived
            .iter()
            .fold((0_i64, 0_i64), |(arrived, failed), it| (arrived + it.arrived_items, failed + it.failed_items));
        share(arrived, arrived + failed)
    }

    /// Creators who can be paid of all there are.
    pub fn onboarding(&self) -> Option<i64> {
        share(self.onboarded.ready, self.onboarded.creators)
    }
}

/// A part of a whole in hundredths of a percent, rounded down; none of nothing.
fn share(part: i64, whole: i64) -> Option<i64> {
    let share = i128::from(part) * 10_000;
    (whole > 0).then(|| i64::try_from(share / i128::from(whole)).unwrap_or(10_000))
}

/// Hundredths of a percent as people write them: `98.75`.
pub fn percent(hundredths: i64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Gives the figures to CloudWatch.
pub async fn tell(db: &Db, now: DateTime<Utc>) -> Result<()> {
    let mut tx = db.begin().await?;
    let kpis = Kpis::read(&mut tx, now).await?;
    for (name, value) in [(Metric::SuccessBasisPoints, kpis.success()), (Metric::OnboardedBasisPoints, kpis.onboarding())] {
        if let Some(value) = value {
            metric(name, value, &[]);
        }
    }
    metric(Metric::FailedOverADay, kpis.failed_over_a_day, &[]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_of_nothing_there_is_none() {
        for (part, whole, said) in
            [(0, 1, "0.00"), (1, 3, "33.33"), (2, 3, "66.66"), (999, 1_000, "99.90"), (79, 80, "98.75"), (5, 5, "100.00")]
        {
            assert_eq!(share(part, whole).map(percent).as_deref(), Some(said), "{part} of {whole}");
        }
        assert_eq!(share(0, 0), None);
        assert_eq!(share(i64::MAX, i64::MAX), Some(10_000));
    }
}
