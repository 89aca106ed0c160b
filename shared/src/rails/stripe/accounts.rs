//! Connected accounts: as Stripe describes them, created, linked to for onboarding, listed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use http::Method;
use serde::{Deserialize, Serialize};
use stripe::StripeRequest;
use stripe_connect::account::{
    CreateAccount, CreateAccountCapabilities, CreateAccountCapabilitiesCardPayments, CreateAccountCapabilitiesTransfers,
    CreateAccountController, CreateAccountControllerFees, CreateAccountControllerFeesPayer, CreateAccountControllerLosses,
    CreateAccountControllerLossesPayments, CreateAccountControllerRequirementCollection, CreateAccountControllerStripeDashboard,
    CreateAccountControllerStripeDashboardType, CreateAccountSettings, CreateAccountSettingsPayouts,
    CreateAccountSettingsPayoutsSchedule, CreateAccountSettingsPayoutsScheduleInterval, ListAccount, RetrieveAccount,
    TosAcceptanceSpecs,
};
use stripe_connect::account_link::{CreateAccountLink, CreateAccountLinkType};
use stripe_types::{RangeBoundsTs, RangeQueryTs};

use super::{List, Stripe};
use crate::boundary::Boundary;
use crate::error::{Error, Kind, Result};
use crate::http_client::{Answer, Failure};

/// The name in an account's metadata under which it bears `{instance}-{payee}`.
const MARK: &str = "payday_payee";
/// So many pages of new accounts are looked through for one whose creation is in doubt.
const LOOKUP_PAGES: usize = 50;

/// A connected account as Stripe describes it: the fields that readiness depends on.
#[derive(Debug, Clone, Deserialize)]
pub struct Account {
    pub id: String,
    #[serde(default)]
    pub country: Option<String>,
    #[serde(default)]
    pub charges_enabled: bool,
    #[serde(default)]
    pub payouts_enabled: bool,
    #[serde(default)]
    capabilities: Option<Capabilities>,
    #[serde(default)]
    requirements: Option<Requirements>,
    #[serde(default)]
    settings: Option<Settings>,
    #[serde(default)]
    external_accounts: Option<List<ExternalAccount>>,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize, Default)]
struct Capabilities {
    #[serde(default)]
    transfers: Option<String>,
}

/// What Stripe wants of an account's owner, by the names of its fields. An open set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, Default)]
pub struct Requirements {
    /// To be given by [`Requirements::current_deadline`], where there is one.
    #[serde(default)]
    pub currently_due: Option<Vec<String>>,
    /// Payouts are closed until these are given.
    #[serde(default)]
    pub past_due: Option<Vec<String>>,
    /// Given, and being looked at by Stripe.
    #[serde(default)]
    pub pending_verification: Option<Vec<String>>,
    #[serde(default)]
    pub disabled_reason: Option<String>,
    /// Unix seconds.
    #[serde(default)]
    pub current_deadline: Option<i64>,
}

#[derive(Debug, Clone, Deserialize, Default)]
struct Settings {
    #[serde(default)]
    payouts: Option<PayoutSettings>,
}

#[derive(Debug, Clone, Deserialize, Default)]
struct PayoutSettings {
    #[serde(default)]
    schedule: Option<PayoutSchedule>,
}

#[derive(Debug, Clone, Deserialize, Default)]
struct PayoutSchedule {
    #[serde(default)]
    interval: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct ExternalAccount {
    id: String,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    default_for_currency: Option<bool>,
}

impl Account {
    pub fn transfers_active(&self) -> bool {
        self.capabilities.as_ref().and_then(|it| it.transfers.as_deref()) == Some("active")
    }

    pub fn past_due(&self) -> bool {
        self.requirements.as_ref().and_then(|it| it.past_due.as_ref()).is_some_and(|past_due| !past_due.is_empty())
    }

    pub fn requirements(&self) -> Requirements {
        self.requirements.clone().unwrap_or_default()
    }

