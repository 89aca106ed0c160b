//! `account.*` and `capability.updated`: who may be paid.

use super::{Effect, Event};
use crate::db::Tx;
use crate::error::Result;
use crate::payees::{self, onboarding, store};
use crate::rails::stripe::Account;
use serde::Deserialize;

/// The account as Stripe described it when the event was made. An older description than ours changes nothing; one of the
/// same second cannot be ordered, so the account is read again.
pub async fn updated(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Ok(account) = Account::deserialize(event.object()) else { return Ok(Effect::Ignored("not an account")) };
    let at = event.created_at();
    let Some((payee, state_at)) = store::by_account(tx, &account.id).await? else {
        // Told of before the answer to its creation has come, if ever it comes.
        let Some(payee) = onboarding::owner_of_new(tx, &account).await? else { return Ok(Effect::Waiting(account.id)) };
        let said = format!("connected {} to {payee}", account.id);
        payees::describe(tx, payee, account, at).await?;
        return Ok(Effect::Applied(said));
    };
    if at < state_at {
        return Ok(Effect::Applied("older than what is known".to_owned()));
    }
    if at == state_at {
        store::mark_stale(tx, &account.id).await?;
        return Ok(Effect::Applied("to be read again: two descriptions of one second".to_owned()));
    }
    let id = account.id.clone();
    payees::describe(tx, payee, account, at).await?;
    Ok(Effect::Applied(format!("described {id}")))
}

pub async fn deauthorized(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let Some(account) = event.account.as_deref() else { return Ok(Effect::Ignored("of no connected account")) };
    if store::deauthorize(tx, account, event.created_at()).await? == 0 {
        return Ok(Effect::Waiting(account.to_owned()));
    }
    Ok(Effect::Applied(format!("deauthorized {account}")))
}

pub async fn to_be_read_again(tx: &mut Tx, event: &Event) -> Result<Effect> {
    let account = event.account.as_deref().or_else(|| event.id_at("/account"));
    let Some(account) = account else { return Ok(Effect::Ignored("of no connected account")) };
    if store::mark_stale(tx, account).await? == 0 {
        return Ok(Effect::Waiting(account.to_owned()));
    }
    Ok(Effect::Applied(format!("{account} is to be read again")))
}
