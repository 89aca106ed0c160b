//! What a function says about itself: one JSON object per line on its standard output, which CloudWatch keeps.
//!
//! Logs carry the fields of every span they are in (`request`, `run`, `batch`, `item`), so that one id finds everything
//! that was done about it. Metrics are lines in CloudWatch's embedded format. Everything passes through [`redact`] on its
//! way out: a secret that slips into a message is still not printed.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::SecondsFormat;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

use crate::{clock, config};

static STARTED: AtomicBool = AtomicBool::new(false);
/// Read once: two deployments in one account must not feed each other's alarms.
static NAMESPACE: LazyLock<String> = LazyLock::new(config::metrics_namespace);

/// Starts logging to standard output; call it first in a function's `main`. A second call changes nothing.
pub fn init() {
    let subscriber = Registry::default().with(filter(&config::log_filter())).with(JsonLines { write: print_line });
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    STARTED.store(true, Ordering::Relaxed);
    // The default hook prints in its own format; a panic is an event like others. No backtrace: it names files, not causes.
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let words = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let words = words.unwrap_or("a panic without words");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, panic = words, "a function panicked");
    }));
}

fn filter(directives: &str) -> EnvFilter {
    let filter = EnvFilter::builder().parse_lossy(directives);
    // Below error, the Stripe client logs whole requests.
    ["stripe=error", "async_stripe=error"]
        .iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive)
}

fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to fail the work.
    let _ = writeln!(out, "{line}");
}

/// What is measured. The alarms of `template.yaml` refer to these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Operations whose outcome is not known.
    UnknownOutcomes,
    /// Age of the oldest of them.
    UnknownOutcomeAgeSeconds,
    /// Once a day; its absence alarms.
    Heartbeat,
    /// Cycles that were due and had no run.
    RunsMissing,
    /// Runs that are still running long after they should be done.
    RunsStuck,
    /// Stripe does not accept our key.
    StripeKeyRejected,
    /// The books do not agree.
    StandingCheckBreached,
    /// Places where Stripe and the books do not agree, newly found.
    DiscrepanciesFound,
    /// All of them that nobody has resolved or ignored.
    DiscrepanciesOpen,
    /// Since Stripe and the books were last compared to the end.
    ReconciliationAgeSeconds,
    /// Objects in Stripe's lists that we cannot read.
    UnreadableObjects,
    /// Messages to people that are not known to have arrived and are not sent again.
    MessagesNotDelivered,
    /// Messages that Slack or SES took.
    MessagesDelivered,
    /// Runs started by a schedule or a request.
    RunsStarted,
    /// Payments that a batch was made of.
    PaymentsBatched,
    /// From the start of a run to its completion.
    RunMilliseconds,
    /// Sends that Stripe accepted, by leg.
    SendsAccepted,
    /// Sends that Stripe refused, by leg.
    SendsRefused,
    /// Events that a webhook brought for the first time.
    EventsReceived,
    /// Webhooks without a valid signature.
    WebhooksRefused,
    /// Requests to the API that were answered with a fault of ours (5xx).
    RequestsFailed,
    /// Payments of 30 days that arrived, of those that have an end.
    SuccessBasisPoints,
    /// Creators who can be paid, of all.
    OnboardedBasisPoints,
    /// Payments that did not arrive and that nobody has done anything about for a day.
    FailedOverADay,
}

