//! What Stripe says of the accounts in a file: in pages of 100, the missing ones singly.

use std::collections::HashMap;
use std::time::Duration;

use payday::error::{Error, Kind};
use payday::payees::NewPayee;
use payday::rails::stripe::{Account, Stripe};
use uuid::Uuid;

use super::Failure;

/// Each payee's account as Stripe describes it. An account that Stripe does not know is the file's fault.
pub async fn describe(stripe: &Stripe, people: &[(u64, NewPayee)]) -> Result<Vec<(Uuid, Account)>, Failure> {
    let mut wanted: HashMap<&str, (u64, Uuid)> =
        people.iter().filter_map(|(line, payee)| Some((payee.account.as_deref()?, (*line, payee.id)))).collect();
    let mut described = Vec::with_capacity(wanted.len());
    let mut after: Option<String> = None;
    // A page costs as much as a single account, so there are never more pages than accounts asked for.
    let mut pages = wanted.len();
    while !wanted.is_empty() && pages > 0 {
        pages -= 1;
        let (page, more) = patiently(async || stripe.accounts(after.as_deref()).await).await?;
        after = page.last().map(|account| account.id.clone());
        for account in page {
            if let Some((_, payee)) = wanted.remove(account.id.as_str()) {
                described.push((payee, account));
            }
        }
        if !more || after.is_none() {
            break;
        }
    }
    let mut unknown = Vec::new();
    for (id, (line, payee)) in wanted {
        match patiently(async || stripe.account(id).await).await? {
            Some(account) => described.push((payee, account)),
            None => unknown.push((line, id)),
        }
    }
    if unknown.is_empty() {
        return Ok(described);
    }
    unknown.sort_unstable();
    let lines: Vec<String> =
        unknown.iter().take(20).map(|(line, id)| format!("\n  line {line}: stripe_account: Stripe does not know {id}")).collect();
    Err(Failure::Use(format!(
        "The accounts file names {} account(s) that Stripe does not know under this key; nothing was imported.{}",
        unknown.len(),
        lines.concat()
    )))
}

/// Waits out a rate limit; everything else is told at once.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Failure> {
    for _ in 0..30 {
        match ask().await {
            Err(error) if matches!(error.kind, Kind::RateLimited { .. }) => tokio::time::sleep(Duration::from_secs(1)).await,
            other => return Ok(other?),
        }
    }
    Ok(ask().await?)
}
