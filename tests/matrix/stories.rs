//! What happens in the matrix, each step begun when the one before has come to rest: so whatever a fault did in between, each
//! story has one end.

use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config::Withdrawals;
use payday::earnings::{NewEarning, Place};
use payday::jobs::Job;
use payday::payouts::controls::Press;
use payday::payouts::preview::Agreed;
use payday::payouts::store::jobs;
use payday_local::stripe_double::{BankSpec, DestinationCharge, Fault, FaultRule, When};
use payday_tests::world::{cutoff, earning, ready_account};
use serde_json::json;

use super::machine::{CREATE_BATCH, Delivery, Machine, PROCESS_CHUNK};

/// A name to replay by, and what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A cycle in which every kind of money is paid and every kind of trouble that the engine mends met once.
    Cycle,
    /// Messages get lost and Stripe is slow.
    LostHints,
    /// Stripe answers what nobody asked, and a person has to look before the batch goes on.
    Contradiction,
    /// Creators withdraw at once, with the next cycle, and change their minds.
    Withdrawals,
    /// A creator connects to Stripe after a cycle, the answer gets lost, and they are paid what they missed.
    Newcomer,
    /// No webhook comes for days, and reconciliation makes it good.
    Outage,
    /// Operators press buttons.
    Operators,
}

