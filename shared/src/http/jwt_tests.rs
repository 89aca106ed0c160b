//! Every way in which a token can be wrong, and a JWKS that changes and fails.

use std::sync::Mutex as Shared;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

const USER: &str = "6f1f6c1e-7a0d-4a55-9a4c-2f6f1f1f0001";
const ISSUER: &str = "https://project.example.com/auth/v1";
const SECRET: &str = "a shared secret of the tests";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key made for one test, and its public half as a JWK.
struct Signer {
    algorithm: Algorithm,
    private: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn es256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let der = pair.to_pkcs8v1().expect("PKCS 8");
        let point = pair.public_key().as_ref()[1..].to_vec();
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "use": "sig", "x": b64(&point[..32]), "y": b64(&point[32..]) });
        Self { algorithm: Algorithm::ES256, private: EncodingKey::from_ec_der(der.as_ref()), jwk }
    }

    fn rs256(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("PKCS 8");
        let public: RsaPublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let jwk = json!({ "kty": "RSA", "kid": kid, "n": b64(&public.n), "e": b64(&public.e) });
        // Inside PKCS 8, behind 26 bytes that are the same for every key of this size, is the PKCS 1 that jsonwebtoken wants.
        Self { algorithm: Algorithm::RS256, private: EncodingKey::from_rsa_der(&der.as_ref()[26..]), jwk }
    }

    fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        encode(&header, claims, &self.private).expect("a token")
    }
}

fn claims() -> Value {
    json!({ "sub": USER, "aud": "authenticated", "iss": ISSUER, "exp": clock::now().timestamp() + 600, "app_metadata": { "roles": ["operator", "painter"] } })
}

fn with(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
    let mut claims = claims();
    change(claims.as_object_mut().expect("an object"));
    claims
}

fn hs256(claims: &Value, secret: &[u8]) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).expect("a token")
}

fn verifier(keys: JwtKeys) -> Verifier {
    Verifier::new(Jwt { keys, issuer: Some(ISSUER.to_owned()), audience: "authenticated".to_owned() })
}

/// A JWKS address whose answer a test can change, and how often it was asked.
struct KeyServer {
    url: String,
    state: Arc<Shared<(Option<Value>, usize)>>,
}

impl KeyServer {
    #[expect(clippy::disallowed_methods, reason = "the other side of the wire")]
    async fn start(jwks: &[&Signer]) -> Self {
        let state = Arc::new(Shared::new((None, 0)));
        let served = state.clone();
        let answer = async move || {
            let mut state = served.lock().expect("no panic");
            state.1 += 1;
            state.0.clone().map(axum::Json).ok_or(http::StatusCode::BAD_GATEWAY)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
        tokio::spawn(
            async move { axum::serve(listener, axum::Router::new().route("/jwks.json", axum::routing::get(answer))).await },
        );
        let server = Self { url, state };
        server.serve(jwks);
        server
    }

    fn serve(&self, jwks: &[&Signer]) {
        let keys: Vec<_> = jwks.iter().map(|signer| signer.jwk.clone()).collect();
        self.state.lock().expect("no panic").0 = Some(json!({ "keys": keys }));
    }

    fn fail(&self) {
        self.state.lock().expect("no panic").0 = None;
    }

    fn asked(&self) -> usize {
        self.state.lock().expect("no panic").1
    }

    /// A verifier with patience of its own.
    fn verifier(&self, patience: Patience) -> Verifier {
        Verifier {
            keys: Keys::Jwks(Arc::new(Jwks::new(self.url.clone(), patience))),
            issuer: Some(ISSUER.to_owned()),
            audience: "authenticated".to_owned(),
        }
    }
}

async fn code(verifier: &Verifier, token: &str) -> &'static str {
    verifier.verify(token).await.map_or_else(|error| error.code, |_| "ok")
}

