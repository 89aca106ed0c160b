//! For tests of routes: the whole API over nothing, for what is answered before the database is asked.

use axum::body::Body;
use axum::extract::Request;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::{AppState, Auth, Cors, CronSecrets, Limits, Queues, Verifier};
use crate::config::{Jwt, JwtKeys, Policy, Withdrawals};
use crate::db::Db;
use crate::queue::Queue;
use crate::schedule::Scheduler;
use crate::{aws, clock, router};

pub(crate) const CRON_SECRET: &str = "cron-secret-of-tests";
const JWT_SECRET: &str = "jwt-secret-of-tests";

/// The settings' defaults.
pub(crate) fn policy() -> Policy {
    Policy::load().expect("the defaults hold")
}

/// `Bearer …` of a user with these roles.
pub(crate) fn bearer(roles: &[&str]) -> String {
    let claims = json!({ "sub": Uuid::nil(), "aud": "authenticated", "exp": clock::now().timestamp() + 600, "app_metadata": { "roles": roles } });
    format!("Bearer {}", encode(&Header::default(), &claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes())).expect("a token"))
}

async fn state() -> AppState {
    let aws = aws::settings().await;
    let queue = || Queue::new(&aws, "http://127.0.0.1:1/queue".to_owned());
    let keys = Jwt { keys: JwtKeys::Secret(JWT_SECRET.to_owned()), issuer: None, audience: "authenticated".to_owned() };
    AppState {
        db: Db::connect("postgres://nobody@127.0.0.1:1/nothing", 1).expect("an address"),
        policy: policy().into(),
        withdrawals: Withdrawals::OnDemand,
        auth: Auth {
            cron_secrets: CronSecrets::new(&[CRON_SECRET.to_owned()]),
            tokens: Verifier::new(keys),
            limits: Limits::new(0),
        },
        queues: Queues { create_batch: queue(), process_chunk: queue(), notification: queue() },
        scheduler: Scheduler::new(&aws, "payday".to_owned()),
        connect: None,
        stripe_api_base: "http://127.0.0.1:1".into(),
        stuck_run_minutes: 60,
        two_person_above_cents: 0,
    }
}

/// The status and body of an answer of the whole API.
pub(crate) async fn call(request: Request<Body>) -> (u16, Value) {
    let response = router::router(state().await, Cors::default()).oneshot(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 8 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}
