//! Who the sample's creators are: name, country and currency, account and settings. What Stripe knows of an account follows
//! from the creator's role.

use uuid::Uuid;

use super::dice::Dice;
use super::role::Role;
use super::world::KnownAccount;

/// A country with the currency earned there, and what a dollar's worth is in its minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Market {
    pub country: &'static str,
    pub currency: &'static str,
    /// Minor units that are worth about a US dollar.
    pub dollar: i64,
    /// Minor units that prices are multiples of.
    pub step: i64,
}

const fn market(country: &'static str, currency: &'static str, dollar: i64, step: i64) -> Market {
    Market { country, currency, dollar, step }
}

pub(super) const US: Market = market("US", "usd", 100, 1);
pub(super) const DE: Market = market("DE", "eur", 90, 1);
pub(super) const GB: Market = market("GB", "gbp", 80, 1);
pub(super) const MX: Market = market("MX", "mxn", 1_800, 50);
pub(super) const KR: Market = market("KR", "krw", 1_400, 100);

const EVERYWHERE: [(i64, Market); 16] = [
    (560, US),
    (90, DE),
    (50, market("FR", "eur", 90, 1)),
    (30, market("ES", "eur", 90, 1)),
    (30, market("NL", "eur", 90, 1)),
    (20, market("IE", "eur", 90, 1)),
    (80, GB),
    (40, market("JP", "jpy", 150, 10)),
    (20, market("HU", "huf", 36_000, 500)),
    (8, market("IS", "isk", 14_000, 500)),
    (6, market("KW", "kwd", 310, 10)),
    (24, market("CA", "cad", 140, 1)),
    (16, market("AU", "aud", 150, 1)),
    (10, MX),
    (4, KR),
    (12, market("CH", "chf", 90, 5)),
];

/// Countries whose charges come out in whole minor units whatever the fee.
const PLAIN: [(i64, Market); 3] = [(6, US), (3, DE), (1, GB)];

pub(super) struct Creator {
    pub id: Uuid,
    pub role: Role,
    /// The how manyth of its role.
    pub nth: usize,
    pub market: Market,
    pub email: String,
    /// Whether accounts.csv has a line.
    pub listed: bool,
    pub account: Option<KnownAccount>,
    pub payout_enabled: bool,
    pub minimum: &'static str,
    pub schedule: &'static str,
    pub beta: bool,
}

const FIRST: [&str; 48] = [
    "ada", "aiko", "amara", "andre", "anouk", "arjun", "bea", "bruno", "carla", "chloe", "dario", "dina", "elif", "emil", "erik",
    "fatima", "felix", "finn", "gita", "hana", "hugo", "ines", "ivan", "jade", "jonas", "kaya", "kofi", "lara", "leo", "lina",
    "luca", "maya", "mila", "nadia", "nico", "noor", "oscar", "paula", "ravi", "rosa", "sami", "sofia", "tara", "theo", "uma",
    "vera", "yuki", "zoe",
];
const LAST: [&str; 40] = [
    "abe", "adams", "alvarez", "baker", "bauer", "becker", "bianchi", "castro", "chen", "cohen", "diaz", "dubois", "eriksen",
    "farkas", "fischer", "garcia", "haas", "hughes", "ito", "jansen", "jones", "kaya", "kim", "kovacs", "lopez", "martin",
    "mendes", "moreau", "nagy", "novak", "okafor", "patel", "reyes", "rossi", "sato", "silva", "smith", "tanaka", "weber",
    "wilson",
];

/// How banks refuse what Stripe had accepted.
const FAILURES: [&str; 3] = ["account_closed", "no_account", "debit_not_authorized"];

