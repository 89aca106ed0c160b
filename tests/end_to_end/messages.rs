//! What people are told, through the real functions: alerts at a Slack-shaped and an SES-shaped endpoint, creators by email.

use payday_local::post_office::Mood;
use payday_local::stripe_double::PayoutOutcome;
use payday_tests::system::Setup;
use payday_tests::world::creator;

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_creators_are_told_once_and_a_slack_that_is_down_delays_neither_payouts_nor_emails() {
    let system = Setup::of(4)
        .accounts(|n, account| {
            if n == 4 {
                account.banks[0].outcome = PayoutOutcome::Failed("account_closed".to_owned());
            }
        })
        .start()
        .await;
    for n in 1..=4 {
        system.database.run(format!("update payees set email = 'c{n}@example.com' where id = '{}'", creator(n))).await;
    }
    system.post_office.next_posts([Mood::Refuse(503), Mood::Refuse(500), Mood::Refuse(429)]);
    system.fire().await;
    system.until("the cycle is sent", "select status = 'completed' from payout_runs").await;
    system.sweep().await;
    system
        .see("both operators have their email", || {
            system
                .post_office
                .mails()
                .iter()
                .filter(|mail| mail.to[0].ends_with("e@example.com") || mail.to[0].starts_with("ops"))
                .count()
                == 2
        })
        .await;
    assert!(system.post_office.posts().is_empty(), "slack is still down");
    system.drain().await;
    system.double.settle_payouts();
    system.drain().await;

    assert_eq!(system.post_office.posts().len(), 1, "{:?}", system.post_office.posts());
    let run = &system.post_office.posts()[0];
    assert!(run.starts_with("*Payout run 1 is complete*\nThe semimonthly cycle of 2026-11-15 has been sent."), "{run}");
    let mut mails: Vec<String> =
        system.post_office.mails().iter().map(|mail| format!("{} {}", mail.to[0], mail.subject)).collect();
    mails.sort();
    assert_eq!(
        mails,
        [
            "c1@example.com Your payout of 20.01 USD is on its way",
            "c2@example.com Your payout of 20.02 USD is on its way",
            "c3@example.com Your payout of 20.03 USD is on its way",
            "c4@example.com Your payout of 20.04 USD did not arrive",
            "c4@example.com Your payout of 20.04 USD is on its way",
            "finance@example.com Payout run 1 is complete",
            "ops@example.com Payout run 1 is complete",
        ]
    );
    let refused = system.post_office.mails().into_iter().find(|mail| mail.subject.ends_with("did not arrive")).expect("a mail");
    assert!(refused.text.contains("Update the bank account"), "{}", refused.text);
    assert_eq!(refused.from, "payday@example.com");
    system.ends("paid=3 payout_blocked=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stripe_refuses_is_told_of_at_once() {
    let system = Setup::of(2).start().await;
    system.double.revoke_key(payday_tests::system::STRIPE_KEY);
    system.fire().await;
    system.idle().await;
    system.sweep().await;
    system
        .see("slack has it", || system.post_office.posts().iter().any(|post| post.contains("is halted: stripe_key_rejected")))
        .await;
    assert!(system.post_office.posts()[0].contains("Give Payday a key that Stripe takes"));
    system.double.allow_key(payday_tests::system::STRIPE_KEY);
    system.sweep().await;
    system.ends("paid=2").await;
}
