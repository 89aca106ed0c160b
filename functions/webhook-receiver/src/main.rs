//! `POST /webhooks/stripe`: verify over the raw bytes, store once, apply in the same transaction, answer 2xx.

use lambda_http::{Error, Request, run, service_fn, tower::ServiceExt};
use payday::db::Db;
use payday::stripe_events::routes::{Receiver, router};
use payday::{config, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static ROUTER: OnceCell<axum::Router> = OnceCell::const_new();

async fn load() -> Result<axum::Router, Error> {
    let db = Db::connect(&config::database_url().await?, 2)?;
    Ok(router(Receiver { db, policy: config::Policy::load()?, secrets: config::stripe_webhook_secrets().await? }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |request: Request| Ok::<_, Error>(ROUTER.get_or_try_init(load).await?.clone().oneshot(request).await?);
    run(service_fn(handle)).await
}
