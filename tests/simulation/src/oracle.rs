//! Says who must have what. Shares no code with the engine: it sees what came in (earnings, and what took them back), the
//! instants at which cycles were due, and the requests and objects at Stripe.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Duration, Utc};

use crate::stripe::{Kind, Object, Request};
use crate::tables::Breach;

type Time = DateTime<Utc>;

struct Earned {
    payee: usize,
    currency: &'static str,
    gross: i64,
    net: i64,
    available_at: Time,
    charge: Option<String>,
}

/// A dispute's or refund's running total, and since when we know.
struct Claim {
    charge: String,
    source: String,
    cumulative: i64,
    known_at: Time,
}

#[derive(Default)]
pub struct Oracle {
    earned: Vec<Earned>,
    claims: Vec<Claim>,
    due: Vec<Time>,
    accounts: BTreeMap<String, usize>,
    /// When it was last decided that an item is paid.
    decided: HashMap<String, Time>,
    /// By key: the bytes, and the first send that may have been run.
    keys: HashMap<String, (String, Option<Time>)>,
    seen: usize,
}

/// Micros in a minor unit.
pub fn unit(currency: &str) -> i64 {
    match currency {
        "jpy" => 1_000_000,
        "bhd" => 1_000,
        _ => 10_000,
    }
}

/// Minor units that a bank is paid multiples of.
fn multiple(currency: &str) -> i64 {
    match currency {
        "huf" => 100,
        "bhd" => 10,
        _ => 1,
    }
}

impl Oracle {
    pub fn account(&mut self, account: &str, payee: usize) {
        self.accounts.insert(account.to_owned(), payee);
    }

    pub fn cycle_due(&mut self, at: Time) {
        self.due.push(at);
    }

    /// Something was earned; the same charge again is the same earning.
    pub fn earned(
        &mut self,
        payee: usize,
        currency: &'static str,
        gross: i64,
        net: i64,
        available_at: Time,
        charge: Option<String>,
    ) {
        if charge.is_some() && self.earned.iter().any(|it| it.charge == charge) {
            return;
        }
        self.earned.push(Earned { payee, currency, gross, net, available_at, charge });
    }

    pub fn claimed(&mut self, charge: &str, source: &str, cumulative: i64, known_at: Time) {
        self.claims.push(Claim { charge: charge.to_owned(), source: source.to_owned(), cumulative, known_at });
    }

    /// The payee's share of what was claimed of an earning by then: its part of the gross, at most all, rounded down.
    fn taken(&self, earned: &Earned, known_by: Time) -> i64 {
        let Some(charge) = &earned.charge else { return 0 };
        let mut by_source: BTreeMap<&str, i64> = BTreeMap::new();
        for claim in self.claims.iter().filter(|claim| claim.charge == *charge && claim.known_at <= known_by) {
            let total = by_source.entry(&claim.source).or_default();
            *total = (*total).max(claim.cumulative);
        }
        let gross: i64 = by_source.values().sum::<i64>().min(earned.gross);
        i64::try_from(i128::from(earned.net) * i128::from(gross) / i128::from(earned.gross)).unwrap_or(i64::MAX)
    }

    /// What a payee had earned for good by an instant, less what was taken back and known by another, micros.
    fn owed(&self, payee: usize, currency: &str, available_by: Time, known_by: Time) -> i64 {
        let theirs = |it: &&Earned| it.payee == payee && it.currency == currency && it.available_at <= available_by;
        self.earned.iter().filter(theirs).map(|it| it.net - self.taken(it, known_by)).sum()
    }

    /// What a payee has got from us, micros: transfers that stayed, and payouts of money that lay on the account already.
    fn got(&self, payee: usize, currency: &str, objects: &[Object]) -> i64 {
        let mut total = 0;
        let mut by_item: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for it in objects.iter().filter(|it| it.currency == currency && self.accounts.get(&it.account) == Some(&payee)) {
            let (transferred, paid) = by_item.entry(&it.item_mark).or_default();
            match it.kind {
                Kind::Transfer => {
                    total += it.live();
                    *transferred += it.amount;
                }
                Kind::Payout => *paid += it.live(),
            }
        }
        let connected: i64 = by_item.values().map(|(transferred, paid)| (paid - transferred).max(0)).sum();
        (total + connected) * unit(currency)
    }

    /// It was decided that an item is paid: anew by a transfer, and by a payout if that is its first leg.
    pub fn decided(&mut self, item_mark: &str, transfer: bool, now: Time) {
        let at = self.decided.entry(item_mark.to_owned()).or_insert(now);
        if transfer {
            *at = now;
        }
    }

