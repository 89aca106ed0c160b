//! Data to try Payday with: a thousand creators who show every reason for not being paid, and as many payable ones as a benchmark
//! wants.
//!
//! The checked-in files of `samples/` are what [`generate`] writes for [`SampleSize::CHECKED_IN`] and [`SEED`], byte for byte. What
//! their cycle should end in is computed by [`expected`] from the files alone, without the engine, so that the two can be held
//! against each other.
//!
//! Reading order: `role` (who is in the sample and why), `creators`, `earned`, `world` (Stripe's side) and `raise` (what happens
//! between import and cycle), `expected`, `readme`; `big` for benchmarks.

mod big;
mod creators;
mod dice;
mod earned;
mod expected;
mod raise;
mod readme;
mod role;
mod world;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use chrono::DateTime;
use uuid::Uuid;

pub use big::{Big, big};
pub use expected::{Assumed, Expected, Item, Reason, Unpaid, expected};
pub use role::Role;
pub use world::{ConnectedBalance, Dispute, KnownAccount, World};

use creators::Creator;
use dice::Dice;

/// Of the checked-in sample.
pub const SEED: u64 = 20_261_115;
/// The cycle that the sample is for.
pub const CYCLE_ON: &str = "2026-11-15";

/// How many creators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSize {
    pub creators: usize,
}

impl SampleSize {
    pub const CHECKED_IN: Self = Self { creators: 1_000 };
}

/// The files of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub earnings: String,
    pub accounts: String,
    pub stripe: String,
    pub readme: String,
    /// Who shows what, in the order of the creators.
    pub roles: Vec<(Uuid, Role)>,
}

impl Files {
    pub const NAMES: [&str; 4] = ["earnings.csv", "accounts.csv", "stripe.json", "README.md"];

    pub fn by_name(&self) -> [(&'static str, &str); 4] {
        let [earnings, accounts, stripe, readme] = Self::NAMES;
        [(earnings, &self.earnings), (accounts, &self.accounts), (stripe, &self.stripe), (readme, &self.readme)]
    }

    /// Writes them into a folder, which is made if it is not there.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        for (name, text) in self.by_name() {
            std::fs::write(folder.join(name), text)?;
        }
        Ok(())
    }
}

/// Makes a sample. The same seed and size give the same bytes.
pub fn generate(seed: u64, size: SampleSize) -> Files {
    let mut dice = Dice::new(seed);
    let mut cast = Role::cast(size.creators);
    dice.shuffle(&mut cast);
    let creators: Vec<Creator> =
        cast.into_iter().enumerate().map(|(number, (role, nth))| creators::creator(&mut dice, number + 1, role, nth)).collect();
    let mut earned = Vec::new();
    let mut world = World { matured_before_disputes: DateTime::from_timestamp(earned::DISPUTES_AT, 0), ..World::default() };
    for creator in &creators {
        let (of_creator, disputes) = earned::of(creator, &mut dice);
        earned.extend(of_creator);
        world.disputes.extend(disputes);
        if let Some(account) = &creator.account {
            world.accounts.push(account.clone());
            match (creator.role, creator.nth) {
                (Role::BankChanged, _) | (Role::SeveralReasons, 4) => world.bank_changes.push(account.id.clone()),
                (Role::PayoutRefused, _) => world.refusals.push(account.id.clone()),
                _ => {}
            }
        }
    }
    world.accounts.sort_by(|a, b| a.id.cmp(&b.id));
    let earnings = earned::file(earned);
    let accounts = accounts_file(&creators);
    expected::fund(&mut world, &earnings, &accounts);
    let stripe = world.to_json();
    let roles: Vec<(Uuid, Role)> = creators.iter().map(|creator| (creator.id, creator.role)).collect();
    let readme = readme::write(&earnings, &accounts, &world, &roles);
    Files { earnings, accounts, stripe, readme, roles }
}

fn accounts_file(creators: &[Creator]) -> String {
    let mut out = "creator_id,stripe_account,country,email,payout_enabled,minimum_payout,schedule,beta\n".to_owned();
    for creator in creators.iter().filter(|creator| creator.listed) {
        let account = creator.account.as_ref().map(|account| account.id.as_str()).unwrap_or_default();
        let id = creator.id.to_string();
        let line = [
            id.as_str(),
            account,
            creator.market.country,
            &creator.email,
            if creator.payout_enabled { "true" } else { "false" },
            creator.minimum,
            creator.schedule,
            if creator.beta { "true" } else { "false" },
        ];
        out.push_str(&line.join(","));
        out.push('\n');
    }
    out
}
