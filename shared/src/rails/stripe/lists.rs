//! Stripe's lists, a page of 100 at a time, newest first: what reconciliation compares with.
//!
//! An object is read field by field. One of a shape that nobody foresaw is left out and counted; it must not keep the page, and
//! with it the whole comparison, from being read.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde_json::Value;
use stripe_client_core::{RequestBuilder, StripeRequest};
use stripe_connect::transfer::ListTransfer;
use stripe_core::event::ListEvent;
use stripe_core::payout::ListPayout;
use stripe_types::{RangeBoundsTs, RangeQueryTs};

use super::{List, Stripe};
use crate::boundary::Boundary;
use crate::error::Result;

/// So many objects come with one page at most.
const PAGE: i64 = 100;

/// A page of a list.
#[derive(Debug)]
pub struct ListPage<T> {
    pub objects: Vec<T>,
    /// Objects that could not be read.
    pub unreadable: usize,
    /// The last object's id, to go on after; none: this was the last page.
    pub next: Option<String>,
}

/// A transfer or a payout as a list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub stripe_id: String,
    pub amount_minor: i64,
    /// Lower-case code.
    pub currency: String,
    /// The connected account: a transfer's destination. A payout does not name the account it was listed for.
    pub account: Option<String>,
    /// Of a payout.
    pub status: Option<String>,
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
    pub arrival_on: Option<NaiveDate>,
    /// Of a transfer: minor units that came back.
    pub reversed_minor: i64,
    /// The marks that we put on our objects: of the operation, else of the item.
    pub operation_mark: Option<String>,
    pub item_mark: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    id: String,
    amount: i64,
    currency: String,
    #[serde(default)]
    destination: Value,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    failure_code: Option<String>,
    #[serde(default)]
    failure_message: Option<String>,
    #[serde(default)]
    arrival_date: Option<i64>,
    #[serde(default)]
    amount_reversed: i64,
    #[serde(default)]
    transfer_group: Option<String>,
    #[serde(default)]
    metadata: Value,
}

impl From<Fields> for Object {
    fn from(it: Fields) -> Self {
        let mark = |name: &str| it.metadata.get(name).and_then(Value::as_str).map(str::to_owned);
        let arrival = it.arrival_date.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        Self {
            account: it.destination.as_str().or_else(|| it.destination.get("id")?.as_str()).map(str::to_owned),
            operation_mark: mark("operation_id"),
            item_mark: mark("item_id").or_else(|| it.transfer_group.clone()),
            stripe_id: it.id,
            amount_minor: it.amount,
            currency: it.currency.to_ascii_lowercase(),
            status: it.status,
            failure_code: it.failure_code,
            failure_message: it.failure_message,
            arrival_on: arrival.map(|at| at.date_naive()),
            reversed_minor: it.amount_reversed,
        }
    }
}

impl Stripe {
    /// The platform's own events of these types since an instant. Stripe keeps them for 30 days. Events of connected accounts are
    /// in a list of each account's own. [docs.stripe.com/api/events/list]
    pub async fn events(&self, types: &[&str], since: DateTime<Utc>, after: Option<&str>) -> Result<ListPage<Value>> {
        let types: Vec<String> = types.iter().map(|kind| (*kind).to_owned()).collect();
        let mut list = ListEvent::new().types(types).created(from(since)).limit(PAGE);
        if let Some(after) = after {
            list = list.starting_after(after);
        }
        self.page(Boundary::ListEvents, &list.build(), None).await
    }

    /// The platform's transfers since an instant.
    pub async fn transfers(&self, since: DateTime<Utc>, after: Option<&str>) -> Result<ListPage<Object>> {
        let mut list = ListTransfer::new().created(from(since)).limit(PAGE);
        if let Some(after) = after {
            list = list.starting_after(after);
        }
        self.objects(Boundary::ListTransfers, &list.build(), None).await
    }

    /// A connected account's payouts since an instant.
    pub async fn payouts(&self, account: &str, since: DateTime<Utc>, after: Option<&str>) -> Result<ListPage<Object>> {
        let mut list = ListPayout::new().created(from(since)).limit(PAGE);
        if let Some(after) = after {
            list = list.starting_after(after);
        }
        self.objects(Boundary::ListPayouts, &list.build(), Some(account)).await
    }

    async fn objects(&self, boundary: Boundary, request: &RequestBuilder, account: Option<&str>) -> Result<ListPage<Object>> {
        let page = self.page(boundary, request, account).await?;
        let count = page.objects.len();
        let objects: Vec<Object> =
            page.objects.into_iter().filter_map(|object| Fields::deserialize(object).ok()).map(Object::from).collect();
        Ok(ListPage { unreadable: page.unreadable + count - objects.len(), objects, next: page.next })
    }

    async fn page(&self, boundary: Boundary, request: &RequestBuilder, account: Option<&str>) -> Result<ListPage<Value>> {
        let page: List<Value> = self.read(boundary, request, account).await?;
        let id = |object: &Value| object.get("id").and_then(Value::as_str).map(str::to_owned);
        let next = page.data.iter().rev().find_map(id).filter(|_| page.has_more);
        let count = page.data.len();
        let objects: Vec<Value> = page.data.into_iter().filter(|object| id(object).is_some()).collect();
        Ok(ListPage { unreadable: count - objects.len(), objects, next })
    }
}

fn from(since: DateTime<Utc>) -> RangeQueryTs {
    RangeQueryTs::Bounds(RangeBoundsTs { gte: Some(since.timestamp()), ..RangeBoundsTs::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_read_whether_its_destination_is_named_or_spelled_out() {
        for destination in [json!("acct_1"), json!({ "id": "acct_1", "object": "account" })] {
            let transfer = json!({
                "id": "tr_1", "object": "transfer", "amount": 700, "currency": "USD", "destination": destination, "amount_reversed": 200,
                "transfer_group": "i-7", "metadata": { "operation_id": "i-7-transfer-1", "of_somebody_else": "x" },
            });
            let object = Object::from(Fields::deserialize(transfer).expect("a transfer"));
            assert_eq!(
                (object.account.as_deref(), object.currency.as_str(), object.reversed_minor),
                (Some("acct_1"), "usd", 200)
            );
            assert_eq!((object.operation_mark.as_deref(), object.item_mark.as_deref()), (Some("i-7-transfer-1"), Some("i-7")));
        }
        let bare = json!({ "id": "po_1", "amount": 5, "currency": "eur", "metadata": null, "arrival_date": i64::MAX });
        let object = Object::from(Fields::deserialize(bare).expect("a payout"));
        assert_eq!((object.account, object.operation_mark, object.arrival_on), (None, None, None));
        assert!(Fields::deserialize(json!({ "id": "po_2", "amount": "5", "currency": "eur" })).is_err());
    }
}