    /// A request is about to reach Stripe, or to be lost on its way.
    pub fn request(&mut self, request: &Request, now: Time) -> Result<(), Breach> {
        let (bytes, doubtful_since) = self.keys.entry(request.key.clone()).or_insert_with(|| (request.body.clone(), None));
        if *bytes != request.body {
            return Err(Breach::new(
                "a key has the same bytes for ever",
                format!("{}: {bytes} then {}", request.key, request.body),
            ));
        }
        // A send waits at most half a minute for a place, and clocks differ by minutes.
        let window = Duration::hours(23) + Duration::minutes(10);
        if doubtful_since.is_some_and(|since| now - since > window) {
            return Err(Breach::new("no replay past 23 hours", format!("{} first sent {doubtful_since:?}", request.key)));
        }
        Ok(())
    }

    /// What the caller knows of a request: whether it may have been run.
    pub fn answered(&mut self, key: &str, may_have_run: bool, now: Time) {
        if let Some((_, since)) = self.keys.get_mut(key).filter(|_| may_have_run) {
            since.get_or_insert(now);
        }
    }

    /// Looks at the objects that are new.
    pub fn look(&mut self, objects: &[Object], now: Time) -> Result<(), Breach> {
        while let Some(new) = objects.get(self.seen) {
            let before = &objects[..self.seen];
            self.seen += 1;
            self.look_at(new, before, now)?;
            let Some(payee) = self.accounts.get(&new.account).copied() else { continue };
            let so_far = &objects[..self.seen];
            let got = self.got(payee, &new.currency, so_far);
            let cutoff = self.due.iter().filter(|due| **due <= now).max().copied().unwrap_or(DateTime::UNIX_EPOCH);
            let before_cutoff = self.owed(payee, &new.currency, cutoff, DateTime::UNIX_EPOCH);
            // What was decided is sent, and sent again, without asking anew: only claims known by then count.
            let known_by = self.decided.get(&new.item_mark).copied().unwrap_or(now) - Duration::seconds(1);
            let by_now = self.owed(payee, &new.currency, now + Duration::minutes(5), known_by);
            for (owed, when) in [(before_cutoff, cutoff), (by_now, known_by)] {
                if got > owed {
                    let detail = format!(
                        "payee {payee} has got {got} micros {} and is owed {owed} as of {when}, after {new:?}",
                        new.currency
                    );
                    return Err(Breach::new("nobody gets more than is owed", detail));
                }
            }
        }
        Ok(())
    }

    fn look_at(&self, new: &Object, before: &[Object], _now: Time) -> Result<(), Breach> {
        for other in before.iter().filter(|other| other.item_mark == new.item_mark) {
            if other.mark == new.mark {
                return Err(Breach::new("one object per attempt", format!("{other:?} and {new:?}")));
            }
            if other.kind == new.kind && other.live() > 0 {
                return Err(Breach::new("at most one live object per item and leg", format!("{other:?} and {new:?}")));
            }
            if other.kind == Kind::Payout && new.kind == Kind::Transfer {
                return Err(Breach::new("no transfer after a payout", format!("{other:?} and {new:?}")));
            }
        }
        Ok(())
    }

    /// What a payee could still be paid at an instant, minor units: what is owed and not got, less what stays behind by
    /// policy, in amounts that a bank is paid.
    pub fn still_payable(&self, payee: usize, currency: &str, at: Time, reserve_ppm: i64, objects: &[Object]) -> i64 {
        let left = self.owed(payee, currency, at, at) - self.got(payee, currency, objects);
        let keeps = i128::from(left.max(0)) * i128::from(1_000_000 - reserve_ppm) / 1_000_000;
        let minor = i64::try_from(keeps).unwrap_or(i64::MAX) / unit(currency);
        // Each place is rounded by itself.
        (minor - 2 * multiple(currency)) / multiple(currency) * multiple(currency)
    }

    /// What a payee has got so far, minor units.
    pub fn got_minor(&self, payee: usize, currency: &str, objects: &[Object]) -> i64 {
        self.got(payee, currency, objects) / unit(currency)
    }

    /// The least that is paid.
    pub fn least(currency: &str, own_units: i64, threshold: i64) -> i64 {
        (own_units * (1_000_000 / unit(currency))).max(threshold).max(multiple(currency)).max(if currency == "usd" {
            1
        } else {
            1_000_000 / unit(currency)
        })
    }
}
