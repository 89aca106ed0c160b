//! One page after the other: asked of Stripe, compared, made good where news were missed, and saved.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use serde::Deserialize;

use super::compare::{self, Kind, Ours, Verdict};
use super::store::{self, DueAccount};
use super::{Finding, LAST_LOOK_AFTER, Reconciler, Standing, Totals};
use crate::boundary::Boundary;
use crate::clock;
use crate::error::{self, Result};
use crate::id::OperationId;
use crate::payouts::news::PayoutNews;
use crate::rails::Leg;
use crate::rails::stripe::Object;
use crate::stripe_events::{self, Effect, Event, Received};
use crate::telemetry::{Metric, metric};

/// Accounts found by one statement, which reads all payouts.
const ACCOUNTS_FOUND: i64 = 10_000;
/// Accounts asked and saved together, so many of them at once.
const ACCOUNTS_SAVED: usize = 25;
const ACCOUNTS_AT_ONCE: usize = 8;
/// Pages of one account's payouts.
const MOST_PAGES: i64 = 20;

/// What the comparison of some objects came to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    findings: Vec<Finding>,
    /// What was looked at, so that what was found there before and not now is resolved.
    subjects: Vec<String>,
    settled: Vec<OperationId>,
    totals: Vec<Totals>,
}

/// What an account answered.
struct Asked {
    account: DueAccount,
    /// None: it cannot be asked any more.
    payouts: Option<Vec<Object>>,
    /// These are all that it has made since.
    all: bool,
}

impl Reconciler {
    /// Takes in the platform's events that no webhook brought.
    pub(super) async fn page_of_events(&self, it: &mut Standing) -> Result<()> {
        self.pace.turn().await;
        let page = self.stripe.events(&stripe_events::OF_THE_PLATFORM, it.since, it.cursor.as_deref()).await?;
        it.reads += 1;
        unreadable(page.unreadable);
        let ids = page.objects.iter().filter_map(|event| event["id"].as_str()).map(str::to_owned).collect();
        let mut tx = self.db.begin().await?;
        let missed = stripe_events::store::not_received(&mut tx, ids).await?;
        drop(tx);
        for payload in page.objects.iter().filter(|event| missed.iter().any(|id| event["id"] == id.as_str())) {
            let Ok(event) = Event::deserialize(payload) else {
                unreadable(1);
                continue;
            };
            tracing::warn!(event = event.id, kind = event.kind, "no webhook brought this event");
            match stripe_events::take_in(&self.db, &self.policy, &event, payload).await {
                Ok(received) => it.events_missed += i64::from(received == Received::New),
                Err(error) if error.is_transient() => return Err(error),
                // One that fits nothing must not keep the others out; it is asked for again tomorrow.
                Err(error) => tracing::error!(event = event.id, error = %error, causes = error.causes(), "event not taken in"),
            }
        }
        it.goes_on(page.next);
        let tx = self.db.begin().await?;
        self.save(tx, it).await
    }

    pub(super) async fn page_of_transfers(&self, it: &mut Standing) -> Result<()> {
        self.pace.turn().await;
        let page = self.stripe.transfers(it.since, it.cursor.as_deref()).await?;
        it.reads += 1;
        unreadable(page.unreadable);
        let objects = page.objects.into_iter().map(|object| (object.account.clone().unwrap_or_default(), object)).collect();
        let compared = self.compare(it, Leg::Transfer, objects).await?;
        it.goes_on(page.next);
        self.save_compared(it, Leg::Transfer, compared).await
    }

