//! Everybody at once: far more workers than Lambda would start, on the same chunks at the same moment, with operators, sweeps
//! and webhooks in between. In which order they come differs from run to run; what comes of it does not.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::join_all;
use payday::db::Db;
use payday::id::{ChunkId, ItemId};
use payday_local::stripe_double::{Fault, FaultRule, When};
use payday_tests::stage::{Stage, Sweeping, control, event_body};
use payday_tests::world::account_of;

const WORKERS: u64 = 64;
const ITEMS: u128 = 200;
const CHUNK_SIZE: i64 = 10;
/// Creators whose first transfer Stripe refuses: the operators' retries are about them.
const REFUSED: std::ops::RangeInclusive<u128> = 1..=5;

#[tokio::test]
async fn sixty_four_workers_on_one_batch_among_operators_webhooks_and_sweeps_pay_everyone_once() {
    let stage = Stage::new().await;
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    for n in REFUSED {
        let first = FaultRule::post("/v1/transfers", When::Nth(1), refusal.clone());
        stage.double.fault(first.for_account(&account_of(n)));
    }
    let chunks = stage.crowd_in_chunks(ITEMS, 500, CHUNK_SIZE).await;
    let sweeping = stage.sweeper().await;
    let working = Cell::new(true);
    let work = async {
        join_all((0..WORKERS).map(|number| worker(&stage, &chunks, number))).await;
        working.set(false);
    };
    tokio::join!(work, operator(&stage, &sweeping, &working), sweeps(&sweeping, &working), news(&stage, &working));

    // Whatever a pause has left over.
    stage.finish().await;
    let failed: Vec<(ItemId,)> = stage.all("select id from payout_items where status = 'failed'").await;
    for (item,) in failed {
        let pressed = join_all((0..8).map(|_| sweeping.sweeper.retry_item(item))).await;
        assert_eq!(pressed.into_iter().filter(|taken_up| *taken_up.as_ref().expect("an answer")).count(), 1, "item {item}");
    }
    stage.finish().await;
    stage.double.settle_payouts();
    stage.hear().await;

    assert_eq!(stage.statuses().await, format!("paid={ITEMS}"));
    let legs = usize::try_from(ITEMS).expect("small");
    let refused = REFUSED.count();
    assert_eq!((stage.double.transfers().len(), stage.double.payouts().len()), (legs, legs));
    assert_eq!((stage.calls("POST", "/v1/transfers").len(), stage.calls("POST", "/v1/payouts").len()), (legs + refused, legs));
    assert_eq!(stage.row("select status, items from payout_batches").await, format!("completed {ITEMS}"));
    stage.audit().await;
    assert_eq!(deadlocks(stage).await, 0);
}

/// A chunk processor that is handed every chunk, in an order of its own.
async fn worker(stage: &Stage, chunks: &[ChunkId], number: u64) {
    let payer = stage.worker(Db::connect(&stage.url(), 2).expect("an address"));
    let mut mine = chunks.to_vec();
    fastrand::Rng::with_seed(number).shuffle(&mut mine);
    for chunk in mine {
        let worked = payer.process_chunk(chunk, Instant::now() + Duration::from_secs(900)).await;
        worked.unwrap_or_else(|error| panic!("worker {number}, chunk {chunk}: {error}: {}", error.causes()));
    }
}

/// Presses every button, again and again, and leaves all as it was.
async fn operator(stage: &Stage, sweeping: &Sweeping, working: &Cell<bool>) {
    while working.get() {
        for switch in ["paused", "killed"] {
            control(&stage.db, switch, true).await;
            control(&stage.db, switch, false).await;
        }
        let failed: Vec<(ItemId,)> = stage.all("select id from payout_items where status = 'failed'").await;
        for answer in join_all(failed.iter().chain(&failed).map(|(item,)| sweeping.sweeper.retry_item(*item))).await {
            answer.unwrap_or_else(|error| panic!("retry: {error}: {}", error.causes()));
        }
    }
}

/// Two sweeps at a time. What they queue is what the workers have been handed already.
async fn sweeps(sweeping: &Sweeping, working: &Cell<bool>) {
    while working.get() {
        tokio::join!(sweeping.sweep(), sweeping.sweep());
    }
}

/// Banks pay at once, and Stripe tells everything four times.
async fn news(stage: &Stage, working: &Cell<bool>) {
    let mut heard = 0;
    while working.get() {
        stage.double.settle_payouts();
        let events = stage.double.events();
        let bodies: Vec<_> = events[heard..].iter().map(|event| event_body(event)).collect();
        heard = events.len();
        for some in bodies.chunks(8) {
            join_all((0..4).flat_map(|_| some).map(|body| stage.take_in(body))).await;
        }
        tokio::task::yield_now().await;
    }
}

/// How many deadlocks Postgres has broken here, also such as somebody tried again after.
async fn deadlocks(stage: Stage) -> i64 {
    // A backend counts when it ends; those of the workers do so now.
    stage.disconnect_others().await;
    stage.value("select deadlocks from pg_stat_database where datname = current_database()").await
}
