//! Creators by the million for benchmarks: the same two files as the sample, written as they are made, and the same double's
//! accounts. Everybody is ready, due and payable, and has earned enough in the first earning alone.

use std::io::{self, Write};

use uuid::Uuid;

use super::dice::{mix, uuid_of};
use super::world::KnownAccount;
use crate::stripe_double::{AccountSpec, StripeDouble};

/// 2026-10-20T00:00:00Z; ten days from then on something is earned.
const FIRST: i64 = 1_792_454_400;
const SECONDS: u64 = 10 * 86_400;
/// What the platform holds: more than ten million creators earn.
const FUNDED_MINOR: i64 = 1_000_000_000_000_000;

/// So many payable creators, each told by its number.
#[derive(Debug, Clone, Copy)]
pub struct Big {
    creators: u64,
    earnings_per_creator: u64,
    seed: u64,
}

/// Payable creators for a benchmark of any cycle from 2026-11-15 on.
pub fn big(creators: u64, earnings_per_creator: u64, seed: u64) -> Big {
    Big { creators, earnings_per_creator: earnings_per_creator.max(1), seed }
}

impl Big {
    pub fn creator_id(&self, number: u64) -> Uuid {
        let random = self.random(number, 0);
        uuid_of(random, mix(random))
    }

    pub fn account_id(&self, number: u64) -> String {
        // The number makes it unique, the rest makes it look like one.
        format!("acct_1B{number:08}{:06x}", self.random(number, 1) & 0xff_ffff)
    }

    /// `earnings.csv`: per creator one tip of 400 to 1,399 tokens (18.00 usd or more), then smaller ones.
    pub fn write_earnings(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at\n")?;
        for number in 0..self.creators {
            let creator = self.creator_id(number);
            for nth in 0..self.earnings_per_creator {
                let random = self.random(number, 2 + nth);
                let tokens = if nth == 0 { 400 + random % 1_000 } else { 1 + random % 200 };
                let at =
                    chrono::DateTime::from_timestamp(FIRST.saturating_add_unsigned(mix(random) % SECONDS), 0).unwrap_or_default();
                writeln!(out, "b{number}-{nth},{creator},tip,{tokens},,usd,{}", at.format("%Y-%m-%dT%H:%M:%SZ"))?;
            }
        }
        Ok(())
    }

    /// `accounts.csv`
    pub fn write_accounts(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"creator_id,stripe_account,country,email\n")?;
        for number in 0..self.creators {
            writeln!(out, "{},{},US,creator{number}@example.com", self.creator_id(number), self.account_id(number))?;
        }
        Ok(())
    }

    /// Their accounts at Stripe: ready, and on a manual payout schedule.
    pub fn accounts(&self) -> impl Iterator<Item = AccountSpec> {
        let big = *self;
        (0..big.creators).map(move |number| KnownAccount::ready(&big.account_id(number), "US", &["usd"]).spec())
    }

    /// Sets the double up, with all the money it takes.
    pub fn apply(&self, double: &StripeDouble) {
        double.add_accounts(self.accounts());
        double.fund("usd", FUNDED_MINOR);
    }

    fn random(&self, number: u64, what: u64) -> u64 {
        mix(self.seed ^ mix(number) ^ mix(what).rotate_left(23))
    }
}
