//! What the sample's creators earned: kinds, prices and times as such platforms see them (many small, a few large, most in
//! the evening), bent where a creator's role asks for something in particular.

use chrono::{DateTime, SecondsFormat, Utc};

use super::creators::{Creator, Market, US};
use super::dice::Dice;
use super::role::Role;
use super::world::Dispute;

/// 2026-10-19T00:00:00Z: the sample's first day.
const FIRST: i64 = 1_792_368_000;
/// 2026-11-03T06:00:00Z: what was earned until then had matured when the disputes came (seven days later).
const BEFORE_DISPUTES: i64 = 1_793_685_600;
/// 2026-11-08T06:00:00Z: seven days before the cut-off; the last instant whose earnings are payable.
const LAST_PAYABLE: i64 = 1_794_117_600;
/// 2026-11-15T06:00:00Z: the cut-off.
const CUTOFF: i64 = 1_794_722_400;

/// When disputes come: the instant through which earnings have matured by then.
pub(super) const DISPUTES_AT: i64 = BEFORE_DISPUTES + 7 * 86_400;

/// Seconds in which something was earned; the end is not in it.
type Window = (i64, i64);
const EARLY: Window = (FIRST, BEFORE_DISPUTES);
const LATE: Window = (BEFORE_DISPUTES + 1, LAST_PAYABLE);
const MATURED: Window = (FIRST, LAST_PAYABLE);
const HELD: Window = (LAST_PAYABLE + 3_600, CUTOFF);

#[derive(Debug, Clone, Copy)]
enum Worth {
    Tokens(i64),
    Amount { minor: i64, fee: Option<i64> },
}

/// One line of earnings.csv.
pub(super) struct Earned {
    creator: uuid::Uuid,
    kind: &'static str,
    worth: Worth,
    currency: &'static str,
    micros: i64,
    charge: Option<String>,
    connected: bool,
}

/// The file, in the order in which things happened.
pub(super) fn file(mut earned: Vec<Earned>) -> String {
    earned.sort_by_key(|it| (it.micros, it.creator));
    let mut out = "source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at,fee_minor,charge_id,place\n".to_owned();
    for (index, it) in earned.iter().enumerate() {
        let text = |number: Option<i64>| number.map(|n| n.to_string()).unwrap_or_default();
        let (tokens, amount, fee) = match it.worth {
            Worth::Tokens(tokens) => (Some(tokens), None, None),
            Worth::Amount { minor, fee } => (None, Some(minor), fee),
        };
        let at =
            DateTime::<Utc>::from_timestamp_micros(it.micros).unwrap_or_default().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let (charge, place) = (it.charge.as_deref().unwrap_or_default(), if it.connected { "connected" } else { "" });
        let (tokens, amount, fee) = (text(tokens), text(amount), text(fee));
        let Earned { kind, creator, currency, .. } = it;
        let number = index + 1;
        out.push_str(&format!("{kind}-{number:05},{creator},{kind},{tokens},{amount},{currency},{at},{fee},{charge},{place}\n"));
    }
    out
}

/// Everything one creator earned, and the disputes of it.
pub(super) fn of(creator: &Creator, dice: &mut Dice) -> (Vec<Earned>, Vec<Dispute>) {
    let mut desk = Desk { creator, dice, earned: Vec::new(), disputes: Vec::new() };
    desk.earn();
    (desk.earned, desk.disputes)
}

/// Writes one creator's earnings.
struct Desk<'a> {
    creator: &'a Creator,
    dice: &'a mut Dice,
    earned: Vec<Earned>,
    disputes: Vec<Dispute>,
}