    /// The mark that [`NewAccount`] put on it.
    pub fn mark(&self) -> Option<&str> {
        Some(self.metadata.as_ref()?.get(MARK)?)
    }

    pub fn disabled_reason(&self) -> Option<&str> {
        self.requirements.as_ref()?.disabled_reason.as_deref()
    }

    /// `manual`, `daily` …; `None` when Stripe does not say, which counts as automatic.
    pub fn payout_interval(&self) -> Option<&str> {
        self.settings.as_ref()?.payouts.as_ref()?.schedule.as_ref()?.interval.as_deref()
    }

    /// What identifies the bank account or card that payouts go to: its fingerprint, which survives re-adding the same one.
    pub fn destination(&self) -> Option<&str> {
        let accounts = &self.external_accounts.as_ref()?.data;
        let chosen = accounts.iter().find(|account| account.default_for_currency == Some(true)).or_else(|| accounts.first())?;
        Some(chosen.fingerprint.as_deref().unwrap_or(&chosen.id))
    }
}

/// What the account's owner agrees to with Stripe; fixed once it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The owner becomes Stripe's customer.
    Full,
    /// The owner has to do with the platform only and can be paid, nothing else. Transfers become available a day later.
    Recipient,
}

/// Countries among which a platform pays accounts under the full agreement: US, UK, Canada, Switzerland and the EEA.
/// <https://docs.stripe.com/connect/cross-border-payouts> (Availability, Limitations)
const FULL_AGREEMENT: [&str; 34] = [
    "US", "GB", "CA", "CH", "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT",
    "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// The agreement for an account of a country under a platform of another: `full` at home and among the countries that Stripe pays
/// across under it, `recipient` elsewhere. <https://docs.stripe.com/connect/service-agreement-types>
pub fn agreement(platform_country: &str, country: &str) -> Agreement {
    let among = |country: &str| FULL_AGREEMENT.contains(&country);
    if country == platform_country || among(platform_country) && among(country) { Agreement::Full } else { Agreement::Recipient }
}

/// An account to be created.
#[derive(Debug, Clone, Copy)]
pub struct NewAccount<'a> {
    pub platform_country: &'a str,
    /// Two capital letters; fixed once the account is there.
    pub country: &'a str,
    pub email: Option<&'a str>,
    /// `{instance}-{payee}`, by which a lookup or a webhook finds whose it is.
    pub mark: &'a str,
}

impl NewAccount<'_> {
    /// The body of the POST, built once and committed before it is sent: every later send repeats these bytes.
    ///
    /// Stripe collects what it wants of the owner and shows them an Express dashboard; the platform answers for losses, which
    /// is what lets it choose the agreement, and decides when to pay out. Under the full agreement Stripe gives `transfers` only
    /// beside `card_payments` without asking the platform for a reason; under the other one `card_payments` is not to be had.
    pub fn body(&self) -> String {
        let agreement = agreement(self.platform_country, self.country);
        let mut capabilities = CreateAccountCapabilities::new();
        capabilities.transfers = Some(CreateAccountCapabilitiesTransfers { requested: Some(true) });
        let mut tos = TosAcceptanceSpecs::new();
        match agreement {
            Agreement::Full => {
                capabilities.card_payments = Some(CreateAccountCapabilitiesCardPayments { requested: Some(true) });
            }
            Agreement::Recipient => tos.service_agreement = Some("recipient".to_owned()),
        }
        let mut create = CreateAccount::new()
            .country(self.country)
            .capabilities(capabilities)
            .controller(controller())
            .settings(manual_payouts())
            .metadata(HashMap::from([(MARK.to_owned(), self.mark.to_owned())]));
        if agreement == Agreement::Recipient {
            create = create.tos_acceptance(tos);
        }
        if let Some(email) = self.email {
            create = create.email(email);
        }
        create.build().body.unwrap_or_default()
    }
}

