//! The key by which a caller sends the same request again without having it done twice.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::{Error, Result};

const HEADER: &str = "idempotency-key";
const MOST_CHARS: usize = 200;

/// What `Idempotency-Key` says, if it is there. Whose it is, is the caller's: another's same key is another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let mut given = parts.headers.get_all(HEADER).iter();
        let (first, more) = (given.next(), given.next());
        let Some(first) = first else { return Ok(Self(None)) };
        let key = first.to_str().ok().filter(|key| {
            more.is_none() && (1..=MOST_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let wrong = || Error::field("Idempotency-Key", "must be one key of 1 to 200 visible ASCII characters without spaces");
        key.map(|key| Self(Some(key.to_owned()))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http::Request;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<IdempotencyKey> {
        let request = values.iter().fold(Request::get("/"), |request, value| request.header(HEADER, *value));
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        IdempotencyKey::from_request_parts(&mut parts, &()).now_or_never().expect("nothing is fetched")
    }

    #[test]
    fn a_key_is_one_word_or_none_at_all() {
        assert_eq!(read(&[]).expect("none"), IdempotencyKey(None));
        assert_eq!(read(&[b"a-key_1"]).expect("a key"), IdempotencyKey(Some("a-key_1".to_owned())));
        let long = [b'x'; MOST_CHARS + 1];
        assert!(read(&[&long[1..]]).is_ok());
        for wrong in [&[&b""[..]][..], &[b"two words"], &[b"\xc3\xa9"], &[&long], &[b"a", b"a"]] {
            let error = read(wrong).expect_err("refused");
            assert_eq!(error.details[0].field, "Idempotency-Key", "{wrong:?}");
        }
    }
}
