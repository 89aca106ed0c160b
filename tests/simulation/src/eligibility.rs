//! What `payout_candidates` and `payout_recheck` answer over the model: the same rules as the SQL, in the same order.

use std::cmp::{max, min};

use chrono::Duration;
use payday::clock::Schedule;
use payday::config::Policy;
use payday::id::ItemId;
use payday::ledger::Account;
use payday::payouts::item::Status;
use payday::payouts::wave::Recheck;

use crate::tables::{CURRENCIES, Coin, Payee, RunRow, Tables, Time, coin, currency, payee_number};

/// Somebody with money, what of it is payable, and why not, if not.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub payee: usize,
    pub coin: Coin,
    pub account: Option<String>,
    pub automatic: bool,
    pub net_platform_micros: i64,
    pub net_connected_micros: i64,
    pub payable_minor: i64,
    pub transfer_minor: i64,
    pub connected_minor: i64,
    pub reason: Option<&'static str>,
}

/// Why somebody is not paid, the first that applies.
pub const REASONS: [&str; 10] = [
    "payouts_disabled",
    "schedule_not_due",
    "no_account",
    "account_not_ready",
    "blocked",
    "unsettled_item",
    "destination_cooloff",
    "held",
    "debt",
    "below_minimum",
];

/// What stands against paying somebody, in the order in which it is told.
#[derive(Default)]
struct Against {
    disabled: bool,
    schedule: bool,
    no_account: bool,
    not_ready: bool,
    blocked: bool,
    unsettled: bool,
    cooloff: bool,
    held: bool,
    debt: bool,
    below_minimum: bool,
}

impl Against {
    fn first(&self) -> Option<&'static str> {
        let applies = [
            self.disabled,
            self.schedule,
            self.no_account,
            self.not_ready,
            self.blocked,
            self.unsettled,
            self.cooloff,
            self.held,
            self.debt,
            self.below_minimum,
        ];
        REASONS.into_iter().zip(applies).find_map(|(reason, applies)| applies.then_some(reason))
    }
}

fn is_ready(payee: &Payee) -> bool {
    payee
        .account
        .as_ref()
        .is_some_and(|it| it.transfers_active && it.payouts_enabled && !it.past_due && it.deauthorized_at.is_none())
}

fn cools_off(payee: &Payee, policy: &Policy, at: Time) -> bool {
    let cooloff = Duration::hours(policy.destination_cooloff_hours);
    payee.account.as_ref().and_then(|it| it.destination_changed_at).is_some_and(|changed| changed + cooloff > at)
}

fn minimum_minor(payee: &Payee, policy: &Policy, coin: Coin) -> i64 {
    let currency = currency(coin);
    let unit = 1_000_000 / currency.micros_per_minor();
    let own = payee.minimum * unit;
    let platform = policy.thresholds_minor.get(CURRENCIES[coin]).copied().unwrap_or(0);
    // The accounts of the simulation are in the United States, where Stripe pays out a single cent.
    let stripe = if CURRENCIES[coin] == "usd" { 1 } else { unit };
    [currency.payout_multiple(), platform, own, stripe].into_iter().fold(0, max)
}

fn is_unsettled(status: Status) -> bool {
    matches!(
        status,
        Status::Pending
            | Status::AwaitingFunds
            | Status::Transferring
            | Status::Transferred
            | Status::AwaitingAvailable
            | Status::PayingOut
            | Status::PayoutBlocked
            | Status::Returned
            | Status::NeedsReview
    )
}

