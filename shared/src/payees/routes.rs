//! How a creator connects to Stripe, and what Stripe still wants of them; `destinations` is what operators do about bank accounts.

mod destinations;

use axum::extract::State;
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::onboarding::{self, Asked};
use super::requirements::{self, Want};
use super::store::{self, Connection};
use crate::clock;
use crate::config;
use crate::error::{Error, FieldError, Kind, Result};
use crate::http::{AppState, Caller, Connect, Json, LenientJson, MIB, Problem, RequestId};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(link))
        .routes(routes!(status))
        .routes(routes!(destinations::destinations))
        .routes(routes!(destinations::confirm))
}

/// Who is to be connected. The token says whose account it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartBody {
    /// Where the creator lives or the company is: two capital letters. Fixed once the account is there.
    #[schema(example = "US")]
    country: String,
    /// What Stripe's forms begin with.
    #[schema(max_length = 320)]
    email: Option<String>,
    /// The page of the frontend to which Stripe sends back, `/` if not given.
    #[schema(example = "/settings/payouts")]
    return_path: Option<String>,
    /// The page of the frontend to which Stripe sends whoever comes by a used or old link; it should ask for another. The
    /// return path if not given.
    #[schema(example = "/settings/payouts/again")]
    refresh_path: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LinkBody {
    /// The page of the frontend to which Stripe sends back, `/` if not given.
    return_path: Option<String>,
    /// The page to which Stripe sends whoever comes by a used or old link. The return path if not given.
    refresh_path: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LinkAnswer {
    ok: bool,
    success: bool,
    #[schema(example = "acct_1")]
    account_id: String,
    /// The account was created by this request.
    created: bool,
    /// Where to send the creator. Good for one visit.
    url: String,
    expires_at: DateTime<Utc>,
    request_id: String,
}

/// How a creator stands with Stripe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StatusAnswer {
    ok: bool,
    success: bool,
    connected: bool,
    /// Stripe takes and pays out money for the account.
    ready: bool,
    account_id: Option<String>,
    #[schema(example = "US")]
    country: Option<String>,
    transfers_active: bool,
    payouts_enabled: bool,
    charges_enabled: bool,
    /// Stripe pays the account out by itself.
    automatic_payouts: bool,
    has_bank_account: bool,
    /// What is to be done at Stripe, what is overdue first.
    wants: Vec<Want>,
    /// Until when what is wanted has to be there.
    wanted_until: Option<DateTime<Utc>>,
    /// Why the account is closed, in words.
    closed_because: Option<&'static str>,
    /// After a change of the bank account payments wait until then.
    paused_until: Option<DateTime<Utc>>,
    /// The one thing to do; none: nothing.
    #[schema(example = "Connect a Stripe account.")]
    action: Option<&'static str>,
    /// When Stripe said all this.
    described_at: Option<DateTime<Utc>>,
    request_id: String,
}

/// Connect to Stripe.
///
/// Creates the caller's account at Stripe, unless there is one, and a link at which they give Stripe what it wants. Asking again is
/// safe: there is never a second account.
#[utoipa::path(
    post,
    path = "/api/connect/account",
    tag = "connect",
    security(("bearer" = [])),
    request_body = StartBody,
    responses(
        (status = 200, description = "The account, and a link.", body = LinkAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 403, description = "`FEATURE_DISABLED`: this deployment connects people elsewhere.", body = Problem),
        (status = 409, description = "`COUNTRY_FIXED`: the account is in another country.", body = Problem),
        (status = 422, description = "A field is wrong, or `STRIPE_REFUSED`: Stripe does not create such an account.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "Stripe or the database does not answer; ask again.", body = Problem),
    )
)]
async fn start(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Json(body): Json<StartBody, MIB>,
) -> Result<axum::Json<LinkAnswer>> {
    let connect = connect(&state)?;
    let pages = Pages::read(body.return_path, body.refresh_path);
    let mut wrong = pages.as_ref().err().cloned().unwrap_or_default();
    let country = config::country(&body.country);
    let mut rule = |holds: bool, field: &str, error: &str| {
        if !holds {
            wrong.push(FieldError { field: field.to_owned(), error: error.to_owned() });
        }
    };
    rule(country.is_some(), "country", "must be two capital letters like US");
    rule(body.email.as_deref().is_none_or(is_email), "email", "must be an email address");
    let (Ok(pages), Some(country), true) = (pages, country, wrong.is_empty()) else { return Err(Error::fields(wrong)) };
    let asked = Asked { payee: caller.id, country, email: body.email };
    let (account, created) = onboarding::start(&state.db, connect, &asked).await?;
    answer(connect, account, created, &pages, request_id).await
}

