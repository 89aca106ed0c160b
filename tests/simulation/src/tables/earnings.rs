//! What `earnings::store` does: recording, maturing, taking back.

use payday::config::Policy;
use payday::earnings::taking_back::{self, Known, Parts};
use payday::earnings::{NewEarning, Place};
use payday::ledger::{Account, Posting};

use super::{Breach, EarningRow, Tables, Time, coin, payee_id, payee_number};

/// What taking back did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBack {
    Net(i64),
    NoEarning,
}

impl Tables {
    /// Records one earning; one that is there already adds nothing.
    pub fn record(&mut self, policy: &Policy, earning: &NewEarning) -> Result<(), Breach> {
        if !self.sources.insert(earning.source_id.clone()) {
            return Ok(());
        }
        let frozen = earning.freeze(policy).map_err(|problem| Breach::new("earnings are taken", problem))?;
        let payee = payee_number(earning.creator_id);
        let available_at = earning.available_at(policy);
        let held = self.matured_through.is_none_or(|through| available_at > through);
        let number = self.earnings.len() + 1;
        let net_micros = frozen.gross_micros - frozen.fee_micros;
        let connected = earning.place == Place::Connected;
        self.earnings.push(EarningRow {
            payee,
            coin: coin(&earning.currency.code()),
            connected,
            gross_micros: frozen.gross_micros,
            net_micros,
            taken_back_gross_micros: 0,
            taken_back_net_micros: 0,
            charge: earning.charge_id.clone(),
            available_at,
        });
        let target = match (held, connected) {
            (true, false) => Account::HeldPlatform,
            (true, true) => Account::HeldConnected,
            (false, false) => Account::AvailablePlatform,
            (false, true) if self.is_automatic(payee) => Account::PaidOut,
            (false, true) => Account::AvailableConnected,
        };
        let post = |leg, to, micros| Posting {
            event: format!("earning:{number}"),
            leg,
            attempt: 1,
            payee: earning.creator_id,
            currency: earning.currency.code(),
            from: Account::Earnings,
            to,
            micros,
        };
        self.post(&[post("net", target, net_micros), post("fee", Account::Fees, frozen.fee_micros)])
    }

    /// Moves the watermark, and the money of all that matured since.
    pub fn mature(&mut self, through: Time) -> Result<(), Breach> {
        let since = self.matured_through;
        if since.is_some_and(|since| since >= through) {
            return Ok(());
        }
        self.matured_through = Some(through);
        let mut sums = std::collections::BTreeMap::new();
        let due =
            |earning: &&EarningRow| earning.available_at <= through && since.is_none_or(|since| earning.available_at > since);
        for earning in self.earnings.iter().filter(due) {
            let sum: &mut i64 = sums.entry((earning.payee, earning.coin, earning.connected)).or_default();
            *sum += earning.net_micros - earning.taken_back_net_micros;
        }
        let mut postings = Vec::with_capacity(sums.len());
        for ((payee, coin, connected), micros) in sums {
            let (leg, from, to) = match connected {
                false => ("platform", Account::HeldPlatform, Account::AvailablePlatform),
                true if self.is_automatic(payee) => ("connected", Account::HeldConnected, Account::PaidOut),
                true => ("connected", Account::HeldConnected, Account::AvailableConnected),
            };
            let currency = super::CURRENCIES[coin].to_owned();
            let event = format!("mature:{}:{payee}:{currency}", through.timestamp_micros());
            postings.push(Posting { event, leg, attempt: 1, payee: payee_id(payee), currency, from, to, micros });
        }
        self.post(&postings)
    }

    /// Takes back what a dispute or refund claims of a charge in all, less what it took before.
    pub fn take_back(&mut self, source: &str, charge: &str, cumulative_minor: i64, code: &str) -> Result<TakenBack, Breach> {
        let named: Vec<usize> =
            (0..self.earnings.len()).filter(|at| self.earnings[*at].charge.as_deref() == Some(charge)).collect();
        if named.is_empty() {
            return Ok(TakenBack::NoEarning);
        }
        let currency = super::currency(coin(code));
        let mut claimed = cumulative_minor * currency.micros_per_minor();
        let mut taken = 0;
        for at in named {
            let claims = |(of, _): &(&(usize, String), &i64)| of.0 == at;
            let others: i64 =
                self.taken_back.iter().filter(claims).filter(|(of, _)| of.1 != source).map(|(_, micros)| micros).sum();
            let known = self.taken_back.get(&(at, source.to_owned())).map(|micros| Known { micros: *micros, said_at: None });
            let row = &mut self.earnings[at];
            let of_this = claimed.min(row.gross_micros);
            claimed -= of_this;
            let parts = Parts {
                gross_micros: row.gross_micros,
                net_micros: row.net_micros,
                taken_back_gross_micros: row.taken_back_gross_micros,
                taken_back_net_micros: row.taken_back_net_micros,
            };
            let Some(claim) = taking_back::heard(known, of_this, None) else { continue };
            let (gross, net) = taking_back::change(&parts, others + claim);
            row.taken_back_gross_micros += gross;
            row.taken_back_net_micros += net;
            if !(0..=row.net_micros).contains(&row.taken_back_net_micros)
                || !(0..=row.gross_micros).contains(&row.taken_back_gross_micros)
            {
                return Err(Breach::new("the database takes it: creator_earnings_taken_back_is_a_part", format!("{row:?}")));
            }
            let (payee, place) = (row.payee, if row.connected { Place::Connected } else { Place::Platform });
            let (held, row_coin) = (self.matured_through.is_none_or(|through| row.available_at > through), row.coin);
            self.taken_back.insert((at, source.to_owned()), claim);
            taken += net;
            let balance = self.balance(payee, row_coin);
            let available = (balance[Account::AvailablePlatform as usize], balance[Account::AvailableConnected as usize]);
            let sources = taking_back::sources(held, place, net, available);
            let posting = |leg, from, micros| Posting {
                event: format!("reversal:{}:{source}:{of_this}", at + 1),
                leg,
                attempt: 1,
                payee: payee_id(payee),
                currency: code.to_owned(),
                from,
                to: Account::Earnings,
                micros,
            };
            let mut postings: Vec<Posting> = sources.into_iter().map(|(leg, from, micros)| posting(leg, from, micros)).collect();
            postings.push(posting("fee", Account::Fees, gross - net));
            self.post(&postings)?;
        }
        Ok(TakenBack::Net(taken))
    }
}
