//! What is in an address: ids, filters, and long lists in pages.
//!
//! A cursor is opaque to its holder: the last row's position, the list that it belongs to, and a checksum that tells a
//! mangled or made-up one. It opens nothing: each page's query is bound to its caller as the first one was.

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// The query of an address; what cannot be read is 400. `T` should deny unknown fields.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let query = AxumQuery::<T>::try_from_uri(&parts.uri);
        let query = query.map_err(|error| {
            Error::new(Kind::Malformed, "BAD_QUERY", "The address has a query that cannot be read.").with_source(error)
        })?;
        Ok(Self(query.0))
    }
}

/// The parts of a path. An id that cannot be one is answered like one that nobody has: 404.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = AxumPath::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|_| Error::not_found("What the address names"))
    }
}

/// The query of a list without filters, `Query<PageQuery>`. A list with filters has a struct of its own with these two beside
/// them: what a list does not know (`sort=…`) is refused, and serde cannot do that through `flatten`.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Rows in a page, 1 to 200; 50 if not given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200)]
    pub limit: Option<String>,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

/// A page that is asked for: at most so many rows after a position.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<P> {
    pub limit: i64,
    pub after: Option<P>,
}

impl PageQuery {
    const DEFAULT: i64 = 50;
    const MOST: i64 = 200;

    /// `list` names the list with everything that selects it (`"failures:12"`); a cursor of another one is refused.
    pub fn page<P: DeserializeOwned>(&self, list: &str) -> Result<Page<P>> {
        let limit = match &self.limit {
            None => Self::DEFAULT,
            Some(text) => text.parse().ok().filter(|limit| (1..=Self::MOST).contains(limit)).ok_or_else(|| {
                Error::new(Kind::Malformed, "BAD_LIMIT", format!("limit must be a whole number from 1 to {}.", Self::MOST))
            })?,
        };
        let after = self.cursor.as_deref().map(|text| Cursor::read(list, text)).transpose()?;
        Ok(Page { limit, after })
    }
}

impl<P: Serialize> Page<P> {
    /// Cuts rows that were read with `limit + 1` down to the page, and makes the cursor of the next one if there is one.
    pub fn cut<T>(&self, list: &str, rows: &mut Vec<T>, position: impl Fn(&T) -> P) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        rows.last().filter(|_| more).map(|last| Cursor::write(list, &position(last)))
    }
}

/// The written form of a position.
pub struct Cursor;

const CHECKSUM_BYTES: usize = 8;

impl Cursor {
    pub fn write<P: Serialize>(list: &str, position: &P) -> String {
        let position = serde_json::to_vec(position).unwrap_or_default();
        let mut bytes = Self::checksum(list, &position).to_vec();
        bytes.extend(position);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn read<P: DeserializeOwned>(list: &str, text: &str) -> Result<P> {
        let read = || {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
            let (checksum, position) = bytes.split_at_checked(CHECKSUM_BYTES)?;
            (checksum == Self::checksum(list, position)).then(|| serde_json::from_slice(position).ok())?
        };
        read().ok_or_else(|| {
            Error::new(Kind::Malformed, "BAD_CURSOR", "The cursor is not one of this list; start again without it.")
        })
    }

    fn checksum(list: &str, position: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let mut hash = Sha256::new();
        hash.update("payday cursor");
        hash.update(list.len().to_be_bytes());
        hash.update(list);
        hash.update(position);
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&hash.finalize()[..CHECKSUM_BYTES]);
        checksum
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use tower::ServiceExt;

    use super::super::{Cors, finish};
    use super::*;

    #[tokio::test]
    async fn a_limit_or_cursor_that_is_none_is_400_and_an_id_that_is_none_404() {
        let routes = Router::new()
            .route(
                "/list",
                get(async |Query(query): Query<PageQuery>| {
                    query.page::<i64>("list").map(|page| format!("{}:{:?}", page.limit, page.after))
                }),
            )
            .route("/list/{id}", get(async |Path(id): Path<i64>| id.to_string()));
        let router = finish(routes, Cors::default());
        let good = Cursor::write("list", &41_i64);
        let other = Cursor::write("other list", &41_i64);
        let typed = Cursor::write("list", &"41; drop table payees");
        let bare = BASE64_URL_SAFE_NO_PAD.encode("41");
        let mut flipped = good.clone().into_bytes();
        flipped[13] ^= 1;
        let flipped = String::from_utf8(flipped).expect("text");
        for (path, status) in [
            ("/list".to_owned(), 200),
            ("/list?limit=1".to_owned(), 200),
            ("/list?limit=200".to_owned(), 200),
            ("/list?limit=0".to_owned(), 400),
            ("/list?limit=201".to_owned(), 400),
            ("/list?limit=-1".to_owned(), 400),
            ("/list?limit=1e9".to_owned(), 400),
            ("/list?limit=".to_owned(), 400),
            ("/list?limit=1&limit=2".to_owned(), 400),
            (format!("/list?cursor={good}"), 200),
            (format!("/list?cursor={other}"), 400),
            (format!("/list?cursor={typed}"), 400),
            (format!("/list?cursor={bare}"), 400),
            (format!("/list?cursor={flipped}"), 400),
            (format!("/list?cursor={good}="), 400),
            ("/list?cursor=".to_owned(), 400),
            ("/list?cursor=%00".to_owned(), 400),
            ("/list/7".to_owned(), 200),
            ("/list/seven".to_owned(), 404),
            ("/list/99999999999999999999".to_owned(), 404),
        ] {
            let request = Request::builder().uri(&path).body(Body::empty()).expect("a request");
            assert_eq!(router.clone().oneshot(request).await.expect("an answer").status().as_u16(), status, "{path}");
        }
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_cursor() {
        let all: Vec<i64> = (1..=5).collect();
        let mut query = PageQuery { limit: Some("2".to_owned()), cursor: None };
        let mut seen = Vec::new();
        loop {
            let page: Page<i64> = query.page("list").expect("a page");
            let mut rows: Vec<i64> =
                all.iter().copied().filter(|row| page.after.is_none_or(|after| *row > after)).take(3).collect();
            query.cursor = page.cut("list", &mut rows, |row| *row);
            seen.push(rows);
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5]]);
    }
}
