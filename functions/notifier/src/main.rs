//! SQS → the outbox's messages to people. A message that was sent is not sent again.

// In release the compiler looks deeper into the nested futures than its default allows.
#![recursion_limit = "256"]

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::boundary::Boundary;
use payday::db::Db;
use payday::queue::{self, Message};
use payday::{config, notifications, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static DB: OnceCell<Db> = OnceCell::const_new();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |event: LambdaEvent<SqsEvent>| {
        let db = DB.get_or_try_init(async || Db::connect(&config::database_url().await?, 1)).await?;
        let work = |message| async move {
            match message {
                Message::Notification { outbox_id } => notifications::deliver(db, outbox_id).await,
                Message::CreateBatch { .. } | Message::Withdraw { .. } | Message::ProcessChunk { .. } => {
                    Err(queue::not_for("notifier"))
                }
            }
        };
        Ok::<_, Error>(queue::each(Boundary::NotificationMessage, event.payload, work).await)
    };
    run(service_fn(handle)).await
}
