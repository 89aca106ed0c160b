//! `up`: the whole stack on this machine until Ctrl-C, with schedules that fire by themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{DONE, FAILED, WRONG_USE, build, repository};
use crate::console::{note, say};
use crate::control::{Control, ControlError};
use crate::job::settings_given;
use crate::post_office::PostOffice;
use crate::postgres::{Postgres, PostgresError};
use crate::stack::{Stack, StackError, StackOptions, parameter};
use crate::stripe_double::{Settlement, StripeDouble, StripeDoubleOptions, WebhookTarget};

pub struct Up {
    pub folder: PathBuf,
    pub http_port: Option<u16>,
    pub stripe: Stripe,
    /// Values for the template's parameters.
    pub parameters: BTreeMap<String, String>,
    /// Show what functions log.
    pub logs: bool,
}

/// Which Stripe the functions talk to.
pub enum Stripe {
    /// The double, started with the stack.
    Double,
    Other {
        url: String,
        key: String,
        webhook_secret: String,
    },
}

/// The database of `up`, `demo` and `run`; a kept one stays until `reset`.
pub const DATABASE: &str = "payday";

/// The shell variables that `up` prints and docs/api.md begins with.
pub const VARIABLES: [&str; 5] = ["API", "CRON", "JWT_SECRET", "STRIPE", "DATABASE"];

#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error(transparent)]
    Build(#[from] build::BuildError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the Stripe double does not start: {0}")]
    Double(std::io::Error),
    #[error("the letter boxes do not open: {0}")]
    PostOffice(std::io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

impl UpError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Stack(StackError::Migration(_) | StackError::Io { .. })
            | Self::Double(_)
            | Self::PostOffice(_)
            | Self::Signals(_) => FAILED,
            Self::Build(_) | Self::Postgres(_) | Self::Stack(_) | Self::Control(_) => WRONG_USE,
        }
    }
}

pub async fn up(up: Up) -> u8 {
    match serve(up).await {
        Ok(()) => DONE,
        Err(error) => {
            note(&error.to_string());
            error.exit_code()
        }
    }
}

async fn serve(up: Up) -> Result<(), UpError> {
    // From here on a signal ends this in good order, also while it starts.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(UpError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(UpError::Signals)?;
    // Looked at before anything is started, and taken by the stack later.
    drop(crate::front::bind(up.http_port).await.map_err(StackError::from)?);
    let repository = repository();
    note("building the functions");
    let bin_dir = build::build(&repository)?;
    note("starting Postgres");
    let postgres = Postgres::start(&up.folder).await?;
    if !postgres.has_database(DATABASE).await? {
        postgres.create_database(DATABASE).await?;
    }
    let mut double = None;
    let (url, key, webhook_secret) = match up.stripe {
        Stripe::Double => {
            let settlement = Settlement::Automatic { in_transit_after_ms: 2_000, paid_after_ms: 10_000 };
            let started = StripeDouble::start(StripeDoubleOptions { settlement, ..StripeDoubleOptions::default() }).await;
            let started = started.map_err(UpError::Double)?;
            let url = started.base_url();
            double = Some(started);
            (url, "sk_test_payday_local".to_owned(), "whsec_local_platform,whsec_local_connect".to_owned())
        }
        Stripe::Other { url, key, webhook_secret } => (url, key, webhook_secret),
    };
    let post_office = PostOffice::start().await.map_err(UpError::PostOffice)?;
    note("starting the functions");
    let database_url = postgres.url(DATABASE);
    let mut options = StackOptions::new(&up.folder, repository.join("template.yaml"), bin_dir, &database_url);
    let cron_secret = uuid::Uuid::new_v4().simple().to_string();
    let jwt_secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    options.secrets = [
        ("STRIPE_SECRET_KEY", key.as_str()),
        ("STRIPE_CONNECT_KEY", key.as_str()),
        ("STRIPE_WEBHOOK_SECRET", webhook_secret.as_str()),
        ("CRON_SECRET", cron_secret.as_str()),
        ("JWT_SECRET", jwt_secret.as_str()),
        ("SLACK_PAYOUT_WEBHOOK_URL", post_office.slack_url().as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    // A parameter wins over the environment, whose values are not held to the template's limits.
    options.environment.extend(settings_given().filter(|(name, _)| !up.parameters.contains_key(&parameter(name))));
    options.parameters = up.parameters;
    options.parameters.entry("StripeApiBase".to_owned()).or_insert(url.clone());
    options.parameters.entry("FrontendUrl".to_owned()).or_insert("http://localhost:3000".to_owned());
    for (name, address) in [("PayoutAlertEmail", "operators@example.com"), ("EmailFrom", "payday@example.com")] {
        options.parameters.entry(name.to_owned()).or_insert_with(|| address.to_owned());
    }
    options.post_office = Some(post_office.clone());
    options.http_port = up.http_port;
    options.autofire = true;
    options.echo_logs = up.logs;
    options.retry_after = Some(Duration::from_secs(5));
    let stack = Stack::start(options).await?;
    if let Some(double) = &double {
        double.set_webhooks(Some(WebhookTarget {
            url: format!("{}/webhooks/stripe", stack.http_url),
            platform_secret: "whsec_local_platform".to_owned(),
            connect_secret: "whsec_local_connect".to_owned(),
            enabled_events: Vec::new(),
        }));
    }
    let control = match Control::start(&up.folder, &stack.http_url, &database_url, stack.scheduler.clone()).await {
        Ok(control) => control,
        Err(error) => {
            stack.shutdown().await;
            return Err(error.into());
        }
    };

    say(&format!("API        {}", stack.http_url));
    say(&format!("           curl -H 'X-Cron-Secret: {cron_secret}' {}/internal/payouts/health", stack.http_url));
    say(&format!("tokens     HS256 with the secret {jwt_secret}"));
    say(&format!("Stripe     {url}"));
    say(&format!("letters    {}  (what was sent by email and to Slack)", post_office.url));
    say(&format!("database   {database_url}"));
    say(&format!("logs       {}", stack.logs().display()));
    let due = stack.scheduler.schedules().into_iter();
    let due: Vec<String> =
        due.map(|(name, due)| format!("{name} {}", due.map_or("off".to_owned(), |due| due.to_rfc3339()))).collect();
    say(&format!("schedules  {}", due.join("\n           ")));
    say("fire one from another terminal with `cargo payday fire NAME`; Ctrl-C ends");
    let values = [stack.http_url.as_str(), &cron_secret, &jwt_secret, &url, &database_url];
    let variables: Vec<String> = VARIABLES.iter().zip(values).map(|(name, value)| format!("{name}='{value}'")).collect();
    say(&format!("\nfor docs/api.md, in a shell:\n{}", variables.join(" ")));

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = control.stop_wanted() => {}
    }
    note("stopping");
    drop(control);
    stack.shutdown().await;
    postgres.stop().await;
    Ok(())
}
