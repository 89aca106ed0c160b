//! Every HTTP route but the Stripe webhook. Has no Stripe key that moves money: what it starts is done by others. It may have one
//! that connects people.

use lambda_http::{Error, Request, run, service_fn, tower::ServiceExt};
use payday::db::Db;
use payday::http::{AppState, Auth, Connect, Cors, CronSecrets, Limits, Queues, Verifier};
use payday::queue::Queue;
use payday::schedule::Scheduler;
use payday::{aws, config, router, telemetry};
use tokio::sync::OnceCell;

/// Made in the first invocation: secrets are not handed out before.
static ROUTER: OnceCell<axum::Router> = OnceCell::const_new();

async fn load() -> Result<axum::Router, Error> {
    let aws = aws::settings().await;
    let state = AppState {
        db: Db::connect(&config::database_url().await?, 2)?,
        policy: config::Policy::load()?.into(),
        withdrawals: config::withdrawal_timing()?,
        auth: Auth {
            cron_secrets: CronSecrets::new(&config::cron_secrets().await?),
            tokens: Verifier::new(config::Jwt::load().await?),
            limits: Limits::new(config::rate_limit_per_second()?),
        },
        queues: Queues {
            create_batch: Queue::new(&aws, config::create_batch_queue_url()?),
            process_chunk: Queue::new(&aws, config::process_chunk_queue_url()?),
            notification: Queue::new(&aws, config::notification_queue_url()?),
        },
        scheduler: Scheduler::new(&aws, config::schedule_group()?),
        connect: config::Connect::load().await?.as_ref().map(Connect::new).transpose()?,
        stripe_api_base: config::stripe_api_base().into(),
        stuck_run_minutes: config::stuck_run_minutes()?,
        two_person_above_cents: config::two_person_above_cents()?,
    };
    Ok(router::router(state, Cors::new(&config::frontend_urls())?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init();
    let handle = async |request: Request| Ok::<_, Error>(ROUTER.get_or_try_init(load).await?.clone().oneshot(request).await?);
    run(service_fn(handle)).await
}