    /// Asks the next accounts whose payouts are due.
    pub(super) async fn some_accounts(&self, it: &mut Standing, due: &mut VecDeque<DueAccount>) -> Result<()> {
        if due.is_empty() {
            let mut tx = self.db.begin().await?;
            let (now, after) = (clock::now(), it.cursor.as_deref());
            due.extend(store::due_accounts(&mut tx, after, now.date_naive(), now - LAST_LOOK_AFTER, ACCOUNTS_FOUND).await?);
        }
        let some: Vec<DueAccount> = due.drain(..due.len().min(ACCOUNTS_SAVED)).collect();
        let last = some.last().map(|it| it.account.clone());
        let asked: Vec<Result<(i64, Asked)>> =
            futures::stream::iter(some).map(|account| self.ask(account)).buffer_unordered(ACCOUNTS_AT_ONCE).collect().await;
        let mut objects = Vec::new();
        let mut compared = Compared::default();
        for asked in asked {
            let (reads, Asked { account, payouts, all }) = asked?;
            it.reads += reads;
            compared.subjects.push(account.account.clone());
            match payouts {
                Some(payouts) => {
                    if all {
                        compared.findings.extend(absent(&account, &payouts));
                    }
                    compared.subjects.extend(account.operations.iter().map(|id| format!("operation {id}")));
                    objects.extend(payouts.into_iter().map(|payout| (account.account.clone(), payout)));
                }
                None => compared.findings.push(gone(&account)),
            }
        }
        let of_objects = self.compare(it, Leg::Payout, objects).await?;
        compared.add(of_objects);
        it.goes_on(last);
        self.save_compared(it, Leg::Payout, compared).await
    }

    async fn ask(&self, account: DueAccount) -> Result<(i64, Asked)> {
        // Clocks differ a little; five minutes cost nothing.
        let since = account.since - chrono::Duration::minutes(5);
        let (mut payouts, mut after, mut reads) = (Vec::new(), None, 0);
        while reads < MOST_PAGES {
            self.pace.turn().await;
            reads += 1;
            let page = match self.stripe.payouts(&account.account, since, after.as_deref()).await {
                Ok(page) => page,
                Err(error) if error.is_transient() || error.kind == error::Kind::Forbidden => return Err(error),
                // It is not ours any more, or nothing that can be asked; the others still are.
                Err(error) => {
                    tracing::warn!(account = account.account, error = %error, "the account's payouts could not be listed");
                    return Ok((reads, Asked { account, payouts: None, all: false }));
                }
            };
            unreadable(page.unreadable);
            payouts.extend(page.objects);
            after = page.next;
            if after.is_none() {
                return Ok((reads, Asked { account, payouts: Some(payouts), all: true }));
            }
        }
        tracing::error!(account = account.account, "it has made too many payouts to look through");
        Ok((reads, Asked { account, payouts: Some(payouts), all: false }))
    }

    /// Compares objects with our operations. Where Stripe knows more, its news are applied as a webhook's, and compared again.
    async fn compare(&self, it: &mut Standing, leg: Leg, objects: Vec<(String, Object)>) -> Result<Compared> {
        let today = clock::now().date_naive();
        let mut ours = self.operations_of(leg, &objects).await?;
        let mut told = 0;
        for (account, object) in &objects {
            let verdict = compare::compare(leg, object, account, ours.get(&object.stripe_id), &it.instance, today);
            if verdict == Verdict::News {
                self.tell(leg, object).await?;
                told += 1;
            }
        }
        if told > 0 {
            ours = self.operations_of(leg, &objects).await?;
        }
        let mut compared = Compared::default();
        for (account, object) in objects {
            let known = ours.get(&object.stripe_id);
            let mut finding = |kind: Kind, expected: String, found: String| {
                compared.findings.push(Finding {
                    kind,
                    subject: object.stripe_id.clone(),
                    payee: known.map(|ours| ours.payee),
                    item: known.map(|ours| ours.item),
                    account: Some(account.clone()),
                    expected,
                    found,
                });
            };
            match compare::compare(leg, &object, &account, known, &it.instance, today) {
                Verdict::Foreign => continue,
                Verdict::Agrees { settled } => compared.settled.extend(known.filter(|_| settled).map(|ours| ours.operation)),
                Verdict::News => {
                    told -= 1;
                    let state = known.map_or("unknown", |ours| ours.state.as_str());
                    finding(
                        Kind::StatusDiffers,
                        format!("an attempt that is {state}"),
                        "news that could not be applied".to_owned(),
                    );
                }
                Verdict::Differs { kind, expected, found } => finding(kind, expected, found),
            }
            compared.subjects.push(object.stripe_id.clone());
            compared.totals.push(Totals {
                operation: known.map(|ours| ours.operation),
                currency: object.currency.clone(),
                minor: counted(leg, &object),
            });
        }
        it.mended += told;
        Ok(compared)
    }