impl Story {
    pub const ALL: [Self; 7] =
        [Self::Cycle, Self::LostHints, Self::Contradiction, Self::Withdrawals, Self::Newcomer, Self::Outage, Self::Operators];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cycle => "a cycle",
            Self::LostHints => "lost hints",
            Self::Contradiction => "a contradiction",
            Self::Withdrawals => "withdrawals",
            Self::Newcomer => "a newcomer",
            Self::Outage => "an outage of webhooks",
            Self::Operators => "operators",
        }
    }

    pub fn chunk_size(self) -> i64 {
        match self {
            Self::Cycle => 3,
            Self::LostHints | Self::Withdrawals | Self::Newcomer | Self::Outage | Self::Operators => 25,
            Self::Contradiction => 1,
        }
    }

    pub async fn happens(self, machine: &mut Machine) {
        match self {
            Self::Cycle => cycle(machine).await,
            Self::LostHints => lost_hints(machine).await,
            Self::Contradiction => contradiction(machine).await,
            Self::Withdrawals => withdrawals(machine).await,
            Self::Newcomer => newcomer(machine).await,
            Self::Outage => outage(machine).await,
            Self::Operators => operators(machine).await,
        }
    }

    /// Who has what in the end: written down by hand, from what was earned.
    pub fn end(self) -> &'static [&'static str] {
        match self {
            Self::Cycle => &[
                // 10.00, paid twice over because the bank sent it back once; of a fan's 10.00 less 1.00 fee, 4.00 less its fee went back.
                "acct_1 earned held_connected=5400000 paid_out=10000000",
                "acct_1 paid 1000: transfer 1000 payout 1000",
                // 3.00 here, 5.00 there.
                "acct_2 earned paid_out=8000000",
                "acct_2 paid 800: transfer 300 payout 800",
                // Paid out by Stripe itself.
                "acct_3 earned paid_out=4000000",
                "acct_3 paid 400: transfer 400 payout 0",
                // The platform's balance was short at first.
                "acct_4 earned paid_out=50000000",
                "acct_4 paid 5000: transfer 5000 payout 5000",
                // Refused at first.
                "acct_5 earned paid_out=6000000",
                "acct_5 paid 600: transfer 600 payout 600",
                "run semimonthly 2026-11-15 completed",
                "told destination_changed",
                "told run_completed",
                "told run_missing",
            ],
            Self::LostHints => &[
                "acct_1 earned paid_out=10000000",
                "acct_1 paid 1000: transfer 1000 payout 1000",
                "run semimonthly 2026-11-15 completed",
                "told run_completed",
            ],
            Self::Contradiction => &[
                "acct_1 earned in_flight=10000000",
                "acct_1 needs_review 1000: transfer 1000 payout 1000",
                "acct_2 earned paid_out=20000000",
                "acct_2 paid 2000: transfer 2000 payout 2000",
                "open: transfer frozen of item 1",
                "run semimonthly 2026-11-15 completed",
                "told item_needs_a_person",
                "told run_completed",
            ],
            Self::Withdrawals => &[
                // 100 tokens are 4.50; the rest comes with the cycle.
                "acct_1 asked for 100: paid",
                "acct_1 earned paid_out=10000000",
                "acct_1 paid 450: transfer 450 payout 450",
                "acct_1 paid 550: transfer 550 payout 550",
                // Changed their mind.
                "acct_2 asked for 100: canceled",
                "acct_2 earned paid_out=10000000",
                "acct_2 paid 1000: transfer 1000 payout 1000",
                // Is paid by no schedule, and asked for the next cycle.
                "acct_3 asked for 100: paid",
                "acct_3 earned available_platform=5500000 paid_out=4500000",
                "acct_3 paid 450: transfer 450 payout 450",
                "run semimonthly 2026-11-15 completed",
                "run withdrawal completed",
                "run withdrawal completed",
                "told run_completed",
            ],
            Self::Newcomer => &[
                "new account of 1 earned paid_out=10000000",
                "new account of 1 paid 1000: transfer 1000 payout 1000",
                "run resume completed",
                "run semimonthly 2026-11-15 completed",
                "told run_completed",
            ],
            Self::Outage => &[
                // 10.00 paid, and a fan's 5.00.
                "acct_1 earned held_connected=5000000 paid_out=10000000",
                "acct_1 paid 1000: transfer 1000 payout 1000",
                // The bank refused it.
                "acct_2 earned at_stripe=3000000",
                "acct_2 payout_blocked 300: transfer 300 payout 300",
                "reconciliation done",
                "run semimonthly 2026-11-15 completed",
                "told run_completed",
            ],
            Self::Operators => &[
                "acct_1 earned paid_out=10000000",
                "acct_1 paid 1000: transfer 1000 payout 1000",
                "run semimonthly 2026-11-15 completed",
                "told facts_changed",
                "told funding_short",
                "told run_completed",
            ],
        }
    }

    /// That the books and Stripe agree, except on a contradiction.
    pub async fn audit(self, machine: &Machine) {
        if self == Self::Contradiction {
            machine.world.audit().await;
            machine.audit_double();
        } else {
            machine.audit().await;
        }
    }

    /// The part of the boundaries for whose sake it is told.
    pub fn is_about(self, boundary: Boundary) -> bool {
        let about = match boundary {
            Boundary::QueueRunsAgain | Boundary::ProlongLease => Self::LostHints,
            Boundary::RequestWithdrawal
            | Boundary::CancelWithdrawal
            | Boundary::BatchWithdrawal
            | Boundary::TakeDueWithdrawals
            | Boundary::QueueWithdrawal
            | Boundary::QueueWithdrawalsAgain => Self::Withdrawals,
            Boundary::RequestAccount
            | Boundary::CreateAccount
            | Boundary::CreateAccountLink
            | Boundary::FindAccount
            | Boundary::ListAccounts
            | Boundary::SyncAccounts
            | Boundary::ResumePayee
            | Boundary::QueueResume => Self::Newcomer,
            Boundary::BeginReconciliation
            | Boundary::ApplyMissedNews
            | Boundary::SaveReconciled
            | Boundary::ListEvents
            | Boundary::ListTransfers
            | Boundary::ListPayouts
            | Boundary::ClaimDeliveries
            | Boundary::SendSlack
            | Boundary::SendEmail => Self::Outage,
            Boundary::SaveByRequest
            | Boundary::MirrorSwitches
            | Boundary::ChangeSchedule
            | Boundary::HoldRun
            | Boundary::Forecast => Self::Operators,
            _ => Self::Cycle,
        };
        self == about
            || self == Self::Contradiction && boundary == Boundary::SaveRepliesAndDispatch
            || self == Self::Withdrawals && boundary == Boundary::SaveByRequest
    }
}