#[tokio::test]
async fn a_valid_token_says_who_calls_and_what_they_may() {
    let (ec, rsa) = (Signer::es256("e"), Signer::rs256("r"));
    let server = KeyServer::start(&[&ec, &rsa]).await;
    let asymmetric = verifier(JwtKeys::Jwks { url: server.url.clone() });
    let organization = "6f1f6c1e-7a0d-4a55-9a4c-2f6f1f1f0009";
    let claims = with(|claims| claims["app_metadata"]["organization_id"] = json!(organization));
    let symmetric = verifier(JwtKeys::Secret(SECRET.to_owned()));
    for (verifier, token) in [
        (&asymmetric, ec.sign(Some("e"), &claims)),
        (&asymmetric, rsa.sign(Some("r"), &claims)),
        (&symmetric, hs256(&claims, SECRET.as_bytes())),
    ] {
        let expected = Identity {
            user: USER.parse().expect("a uuid"),
            roles: vec![Role::Operator],
            organization: organization.parse().ok(),
        };
        assert_eq!(verifier.verify(&token).await.expect("valid"), expected);
    }
    assert_eq!(server.asked(), 1, "the keys are kept");
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_refused() {
    let now = clock::now().timestamp();
    let rows = [
        ("expired", with(|c| c["exp"] = json!(now - 60)), "TOKEN_EXPIRED"),
        ("not yet valid", with(|c| drop(c.insert("nbf".to_owned(), json!(now + 600)))), "UNAUTHENTICATED"),
        ("no exp", with(|c| drop(c.remove("exp"))), "UNAUTHENTICATED"),
        ("exp of another kind", with(|c| c["exp"] = json!("tomorrow")), "UNAUTHENTICATED"),
        ("another audience", with(|c| c["aud"] = json!("anon")), "UNAUTHENTICATED"),
        ("no audience", with(|c| drop(c.remove("aud"))), "UNAUTHENTICATED"),
        ("another issuer", with(|c| c["iss"] = json!("https://evil.example.com")), "UNAUTHENTICATED"),
        ("no issuer", with(|c| drop(c.remove("iss"))), "UNAUTHENTICATED"),
        ("no sub", with(|c| drop(c.remove("sub"))), "UNAUTHENTICATED"),
        ("sub is no uuid", with(|c| c["sub"] = json!("admin")), "UNAUTHENTICATED"),
        ("sub is a number", with(|c| c["sub"] = json!(1)), "UNAUTHENTICATED"),
        ("several audiences, one of them ours", with(|c| c["aud"] = json!(["x", "authenticated"])), "ok"),
    ];
    let signer = Signer::es256("e");
    let server = KeyServer::start(&[&signer]).await;
    let asymmetric = verifier(JwtKeys::Jwks { url: server.url.clone() });
    let symmetric = verifier(JwtKeys::Secret(SECRET.to_owned()));
    for (what, claims, expected) in rows {
        assert_eq!(code(&asymmetric, &signer.sign(Some("e"), &claims)).await, expected, "{what}, ES256");
        assert_eq!(code(&symmetric, &hs256(&claims, SECRET.as_bytes())).await, expected, "{what}, HS256");
    }
}

#[tokio::test]
async fn the_token_never_chooses_how_it_is_verified() {
    let (ec, rsa, stranger) = (Signer::es256("e"), Signer::rs256("r"), Signer::es256("e"));
    let mut published_secret = json!({ "kty": "oct", "kid": "o", "k": b64(SECRET), "alg": "HS256" });
    let server = KeyServer::start(&[&ec, &rsa]).await;
    if let Some(Some(keys)) = server.state.lock().expect("no panic").0.as_mut().map(|set| set["keys"].as_array_mut()) {
        keys.push(published_secret.take());
    }
    let asymmetric = verifier(JwtKeys::Jwks { url: server.url.clone() });
    let symmetric = verifier(JwtKeys::Secret(SECRET.to_owned()));
    let payload = b64(claims().to_string());
    let unsigned = |alg: &str| format!("{}.{payload}.", b64(json!({ "alg": alg, "typ": "JWT", "kid": "e" }).to_string()));
    let with_kid = |kid: &str, secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        encode(&header, &claims(), &EncodingKey::from_secret(secret)).expect("a token")
    };
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(rsa.jwk["n"].as_str().expect("text")).expect("base64");
    let valid = ec.sign(Some("e"), &claims());
    let (signed, signature) = valid.rsplit_once('.').expect("a signature");
    let forged_claims = format!(
        "{}.{}.{signature}",
        signed.split_once('.').expect("a header").0,
        b64(with(|c| c["sub"] = json!(Uuid::nil())).to_string())
    );
    for (what, token) in [
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg ES256 without a signature", unsigned("ES256")),
        ("HS256 with the public key as the secret", with_kid("r", &modulus)),
        ("HS256 with the JWK's text as the secret", with_kid("r", rsa.jwk.to_string().as_bytes())),
        ("HS256 with a published symmetric key", with_kid("o", SECRET.as_bytes())),
        ("an RSA key under the other key's id", rsa.sign(Some("e"), &claims())),
        ("a stranger's key under a known id", stranger.sign(Some("e"), &claims())),
        ("an id that nobody has", ec.sign(Some("x"), &claims())),
        ("no id while there are two keys", ec.sign(None, &claims())),
        ("claims changed after signing", forged_claims),
        ("a signature cut short", valid[..valid.len() - 4].to_owned()),
        ("no token", String::new()),
        ("not a token", "a.b.c".to_owned()),
    ] {
        assert_eq!(code(&asymmetric, &token).await, "UNAUTHENTICATED", "{what}");
        assert_eq!(
            code(&symmetric, &token).await,
            if what.contains("published symmetric") { "ok" } else { "UNAUTHENTICATED" },
            "{what}, against a secret"
        );
    }
    let mut header = Header::new(Algorithm::HS512);
    header.kid = None;
    let longer = encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
    assert_eq!(code(&symmetric, &longer).await, "UNAUTHENTICATED", "HS512 with the right secret");
}