impl Desk<'_> {
    fn earn(&mut self) {
        let home = self.creator.market;
        match self.creator.role {
            Role::TwoCurrencies => {
                self.ordinary(home);
                self.ordinary(US);
            }
            Role::OneCurrencyBelow => {
                self.ordinary(home);
                self.tip(EARLY, 50);
            }
            Role::ConnectedOnly => self.on_account(home, MATURED),
            Role::BothLegs => {
                self.ordinary(home);
                self.on_account(home, MATURED);
                if self.dice.percent(40) {
                    self.on_account(home, HELD);
                }
            }
            // Only what has matured by any run's clock: what Stripe pays out by itself leaves the balance the moment it matures.
            Role::AutomaticWithConnected => {
                self.ordinary(home);
                self.on_account(home, EARLY);
            }
            Role::OnlyConnectedOnAutomatic => self.on_account(home, EARLY),
            Role::OwnMinimumReached => {
                self.ordinary(home);
                self.amount("sale", EARLY, home, home.dollar * 45, None);
            }
            Role::BelowOwnMinimum => {
                let dollars = self.dice.between(15, 60);
                self.amount("call", MATURED, home, home.dollar * dollars, None);
            }
            Role::HundredTips => self.hundred_tips(),
            Role::HundredTipsAndMore => {
                self.hundred_tips();
                self.tip(MATURED, 300);
            }
            Role::HoldEndsAtCutoff => self.sale_at(LAST_PAYABLE * 1_000_000),
            Role::HeldByAMicrosecond => self.sale_at(LAST_PAYABLE * 1_000_000 + 1),
            Role::Held => self.some(home, HELD, 6),
            Role::HeldConnected => self.on_account(home, HELD),
            Role::BelowThreshold => self.below_threshold(),
            Role::BelowStripesMinimum => {
                // Net of the fee: 7.92 mxn of 10, 0.45 gbp of 1, 31,500 krw of 40,000.
                let gross = if home.currency == "gbp" {
                    50
                } else if home.currency == "mxn" {
                    880
                } else {
                    35_000
                };
                self.amount("message", MATURED, home, gross, None);
            }
            Role::SeveralReasons => match self.creator.nth {
                2 | 4 | 5 => self.some(home, HELD, 3),
                3 => self.tip(EARLY, 40),
                _ => self.ordinary(home),
            },
            Role::NothingEarned => {}
            Role::DisputedInPart | Role::DisputedToBelow | Role::DisputedWhole | Role::InDebt | Role::DebtCovered => {
                self.disputed()
            }
            _ => self.ordinary(home),
        }
    }

    /// A few earnings or very many, most of them matured, and at least a payable amount.
    fn ordinary(&mut self, market: Market) {
        let (low, high) = self.dice.weighted(&[(50, (2, 5)), (30, (6, 10)), (15, (11, 20)), (4, (21, 45)), (1, (60, 120))]);
        let count = self.dice.between(low, high);
        let held = count * self.dice.between(0, 45) / 100;
        self.some(market, MATURED, count - held);
        self.some(market, HELD, held);
        // Everybody's first sale is large enough to be paid by itself.
        let minor = self.price("sale", market).max(market.dollar * 25 / market.step * market.step);
        let fee = self.dice.percent(15).then_some(minor / 20);
        self.amount("sale", MATURED, market, minor, fee);
    }

    fn some(&mut self, market: Market, window: Window, count: i64) {
        for _ in 0..count {
            let kind = self.dice.weighted(&[(46, "tip"), (24, "message"), (12, "call"), (15, "sale"), (3, "other")]);
            let tokens = market == US && kind != "sale" && kind != "other" && self.dice.percent(85);
            if tokens {
                let tokens = self.tokens(kind);
                self.add(kind, window, Worth::Tokens(tokens), "usd");
            } else {
                let minor = self.price(kind, market);
                self.amount(kind, window, market, minor, None);
            }
        }
    }

    fn tokens(&mut self, kind: &str) -> i64 {
        match kind {
            "call" => self.dice.between(3, 40) * 25,
            "message" => self.dice.weighted(&[(40, 20), (30, 50), (20, 100), (10, 200)]),
            _ => self.dice.weighted(&[
                (8, 1),
                (12, 5),
                (18, 10),
                (14, 20),
                (12, 25),
                (14, 50),
                (10, 100),
                (6, 200),
                (4, 500),
                (1, 1_000),
                (1, 5_000),
            ]),
        }
    }

    /// A price in the market's minor units.
    fn price(&mut self, kind: &str, market: Market) -> i64 {
        let cents = match kind {
            "call" => self.dice.between(12, 110) * 100,
            "message" => self.dice.pick(&[299, 399, 499, 799, 999]),
            "sale" => self.dice.weighted(&[
                (20, 499),
                (25, 999),
                (20, 1_499),
                (14, 1_999),
                (10, 2_999),
                (6, 4_999),
                (4, 9_900),
                (1, 49_900),
            ]),
            "other" => self.dice.between(20, 400) * 50,
            _ => self.dice.weighted(&[(20, 200), (20, 300), (30, 500), (18, 1_000), (8, 2_000), (3, 5_000), (1, 10_000)]),
        };
        (cents * market.dollar / 100 / market.step).max(1) * market.step
    }

    fn amount(&mut self, kind: &'static str, window: Window, market: Market, minor: i64, fee: Option<i64>) {
        self.add(kind, window, Worth::Amount { minor, fee }, market.currency);
    }

    fn tip(&mut self, window: Window, tokens: i64) {
        self.add("tip", window, Worth::Tokens(tokens), "usd");
    }

    fn hundred_tips(&mut self) {
        for _ in 0..100 {
            self.tip(MATURED, 1);
        }
    }

    /// Destination charges: the application fee is whole minor units, and what is left lies on the connected account.
    fn on_account(&mut self, market: Market, window: Window) {
        for _ in 0..self.dice.between(1, 5) {
            let minor = self.price("sale", market).max(market.dollar * 15);
            self.charged(window, market, minor, Some(minor / 10));
        }
    }

    fn charged(&mut self, window: Window, market: Market, minor: i64, fee: Option<i64>) -> String {
        self.amount("sale", window, market, minor, fee);
        let charge = format!("ch_3Q{}", self.dice.letters(22));
        if let Some(last) = self.earned.last_mut() {
            last.charge = Some(charge.clone());
            last.connected = fee.is_some();
        }
        charge
    }

    fn sale_at(&mut self, micros: i64) {
        self.amount("sale", MATURED, US, 2_400, None);
        if let Some(last) = self.earned.last_mut() {
            last.micros = micros;
        }
    }

    fn below_threshold(&mut self) {
        for _ in 0..self.dice.between(1, 3) {
            let tokens = self.dice.pick(&[5, 10, 20, 25, 50, 60]);
            self.tip(MATURED, tokens);
        }
        if self.dice.percent(30) {
            self.some(US, HELD, 3);
        }
    }

    fn disputed(&mut self) {
        // (the charge, whether on the account, what of it is disputed, tokens before and after the dispute)
        let (minor, connected, disputed, before, after) = match self.creator.role {
            Role::DisputedInPart => (8_000, false, 3_000, 120, 500),
            Role::DisputedToBelow => (2_500, false, 2_500, 60, 40),
            Role::DisputedWhole => (6_000, false, 6_000, 0, 0),
            // 36.00 taken of 9.00: 27.00 of debt, and 54.00 since.
            Role::DebtCovered => (4_000, true, 4_000, 200, 1_200),
            // 135.00 taken of 9.00: 126.00 of debt, and 27.00 since.
            _ => (15_000, true, 15_000, 200, 600),
        };
        let charge = self.charged(EARLY, US, minor, connected.then_some(minor / 10));
        for (window, tokens) in [(EARLY, before), (LATE, after)] {
            if tokens > 0 {
                self.tip(window, tokens);
            }
        }
        self.disputes.push(Dispute {
            id: format!("dp_1Q{}", self.dice.letters(22)),
            charge,
            amount_minor: disputed,
            currency: "usd".to_owned(),
            reason: self.dice.pick(&["fraudulent", "product_not_received", "unrecognized"]).to_owned(),
        });
    }

    fn add(&mut self, kind: &'static str, window: Window, worth: Worth, currency: &'static str) {
        let charge = match worth {
            Worth::Amount { .. } if matches!(kind, "sale" | "call") && self.dice.percent(60) => {
                Some(format!("ch_3Q{}", self.dice.letters(22)))
            }
            _ => None,
        };
        let micros = self.second_in(window) * 1_000_000;
        self.earned.push(Earned { creator: self.creator.id, kind, worth, currency, micros, charge, connected: false });
    }

    /// People sleep.
    fn second_in(&mut self, (from, to): Window) -> i64 {
        let mut second = self.dice.between(from, to - 1);
        for _ in 0..3 {
            let asleep = (2..9).contains(&(second.rem_euclid(86_400) / 3_600));
            if !asleep || self.dice.percent(10) {
                break;
            }
            second = self.dice.between(from, to - 1);
        }
        second
    }
}
