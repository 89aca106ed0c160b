//! What `payees::store` does: accounts as Stripe describes them.

use chrono::SubsecRound;
use payday::payouts::item::Status;

use super::{AccountRow, Tables, Time, payee_number};
use crate::stripe::accounts::Described;

impl Tables {
    /// Whether Stripe pays the account out by itself; nobody knows of one without account, which counts as automatic.
    pub fn is_automatic(&self, payee: usize) -> bool {
        !self.payees[payee].account.as_ref().is_some_and(|account| account.manual)
    }

    pub fn payee_of_account(&self, account: &str) -> Option<usize> {
        self.payees.iter().position(|payee| payee.account.as_ref().is_some_and(|row| row.account == account))
    }

    /// Records what Stripe says of a payee's account. Another bank account is a change of destination; the first is none.
    /// Refused payouts go out again by themselves once it is another one.
    pub fn describe(&mut self, payee: usize, said: &Described, at: Time, now: Time) {
        let before = self.payees[payee].account.as_ref().and_then(|row| row.destination.clone());
        let at = at.trunc_subsecs(0);
        let new = AccountRow {
            account: said.id.clone(),
            transfers_active: said.transfers_active,
            payouts_enabled: said.payouts_enabled,
            past_due: said.past_due,
            manual: said.manual,
            destination: Some(said.bank.clone()),
            destination_changed_at: None,
            deauthorized_at: None,
            state_at: at,
            stale: false,
        };
        let row = match &self.payees[payee].account {
            None => new,
            Some(old) => {
                let another = old.account != new.account || old.destination != new.destination;
                AccountRow {
                    destination_changed_at: if another { Some(at) } else { old.destination_changed_at },
                    // Only who has read it knows that nothing newer waits.
                    stale: old.stale,
                    deauthorized_at: if old.account == new.account { old.deauthorized_at } else { None },
                    ..new
                }
            }
        };
        self.payees[payee].account = Some(row);
        if before.as_deref() != Some(said.bank.as_str()) {
            self.retry_payouts_of(payee, now);
        }
    }

    /// When what is known of a payee's account is from, if it is still that account.
    pub fn known_from(&self, payee: usize, account: &str) -> Option<Time> {
        self.payees[payee].account.as_ref().filter(|row| row.account == account).map(|row| row.state_at)
    }

    /// The row of an account, if somebody has it.
    fn row_of(&mut self, account: &str) -> Option<&mut AccountRow> {
        self.payees.iter_mut().filter_map(|payee| payee.account.as_mut()).find(|row| row.account == account)
    }

    /// Whether there was such an account.
    pub fn deauthorize(&mut self, account: &str, at: Time) -> bool {
        let row = self.row_of(account);
        row.map(|row| row.deauthorized_at = row.deauthorized_at.or(Some(at))).is_some()
    }

    /// Whether there was such an account.
    pub fn mark_stale(&mut self, account: &str, stale: bool) -> bool {
        self.row_of(account).map(|row| row.stale = stale).is_some()
    }

    /// Accounts to be read again, the last payee's first.
    pub fn stale(&self) -> Vec<(usize, String)> {
        let row = |payee: &super::Payee| payee.account.as_ref().filter(|row| row.stale).map(|row| row.account.clone());
        self.payees.iter().enumerate().rev().filter_map(|(number, payee)| Some((number, row(payee)?))).collect()
    }

    /// Makes payout legs that were refused due again: the bank account is another one, and nobody has blocked the payee.
    fn retry_payouts_of(&mut self, payee: usize, now: Time) {
        if self.payees[payee].blocked_reason.is_some() {
            return;
        }
        for row in &mut self.items {
            let refused = matches!(row.item.status, Status::PayoutBlocked | Status::Returned);
            if payee_number(row.item.payee) == payee && refused && row.due_at.is_none() {
                row.due_at = Some(now);
            }
        }
    }
}
