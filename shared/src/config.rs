//! The only file that reads the environment. Every setting is parsed once, at start, and a missing or wrong one ends the
//! process with the variable's name in the message.
//!
//! A secret is never in the environment of a deployed function: `DATABASE_URL_ARN` names it and the Parameters and Secrets
//! extension hands it out on localhost. The plain variable, where there is one, wins: that is for one machine.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::clock::Calendar;
use crate::error::{Error, Result};
use crate::http_client::{HttpClient, may_be_public};
use crate::money::{Currency, Ppm, scaled};

/// The environment of the process.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
fn raw(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn required(name: &'static str) -> Result<String> {
    raw(name).ok_or_else(|| Error::config(name, "is not set"))
}

fn parsed<T>(name: &'static str, default: &str, parse: impl Fn(&str) -> Option<T>, form: &str) -> Result<T> {
    let text = raw(name).unwrap_or_else(|| default.to_owned());
    parse(&text).ok_or_else(|| Error::config(name, format!("{text:?} is not {form}")))
}

fn whole(name: &'static str, default: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64> {
    let form = format!("a whole number from {} to {}", range.start(), range.end());
    parsed(name, default, |text| text.parse().ok().filter(|value| range.contains(value)), &form)
}

fn flag(name: &'static str, default: &str) -> Result<bool> {
    parsed(name, default, |text| text.to_ascii_lowercase().parse().ok(), "true or false")
}

/// A setting that may be given as `X`, else as the secret that `X_ARN` names.
async fn secret(name: &'static str, arn_name: &'static str) -> Result<Option<String>> {
    if let Some(value) = raw(name) {
        return Ok(Some(value));
    }
    let Some(arn) = raw(arn_name) else { return Ok(None) };
    let port = raw("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT").unwrap_or_else(|| "2773".to_owned());
    let token = raw("AWS_SESSION_TOKEN").unwrap_or_default();
    let token = HeaderValue::from_str(&token).map_err(|error| Error::config("AWS_SESSION_TOKEN", error))?;
    let url = format!("http://localhost:{port}/secretsmanager/get?secretId={arn}");
    let client = HttpClient::new(Duration::from_secs(10))?;
    let headers = vec![("x-aws-parameters-secrets-token", token)];
    let answer = client
        .get(&url, headers)
        .await
        .map_err(|failure| Error::config(arn_name, format!("the secrets extension did not answer: {failure}")))?;
    #[derive(Deserialize)]
    struct Secret {
        #[serde(rename = "SecretString")]
        secret_string: String,
    }
    if !answer.status.is_success() {
        return Err(Error::config(arn_name, format!("the secrets extension answered {}", answer.status)));
    }
    let secret: Secret = serde_json::from_slice(&answer.body)
        .map_err(|_| Error::config(arn_name, "the secrets extension's answer has no SecretString"))?;
    Ok(Some(secret.secret_string.trim().to_owned()))
}

async fn required_secret(name: &'static str, arn_name: &'static str) -> Result<String> {
    secret(name, arn_name).await?.ok_or_else(|| Error::config(name, format!("is not set (nor is {arn_name})")))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// `DATABASE_URL`: any pooler mode will do.
pub async fn database_url() -> Result<String> {
    required_secret("DATABASE_URL", "DATABASE_URL_ARN").await
}

/// `MIGRATION_DATABASE_URL`: a session or direct connection, which advisory locks need.
pub async fn migration_database_url() -> Result<String> {
    required_secret("MIGRATION_DATABASE_URL", "MIGRATION_DATABASE_URL_ARN").await
}

/// The rules of who is paid what. Kept with each run as it was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Micros of the default currency that one token is worth.
    pub token_rate_micros: i64,
    pub platform_fee: Ppm,
    pub default_currency: Currency,
    pub hold_days: i64,
    /// Minor units below which a balance is not paid, by currency code.
    pub thresholds_minor: BTreeMap<String, i64>,
    pub reserve: Ppm,
    pub beta_only: bool,
    pub destination_cooloff_hours: i64,
    /// Hundredths of a unit above which a changed destination waits for an operator to confirm it; 0: none does. Not in what earlier
    /// versions have kept.
    #[serde(default)]
    pub two_person_above_cents: i64,
    /// Whether an account that is mended is paid what it missed before the next cycle. Not in what earlier versions have kept.
    #[serde(default)]
    pub auto_resume: bool,
    pub calendar: Calendar,
}

impl Policy {
    pub fn load() -> Result<Self> {
        let default_currency: Currency =
            parsed("PLATFORM_DEFAULT_CURRENCY", "usd", |text| text.parse().ok(), "a currency code like usd")?;
        let mut thresholds_minor =
            parsed("PAYOUT_MIN_THRESHOLDS", "", thresholds, "a list like eur:1000,jpy:1500 in minor units")?;
        // The unnamed threshold is of the default currency; naming that currency in the list wins.
        let default_threshold = whole("PAYOUT_MIN_THRESHOLD_CENTS", "1000", 0..=i64::MAX / 1_000_000)?;
        thresholds_minor.entry(default_currency.code()).or_insert(default_threshold);
        Ok(Self {
            token_rate_micros: parsed(
                "TOKEN_TO_USD_RATE",
                "0.05",
                |text| scaled(text, 6).filter(|rate| *rate > 0),
                "a rate like 0.05, at most six decimals",
            )?,
            platform_fee: percent("PLATFORM_FEE_PERCENT", "10")?,
            default_currency,
            hold_days: whole("HOLD_DAYS", "7", 0..=3650)?,
            thresholds_minor,
            reserve: percent("PAYOUT_RESERVE_PERCENT", "0")?,
            beta_only: flag("PAYOUT_BETA_ONLY", "false")?,
            destination_cooloff_hours: whole("DESTINATION_COOLOFF_HOURS", "72", 0..=87_600)?,
            two_person_above_cents: two_person_above_cents()?,
            auto_resume: flag("AUTO_RESUME", "true")?,
            calendar: calendar()?,
        })
    }

    /// What a token is worth to a creator, in micros: the rate less the fee.
    pub fn token_net_micros(&self) -> i64 {
        self.token_rate_micros - self.platform_fee.of(self.token_rate_micros)
    }
}

fn percent(name: &'static str, default: &str) -> Result<Ppm> {
    parsed(name, default, Ppm::from_percent, "a percentage from 0 to 100 with at most four decimals")
}

fn thresholds(text: &str) -> Option<BTreeMap<String, i64>> {
    list(text)
        .iter()
        .map(|entry| {
            let (code, minor) = entry.split_once(':')?;
            let currency: Currency = code.trim().parse().ok()?;
            let minor: i64 = minor.trim().parse().ok()?;
            (0..=i64::MAX / 1_000_000).contains(&minor).then(|| (currency.code(), minor))
        })
        .collect()
}

/// `PAYOUT_TIMEZONE` and `PAYOUT_HOUR`: when cycles are. Two source documents said 02:00 and 06:00; 06:00 it is.
pub fn calendar() -> Result<Calendar> {
    Ok(Calendar {
        zone: parsed("PAYOUT_TIMEZONE", "UTC", |text| text.parse().ok(), "a time zone like Europe/Berlin")?,
        hour: u32::try_from(whole("PAYOUT_HOUR", "6", 0..=23)?).unwrap_or(6),
    })
}

/// How sends behave. Rates are for all workers together, per second; 0 is unlimited.
#[derive(Debug, Clone)]
pub struct Sending {
    pub sends_per_worker: usize,
    pub rate_transfers: i64,
    pub rate_payouts: i64,
    pub attempt_cooling: chrono::Duration,
    pub replay_window: chrono::Duration,
}

impl Sending {
    pub fn load() -> Result<Self> {
        Ok(Self {
            sends_per_worker: usize::try_from(whole("SENDS_PER_WORKER", "5", 1..=1000)?).unwrap_or(1),
            rate_transfers: rate("STRIPE_RATE_TRANSFERS", "20")?,
            rate_payouts: rate("STRIPE_RATE_PAYOUTS", "12")?,
            attempt_cooling: chrono::Duration::seconds(whole("ATTEMPT_COOLING_SECONDS", "910", 0..=86_400)?),
            replay_window: chrono::Duration::hours(whole("REPLAY_WINDOW_HOURS", "23", 1..=23)?),
        })
    }
}

/// Calls per second: `20` or `20/s`.
fn rate(name: &'static str, default: &str) -> Result<i64> {
    let read = |text: &str| text.trim_end_matches("/s").parse().ok().filter(|value| (0..=10_000).contains(value));
    parsed(name, default, read, "a number of requests per second from 0 to 10000")
}

/// `STRIPE_RATE_READS`: reads of Stripe that reconciliation makes each second, beside those of the workers.
pub fn stripe_reads_per_second() -> Result<u32> {
    Ok(u32::try_from(rate("STRIPE_RATE_READS", "10")?).unwrap_or_default())
}

/// `METRICS_NAMESPACE`: CloudWatch's name for this deployment's metrics, which its alarms look at.
pub fn metrics_namespace() -> String {
    raw("METRICS_NAMESPACE").unwrap_or_else(|| "Payday".to_owned())
}

/// When withdrawals that creators ask for go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawals {
    /// At once.
    OnDemand,
    /// With the next cycle of the creator's schedule.
    NextCycle,
}

