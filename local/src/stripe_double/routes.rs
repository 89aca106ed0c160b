//! The endpoints of Stripe's API that the double knows, and what each does to the world.

use hyper::body::Bytes;

use super::errors::ApiError;
use super::form::Params;
use super::lists::json;
use super::objects::reversal_view;
use super::payouts::NewPayout;
use super::rates::CREATE_PAYOUT;
use super::transfers::NewTransfer;
use super::world::{Owner, PLATFORM, World};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    ListAccounts,
    CreateAccount,
    OwnAccount,
    GetAccount(String),
    ListExternalAccounts(String),
    CreateAccountLink,
    ListTransfers,
    CreateTransfer,
    GetTransfer(String),
    ListReversals(String),
    CreateReversal(String),
    GetReversal(String, String),
    ListPayouts,
    CreatePayout,
    GetPayout(String),
    CancelPayout(String),
    Balance,
    ListTxns,
    GetTxn(String),
    ListEvents,
    GetEvent(String),
}

impl Route {
    pub(super) fn find(method: &str, path: &str) -> Option<Self> {
        let path = path.strip_prefix("/v1/")?.trim_end_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        let own = |text: &str| text.to_owned();
        Some(match (method, parts.as_slice()) {
            ("GET", ["accounts"]) => Self::ListAccounts,
            ("POST", ["accounts"]) => Self::CreateAccount,
            ("GET", ["account"]) => Self::OwnAccount,
            ("GET", ["accounts", id]) => Self::GetAccount(own(id)),
            ("GET", ["accounts", id, "external_accounts"]) => Self::ListExternalAccounts(own(id)),
            ("POST", ["account_links"]) => Self::CreateAccountLink,
            ("GET", ["transfers"]) => Self::ListTransfers,
            ("POST", ["transfers"]) => Self::CreateTransfer,
            ("GET", ["transfers", id]) => Self::GetTransfer(own(id)),
            ("GET", ["transfers", id, "reversals"]) => Self::ListReversals(own(id)),
            ("POST", ["transfers", id, "reversals"]) => Self::CreateReversal(own(id)),
            ("GET", ["transfers", id, "reversals", reversal]) => Self::GetReversal(own(id), own(reversal)),
            ("GET", ["payouts"]) => Self::ListPayouts,
            ("POST", ["payouts"]) => Self::CreatePayout,
            ("GET", ["payouts", id]) => Self::GetPayout(own(id)),
            ("POST", ["payouts", id, "cancel"]) => Self::CancelPayout(own(id)),
            ("GET", ["balance"]) => Self::Balance,
            ("GET", ["balance_transactions"]) => Self::ListTxns,
            ("GET", ["balance_transactions", id]) => Self::GetTxn(own(id)),
            ("GET", ["events"]) => Self::ListEvents,
            ("GET", ["events", id]) => Self::GetEvent(own(id)),
            _ => return None,
        })
    }

