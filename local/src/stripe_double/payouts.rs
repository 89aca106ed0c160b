//! Payouts: the connected balance goes to a bank, by request or (on accounts with an automatic schedule)
//! by itself. `pending` → `in_transit` → `paid`, or `failed` (also days after `paid`), or `canceled`.
//! <https://docs.stripe.com/api/payouts>, <https://docs.stripe.com/connect/manage-payout-schedule>

use hyper::body::Bytes;

use super::currency::Currency;
use super::errors::ApiError;
use super::form::{Metadata, Params};
use super::lists::Listing;
use super::objects::bank_view;
use super::spec::{PayoutOutcome, Settlement};
use super::transfers::indivisible;
use super::world::{Due, Owner, Payout, PayoutStatus, Posting, World};

pub(super) struct NewPayout {
    amount: i64,
    currency: Currency,
    destination: Option<String>,
    instant: bool,
    metadata: Metadata,
    description: Option<String>,
    statement_descriptor: Option<String>,
}

impl NewPayout {
    pub(super) fn parse(params: &Params) -> Result<Self, ApiError> {
        params.only(&[
            "amount",
            "currency",
            "description",
            "destination",
            "metadata",
            "method",
            "payout_method",
            "source_type",
            "statement_descriptor",
        ])?;
        let amount = params.amount("amount")?;
        let currency = params.currency("currency")?;
        let method = params.get("method").unwrap_or("standard");
        if method != "standard" && method != "instant" {
            return Err(ApiError::invalid("Invalid method: must be one of instant or standard").param("method"));
        }
        let statement_descriptor = params.get("statement_descriptor").map(str::to_owned);
        if statement_descriptor.as_ref().is_some_and(|text| text.chars().count() > 22) {
            return Err(
                ApiError::invalid("The statement descriptor must be at most 22 characters.").param("statement_descriptor")
            );
        }
        Ok(Self {
            amount,
            currency,
            destination: params.get("destination").map(str::to_owned),
            instant: method == "instant",
            metadata: params.metadata()?,
            description: params.get("description").map(str::to_owned),
            statement_descriptor,
        })
    }
}

impl World {
    pub(super) fn create_payout(&mut self, owner: Owner, new: NewPayout) -> Result<(String, Bytes), ApiError> {
        let account = &self.accounts[owner].spec;
        if !account.payouts_enabled {
            return Err(ApiError::refused(
                "payouts_not_allowed",
                "Cannot create payouts: this account has requirements that need to be collected.",
            ));
        }
        let bank = match &new.destination {
            Some(id) => account
                .banks
                .iter()
                .find(|bank| &bank.id == id)
                .ok_or_else(|| ApiError::no_such_param("external account", id, "destination"))?,
            None => {
                let mut banks = account.banks.iter().filter(|bank| bank.currency == new.currency.as_str());
                let first = banks.next();
                banks
                    .find(|bank| bank.default_for_currency)
                    .filter(|_| first.is_some_and(|b| !b.default_for_currency))
                    .or(first)
                    .ok_or_else(|| {
                        ApiError::refused(
                            "",
                            format!("Sorry, you don't have any external accounts in that currency ({}).", new.currency),
                        )
                    })?
            }
        };
        if bank.currency != new.currency.as_str() {
            return Err(ApiError::refused(
                "",
                format!("Sorry, you don't have any external accounts in that currency ({}).", new.currency),
            ));
        }
        if new.instant {
            return Err(ApiError::refused(
                "instant_payouts_unsupported",
                "This bank account is not eligible for Instant Payouts.",
            )
            .param("method"));
        }
        if bank.status == "errored" {
            return Err(ApiError::refused(
                "bank_account_unusable",
                "The bank account provided can't be used for payouts. A different bank account must be used.",
            ));
        }
        let step = new.currency.payout_step();
        if new.amount % step != 0 {
            return Err(ApiError::refused("", indivisible(new.currency, step)).param("amount"));
        }
        let minimum = new.currency.minimum_payout(&bank.country);
        if new.amount < minimum {
            return Err(ApiError::refused("amount_too_small", format!("Amount must be at least {minimum} {}.", new.currency))
                .param("amount"));
        }
        let destination = bank.id.clone();
        if self.funds(owner, new.currency).available < new.amount {
            return Err(ApiError::balance_insufficient());
        }
        let index = self.start_payout(owner, new, destination, false);
        Ok((self.payouts[index].id.clone(), self.payout_json(index)))
    }