impl Metric {
    pub const ALL: [Self; 24] = [
        Self::UnknownOutcomes,
        Self::UnknownOutcomeAgeSeconds,
        Self::Heartbeat,
        Self::RunsMissing,
        Self::RunsStuck,
        Self::StripeKeyRejected,
        Self::StandingCheckBreached,
        Self::DiscrepanciesFound,
        Self::DiscrepanciesOpen,
        Self::ReconciliationAgeSeconds,
        Self::UnreadableObjects,
        Self::MessagesNotDelivered,
        Self::MessagesDelivered,
        Self::RunsStarted,
        Self::PaymentsBatched,
        Self::RunMilliseconds,
        Self::SendsAccepted,
        Self::SendsRefused,
        Self::EventsReceived,
        Self::WebhooksRefused,
        Self::RequestsFailed,
        Self::SuccessBasisPoints,
        Self::OnboardedBasisPoints,
        Self::FailedOverADay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownOutcomes => "UnknownOutcomes",
            Self::UnknownOutcomeAgeSeconds => "UnknownOutcomeAgeSeconds",
            Self::Heartbeat => "Heartbeat",
            Self::RunsMissing => "RunsMissing",
            Self::RunsStuck => "RunsStuck",
            Self::StripeKeyRejected => "StripeKeyRejected",
            Self::StandingCheckBreached => "StandingCheckBreached",
            Self::DiscrepanciesFound => "DiscrepanciesFound",
            Self::DiscrepanciesOpen => "DiscrepanciesOpen",
            Self::ReconciliationAgeSeconds => "ReconciliationAgeSeconds",
            Self::UnreadableObjects => "UnreadableObjects",
            Self::MessagesNotDelivered => "MessagesNotDelivered",
            Self::MessagesDelivered => "MessagesDelivered",
            Self::RunsStarted => "RunsStarted",
            Self::PaymentsBatched => "PaymentsBatched",
            Self::RunMilliseconds => "RunMilliseconds",
            Self::SendsAccepted => "SendsAccepted",
            Self::SendsRefused => "SendsRefused",
            Self::EventsReceived => "EventsReceived",
            Self::WebhooksRefused => "WebhooksRefused",
            Self::RequestsFailed => "RequestsFailed",
            Self::SuccessBasisPoints => "SuccessBasisPoints",
            Self::OnboardedBasisPoints => "OnboardedBasisPoints",
            Self::FailedOverADay => "FailedOverADay",
        }
    }

    /// CloudWatch's word for the unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::UnknownOutcomeAgeSeconds | Self::ReconciliationAgeSeconds => "Seconds",
            Self::UnknownOutcomes
            | Self::Heartbeat
            | Self::RunsMissing
            | Self::RunsStuck
            | Self::StripeKeyRejected
            | Self::StandingCheckBreached
            | Self::DiscrepanciesFound
            | Self::DiscrepanciesOpen
            | Self::UnreadableObjects
            | Self::MessagesNotDelivered
            | Self::MessagesDelivered
            | Self::RunsStarted
            | Self::PaymentsBatched
            | Self::SendsAccepted
            | Self::SendsRefused
            | Self::EventsReceived
            | Self::WebhooksRefused
            | Self::RequestsFailed
            | Self::SuccessBasisPoints
            | Self::OnboardedBasisPoints
            | Self::FailedOverADay => "Count",
            Self::RunMilliseconds => "Milliseconds",
        }
    }
}

/// Records a value of a metric. Alarms look at metrics without dimensions; each set of dimensions is a metric of its own.
pub fn metric(metric: Metric, value: i64, dimensions: &[(&'static str, &str)]) {
    // On one machine there is no CloudWatch: a command that runs in the terminal has not called `init`.
    if STARTED.load(Ordering::Relaxed) {
        print_line(&metric_line(metric, value, dimensions, clock::now().timestamp_millis()));
    }
}

fn metric_line(metric: Metric, value: i64, dimensions: &[(&'static str, &str)], at_ms: i64) -> String {
    let names: Vec<&str> = dimensions.iter().map(|(name, _)| *name).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": at_ms,
            "CloudWatchMetrics": [{ "Namespace": *NAMESPACE, "Dimensions": [names], "Metrics": [{ "Name": metric.name(), "Unit": metric.unit() }] }],
        },
        metric.name(): value,
    });
    for (name, value) in dimensions {
        line[*name] = json!(redact(value));
    }
    line.to_string()
}

/// Replaces what looks like a secret: Stripe keys, webhook secrets, bearer tokens, passwords in addresses, Slack hooks.
pub fn redact(text: &str) -> Cow<'_, str> {
    let spans = secret_spans(text);
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
    for (start, end) in spans {
        clean.push_str(&text[at..start]);
        clean.push_str("***");
        at = end;
    }
    clean.push_str(&text[at..]);
    Cow::Owned(clean)
}

/// The byte ranges of `text` that must not be seen, in order.
fn secret_spans(text: &str) -> Vec<(usize, usize)> {
    const MARKS: [&str; 8] =
        ["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "eyJ", "sb_secret_", "hooks.slack.com/services/"];
    let mut spans = Vec::new();
    let mut after_bearer = false;
    let mut start = 0;
    let ends_word = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '(' | ')' | '{' | '}' | '<' | '>');
    for word in text.split_inclusive(ends_word) {
        let bare = word.trim_end_matches(ends_word);
        let end = start + bare.len();
        let marked = MARKS.iter().filter_map(|mark| bare.find(mark).map(|at| at + mark.len())).min();
        if let Some(at) = marked {
            spans.push((start + at, end));
        } else if after_bearer && bare.len() >= 16 {
            spans.push((start, end));
        } else if let Some(range) = password_of_address(bare) {
            spans.push((start + range.0, start + range.1));
        }
        if !bare.is_empty() {
            after_bearer = bare.eq_ignore_ascii_case("bearer");
        }
        start += word.len();
    }
    spans
}

/// Where the password is in `scheme://user:password@host`.
fn password_of_address(word: &str) -> Option<(usize, usize)> {
    let user = word.find("://")? + 3;
    let at = user + word[user..].rfind('@')?;
    let password = user + word[user..at].find(':')? + 1;
    Some((password, at))
}

