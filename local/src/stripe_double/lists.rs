//! Cursor pages, newest first: `limit` 1 to 100 (10 unless told), `starting_after`, `ending_before`.
//! <https://docs.stripe.com/api/pagination>

use hyper::body::Bytes;
use serde::Serialize;

use super::errors::ApiError;
use super::form::Params;

/// Objects in the order of their creation, of which one page is cut.
pub(super) struct Listing<'w, N, P> {
    pub url: &'w str,
    pub what: &'static str,
    pub len: usize,
    /// The i-th oldest.
    pub nth: N,
    /// An id's number; numbers grow with age order.
    pub number_of: P,
}

impl<N: Fn(usize) -> usize, P: Fn(&str) -> Option<usize>> Listing<'_, N, P> {
    pub(super) fn page<V: Serialize>(
        &self,
        params: &Params,
        keep: impl Fn(usize) -> bool,
        view: impl Fn(usize) -> V,
    ) -> Result<Bytes, ApiError> {
        let limit = match params.optional_integer("limit")? {
            None => 10,
            Some(n @ 1..=100) => usize::try_from(n).unwrap_or(10),
            Some(0) => {
                return Err(ApiError::invalid("This value must be greater than or equal to 1.")
                    .code("parameter_invalid_integer")
                    .param("limit"));
            }
            Some(n) if n < 0 => {
                return Err(ApiError::invalid("This value must be greater than or equal to 1.")
                    .code("parameter_invalid_integer")
                    .param("limit"));
            }
            Some(_) => {
                return Err(ApiError::invalid("This value must be less than or equal to 100.")
                    .code("parameter_invalid_integer")
                    .param("limit"));
            }
        };
        let after = self.cursor(params, "starting_after")?;
        let before = self.cursor(params, "ending_before")?;
        if after.is_some() && before.is_some() {
            return Err(ApiError::invalid("You may only specify one of these parameters: starting_after, ending_before.")
                .code("parameters_exclusive"));
        }
        let mut found: Vec<usize> = Vec::with_capacity(limit.min(self.len) + 1);
        if let Some(cursor) = before {
            let start = self.first_at_least(cursor + 1);
            found.extend((start..self.len).map(|i| (self.nth)(i)).filter(|n| keep(*n)).take(limit + 1));
        } else {
            let end = after.map_or(self.len, |cursor| self.first_at_least(cursor));
            found.extend((0..end).rev().map(|i| (self.nth)(i)).filter(|n| keep(*n)).take(limit + 1));
        }
        let has_more = found.len() > limit;
        found.truncate(limit);
        if before.is_some() {
            found.reverse();
        }
        let mut out = Vec::with_capacity(64 + found.len() * 900);
        out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
        for (i, number) in found.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, &view(*number)).map_err(|_| ApiError::server(false))?;
        }
        out.extend_from_slice(b"],\"has_more\":");
        out.extend_from_slice(if has_more { b"true" } else { b"false" });
        out.extend_from_slice(b",\"url\":\"");
        out.extend_from_slice(self.url.as_bytes());
        out.extend_from_slice(b"\"}");
        Ok(Bytes::from(out))
    }

    fn cursor(&self, params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
        params.get(name).map(|id| (self.number_of)(id).ok_or_else(|| ApiError::no_such_param(self.what, id, name))).transpose()
    }

    /// The place of the first object whose number is at least this.
    fn first_at_least(&self, number: usize) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if (self.nth)(middle) < number {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A value as JSON.
pub(super) fn json<V: Serialize>(value: &V) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}