    fn start_payout(&mut self, owner: Owner, new: NewPayout, destination: String, automatic: bool) -> usize {
        let id = self.ids.make("po");
        let balance_transaction = self.payout_posting(owner, "payout", -new.amount, new.currency, &id);
        let index = self.payouts.len();
        self.payout_index.insert(id.clone(), index);
        self.accounts[owner].payouts.push(index);
        self.payouts.push(Payout {
            id,
            owner,
            amount: new.amount,
            currency: new.currency,
            created_ms: self.now_ms,
            arrival_ms: self.now_ms + 2 * 86_400_000,
            automatic,
            status: PayoutStatus::Pending,
            destination,
            balance_transaction,
            failure_balance_transaction: None,
            failure_code: None,
            metadata: new.metadata,
            description: new.description,
            statement_descriptor: new.statement_descriptor,
        });
        self.payout_event("payout.created", index, None);
        if let Settlement::Automatic { in_transit_after_ms, paid_after_ms } = self.settings.settlement {
            let now = self.now_ms;
            self.schedule(now + in_transit_after_ms, Due::PayoutInTransit(index));
            self.schedule(now + paid_after_ms.max(in_transit_after_ms), Due::PayoutSettles(index));
        }
        index
    }

    fn payout_posting(&mut self, owner: Owner, kind: &'static str, amount: i64, currency: Currency, source: &str) -> String {
        let available_ms = self.now_ms;
        self.post(&Posting {
            owner,
            kind,
            reporting: if kind == "payout" { "payout" } else { "payout_reversal" },
            amount,
            fee: 0,
            currency,
            source,
            available_ms,
            exchange: None,
        })
    }

    fn payout_event(&mut self, kind: &str, index: usize, previous: Option<String>) {
        let body = self.payout_json(index);
        let (owner, id) = (self.payouts[index].owner, self.payouts[index].id.clone());
        self.emit(kind, owner, &id, body, previous);
    }

    fn change_status(&mut self, index: usize, to: PayoutStatus) -> Option<String> {
        let before = self.payouts[index].status;
        self.payouts[index].status = to;
        Some(format!("{{\"status\":\"{}\"}}", before.as_str()))
    }

    pub(super) fn payout_in_transit(&mut self, index: usize) {
        if self.payouts[index].status == PayoutStatus::Pending {
            let previous = self.change_status(index, PayoutStatus::InTransit);
            self.payout_event("payout.updated", index, previous);
        }
    }

    /// The bank decides, as the bank account's outcome says.
    pub(super) fn payout_settles(&mut self, index: usize) {
        if !matches!(self.payouts[index].status, PayoutStatus::Pending | PayoutStatus::InTransit) {
            return;
        }
        match self.outcome_of(index) {
            PayoutOutcome::Paid => self.payout_arrives(index),
            PayoutOutcome::Failed(code) => self.payout_fails(index, &code),
            PayoutOutcome::PaidThenFailed { code, after_ms } => {
                self.payout_arrives(index);
                let at = self.now_ms + after_ms;
                self.schedule(at, Due::PayoutFails(index, code));
            }
            PayoutOutcome::Stuck => self.payout_in_transit(index),
        }
    }

    fn outcome_of(&self, index: usize) -> PayoutOutcome {
        let payout = &self.payouts[index];
        self.accounts[payout.owner]
            .spec
            .banks
            .iter()
            .find(|bank| bank.id == payout.destination)
            .map_or(PayoutOutcome::Paid, |bank| bank.outcome.clone())
    }

    fn payout_arrives(&mut self, index: usize) {
        self.payout_in_transit(index);
        let previous = self.change_status(index, PayoutStatus::Paid);
        self.payouts[index].arrival_ms = self.now_ms;
        self.payout_event("payout.paid", index, previous);
    }

