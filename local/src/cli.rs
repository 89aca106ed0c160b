//! The command line of `cargo payday`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, Utc};
use clap::{Args, Parser, Subcommand};

use crate::bench::Section;

/// Runs Payday on this machine: the functions that deploy, wired by the template that deploys.
#[derive(Debug, Parser)]
#[command(name = "cargo payday", bin_name = "cargo payday", disable_help_subcommand = true)]
pub struct Cli {
    /// Private folder for the database, the logs and everything else [default: .payday in the repository]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pay the sample creators: the 15th's cycle through the real functions, against a Stripe double
    Demo(Demo),
    /// Start everything and serve until Ctrl-C; schedules fire by themselves
    Up(Up),
    /// Pay one cycle from two CSV files, and report
    Run(Run),
    /// Fire a schedule of a running `up` now, or as of an instant
    Fire(Fire),
    /// Ask every standing check of a database, and print the rows that disagree
    Verify(Verify),
    /// Build the functions and run all tests; further arguments go to `cargo test`
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
    /// Live seeded histories in which everything goes wrong that can; a rule that breaks is shrunk to the steps that matter
    Sim(Sim),
    /// Plant known bugs one at a time in a copy, and tell which test or seed catches each; takes minutes
    Mutants {
        /// Only see whether each still fits the code; takes a second
        #[arg(long)]
        check: bool,
        /// Only these, by the names of their files in tests/mutants [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Measure, and print one JSON
    Bench(Bench),
    /// Stop what runs and delete the private folder
    Reset,
}

/// Which Stripe; flags win over the environment.
#[derive(Debug, Clone, Args)]
pub struct StripeArgs {
    /// Stripe's address, without /v1 [default: the Stripe double, or Stripe itself if a key is given]
    #[arg(long, env = "STRIPE_API_BASE", value_name = "URL")]
    pub stripe_url: Option<String>,
    /// Stripe's secret key
    #[arg(long, env = "STRIPE_SECRET_KEY", value_name = "KEY", hide_env_values = true)]
    pub stripe_key: Option<String>,
    /// Signing secrets of Stripe's webhooks, comma-separated
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    pub webhook_secret: Option<String>,
    /// Allow a key that moves real money
    #[arg(long)]
    pub live: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Port of the HTTP API [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    pub stripe: StripeArgs,
    /// Port of the HTTP API [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Value for a parameter of template.yaml, like PayoutTimezone=Europe/Berlin; may be given several times
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = pair)]
    pub parameters: Vec<(String, String)>,
    /// Show what the functions log
    #[arg(long)]
    pub logs: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Earnings: source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at[,fee_minor,charge_id,place]
    #[arg(long, value_name = "CSV")]
    pub earnings: PathBuf,
    /// Accounts: creator_id,stripe_account,country,email[,payout_enabled,minimum_payout,schedule,beta]
    #[arg(long, value_name = "CSV")]
    pub accounts: PathBuf,
    /// Date of the cycle, like 2026-11-15
    #[arg(long, value_name = "DATE")]
    pub cycle: NaiveDate,
    #[command(flatten)]
    pub stripe: StripeArgs,
    /// Port of the HTTP API, to which Stripe sends its webhooks [default: a free one]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Where to write the report as JSON
    #[arg(long, value_name = "JSON")]
    pub report: Option<PathBuf>,
    /// Give up after that many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub timeout: u64,
    /// Keep the database, and go on with it the next time
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub struct Fire {
    /// Name of the schedule, like payout-semimonthly
    pub name: String,
    /// The instant it is scheduled for, like 2026-11-15T06:00:00Z [default: now]
    #[arg(long, value_name = "RFC3339")]
    pub at: Option<DateTime<Utc>>,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The database [default: that of a running `up`, else the kept ones of `up`, `demo` and `run --keep`]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

#[derive(Debug, Args)]
pub struct Sim {
    /// How many histories
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    pub seeds: u64,
    /// The first seed; with `--seeds 1` it is lived again alone
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub from: u64,
}

#[derive(Debug, Args)]
pub struct Bench {
    /// Also the batch of a million payees
    #[arg(long)]
    pub large: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    pub only: Vec<Section>,
    /// Do not build in release first: measure this very build
    #[arg(long, hide = true)]
    pub as_built: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be like PayoutTimezone=Europe/Berlin".to_owned()),
    }
}

/// Stripe's own address.
const STRIPE: &str = "https://api.stripe.com";

impl StripeArgs {
    /// The Stripe that is meant, or what is wrong with it.
    pub fn choose(&self) -> Result<crate::command::up::Stripe, String> {
        use crate::command::up::Stripe;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (given(&self.stripe_url), given(&self.stripe_key)) {
            (None, None) => Ok(Stripe::Double),
            (Some(url), None) if url.contains("stripe.com") => {
                Err("Stripe itself needs --stripe-key, or STRIPE_SECRET_KEY in the environment".to_owned())
            }
            (_, Some(key)) if payday::config::is_live_key(&key) && !self.live => {
                Err("the Stripe key moves real money; use a test key, or say --live if that is meant".to_owned())
            }
            (url, key) => Ok(Stripe::Other {
                url: url.unwrap_or_else(|| STRIPE.to_owned()).trim_end_matches('/').to_owned(),
                // Another Stripe than the real one may take any test key.
                key: key.unwrap_or_else(|| "sk_test_payday".to_owned()),
                // A secret is needed for the functions to start; without webhooks its value plays no part.
                webhook_secret: given(&self.webhook_secret).unwrap_or_else(|| format!("whsec_{}", uuid::Uuid::new_v4().simple())),
            }),
        }
    }
}

impl Up {
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.parameters.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_explains_itself() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn a_live_key_needs_to_be_meant() {
        let stripe =
            |key: &str, live| StripeArgs { stripe_url: None, stripe_key: Some(key.to_owned()), webhook_secret: None, live };
        let live_key = concat!("sk_", "live_1");
        assert!(stripe(live_key, false).choose().is_err());
        assert!(stripe(live_key, true).choose().is_ok());
        assert!(stripe("sk_test_1", false).choose().is_ok());
    }
}