/// So many parts per million of an amount, rounded down.
fn part(micros: i64, ppm: i64) -> i64 {
    i64::try_from((i128::from(micros) * i128::from(ppm)).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

impl Tables {
    /// Everyone whom a run has to do with, in the order of their ids.
    pub fn candidates(&self, run: &RunRow, policy: &Policy, at: Time) -> Vec<Candidate> {
        let due = Schedule::due_on(run.cycle_on);
        let tells_not_due = due.first() == Some(&run.schedule);
        let mut found = Vec::new();
        for (payee, facts) in self.payees.iter().enumerate() {
            let is_due = facts.schedule == run.schedule;
            let is_others = due.contains(&facts.schedule) && !is_due;
            if is_others {
                continue;
            }
            let of_payee = (0..CURRENCIES.len()).filter_map(|coin| self.candidate(payee, coin, run, policy, at));
            found.extend(of_payee.filter(|it| tells_not_due || it.reason != Some("schedule_not_due")));
        }
        found
    }

    fn candidate(&self, payee: usize, coin: Coin, run: &RunRow, policy: &Policy, at: Time) -> Option<Candidate> {
        let (facts, balance) = (&self.payees[payee], self.balance(payee, coin));
        let has = |account: Account| balance[account as usize];
        let held = has(Account::HeldPlatform) + has(Account::HeldConnected);
        if held + has(Account::AvailablePlatform) + has(Account::AvailableConnected) <= 0 {
            return None;
        }
        let automatic = self.is_automatic(payee);
        let (later_platform, later_connected) = self.matured_after(run.cutoff_at, payee, coin);
        let platform = max(has(Account::AvailablePlatform) - later_platform, 0);
        let connected = if automatic { 0 } else { max(has(Account::AvailableConnected) - later_connected, 0) };
        let debt = -has(Account::Debt);
        let net_platform = min(platform, debt);
        let net_connected = min(connected, debt - net_platform);
        let (p, c) = (platform - net_platform, connected - net_connected);
        let keep_ppm = 1_000_000 - policy.reserve.0;
        let allowed = part(p + c, keep_ppm);
        let money = currency(coin);
        let minor = money.micros_per_minor();
        let transfer_unit = minor * money.transfer_multiple();
        let payout_unit = minor * if automatic { money.transfer_multiple() } else { money.payout_multiple() };
        let use_connected = min(c, allowed) / transfer_unit * transfer_unit;
        let use_platform = min(p, allowed - use_connected) / transfer_unit * transfer_unit;
        let amount = (use_connected + use_platform) / payout_unit * payout_unit;
        let transfer = max(use_platform - (use_connected + use_platform - amount), 0);
        let minimum = minimum_minor(facts, policy, coin);
        let small = amount / minor < minimum;
        let without_debt = part(platform + connected, keep_ppm) / minor;
        let against = Against {
            disabled: !facts.enabled,
            schedule: facts.schedule != run.schedule,
            no_account: facts.account.is_none(),
            not_ready: !is_ready(facts),
            blocked: facts.blocked_reason.is_some() || has(Account::AtStripe) < 0,
            unsettled: self
                .items
                .iter()
                .any(|row| payee_number(row.item.payee) == payee && row.item.currency == money && is_unsettled(row.item.status)),
            cooloff: cools_off(facts, policy, at),
            held: platform + connected == 0,
            debt: debt > 0 && small && (debt >= platform + connected || without_debt >= minimum),
            below_minimum: small,
        };
        Some(Candidate {
            payee,
            coin,
            account: facts.account.as_ref().map(|it| it.account.clone()),
            automatic,
            net_platform_micros: net_platform,
            net_connected_micros: net_connected,
            payable_minor: amount / minor,
            transfer_minor: transfer / minor,
            connected_minor: (amount - transfer) / minor,
            reason: against.first(),
        })
    }

    /// What has matured after the cut-off and is not payable at it: on the platform, and connected.
    fn matured_after(&self, cutoff: Time, payee: usize, coin: Coin) -> (i64, i64) {
        let Some(through) = self.matured_through.filter(|through| cutoff < *through) else { return (0, 0) };
        let (mut platform, mut connected) = (0, 0);
        for it in self.earnings.iter().filter(|it| (it.payee, it.coin) == (payee, coin)) {
            if it.available_at > cutoff && it.available_at <= through {
                let net = it.net_micros - it.taken_back_net_micros;
                *(if it.connected { &mut connected } else { &mut platform }) += net;
            }
        }
        (platform, connected)
    }

    /// Eligibility asked once more for items about to be sent; the item's own reservation counts as available.
    pub fn recheck(&self, items: &[ItemId], policy: &Policy, at: Time) -> Vec<Recheck> {
        items
            .iter()
            .filter_map(|id| self.item(*id))
            .map(|row| {
                let payee = payee_number(row.item.payee);
                let coin = coin(&row.item.currency.code());
                let (facts, balance) = (&self.payees[payee], self.balance(payee, coin));
                let has = |account: Account| balance[account as usize];
                let against = Against {
                    disabled: !facts.enabled,
                    no_account: facts.account.is_none(),
                    not_ready: !is_ready(facts),
                    blocked: facts.blocked_reason.is_some() || has(Account::AtStripe) < 0,
                    cooloff: cools_off(facts, policy, at),
                    debt: has(Account::Debt) < 0
                        && has(Account::AvailablePlatform) + has(Account::AvailableConnected) + has(Account::Debt) < 0,
                    below_minimum: row.item.amount_minor < minimum_minor(facts, policy, coin),
                    ..Against::default()
                };
                Recheck {
                    item_id: row.item.id,
                    account: facts.account.as_ref().map(|it| it.account.clone()),
                    destination: facts.account.as_ref().and_then(|it| it.destination.clone()),
                    automatic: self.is_automatic(payee),
                    reason: against.first().map(str::to_owned),
                }
            })
            .collect()
    }
}