async fn cycle(machine: &mut Machine) {
    let funds_minor = 100_000_000;
    machine.double.fund("usd", 4_000 - funds_minor);
    machine.accounts(1..=5);
    machine.creators(1..=5).await;
    machine.double.fund_account(Some("acct_2"), "usd", 500);
    let mut automatic = ready_account("acct_3");
    automatic["settings"] = json!({});
    machine.describe(3, automatic, "2026-10-01T00:00:00Z").await;
    machine.double.update_account("acct_3", |account| account.payout_interval = None);
    let refusal = Fault::Error { status: 400, code: "transfers_not_allowed".to_owned(), message: "no".to_owned(), stored: true };
    machine.double.fault(FaultRule::post("/v1/transfers", When::Nth(1), refusal).for_account("acct_5"));
    machine.double.fault(FaultRule::post("/v1/payouts", When::Nth(1), Fault::Unauthorized).for_account("acct_2"));

    let connected = NewEarning { place: Place::Connected, ..earning("c2", 2, 500) };
    let platform = [(1, 1_000), (2, 300), (3, 400), (4, 5_000), (5, 600)];
    let earned = platform.map(|(n, minor)| earning(&format!("p{n}"), n, minor)).into_iter().chain([connected]).collect();
    machine.comes(Delivery::Earnings(earned));

    // A fan pays and gets a part back, and the news come in the wrong order.
    let charge = DestinationCharge {
        amount: 1_000,
        application_fee_amount: 100,
        destination: "acct_1".to_owned(),
        ..DestinationCharge::default()
    };
    let charged = machine.double.create_destination_charge(&charge).expect("charged");
    machine.double.refund(&charged.charge, 400, true, true).expect("refunded");
    machine.hear(true);
    let changed = json!({ "id": "evt_capability", "type": "capability.updated", "account": "acct_4", "created": 1_790_000_000,
                          "livemode": false, "data": { "object": {} } });
    machine.comes(Delivery::Event(changed));
    // Two hours after the cut-off the run is still missing: it is started, and its schedule comes too late.
    machine.run("update instance set created_at = '2026-01-01'").await;
    machine.comes(Delivery::Job(Job::Heartbeat, Some(cutoff() + chrono::Duration::hours(2))));
    machine.rest().await;

    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    machine.double.fund("usd", 10_000);
    machine.comes(Delivery::Job(Job::Retry, None));
    machine.rest().await;
    machine.double.settle_payouts();

    // A bank sends back what was paid, and the payee names another one.
    let payouts = machine.double.payouts();
    let first = payouts.iter().find(|payout| payout.account == "acct_1").expect("the payout");
    machine.double.fail_payout(&first.id, "account_closed");
    machine.double.update_account("acct_1", |account| {
        account.banks = vec![BankSpec { fingerprint: "another bank".to_owned(), ..BankSpec::default() }];
    });
    machine.hear(false);
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.comes(Delivery::Job(Job::Verify, None));
    machine.rest().await;
}

async fn lost_hints(machine: &mut Machine) {
    machine.accounts(1..=1);
    machine.creators(1..=1).await;
    machine.double.fault(FaultRule::post("/v1/transfers", When::Always, Fault::Slow { ms: 450 }));
    machine.comes(Delivery::Earnings(vec![earning("p1", 1, 1_000)]));
    machine.lose_the_next_of(CREATE_BATCH);
    machine.lose_the_next_of(PROCESS_CHUNK);
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.rest().await;
}

async fn contradiction(machine: &mut Machine) {
    machine.accounts(1..=2);
    machine.creators(1..=2).await;
    machine.double.fault(FaultRule::post("/v1/transfers", When::Always, Fault::WrongAmount).for_account("acct_1"));
    machine.comes(Delivery::Earnings(vec![earning("p1", 1, 1_000), earning("p2", 2, 2_000)]));
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    assert_eq!(machine.row("select status, halt_reason from payout_batches").await, "halted frozen_operation");
    let mut tx = machine.tx().await;
    jobs::resume(&mut tx, "frozen_operation").await.expect("resumed");
    tx.commit(Boundary::Outside).await.expect("a commit");
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.rest().await;
}

async fn withdrawals(machine: &mut Machine) {
    machine.accounts(1..=3);
    machine.creators(1..=3).await;
    machine.comes(Delivery::Settings(3, Schedule::Manual));
    machine.comes(Delivery::Earnings((1..=3).map(|n| earning(&format!("p{n}"), n, 1_000)).collect()));
    machine.rest().await;
    machine.comes(Delivery::Withdraw(1, 100, Withdrawals::OnDemand));
    machine.comes(Delivery::Withdraw(2, 100, Withdrawals::NextCycle));
    machine.comes(Delivery::Withdraw(3, 100, Withdrawals::NextCycle));
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.comes(Delivery::CancelWithdrawal(2));
    machine.rest().await;
    // They were asked for before the cycle's cut-off.
    machine.run("update withdrawal_requests set created_at = '2026-11-10T00:00:00Z'").await;
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.rest().await;
}

async fn newcomer(machine: &mut Machine) {
    machine.comes(Delivery::Earnings(vec![earning("p1", 1, 1_000)]));
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    machine.double.fault(FaultRule::post("/v1/accounts", When::Nth(1), Fault::ExecuteThenReset));
    machine.comes(Delivery::Connect(1));
    machine.rest().await;
    let accounts = machine.double.accounts();
    assert_eq!(accounts.len(), 1, "never a second account");
    machine.double.finish_onboarding(&accounts[0].id);
    machine.hear(false);
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.comes(Delivery::Job(Job::Sync, None));
    machine.rest().await;
}