/// `WITHDRAWAL_TIMING`
pub fn withdrawal_timing() -> Result<Withdrawals> {
    let read = |text: &str| match text {
        "on_demand" => Some(Withdrawals::OnDemand),
        "next_cycle" => Some(Withdrawals::NextCycle),
        _ => None,
    };
    parsed("WITHDRAWAL_TIMING", "on_demand", read, "on_demand or next_cycle")
}

/// `CHUNK_SIZE`: items handed to a worker together.
pub fn chunk_size() -> Result<i64> {
    whole("CHUNK_SIZE", "25", 1..=1000)
}

/// `TWO_PERSON_ABOVE_CENTS`: what two persons have to decide; 0: nothing.
pub fn two_person_above_cents() -> Result<i64> {
    whole("TWO_PERSON_ABOVE_CENTS", "0", 0..=i64::MAX / 10_000)
}

/// `STUCK_RUN_MINUTES`: a run older than that and still running is resumed.
pub fn stuck_run_minutes() -> Result<i64> {
    whole("STUCK_RUN_MINUTES", "60", 1..=10_080)
}

/// Where Stripe is and how to be let in.
#[derive(Clone)]
pub struct Stripe {
    pub secret_key: String,
    /// Without `/v1`.
    pub api_base: String,
    pub timeout: Duration,
}

