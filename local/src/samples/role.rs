//! What each creator of the sample is there to show. The list is the index of the sample: README and tests are made from it.

/// Why a creator is in the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    // Paid.
    Ordinary,
    Automatic,
    IntervalUnstated,
    AutomaticWithConnected,
    TwoCurrencies,
    OneCurrencyBelow,
    ConnectedOnly,
    BothLegs,
    OwnMinimumReached,
    HundredTipsAndMore,
    HoldEndsAtCutoff,
    DisputedInPart,
    DebtCovered,
    // Accepted by Stripe, refused by the bank.
    BankFails,
    // Paid, unless the run is told to let Stripe refuse.
    PayoutRefused,
    // Not paid, in the order of the reasons.
    PayoutsDisabled,
    Weekly,
    Monthly,
    Manual,
    WithoutLine,
    WithoutAccount,
    TransfersInactive,
    TransfersPending,
    PayoutsNotEnabled,
    PastDue,
    BankChanged,
    Held,
    HeldConnected,
    HeldByAMicrosecond,
    InDebt,
    BelowThreshold,
    HundredTips,
    BelowOwnMinimum,
    BelowStripesMinimum,
    DisputedToBelow,
    SeveralReasons,
    // Nothing to say: there is no balance.
    DisputedWhole,
    OnlyConnectedOnAutomatic,
    NothingEarned,
}

impl Role {
    /// Every role but `Ordinary`, which has who is left: how many there are, and what they show.
    pub const SPECIAL: [(Self, usize, &str); 38] = [
        (Self::Automatic, 24, "Stripe pays the account out daily: paid once the transfer is accepted"),
        (Self::IntervalUnstated, 6, "Stripe states no payout interval: counts as automatic"),
        (
            Self::AutomaticWithConnected,
            3,
            "automatic account: the platform's part is paid, the charges on the account are Stripe's to pay out",
        ),
        (Self::TwoCurrencies, 12, "balances in two currencies: an item in each batch"),
        (Self::OneCurrencyBelow, 2, "paid in eur, `below_minimum` in usd"),
        (Self::ConnectedOnly, 12, "all of it lies on the connected account: a payout, no transfer"),
        (Self::BothLegs, 30, "a part lies on the connected account: a transfer of the rest, then one payout"),
        (Self::OwnMinimumReached, 10, "above a minimum of their own"),
        (Self::HundredTipsAndMore, 1, "a hundred tips of one token (4.50) and another tip: paid to the cent"),
        (Self::HoldEndsAtCutoff, 1, "the only earning's hold ends exactly at the cut-off: paid"),
        (Self::DisputedInPart, 3, "a charge was disputed in part before the cycle: paid the rest"),
        (Self::DebtCovered, 1, "the dispute left a debt that newer earnings cover: paid what is left"),
        (Self::BankFails, 3, "the bank refuses after Stripe accepted: `payout.failed`"),
        (Self::PayoutRefused, 2, "paid; with `refusals` raised their bank is unusable and Stripe refuses the payout"),
        (Self::PayoutsDisabled, 14, "`payouts_disabled`: switched off in the settings"),
        (Self::Weekly, 22, "`schedule_not_due`: paid on Mondays"),
        (Self::Monthly, 18, "`schedule_not_due`: paid on the 1st"),
        (Self::Manual, 6, "`schedule_not_due`: asks for each payout"),
        (Self::WithoutLine, 12, "`no_account`: no line in accounts.csv"),
        (Self::WithoutAccount, 6, "`no_account`: a line without an account"),
        (Self::TransfersInactive, 8, "`account_not_ready`: the transfers capability is inactive"),
        (Self::TransfersPending, 2, "`account_not_ready`: the transfers capability is pending"),
        (Self::PayoutsNotEnabled, 8, "`account_not_ready`: Stripe has payouts disabled"),
        (Self::PastDue, 6, "`account_not_ready`: a requirement is past due"),
        (Self::BankChanged, 3, "`destination_cooloff`: another bank account since the import"),
        (Self::Held, 20, "`held`: everything was earned in the last seven days"),
        (Self::HeldConnected, 2, "`held`: the same, on the connected account"),
        (Self::HeldByAMicrosecond, 1, "`held`: the only earning's hold ends a microsecond after the cut-off"),
        (Self::InDebt, 3, "`debt`: a dispute took more than there was, and newer earnings do not cover it"),
        (Self::BelowThreshold, 30, "`below_minimum`: under the platform's threshold, some with more still held"),
        (Self::HundredTips, 1, "`below_minimum`: a hundred tips of one token are worth exactly 4.50"),
        (Self::BelowOwnMinimum, 8, "`below_minimum`: under a minimum of their own"),
        (Self::BelowStripesMinimum, 5, "`below_minimum`: under Stripe's minimum for currency and country"),
        (Self::DisputedToBelow, 2, "`below_minimum`: a dispute took so much that too little is left"),
        (Self::SeveralReasons, 6, "several reasons at once: the first of the list is recorded"),
        (Self::DisputedWhole, 1, "a dispute took all there was: no balance, no reason"),
        (Self::OnlyConnectedOnAutomatic, 2, "only charges on an automatic account: nothing of ours to pay, no reason"),
        (Self::NothingEarned, 8, "an account, but no earnings: no reason"),
    ];

    /// The roles of so many creators; with fewer than there are special ones, the special ones all the same.
    pub(super) fn cast(creators: usize) -> Vec<(Self, usize)> {
        let special = Self::SPECIAL.iter().flat_map(|(role, count, _)| (0..*count).map(|nth| (*role, nth)));
        let mut cast: Vec<(Self, usize)> = special.collect();
        let ordinary = creators.saturating_sub(cast.len());
        cast.extend((0..ordinary).map(|nth| (Self::Ordinary, nth)));
        cast
    }
}