fn controller() -> CreateAccountController {
    let mut controller = CreateAccountController::new();
    controller.fees = Some(CreateAccountControllerFees { payer: Some(CreateAccountControllerFeesPayer::Application) });
    controller.losses =
        Some(CreateAccountControllerLosses { payments: Some(CreateAccountControllerLossesPayments::Application) });
    controller.requirement_collection = Some(CreateAccountControllerRequirementCollection::Stripe);
    let express = CreateAccountControllerStripeDashboardType::Express;
    controller.stripe_dashboard = Some(CreateAccountControllerStripeDashboard { type_: Some(express) });
    controller
}

fn manual_payouts() -> CreateAccountSettings {
    let mut schedule = CreateAccountSettingsPayoutsSchedule::new();
    schedule.interval = Some(CreateAccountSettingsPayoutsScheduleInterval::Manual);
    let mut payouts = CreateAccountSettingsPayouts::new();
    payouts.schedule = Some(schedule);
    let mut settings = CreateAccountSettings::new();
    settings.payouts = Some(payouts);
    settings
}

/// What became of a creation that Stripe has decided about.
#[derive(Debug)]
pub enum Created {
    Account(Box<Account>),
    /// Stripe does not create it, and says why. It says the same to every later send of the key.
    Refused {
        code: Option<String>,
        message: String,
    },
}

/// Where the owner gives Stripe what it wants: for one visit, for some minutes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccountLink {
    pub url: String,
    /// Unix seconds.
    pub expires_at: i64,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalDetails,
}

#[derive(Deserialize)]
struct RefusalDetails {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Stripe {
    /// Creates a connected account, or finds the one that an earlier send of the key has created. An error means that it is not
    /// known whether there is one now: the same key with the same bytes tells.
    pub async fn create_account(&self, key: &str, body: &str) -> Result<Created> {
        let answer = self.exchange(Boundary::CreateAccount, Method::POST, "/accounts", None, Some(key), body.to_owned()).await;
        let answer = answer.map_err(|failure| self.silent(&failure))?;
        match answer.status.as_u16() {
            200..=299 => {
                serde_json::from_slice(&answer.body).map(|account| Created::Account(Box::new(account))).map_err(unreadable)
            }
            400 | 402 | 404 if !is_misused_key(&answer) => Ok(refusal(&answer)),
            _ => Err(self.not_done(&answer)),
        }
    }

    /// A new link for an account's owner. Asking twice makes two; each is good for one visit.
    pub async fn account_link(&self, account: &str, refresh_url: &str, return_url: &str) -> Result<AccountLink> {
        let link = CreateAccountLink::new(account, CreateAccountLinkType::AccountOnboarding);
        let body = link.refresh_url(refresh_url).return_url(return_url).build().body.unwrap_or_default();
        let answer = self.exchange(Boundary::CreateAccountLink, Method::POST, "/account_links", None, None, body).await;
        let answer: Answer = answer.map_err(|failure: Failure| self.silent(&failure))?;
        match answer.status.as_u16() {
            200..=299 => serde_json::from_slice(&answer.body).map_err(unreadable),
            400 | 404 => match refusal(&answer) {
                Created::Refused { message, .. } => Err(Error::conflict("STRIPE_REFUSED", message)),
                Created::Account(_) => Err(self.not_done(&answer)),
            },
            _ => Err(self.not_done(&answer)),
        }
    }

    /// The account that bears a mark, among those created since. A miss proves nothing.
    pub async fn find_account(&self, mark: &str, since: DateTime<Utc>) -> Result<Option<Account>> {
        let created = RangeQueryTs::Bounds(RangeBoundsTs {
            gte: Some((since - chrono::Duration::minutes(5)).timestamp()),
            ..RangeBoundsTs::default()
        });
        let mut after: Option<String> = None;
        for _ in 0..LOOKUP_PAGES {
            let (page, more) =
                self.accounts_page(Boundary::FindAccount, ListAccount::new().created(created), after.as_deref()).await?;
            after = page.last().map(|account| account.id.clone());
            if let Some(found) = page.into_iter().find(|account| account.mark() == Some(mark)) {
                return Ok(Some(found));
            }
            if !more || after.is_none() {
                return Ok(None);
            }
        }
        Err(Error::unavailable("STRIPE_LIST_TOO_LONG", "Too many accounts were created since to look through them."))
    }