#[tokio::test]
async fn roles_come_from_app_metadata_and_from_nowhere_else() {
    let verifier = verifier(JwtKeys::Secret(SECRET.to_owned()));
    for (what, claims) in [
        ("user_metadata", with(|c| *c = claims_without_app_metadata(json!({ "user_metadata": { "roles": ["operator"] } })))),
        ("top level", with(|c| *c = claims_without_app_metadata(json!({ "roles": ["operator"], "role": "operator" })))),
        ("a text, not a list", with(|c| c["app_metadata"] = json!({ "roles": "operator" }))),
        ("another spelling", with(|c| c["app_metadata"] = json!({ "roles": ["Operator", " operator", null, 1] }))),
        ("no metadata", with(|c| c["app_metadata"] = Value::Null)),
        ("metadata of another kind", with(|c| c["app_metadata"] = json!("operator"))),
    ] {
        let identity = verifier.verify(&hs256(&claims, SECRET.as_bytes())).await.expect("valid");
        assert_eq!((identity.roles, identity.organization), (vec![], None), "{what}");
    }
}

fn claims_without_app_metadata(more: Value) -> serde_json::Map<String, Value> {
    let (Value::Object(mut all), Value::Object(more)) = (claims(), more) else { return serde_json::Map::new() };
    all.remove("app_metadata");
    all.extend(more);
    all
}

#[tokio::test]
async fn without_a_configured_issuer_any_is_taken() {
    let mut verifier = verifier(JwtKeys::Secret(SECRET.to_owned()));
    verifier.issuer = None;
    for claims in [claims(), with(|c| drop(c.remove("iss")))] {
        assert_eq!(code(&verifier, &hs256(&claims, SECRET.as_bytes())).await, "ok");
    }
}

const NEVER: Duration = Duration::from_secs(1_000_000);

#[tokio::test]
async fn a_new_key_is_fetched_once_it_is_used_and_unknown_ids_do_not_flood() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let server = KeyServer::start(&[&old]).await;
    let rotating = server.verifier(Patience { keep: NEVER, between: Duration::ZERO, without_keys: Duration::ZERO });
    assert_eq!(code(&rotating, &old.sign(Some("old"), &claims())).await, "ok");
    server.serve(&[&old, &new]);
    assert_eq!(code(&rotating, &new.sign(Some("new"), &claims())).await, "ok");
    assert_eq!(server.asked(), 2);

    let patient = server.verifier(Patience { keep: NEVER, between: NEVER, without_keys: Duration::ZERO });
    for _ in 0..5 {
        assert_eq!(code(&patient, &new.sign(Some("unheard of"), &claims())).await, "UNAUTHENTICATED");
    }
    assert_eq!(server.asked(), 3, "one request for the keys, none for ids that are not there");
}

#[tokio::test]
async fn old_keys_serve_while_the_address_is_down_and_withdrawn_ones_go_when_it_is_back() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let server = KeyServer::start(&[&old]).await;
    let verifier = server.verifier(Patience { keep: Duration::ZERO, between: Duration::ZERO, without_keys: Duration::ZERO });
    let token = old.sign(Some("old"), &claims());
    assert_eq!(code(&verifier, &token).await, "ok");
    server.fail();
    assert_eq!(code(&verifier, &token).await, "ok");
    server.serve(&[&new]);
    assert_eq!(code(&verifier, &token).await, "UNAUTHENTICATED");
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn without_any_key_nobody_is_called_a_liar() {
    let signer = Signer::es256("e");
    let server = KeyServer::start(&[&signer]).await;
    server.fail();
    let verifier = server.verifier(Patience { keep: NEVER, between: NEVER, without_keys: Duration::ZERO });
    assert_eq!(code(&verifier, &signer.sign(Some("e"), &claims())).await, "SIGN_IN_UNAVAILABLE");
    server.serve(&[&signer]);
    assert_eq!(code(&verifier, &signer.sign(None, &claims())).await, "ok", "the only key needs no id");
}
