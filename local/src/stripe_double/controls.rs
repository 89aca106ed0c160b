//! What a test, the demo or a person at curl can do to the double and ask of it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::audit::{self, Audit};
use super::calls::{Call, Counts};
use super::charges::{Charged, DestinationCharge};
use super::currency::Currency;
use super::faults::{FaultCount, FaultRule};
use super::rates::Rates;
use super::spec::{AccountSpec, Settlement};
use super::state::State;
use super::webhooks::{Delivery, DeliveryOptions, DeliveryRule, DeliveryState, WebhookTarget};
use super::world::{self, Event, Funds, PLATFORM, Posting, World};
use super::{PayoutRecord, StripeDouble, TransferRecord};

impl StripeDouble {
    fn with<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        self.inner.with(step)
    }

    // Accounts and money

    /// Returns the account's id. No event: Stripe announces accounts by `account.updated` only.
    pub fn add_account(&self, spec: AccountSpec) -> String {
        self.with(|state| {
            let owner = state.world.insert_account(spec);
            state.world.account_id(owner).to_owned()
        })
    }

    pub fn add_accounts(&self, specs: impl IntoIterator<Item = AccountSpec>) {
        self.with(|state| {
            for spec in specs {
                state.world.insert_account(spec);
            }
        });
    }

    pub fn account(&self, id: &str) -> Option<AccountSpec> {
        self.with(|state| state.world.account_index.get(id).map(|owner| state.world.accounts[*owner].spec.clone()))
    }

    /// All connected accounts, those that left too.
    pub fn accounts(&self) -> Vec<AccountSpec> {
        self.with(|state| state.world.accounts.iter().skip(1).map(|account| account.spec.clone()).collect())
    }

    /// Changes an account and emits the events of what changed. False: no such account.
    pub fn update_account(&self, id: &str, change: impl FnOnce(&mut AccountSpec)) -> bool {
        self.with(|state| match state.world.connected(id) {
            Some(owner) => {
                let mut spec = state.world.accounts[owner].spec.clone();
                change(&mut spec);
                state.world.change_account(owner, spec);
                true
            }
            None => false,
        })
    }

    /// The account's owner gives Stripe everything it wants, and a bank account. False: no such account.
    pub fn finish_onboarding(&self, id: &str) -> bool {
        self.with(|state| state.world.connected(id).map(|owner| state.world.finish_onboarding(owner)).is_some())
    }

    /// The account leaves the platform.
    pub fn deauthorize(&self, id: &str) -> bool {
        self.with(|state| state.world.connected(id).map(|owner| state.world.deauthorize_account(owner)).is_some())
    }

    /// Adds to the platform's available balance (a top-up); negative takes away. False: unknown currency.
    pub fn fund(&self, currency: &str, minor: i64) -> bool {
        self.fund_account(None, currency, minor)
    }

    /// Adds to an account's available balance, as if charged there directly.
    pub fn fund_account(&self, account: Option<&str>, currency: &str, minor: i64) -> bool {
        self.with(|state| {
            let world = &mut state.world;
            let owner = account.map_or(Some(PLATFORM), |id| world.connected(id));
            let (Some(owner), Some(currency)) = (owner, Currency::parse(currency)) else {
                return false;
            };
            let source = world.ids.make(if owner == PLATFORM { "tu" } else { "ch" });
            let available_ms = world.now_ms;
            world.post(&Posting {
                owner,
                kind: if owner == PLATFORM { "topup" } else { "charge" },
                reporting: if owner == PLATFORM { "topup" } else { "charge" },
                amount: minor,
                fee: 0,
                currency,
                source: &source,
                available_ms,
                exchange: None,
            });
            true
        })
    }

    /// None: the platform's.
    pub fn funds(&self, account: Option<&str>, currency: &str) -> Funds {
        self.with(|state| {
            let owner = account.map_or(Some(PLATFORM), |id| state.world.account_index.get(id).copied());
            match (owner, Currency::parse(currency)) {
                (Some(owner), Some(currency)) => state.world.funds(owner, currency),
                _ => Funds::default(),
            }
        })
    }

    pub fn create_destination_charge(&self, charge: &DestinationCharge) -> Result<Charged, String> {
        self.with(|state| state.world.destination_charge(charge))
    }

    /// `id` of the charge or its payment intent; returns the refund's id.
    pub fn refund(&self, id: &str, minor: i64, reverse_transfer: bool, refund_fee: bool) -> Result<String, String> {
        self.with(|state| state.world.refund_charge(id, minor, reverse_transfer, refund_fee))
    }

    /// Opens a dispute and withdraws the money from the platform; returns the dispute's id.
    pub fn dispute(&self, id: &str, minor: i64, reason: &str) -> Result<String, String> {
        self.with(|state| state.world.dispute_charge(id, minor, reason))
    }

    pub fn close_dispute(&self, id: &str, won: bool) -> Result<(), String> {
        self.with(|state| state.world.close_dispute(id, won))
    }

    /// Takes a transfer back behind the platform's back, as the Dashboard can.
    pub fn reverse_transfer(&self, id: &str, minor: i64) -> Result<(), String> {
        self.with(|state| {
            let index = state.world.transfer_index.get(id).copied().ok_or_else(|| format!("no transfer {id}"))?;
            let transfer = &state.world.transfers[index];
            if minor < 1 || minor > transfer.amount - transfer.amount_reversed() {
                return Err(format!("{minor} is more than is left of {id}"));
            }
            state.world.reverse(index, minor, Vec::new());
            Ok(())
        })
    }

    // Payouts

    /// Ends all open payouts as their banks decide; returns how many.
    pub fn settle_payouts(&self) -> usize {
        self.with(|state| {
            let open = |p: &world::Payout| matches!(p.status, world::PayoutStatus::Pending | world::PayoutStatus::InTransit);
            let indices: Vec<usize> = state.world.payouts.iter().enumerate().filter(|(_, p)| open(p)).map(|(i, _)| i).collect();
            for index in &indices {
                state.world.payout_settles(*index);
            }
            indices.len()
        })
    }

    fn on_payout(&self, id: &str, act: impl FnOnce(&mut World, usize)) -> bool {
        self.with(|state| match state.world.payout_index.get(id).copied() {
            Some(index) => {
                act(&mut state.world, index);
                true
            }
            None => false,
        })
    }

    /// `pending` → `in_transit`
    pub fn send_payout(&self, id: &str) -> bool {
        self.on_payout(id, World::payout_in_transit)
    }

    /// Ends one payout as its bank decides.
    pub fn settle_payout(&self, id: &str) -> bool {
        self.on_payout(id, World::payout_settles)
    }

    /// Fails a payout, also one that was paid.
    pub fn fail_payout(&self, id: &str, code: &str) -> bool {
        self.on_payout(id, |world, index| world.payout_fails(index, code))
    }

    /// Pays out an automatic account now.
    pub fn run_automatic_payout(&self, account: &str, currency: &str) -> bool {
        self.with(|state| match (state.world.connected(account), Currency::parse(currency)) {
            (Some(owner), Some(currency)) => {
                state.world.automatic_payout(owner, currency);
                true
            }
            _ => false,
        })
    }

    pub fn set_settlement(&self, settlement: Settlement) {
        self.with(|state| state.world.settings.settlement = settlement);
    }

    pub fn set_transfer_available_after(&self, ms: i64) {
        self.with(|state| state.world.settings.transfer_available_after_ms = ms);
    }

    // Time

    pub fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }

    /// Moves the clock on and does all that became due meanwhile.
    pub fn advance(&self, by: Duration) {
        self.inner.clock.advance_ms(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        self.with(|_| ());
    }

    pub fn set_time_ms(&self, unix_ms: i64) {
        self.inner.clock.set_ms(unix_ms);
        self.with(|_| ());
    }

    /// As if every idempotency key were 24 hours old.
    pub fn expire_keys(&self) {
        self.with(|state| state.world.keys.expire_all());
    }

    // Trouble

    /// Orders a fault; returns its id.
    pub fn fault(&self, rule: FaultRule) -> u64 {
        self.with(|state| state.faults.add(rule))
    }

    pub fn remove_fault(&self, id: u64) -> bool {
        self.with(|state| state.faults.remove(id))
    }

    pub fn clear_faults(&self) {
        self.with(|state| state.faults.clear());
    }

    pub fn faults(&self) -> Vec<FaultCount> {
        self.with(|state| state.faults.counts())
    }

    pub fn revoke_key(&self, key: &str) {
        self.with(|state| state.keys.revoked.push(key.to_owned()));
    }

    /// From now on this key is taken (too, when there is a list).
    pub fn allow_key(&self, key: &str) {
        self.with(|state| {
            state.keys.revoked.retain(|k| k != key);
            if !state.keys.known.is_empty() {
                state.keys.known.push(key.to_owned());
            }
        });
    }

    /// Stripe is not there: connections are refused until `go_up`.
    pub fn go_down(&self) {
        self.inner.go_down(None);
    }

    pub fn go_down_for(&self, duration: Duration) {
        self.inner.go_down(Some(duration));
    }

    pub fn go_up(&self) {
        self.inner.open.send_replace(true);
    }

    /// Requests from now on wait just before their execution, their keys claimed, until `release`.
    pub fn hold(&self) {
        self.inner.held.send_replace(true);
    }

    pub fn release(&self) {
        self.inner.held.send_replace(false);
    }

    /// Waits until so many requests are held.
    pub async fn held_requests(&self, count: usize) {
        let mut waiting = self.inner.waiting.subscribe();
        let _ = waiting.wait_for(|n| *n >= count).await;
    }

    pub fn set_latency(&self, ms: u64) {
        let mut latency = self.inner.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.every_ms = ms;
    }

    pub fn set_rates(&self, rates: Rates) {
        self.with(|state| state.limiter.set(rates));
    }

    // Webhooks

    /// Events from now on go there; none: nowhere.
    pub fn set_webhooks(&self, target: Option<WebhookTarget>) {
        self.inner.hooks.set_target(target);
    }

    pub fn set_delivery(&self, options: DeliveryOptions) {
        self.inner.hooks.set_options(options);
    }

    pub fn delivery_rule(&self, rule: DeliveryRule) {
        self.inner.hooks.add_rule(rule);
    }

    pub fn clear_delivery_rules(&self) {
        self.inner.hooks.clear_rules();
    }

    pub fn pause_webhooks(&self) {
        self.inner.hooks.set_paused(true);
    }

    pub fn resume_webhooks(&self) {
        self.inner.hooks.set_paused(false);
    }

    /// Sends what rules held back.
    pub fn release_held_webhooks(&self) {
        self.inner.hooks.release_held();
    }

    /// Delivers an event again; false: no such event.
    pub fn resend_event(&self, id: &str) -> bool {
        let event = self.with(|state| state.world.event_index.get(id).map(|i| Arc::clone(&state.world.events[*i])));
        event.map(|event| self.inner.hooks.resend(event)).is_some()
    }

    /// Every attempt so far, in the order they ended.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inner.hooks.deliveries()
    }

    pub fn delivery_state(&self) -> DeliveryState {
        self.inner.hooks.state()
    }

    /// Waits until no event waits for delivery (held ones, and a paused delivery, do not count).
    pub async fn all_delivered(&self) {
        self.inner.hooks.all_delivered().await;
    }

    // What happened

    pub fn events(&self) -> Vec<Arc<Event>> {
        self.with(|state| state.world.events.clone())
    }

    pub fn calls(&self) -> Vec<Call> {
        self.with(|state| state.log.calls.clone())
    }

    pub fn counts(&self) -> Counts {
        self.with(|state| state.log.counts.clone())
    }

    /// Forgets calls and counts, as before a measurement.
    pub fn clear_calls(&self) {
        self.with(|state| state.log.clear());
    }

    pub fn transfers(&self) -> Vec<TransferRecord> {
        self.with(|state| {
            let world = &state.world;
            let record = |t: &world::Transfer| TransferRecord {
                id: t.id.clone(),
                amount: t.amount,
                amount_reversed: t.amount_reversed(),
                currency: t.currency.to_string(),
                destination: world.account_id(t.destination).to_owned(),
                transfer_group: t.group.clone(),
                metadata: t.metadata.clone(),
                from_charge: t.from_charge,
            };
            world.transfers.iter().map(record).collect()
        })
    }

    pub fn payouts(&self) -> Vec<PayoutRecord> {
        self.with(|state| {
            let world = &state.world;
            let record = |p: &world::Payout| PayoutRecord {
                id: p.id.clone(),
                account: world.account_id(p.owner).to_owned(),
                amount: p.amount,
                currency: p.currency.to_string(),
                status: p.status.as_str().to_owned(),
                automatic: p.automatic,
                destination: p.destination.clone(),
                failure_code: p.failure_code.clone(),
                metadata: p.metadata.clone(),
            };
            world.payouts.iter().map(record).collect()
        })
    }

    pub fn audit(&self) -> Audit {
        self.with(|state| audit::audit(&state.world, &state.log))
    }
}
