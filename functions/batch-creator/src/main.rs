//! SQS `payout.create-batch` → batches, items and chunks of a run; `payout.withdraw` → the batch of a withdrawal request. Run
//! again at any point, it ends in the same state.

// In release the compiler looks deeper into the nested futures than its default allows.
#![recursion_limit = "256"]

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::boundary::Boundary;
use payday::db::Db;
use payday::payouts::cycle::create_batches;
use payday::queue::{self, Message, Queue};
use payday::{aws, config, telemetry, withdrawals};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static DB: OnceCell<Db> = OnceCell::const_new();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let policy = config::Policy::load()?;
    let chunk_size = config::chunk_size()?;
    let chunks = Queue::new(&aws::settings().await, config::process_chunk_queue_url()?);
    let handle = async |event: LambdaEvent<SqsEvent>| {
        let db = DB.get_or_try_init(async || Db::connect(&config::database_url().await?, 2)).await?;
        let (chunks, policy) = (&chunks, &policy);
        let work = |message| async move {
            match message {
                Message::CreateBatch { run_id } => create_batches(db, chunks, policy, chunk_size, run_id).await,
                Message::Withdraw { request_id } => withdrawals::make_batch(db, chunks, policy, request_id).await,
                Message::ProcessChunk { .. } | Message::Notification { .. } => Err(queue::not_for("batch-creator")),
            }
        };
        Ok::<_, Error>(queue::each(Boundary::RunMessage, event.payload, work).await)
    };
    run(service_fn(handle)).await
}
