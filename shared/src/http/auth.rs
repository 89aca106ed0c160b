//! Who is calling: a user with a token, an operator, or the scheduler with the cron secret.
//!
//! 401 says that we do not know who calls, 403 that we do and they may not, 429 that they call too often. A credential that
//! cannot be read is a wrong one, never a fault of ours.

use axum::extract::{FromRef, FromRequestParts};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

use super::jwt::{Identity, Role, Verifier};
use super::limits::{Limits, Who};
use crate::error::{Error, Kind, Result};

/// What callers are recognised by and counted with; cheap to clone.
#[derive(Clone)]
pub struct Auth {
    pub cron_secrets: CronSecrets,
    pub tokens: Verifier,
    pub limits: Limits,
}

/// The secrets that schedulers show; several while one replaces another.
#[derive(Clone)]
pub struct CronSecrets(Vec<[u8; 32]>);

impl CronSecrets {
    pub fn new(secrets: &[String]) -> Self {
        Self(secrets.iter().map(|secret| digest(secret.as_bytes())).collect())
    }

    /// Whether it is one of them. Digests are compared, all of them and to the end: neither the time nor the length tells
    /// how near a guess was.
    fn admit(&self, given: &[u8]) -> bool {
        let given = digest(given);
        self.0.iter().fold(Choice::from(0), |found, secret| found | secret.ct_eq(&given)).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A user with a valid token: a creator, asking about their own affairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// `sub` of the token, which is the creator's id.
    pub id: Uuid,
    pub organization_id: Option<Uuid>,
}

/// A user whose token carries the role `operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator {
    pub id: Uuid,
}

/// Whoever knows the cron secret (`X-Cron-Secret`, or as a bearer token).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CronCaller;

/// Either of the two, for `/internal` routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CronOrOperator {
    Cron,
    Operator(Uuid),
}

impl CronOrOperator {
    /// Who it was, for the audit: `cron` or the operator's id.
    pub fn actor(self) -> String {
        match self {
            Self::Cron => "cron".to_owned(),
            Self::Operator(id) => id.to_string(),
        }
    }
}

fn missing(what: &str) -> Error {
    Error::new(Kind::Unauthenticated, "UNAUTHENTICATED", format!("This address needs {what}."))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether the cron secret was shown; who shows it is counted.
fn is_cron(auth: &Auth, headers: &HeaderMap) -> Result<bool> {
    let shown = [headers.get("x-cron-secret").map(|value| value.as_bytes().trim_ascii()), bearer(headers)];
    let is_cron = shown.into_iter().flatten().any(|secret| auth.cron_secrets.admit(secret));
    if is_cron { auth.limits.count(Who::Cron).map(|()| true) } else { Ok(false) }
}

/// The user of the token, counted; whoever has no valid one is counted by their address.
async fn identity(auth: &Auth, parts: &Parts, needed: &str) -> Result<Identity> {
    let verified = match bearer(&parts.headers).and_then(|token| std::str::from_utf8(token).ok()) {
        Some(token) => auth.tokens.verify(token).await,
        None => Err(missing(needed)),
    };
    match &verified {
        Ok(identity) => auth.limits.count(Who::User(identity.user))?,
        Err(error) if error.kind == Kind::Unauthenticated => auth.limits.count(Who::stranger(parts))?,
        Err(_) => {}
    }
    verified
}

fn operator(identity: &Identity) -> Result<Uuid> {
    if identity.roles.contains(&Role::Operator) {
        return Ok(identity.user);
    }
    Err(Error::new(Kind::Forbidden, "FORBIDDEN", "This needs the role operator, which your account does not have."))
}

impl<S: Sync> FromRequestParts<S> for Caller
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let identity = identity(&Auth::from_ref(state), parts, "a bearer token").await?;
        Ok(Self { id: identity.user, organization_id: identity.organization })
    }
}

impl<S: Sync> FromRequestParts<S> for Operator
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let identity = identity(&Auth::from_ref(state), parts, "an operator's bearer token").await?;
        Ok(Self { id: operator(&identity)? })
    }
}

impl<S: Sync> FromRequestParts<S> for CronCaller
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let auth = Auth::from_ref(state);
        if is_cron(&auth, &parts.headers)? {
            return Ok(Self);
        }
        auth.limits.count(Who::stranger(parts))?;
        Err(missing("the cron secret"))
    }
}

