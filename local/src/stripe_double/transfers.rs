//! `POST /v1/transfers`, its reversals and its lists. Money leaves the platform's available balance and
//! arrives at the connected account as a payment, at once or after a while.
//! <https://docs.stripe.com/api/transfers>, <https://docs.stripe.com/connect/separate-charges-and-transfers>

use hyper::body::Bytes;

use super::currency::Currency;
use super::errors::ApiError;
use super::form::{Metadata, Params};
use super::lists::{Listing, json};
use super::objects::reversal_view;
use super::world::{Owner, PLATFORM, Posting, Reversal, Transfer, World};

/// A request's parameters that passed validation, before anything is looked up.
pub(super) struct NewTransfer {
    amount: i64,
    currency: Currency,
    destination: String,
    group: Option<String>,
    description: Option<String>,
    metadata: Metadata,
    source_transaction: Option<String>,
}

impl NewTransfer {
    pub(super) fn for_charge(amount: i64, currency: Currency, charge: &str, group: String) -> Self {
        Self {
            amount,
            currency,
            destination: String::new(),
            group: Some(group),
            description: None,
            metadata: Metadata::new(),
            source_transaction: Some(charge.to_owned()),
        }
    }

    pub(super) fn parse(params: &Params) -> Result<Self, ApiError> {
        params.only(&[
            "amount",
            "currency",
            "description",
            "destination",
            "metadata",
            "source_transaction",
            "source_type",
            "transfer_group",
        ])?;
        let currency = params.currency("currency")?;
        let destination = params.required("destination")?.to_owned();
        Ok(Self {
            amount: params.amount("amount")?,
            currency,
            destination,
            group: params.get("transfer_group").map(str::to_owned),
            description: params.get("description").map(str::to_owned),
            metadata: params.metadata()?,
            source_transaction: params.get("source_transaction").map(str::to_owned),
        })
    }
}

impl World {
    pub(super) fn create_transfer(&mut self, new: NewTransfer) -> Result<(String, Bytes), ApiError> {
        let destination = self
            .connected(&new.destination)
            .ok_or_else(|| ApiError::no_such_param("destination", &new.destination, "destination"))?;
        if self.accounts[destination].spec.transfers != "active" {
            return Err(ApiError::refused(
                "insufficient_capabilities_for_transfer",
                "Your destination account needs to have at least one of the following capabilities enabled: transfers, \
                 crypto_transfers, legacy_payments",
            ));
        }
        if new.amount % new.currency.amount_step() != 0 {
            return Err(ApiError::refused("", indivisible(new.currency, new.currency.amount_step())).param("amount"));
        }
        if let Some(charge) = &new.source_transaction
            && !self.charges.iter().any(|c| &c.id == charge)
        {
            return Err(ApiError::no_such_param("charge", charge, "source_transaction"));
        }
        if self.funds(PLATFORM, new.currency).available < new.amount {
            return Err(ApiError::balance_insufficient());
        }
        let available_ms = self.now_ms + self.settings.transfer_available_after_ms;
        let index = self.move_transfer(new, destination, available_ms, 0, false);
        Ok(self.announce_transfer(index))
    }

    /// Moves the money of a transfer; for a destination charge the application fee is kept back on the
    /// way.
    fn move_transfer(&mut self, new: NewTransfer, destination: Owner, available_ms: i64, fee: i64, from_charge: bool) -> usize {
        let id = self.ids.make("tr");
        let payment = self.ids.make("py");
        let platform_available_ms = if from_charge { available_ms } else { self.now_ms };
        let balance_transaction = self.post(&Posting {
            owner: PLATFORM,
            kind: "transfer",
            reporting: "transfer",
            amount: -new.amount,
            fee: 0,
            currency: new.currency,
            source: &id,
            available_ms: platform_available_ms,
            exchange: None,
        });
        let (credited, exchange) = self.converted(destination, new.amount, new.currency);
        self.post(&Posting {
            owner: destination,
            kind: "payment",
            reporting: "charge",
            amount: credited.0,
            fee,
            currency: credited.1,
            source: &payment,
            available_ms,
            exchange,
        });
        let index = self.transfers.len();
        self.transfer_index.insert(id.clone(), index);
        if let Some(group) = &new.group {
            self.transfers_by_group.entry(group.clone()).or_default().push(index);
        }
        self.transfers.push(Transfer {
            id,
            amount: new.amount,
            currency: new.currency,
            destination,
            created_ms: self.now_ms,
            group: new.group,
            description: new.description,
            metadata: new.metadata,
            source_transaction: new.source_transaction,
            balance_transaction,
            destination_payment: payment,
            credited,
            reversals: Vec::new(),
            from_charge,
        });
        index
    }

    fn announce_transfer(&mut self, index: usize) -> (String, Bytes) {
        let body = self.transfer_json(index);
        let id = self.transfers[index].id.clone();
        self.emit("transfer.created", PLATFORM, &id, body.clone(), None);
        (id, body)
    }

    /// The automatic transfer of a destination charge.
    pub(super) fn charge_transfer(&mut self, new: NewTransfer, destination: Owner, fee: i64, available_ms: i64) -> usize {
        let index = self.move_transfer(new, destination, available_ms, fee, true);
        self.announce_transfer(index);
        index
    }