    async fn operations_of(&self, leg: Leg, objects: &[(String, Object)]) -> Result<BTreeMap<String, Ours>> {
        let ids = objects.iter().map(|(_, object)| object.stripe_id.clone()).collect();
        let marks = objects.iter().map(|(_, object)| object.operation_mark.clone()).collect();
        let mut tx = self.db.begin().await?;
        Ok(store::ours(&mut tx, leg, ids, marks).await?.into_iter().collect())
    }

    /// Applies what Stripe says of an object, as its webhook would have.
    async fn tell(&self, leg: Leg, object: &Object) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let mark = object.operation_mark.as_deref();
        let told = match leg {
            Leg::Transfer => stripe_events::transfer_is_reversed(&mut tx, &object.stripe_id, mark, object.reversed_minor).await,
            Leg::Payout => stripe_events::payout_is(&mut tx, mark, news_of(object)).await,
        };
        match told {
            Ok(Effect::Applied(said)) => {
                tx.commit(Boundary::ApplyMissedNews).await?;
                tracing::warn!(stripe_id = object.stripe_id, said, "no webhook told of this");
                Ok(())
            }
            Ok(Effect::Ignored(_) | Effect::Waiting(_)) => Ok(()),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::error!(stripe_id = object.stripe_id, error = %error, "news that fit nothing");
                Ok(())
            }
        }
    }

    async fn save_compared(&self, it: &mut Standing, leg: Leg, compared: Compared) -> Result<()> {
        let mut tx = self.db.begin().await?;
        store::record(&mut tx, it, &compared.findings).await?;
        store::resolve_compared(&mut tx, &compared.subjects, &compared.findings).await?;
        store::settled(&mut tx, compared.settled, clock::now() - LAST_LOOK_AFTER).await?;
        store::add_up(&mut tx, it, leg, &compared.totals).await?;
        self.tell_people(&mut tx, it, false).await?;
        self.save(tx, it).await
    }
}

impl Compared {
    fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.subjects.extend(other.subjects);
        self.settled.extend(other.settled);
        self.totals.extend(other.totals);
    }
}

/// What an object adds to Stripe's sum.
fn counted(leg: Leg, object: &Object) -> i64 {
    match (leg, object.status.as_deref()) {
        (Leg::Transfer, _) => object.amount_minor - object.reversed_minor,
        (Leg::Payout, Some("paid")) => object.amount_minor,
        (Leg::Payout, _) => 0,
    }
}

fn news_of(object: &Object) -> PayoutNews {
    PayoutNews {
        stripe_id: object.stripe_id.clone(),
        amount_minor: Some(object.amount_minor),
        currency: Some(object.currency.clone()),
        status: object.status.clone().unwrap_or_default(),
        failure_code: object.failure_code.clone(),
        failure_message: object.failure_message.clone(),
        arrival_on: object.arrival_on,
        destination_changed_at: None,
    }
}

/// The payouts of ours that an account's list does not have.
fn absent(account: &DueAccount, payouts: &[Object]) -> Vec<Finding> {
    let known = account.operations.iter().zip(&account.stripe_ids);
    let missing = known.filter(|(_, id)| !payouts.iter().any(|payout| payout.stripe_id == **id));
    missing
        .map(|(operation, id)| Finding {
            kind: Kind::MissingAtStripe,
            subject: format!("operation {operation}"),
            payee: Some(account.payee),
            item: None,
            account: Some(account.account.clone()),
            expected: id.clone(),
            found: "not in the account's list".to_owned(),
        })
        .collect()
}

fn gone(account: &DueAccount) -> Finding {
    Finding {
        kind: Kind::AccountGone,
        subject: account.account.clone(),
        payee: Some(account.payee),
        item: None,
        account: Some(account.account.clone()),
        expected: format!("{} payouts to be asked about", account.operations.len()),
        found: "an account that Stripe does not show us".to_owned(),
    }
}

/// An object of a shape that nobody foresaw is not compared, and somebody should know.
fn unreadable(count: usize) {
    if count > 0 {
        tracing::error!(count, "stripe lists objects that cannot be read");
        metric(Metric::UnreadableObjects, i64::try_from(count).unwrap_or(i64::MAX), &[]);
    }
}
