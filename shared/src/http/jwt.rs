//! Who a bearer token speaks for.
//!
//! The algorithm is fixed by the key and never by the token: keys from a JWKS verify ES256 or RS256, a shared secret HS256,
//! nothing else is looked at. So a token without a signature, or one signed with a public key as if that were a secret, is
//! simply not valid. Roles come from `app_metadata` only; users can edit `user_metadata`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::clock;
use crate::config::{Jwt, JwtKeys};
use crate::error::{Error, Kind, Result};
use crate::http_client::HttpClient;

/// Seconds by which clocks may differ.
const LEEWAY_SECONDS: u64 = 5;
const JWKS_TIMEOUT: Duration = Duration::from_secs(3);

/// What a user may do beyond their own affairs. Names that are not here give nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs payouts: pause, preview, retry, import.
    Operator,
}

impl Role {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: Uuid,
    pub(super) roles: Vec<Role>,
    pub(super) organization: Option<Uuid>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    app_metadata: Value,
}

/// Checks bearer tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: String,
}

#[derive(Clone)]
enum Keys {
    Secret(DecodingKey),
    Jwks(Arc<Jwks>),
}

impl Verifier {
    /// Fetches nothing yet: the first token does.
    pub fn new(settings: Jwt) -> Self {
        let keys = match settings.keys {
            JwtKeys::Secret(secret) => Keys::Secret(DecodingKey::from_secret(secret.as_bytes())),
            JwtKeys::Jwks { url } => Keys::Jwks(Arc::new(Jwks::new(url, Patience::default()))),
        };
        Self { keys, issuer: settings.issuer, audience: settings.audience }
    }

    /// The identity in a token that is valid now; everything else about it is `Unauthenticated`, except that its keys
    /// cannot be had at all, which is `Unavailable`.
    pub(super) async fn verify(&self, token: &str) -> Result<Identity> {
        let header = decode_header(token).map_err(|_| refused())?;
        let key = match &self.keys {
            Keys::Secret(key) => Key { algorithm: Algorithm::HS256, key: key.clone() },
            // Without this, any nonsense would make us ask for keys.
            Keys::Jwks(_) if !matches!(header.alg, Algorithm::ES256 | Algorithm::RS256) => return Err(refused()),
            Keys::Jwks(jwks) => jwks.key(header.kid.as_deref()).await?.ok_or_else(refused)?,
        };
        let mut rules = Validation::new(key.algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_audience(&[&self.audience]);
        rules.set_required_spec_claims(&["exp", "sub", "aud"]);
        if let Some(issuer) = &self.issuer {
            rules.set_issuer(&[issuer]);
            rules.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
        }
        let claims = decode::<Claims>(token, &key.key, &rules).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => {
                Error::new(Kind::Unauthenticated, "TOKEN_EXPIRED", "The token has expired; sign in again.")
            }
            _ => refused(),
        })?;
        let Claims { sub, app_metadata } = claims.claims;
        let roles =
            app_metadata["roles"].as_array().into_iter().flatten().filter_map(|role| Role::parse(role.as_str()?)).collect();
        let organization = app_metadata["organization_id"].as_str().and_then(|id| Uuid::parse_str(id).ok());
        Ok(Identity { user: Uuid::parse_str(&sub).map_err(|_| refused())?, roles, organization })
    }
}

fn refused() -> Error {
    Error::new(Kind::Unauthenticated, "UNAUTHENTICATED", "The bearer token is not valid; sign in again.")
}

/// A key and the one algorithm that it is for.
#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// How long keys are kept and how often they are asked for.
#[derive(Clone, Copy)]
struct Patience {
    keep: Duration,
    /// Between two requests for a key id that is not known, or after a request that failed.
    between: Duration,
    /// The same while there is no key at all and nobody can sign in.
    without_keys: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { keep: Duration::from_secs(600), between: Duration::from_secs(60), without_keys: Duration::from_secs(1) }
    }
}

/// The keys of a JWKS, kept for ten minutes, and longer while its address does not answer.
struct Jwks {
    url: String,
    patience: Patience,
    // Held while fetching, so that many requests that need a key ask for it once.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    keys: HashMap<Option<String>, Key>,
    client: Option<HttpClient>,
    fetched_at: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Jwks {
    fn new(url: String, patience: Patience) -> Self {
        Self { url, patience, kept: Mutex::default() }
    }

    /// The key of this id. A token without an id is for the only key there is, if there is only one.
    async fn key(&self, kid: Option<&str>) -> Result<Option<Key>> {
        let mut kept = self.kept.lock().await;
        let is_fresh = kept.fetched_at.is_some_and(|at| at.elapsed() < self.patience.keep);
        let pause = if kept.fetched_at.is_some() { self.patience.between } else { self.patience.without_keys };
        let may_ask = kept.asked_at.is_none_or(|at| at.elapsed() >= pause);
        if may_ask && (!is_fresh || find(&kept.keys, kid).is_none()) {
            kept.asked_at = Some(clock::monotonic());
            match self.fetch(&mut kept.client).await {
                Ok(keys) => {
                    kept.keys = keys;
                    kept.fetched_at = kept.asked_at;
                }
                Err(error) => tracing::warn!(error = %error, causes = error.causes(), "the signing keys could not be fetched"),
            }
        }
        if kept.fetched_at.is_none() {
            return Err(Error::unavailable("SIGN_IN_UNAVAILABLE", "Tokens cannot be checked right now; try again in a moment."));
        }
        Ok(find(&kept.keys, kid).cloned())
    }

    async fn fetch(&self, client: &mut Option<HttpClient>) -> Result<HashMap<Option<String>, Key>> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let unavailable = || Error::unavailable("SIGN_IN_UNAVAILABLE", "The signing keys could not be fetched.");
        let client = match client {
            Some(client) => client,
            None => client.insert(HttpClient::new(JWKS_TIMEOUT)?),
        };
        let answer = client.get(&self.url, Vec::new()).await.map_err(|failure| unavailable().with_source(failure.to_string()))?;
        if !answer.status.is_success() {
            return Err(unavailable().with_source(format!("answered {}", answer.status)));
        }
        let set: Set = serde_json::from_slice(&answer.body).map_err(|error| unavailable().with_source(error))?;
        // One by one: a key of a kind that we do not use must not cost us the others.
        Ok(set.keys.into_iter().filter_map(|jwk| usable(&serde_json::from_value(jwk).ok()?)).collect())
    }
}

fn find<'k>(keys: &'k HashMap<Option<String>, Key>, kid: Option<&str>) -> Option<&'k Key> {
    match kid {
        Some(kid) => keys.get(&Some(kid.to_owned())),
        None if keys.len() == 1 => keys.values().next(),
        None => None,
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// A key of a JWKS if it is one of the two kinds that we verify with. Symmetric ones never are: what is published is no secret.
fn usable(jwk: &Jwk) -> Option<(Option<String>, Key)> {
    let (name, algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some("P-256")) => {
            ("ES256", Algorithm::ES256, DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?))
        }
        ("RSA", _) => ("RS256", Algorithm::RS256, DecodingKey::from_rsa_components(jwk.n.as_deref()?, jwk.e.as_deref()?)),
        _ => return None,
    };
    let for_this =
        jwk.alg.as_deref().is_none_or(|alg| alg == name) && jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
    Some((jwk.kid.clone(), Key { algorithm, key: key.ok().filter(|_| for_this)? }))
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
