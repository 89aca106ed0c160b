//! Connected accounts: `GET /v1/accounts` and what a platform may do to one.
//! <https://docs.stripe.com/api/accounts>

use hyper::body::Bytes;
use serde::Serialize;

use super::errors::ApiError;
use super::form::Params;
use super::lists::{Listing, json};
use super::objects::bank_view;
use super::spec::{AccountSpec, BankSpec};
use super::world::{Owner, PLATFORM, World};

#[derive(Serialize)]
struct AccountLink {
    object: &'static str,
    created: i64,
    expires_at: i64,
    url: String,
}

#[derive(Serialize)]
struct Application {
    id: &'static str,
    object: &'static str,
    name: &'static str,
}

impl World {
    pub(super) fn list_accounts(&self, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["created", "ending_before", "limit", "starting_after"])?;
        let created = params.range("created")?;
        Listing {
            url: "/v1/accounts",
            what: "account",
            len: self.accounts.len(),
            nth: |i: usize| i,
            number_of: |id: &str| self.connected(id),
        }
        .page(
            params,
            |owner| {
                let account = &self.accounts[owner];
                owner != PLATFORM && !account.deauthorized && created.holds(account.created_ms.div_euclid(1000))
            },
            |owner| self.account_view(owner),
        )
    }

    /// A platform asking for an account that is not its own is not told "missing" but "no access".
    pub(super) fn find_account(&self, id: &str, key: &str) -> Result<Owner, ApiError> {
        if self.account_id(PLATFORM) == id {
            return Ok(PLATFORM);
        }
        self.connected(id).ok_or_else(|| ApiError::account_invalid(key, id))
    }

    pub(super) fn create_account(&mut self, params: &Params) -> Result<(String, Bytes), ApiError> {
        let country = params.get("country").unwrap_or("US").to_owned();
        if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(ApiError::invalid(format!("Country '{country}' is unknown."))
                .code("country_unsupported")
                .param("country"));
        }
        let mut spec = AccountSpec {
            country,
            email: params.get("email").map(str::to_owned),
            kind: params.get("type").unwrap_or("none").to_owned(),
            transfers: params
                .get("capabilities[transfers][requested]")
                .filter(|v| *v == "true")
                .map_or(String::new(), |_| "inactive".to_owned()),
            charges_enabled: false,
            payouts_enabled: false,
            details_submitted: false,
            currently_due: vec!["external_account".to_owned(), "tos_acceptance.date".to_owned()],
            disabled_reason: Some("requirements.past_due".to_owned()),
            payout_interval: Some(params.get("settings[payouts][schedule][interval]").unwrap_or("daily").to_owned()),
            banks: Vec::new(),
            ..AccountSpec::default()
        };
        if let Some(currency) = params.get("default_currency") {
            currency.clone_into(&mut spec.default_currency);
        }
        spec.past_due.clone_from(&spec.currently_due);
        spec.metadata = params.metadata()?.into_iter().collect();
        let owner = self.insert_account(spec);
        Ok((self.account_id(owner).to_owned(), self.account_json(owner)))
    }

    pub(super) fn create_account_link(&self, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["account", "collect", "collection_options", "refresh_url", "return_url", "type"])?;
        let account = params.required("account")?;
        params.required("type")?;
        let owner = self.connected(account).ok_or_else(|| ApiError::no_such_param("account", account, "account"))?;
        let created = self.now_ms.div_euclid(1000);
        Ok(json(&AccountLink {
            object: "account_link",
            created,
            expires_at: created + 300,
            url: format!("https://connect.stripe.com/setup/e/{}/double", self.account_id(owner)),
        }))
    }

    pub(super) fn list_external_accounts(&self, owner: Owner, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["ending_before", "limit", "object", "starting_after"])?;
        let spec = &self.accounts[owner].spec;
        Listing {
            url: &format!("/v1/accounts/{}/external_accounts", spec.id),
            what: "external account",
            len: spec.banks.len(),
            nth: |i: usize| i,
            number_of: |id: &str| spec.banks.iter().position(|bank| bank.id == id),
        }
        .page(params, |_| true, |i| bank_view(&spec.id, &spec.banks[i]))
    }

    /// The account becomes as `after` says; Stripe tells the platform what changed.
    pub(super) fn change_account(&mut self, owner: Owner, mut after: AccountSpec) {
        self.name_banks(&mut after);
        after.id = self.account_id(owner).to_owned();
        let before = std::mem::replace(&mut self.accounts[owner].spec, after);
        if before == self.accounts[owner].spec {
            return;
        }
        let after_banks = self.accounts[owner].spec.banks.clone();
        for bank in &after_banks {
            match before.banks.iter().find(|b| b.id == bank.id) {
                None => self.bank_event("account.external_account.created", owner, bank),
                Some(old) if old != bank => self.bank_event("account.external_account.updated", owner, bank),
                Some(_) => {}
            }
        }
        for bank in before.banks.iter().filter(|b| !after_banks.iter().any(|a| a.id == b.id)) {
            self.bank_event("account.external_account.deleted", owner, bank);
        }
        let body = self.account_json(owner);
        let id = self.account_id(owner).to_owned();
        let previous =
            format!("{{\"payouts_enabled\":{},\"charges_enabled\":{}}}", before.payouts_enabled, before.charges_enabled);
        self.emit("account.updated", owner, &id, body, Some(previous));
    }

    fn bank_event(&mut self, kind: &str, owner: Owner, bank: &BankSpec) {
        let body = json(&bank_view(self.account_id(owner), bank));
        self.emit(kind, owner, &bank.id, body, None);
    }

    /// The account's owner revokes the platform's access: it is gone for every request, and the last
    /// thing heard of it is this event.
    pub(super) fn deauthorize_account(&mut self, owner: Owner) {
        let body = json(&Application { id: "ca_double", object: "application", name: "Payday" });
        self.emit("account.application.deauthorized", owner, "ca_double", body, None);
        self.accounts[owner].deauthorized = true;
    }
}