impl<S: Sync> FromRequestParts<S> for CronOrOperator
where
    Auth: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let auth = Auth::from_ref(state);
        if is_cron(&auth, &parts.headers)? {
            return Ok(Self::Cron);
        }
        let identity = identity(&auth, parts, "the cron secret or an operator's bearer token").await?;
        Ok(Self::Operator(operator(&identity)?))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::Request;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;
    use tower::ServiceExt;

    use super::super::{Cors, finish};
    use super::*;
    use crate::clock;
    use crate::config::{Jwt, JwtKeys};

    const SECRET: &str = "a shared secret of the tests";

    fn router(limit: u32) -> Router {
        let keys = Jwt { keys: JwtKeys::Secret(SECRET.to_owned()), issuer: None, audience: "authenticated".to_owned() };
        let auth = Auth {
            cron_secrets: CronSecrets::new(&["new-secret".to_owned(), "old-secret".to_owned()]),
            tokens: Verifier::new(keys),
            limits: Limits::new(limit),
        };
        let routes = Router::new()
            .route("/caller", get(async |caller: Caller| caller.id.to_string()))
            .route("/operator", get(async |operator: Operator| operator.id.to_string()))
            .route("/cron", get(async |_: CronCaller| "cron"))
            .route("/either", get(async |either: CronOrOperator| either.actor()))
            .with_state(auth);
        finish(routes, Cors::default())
    }

    fn token(roles: &[&str]) -> String {
        let claims = json!({ "sub": Uuid::nil(), "aud": "authenticated", "exp": clock::now().timestamp() + 600, "app_metadata": { "roles": roles } });
        format!("Bearer {}", encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token"))
    }

    #[tokio::test]
    async fn strangers_get_401_and_the_known_who_may_not_403() {
        let (creator, operator) = (token(&[]), token(&["operator"]));
        let cron = "X-Cron-Secret";
        let bearer = "Authorization";
        for (header, value, statuses) in [
            // In the order: caller, operator, cron, either.
            ("X-Nothing", "", [401, 401, 401, 401]),
            (bearer, creator.as_str(), [200, 403, 401, 403]),
            (bearer, operator.as_str(), [200, 200, 401, 200]),
            (bearer, "Bearer ", [401, 401, 401, 401]),
            (bearer, "Bearer", [401, 401, 401, 401]),
            (bearer, "Basic bmV3LXNlY3JldA==", [401, 401, 401, 401]),
            (bearer, "Bearer wrong", [401, 401, 401, 401]),
            (bearer, "bearer new-secret", [401, 401, 200, 200]),
            (cron, "new-secret", [401, 401, 200, 200]),
            (cron, "old-secret", [401, 401, 200, 200]),
            (cron, "new-secre", [401, 401, 401, 401]),
            (cron, "new-secret,old-secret", [401, 401, 401, 401]),
            (cron, "NEW-SECRET", [401, 401, 401, 401]),
            (cron, "", [401, 401, 401, 401]),
            (cron, "é", [401, 401, 401, 401]),
        ] {
            for (path, expected) in ["/caller", "/operator", "/cron", "/either"].into_iter().zip(statuses) {
                let request =
                    Request::builder().uri(path).header(header, value.as_bytes()).body(Body::empty()).expect("a request");
                let response = router(0).oneshot(request).await.expect("an answer");
                assert_eq!(response.status().as_u16(), expected, "{path} with {header}: {value}");
                assert_eq!(response.headers().contains_key("www-authenticate"), expected == 401, "{path} with {header}: {value}");
            }
        }
    }

    #[tokio::test]
    async fn who_calls_too_often_waits_and_those_who_are_known_do_not_wait_for_strangers() {
        let router = router(1);
        let (creator, operator) = (token(&[]), token(&["operator"]));
        let status = async |path: &str, header: &'static str, value: &str| {
            let request = Request::builder().uri(path).header(header, value).body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.headers().contains_key("retry-after"), response.status() == 429);
            response.status().as_u16()
        };
        for (path, expected) in
            [("/caller", 401), ("/cron", 401), ("/either", 429), ("/operator", 429), ("/cron", 429), ("/caller", 429)]
        {
            assert_eq!(status(path, "authorization", "Bearer wrong").await, expected, "{path}");
        }
        // One user, whichever of their tokens they show; being turned away counts as well.
        assert_eq!(status("/operator", "authorization", &creator).await, 403);
        assert_eq!(status("/caller", "authorization", &operator).await, 200);
        assert_eq!(status("/caller", "authorization", &creator).await, 429);
        for _ in 0..10 {
            assert_eq!(status("/either", "x-cron-secret", "old-secret").await, 200);
        }
    }

    #[test]
    fn without_a_secret_nobody_is_admitted() {
        let none = CronSecrets::new(&[]);
        assert!(!none.admit(b"") && !none.admit(b"x"));
    }
}