async fn outage(machine: &mut Machine) {
    machine.accounts(1..=2);
    machine.creators(1..=2).await;
    machine.comes(Delivery::Earnings(vec![earning("p1", 1, 1_000), earning("p2", 2, 300)]));
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.rest().await;
    let charge = DestinationCharge { amount: 500, destination: "acct_1".to_owned(), ..DestinationCharge::default() };
    machine.double.create_destination_charge(&charge).expect("charged");
    let payouts = machine.double.payouts();
    for payout in &payouts {
        if payout.account == "acct_2" {
            machine.double.fail_payout(&payout.id, "account_closed");
        } else {
            machine.double.settle_payout(&payout.id);
        }
    }
    // Nothing of that is heard, and the days on which it should have arrived are over.
    machine.run("update payout_items set arrival_on = arrival_on - 5").await;
    for _ in 0..3 {
        // The schedule fires every hour; the lease of one that died runs out meanwhile.
        machine.comes(Delivery::Job(Job::Reconcile, None));
        machine.rest().await;
        machine.later(chrono::Duration::hours(1)).await;
    }
}

async fn operators(machine: &mut Machine) {
    machine.accounts(1..=1);
    machine.creators(1..=1).await;
    machine.double.fund("usd", 500 - 100_000_000);
    machine.comes(Delivery::Earnings(vec![earning("p1", 1, 1_000)]));
    machine.comes(Delivery::Job(Job::Forecast, Some(cutoff() - chrono::Duration::hours(40))));
    machine.rest().await;
    machine.double.fund("usd", 10_000);

    machine.comes(Delivery::Press(Press::Pause));
    machine.rest().await;
    assert_eq!(machine.schedules.disabled(), ["payout-monthly", "payout-semimonthly", "payout-weekly"]);
    machine.comes(Delivery::Fired(Schedule::Semimonthly, cutoff()));
    machine.comes(Delivery::Job(Job::Sweep, None));
    machine.rest().await;
    assert_eq!(machine.count("payout_runs").await, 0, "nothing starts");
    machine.comes(Delivery::Press(Press::Resume));
    machine.rest().await;
    machine.comes(Delivery::Job(Job::Sweep, None));
    machine.rest().await;
    assert_eq!(machine.schedules.disabled(), [""; 0]);

    // Agreed to by a preview that showed something else, and then as it is.
    let others = Agreed::from([(Schedule::Semimonthly, "0".repeat(64))]);
    machine.comes(Delivery::Run(Some(others)));
    machine.rest().await;
    assert_eq!(machine.count("payout_items").await, 0, "nothing is made of other facts");
    machine.comes(Delivery::Run(None));
    machine.rest().await;
    machine.double.settle_payouts();
    machine.hear(false);
    machine.rest().await;
}

/// The end, as [`Story::end`] says it.
pub async fn end_of(machine: &Machine) -> Vec<String> {
    machine
        .rows(
            "with names as (
                select payee_id, case when account ~ '^acct_\\d+$' then account else 'new account of ' || right(payee_id::text, 1) end as name
                from stripe_accounts)
             select line from (
                select a.name || ' earned ' || string_agg(v.key || '=' || v.value, ' ' order by v.ordinality) as line
                from payee_balances b join names a on a.payee_id = b.payee_id cross join lateral json_each_text(to_json(b)) with ordinality as v
                where v.value <> '0' and v.key not in ('payee_id', 'currency') group by a.name, b.currency
                union all
                select a.name || ' ' || status || ' ' || amount_minor || ': transfer ' || transfer_minor || ' payout ' || payout_minor
                from payout_items i join names a on a.payee_id = i.creator_id
                union all
                select 'run ' || case kind when 'scheduled' then schedule || ' ' || cycle_on else kind end || ' ' || status from payout_runs
                union all
                select a.account || ' asked for ' || w.token_amount || ': ' || w.status from withdrawal_requests w join stripe_accounts a on a.payee_id = w.creator_id
                union all
                select 'reconciliation ' || stage from reconciliations
                union all
                select 'discrepancy ' || kind || ' ' || state from discrepancies
                union all
                select 'told ' || kind from outbox where kind <> 'batch_halted' and sent_at is not null
                union all
                select 'open: ' || leg || ' ' || state || ' of item ' || item_id from payout_operations where state not in ('accepted', 'rejected', 'returned')
                union all
                select 'waiting: ' || type from stripe_events where state = 'waiting'
                union all
                select 'unsent: ' || kind from outbox where sent_at is null
                union all
                select 'open way: ' || channel from outbox_deliveries where state not in ('sent', 'unsure')
             ) as lines order by line",
        )
        .await
}
