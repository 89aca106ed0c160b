//! `run`: the main job on one's own data, with progress on the terminal and a summary at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use payday::payouts::item::Status;
use payday::payouts::report::{Progress, Report};

use super::up::Stripe;
use super::{DONE, FAILED, WRONG_USE, build, repository};
use crate::console::{note, say};
use crate::job::{self, Done, Failure, Job, News, Target};
use crate::postgres::Postgres;
use crate::stripe_double::{Settlement, StripeDouble, StripeDoubleOptions};

pub struct Run {
    pub folder: PathBuf,
    pub earnings: PathBuf,
    pub accounts: PathBuf,
    pub cycle_on: chrono::NaiveDate,
    pub stripe: Stripe,
    pub http_port: Option<u16>,
    pub report: Option<PathBuf>,
    pub timeout: Duration,
    pub keep: bool,
}

pub async fn run(run: Run) -> u8 {
    let folder =
        if run.keep { run.folder.join("run") } else { run.folder.join(format!("run-{}", uuid::Uuid::new_v4().simple())) };
    let ended = tokio::select! {
        ended = work(&run, &folder) => ended,
        () = stopped() => Err(Failure::Failed("Stopped. Nothing is lost where --keep was given: run again to go on.".to_owned())),
    };
    if !run.keep {
        remove(&folder);
    }
    finish(ended, run.report.as_deref())
}

async fn work(run: &Run, folder: &Path) -> Result<Done, Failure> {
    let earnings = read(&run.earnings)?;
    let accounts = read(&run.accounts)?;
    let target = match &run.stripe {
        Stripe::Double => Target::Double(double_for(&earnings, &accounts).await?),
        Stripe::Other { url, key, webhook_secret } => {
            Target::Other { base_url: url.clone(), key: key.clone(), webhook_secret: webhook_secret.clone() }
        }
    };
    let job = Job {
        earnings,
        accounts,
        cycle_on: run.cycle_on,
        target,
        world: None,
        http_port: run.http_port,
        timeout: run.timeout,
        folder: folder.to_owned(),
        bin_dir: built()?,
        template: repository().join("template.yaml"),
        settings: std::collections::BTreeMap::new(),
    };
    let mut show = Show::new();
    job::run(job, |news| show.tell(&news)).await
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Use(format!("{} cannot be read: {error}", path.display())))
}

/// Builds the functions, saying so first: a first build takes minutes.
pub(super) fn built() -> Result<PathBuf, Failure> {
    note("Building the functions");
    build::build(&repository()).map_err(|error| Failure::Use(error.to_string()))
}

