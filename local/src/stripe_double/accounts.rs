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

#[derive(Serialize)]
struct CapabilityView<'a> {
    id: &'static str,
    object: &'static str,
    account: &'a str,
    requested: bool,
    status: &'static str,
}

/// What `POST /v1/accounts` asks for, as far as the double knows the rules.
struct NewAccount {
    country: String,
    transfers: bool,
    interval: String,
}

/// <https://docs.stripe.com/connect/cross-border-payouts>
const ACROSS: [&str; 34] = [
    "US", "GB", "CA", "CH", "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT",
    "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// Whether a platform can have accounts of that country under the full service agreement.
fn full_reaches(platform_country: &str, country: &str) -> bool {
    country == platform_country || ACROSS.contains(&platform_country) && ACROSS.contains(&country)
}

impl NewAccount {
    fn parse(params: &Params, platform_country: &str) -> Result<Self, ApiError> {
        params.only(&[
            "business_profile",
            "business_type",
            "capabilities",
            "company",
            "controller",
            "country",
            "default_currency",
            "email",
            "individual",
            "metadata",
            "settings",
            "tos_acceptance",
            "type",
        ])?;
        let country = params.get("country").unwrap_or(platform_country).to_owned();
        if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) || country == "ZZ" {
            return Err(ApiError::refused("country_unsupported", format!("Country '{country}' is unknown.")).param("country"));
        }
        if params.get("email").is_some_and(|email| !email.contains('@')) {
            return Err(ApiError::refused("email_invalid", "Invalid email address").param("email"));
        }
        if params.get("type").is_some() && params.get("controller[stripe_dashboard][type]").is_some() {
            return Err(ApiError::refused("", "You may only specify one of these parameters: type, controller."));
        }
        let requested = |name: &str| params.get(&format!("capabilities[{name}][requested]")) == Some("true");
        let (transfers, card_payments) = (requested("transfers"), requested("card_payments"));
        let interval = params.get("settings[payouts][schedule][interval]").unwrap_or("daily").to_owned();
        if !["manual", "daily", "weekly", "monthly"].contains(&interval.as_str()) {
            return Err(ApiError::invalid(format!("Invalid interval: {interval}")).param("settings[payouts][schedule][interval]"));
        }
        let refused = |message: String| Err(ApiError::refused("", message));
        let full_reaches = full_reaches(platform_country, &country);
        match params.get("tos_acceptance[service_agreement]") {
            None | Some("full") if !full_reaches => refused(format!(
                "Funds can't be sent to accounts located in {country} because of restrictions to protect your platform. \
                 Accounts there must be under the recipient service agreement."
            )),
            None | Some("full") if transfers && !card_payments => refused(format!(
                "Your platform needs approval for accounts in {country} to have requested the `transfers` capability without the \
                 `card_payments` capability."
            )),
            Some("recipient") if country == platform_country => refused(format!(
                "The recipient ToS agreement is not supported for platforms in {platform_country} creating accounts in {country}."
            )),
            Some("recipient") if card_payments => {
                refused("The `card_payments` capability cannot be requested under the recipient service agreement.".to_owned())
            }
            None | Some("full" | "recipient") => Ok(Self { country, transfers, interval }),
            Some(other) => refused(format!("Invalid tos_acceptance[service_agreement]: {other}")),
        }
    }
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
        let new = NewAccount::parse(params, self.account_country())?;
        let mut wants = vec!["external_account".to_owned(), "tos_acceptance.date".to_owned(), "tos_acceptance.ip".to_owned()];
        wants.extend(["individual.first_name", "individual.last_name", "individual.dob.day"].map(str::to_owned));
        let spec = AccountSpec {
            country: new.country,
            email: params.get("email").map(str::to_owned),
            kind: params.get("type").unwrap_or("none").to_owned(),
            transfers: if new.transfers { "inactive" } else { "" }.to_owned(),
            charges_enabled: false,
            payouts_enabled: false,
            details_submitted: false,
            past_due: wants.clone(),
            currently_due: wants,
            disabled_reason: Some("requirements.past_due".to_owned()),
            payout_interval: Some(new.interval),
            banks: Vec::new(),
            metadata: params.metadata()?.into_iter().collect(),
            default_currency: params.get("default_currency").unwrap_or("usd").to_owned(),
            ..AccountSpec::default()
        };
        let owner = self.insert_account(spec);
        Ok((self.account_id(owner).to_owned(), self.account_json(owner)))
    }

    fn account_country(&self) -> &str {
        &self.accounts[PLATFORM].spec.country
    }

    /// The owner has given everything and named a bank account: Stripe tells of the bank account, the capability, the account.
    pub(super) fn finish_onboarding(&mut self, owner: Owner) {
        let mut spec = self.accounts[owner].spec.clone();
        for list in [&mut spec.currently_due, &mut spec.past_due, &mut spec.eventually_due] {
            list.clear();
        }
        spec.disabled_reason = None;
        (spec.payouts_enabled, spec.details_submitted) = (true, true);
        // A recipient never takes payments.
        spec.charges_enabled = full_reaches(self.account_country(), &spec.country);
        "active".clone_into(&mut spec.transfers);
        if spec.banks.is_empty() {
            spec.banks.push(BankSpec {
                country: spec.country.clone(),
                currency: spec.default_currency.clone(),
                ..BankSpec::default()
            });
        }
        let body =
            json(&CapabilityView { id: "transfers", object: "capability", account: &spec.id, requested: true, status: "active" });
        self.emit("capability.updated", owner, "transfers", body, None);
        self.change_account(owner, spec);
    }

    pub(super) fn create_account_link(&self, params: &Params) -> Result<Bytes, ApiError> {
        params.only(&["account", "collect", "collection_options", "refresh_url", "return_url", "type"])?;
        let account = params.required("account")?;
        let owner = self.connected(account).ok_or_else(|| ApiError::no_such_param("account", account, "account"))?;
        if !matches!(params.required("type")?, "account_onboarding" | "account_update") {
            return Err(ApiError::invalid("Invalid type: must be one of account_onboarding or account_update").param("type"));
        }
        for name in ["refresh_url", "return_url"] {
            let url = params.required(name)?;
            let schemes = if self.settings.livemode { &["https://"][..] } else { &["https://", "http://"] };
            if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
                return Err(ApiError::refused("url_invalid", "Not a valid URL").param(name));
            }
        }
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
