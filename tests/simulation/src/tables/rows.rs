//! All rows as text, in the way in which a test reads them from Postgres: values with a space between, `-` for none, instants in
//! microseconds.

use payday::ledger::Account;

use super::events::Effect;
use super::{CURRENCIES, Tables, Time, payee_id};

macro_rules! row {
    ($($value:expr),+ $(,)?) => {
        [$($value.to_string()),+].join(" ")
    };
}

fn maybe(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

fn micros(at: impl Into<Option<Time>>) -> String {
    maybe(at.into().map(|at| at.timestamp_micros()))
}

impl Tables {
    /// Every table with its rows, in the order of their keys.
    pub fn rows(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![
            ("items", self.item_rows()),
            ("operations", self.operation_rows()),
            ("balances", self.balance_rows()),
            ("runs", self.run_rows()),
            ("batches", self.batch_rows()),
            ("chunks", self.chunk_rows()),
            ("exclusions", self.exclusion_rows()),
            ("earnings", self.earning_rows()),
            ("accounts", self.account_rows()),
            ("blocked", self.blocked_rows()),
            ("events", self.event_rows()),
            ("ledger", vec![self.posted.len().to_string()]),
        ]
    }

    fn item_rows(&self) -> Vec<String> {
        let row = |row: &super::ItemRow| {
            let it = &row.item;
            row![
                it.id,
                row.batch,
                it.payee,
                it.currency.code(),
                it.status.as_str(),
                row.key,
                it.amount_minor,
                it.transfer_minor,
                it.connected_minor,
                it.payout_minor,
                it.transfer_attempt,
                it.payout_attempt,
                it.connected_moved,
                it.retries,
                row.account,
                maybe(row.failure_code.as_ref()),
                maybe(row.failure_reason.as_ref()),
                micros(row.due_at),
                micros(row.waiting_since),
            ]
        };
        self.items.iter().map(row).collect()
    }

    fn operation_rows(&self) -> Vec<String> {
        let row = |it: &super::OperationRow| {
            row![
                it.id,
                it.item,
                it.leg.as_str(),
                it.attempt,
                it.state.as_str(),
                it.key,
                it.account,
                it.amount_minor,
                it.currency,
                it.body,
                micros(it.first_dispatched_at),
                micros(it.dispatched_at),
                it.sends,
                it.lookups,
                it.look_up,
                it.cleared,
                maybe(it.stripe_id.as_ref()),
                it.reversed_minor,
                micros(it.unknown_since),
            ]
        };
        self.operations.iter().map(row).collect()
    }

    fn balance_rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for (payee, balances) in self.balances.iter().enumerate() {
            for (coin, balance) in balances.iter().enumerate() {
                let theirs = &balance[..=Account::Debt as usize];
                if theirs.iter().any(|micros| *micros != 0) {
                    let amounts: Vec<String> = theirs.iter().map(ToString::to_string).collect();
                    rows.push(row![payee_id(payee), CURRENCIES[coin], amounts.join(" ")]);
                }
            }
        }
        rows
    }

    fn run_rows(&self) -> Vec<String> {
        let row = |it: &super::RunRow| {
            let status = if it.completed { "completed" } else { "running" };
            row![it.id, it.schedule.as_str(), it.cycle_on, micros(it.cutoff_at), status, it.batches_created, micros(it.queued_at)]
        };
        self.runs.iter().map(row).collect()
    }

    fn batch_rows(&self) -> Vec<String> {
        let row = |it: &super::BatchRow| {
            let status = match (it.completed, it.halt_reason) {
                (true, _) => "completed",
                (false, Some(_)) => "halted",
                (false, None) => "processing",
            };
            row![it.id, it.run, CURRENCIES[it.coin], it.hash, status, maybe(it.halt_reason), it.items, it.amount_minor]
        };
        self.batches.iter().map(row).collect()
    }

    fn chunk_rows(&self) -> Vec<String> {
        let row = |it: &super::ChunkRow| {
            let items: Vec<String> = it.items.iter().map(ToString::to_string).collect();
            row![
                it.id,
                it.batch,
                items.join(","),
                maybe(it.lease.map(|lease| uuid::Uuid::from_u128(u128::from(lease)))),
                micros(it.leased_until),
                micros(it.queued_at)
            ]
        };
        self.chunks.iter().map(row).collect()
    }

    fn exclusion_rows(&self) -> Vec<String> {
        let row = |((run, payee, coin), reason): (&(payday::id::RunId, usize, usize), &String)| {
            row![run, payee_id(*payee), CURRENCIES[*coin], reason]
        };
        self.exclusions.iter().map(row).collect()
    }

    fn earning_rows(&self) -> Vec<String> {
        let row = |it: &super::EarningRow| {
            row![
                payee_id(it.payee),
                CURRENCIES[it.coin],
                if it.connected { "connected" } else { "platform" },
                it.gross_micros,
                it.net_micros,
                it.taken_back_gross_micros,
                it.taken_back_net_micros,
                maybe(it.charge.as_ref()),
                micros(it.available_at),
            ]
        };
        self.earnings.iter().map(row).collect()
    }

    fn account_rows(&self) -> Vec<String> {
        let accounts = self.payees.iter().enumerate().filter_map(|(payee, row)| Some((payee, row.account.as_ref()?)));
        let row = |(payee, it): (usize, &super::AccountRow)| {
            row![
                payee_id(payee),
                it.account,
                it.transfers_active,
                it.payouts_enabled,
                it.past_due,
                it.manual,
                maybe(it.destination.as_ref()),
                micros(it.destination_changed_at),
                micros(it.deauthorized_at),
                micros(it.state_at),
                it.stale,
            ]
        };
        accounts.map(row).collect()
    }

    fn blocked_rows(&self) -> Vec<String> {
        let blocked = self.payees.iter().enumerate().filter_map(|(payee, row)| Some((payee, row.blocked_reason.as_ref()?)));
        blocked.map(|(payee, reason)| row![payee_id(payee), reason]).collect()
    }

    fn event_rows(&self) -> Vec<String> {
        let row = |(id, it): (&u64, &super::EventRow)| {
            let state = match it.effect {
                Effect::Applied => "applied",
                Effect::Ignored => "ignored",
                Effect::Waiting(_) => "waiting",
                Effect::GivenUp => "given_up",
            };
            row![format!("evt_{id:020}"), state, it.tries, micros(it.due_at)]
        };
        self.events.iter().map(row).collect()
    }
}