    /// A page of connected accounts after the given id, the newest first, and whether there are more.
    pub async fn accounts(&self, after: Option<&str>) -> Result<(Vec<Account>, bool)> {
        self.accounts_page(Boundary::ListAccounts, ListAccount::new(), after).await
    }

    async fn accounts_page(&self, boundary: Boundary, list: ListAccount, after: Option<&str>) -> Result<(Vec<Account>, bool)> {
        let mut list = list.limit(100);
        if let Some(after) = after {
            list = list.starting_after(after);
        }
        let page: List<Account> = self.read(boundary, &list.build(), None).await?;
        Ok((page.data, page.has_more))
    }

    /// One connected account; `None` if Stripe does not know it or it is not ours.
    pub async fn account(&self, id: &str) -> Result<Option<Account>> {
        match self.read(Boundary::ReadAccount, &RetrieveAccount::new(id).build(), None).await {
            Ok(account) => Ok(Some(account)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::unavailable("STRIPE_UNREADABLE", "Stripe's answer cannot be read; try again.").with_source(error)
}

/// The key was used before with other bytes: says nothing of the account.
fn is_misused_key(answer: &Answer) -> bool {
    answer.body.windows(b"idempotency_error".len()).any(|part| part == b"idempotency_error")
}

fn refusal(answer: &Answer) -> Created {
    let details = serde_json::from_slice::<Refusal>(&answer.body).map(|refusal| refusal.error).ok();
    let (code, message) = details.map_or((None, None), |details| (details.code, details.message));
    Created::Refused { code, message: message.unwrap_or_else(|| "Stripe refused it without saying why.".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agreement_is_full_at_home_and_among_the_countries_that_stripe_pays_across() {
        for (platform, country, expected) in [
            ("US", "US", Agreement::Full),
            ("US", "DE", Agreement::Full),
            ("DE", "CA", Agreement::Full),
            ("US", "TH", Agreement::Recipient),
            ("US", "MX", Agreement::Recipient),
            ("AU", "AU", Agreement::Full),
            ("AU", "US", Agreement::Recipient),
        ] {
            assert_eq!(agreement(platform, country), expected, "{country} under {platform}");
        }
        assert!(FULL_AGREEMENT.iter().all(|country| country.len() == 2));
    }

    #[test]
    fn a_new_account_is_asked_for_with_what_its_agreement_allows_and_manual_payouts() {
        let body = |country: &str, email: Option<&str>| {
            let new = NewAccount { platform_country: "US", country, email, mark: "0123-p" };
            let uri: http::Uri = format!("/?{}", new.body()).parse().expect("an address");
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).expect("pairs").0
        };
        let has = |body: &[(String, String)], name: &str, value: &str| body.iter().any(|(n, v)| n == name && v == value);
        let (home, abroad) = (body("US", Some("a+b@example.com")), body("TH", None));
        for it in [&home, &abroad] {
            assert!(has(it, "capabilities[transfers][requested]", "true"));
            assert!(has(it, "settings[payouts][schedule][interval]", "manual"));
            assert!(has(it, "controller[losses][payments]", "application"));
            assert!(has(it, "controller[stripe_dashboard][type]", "express"));
            assert!(has(it, "metadata[payday_payee]", "0123-p"));
        }
        assert!(has(&home, "capabilities[card_payments][requested]", "true") && has(&home, "email", "a+b@example.com"));
        assert!(!home.iter().any(|(name, _)| name.starts_with("tos_acceptance")));
        assert!(has(&abroad, "tos_acceptance[service_agreement]", "recipient") && has(&abroad, "country", "TH"));
        assert!(!abroad.iter().any(|(name, _)| name.contains("card_payments") || name == "email"));
        assert_eq!(body("US", None), body("US", None), "the same bytes each time");
    }
}