impl Stripe {
    /// With `STRIPE_SECRET_KEY`, which moves money.
    pub async fn load() -> Result<Self> {
        Ok(Self {
            secret_key: required_secret("STRIPE_SECRET_KEY", "STRIPE_SECRET_KEY_ARN").await?,
            api_base: stripe_api_base(),
            timeout: stripe_timeout()?,
        })
    }

    /// Whether the key moves real money.
    pub fn is_live(&self) -> bool {
        is_live_key(&self.secret_key)
    }
}

fn stripe_timeout() -> Result<Duration> {
    Ok(Duration::from_millis(u64::try_from(whole("STRIPE_TIMEOUT_MS", "10000", 10..=120_000)?).unwrap_or(10_000)))
}

/// How people are connected to Stripe.
#[derive(Clone)]
pub struct Connect {
    pub stripe: Stripe,
    /// The platform's own country, two capital letters.
    pub platform_country: String,
    /// Where Stripe sends people back to, without a slash at the end.
    pub frontend: String,
}

impl Connect {
    /// With `STRIPE_CONNECT_KEY`, which moves no money. `None`: it is not set, and people are connected elsewhere.
    pub async fn load() -> Result<Option<Self>> {
        let Some(secret_key) = secret("STRIPE_CONNECT_KEY", "STRIPE_CONNECT_KEY_ARN").await? else { return Ok(None) };
        let frontend = frontend_urls().into_iter().next();
        let frontend = frontend.ok_or_else(|| {
            Error::config("FRONTEND_URL", "is not set, and STRIPE_CONNECT_KEY is: Stripe sends people back there")
        })?;
        // A request calls twice at most and has to be answered within 29 s.
        let timeout = stripe_timeout()?.min(Duration::from_secs(10));
        Ok(Some(Self {
            stripe: Stripe { secret_key, api_base: stripe_api_base(), timeout },
            platform_country: parsed("PLATFORM_COUNTRY", "US", country, "a country's two capital letters like US")?,
            frontend,
        }))
    }
}

/// A country's two capital letters.
pub fn country(text: &str) -> Option<String> {
    (text.len() == 2 && text.bytes().all(|letter| letter.is_ascii_uppercase())).then(|| text.to_owned())
}

/// Whether a Stripe key moves real money (`sk_live_…`, `rk_live_…`).
pub fn is_live_key(key: &str) -> bool {
    key.contains("_live_")
}

/// `STRIPE_API_BASE`, without `/v1` and without a slash at the end.
pub fn stripe_api_base() -> String {
    let base = raw("STRIPE_API_BASE").unwrap_or_else(|| "https://api.stripe.com".to_owned());
    base.trim_end_matches('/').to_owned()
}

/// `STRIPE_WEBHOOK_SECRET`: a list, for several endpoints and for rotation.
pub async fn stripe_webhook_secrets() -> Result<Vec<String>> {
    let secrets = list(&required_secret("STRIPE_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET_ARN").await?);
    if secrets.is_empty() { Err(Error::config("STRIPE_WEBHOOK_SECRET", "has no secret in it")) } else { Ok(secrets) }
}

/// `CRON_SECRET` (or `CRON_SECRET_KEY`): a list while rotating.
pub async fn cron_secrets() -> Result<Vec<String>> {
    let text = match secret("CRON_SECRET", "CRON_SECRET_ARN").await? {
        Some(text) => text,
        None => required_secret("CRON_SECRET_KEY", "CRON_SECRET_ARN").await?,
    };
    let secrets = list(&text);
    if secrets.is_empty() { Err(Error::config("CRON_SECRET", "has no secret in it")) } else { Ok(secrets) }
}

