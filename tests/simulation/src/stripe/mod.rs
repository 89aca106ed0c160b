//! A fake Stripe without a line of the engine: it is given the bytes of requests and answers with bytes. As unkind as Stripe:
//! it remembers keys for a day with failures, refuses changed parameters, enforces balances, lets funds pend, moves money
//! before an answer is lost, and tells of what happened late, twice and out of order.

pub mod accounts;
pub mod events;
pub mod trouble;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Duration, SubsecRound, Utc};
use fastrand::Rng;
use http::{HeaderMap, HeaderValue, StatusCode};
use payday::http_client::{Answer, Failure};

use accounts::{Account, Described};
use events::{Event, PayoutSaid, What};
use trouble::{Mishap, Weather};

type Time = DateTime<Utc>;

/// So long a key is remembered; some longer, none shorter.
const KEY_LIVES: Duration = Duration::hours(24);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Transfer,
    Payout,
}

/// A transfer or payout.
#[derive(Debug, Clone)]
pub struct Object {
    pub id: String,
    pub kind: Kind,
    pub account: String,
    pub amount: i64,
    pub currency: String,
    /// The attempt's mark, and the item's.
    pub mark: String,
    pub item_mark: String,
    pub created: Time,
    /// Of a payout: `pending`, `paid`, `failed`, `canceled`.
    pub status: &'static str,
    /// Of a transfer: what was taken back.
    pub reversed: i64,
}

impl Object {
    /// What of it has moved and stayed moved, minor units.
    pub fn live(&self) -> i64 {
        match self.status {
            "failed" | "canceled" => 0,
            _ => self.amount - self.reversed,
        }
    }
}

/// A POST as it comes over the wire.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: Kind,
    /// Of the header `Stripe-Account`.
    pub account: Option<String>,
    pub key: String,
    pub body: String,
}

struct Remembered {
    until: Time,
    fingerprint: String,
    status: u16,
    body: String,
}