    /// What arrives: the transfer's own currency when a bank of the account takes it or no rate is
    /// known, else the account's default currency.
    fn converted(&self, destination: Owner, amount: i64, currency: Currency) -> ((i64, Currency), Option<(i64, i64)>) {
        let spec = &self.accounts[destination].spec;
        if spec.banks.iter().any(|b| b.currency == currency.as_str()) || spec.default_currency == currency.as_str() {
            return ((amount, currency), None);
        }
        let rate = self.settings.exchange.iter().find(|rate| rate.from == currency.as_str() && rate.to == spec.default_currency);
        match (rate, Currency::parse(&spec.default_currency)) {
            (Some(rate), Some(to)) => {
                let converted = i128::from(amount) * i128::from(rate.numerator) / i128::from(rate.denominator.max(1));
                ((i64::try_from(converted).unwrap_or(i64::MAX), to), Some((rate.numerator, rate.denominator)))
            }
            _ => ((amount, currency), None),
        }
    }

    pub(super) fn find_transfer(&self, id: &str) -> Result<usize, ApiError> {
        self.transfer_index.get(id).copied().ok_or_else(|| ApiError::no_such("transfer", id))
    }

    pub(super) fn list_transfers(&self, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["created", "destination", "ending_before", "limit", "starting_after", "transfer_group"])?;
        let created = params.range("created")?;
        let destination = params.get("destination");
        let keep = |index: usize| {
            let t = &self.transfers[index];
            created.holds(t.created_ms.div_euclid(1000)) && destination.is_none_or(|d| self.account_id(t.destination) == d)
        };
        let number_of = |id: &str| self.transfer_index.get(id).copied();
        let view = |index: usize| self.transfer_view(index);
        match params.get("transfer_group") {
            Some(group) => {
                let members = self.transfers_by_group.get(group).map_or(&[][..], Vec::as_slice);
                Listing { url: "/v1/transfers", what: "transfer", len: members.len(), nth: |i: usize| members[i], number_of }
                    .page(params, keep, view)
            }
            None => Listing { url: "/v1/transfers", what: "transfer", len: self.transfers.len(), nth: |i: usize| i, number_of }
                .page(params, keep, view),
        }
    }

    pub(super) fn create_reversal(&mut self, transfer_id: &str, params: &Params) -> Result<(String, Bytes), ApiError> {
        let index = self.find_transfer(transfer_id)?;
        let remaining = self.transfers[index].amount - self.transfers[index].amount_reversed();
        let amount = match params.get("amount") {
            None => remaining,
            Some(_) => params.amount("amount")?,
        };
        if remaining == 0 {
            return Err(ApiError::refused("", format!("Transfer {transfer_id} is already fully reversed.")));
        }
        if amount > remaining {
            return Err(ApiError::refused(
                "",
                format!("Reversal amount ({amount}) is greater than unreversed amount on transfer ({remaining})"),
            )
            .param("amount"));
        }
        // "possible … only if the destination account has enough balance to cover the reversal"
        let (debited, currency) = self.reversal_share(index, amount);
        if self.funds(self.transfers[index].destination, currency).available < debited {
            return Err(ApiError::balance_insufficient());
        }
        let reversal = self.reverse(index, amount, params.metadata()?);
        let transfer = &self.transfers[index];
        let view = reversal_view(transfer, &transfer.reversals[reversal]);
        Ok((transfer.reversals[reversal].id.clone(), json(&view)))
    }

    fn reversal_share(&self, index: usize, amount: i64) -> (i64, Currency) {
        let t = &self.transfers[index];
        let share = i128::from(t.credited.0) * i128::from(amount) / i128::from(t.amount.max(1));
        (i64::try_from(share).unwrap_or(i64::MAX), t.credited.1)
    }

    /// Takes money back from the connected account, whatever its balance, and says so.
    pub(super) fn reverse(&mut self, index: usize, amount: i64, metadata: Metadata) -> usize {
        let before = self.transfers[index].amount_reversed();
        let (debited, debited_currency) = self.reversal_share(index, amount);
        let (destination, currency) = (self.transfers[index].destination, self.transfers[index].currency);
        let id = self.ids.make("trr");
        let refund = self.ids.make("pyr");
        let now_ms = self.now_ms;
        self.post(&Posting {
            owner: destination,
            kind: "payment_refund",
            reporting: "refund",
            amount: -debited,
            fee: 0,
            currency: debited_currency,
            source: &refund,
            available_ms: now_ms,
            exchange: None,
        });
        let balance_transaction = self.post(&Posting {
            owner: PLATFORM,
            kind: "transfer_refund",
            reporting: "transfer_reversal",
            amount,
            fee: 0,
            currency,
            source: &id,
            available_ms: now_ms,
            exchange: None,
        });
        self.transfers[index].reversals.push(Reversal {
            id,
            amount,
            created_ms: now_ms,
            metadata,
            balance_transaction,
            destination_payment_refund: refund,
        });
        let body = self.transfer_json(index);
        let transfer_id = self.transfers[index].id.clone();
        self.emit("transfer.reversed", PLATFORM, &transfer_id, body, Some(format!("{{\"amount_reversed\":{before}}}")));
        self.transfers[index].reversals.len() - 1
    }

    pub(super) fn list_reversals(&self, transfer_id: &str, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["ending_before", "limit", "starting_after"])?;
        let transfer = &self.transfers[self.find_transfer(transfer_id)?];
        Listing {
            url: &format!("/v1/transfers/{transfer_id}/reversals"),
            what: "transfer_reversal",
            len: transfer.reversals.len(),
            nth: |i: usize| i,
            number_of: |id: &str| transfer.reversals.iter().position(|r| r.id == id),
        }
        .page(params, |_| true, |i| reversal_view(transfer, &transfer.reversals[i]))
    }
}

/// <https://docs.stripe.com/currencies#special-cases>
pub(super) fn indivisible(currency: Currency, step: i64) -> String {
    format!("Invalid amount: amounts in {currency} must be evenly divisible by {step}.")
}
