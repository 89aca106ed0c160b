//! `cargo payday`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use payday_local::cli::{self, Cli, Command};
use payday_local::command::{self, FAILED, WRONG_USE, up};
use payday_local::console::note;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note(&format!("cannot start: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    ExitCode::from(runtime.block_on(run(cli)))
}

async fn run(cli: Cli) -> u8 {
    let folder = command::private_folder(cli.folder.as_deref());
    match cli.command {
        Command::Up(args) => match args.stripe.choose() {
            Ok(stripe) => {
                let parameters = args.parameters();
                up::up(up::Up { folder, http_port: args.http_port, stripe, parameters, logs: args.logs }).await
            }
            Err(wrong) => {
                note(&wrong);
                WRONG_USE
            }
        },
        Command::Fire(args) => command::fire(&folder, &args.name, args.at).await,
        Command::Verify(args) => command::verify(&folder, args.database_url.as_deref()).await,
        Command::Test { arguments } => command::test(&arguments),
        Command::Mutants { check, names } => command::mutants(check, &names),
        Command::Reset => command::reset(&folder).await,
        Command::Run(args) => match args.stripe.choose() {
            Ok(stripe) => {
                let timeout = Duration::from_secs(args.timeout);
                let cli::Run { earnings, accounts, cycle: cycle_on, http_port, report, keep, .. } = args;
                command::run::run(command::run::Run {
                    folder,
                    earnings,
                    accounts,
                    cycle_on,
                    stripe,
                    http_port,
                    report,
                    timeout,
                    keep,
                })
                .await
            }
            Err(wrong) => {
                note(&wrong);
                WRONG_USE
            }
        },
        Command::Demo(args) => command::demo::demo(folder, args.http_port).await,
        Command::Bench(args) => {
            let cli::Bench { large, only, as_built } = args;
            command::bench(command::Bench { folder, large, only, as_built }).await
        }
        Command::Sim(cli::Sim { seeds, from }) => command::sim(seeds, from),
    }
}
