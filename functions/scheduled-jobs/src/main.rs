//! What runs by the clock and not by a message: sweeps, maturing, retries, reconciliation, the heartbeat. The input names the job.

// The compiler looks deeper into the nested futures than its default allows.
#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use payday::jobs::{Fired, Jobs};
use payday::telemetry;
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static JOBS: OnceCell<Jobs> = OnceCell::const_new();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |event: LambdaEvent<Fired>| {
        let jobs = JOBS.get_or_try_init(Jobs::load).await?;
        jobs.run(&event.payload).await?;
        Ok::<_, Error>(())
    };
    run(service_fn(handle)).await
}
