//! Laws of amounts: nothing is gained by writing, reading, rounding, sharing or adding.

use payday::money::{Currency, MICROS_PER_UNIT, Money, Ppm, scaled};
use proptest::prelude::*;

use crate::laws::config;

fn currency() -> impl Strategy<Value = Currency> {
    proptest::sample::select(Currency::all().collect::<Vec<_>>())
}

#[test]
fn a_currency_reads_back_as_it_is_written() {
    assert!(Currency::all().count() > 100, "Stripe takes more than that");
    for currency in Currency::all() {
        assert_eq!(currency.code().parse::<Currency>().ok(), Some(currency));
        assert_eq!(currency.code().to_uppercase().parse::<Currency>().ok(), Some(currency));
        assert_eq!(MICROS_PER_UNIT % currency.micros_per_minor(), 0, "{currency}");
        assert_eq!(currency.payout_multiple() % currency.transfer_multiple(), 0, "{currency}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_decimal_reads_back_as_it_is_written(value in 0..=i64::MAX, decimals in 0_u32..=6) {
        let one = 10_i64.pow(decimals);
        let text = match decimals {
            0 => value.to_string(),
            _ => format!("{}.{:0width$}", value / one, value % one, width = usize::try_from(decimals).expect("few")),
        };
        prop_assert_eq!(scaled(&text, decimals), Some(value), "{}", text);
    }

    #[test]
    fn minor_units_read_back_as_they_were(minor in any::<i64>(), currency in currency()) {
        match Money::from_minor(minor, currency) {
            Some(money) => prop_assert_eq!(money.minor(), minor),
            None => prop_assert!(i64::MAX / currency.micros_per_minor() < minor.saturating_abs()),
        }
    }

    #[test]
    fn rounding_to_minor_units_never_gains(micros in any::<i64>(), currency in currency()) {
        let unit = i128::from(currency.micros_per_minor());
        let rounded = i128::from(Money::new(micros, currency).minor()) * unit;
        prop_assert!(rounded <= i128::from(micros) && i128::from(micros) < rounded + unit);
    }

    #[test]
    fn what_people_read_is_the_amount_rounded_towards_nothing(micros in 0..=i64::MAX, currency in currency()) {
        let text = Money::new(micros, currency).to_string();
        let (number, code) = text.split_once(' ').expect("a number and a code");
        prop_assert_eq!(code, currency.code());
        prop_assert_eq!(scaled(number, 6), Some(micros - micros % currency.micros_per_minor()), "{}", text);
    }

    #[test]
    fn the_shares_of_an_amount_are_never_more_than_it(micros in 0..=i64::MAX, parts in prop::collection::vec(0_i64..1_000_000, 1..8)) {
        let whole: i64 = parts.iter().sum();
        prop_assume!(whole > 0);
        let money = Money::new(micros, Currency::USD);
        let shares: Option<i128> = parts.iter().map(|part| Some(i128::from(money.share(*part, whole)?.micros))).sum();
        let shares = shares.expect("a share of something that fits, fits");
        let parts = i128::try_from(parts.len()).expect("few");
        prop_assert!(shares <= i128::from(micros) && i128::from(micros) - shares < parts);
    }

    #[test]
    fn a_fee_is_never_above_its_amount_and_fees_never_above_the_fee_of_all(
        amounts in prop::collection::vec(0..=1_000_000_000_000_i64, 1..50),
        ppm in 0..=Ppm::ONE,
    ) {
        let fees: i64 = amounts.iter().map(|amount| Ppm(ppm).of(*amount)).sum();
        prop_assert!(amounts.iter().all(|amount| (0..=*amount).contains(&Ppm(ppm).of(*amount))));
        prop_assert!(fees <= Ppm(ppm).of(amounts.iter().sum()));
    }

    #[test]
    fn a_sum_is_right_or_there_is_none(left in any::<i64>(), right in any::<i64>(), one in currency(), other in currency()) {
        let sum = Money::new(left, one).checked_add(Money::new(right, other));
        let exact = i64::try_from(i128::from(left) + i128::from(right)).ok().filter(|_| one == other);
        prop_assert_eq!(sum.map(|sum| sum.micros), exact);
    }
}
