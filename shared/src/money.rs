//! Amounts: checked, integer, never a float, never a sum over two currencies.
//!
//! Three counts are kept apart: **micros** (10⁻⁶ of the currency's unit, what the ledger counts), **minor units** (what Stripe
//! takes: cents, or whole yen), and **tokens**. Rounding is always down; what is left stays in the payee's balance.

use std::fmt;
use std::str::FromStr;

use iso_currency::Currency as Iso;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Micros in one unit of any currency.
pub const MICROS_PER_UNIT: i64 = 1_000_000;

/// The currencies that Stripe takes. [docs.stripe.com/currencies#presentment-currencies]
const STRIPE: &str = "aed afn all amd aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp cny cop crc cve \
    czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak \
    lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar \
    sbd scr sek sgd shp sle sos srd szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw";

/// Currencies that Stripe counts in whole units. [docs.stripe.com/currencies#zero-decimal]
const ZERO_DECIMAL: [Iso; 15] = [
    Iso::BIF,
    Iso::CLP,
    Iso::DJF,
    Iso::GNF,
    Iso::JPY,
    Iso::KMF,
    Iso::KRW,
    Iso::MGA,
    Iso::PYG,
    Iso::RWF,
    Iso::VND,
    Iso::VUV,
    Iso::XAF,
    Iso::XOF,
    Iso::XPF,
];

/// A currency that Stripe takes, written in lower case (`usd`) as Stripe does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(Iso);

impl Currency {
    pub const USD: Self = Self(Iso::USD);

    /// Every currency that Stripe takes.
    pub fn all() -> impl Iterator<Item = Self> {
        STRIPE.split_whitespace().filter_map(|code| code.parse().ok())
    }

    /// `usd`, as Stripe and the database write it.
    pub fn code(self) -> String {
        self.0.code().to_ascii_lowercase()
    }

    /// Micros in one of Stripe's minor units.
    pub fn micros_per_minor(self) -> i64 {
        // UGX and ISK have no cents any more, yet Stripe takes them ×100 with zero cents.
        match self.0 {
            Iso::UGX | Iso::ISK => 10_000,
            iso if ZERO_DECIMAL.contains(&iso) => MICROS_PER_UNIT,
            Iso::BHD | Iso::JOD | Iso::KWD | Iso::OMR | Iso::TND => 1_000,
            _ => 10_000,
        }
    }

    /// Decimals in which people write it.
    fn decimals(self) -> u32 {
        match self.micros_per_minor() {
            1_000 => 3,
            10_000 => 2,
            _ => 0,
        }
    }

    /// Minor units that a transfer must be a multiple of.
    pub fn transfer_multiple(self) -> i64 {
        match self.0 {
            Iso::UGX | Iso::ISK => 100,
            Iso::BHD | Iso::JOD | Iso::KWD | Iso::OMR | Iso::TND => 10,
            _ => 1,
        }
    }

    /// What is wrong with an amount of so many minor units, if Stripe could not move it in this currency.
    pub fn refuses(self, minor: i64) -> Option<String> {
        let multiple = self.transfer_multiple();
        (minor % multiple != 0).then(|| {
            format!("must be a multiple of {multiple}, the smallest step of this currency at Stripe (rule AMOUNT_MULTIPLE)")
        })
    }

    /// Minor units that a payout must be a multiple of.
    pub fn payout_multiple(self) -> i64 {
        match self.0 {
            Iso::HUF | Iso::TWD => 100,
            _ => self.transfer_multiple(),
        }
    }
}

impl FromStr for Currency {
    type Err = Error;

    /// Reads `usd` or `USD`; a code that is not a currency is refused with the code in the message.
    fn from_str(text: &str) -> Result<Self> {
        let unknown =
            || Error::field("currency", format!("{text:?} is not a currency that Stripe takes; write an ISO code like usd"));
        if text.len() != 3 || !STRIPE.split_whitespace().any(|code| text.eq_ignore_ascii_case(code)) {
            return Err(unknown());
        }
        let iso = Iso::from_code(&text.to_ascii_uppercase()).ok_or_else(unknown)?;
        Ok(Self(iso))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An amount of one currency in micros. May be negative only where the ledger says so (debt).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    pub micros: i64,
    pub currency: Currency,
}

impl Money {
    pub fn new(micros: i64, currency: Currency) -> Self {
        Self { micros, currency }
    }

    /// From Stripe's minor units; `None` above what the ledger can hold.
    pub fn from_minor(minor: i64, currency: Currency) -> Option<Self> {
        Some(Self::new(minor.checked_mul(currency.micros_per_minor())?, currency))
    }

    /// Whole minor units in it, rounded down (towards minus infinity).
    pub fn minor(self) -> i64 {
        self.micros.div_euclid(self.currency.micros_per_minor())
    }

    /// All there is, without the currency: `4.5` is `4.50`, a token's `0.045` stays.
    pub fn exact(self) -> String {
        let mut amount = Decimal::new(self.micros, 6).normalize();
        if amount.scale() < self.currency.decimals() {
            amount.rescale(self.currency.decimals());
        }
        amount.to_string()
    }

