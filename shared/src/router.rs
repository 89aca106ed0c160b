//! Every route of every domain in one place, and the OpenAPI document that is made from them.
//!
//! A domain's `routes.rs` has `fn routes() -> OpenApiRouter<AppState>`; merging it here is all that a new one needs. The
//! Stripe webhook is not here: it has a function of its own, which knows its secret.

use std::sync::LazyLock;

use axum::Router;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::{AppState, Cors, Problem, finish};
use crate::{audit, earnings, messages, payees, payouts, reconciliation, stripe_events, withdrawals};

/// The whole API, ready to serve.
pub fn router(state: AppState, cors: Cors) -> Router {
    let (routes, _) = documented().split_for_parts();
    finish(routes.with_state(state), cors)
}

fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(About::openapi())
        .routes(routes!(health))
        .routes(routes!(openapi))
        .merge(earnings::routes::routes())
        .merge(payouts::routes::routes())
        .merge(withdrawals::routes::routes())
        .merge(payees::routes::routes())
        .merge(payees::roster::routes::routes())
        .merge(stripe_events::routes::routes())
        .merge(reconciliation::routes::routes())
        .merge(messages::routes::routes())
        .merge(audit::routes::routes())
}

/// The OpenAPI document, pretty and always in the same order; `openapi.json` at the repository's root is this text.
pub fn openapi_json() -> String {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = documented().split_for_parts();
        let mut text = document.to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    TEXT.clone()
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Payday", description = "Pays creators and partners on time and never twice.", license(name = "MIT OR Apache-2.0")),
    components(schemas(Problem)),
    modifiers(&Credentials)
)]
struct About;

/// How a caller shows who it is.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "A user's token. Routes for operators need `operator` in `app_metadata.roles`. Routes for schedulers take the cron secret here too.",
        ));
        components.add_security_scheme("bearer", SecurityScheme::Http(token.build()));
        let secret = ApiKeyValue::with_description("X-Cron-Secret", "The cron secret.");
        components.add_security_scheme("cronSecret", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    ok: bool,
    success: bool,
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Alive, nothing else: it asks nothing of the database, the queues or Stripe.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, description = "Alive.", body = Health)))]
async fn health() -> axum::Json<Health> {
    axum::Json(Health { ok: true, success: true, status: "ok" })
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "The OpenAPI document.", content_type = "application/json")))]
async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi_json())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::http::testing;

    #[tokio::test]
    async fn health_says_alive_to_anybody_without_asking_anything() {
        let (status, body) = testing::call(Request::get("/health").body(Body::empty()).expect("a request")).await;
        assert_eq!((status, body), (200, json!({ "ok": true, "success": true, "status": "ok" })));
    }

    #[tokio::test]
    async fn the_document_that_is_served_names_every_route_and_how_to_be_let_in() {
        let (status, served) = testing::call(Request::get("/openapi.json").body(Body::empty()).expect("a request")).await;
        assert_eq!(status, 200);
        assert_eq!(served, serde_json::from_str::<serde_json::Value>(&openapi_json()).expect("JSON"));
        for (path, method) in [
            ("/health", "get"),
            ("/internal/earnings", "post"),
            ("/api/cron/payouts", "post"),
            ("/internal/payouts/run", "post"),
            ("/internal/payouts/status/{runId}", "get"),
            ("/internal/payouts/health", "get"),
            ("/api/tokens/earnings", "get"),
            ("/api/tokens/request-withdrawal", "post"),
            ("/api/payouts/{payoutId}", "get"),
            ("/api/payout-settings", "patch"),
        ] {
            assert!(served["paths"][path][method].is_object(), "{path}");
        }
        assert_eq!(served["components"]["securitySchemes"]["cronSecret"]["name"], "X-Cron-Secret");
        assert_eq!(served["info"]["title"], "Payday");
        // Only what needs no credentials may say so.
        for (path, methods) in served["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let open = ["/health", "/openapi.json"].contains(&path.as_str());
                assert_eq!(operation["security"].is_array(), !open, "{method} {path}");
            }
        }
    }
}
