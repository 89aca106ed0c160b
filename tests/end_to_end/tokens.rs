//! Tokens of a platform that signs with keys of its own: every way of being let in without one of them.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use payday_tests::http::request;
use payday_tests::system::{JWT_SECRET, Setup};
use payday_tests::world::creator;
use serde_json::{Value as Json, json};

use crate::http::is_an_error;

const ISSUER: &str = "https://project.example.com/auth/v1";

struct Signer {
    private: EncodingKey,
    /// The uncompressed point behind its first byte.
    point: Vec<u8>,
    public_der: Vec<u8>,
}

impl Signer {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().expect("PKCS 8").as_ref());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("X.509");
        Self { private, point: pair.public_key().as_ref()[1..].to_vec(), public_der: public.as_ref().to_vec() }
    }

    fn jwk(&self, kid: &str) -> Json {
        let b64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "use": "sig", "x": b64(&self.point[..32]), "y": b64(&self.point[32..]) })
    }

    fn sign(&self, kid: &str, claims: &Json) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.private).expect("a token")
    }
}

/// The address of a JWKS with this one key.
async fn publish(jwk: Json) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
    let answer = async move || axum::Json(json!({ "keys": [jwk] }));
    let router = axum::Router::new().route("/jwks.json", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_believed_only_from_the_key_the_issuer_and_for_the_audience_that_are_ours() {
    let (ours, theirs) = (Signer::new(), Signer::new());
    let jwks = publish(ours.jwk("k1")).await;
    let setup = Setup::of(1).secret("JWT_SECRET", None).setting("JWT_JWKS_URL", &jwks).setting("JWT_ISSUER", ISSUER);
    let system = setup.start().await;
    let good = json!({ "sub": creator(1), "aud": "authenticated", "iss": ISSUER, "exp": Utc::now().timestamp() + 600 });
    let with = |field: &str, value: Json| {
        let mut claims = good.clone();
        claims[field] = value;
        ours.sign("k1", &claims)
    };
    let without = |field: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").remove(field);
        ours.sign("k1", &claims)
    };
    let hs256 = |secret: &[u8]| {
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(secret)).expect("a token")
    };
    let pem =
        format!("-----BEGIN PUBLIC {0}-----\n{1}\n-----END PUBLIC {0}-----\n", "KEY", BASE64_STANDARD.encode(&ours.public_der));
    let signed = ours.sign("k1", &good);
    let parts: Vec<&str> = signed.split('.').collect();
    let none =
        |alg: &str| format!("{}.{}.", BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\",\"kid\":\"k1\"}}")), parts[1]);
    let ask = async |token: &str| {
        let authorization = format!("Bearer {token}");
        request(&system.stack.http_url, "GET", "/api/tokens/earnings", &[("authorization", &authorization)], "").await
    };
    assert_eq!(ask(&signed).await.status, 200);
    for (what, token) in [
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("no alg", none("")),
        ("its signature cut off", format!("{}.{}.", parts[0], parts[1])),
        ("HS256 with the public key as PEM", hs256(pem.as_bytes())),
        ("HS256 with the public key as DER", hs256(&ours.public_der)),
        ("HS256 with the public point", hs256(&ours.point)),
        ("HS256 with the published x", hs256(ours.jwk("k1")["x"].as_str().expect("x").as_bytes())),
        ("HS256 with nothing", hs256(b"")),
        ("HS256 with another platform's secret", hs256(JWT_SECRET.as_bytes())),
        ("another key under our id", theirs.sign("k1", &good)),
        ("another key under another id", theirs.sign("k2", &good)),
        ("our key under another id", ours.sign("../k1", &good)),
        ("expired", with("exp", json!(Utc::now().timestamp() - 60))),
        ("not valid yet", with("nbf", json!(Utc::now().timestamp() + 600))),
        ("exp as a text", with("exp", json!("never"))),
        ("another issuer", with("iss", json!("https://other.example.com/auth/v1"))),
        ("an issuer that begins like ours", with("iss", json!(format!("{ISSUER}/")))),
        ("another audience", with("aud", json!("anon"))),
        ("a subject that is no user", with("sub", json!("admin"))),
        ("without exp", without("exp")),
        ("without iss", without("iss")),
        ("without aud", without("aud")),
        ("without sub", without("sub")),
    ] {
        let answer = ask(&token).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        is_an_error(&answer, what);
    }
    system.ends("no items").await;
}
