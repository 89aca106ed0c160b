//! `demo`: the sample creators' cycle, against a Stripe double that is set up for them. The database stays, so that a second
//! demo shows that nobody is paid twice; `reset` takes it away.

use std::path::PathBuf;
use std::time::Duration;

use super::repository;
use super::run::{Show, built, finish, start_double, stopped};
use crate::console::say;
use crate::job::{self, Done, Failure, Job, Target};
use crate::samples::{self, World};

pub async fn demo(folder: PathBuf, http_port: Option<u16>) -> u8 {
    let ended = tokio::select! {
        ended = work(folder, http_port) => ended,
        () = stopped() => Err(Failure::Failed("Stopped. `cargo payday demo` goes on where it was.".to_owned())),
    };
    if let Ok(done) = &ended {
        let earnings = done.imported;
        if earnings.recorded == 0 && done.newly_accepted == 0 {
            say(&format!("All {} sample earnings were there already, and nobody was paid again.", earnings.already_there));
            say("`cargo payday reset` starts over.");
        } else {
            say(&format!("{} sample earnings imported; Stripe accepted {} requests.", earnings.recorded, done.newly_accepted));
        }
    }
    finish(ended, None)
}

async fn work(folder: PathBuf, http_port: Option<u16>) -> Result<Done, Failure> {
    let read = |name: &str| {
        let path = repository().join("samples").join(name);
        std::fs::read(&path).map_err(|error| Failure::Use(format!("{} cannot be read: {error}", path.display())))
    };
    let world = String::from_utf8_lossy(&read("stripe.json")?).into_owned();
    let world = World::load(&world).map_err(|error| Failure::Use(format!("samples/stripe.json: {error:#}")))?;
    let cycle_on = samples::CYCLE_ON.parse().map_err(|error| Failure::Use(format!("{}: {error}", samples::CYCLE_ON)))?;
    let bin_dir = built()?;
    let double = start_double().await?;
    world.apply(&double).map_err(|error| Failure::Failed(format!("{error:#}")))?;
    let job = Job {
        earnings: read("earnings.csv")?,
        accounts: read("accounts.csv")?,
        cycle_on,
        target: Target::Double(double),
        world: Some(world),
        http_port,
        timeout: Duration::from_secs(1_800),
        folder: folder.join("demo"),
        bin_dir,
        template: repository().join("template.yaml"),
        // The double has no rates; Stripe's are for Stripe.
        settings: [("STRIPE_RATE_TRANSFERS", "0"), ("STRIPE_RATE_PAYOUTS", "0"), ("SENDS_PER_WORKER", "25")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let mut show = Show::new();
    job::run(job, |news| show.tell(&news)).await
}
