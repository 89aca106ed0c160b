//! The audit at the end of an end-to-end test: what must hold whatever has happened, by our books and by the double's.

use std::collections::BTreeMap;

use crate::system::{Expected, System};
use crate::world;

pub async fn audit(system: &System, expected: &Expected) {
    let found = system.double.audit();
    if expected.contradictions {
        assert!(found.double_transfers.is_empty() && found.double_payouts.is_empty(), "{found:#?}");
    } else {
        assert!(found.is_clean(), "{found:#?}");
    }
    world::audit(&system.database).await;
    compare_with_stripe(system, expected).await;
    nothing_forgotten(system, expected).await;
}

/// Every object at Stripe is one of our attempts and the other way round, and the sums are the ledger's.
async fn compare_with_stripe(system: &System, expected: &Expected) {
    let mut theirs: Vec<String> = Vec::new();
    let mut arrived: BTreeMap<(String, String), i64> = BTreeMap::new();
    for transfer in system.double.transfers().into_iter().filter(|transfer| !transfer.from_charge) {
        theirs.push(format!(
            "{} transfer {} {} {} reversed={}",
            transfer.id, transfer.destination, transfer.amount, transfer.currency, transfer.amount_reversed
        ));
        *arrived.entry((transfer.destination, transfer.currency)).or_default() += transfer.amount - transfer.amount_reversed;
    }
    let mut paid: BTreeMap<(String, String), i64> = BTreeMap::new();
    for payout in system.double.payouts().into_iter().filter(|payout| !payout.automatic) {
        let state = if matches!(payout.status.as_str(), "failed" | "canceled") { "returned" } else { "accepted" };
        theirs.push(format!("{} payout {} {} {} {state}", payout.id, payout.account, payout.amount, payout.currency));
        if payout.status == "paid" && !expected.gone.contains(&payout.account) {
            *paid.entry((payout.account, payout.currency)).or_default() += payout.amount;
        }
    }
    theirs.sort();
    let mut ours = system
        .database
        .rows(
            "select stripe_id, leg, account, amount_minor, currency, case leg when 'transfer' then 'reversed=' || reversed_minor else state end
             from payout_operations where stripe_id is not null and state in ('accepted', 'returned')",
        )
        .await;
    ours.sort();
    assert_eq!(ours, theirs, "our attempts and Stripe's objects");

    let sums = |condition: &str| {
        format!(
            "select a.account, l.currency::text, (sum(case when {condition} then l.amount_micros else -l.amount_micros end) / c.micros_per_minor)::bigint
             from ledger_transfers l join stripe_accounts a on a.payee_id = l.payee_id join currencies c on c.code = l.currency"
        )
    };
    let arrivals = sums("l.to_account = 'at_stripe'")
        + " where l.leg in ('arrive', 'reversed') group by a.account, l.currency, c.micros_per_minor having sum(case when l.to_account = 'at_stripe' then l.amount_micros else -l.amount_micros end) <> 0";
    let payments = sums("l.to_account = 'paid_out'")
        + " where l.leg in ('settle', 'return') group by a.account, l.currency, c.micros_per_minor having sum(case when l.to_account = 'paid_out' then l.amount_micros else -l.amount_micros end) <> 0";
    for (what, sql, theirs) in [("arrived", arrivals, arrived), ("paid out", payments, paid)] {
        let ours: BTreeMap<(String, String), i64> = system
            .database
            .all::<(String, String, i64)>(sql)
            .await
            .into_iter()
            .map(|(account, currency, minor)| ((account, currency), minor))
            .collect();
        let theirs: BTreeMap<_, _> = theirs.into_iter().filter(|(_, minor)| *minor != 0).collect();
        assert_eq!(ours, theirs, "the ledger's sums of what {what}, and Stripe's");
    }
}

/// Nothing waits that could go on, and what failed is where a person sees it.
async fn nothing_forgotten(system: &System, expected: &Expected) {
    for (rule, breaches) in [
        (
            "nothing is being sent",
            "select i.id, i.status from payout_items i join payout_batches b on b.id = i.batch_id
             where i.status in ('pending', 'transferring', 'transferred', 'paying_out') and b.status <> 'halted'",
        ),
        ("nothing is due", "select id, status, due_at from payout_items where due_at <= now() and status <> 'pending'"),
        ("whoever waits has a reason", "select id, status from payout_items where status in ('awaiting_funds', 'failed', 'payout_blocked', 'needs_review') and failure_code is null and failure_reason is null"),
        ("no withdrawal is due", "select w.id from withdrawal_requests w where w.status = 'pending' and w.due_at <= now()
             and not exists (select from payout_items i where i.creator_id = w.creator_id and i.currency = w.currency and is_unsettled(i.status))"),
        ("no event is due", "select id, type from stripe_events where due_at <= now()"),
        ("no attempt is open", "select o.id, o.state from payout_operations o where o.state in ('dispatched', 'unknown', 'not_run')
             and not exists (select from payout_items i join payout_batches b on b.id = i.batch_id where i.id = o.item_id and b.status = 'halted')"),
        ("a finished run was told of once", "select r.id from payout_runs r left join outbox o on o.dedupe_key = 'run_completed:' || r.id
             where (r.status = 'completed' and r.kind = 'scheduled') <> (o.id is not null)"),
        ("every message was sent", "select id, kind from outbox where sent_at is null"),
        // By date: of its runs one serves each schedule, and one tells those whose schedule is not due. What is charged for an
        // account that Stripe pays out by itself is not ours to pay.
        ("everybody with a balance was paid, or has a reason", "select r.cycle_on, b.payee_id, b.currency from payout_runs r cross join payee_balances b
             where r.kind = 'scheduled' and r.batches_created_at is not null and b.held_platform + b.held_connected + b.available_platform + b.available_connected > 0
               and exists (select from creator_earnings e where e.creator_id = b.payee_id and e.currency = b.currency and e.created_at < r.batches_created_at
                              and e.net_micros > e.taken_back_net_micros
                              and not (e.place = 'connected' and exists (select from payee_facts f where f.payee_id = e.creator_id and f.automatic)))
               and not exists (select from payout_exclusions x join payout_runs o on o.id = x.run_id
                               where o.kind = 'scheduled' and o.cycle_on = r.cycle_on and x.creator_id = b.payee_id and x.currency = b.currency)
               and not exists (select from payout_items i join payout_batches p on p.id = i.batch_id join payout_runs o on o.id = p.run_id
                               where o.kind = 'scheduled' and o.cycle_on = r.cycle_on and i.creator_id = b.payee_id and i.currency = b.currency)"),
    ] {
        let found = system.database.rows(breaches).await;
        assert!(found.is_empty(), "breached: {rule}\n{}", found.join("\n"));
    }
    let waiting = system.database.rows("select id, type, effect from stripe_events where state = 'waiting'").await;
    assert_eq!(i64::try_from(waiting.len()), Ok(expected.waiting_events), "events that wait: {waiting:?}");
    assert_eq!(system.database.count("payout_batches where status = 'halted'").await, expected.halted, "halted batches");
    let dead = system.dead_letters();
    assert_eq!(dead.len(), expected.dead_letters, "dead letters: {dead:?}");
}