/// How bearer tokens are checked.
#[derive(Clone, Debug)]
pub struct Jwt {
    pub keys: JwtKeys,
    pub issuer: Option<String>,
    pub audience: String,
}

#[derive(Clone)]
pub enum JwtKeys {
    /// ES256 or RS256 keys fetched from here.
    Jwks { url: String },
    /// HS256 with a shared secret.
    Secret(String),
}

impl std::fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Jwks { url } => f.debug_struct("Jwks").field("url", url).finish(),
            Self::Secret(_) => f.write_str("Secret"),
        }
    }
}

impl Jwt {
    /// `JWT_JWKS_URL` or `JWT_SECRET`; `SUPABASE_URL` gives the first and the issuer.
    pub async fn load() -> Result<Self> {
        let supabase = raw("SUPABASE_URL").map(|url| url.trim_end_matches('/').to_owned());
        let jwks = raw("JWT_JWKS_URL").or_else(|| supabase.as_ref().map(|url| format!("{url}/auth/v1/.well-known/jwks.json")));
        let keys = match secret("JWT_SECRET", "JWT_SECRET_ARN").await? {
            Some(secret) => JwtKeys::Secret(secret),
            None => JwtKeys::Jwks {
                url: jwks.ok_or_else(|| Error::config("JWT_JWKS_URL", "is not set (nor is JWT_SECRET nor SUPABASE_URL)"))?,
            },
        };
        let issuer = raw("JWT_ISSUER").or_else(|| supabase.map(|url| format!("{url}/auth/v1")));
        let audience = raw("JWT_AUDIENCE").unwrap_or_else(|| "authenticated".to_owned());
        Ok(Self { keys, issuer, audience })
    }
}

/// `RATE_LIMIT_PER_SECOND`: requests that one caller of the API may make; 0 is any number.
pub fn rate_limit_per_second() -> Result<u32> {
    Ok(u32::try_from(whole("RATE_LIMIT_PER_SECOND", "50", 0..=10_000)?).unwrap_or_default())
}

/// `FRONTEND_URL`: the origins that browsers may call from.
pub fn frontend_urls() -> Vec<String> {
    list(&raw("FRONTEND_URL").unwrap_or_default()).iter().map(|url| url.trim_end_matches('/').to_owned()).collect()
}

/// The queues' addresses.
pub fn create_batch_queue_url() -> Result<String> {
    required("CREATE_BATCH_QUEUE_URL")
}

pub fn process_chunk_queue_url() -> Result<String> {
    required("PROCESS_CHUNK_QUEUE_URL")
}

pub fn notification_queue_url() -> Result<String> {
    required("NOTIFICATION_QUEUE_URL")
}

/// `SCHEDULE_GROUP`: the EventBridge Scheduler group that holds our schedules.
pub fn schedule_group() -> Result<String> {
    required("SCHEDULE_GROUP")
}

/// `RUST_LOG`: what is logged. The AWS client's own news is of no interest.
pub fn log_filter() -> String {
    raw("RUST_LOG").unwrap_or_else(|| "info,aws_config=warn,aws_smithy_runtime=warn,hyper_util=warn".to_owned())
}

/// Where messages to people go; without any the notifier only logs.
#[derive(Debug, Clone)]
pub struct Alerts {
    pub slack_url: Option<String>,
    /// Operators; a list.
    pub email_to: Vec<String>,
    pub email_from: Option<String>,
    /// Whether Slack's URL may lead inside: only where AWS itself is inside, on one machine.
    pub may_be_inside: bool,
}

impl Alerts {
    pub async fn load() -> Result<Self> {
        let aws = raw("AWS_ENDPOINT_URL_SQS").and_then(|url| url.parse::<http::Uri>().ok());
        Ok(Self {
            slack_url: secret("SLACK_PAYOUT_WEBHOOK_URL", "SLACK_PAYOUT_WEBHOOK_URL_ARN").await?,
            email_to: list(&raw("PAYOUT_ALERT_EMAIL").unwrap_or_default()),
            email_from: raw("EMAIL_FROM"),
            may_be_inside: aws.is_some_and(|url| url.host().is_some_and(|host| !may_be_public(host))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_per_currency_and_never_half() {
        assert_eq!(thresholds("eur:1000, jpy:1500"), Some(BTreeMap::from([("eur".to_owned(), 1000), ("jpy".to_owned(), 1500)])));
        for wrong in ["eur", "eur:", "eur:-1", "eur:1.5", "zzz:5", "eur:1000,usd"] {
            assert_eq!(thresholds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_live_key_is_told_from_a_test_key() {
        assert!(is_live_key(concat!("sk_", "live_1")) && is_live_key(concat!("rk_", "live_1")) && !is_live_key("sk_test_1"));
    }
}
