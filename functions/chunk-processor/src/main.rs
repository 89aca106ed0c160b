//! SQS `payout.process-chunk` → pay. At most five run at once; each keeps what it knows in Postgres, so it may be killed
//! between any two lines.

use std::time::Duration;

use aws_lambda_events::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::boundary::Boundary;
use payday::db::Db;
use payday::payouts::pay::Payer;
use payday::queue::{self, Message};
use payday::rails::stripe::Stripe;
use payday::{clock, config, stripe_events, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static PAYER: OnceCell<Payer> = OnceCell::const_new();

async fn payer() -> Result<Payer, Error> {
    let stripe = config::Stripe::load().await?;
    // Two chunks at once, each with its work and its pulse.
    let db = Db::connect(&config::database_url().await?, 4)?;
    stripe_events::remember_mode(&db, stripe.is_live()).await?;
    Ok(Payer::new(db, Stripe::new(&stripe)?, config::Policy::load()?, config::Sending::load()?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |event: LambdaEvent<SqsEvent>| {
        let payer = PAYER.get_or_try_init(payer).await?;
        let left_ms = event.context.deadline.saturating_sub(u64::try_from(clock::now().timestamp_millis())?);
        let until = clock::monotonic() + Duration::from_millis(left_ms);
        let work = |message| async move {
            match message {
                Message::ProcessChunk { chunk_id } => payer.process_chunk(chunk_id, until).await,
                Message::CreateBatch { .. } | Message::Withdraw { .. } | Message::Notification { .. } => {
                    Err(queue::not_for("chunk-processor"))
                }
            }
        };
        Ok::<_, Error>(queue::each(Boundary::ChunkMessage, event.payload, work).await)
    };
    run(service_fn(handle)).await
}
