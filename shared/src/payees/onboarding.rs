//! A payee is connected to Stripe: a connected account is created for them, once, and they are sent to Stripe to give it what
//! it wants. What Stripe says of the account afterwards comes by events.
//!
//! The key and the bytes of the creation are committed before they are sent. So whoever asks again, at once or after the answer
//! was lost, finds the same account. Stripe forgets a key after a day: from then on the account is looked for by its mark first.

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use super::{describe, store};
use crate::boundary::Boundary;
use crate::clock;
use crate::db::{Db, Tx};
use crate::error::{Error, Kind, Result};
use crate::http::Connect;
use crate::rails::stripe::{Account, AccountLink, Created, NewAccount};

/// Within this time of the first send Stripe still knows the key.
const REPLAY_HOURS: i64 = 23;

/// What a payee says of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub payee: Uuid,
    /// Two capital letters.
    pub country: String,
    pub email: Option<String>,
}

/// A creation under way: what is sent.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Request {
    pub attempt: i32,
    pub idempotency_key: String,
    pub request_body: String,
    pub country: String,
    pub state: String,
    pub look_up: bool,
    pub first_sent_at: DateTime<Utc>,
}

/// The payee's connected account, created if there is none. `true`: it is new.
pub async fn start(db: &Db, connect: &Connect, asked: &Asked) -> Result<(String, bool)> {
    let mut tx = db.begin().await?;
    store::make_payee(&mut tx, asked.payee, asked.email.as_deref()).await?;
    if let Some((account, country)) = store::connected(&mut tx, asked.payee).await? {
        same_country(country.as_deref(), asked)?;
        tx.commit(Boundary::RequestAccount).await?;
        return Ok((account, false));
    }
    let mark = mark(&mut tx, asked.payee).await?;
    let request = match store::account_request(&mut tx, asked.payee).await? {
        Some(open) if open.state == "open" => open,
        last => new_request(&mut tx, connect, asked, &mark, last.map_or(1, |last| last.attempt + 1)).await?,
    };
    tx.commit(Boundary::RequestAccount).await?;
    same_country(Some(&request.country), asked)?;

    let account = match look_up(db, connect, asked.payee, &mark, &request).await? {
        Some(account) => account,
        None => create(db, connect, asked.payee, &request).await?,
    };
    Ok((account, true))
}

fn same_country(country: Option<&str>, asked: &Asked) -> Result<()> {
    match country {
        Some(country) if country != asked.country => {
            let message = format!("Your account is in {country}, and Stripe never moves an account to another country.");
            Err(Error::conflict("COUNTRY_FIXED", message))
        }
        _ => Ok(()),
    }
}

/// `{instance}-{payee}`: what an account of ours is known by, whoever tells of it.
async fn mark(tx: &mut Tx, payee: Uuid) -> Result<String> {
    Ok(format!("{}-{payee}", store::instance(tx).await?))
}

async fn new_request(tx: &mut Tx, connect: &Connect, asked: &Asked, mark: &str, attempt: i32) -> Result<Request> {
    let new =
        NewAccount { platform_country: &connect.platform_country, country: &asked.country, email: asked.email.as_deref(), mark };
    // The first key is the same for ever; another one exists only after Stripe has refused, or after the account has left.
    let first = format!("payday:{}:account:{}", store::instance(tx).await?, asked.payee);
    let request = Request {
        attempt,
        idempotency_key: if attempt == 1 { first } else { format!("{first}:{attempt}") },
        request_body: new.body(),
        country: asked.country.clone(),
        state: "open".to_owned(),
        look_up: false,
        first_sent_at: clock::now(),
    };
    store::save_account_request(tx, asked.payee, &request).await?;
    Ok(request)
}

