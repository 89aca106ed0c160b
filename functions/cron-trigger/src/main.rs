//! EventBridge Scheduler → run → queue `payout.create-batch`. Says at once what it did; the batch creator does the work.
//! The schedule may fire ten times: a run is unique by its schedule and date.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::db::Db;
use payday::payouts::cycle::{Fired, Started, fired};
use payday::queue::Queue;
use payday::{aws, config, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static DB: OnceCell<Db> = OnceCell::const_new();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let calendar = config::calendar()?;
    let queue = Queue::new(&aws::settings().await, config::create_batch_queue_url()?);
    let handle = async |event: LambdaEvent<Fired>| {
        let db = DB.get_or_try_init(async || Db::connect(&config::database_url().await?, 1)).await?;
        let started = fired(db, &queue, &event.payload, calendar).await?;
        match &started {
            Started::Runs(runs) => tracing::info!(?runs, "cycle started"),
            Started::NotDue => tracing::warn!(fired = ?event.payload, "not a pay day of this schedule"),
            Started::Paused => tracing::warn!("paused: nothing was started"),
        }
        Ok::<_, Error>(())
    };
    run(service_fn(handle)).await
}