    /// `None` on overflow or when the currencies differ.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        (self.currency == other.currency).then_some(())?;
        Some(Self::new(self.micros.checked_add(other.micros)?, self.currency))
    }

    /// The share `part ÷ whole` of it, rounded down; `None` on overflow or a whole of zero.
    pub fn share(self, part: i64, whole: i64) -> Option<Self> {
        let micros = i128::from(self.micros).checked_mul(i128::from(part))?.checked_div_euclid(i128::from(whole))?;
        Some(Self::new(i64::try_from(micros).ok()?, self.currency))
    }
}

impl fmt::Display for Money {
    /// `12.34 usd`: for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.currency.decimals();
        let shown = Decimal::new(self.micros, 6).trunc_with_scale(digits);
        let digits = usize::try_from(digits).unwrap_or_default();
        write!(f, "{shown:.digits$} {}", self.currency)
    }
}

/// A share in parts per million, so that 12.5 % is exact: how fees and reserves are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ppm(pub i64);

impl Ppm {
    pub const ONE: i64 = 1_000_000;

    /// From a percentage like `10` or `12.5`: 0 to 100, at most four decimals.
    pub fn from_percent(text: &str) -> Option<Self> {
        let value = scaled(text, 4)?;
        (0..=Self::ONE).contains(&value).then_some(Self(value))
    }

    /// This share of an amount of micros, rounded down.
    pub fn of(self, micros: i64) -> i64 {
        let part = i128::from(micros) * i128::from(self.0) / i128::from(Self::ONE);
        i64::try_from(part).unwrap_or(i64::MAX)
    }
}

/// Reads a plain decimal (`12.5`, no exponent, no sign) as an integer scaled by `10^decimals`; `None` if it has more
/// decimals than that or does not fit.
pub fn scaled(text: &str, decimals: u32) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value = plain.then(|| Decimal::from_str(text).ok())??;
    let scaled = value.checked_mul(Decimal::from(10_i64.checked_pow(decimals)?))?;
    (scaled.fract().is_zero()).then(|| scaled.to_i64())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().expect("a currency")
    }

    #[test]
    fn a_hundred_one_token_tips_are_exactly_four_fifty() {
        let fee = Ppm::from_percent("10").expect("a percentage");
        let gross = scaled("0.05", 6).expect("a rate");
        let net: i64 = (0..100).map(|_| gross - fee.of(gross)).sum();
        assert_eq!(Money::new(net, Currency::USD).minor(), 450);
        assert_eq!(net, 4_500_000);
    }

    #[test]
    fn minor_units_follow_stripes_currency_rules() {
        for (code, micros_per_minor, transfer_multiple, payout_multiple) in [
            ("usd", 10_000, 1, 1),
            ("jpy", 1_000_000, 1, 1),
            ("mga", 1_000_000, 1, 1),
            ("isk", 10_000, 100, 100),
            ("ugx", 10_000, 100, 100),
            ("huf", 10_000, 1, 100),
            ("twd", 10_000, 1, 100),
            ("kwd", 1_000, 10, 10),
        ] {
            let it = currency(code);
            assert_eq!(
                (it.micros_per_minor(), it.transfer_multiple(), it.payout_multiple()),
                (micros_per_minor, transfer_multiple, payout_multiple),
                "{code}"
            );
        }
    }

    #[test]
    fn what_is_no_currency_is_refused() {
        for wrong in ["", "us", "usdd", "xau", "xxx", "xts", "zzz", "u d"] {
            assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
        }
        assert_eq!(currency("EUR").code(), "eur");
    }

    #[test]
    fn two_currencies_are_never_added() {
        assert_eq!(Money::new(1, currency("usd")).checked_add(Money::new(1, currency("eur"))), None);
        assert_eq!(Money::new(i64::MAX, Currency::USD).checked_add(Money::new(1, Currency::USD)), None);
    }

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        for (text, decimals, value) in [
            ("0.05", 6, Some(50_000)),
            ("10", 4, Some(100_000)),
            ("12.5", 4, Some(125_000)),
            ("1e3", 2, None),
            ("-1", 2, None),
            ("0.001", 2, None),
            ("", 2, None),
            ("99999999999999999999", 2, None),
        ] {
            assert_eq!(scaled(text, decimals), value, "{text}");
        }
        assert_eq!(Ppm::from_percent("100.1"), None);
    }

    #[test]
    fn rounding_is_always_down() {
        assert_eq!(Money::new(19_999, Currency::USD).minor(), 1);
        assert_eq!(Money::new(-1, Currency::USD).minor(), -1);
        assert_eq!(Money::new(100, Currency::USD).share(1, 3).map(|m| m.micros), Some(33));
        assert_eq!(Money::new(12_345_678, Currency::USD).to_string(), "12.34 usd");
    }

    #[test]
    fn an_exact_amount_leaves_nothing_away_and_has_the_currencys_decimals() {
        for (micros, code, written) in [
            (4_500_000, "usd", "4.50"),
            (45_000, "usd", "0.045"),
            (0, "usd", "0.00"),
            (7_000_000, "jpy", "7"),
            (7_500_000, "jpy", "7.5"),
            (1_230_000, "kwd", "1.230"),
        ] {
            assert_eq!(Money::new(micros, currency(code)).exact(), written);
        }
    }
}