    /// Money back on the connected balance; the bank account cannot be used until it is replaced: "the
    /// external account involved is disabled and no automatic or manual payouts can go through".
    pub(super) fn payout_fails(&mut self, index: usize, code: &str) {
        if matches!(self.payouts[index].status, PayoutStatus::Failed | PayoutStatus::Canceled) {
            return;
        }
        let (owner, amount, currency, id) = {
            let p = &self.payouts[index];
            (p.owner, p.amount, p.currency, p.id.clone())
        };
        let previous = self.change_status(index, PayoutStatus::Failed);
        // The bank first: the returned money must not start an automatic payout to it.
        let destination = self.payouts[index].destination.clone();
        let failed_bank = code != "could_not_process";
        if failed_bank && let Some(bank) = self.accounts[owner].spec.banks.iter_mut().find(|bank| bank.id == destination) {
            "errored".clone_into(&mut bank.status);
        }
        let txn = self.payout_posting(owner, "payout_failure", amount, currency, &id);
        let payout = &mut self.payouts[index];
        payout.failure_balance_transaction = Some(txn);
        payout.failure_code = Some(code.to_owned());
        self.payout_event("payout.failed", index, previous);
        if failed_bank {
            let account = &self.accounts[owner].spec;
            if let Some(bank) = account.banks.iter().find(|bank| bank.id == destination) {
                let body = super::lists::json(&bank_view(&account.id, bank));
                self.emit("account.external_account.updated", owner, &destination, body, None);
            }
        }
    }

    pub(super) fn cancel_payout(&mut self, owner: Owner, id: &str) -> Result<(String, Bytes), ApiError> {
        let index = self.find_payout(owner, id)?;
        if self.payouts[index].status != PayoutStatus::Pending || self.payouts[index].automatic {
            return Err(ApiError::refused("", "Payouts can only be canceled while they are pending."));
        }
        let (amount, currency) = (self.payouts[index].amount, self.payouts[index].currency);
        let previous = self.change_status(index, PayoutStatus::Canceled);
        let txn = self.payout_posting(owner, "payout_cancel", amount, currency, id);
        self.payouts[index].failure_balance_transaction = Some(txn);
        self.payout_event("payout.canceled", index, previous);
        Ok((id.to_owned(), self.payout_json(index)))
    }

    /// An automatic payout takes all that is available and says so with `automatic: true`.
    pub(super) fn automatic_payout(&mut self, owner: Owner, currency: Currency) {
        let spec = &self.accounts[owner].spec;
        if !spec.is_automatic() || !spec.payouts_enabled || self.accounts[owner].deauthorized {
            return;
        }
        let Some(bank) = spec.banks.iter().find(|b| b.currency == currency.as_str() && b.status != "errored") else {
            return;
        };
        let available = self.funds(owner, currency).available;
        let amount = available - available.rem_euclid(currency.payout_step());
        if amount < currency.minimum_payout(&bank.country).max(1) {
            return;
        }
        let destination = bank.id.clone();
        let taken: Vec<usize> = self.accounts[owner]
            .txns
            .iter()
            .copied()
            .filter(|i| {
                let txn = &self.txns[*i];
                !txn.pending && txn.payout.is_none() && txn.currency == currency
            })
            .collect();
        let new = NewPayout {
            amount,
            currency,
            destination: None,
            instant: false,
            metadata: Metadata::new(),
            description: Some("STRIPE PAYOUT".to_owned()),
            statement_descriptor: None,
        };
        let index = self.start_payout(owner, new, destination, true);
        for i in taken {
            self.txns[i].payout = Some(index);
        }
    }

    pub(super) fn find_payout(&self, owner: Owner, id: &str) -> Result<usize, ApiError> {
        self.payout_index
            .get(id)
            .copied()
            .filter(|index| self.payouts[*index].owner == owner)
            .ok_or_else(|| ApiError::no_such("payout", id))
    }

    pub(super) fn list_payouts(&self, owner: Owner, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["arrival_date", "created", "destination", "ending_before", "limit", "starting_after", "status"])?;
        let (created, arrival) = (params.range("created")?, params.range("arrival_date")?);
        let (status, destination) = (params.get("status"), params.get("destination"));
        if let Some(status) = status
            && !["pending", "in_transit", "paid", "failed", "canceled"].contains(&status)
        {
            return Err(ApiError::invalid(format!("Invalid status: {status}")).param("status"));
        }
        let own = &self.accounts[owner].payouts;
        Listing {
            url: "/v1/payouts",
            what: "payout",
            len: own.len(),
            nth: |i: usize| own[i],
            number_of: |id: &str| self.find_payout(owner, id).ok(),
        }
        .page(
            params,
            |index| {
                let p = &self.payouts[index];
                created.holds(p.created_ms.div_euclid(1000))
                    && arrival.holds(p.arrival_ms.div_euclid(1000))
                    && status.is_none_or(|s| p.status.as_str() == s)
                    && destination.is_none_or(|d| p.destination == d)
            },
            |index| self.payout_view(index),
        )
    }
}
