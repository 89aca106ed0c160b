//! A Stripe on this machine, as unkind as the real one, and the oracle of what moved.
//!
//! An HTTP server in this process, on 127.0.0.1. It shares no code with the library it is there to
//! contradict: its currency rules, its idempotency and its books are written from Stripe's documentation.
//! What it does by itself follows that documentation; what goes wrong beyond that is ordered, from Rust
//! (`StripeDouble::fault` and the like) or with curl under `/_double/`.
//!
//! Reading order: [`StripeDouble`] here, then `pipeline` (one request's way), `routes`, `transfers`,
//! `payouts`, `idempotency`, `faults`, `webhooks`, `audit`.

// What a caller uses.
mod controls;
mod spec;

// One request's way, and what it does.
mod pipeline;
mod routes;

mod world;

mod accounts;
mod balance;
mod charges;
mod payouts;
mod transfers;

// Stripe's rules around it.
mod currency;
mod errors;
mod form;
mod idempotency;
mod lists;
mod objects;
mod rates;

// Trouble and its record.
mod audit;
mod calls;
mod faults;
mod webhooks;

// The machinery.
mod admin;
mod clock;
mod ids;
mod server;
mod state;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use audit::{Audit, Destination, DoublePaid, KeyMisuse};
pub use calls::{Call, Counts};
pub use charges::{Charged, DestinationCharge};
pub use clock::ClockMode;
pub use currency::Currency;
pub use faults::{Fault, FaultCount, FaultRule, When};
pub use rates::Rates;
pub use spec::{AccountSpec, BankSpec, PayoutOutcome, Settlement};
pub use webhooks::{Delivery, DeliveryAction, DeliveryOptions, DeliveryRule, DeliveryState, WebhookTarget, signature};
pub use world::{Event, Exchange, Funds};

use calls::CallLog;
use clock::{DoubleClock, machine_ms};
use faults::Faults;
use pipeline::ApiKeys;
use rates::Limiter;
use state::{Inner, Latency, State};
use webhooks::Hooks;
use world::{Settings, World};

/// How a double starts. The default is a patient one: no latency, no limits, payouts settled by hand.
#[derive(Debug, Clone)]
pub struct StripeDoubleOptions {
    /// 0: a free one.
    pub port: u16,
    /// Keys it takes; empty: every well-formed key of its mode.
    pub keys: Vec<String>,
    /// Keys that may only read.
    pub read_only_keys: Vec<String>,
    pub livemode: bool,
    /// Seed of the ids; none: another one each time.
    pub seed: Option<u64>,
    pub clock: ClockMode,
    /// Of every answer: half before the execution, half after.
    pub latency_ms: u64,
    /// By endpoint, as in `POST /v1/transfers`.
    pub latency_by_endpoint: Vec<(String, u64)>,
    pub rates: Rates,
    pub settlement: Settlement,
    /// How long transferred money stays pending on the connected account.
    pub transfer_available_after_ms: i64,
    /// How long after money became available an account with automatic payouts is paid out.
    pub automatic_payout_after_ms: i64,
    pub exchange: Vec<Exchange>,
    /// The platform's own account; its banks serve payouts without `Stripe-Account`.
    pub platform: AccountSpec,
    pub webhooks: Option<WebhookTarget>,
    pub delivery: DeliveryOptions,
    /// Whether each call is kept for `calls` and `audit`; the counts are always kept.
    pub keep_calls: bool,
}

impl Default for StripeDoubleOptions {
    fn default() -> Self {
        Self {
            port: 0,
            keys: Vec::new(),
            read_only_keys: Vec::new(),
            livemode: false,
            seed: None,
            clock: ClockMode::Real,
            latency_ms: 0,
            latency_by_endpoint: Vec::new(),
            rates: Rates::unlimited(),
            settlement: Settlement::Manual,
            transfer_available_after_ms: 0,
            automatic_payout_after_ms: 86_400_000,
            exchange: Vec::new(),
            platform: AccountSpec { id: "acct_1Pplatform".to_owned(), kind: "standard".to_owned(), ..AccountSpec::default() },
            webhooks: None,
            delivery: DeliveryOptions::default(),
            keep_calls: true,
        }
    }
}

/// A running double. Clones are handles to the same one; it stops when the last is dropped.
#[derive(Debug, Clone)]
pub struct StripeDouble {
    inner: Arc<Inner>,
    /// None in the handle that the admin side uses: it keeps nothing alive.
    _running: Option<Arc<Running>>,
}

#[derive(Debug)]
struct Running {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Open connections end too.
        self.inner.open.send_replace(false);
    }
}

/// One transfer as it is now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TransferRecord {
    pub id: String,
    pub amount: i64,
    pub amount_reversed: i64,
    pub currency: String,
    pub destination: String,
    pub transfer_group: Option<String>,
    pub metadata: Vec<(String, String)>,
    /// Stripe's own, of a destination charge.
    pub from_charge: bool,
}

/// One payout as it is now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PayoutRecord {
    pub id: String,
    pub account: String,
    pub amount: i64,
    pub currency: String,
    pub status: String,
    pub automatic: bool,
    pub destination: String,
    pub failure_code: Option<String>,
    pub metadata: Vec<(String, String)>,
}

impl StripeDouble {
    /// Listens, and returns once it does.
    pub async fn start(options: StripeDoubleOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        let address = listener.local_addr()?;
        let clock = DoubleClock::new(options.clock);
        let seed = options.seed.unwrap_or_else(|| fastrand::u64(..) ^ machine_ms().unsigned_abs());
        let settings = Settings {
            livemode: options.livemode,
            settlement: options.settlement,
            transfer_available_after_ms: options.transfer_available_after_ms,
            automatic_payout_after_ms: options.automatic_payout_after_ms,
            exchange: options.exchange,
        };
        let hooks = Arc::new(Hooks::new(options.webhooks, options.delivery));
        let state = State {
            world: World::new(settings, seed, clock.now_ms(), options.platform),
            keys: ApiKeys {
                known: options.keys,
                revoked: Vec::new(),
                read_only: options.read_only_keys,
                livemode: options.livemode,
            },
            limiter: Limiter::new(options.rates),
            faults: Faults::default(),
            log: CallLog { keep_calls: options.keep_calls, ..CallLog::default() },
        };
        let latency = Latency { every_ms: options.latency_ms, by_endpoint: options.latency_by_endpoint };
        let inner = Arc::new(Inner::new(state, address, clock, latency, Arc::clone(&hooks)));
        let mut tasks = vec![tokio::spawn(server::serve(Arc::clone(&inner), listener)), tokio::spawn(hooks.run())];
        if !inner.clock.is_manual() {
            tasks.push(tokio::spawn(Arc::clone(&inner).keep_time()));
        }
        Ok(Self { inner: Arc::clone(&inner), _running: Some(Arc::new(Running { inner, tasks })) })
    }

    fn handle(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), _running: None }
    }

    /// Without `/v1` and without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    pub fn port(&self) -> u16 {
        self.inner.address.port()
    }
}
