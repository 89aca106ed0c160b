//! The Parameters and Secrets Lambda extension: answers a function for the secrets that its role in the template lets it read.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::identity::Identities;
use crate::template::allowed;

#[derive(Clone)]
struct Extension {
    by_arn: Arc<BTreeMap<String, String>>,
    identities: Arc<Identities>,
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "secretId")]
    secret_id: String,
}

/// Serves until the task is aborted.
pub fn serve(listener: TcpListener, by_arn: BTreeMap<String, String>, identities: Arc<Identities>) -> JoinHandle<()> {
    let router =
        Router::new().route("/secretsmanager/get", get(secret)).with_state(Extension { by_arn: Arc::new(by_arn), identities });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the secrets extension stopped");
        }
    })
}

async fn secret(
    State(extension): State<Extension>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> (StatusCode, Json<Value>) {
    let refuse = |status, message: String| (status, Json(json!({ "message": message })));
    // The extension hands out anything to whoever holds the session token of its function; that is the whole of its check.
    let token = headers.get("x-aws-parameters-secrets-token").and_then(|token| token.to_str().ok());
    let Some(function) = token.and_then(|token| extension.identities.of_token(token)) else {
        return refuse(
            StatusCode::UNAUTHORIZED,
            "the header X-Aws-Parameters-Secrets-Token must hold AWS_SESSION_TOKEN".to_owned(),
        );
    };
    let arn = wanted.secret_id;
    if !allowed(&function.statements, "secretsmanager:GetSecretValue", &arn) {
        tracing::warn!(function = function.name, arn, "the role in the template does not allow this secret");
        return refuse(
            StatusCode::BAD_REQUEST,
            format!("AccessDeniedException: {} may not read {arn} (see its role in the template)", function.name),
        );
    }
    match extension.by_arn.get(&arn) {
        Some(value) => {
            (StatusCode::OK, Json(json!({ "ARN": arn, "Name": arn, "SecretString": value, "VersionStages": ["AWSCURRENT"] })))
        }
        None => refuse(StatusCode::BAD_REQUEST, format!("ResourceNotFoundException: no secret {arn}")),
    }
}
