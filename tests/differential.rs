//! The same histories through the model of the tables and through the real store on Postgres. The simulation writes down every
//! transaction with what came of it; here each is done again by the library's own functions, at the same simulated time, and the
//! same must come of it. All rows are compared again and again, and the standing checks find nothing.
//!
//! This is what lets the simulation's model stand for the database: where the two part, one of them is wrong.

// Without debug assertions no test can say what time it is.
#![cfg(debug_assertions)]

mod differential {
    pub mod again;
    pub mod rows;
}

use differential::again::{Again, brief};
use payday_simulation::{deeds_of, history};

/// So many in every test run, from the first seed on.
const HISTORIES: u64 = 6;

async fn live_again(seeds: impl Iterator<Item = u64>) {
    let mut again = Again::new().await;
    let mut differences = Vec::new();
    for seed in seeds {
        let deeds = deeds_of(&history::of_seed(seed));
        again.renew().await;
        for (number, done) in deeds.iter().enumerate() {
            if let Err(difference) = again.does(done).await {
                let before: Vec<String> = deeds[number.saturating_sub(8)..=number].iter().map(brief).collect();
                differences.push(format!("seed {seed}, deed {number}: {difference}\nbefore it:\n{}\n", before.join("\n")));
                break;
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn what_the_simulation_does_to_its_model_does_the_same_to_postgres() {
    live_again(1..=HISTORIES / 2).await;
}

#[tokio::test]
async fn and_so_do_other_histories_beside_them() {
    live_again(HISTORIES / 2 + 1..=HISTORIES).await;
}

/// `PAYDAY_DIFFERENTIAL=FROM-TO`: these seeds.
#[tokio::test]
#[ignore = "minutes: by command, see ARCHITECTURE.md"]
async fn chosen_histories_do_the_same() {
    let chosen = std::env::var("PAYDAY_DIFFERENTIAL").unwrap_or_else(|_| "1-40".to_owned());
    let (from, to) = chosen.split_once('-').expect("like 1-40");
    live_again(from.parse().expect("a seed")..=to.parse().expect("a seed")).await;
}