/// A double in which every account of the file exists, is ready, and the platform has funds.
async fn double_for(earnings: &[u8], accounts: &[u8]) -> Result<StripeDouble, Failure> {
    let double = start_double().await?;
    // A file that cannot be read is reported, line by line, by the job.
    let policy = payday::config::Policy::load().map_err(|error| Failure::Use(error.message))?;
    if let (Ok(people), Ok(earned)) =
        (payday::payees::import::parse(accounts), payday::earnings::import::parse(earnings, &policy))
    {
        let world = crate::samples::World::default_for(&people, &earned, &policy);
        world.apply(&double).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    Ok(double)
}

/// A double whose banks answer within a second.
pub(super) async fn start_double() -> Result<StripeDouble, Failure> {
    let settlement = Settlement::Automatic { in_transit_after_ms: 200, paid_after_ms: 1_000 };
    let options = StripeDoubleOptions { settlement, ..StripeDoubleOptions::default() };
    StripeDouble::start(options).await.map_err(|error| Failure::Failed(format!("The Stripe double does not start: {error}.")))
}

/// Ctrl-C or a polite kill.
pub(super) async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Removes a folder that nobody keeps; what cannot be removed now is removed by `reset`.
fn remove(folder: &Path) {
    let _ = Postgres::remove(folder);
    let _ = std::fs::remove_dir_all(folder);
}

/// Writes the report, prints the summary, and tells the exit code.
pub(super) fn finish(ended: Result<Done, Failure>, report_path: Option<&Path>) -> u8 {
    match ended {
        Ok(done) => {
            if let Some(path) = report_path
                && let Err(error) = write(path, &done.report)
            {
                note(&format!("{} cannot be written: {error}", path.display()));
                return WRONG_USE;
            }
            summary(&done.report);
            for problem in &done.problems {
                note(problem);
            }
            if done.good { DONE } else { FAILED }
        }
        Err(failure) => {
            note(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn write(path: &Path, report: &Report) -> std::io::Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    std::fs::write(path, text)
}

/// What the cycle did, for a person.
fn summary(report: &Report) {
    say(&format!("Cycle of {}: {} s, runs {:?}", report.cycle, report.seconds, report.run_ids));
    for batch in &report.batches {
        say(&format!(
            "  batch {} {}: {} payees, {}",
            batch.id,
            batch.currency,
            batch.items,
            money(batch.amount_minor, &batch.currency)
        ));
        for (status, sum) in &batch.by_status {
            say(&format!("    {status:<20} {:>7} payees {:>18}", sum.items, money(sum.amount_minor, &batch.currency)));
        }
    }
    if report.batches.is_empty() {
        say("  nobody was eligible");
    }
    let mut reasons: Vec<(&str, &str, usize)> = Vec::new();
    for unpaid in &report.not_paid {
        match reasons.iter_mut().find(|(reason, ..)| *reason == unpaid.reason) {
            Some((_, _, count)) => *count += 1,
            None => reasons.push((&unpaid.reason, unpaid.action, 1)),
        }
    }
    say(&format!("  not paid: {}", report.not_paid.len()));
    for (reason, action, count) in reasons {
        say(&format!("    {reason:<20} {count:>7}  {action}"));
    }
    let operations = report.operations;
    say(&format!(
        "  Stripe: {} accepted, {} rejected, {} unknown, {} unresolved; ledger {}; {} SQL statements per payee",
        operations.accepted,
        operations.rejected,
        operations.unknown,
        operations.unresolved,
        if report.ledger.balanced { "balanced" } else { "NOT BALANCED" },
        report.sql_statements_per_item
    ));
}

fn money(minor: i64, currency: &str) -> String {
    let shown = currency.parse().ok().and_then(|currency| payday::money::Money::from_minor(minor, currency));
    shown.map_or_else(|| format!("{minor} {currency}"), |money| money.to_string())
}

/// Shows what happens: a bar on a terminal, else a line now and then.
pub(super) struct Show {
    bar: ProgressBar,
    is_terminal: bool,
    last: String,
}

impl Show {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { is_terminal: !bar.is_hidden(), bar, last: String::new() }
    }

    pub(super) fn tell(&mut self, news: &News<'_>) {
        match news {
            News::Step(step) => self.line(step),
            News::Note(text) => self.line(text),
            News::Progress(progress) => self.progress(progress),
        }
    }

    fn line(&mut self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    fn progress(&mut self, progress: &Progress) {
        let waiting = progress.of(&[Status::Pending]);
        let on_the_way = progress.of(&[Status::Transferring, Status::Transferred, Status::AwaitingAvailable, Status::PayingOut]);
        let sent = progress.of(&[Status::InTransit, Status::Paid]);
        let rest = progress.items - waiting - on_the_way - sent;
        let paid = progress.of(&[Status::Paid]);
        let text = format!("{sent} accepted ({paid} paid), {on_the_way} on the way, {waiting} waiting, {rest} not paid");
        if self.is_terminal {
            self.bar.set_length(u64::try_from(progress.items).unwrap_or(0));
            self.bar.set_position(u64::try_from(sent + rest).unwrap_or(0));
            self.bar.set_message(text);
        } else if text != self.last {
            note(&format!("  {text}"));
            self.last = text;
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
