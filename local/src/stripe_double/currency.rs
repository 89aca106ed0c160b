//! What Stripe knows of currencies, written anew from <https://docs.stripe.com/currencies> so that a
//! mistake in Payday's own table is not repeated here.

use std::fmt;

use serde::{Serialize, Serializer};

/// A currency Stripe supports, as it writes it: three lowercase letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

const SUPPORTED: &str = "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad \
cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd \
jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr \
nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs \
uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw";

/// One minor unit is one whole unit.
const ZERO_DECIMAL: &str = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf";
/// Sent with two decimals that must be zero, everywhere.
const CENTS_MUST_BE_ZERO: &str = "isk ugx";
/// Two decimals, but a payout must be a multiple of 100.
const WHOLE_PAYOUTS: &str = "huf twd";
/// Three decimals of which the last must be 0.
const LAST_DIGIT_ZERO: &str = "bhd jod kwd omr tnd";

impl Currency {
    /// Accepts lowercase codes of supported currencies only, as the API reference asks for.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 3] = text.as_bytes().try_into().ok()?;
        listed(SUPPORTED, text).then_some(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("usd")
    }

    /// What every amount of this currency must be divisible by.
    pub(super) fn amount_step(&self) -> i64 {
        if listed(CENTS_MUST_BE_ZERO, self.as_str()) {
            100
        } else if listed(LAST_DIGIT_ZERO, self.as_str()) {
            10
        } else {
            1
        }
    }

    /// What a payout of this currency must be divisible by.
    pub(super) fn payout_step(&self) -> i64 {
        if listed(WHOLE_PAYOUTS, self.as_str()) { 100 } else { self.amount_step() }
    }

    /// One whole unit in minor units.
    pub(super) fn unit(&self) -> i64 {
        if listed(ZERO_DECIMAL, self.as_str()) {
            1
        } else if listed(LAST_DIGIT_ZERO, self.as_str()) {
            1000
        } else {
            100
        }
    }

    /// The smallest payout to a bank in this country, in minor units of this currency. "Typically, the
    /// minimum is one base unit of the recipient account's local currency"; the named exceptions are
    /// those of <https://docs.stripe.com/connect/cross-border-payouts/special-requirements>.
    pub(super) fn minimum_payout(&self, country: &str) -> i64 {
        let whole_units = match (country, self.as_str()) {
            ("US", "usd") | ("AU", "aud") => return 1,
            ("AL", "all") => 3_000,
            ("AO", "aoa") => 23_000,
            ("AR", "ars") => 4_600,
            ("AM", "amd") => 12_100,
            ("AZ", "azn") | ("BA", "bam") => 50,
            ("BD", "bdt") | ("PH", "php") => 20,
            ("BT", "btn") => 2_500,
            ("BO", "bob") => 200,
            ("SV", "usd") => 30,
            ("MX", "mxn") => 10,
            ("KR", "krw") => 40_000,
            _ => 1,
        };
        whole_units * self.unit()
    }
}

fn listed(list: &str, code: &str) -> bool {
    code.len() == 3 && list.split_ascii_whitespace().any(|c| c == code)
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