/// Whether a field of this name is never shown, whatever is in it. Numbers are: `tokens` counts.
fn is_secret_field(name: &str) -> bool {
    ["secret", "password", "authorization", "api_key", "token"].iter().any(|word| name.contains(word))
}

/// The layer that turns an event and the spans around it into a line.
struct JsonLines {
    write: fn(&str),
}

/// The fields of a span, kept with it.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, field: &Field, text: &str) {
        let shown = if is_secret_field(field.name()) { Cow::Borrowed("***") } else { redact(text) };
        self.0.insert(field.name().to_owned(), Value::String(shown.into_owned()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields::default();
        event.record(&mut own);
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), clock::now().to_rfc3339_opts(SecondsFormat::Millis, true).into());
        line.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        line.insert("message".to_owned(), own.0.remove("message").unwrap_or_default());
        line.insert("target".to_owned(), event.metadata().target().into());
        // From the outermost span inwards, so that the nearest word for a name wins; the event's own wins over all.
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.extend(fields.0.clone());
            }
        }
        line.extend(own.0);
        (self.write)(&Value::Object(line).to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static LINES: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
    }

    fn keep(line: &str) {
        LINES.with_borrow_mut(|lines| lines.push(serde_json::from_str(line).expect("a line is JSON")));
    }

    fn logged(directives: &str, work: impl FnOnce()) -> Vec<Value> {
        let subscriber = Registry::default().with(filter(directives)).with(JsonLines { write: keep });
        tracing::subscriber::with_default(subscriber, work);
        LINES.take()
    }

    #[test]
    fn a_line_carries_the_ids_of_every_span_it_is_in() {
        let lines = logged("info", || {
            let run = tracing::info_span!("run", run = 7, batch = tracing::field::Empty).entered();
            run.record("batch", 9);
            let _item = tracing::info_span!("item", item = 11).entered();
            tracing::warn!(outcome = "unknown", "a transfer was not answered");
        });
        let line = &lines[0];
        for (field, value) in
            [("run", json!(7)), ("batch", json!(9)), ("item", json!(11)), ("outcome", json!("unknown")), ("level", json!("warn"))]
        {
            assert_eq!(line[field], value, "{field}");
        }
        assert_eq!(line["message"], "a transfer was not answered");
    }

    #[test]
    fn the_stripe_client_is_heard_at_error_only_whatever_the_filter_says() {
        let lines = logged("trace", || {
            tracing::debug!(target: "stripe", "request with everything in it");
            tracing::error!(target: "stripe", "failed");
            tracing::debug!("ours");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap_or_default()).collect();
        assert_eq!(messages, ["failed", "ours"]);
    }

    #[test]
    fn what_looks_like_a_secret_is_never_printed() {
        let key = concat!("sk_", "live_51abcDEF");
        for (text, shown) in [
            (format!("key {key}, refused"), format!("key {}***, refused", concat!("sk_", "live_"))),
            ("Bearer abcdefghijklmnopqrst.".to_owned(), "Bearer ***".to_owned()),
            ("bearer token missing".to_owned(), "bearer token missing".to_owned()),
            ("at postgres://payday:hunter2@db:5432/x failed".to_owned(), "at postgres://payday:***@db:5432/x failed".to_owned()),
            (concat!("{\"t\":\"eyJ", "hbGciOi.J9.x\"}").to_owned(), "{\"t\":\"eyJ***\"}".to_owned()),
            ("https://hooks.slack.com/services/T0/B0/xyz".to_owned(), "https://hooks.slack.com/services/***".to_owned()),
            ("nothing to hide at 10:30 by a@b.c".to_owned(), "nothing to hide at 10:30 by a@b.c".to_owned()),
        ] {
            assert_eq!(redact(&text), shown, "{text}");
        }
        let lines = logged("info", || tracing::info!(cron_secret = "short", tokens = 5, "with fields"));
        assert_eq!((&lines[0]["cron_secret"], &lines[0]["tokens"]), (&json!("***"), &json!(5)));
    }

    #[test]
    fn a_metric_is_a_line_in_the_embedded_format() {
        let line: Value =
            serde_json::from_str(&metric_line(Metric::UnknownOutcomeAgeSeconds, 90, &[("leg", "payout")], 1_700_000_000_000))
                .expect("JSON");
        assert_eq!(
            line,
            json!({
                "_aws": {
                    "Timestamp": 1_700_000_000_000_i64,
                    "CloudWatchMetrics": [{ "Namespace": "Payday", "Dimensions": [["leg"]], "Metrics": [{ "Name": "UnknownOutcomeAgeSeconds", "Unit": "Seconds" }] }],
                },
                "UnknownOutcomeAgeSeconds": 90,
                "leg": "payout",
            })
        );
    }
}
