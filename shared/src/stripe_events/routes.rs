//! `POST /webhooks/stripe`, the one route of a function of its own: it knows the webhook secrets and nothing else. And what
//! operators ask of the API about the events that came (`inspector`).

mod inspector;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

pub use inspector::routes;

use super::{Received, receive};
use crate::config::Policy;
use crate::db::Db;
use crate::error::Result;
use crate::http::{Cors, MIB, finish, read_body};

/// What receiving takes.
#[derive(Clone)]
pub struct Receiver {
    pub db: Db,
    pub policy: Policy,
    pub secrets: Vec<String>,
}

pub fn router(receiver: Receiver) -> Router {
    finish(Router::new().route("/webhooks/stripe", post(webhook)).with_state(receiver), Cors::default())
}

async fn webhook(State(receiver): State<Receiver>, request: Request) -> Result<Json<Value>> {
    let header = request.headers().get("stripe-signature").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = read_body(request, MIB).await?;
    let received = receive(&receiver.db, &receiver.policy, &receiver.secrets, header.as_deref(), &body).await?;
    Ok(Json(json!({ "ok": true, "success": true, "repeated": received == Received::Repeated })))
}
