//! `samples/README.md`, written with the sample so that its figures are the sample's.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use uuid::Uuid;

use super::expected::{Assumed, Reason, expected};
use super::role::Role;
use super::world::World;

pub(super) fn write(earnings: &str, accounts: &str, world: &World, roles: &[(Uuid, Role)]) -> String {
    let usual = expected(earnings, accounts, world, Assumed::default());
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# Sample data\n\n\
         What `cargo payday demo` pays: {} creators, {} earnings, the cycle of 2026-11-15. Nobody in it exists. All four files are\n\
         written by `cargo payday samples`; change the generator (`local/src/samples/`), not the files.\n\n\
         - `earnings.csv`, `accounts.csv`: what `cargo payday run` takes.\n\
         - `stripe.json`: what Stripe knows (accounts, balances), and what happens between import and cycle: disputes, changed bank\n  \
         accounts. The Stripe double is set up from it; `cargo payday run` with your own files and without it takes every\n  \
         account for ready.\n\n\
         ## What the cycle should end in\n\n\
         Under the default settings, with the disputes coming when earnings had matured through 2026-11-10T06:00:00Z. Computed from the\n\
         files alone (`expected.rs`), not by the engine.\n\n\
         | batch | status | items | minor units |\n|---|---|---:|---:|",
        roles.len(),
        earnings.lines().count() - 1,
    );
    for (currency, by_status) in usual.batches() {
        for (status, (items, minor)) in by_status {
            let _ = writeln!(out, "| {currency} | {status} | {items} | {minor} |");
        }
    }
    let _ = writeln!(out, "\n| not paid for | balances | for example |\n|---|---:|---|");
    let mut example: HashMap<Reason, Uuid> = HashMap::new();
    for unpaid in &usual.unpaid {
        example.entry(unpaid.reason).or_insert(unpaid.creator);
    }
    for (reason, count) in usual.reasons() {
        let _ = writeln!(out, "| `{}` | {count} | {} |", reason.as_str(), example.get(&reason).copied().unwrap_or_default());
    }
    let beta = expected(earnings, accounts, world, Assumed { beta_only: true, ..Assumed::default() });
    let _ = writeln!(
        out,
        "\n`not_in_beta` needs `PAYOUT_BETA_ONLY=true`: {} balances then, and {} items left. `blocked` and `unsettled_item` need an\n\
         earlier payment that went wrong, which a fresh database does not have.\n\n\
         ## Who shows what\n\n| shows | creators | for example |\n|---|---:|---|",
        beta.reasons().get(&Reason::NotInBeta).copied().unwrap_or_default(),
        beta.items.len(),
    );
    let mut by_role: BTreeMap<Role, Vec<Uuid>> = BTreeMap::new();
    for (creator, role) in roles {
        by_role.entry(*role).or_default().push(*creator);
    }
    let ordinary = [(Role::Ordinary, 0, "paid: nothing special, tokens and money, in many countries and currencies")];
    for (role, _, shows) in ordinary.iter().chain(&Role::SPECIAL) {
        let who = by_role.get(role).map(Vec::as_slice).unwrap_or_default();
        let first = who.first().map(Uuid::to_string).unwrap_or_default();
        let _ = writeln!(out, "| {shows} | {} | {first} |", who.len());
    }
    out
}
