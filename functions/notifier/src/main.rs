//! SQS → the outbox's messages to people, by Slack and email. What was sent, or may have been, is not sent again.

// In release the compiler looks deeper into the nested futures than its default allows.
#![recursion_limit = "256"]

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::boundary::Boundary;
use payday::db::Db;
use payday::messages::Messenger;
use payday::queue::{self, Message};
use payday::{aws, config, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static MESSENGER: OnceCell<Messenger> = OnceCell::const_new();

async fn messenger() -> Result<Messenger, Error> {
    // Ten messages of a batch are worked off at once, and none waits for Slack with a connection in its hand.
    let db = Db::connect(&config::database_url().await?, 2)?;
    Ok(Messenger::new(db, &config::Alerts::load().await?, &aws::settings().await))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |event: LambdaEvent<SqsEvent>| {
        let messenger = MESSENGER.get_or_try_init(messenger).await?;
        let work = |message| async move {
            match message {
                Message::Notification { outbox_id } => messenger.deliver(outbox_id).await,
                Message::CreateBatch { .. } | Message::Withdraw { .. } | Message::ProcessChunk { .. } => {
                    Err(queue::not_for("notifier"))
                }
            }
        };
        Ok::<_, Error>(queue::each(Boundary::NotificationMessage, event.payload, work).await)
    };
    run(service_fn(handle)).await
}