pub(super) fn creator(dice: &mut Dice, number: usize, role: Role, nth: usize) -> Creator {
    let market = market_of(dice, role, nth);
    let id = dice.uuid();
    let email = format!("{}.{}{number}@example.com", dice.pick(&FIRST), dice.pick(&LAST));
    let account_id = format!("acct_1Q{}", dice.letters(14));
    let mut creator = Creator {
        id,
        role,
        nth,
        market,
        email,
        listed: true,
        account: Some(KnownAccount::ready(&account_id, market.country, &[market.currency])),
        payout_enabled: true,
        minimum: "",
        schedule: "semimonthly",
        beta: dice.percent(35),
    };
    settle(&mut creator, dice);
    creator
}

fn market_of(dice: &mut Dice, role: Role, nth: usize) -> Market {
    match role {
        Role::TwoCurrencies | Role::OneCurrencyBelow => DE,
        Role::ConnectedOnly
        | Role::BothLegs
        | Role::HeldConnected
        | Role::AutomaticWithConnected
        | Role::OnlyConnectedOnAutomatic => dice.weighted(&PLAIN),
        Role::HundredTips
        | Role::HundredTipsAndMore
        | Role::HoldEndsAtCutoff
        | Role::HeldByAMicrosecond
        | Role::DisputedInPart
        | Role::DisputedToBelow
        | Role::DisputedWhole
        | Role::DebtCovered
        | Role::InDebt
        | Role::BelowThreshold
        | Role::SeveralReasons => US,
        Role::BelowOwnMinimum | Role::OwnMinimumReached => dice.pick(&[US, US, DE, GB]),
        Role::BelowStripesMinimum => [MX, MX, GB, GB, KR][nth % 5],
        _ => dice.weighted(&EVERYWHERE),
    }
}

/// Settings and account as the role asks.
fn settle(creator: &mut Creator, dice: &mut Dice) {
    let nth = creator.nth;
    let mut account = creator.account.take();
    let known = |change: &mut dyn FnMut(&mut KnownAccount), account: &mut Option<KnownAccount>| {
        if let Some(account) = account {
            change(account);
        }
    };
    match creator.role {
        Role::Automatic | Role::AutomaticWithConnected | Role::OnlyConnectedOnAutomatic | Role::InDebt | Role::DebtCovered => {
            known(&mut |it| it.interval = "daily".to_owned(), &mut account)
        }
        Role::IntervalUnstated => known(&mut |it| it.interval = "unstated".to_owned(), &mut account),
        Role::TwoCurrencies | Role::OneCurrencyBelow => known(&mut |it| it.currencies.push("usd".to_owned()), &mut account),
        Role::OwnMinimumReached => creator.minimum = dice.pick(&["15", "20", "25", "30.50"]),
        Role::BelowOwnMinimum => creator.minimum = dice.pick(&["75.50", "100", "100.00", "250"]),
        Role::BankFails => known(&mut |it| it.bank_fails = Some(FAILURES[nth % 3].to_owned()), &mut account),
        Role::PayoutsDisabled => creator.payout_enabled = false,
        Role::Weekly => creator.schedule = "weekly",
        Role::Monthly => creator.schedule = "monthly",
        Role::Manual => creator.schedule = "manual",
        Role::WithoutLine => {
            creator.listed = false;
            account = None;
        }
        Role::WithoutAccount => account = None,
        Role::TransfersInactive => known(&mut |it| it.transfers = "inactive".to_owned(), &mut account),
        Role::TransfersPending => known(&mut |it| it.transfers = "pending".to_owned(), &mut account),
        Role::PayoutsNotEnabled => known(&mut |it| it.payouts_enabled = false, &mut account),
        Role::PastDue => known(&mut |it| it.past_due.push("individual.verification.document".to_owned()), &mut account),
        // Each but the last has the reason before it in the list as well.
        Role::SeveralReasons => match nth {
            0 => {
                creator.payout_enabled = false;
                creator.schedule = "weekly";
                account = None;
            }
            1 => {
                creator.schedule = "weekly";
                account = None;
            }
            2 => account = None,
            3 => known(&mut |it| it.transfers = "inactive".to_owned(), &mut account),
            5 => creator.payout_enabled = false,
            _ => {}
        },
        _ => {}
    }
    creator.account = account;
}