/// What becomes of something later.
enum Fate {
    Run(Request),
    Payout { object: usize, status: &'static str },
}

/// When the bank decides about a payout, and what.
#[derive(Debug, Clone, Copy)]
pub struct BankHabits {
    pub days: i64,
    pub fails_per_mille: u32,
    pub returns_per_mille: u32,
}

pub struct Stripe {
    pub accounts: BTreeMap<String, Account>,
    pub platform: BTreeMap<String, i64>,
    pub objects: Vec<Object>,
    pub weather: Weather,
    pub bank: BankHabits,
    /// What it has to tell and nobody has fetched yet.
    pub news: Vec<Event>,
    /// The mishaps that struck, for the report.
    pub struck: BTreeMap<Mishap, u64>,
    pub replays: u64,
    pub balance_refusals: u64,
    keys: HashMap<String, Remembered>,
    fates: BTreeMap<(Time, u64), Fate>,
    next: u64,
}

impl Stripe {
    pub fn new() -> Self {
        Self {
            accounts: BTreeMap::new(),
            platform: BTreeMap::new(),
            objects: Vec::new(),
            weather: Weather::default(),
            bank: BankHabits { days: 2, fails_per_mille: 0, returns_per_mille: 0 },
            news: Vec::new(),
            struck: BTreeMap::new(),
            replays: 0,
            balance_refusals: 0,
            keys: HashMap::new(),
            fates: BTreeMap::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn tell(&mut self, now: Time, what: What) {
        let id = self.number();
        self.news.push(Event { id, created: now.trunc_subsecs(0), what });
    }

    pub fn open(&mut self, described: Described) {
        self.accounts.insert(described.id.clone(), Account::new(described));
    }

    /// A POST; how long it takes the caller to know what it then knows.
    pub fn post(&mut self, now: Time, request: &Request, luck: &mut Rng) -> (Result<Answer, Failure>, Duration) {
        let quick = Duration::milliseconds(luck.i64(80..900));
        let timeout = Duration::seconds(20);
        if self.weather.is_key_revoked(now) {
            return (Ok(error(401, "invalid_request_error", "api_key_expired")), quick);
        }
        let mishap = self.weather.mishap(now, luck);
        if let Some(mishap) = mishap {
            *self.struck.entry(mishap).or_default() += 1;
        }
        let lost = || Err(Failure::Unanswered("timed out after 20000 ms".to_owned()));
        match mishap {
            Some(Mishap::RateLimited) => (Ok(error(429, "rate_limit_error", "rate_limit")), quick),
            Some(Mishap::LockTimeout) => (Ok(error(429, "invalid_request_error", "lock_timeout")), quick),
            Some(Mishap::Refused) => (Err(Failure::NotSent("connection refused".to_owned())), quick),
            Some(Mishap::Unavailable) => (Ok(answer(503, "upstream is away", false)), quick),
            Some(Mishap::TimeoutBefore) => (lost(), timeout),
            Some(Mishap::RunLate) => {
                let at = now + timeout + Duration::seconds(luck.i64(1..60));
                let number = self.number();
                self.fates.insert((at, number), Fate::Run(request.clone()));
                (lost(), timeout)
            }
            Some(Mishap::TimeoutAfter) => {
                self.run(now, request, None, luck);
                (lost(), timeout)
            }
            Some(Mishap::Truncated) => {
                let (status, body, replayed) = self.run(now, request, None, luck);
                (Ok(answer(status, &body[..body.len() / 2], replayed)), quick)
            }
            Some(Mishap::OtherAmount) => {
                let (status, body, replayed) = self.run(now, request, None, luck);
                (Ok(answer(status, &body.replace("\"amount\":", "\"amount\":1"), replayed)), quick)
            }
            Some(mishap @ (Mishap::StoredError | Mishap::ErrorAfter)) => {
                let (status, body, replayed) = self.run(now, request, Some(mishap), luck);
                (Ok(answer(status, &body, replayed)), quick)
            }
            None => {
                let (status, body, replayed) = self.run(now, request, None, luck);
                (Ok(answer(status, &body, replayed)), quick)
            }
        }
    }

    /// Runs a request under its key: status, body, and whether it is what was answered before.
    fn run(&mut self, now: Time, request: &Request, mishap: Option<Mishap>, luck: &mut Rng) -> (u16, String, bool) {
        let fingerprint = format!("{:?} {:?} {}", request.kind, request.account, request.body);
        if let Some(known) = self.keys.get(&request.key).filter(|known| known.until > now) {
            if known.fingerprint != fingerprint {
                let text = error_body("idempotency_error", "", "Keys can only be used with the same parameters.");
                return (400, text, false);
            }
            self.replays += 1;
            return (known.status, known.body.clone(), true);
        }
        let late = |fate: &Fate| matches!(fate, Fate::Run(other) if other.key == request.key);
        if self.fates.range(..=(now + Duration::seconds(5), u64::MAX)).any(|(_, fate)| late(fate)) {
            return (409, error_body("idempotency_error", "idempotency_key_in_use", ""), false);
        }
        let oops = || (500, error_body("api_error", "", "Something went wrong on Stripe's end."));
        let (status, body) = match mishap {
            Some(Mishap::StoredError) => oops(),
            Some(_) => {
                self.execute(now, request, luck);
                oops()
            }
            None => self.execute(now, request, luck),
        };
        let until = now + KEY_LIVES + Duration::minutes(luck.i64(0..120));
        self.keys.insert(request.key.clone(), Remembered { until, fingerprint, status, body: body.clone() });
        (status, body, false)
    }

    fn execute(&mut self, now: Time, request: &Request, luck: &mut Rng) -> (u16, String) {
        let form: HashMap<String, String> = form_urlencoded::parse(request.body.as_bytes()).into_owned().collect();
        let text = |name: &str| form.get(name).cloned().unwrap_or_default();
        let amount: i64 = text("amount").parse().unwrap_or(0);
        let currency = text("currency").to_ascii_lowercase();
        let id = match request.kind {
            Kind::Transfer => text("destination"),
            Kind::Payout => request.account.clone().unwrap_or_default(),
        };
        let refused = |status, code: &str| (status, error_body("invalid_request_error", code, ""));
        if amount <= 0 {
            return refused(400, "parameter_invalid_integer");
        }
        let Some(account) = self.accounts.get_mut(&id).filter(|account| !account.gone) else {
            return match request.kind {
                Kind::Transfer => refused(400, "resource_missing"),
                Kind::Payout => refused(403, "account_invalid"),
            };
        };
        let available_at = now + Duration::hours(account.pends_hours);
        match request.kind {
            Kind::Transfer if !account.described.transfers_active => {
                return refused(400, "insufficient_capabilities_for_transfer");
            }
            Kind::Transfer => {
                let platform = self.platform.entry(currency.clone()).or_default();
                if *platform < amount {
                    self.balance_refusals += 1;
                    return refused(400, "balance_insufficient");
                }
                *platform -= amount;
                account.credit(&currency, amount, available_at);
            }
            Kind::Payout if !account.described.payouts_enabled => return refused(400, "payouts_not_allowed"),
            Kind::Payout if account.available(&currency, now) < amount => {
                self.balance_refusals += 1;
                return refused(400, "balance_insufficient");
            }
            Kind::Payout => account.debit(&currency, amount),
        }
        let refuses = account.bank_refuses;
        let number = self.number();
        let prefix = if request.kind == Kind::Transfer { "tr" } else { "po" };
        let object = Object {
            id: format!("{prefix}_{number}"),
            kind: request.kind,
            account: id.clone(),
            amount,
            currency: currency.clone(),
            mark: text("metadata[operation_id]"),
            item_mark: text("metadata[item_id]"),
            created: now,
            status: "pending",
            reversed: 0,
        };
        let body = match request.kind {
            Kind::Transfer => format!(
                r#"{{"id":"{}","object":"transfer","amount":{amount},"currency":"{currency}","destination":"{id}","amount_reversed":0}}"#,
                object.id
            ),
            Kind::Payout => format!(
                r#"{{"id":"{}","object":"payout","amount":{amount},"currency":"{currency}","status":"pending","arrival_date":{}}}"#,
                object.id,
                now.timestamp() + 172_800
            ),
        };
        self.objects.push(object);
        if request.kind == Kind::Payout {
            self.decide_fate(now, self.objects.len() - 1, refuses, luck);
        }
        (200, body)
    }

    /// What the bank will do about a payout.
    fn decide_fate(&mut self, now: Time, object: usize, refuses: bool, luck: &mut Rng) {
        self.tell_payout(now, object);
        let at = now + Duration::hours(luck.i64(1..=self.bank.days.max(1) * 24));
        let roll = luck.u32(..1_000);
        let fails = refuses || roll < self.bank.fails_per_mille;
        let number = self.number();
        let status = match (fails, roll % 7) {
            (true, 0) => "canceled",
            (true, _) => "failed",
            (false, _) => "paid",
        };
        self.fates.insert((at, number), Fate::Payout { object, status });
        if !fails && luck.u32(..1_000) < self.bank.returns_per_mille {
            let back_at = at + Duration::hours(luck.i64(2..24 * 9));
            let number = self.number();
            self.fates.insert((back_at, number), Fate::Payout { object, status: "failed" });
        }
    }

    fn tell_payout(&mut self, now: Time, object: usize) {
        let it = &self.objects[object];
        let said = PayoutSaid {
            id: it.id.clone(),
            account: it.account.clone(),
            mark: it.mark.clone(),
            amount: it.amount,
            currency: it.currency.clone(),
            status: it.status,
            failure_code: (it.status == "failed").then_some("account_closed"),
        };
        self.tell(now, What::Payout(said));
    }

    /// Whether what it answers under a key, for as long as it remembers that, is no object.
    pub fn remembers_refusal(&self, key: &str, now: Time) -> bool {
        self.keys.get(key).is_some_and(|known| known.until > now && known.status >= 400)
    }

    /// Whether it has ever told something that is not so.
    pub fn has_lied(&self) -> bool {
        self.struck.contains_key(&Mishap::OtherAmount)
    }

    /// When something happens next by itself.
    pub fn next_at(&self) -> Option<Time> {
        self.fates.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets happen what is due.
    pub fn happen(&mut self, now: Time, luck: &mut Rng) {
        while let Some(((at, number), fate)) = self.fates.pop_first() {
            if at > now {
                self.fates.insert((at, number), fate);
                return;
            }
            match fate {
                Fate::Run(request) => {
                    self.run(now, &request, None, luck);
                }
                Fate::Payout { object, status } => {
                    let it = &mut self.objects[object];
                    it.status = status;
                    if status != "paid" {
                        let (account, currency, amount) = (it.account.clone(), it.currency.clone(), it.amount);
                        if let Some(account) = self.accounts.get_mut(&account) {
                            account.debit(&currency, -amount);
                        }
                    }
                    self.tell_payout(now, object);
                }
            }
        }
    }

    /// Takes back a part of a transfer, as far as the account's balance reaches.
    pub fn reverse(&mut self, now: Time, object: usize, amount: i64) -> bool {
        let it = &mut self.objects[object];
        let Some(account) = self.accounts.get_mut(&it.account) else { return false };
        let amount = amount.min(it.amount - it.reversed).min(account.available(&it.currency, now));
        if it.kind == Kind::Payout || amount <= 0 {
            return false;
        }
        account.debit(&it.currency, amount);
        *self.platform.entry(it.currency.clone()).or_default() += amount;
        it.reversed += amount;
        let what = What::TransferReversed { id: it.id.clone(), mark: it.mark.clone(), amount_reversed: it.reversed };
        self.tell(now, what);
        true
    }

    /// The platform's available balance; `None`: it cannot be read now. `Err`: our key is refused.
    pub fn available(&mut self, now: Time, currency: &str) -> Option<i64> {
        if self.weather.is_key_revoked(now) || self.weather.is_out(now) {
            return None;
        }
        Some(self.platform.get(currency).copied().unwrap_or(0))
    }

    /// The object of an attempt's mark, as a list shows it. `Err`: no answer; `Ok(Err)`: the account is not ours to ask.
    pub fn list(&mut self, now: Time, kind: Kind, account: &str, mark: &str, since: Time) -> Listed<'_> {
        if self.weather.is_key_revoked(now) || self.weather.is_out(now) {
            return Listed::Unanswered;
        }
        if kind == Kind::Payout && self.accounts.get(account).is_none_or(|account| account.gone) {
            return Listed::NoAccount;
        }
        let youngest = now - self.weather.list_delay(now);
        let shown = |it: &&Object| {
            it.kind == kind && it.mark == mark && it.created <= youngest && (kind == Kind::Transfer || it.created >= since)
        };
        self.objects.iter().find(shown).map_or(Listed::Nothing, Listed::Object)
    }

    /// An account as whoever asks is told; `None`: no answer.
    pub fn account(&mut self, now: Time, id: &str) -> Option<Option<Described>> {
        if self.weather.is_key_revoked(now) || self.weather.is_out(now) {
            return None;
        }
        Some(self.accounts.get(id).filter(|account| !account.gone).map(|account| account.described.clone()))
    }
}

impl Default for Stripe {
    fn default() -> Self {
        Self::new()
    }
}

pub enum Listed<'a> {
    Object(&'a Object),
    Nothing,
    NoAccount,
    Unanswered,
}

fn error_body(kind: &str, code: &str, message: &str) -> String {
    format!(r#"{{"error":{{"type":"{kind}","code":"{code}","message":"{message}"}}}}"#)
}

fn error(status: u16, kind: &str, code: &str) -> Answer {
    answer(status, &error_body(kind, code, ""), false)
}

fn answer(status: u16, body: &str, replayed: bool) -> Answer {
    let mut headers = HeaderMap::new();
    if replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer { status, headers, body: body.as_bytes().to_vec().into() }
}
