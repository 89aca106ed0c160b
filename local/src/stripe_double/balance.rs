//! Reading the books: `GET /v1/balance`, `/v1/balance_transactions`, `/v1/events`. Without a
//! `Stripe-Account` header they are the platform's own; a connected account's are asked for in its name.
//! <https://docs.stripe.com/api/balance>, <https://docs.stripe.com/api/events>

use std::collections::BTreeMap;

use hyper::body::Bytes;
use serde::Serialize;

use super::currency::Currency;
use super::errors::ApiError;
use super::form::Params;
use super::lists::{Listing, json};
use super::objects::event_body;
use super::world::{Funds, Owner, World};

/// "List events, going back up to 30 days."
const EVENTS_KEPT_SECONDS: i64 = 30 * 86_400;

#[derive(Serialize)]
struct BalanceView {
    object: &'static str,
    available: Vec<Amount>,
    livemode: bool,
    pending: Vec<Amount>,
}

#[derive(Serialize)]
struct Amount {
    amount: i64,
    currency: Currency,
    source_types: SourceTypes,
}

#[derive(Serialize)]
struct SourceTypes {
    card: i64,
}

impl World {
    pub(super) fn balance(&self, owner: Owner) -> Bytes {
        let account = &self.accounts[owner];
        let mut all: BTreeMap<Currency, Funds> = account.balances.clone();
        if let Some(currency) = Currency::parse(&account.spec.default_currency) {
            all.entry(currency).or_default();
        }
        let list = |part: fn(&Funds) -> i64| {
            all.iter()
                .map(|(currency, funds)| Amount {
                    amount: part(funds),
                    currency: *currency,
                    source_types: SourceTypes { card: part(funds) },
                })
                .collect()
        };
        json(&BalanceView {
            object: "balance",
            available: list(|f| f.available),
            livemode: self.settings.livemode,
            pending: list(|f| f.pending),
        })
    }

    pub(super) fn list_txns(&self, owner: Owner, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["created", "currency", "ending_before", "limit", "payout", "source", "starting_after", "type"])?;
        let created = params.range("created")?;
        let (currency, source, kind) = (params.get("currency"), params.get("source"), params.get("type"));
        let payout = params.get("payout").map(|id| self.find_payout(owner, id)).transpose()?;
        if payout.is_some_and(|index| !self.payouts[index].automatic) {
            return Err(ApiError::refused(
                "",
                "Balance transaction history can only be filtered on automatic payouts, not manual.",
            )
            .param("payout"));
        }
        let own = &self.accounts[owner].txns;
        Listing {
            url: "/v1/balance_transactions",
            what: "balance transaction",
            len: own.len(),
            nth: |i: usize| own[i],
            number_of: |id: &str| self.txn_index.get(id).copied(),
        }
        .page(
            params,
            |index| {
                let t = &self.txns[index];
                created.holds(t.created_ms.div_euclid(1000))
                    && currency.is_none_or(|c| t.currency.as_str() == c)
                    && source.is_none_or(|s| t.source == s)
                    && kind.is_none_or(|k| t.kind == k)
                    && payout.is_none_or(|p| t.payout == Some(p) || self.payouts[p].balance_transaction == t.id)
            },
            |index| self.txn_view(index),
        )
    }

    pub(super) fn find_txn(&self, owner: Owner, id: &str) -> Result<Bytes, ApiError> {
        self.txn_index
            .get(id)
            .filter(|index| self.txns[**index].owner == owner)
            .map(|index| json(&self.txn_view(*index)))
            .ok_or_else(|| ApiError::no_such("balance transaction", id))
    }

    pub(super) fn list_events(&self, owner: Owner, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["created", "delivery_success", "ending_before", "limit", "starting_after", "type", "types"])?;
        let created = params.range("created")?;
        let one = params.get("type");
        let many: Vec<&str> = params.array("types").collect();
        if one.is_some() && !many.is_empty() {
            return Err(
                ApiError::invalid("You may only specify one of these parameters: type, types.").code("parameters_exclusive")
            );
        }
        if many.len() > 20 {
            return Err(ApiError::invalid("You may specify up to 20 types.").param("types"));
        }
        let oldest = self.now_ms.div_euclid(1000) - EVENTS_KEPT_SECONDS;
        let own = &self.accounts[owner].events;
        Listing {
            url: "/v1/events",
            what: "event",
            len: own.len(),
            nth: |i: usize| own[i],
            number_of: |id: &str| self.event_index.get(id).copied(),
        }
        .page(
            params,
            |index| {
                let event = &self.events[index];
                event.created >= oldest
                    && created.holds(event.created)
                    && one.is_none_or(|pattern| kind_matches(pattern, &event.kind))
                    && (many.is_empty() || many.contains(&event.kind.as_str()))
            },
            |index| self.event_view(&self.events[index]),
        )
    }

    pub(super) fn find_event(&self, owner: Owner, id: &str) -> Result<Bytes, ApiError> {
        let oldest = self.now_ms.div_euclid(1000) - EVENTS_KEPT_SECONDS;
        self.event_index
            .get(id)
            .map(|index| &self.events[*index])
            .filter(|event| event.owner == owner && event.created >= oldest)
            .map(|event| Bytes::from(event_body(event)))
            .ok_or_else(|| ApiError::no_such("event", id))
    }
}

/// "A string containing a specific event name, or group of events using * as a wildcard."
fn kind_matches(pattern: &str, kind: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == kind, |start| kind.starts_with(start))
}
