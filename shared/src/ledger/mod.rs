//! Double entry. A ledger transfer moves one positive amount from one account to another, so the books balance by
//! construction; it is inserted once, by its key (event, leg, attempt), and never changed: corrections are reversing
//! transfers. The database keeps the balances in the same transaction (a trigger) and refuses everything else.
//!
//! Always, per payee and currency: held + available + reserved + in_flight + at_stripe + paid_out + debt = earned, net of what
//! was taken back, plus what was written off. Platform: all accounts sum to zero.

pub mod store;

use crate::id::PayeeId;

/// The accounts. Those up to `Debt` belong to a payee, the others to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    HeldPlatform,
    HeldConnected,
    AvailablePlatform,
    AvailableConnected,
    ReservedPlatform,
    ReservedConnected,
    /// A transfer was dispatched and is not known to have arrived or failed.
    InFlight,
    /// On the connected account, on its way through us.
    AtStripe,
    PaidOut,
    /// What the payee owes: never above zero.
    Debt,
    /// What was earned, with the opposite sign.
    Earnings,
    Fees,
    StripeFees,
    /// Written off.
    Losses,
}

impl Account {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeldPlatform => "held_platform",
            Self::HeldConnected => "held_connected",
            Self::AvailablePlatform => "available_platform",
            Self::AvailableConnected => "available_connected",
            Self::ReservedPlatform => "reserved_platform",
            Self::ReservedConnected => "reserved_connected",
            Self::InFlight => "in_flight",
            Self::AtStripe => "at_stripe",
            Self::PaidOut => "paid_out",
            Self::Debt => "debt",
            Self::Earnings => "earnings",
            Self::Fees => "fees",
            Self::StripeFees => "stripe_fees",
            Self::Losses => "losses",
        }
    }
}

/// One ledger transfer to be. The same (event, leg, attempt) can be posted only once, ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// What caused it: `earning:42`, `item:7`, `reversal:tr_1:500`.
    pub event: String,
    pub leg: &'static str,
    pub attempt: i32,
    pub payee: PayeeId,
    /// Lower-case code.
    pub currency: String,
    pub from: Account,
    pub to: Account,
    /// Above zero; a posting of zero is left out by [`store::post`].
    pub micros: i64,
}