    /// "Requests for different ids count towards the same endpoint limit."
    pub(super) fn endpoint(&self) -> &'static str {
        match self {
            Self::ListAccounts => "GET /v1/accounts",
            Self::CreateAccount => "POST /v1/accounts",
            Self::OwnAccount => "GET /v1/account",
            Self::GetAccount(_) => "GET /v1/accounts/:id",
            Self::ListExternalAccounts(_) => "GET /v1/accounts/:id/external_accounts",
            Self::CreateAccountLink => "POST /v1/account_links",
            Self::ListTransfers => "GET /v1/transfers",
            Self::CreateTransfer => "POST /v1/transfers",
            Self::GetTransfer(_) => "GET /v1/transfers/:id",
            Self::ListReversals(_) => "GET /v1/transfers/:id/reversals",
            Self::CreateReversal(_) => "POST /v1/transfers/:id/reversals",
            Self::GetReversal(..) => "GET /v1/transfers/:id/reversals/:id",
            Self::ListPayouts => "GET /v1/payouts",
            Self::CreatePayout => CREATE_PAYOUT,
            Self::GetPayout(_) => "GET /v1/payouts/:id",
            Self::CancelPayout(_) => "POST /v1/payouts/:id/cancel",
            Self::Balance => "GET /v1/balance",
            Self::ListTxns => "GET /v1/balance_transactions",
            Self::GetTxn(_) => "GET /v1/balance_transactions/:id",
            Self::ListEvents => "GET /v1/events",
            Self::GetEvent(_) => "GET /v1/events/:id",
        }
    }

    /// Transfers and accounts are the platform's; only these can be asked in an account's name.
    fn platform_only(&self, owner: Owner) -> Result<(), ApiError> {
        let for_platform = matches!(
            self,
            Self::ListAccounts | Self::CreateAccount | Self::CreateAccountLink | Self::CreateTransfer | Self::CreateReversal(_)
        );
        if for_platform && owner != PLATFORM {
            return Err(ApiError::refused(
                "",
                "This endpoint can only be used by the platform, without the Stripe-Account header.",
            ));
        }
        Ok(())
    }

    /// The endpoint's execution: id of the object and the answer.
    pub(super) fn execute(
        &self,
        world: &mut World,
        owner: Owner,
        key: &str,
        params: &Params,
    ) -> Result<(Option<String>, Bytes), ApiError> {
        self.platform_only(owner)?;
        let made = |(id, body): (String, Bytes)| (Some(id), body);
        let read = |id: &str, body: Bytes| (Some(id.to_owned()), body);
        Ok(match self {
            Self::ListAccounts => (None, world.list_accounts(params)?),
            Self::CreateAccount => made(world.create_account(params)?),
            Self::OwnAccount => (None, world.account_json(owner)),
            Self::GetAccount(id) => read(id, world.account_json(world.find_account(id, key)?)),
            Self::ListExternalAccounts(id) => (None, world.list_external_accounts(world.find_account(id, key)?, params)?),
            Self::CreateAccountLink => (None, world.create_account_link(params)?),
            Self::ListTransfers if owner == PLATFORM => (None, world.list_transfers(params)?),
            Self::ListTransfers => {
                (None, Bytes::from_static(b"{\"object\":\"list\",\"data\":[],\"has_more\":false,\"url\":\"/v1/transfers\"}"))
            }
            Self::CreateTransfer => made(world.create_transfer(NewTransfer::parse(params)?)?),
            Self::GetTransfer(id) if owner == PLATFORM => read(id, world.transfer_json(world.find_transfer(id)?)),
            Self::GetTransfer(id) => return Err(ApiError::no_such("transfer", id)),
            Self::ListReversals(id) => (None, world.list_reversals(id, params)?),
            Self::CreateReversal(id) => {
                params.only(&["amount", "description", "metadata", "refund_application_fee"])?;
                made(world.create_reversal(id, params)?)
            }
            Self::GetReversal(id, reversal) => {
                let transfer = &world.transfers[world.find_transfer(id)?];
                let found = transfer
                    .reversals
                    .iter()
                    .find(|r| &r.id == reversal)
                    .ok_or_else(|| ApiError::no_such("transfer_reversal", reversal))?;
                read(reversal, json(&reversal_view(transfer, found)))
            }
            Self::ListPayouts => (None, world.list_payouts(owner, params)?),
            Self::CreatePayout => made(world.create_payout(owner, NewPayout::parse(params)?)?),
            Self::GetPayout(id) => read(id, world.payout_json(world.find_payout(owner, id)?)),
            Self::CancelPayout(id) => {
                params.only(&[])?;
                made(world.cancel_payout(owner, id)?)
            }
            Self::Balance => (None, world.balance(owner)),
            Self::ListTxns => (None, world.list_txns(owner, params)?),
            Self::GetTxn(id) => read(id, world.find_txn(owner, id)?),
            Self::ListEvents => (None, world.list_events(owner, params)?),
            Self::GetEvent(id) => read(id, world.find_event(owner, id)?),
        })
    }
}
