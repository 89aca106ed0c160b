//! Brings the schema up to date; the documented deploy command invokes it before the new code meets the database.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::{config, db, telemetry};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |_: LambdaEvent<Value>| {
        let version = db::migrate(&config::migration_database_url().await?).await?;
        tracing::info!(version, "schema is up to date");
        Ok::<_, Error>(json!({ "version": version }))
    };
    run(service_fn(handle)).await
}
