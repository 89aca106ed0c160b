//! Numbers for the JSON: thousandths, times and percentiles, without floats.

use std::time::Duration;

use payday::payouts::report::thousandths;
use serde_json::Number;

/// `a ÷ b`, to a thousandth; 0 if there is no b.
pub fn ratio(a: u64, b: u64) -> Number {
    thousandths(per_mille(a, b))
}

pub fn per_mille(a: u64, b: u64) -> i64 {
    let value = (u128::from(a) * 1_000 + u128::from(b) / 2).checked_div(u128::from(b)).unwrap_or(0);
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How many a second, to a tenth.
pub fn per_second(count: u64, time: Duration) -> Number {
    let micros = micros(time).max(1);
    let tenths = u128::from(count) * 10_000_000 / u128::from(micros);
    thousandths(i64::try_from(tenths * 100).unwrap_or(i64::MAX))
}

pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Seconds, to a thousandth.
pub fn seconds(time: Duration) -> Number {
    thousandths(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds, to a hundredth.
pub fn millis(time: Duration) -> Number {
    thousandths(i64::try_from(time.as_micros() / 10 * 10).unwrap_or(i64::MAX))
}

/// Megabytes (10⁶) to a tenth.
pub fn megabytes(bytes: u64) -> Number {
    thousandths(i64::try_from(bytes / 100_000 * 100).unwrap_or(i64::MAX))
}

/// The value below which so many per cent lie.
pub fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    let at = (sorted.len() * per_cent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_without_floats() {
        assert_eq!(ratio(1, 3).to_string(), "0.333");
        assert_eq!(ratio(2, 0).to_string(), "0.0");
        assert_eq!(per_second(1_000, Duration::from_millis(1_500)).to_string(), "666.6");
        assert_eq!(millis(Duration::from_micros(12_345)).to_string(), "12.34");
        assert_eq!(megabytes(16_250_000).to_string(), "16.2");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(51));
        assert_eq!(percentile(&sorted, 100), Duration::from_millis(100));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