/// Another link to Stripe.
///
/// A link is good for one visit and some minutes. The body may be empty.
#[utoipa::path(
    post,
    path = "/api/connect/link",
    tag = "connect",
    security(("bearer" = [])),
    request_body(content = Option<LinkBody>, description = "May be empty."),
    responses(
        (status = 200, description = "The link.", body = LinkAnswer),
        (status = 400, description = "Not JSON.", body = Problem),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 403, description = "`FEATURE_DISABLED`: this deployment connects people elsewhere.", body = Problem),
        (status = 404, description = "The caller has no account yet; `POST /api/connect/account` makes one.", body = Problem),
        (status = 422, description = "A path is none of the frontend's.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "Stripe or the database does not answer; ask again.", body = Problem),
    )
)]
async fn link(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    LenientJson(body): LenientJson<LinkBody>,
) -> Result<axum::Json<LinkAnswer>> {
    let connect = connect(&state)?;
    let pages = Pages::read(body.return_path, body.refresh_path).map_err(Error::fields)?;
    let mut tx = state.db.begin().await?;
    let connected = store::connected(&mut tx, caller.id).await?;
    drop(tx);
    let (account, _) = connected.ok_or_else(|| Error::not_found("Your Stripe account"))?;
    answer(connect, account, false, &pages, request_id).await
}

/// How the caller stands with Stripe: ready or not, and what Stripe still wants, in words.
#[utoipa::path(
    get,
    path = "/api/connect/status",
    tag = "connect",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "How it stands, as Stripe last said.", body = StatusAnswer),
        (status = 401, description = "No or a wrong token.", body = Problem),
        (status = 429, description = "Too many requests; `Retry-After` says when to come back.", body = Problem),
        (status = 503, description = "The database does not answer; ask again.", body = Problem),
    )
)]
async fn status(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
) -> Result<axum::Json<StatusAnswer>> {
    let mut tx = state.db.begin().await?;
    let known = store::connection(&mut tx, caller.id).await?;
    drop(tx);
    let cooloff = Duration::hours(state.policy.destination_cooloff_hours);
    Ok(axum::Json(told(known, cooloff, clock::now(), request_id)))
}

fn told(known: Option<Connection>, cooloff: Duration, now: DateTime<Utc>, request_id: String) -> StatusAnswer {
    let connection = known.filter(|it| it.account.is_some() && it.deauthorized_at.is_none());
    let Some(it) = connection else {
        return StatusAnswer {
            ok: true,
            success: true,
            connected: false,
            ready: false,
            account_id: None,
            country: None,
            transfers_active: false,
            payouts_enabled: false,
            charges_enabled: false,
            automatic_payouts: false,
            has_bank_account: false,
            wants: Vec::new(),
            wanted_until: None,
            closed_because: None,
            paused_until: None,
            action: Some("Connect a Stripe account."),
            described_at: None,
            request_id,
        };
    };
    let wants = requirements::wants(&it.requirements);
    let paused_until = it.destination_changed_at.map(|changed_at| changed_at + cooloff).filter(|until| *until > now);
    let action = match (it.ready, wants.is_empty()) {
        (true, true) => None,
        (_, false) => Some("Follow a link from POST /api/connect/link and finish what Stripe asks for."),
        (false, true) => Some("Nothing: Stripe is looking at what was given."),
    };
    StatusAnswer {
        ok: true,
        success: true,
        connected: true,
        ready: it.ready,
        account_id: it.account,
        country: it.country,
        transfers_active: it.transfers_active,
        payouts_enabled: it.payouts_enabled,
        charges_enabled: it.charges_enabled,
        automatic_payouts: it.automatic,
        has_bank_account: it.has_destination,
        wanted_until: it.requirements.current_deadline.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        closed_because: requirements::why_closed(&it.requirements),
        wants,
        paused_until,
        action,
        described_at: it.described_at,
        request_id,
    }
}

fn connect(state: &AppState) -> Result<&Connect> {
    let off = || Error::new(Kind::Forbidden, "FEATURE_DISABLED", "Accounts are connected elsewhere; ask the platform's support.");
    state.connect.as_ref().ok_or_else(off)
}

async fn answer(
    connect: &Connect,
    account_id: String,
    created: bool,
    pages: &Pages,
    request_id: String,
) -> Result<axum::Json<LinkAnswer>> {
    let link = onboarding::link(connect, &account_id, &pages.refresh, &pages.back).await?;
    let expires_at = DateTime::from_timestamp(link.expires_at, 0).unwrap_or_default();
    Ok(axum::Json(LinkAnswer { ok: true, success: true, account_id, created, url: link.url, expires_at, request_id }))
}

/// Pages of the frontend.
struct Pages {
    back: String,
    refresh: String,
}

impl Pages {
    fn read(back: Option<String>, refresh: Option<String>) -> Result<Self, Vec<FieldError>> {
        let wrong: Vec<FieldError> = [("returnPath", &back), ("refreshPath", &refresh)]
            .into_iter()
            .filter(|(_, path)| path.as_deref().is_some_and(|path| !is_path(path)))
            .map(|(field, _)| FieldError { field: field.to_owned(), error: "must be a path like /settings/payouts".to_owned() })
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let back = back.unwrap_or_else(|| "/".to_owned());
        Ok(Self { refresh: refresh.unwrap_or_else(|| back.clone()), back })
    }
}

/// A path of the frontend, which cannot lead elsewhere once it stands behind its address.
fn is_path(path: &str) -> bool {
    path.len() <= 500
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn is_email(text: &str) -> bool {
    let plain = text.len() <= 320 && text.chars().all(|letter| !letter.is_control() && !letter.is_whitespace());
    plain && text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_frontend_are_taken() {
        for path in ["/", "/settings/payouts?tab=bank#top"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "settings", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", "/a\nb", "/ü"] {
            assert!(!is_path(path), "{path:?}");
        }
    }
}
