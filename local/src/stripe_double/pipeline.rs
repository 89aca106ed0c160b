//! One request's way through the double, in Stripe's order: key, rate limits, account, idempotency,
//! parameters, execution. What is refused before execution leaves no trace under the idempotency key;
//! what the endpoint itself answers is kept, errors and 500s too.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use hyper::body::Bytes;
use tokio::time::Instant;

use super::calls::Call;
use super::errors::{ApiError, masked};
use super::faults::Fault;
use super::form::Params;
use super::idempotency::{Claim, Saved};
use super::routes::Route;
use super::state::{Inner, State};
use super::world::{Owner, PLATFORM};

/// What the client sees.
pub(super) enum Reply {
    Answer(Answer),
    /// Half an answer.
    Truncated(Answer),
    /// The connection stays open and silent.
    Hang,
    /// The connection is reset.
    Reset,
}

pub(super) struct Answer {
    pub status: u16,
    pub html: bool,
    pub body: Bytes,
    pub headers: Vec<(&'static str, String)>,
}

pub(super) struct Incoming {
    pub method: &'static str,
    pub path: String,
    pub params: Params,
    pub raw_params: String,
    key: Option<String>,
    account: Option<String>,
    idempotency_key: Option<String>,
    api_version: Option<String>,
}

impl Incoming {
    pub(super) fn new(method: &'static str, path: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut raw = String::from_utf8_lossy(body).into_owned();
        if !query.is_empty() {
            if !raw.is_empty() {
                raw.push('&');
            }
            raw.push_str(query);
        }
        Self {
            method,
            path: path.to_owned(),
            params: Params::parse(raw.as_bytes()),
            raw_params: raw,
            key: text("authorization").as_deref().and_then(api_key),
            account: text("stripe-account"),
            idempotency_key: text("idempotency-key"),
            api_version: text("stripe-version"),
        }
    }
}

/// `Bearer sk_…`, or basic with the key as the user's name.
fn api_key(authorization: &str) -> Option<String> {
    if let Some(key) = authorization.strip_prefix("Bearer ") {
        return Some(key.trim().to_owned());
    }
    let encoded = authorization.strip_prefix("Basic ")?;
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    Some(text.split(':').next().unwrap_or_default().to_owned())
}

/// A request that may execute.
struct Entered {
    route: Route,
    owner: Owner,
    /// Idempotency key and the account it is stored for.
    claimed: Option<(String, String)>,
}

enum Entry {
    Go(Entered),
    Replay(Saved),
    Refused(ApiError),
}

pub(super) async fn process(inner: Arc<Inner>, request: Incoming) -> Reply {
    let endpoint = Route::find(request.method, &request.path).map_or("", |route| route.endpoint());
    let account = request.account.clone().unwrap_or_default();
    let destination = request.params.get("destination").unwrap_or_default().to_owned();
    let latency_ms = inner.latency_ms(endpoint);
    let (number, request_id, fault) = inner.with(|state| {
        let request_id = state.world.ids.make("req");
        let fault = state.faults.pick(request.method, &request.path, &account, &destination);
        let number = state.log.begin(Call {
            number: 0,
            at_ms: state.world.now_ms,
            method: request.method,
            endpoint,
            path: request.path.clone(),
            account: request.account.clone(),
            idempotency_key: request.idempotency_key.clone(),
            fingerprint: format!("{:032x}", request.params.fingerprint(request.method, &request.path)),
            params: request.raw_params.clone(),
            request_id: request_id.clone(),
            api_version: request.api_version.clone(),
            status: 0,
            error_code: None,
            executed: false,
            replayed: false,
            fault: fault.as_ref().map(fault_name),
            object_id: None,
        });
        (number, request_id, fault)
    });

    match &fault {
        Some(Fault::TimeoutBefore) => return Reply::Hang,
        Some(Fault::ResetBefore) => return Reply::Reset,
        Some(Fault::Refused { for_ms }) => {
            inner.go_down(Some(Duration::from_millis(*for_ms)));
            return Reply::Reset;
        }
        Some(Fault::Html { status }) => {
            inner.with(|state| state.log.finish(number, |call| call.status = *status));
            return Reply::Answer(html(*status));
        }
        Some(Fault::Slow { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        _ => {}
    }

    let entry = inner.with(|state| enter(state, &request, fault.as_ref()));
    let arrived = Instant::now();
    wait_until(arrived, latency_ms / 2).await;
    if matches!(entry, Entry::Go(_)) {
        inner.pass_door().await;
    }

    let reply = match entry {
        Entry::Refused(error) => inner.with(|state| refuse(state, number, &request, &request_id, &error)),
        Entry::Replay(saved) => {
            inner.with(|state| {
                state.log.finish(number, |call| {
                    call.status = saved.status;
                    call.replayed = true;
                    call.object_id.clone_from(&saved.object_id);
                });
            });
            let mut headers = common_headers(&request, &request_id);
            headers.push(("idempotent-replayed", "true".to_owned()));
            headers.push(("original-request", saved.request_id));
            let bent = fault.as_ref().filter(|_| saved.status < 300).and_then(|fault| fault.bend(&saved.body));
            Reply::Answer(Answer { status: saved.status, html: false, body: bent.map_or(saved.body, Into::into), headers })
        }
        Entry::Go(entered) => inner.with(|state| run(state, number, &request, &request_id, entered, fault.as_ref())),
    };
    // Measured from the arrival: two waits would each add the timer's rounding.
    wait_until(arrived, latency_ms).await;
    match fault {
        Some(Fault::ExecuteThenHang) => Reply::Hang,
        Some(Fault::ExecuteThenReset) => Reply::Reset,
        _ => reply,
    }
}

async fn wait_until(arrived: Instant, after_ms: u64) {
    if after_ms > 0 {
        tokio::time::sleep_until(arrived + Duration::from_millis(after_ms)).await;
    }
}

/// Everything that stands before execution.
fn enter(state: &mut State, request: &Incoming, fault: Option<&Fault>) -> Entry {
    let key = request.key.as_deref().unwrap_or_default();
    let account = request.account.as_deref().unwrap_or_default();
    let Some(route) = Route::find(request.method, &request.path) else {
        return Entry::Refused(
            ApiError::invalid(format!(
                "Unrecognized request URL ({}: {}). Please see https://stripe.com/docs or we can help at https://support.stripe.com/.",
                request.method, request.path
            ))
            .status(404),
        );
    };
    let refusal = fault.and_then(|fault| fault.refusal(key, account));
    if let Some(error) = refusal.as_ref().filter(|e| e.status == 401) {
        return Entry::Refused(error.clone());
    }
    if let Err(error) = state.keys.check(request.key.as_deref(), request.method) {
        return Entry::Refused(error);
    }
    if let Some(error) = refusal.as_ref().filter(|e| e.status == 429) {
        state.log.admitted(route.endpoint(), false);
        return Entry::Refused(error.clone());
    }
    let now_ms = state.world.now_ms;
    if let Err((reason, retry_after)) = state.limiter.admit(route.endpoint(), now_ms) {
        state.log.admitted(route.endpoint(), false);
        let mut error = ApiError::rate_limited(reason);
        error.retry_after = retry_after;
        return Entry::Refused(error);
    }
    state.log.admitted(route.endpoint(), true);
    let result = admitted(state, request, route.clone(), refusal);
    if !matches!(result, Entry::Go(_)) {
        state.limiter.leave(route.endpoint());
    }
    result
}

fn admitted(state: &mut State, request: &Incoming, route: Route, refusal: Option<ApiError>) -> Entry {
    if let Some(error) = refusal {
        return Entry::Refused(error);
    }
    let owner = match &request.account {
        None => PLATFORM,
        Some(id) if state.world.account_id(PLATFORM) == id => PLATFORM,
        Some(id) => match state.world.connected(id) {
            Some(owner) => owner,
            None => {
                return Entry::Refused(ApiError::account_invalid(request.key.as_deref().unwrap_or_default(), id));
            }
        },
    };
    let mut claimed = None;
    if request.method == "POST"
        && let Some(key) = &request.idempotency_key
    {
        if key.is_empty() || key.len() > 255 {
            return Entry::Refused(ApiError::invalid("Idempotency keys must be 1 to 255 characters long."));
        }
        let scope = state.world.account_id(owner).to_owned();
        let fingerprint = request.params.fingerprint(request.method, &request.path);
        let now_ms = state.world.now_ms;
        match state.world.keys.claim(&scope, key, fingerprint, now_ms) {
            Claim::Run => claimed = Some((scope, key.clone())),
            Claim::Replay(saved) => return Entry::Replay(saved),
            Claim::OtherParameters => return Entry::Refused(ApiError::idempotency_mismatch(key)),
            Claim::InUse => return Entry::Refused(ApiError::key_in_use(key)),
        }
    }
    Entry::Go(Entered { route, owner, claimed })
}

fn run(state: &mut State, number: usize, request: &Incoming, request_id: &str, entered: Entered, fault: Option<&Fault>) -> Reply {
    let Entered { route, owner, claimed } = entered;
    state.limiter.leave(route.endpoint());
    let account = request.account.as_deref().or(request.params.get("destination")).unwrap_or_default();
    let mut executed = false;
    let mut result = match fault.and_then(|fault| fault.instead(account)) {
        Some(error) => Err(error),
        None => {
            state.world.request = Some((request_id.to_owned(), request.idempotency_key.clone()));
            let result = route.execute(&mut state.world, owner, request.key.as_deref().unwrap_or_default(), &request.params);
            state.world.request = None;
            executed = result.is_ok();
            result
        }
    };
    if executed && fault == Some(&Fault::ExecuteThen500) {
        result = Err(ApiError::server(true));
    }
    let now_ms = state.world.now_ms;
    let (status, body, object_id, saved) = match &result {
        Ok((object_id, body)) => (200, body.clone(), object_id.clone(), true),
        Err(error) => (error.status, error.body(request_id, now_ms), None, error.saved),
    };
    if let Some((scope, key)) = &claimed {
        if saved {
            state.world.keys.save(
                scope,
                key,
                Saved { status, body: body.clone(), request_id: request_id.to_owned(), object_id: object_id.clone() },
            );
        } else {
            state.world.keys.release(scope, key);
        }
    }
    let error_code = result.as_ref().err().and_then(|error| error.code.clone());
    let unseen = matches!(fault, Some(Fault::ExecuteThenHang | Fault::ExecuteThenReset));
    let shown = match fault {
        Some(Fault::ExecuteThenHtml { status }) => *status,
        _ if unseen => 0,
        _ => status,
    };
    state.log.finish(number, |call| {
        call.status = shown;
        call.executed = executed;
        call.object_id = object_id;
        call.error_code = error_code;
    });
    let headers = match &result {
        Ok(_) => common_headers(request, request_id),
        Err(error) => error_headers(request, request_id, error),
    };
    let bent = fault.filter(|_| status < 300).and_then(|fault| fault.bend(&body));
    let answer = Answer { status, html: false, body: bent.map_or(body, Bytes::from), headers };
    match fault {
        Some(Fault::ExecuteThenHtml { status }) => Reply::Answer(html(*status)),
        Some(Fault::Truncated) => Reply::Truncated(answer),
        _ => Reply::Answer(answer),
    }
}

fn refuse(state: &mut State, number: usize, request: &Incoming, request_id: &str, error: &ApiError) -> Reply {
    state.log.finish(number, |call| {
        call.status = error.status;
        call.error_code = error.code.clone().or_else(|| Some(error.kind.to_owned()));
    });
    Reply::Answer(Answer {
        status: error.status,
        html: false,
        body: error.body(request_id, state.world.now_ms),
        headers: error_headers(request, request_id, error),
    })
}

fn common_headers(request: &Incoming, request_id: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("request-id", request_id.to_owned()),
        ("stripe-version", request.api_version.clone().unwrap_or_else(|| "2026-09-30.endive".to_owned())),
    ];
    if let Some(key) = request.idempotency_key.as_ref().filter(|_| request.method == "POST") {
        headers.push(("idempotency-key", key.clone()));
        headers.push(("original-request", request_id.to_owned()));
    }
    if let Some(account) = &request.account {
        headers.push(("stripe-account", account.clone()));
    }
    headers
}

fn error_headers(request: &Incoming, request_id: &str, error: &ApiError) -> Vec<(&'static str, String)> {
    let mut headers = common_headers(request, request_id);
    if let Some(reason) = &error.rate_limited_reason {
        headers.push(("stripe-rate-limited-reason", reason.clone()));
    }
    if let Some(seconds) = error.retry_after {
        headers.push(("retry-after", seconds.to_string()));
    }
    if error.status == 409 {
        headers.push(("stripe-should-retry", "true".to_owned()));
    }
    headers
}

fn html(status: u16) -> Answer {
    let reason = match status {
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        _ => "Gateway Time-out",
    };
    Answer {
        status,
        html: true,
        body: Bytes::from(format!(
            "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n\
             <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        )),
        headers: Vec::new(),
    }
}

fn fault_name(fault: &Fault) -> String {
    let text = format!("{fault:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// The API keys the double takes.
#[derive(Debug, Default)]
pub(super) struct ApiKeys {
    /// Empty: every well-formed key of the double's mode.
    pub known: Vec<String>,
    pub revoked: Vec<String>,
    pub read_only: Vec<String>,
    pub livemode: bool,
}

impl ApiKeys {
    fn check(&self, key: Option<&str>, method: &str) -> Result<(), ApiError> {
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return Err(ApiError::unauthorized(
                "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth \
                 (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            ));
        };
        let mode = if self.livemode { ["sk_live_", "rk_live_"] } else { ["sk_test_", "rk_test_"] };
        let known =
            mode.iter().any(|prefix| key.starts_with(prefix)) && (self.known.is_empty() || self.known.iter().any(|k| k == key));
        if self.revoked.iter().any(|k| k == key) {
            return Err(ApiError::unauthorized(format!("Expired API Key provided: {}", masked(key))).code("api_key_expired"));
        }
        if !known {
            return Err(ApiError::unauthorized(format!("Invalid API Key provided: {}", masked(key))));
        }
        if method == "POST" && self.read_only.iter().any(|k| k == key) {
            return Err(ApiError::forbidden(key));
        }
        Ok(())
    }
}