/// Looks for an account whose creation cannot be sent again or would not tell. Not found, the key is good for another day.
async fn look_up(db: &Db, connect: &Connect, payee: Uuid, mark: &str, request: &Request) -> Result<Option<String>> {
    let now = clock::now();
    let is_forgotten = now >= request.first_sent_at + Duration::hours(REPLAY_HOURS);
    if !is_forgotten && !request.look_up {
        return Ok(None);
    }
    let found = connect.stripe.find_account(mark, request.first_sent_at).await.map_err(for_the_payee)?;
    if let Some(account) = found {
        return adopt(db, payee, account, now).await.map(Some);
    }
    let mut tx = db.begin().await?;
    store::sends_again(&mut tx, payee, if is_forgotten { now } else { request.first_sent_at }).await?;
    tx.commit(Boundary::RequestAccount).await?;
    Ok(None)
}

async fn create(db: &Db, connect: &Connect, payee: Uuid, request: &Request) -> Result<String> {
    let at = clock::now();
    match connect.stripe.create_account(&request.idempotency_key, &request.request_body).await {
        Ok(Created::Account(account)) => adopt(db, payee, *account, at).await,
        Ok(Created::Refused { code, message }) => {
            let mut tx = db.begin().await?;
            store::account_refused(&mut tx, payee, request.attempt, code.as_deref(), &message).await?;
            tx.commit(Boundary::RequestAccount).await?;
            tracing::warn!(%payee, code, "stripe refuses to create an account");
            Err(Error::invalid("STRIPE_REFUSED", format!("Stripe does not create the account: {message}")))
        }
        Err(error) => {
            // A failure of Stripe's is kept under the key and comes back with it: next time, look first.
            let mut tx = db.begin().await?;
            store::look_up_account(&mut tx, payee).await?;
            tx.commit(Boundary::RequestAccount).await?;
            Err(for_the_payee(error))
        }
    }
}

/// The account is there and is the payee's.
async fn adopt(db: &Db, payee: Uuid, account: Account, at: DateTime<Utc>) -> Result<String> {
    let id = account.id.clone();
    let mut tx = db.begin().await?;
    // Whoever asks meanwhile sees all of it or nothing: with the request closed and no account there, they would make another.
    store::lock_payee(&mut tx, payee).await?;
    store::account_created(&mut tx, payee).await?;
    describe(&mut tx, payee, account, at).await?;
    tx.commit(Boundary::DescribeAccount).await?;
    tracing::info!(%payee, account = id, "connected");
    Ok(id)
}

/// The payee whose account this is, if its creation is still in doubt: told by its mark, when an event or a list tells of it before
/// an answer did.
pub async fn owner_of_new(tx: &mut Tx, account: &Account) -> Result<Option<Uuid>> {
    let Some((instance, payee)) = account.mark().and_then(|mark| mark.split_once('-')) else { return Ok(None) };
    let Ok(payee) = payee.parse::<Uuid>() else { return Ok(None) };
    store::lock_payee(tx, payee).await?;
    if store::instance(tx).await? != instance || store::connected(tx, payee).await?.is_some() {
        return Ok(None);
    }
    let open = store::account_created(tx, payee).await?;
    Ok(open.then_some(payee))
}

/// A new link to Stripe for the payee; `refresh` and `back` are pages of the frontend.
pub async fn link(connect: &Connect, account: &str, refresh: &str, back: &str) -> Result<AccountLink> {
    let page = |path: &str| format!("{}{path}", connect.frontend);
    connect.stripe.account_link(account, &page(refresh), &page(back)).await.map_err(for_the_payee)
}

/// What of a failure at Stripe concerns whoever asks.
fn for_the_payee(error: Error) -> Error {
    match error.kind {
        Kind::Conflict | Kind::RateLimited { .. } => error,
        Kind::Forbidden => {
            tracing::error!(error = %error, "stripe refuses STRIPE_CONNECT_KEY");
            Error::unavailable("STRIPE_UNAVAILABLE", "Stripe cannot be asked now; the platform has to look into it.")
                .with_source(error)
        }
        _ => Error::unavailable("STRIPE_UNAVAILABLE", "Stripe does not answer now; ask again, nothing is done twice.")
            .with_source(error),
    }
}
