//! The parameters of one request: form-encoded, nested with brackets. Read strictly, because Stripe is
//! strict: unknown, missing and malformed parameters are refused before anything runs.

use super::currency::Currency;
use super::errors::ApiError;
use super::ids::mix;

pub(super) type Metadata = Vec<(String, String)>;

#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

/// A `created` filter, in unix seconds, both ends inclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub from: i64,
    pub to: i64,
}

impl Range {
    pub(super) fn holds(&self, seconds: i64) -> bool {
        self.from <= seconds && seconds <= self.to
    }
}

impl Params {
    pub(super) fn parse(encoded: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(encoded)
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Refuses every parameter whose first part is not listed. `expand` is always allowed.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        for (name, _) in &self.0 {
            let root = name.split('[').next().unwrap_or(name);
            if root != "expand" && !known.contains(&root) {
                return Err(ApiError::unknown_param(name));
            }
        }
        Ok(())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        match self.get(name) {
            None => Err(ApiError::missing_param(name)),
            Some("") => Err(ApiError::invalid(format!(
                "You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; however \
                 '{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty value."
            ))
            .code("parameter_invalid_empty")
            .param(name)),
            Some(value) => Ok(value),
        }
    }

    fn integer(&self, name: &str, text: &str) -> Result<i64, ApiError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ApiError::invalid(format!("Invalid integer: {text}")).code("parameter_invalid_integer").param(name));
        }
        text.parse()
            .map_err(|_| ApiError::invalid(format!("Invalid integer: {text}")).code("parameter_invalid_integer").param(name))
    }

    pub(super) fn optional_integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| self.integer(name, text)).transpose()
    }

    /// A positive amount in minor units of at most eight digits and cents, as Stripe limits it
    /// (<https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>).
    pub(super) fn amount(&self, name: &str) -> Result<i64, ApiError> {
        let amount = self.integer(name, self.required(name)?)?;
        if amount < 1 {
            return Err(ApiError::invalid("This value must be greater than or equal to 1.")
                .code("parameter_invalid_integer")
                .param(name));
        }
        if amount > 999_999_999_999 {
            return Err(ApiError::invalid("Amount is too large.").code("amount_too_large").param(name));
        }
        Ok(amount)
    }

    pub(super) fn currency(&self, name: &str) -> Result<Currency, ApiError> {
        let text = self.required(name)?;
        Currency::parse(text).ok_or_else(|| {
            ApiError::invalid(format!("Invalid currency: {text}. Stripe currently supports these currencies: usd, aed, afn, …"))
                .param(name)
        })
    }

    /// `metadata[k]=v`: at most 50 keys of 40 characters, values of 500.
    pub(super) fn metadata(&self) -> Result<Metadata, ApiError> {
        let mut found = Metadata::new();
        for (name, value) in &self.0 {
            let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) else {
                continue;
            };
            if key.len() > 40 || value.len() > 500 || found.len() == 50 {
                return Err(ApiError::invalid(
                    "Metadata can have up to 50 keys, with key names up to 40 characters long and values up to 500 characters long.",
                )
                .param(name));
            }
            if !value.is_empty() {
                found.push((key.to_owned(), value.clone()));
            }
        }
        Ok(found)
    }

    /// `name[]=a`, `name[0]=a`
    pub(super) fn array<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.strip_prefix(name).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']')))
            .map(|(_, v)| v.as_str())
    }

    /// `name=t` or `name[gte|gt|lte|lt]=t`
    pub(super) fn range(&self, name: &str) -> Result<Range, ApiError> {
        let mut range = Range { from: i64::MIN, to: i64::MAX };
        for (key, value) in &self.0 {
            let Some(rest) = key.strip_prefix(name) else {
                continue;
            };
            let at = self.integer(key, value)?;
            match rest {
                "" => range = Range { from: at, to: at },
                "[gte]" => range.from = range.from.max(at),
                "[gt]" => range.from = range.from.max(at.saturating_add(1)),
                "[lte]" => range.to = range.to.min(at),
                "[lt]" => range.to = range.to.min(at.saturating_sub(1)),
                _ => return Err(ApiError::unknown_param(key)),
            }
        }
        Ok(range)
    }

    /// What the idempotency layer compares: endpoint and parameters, in any order of the parameters.
    pub(super) fn fingerprint(&self, method: &str, path: &str) -> u128 {
        let mut sum: u128 = 0;
        for (name, value) in &self.0 {
            sum = sum.wrapping_add(hash128(&[name.as_bytes(), value.as_bytes()]));
        }
        hash128(&[method.as_bytes(), path.as_bytes()]).wrapping_mul(3).wrapping_add(sum)
    }
}

/// Not cryptographic: two independent 64-bit halves, each FNV-1a with a length-prefixed field order.
fn hash128(fields: &[&[u8]]) -> u128 {
    let half = |seed: u64| {
        let mut hash = seed;
        for field in fields {
            hash = mix(hash ^ field.len() as u64);
            for byte in *field {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
        }
        mix(hash)
    };
    (u128::from(half(0xCBF2_9CE4_8422_2325)) << 64) | u128::from(half(0x9E37_79B9_7F4A_7C15))
}
