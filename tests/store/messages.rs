//! Messages to people: each comes once, by each of its ways, whatever becomes of the others; what may have arrived is never sent again,
//! what was not taken is.

use std::time::Duration;

use chrono::Duration as Span;
use payday::boundary::Boundary;
use payday::clock::Schedule;
use payday::config::Alerts;
use payday::messages::Messenger;
use payday::notifications::store as outbox;
use payday_local::post_office::{Mood, PostOffice};
use payday_tests::queues::aws_at;
use payday_tests::stage::Stage;
use payday_tests::world::{CYCLE, creator, earning, ready_account};
use serde_json::json;

struct Told {
    stage: Stage,
    post_office: PostOffice,
    messenger: Messenger,
}

fn alerts(post_office: &PostOffice) -> Alerts {
    Alerts {
        slack_url: Some(post_office.slack_url()),
        email_to: vec!["ops@example.com".to_owned(), "cfo@example.com".to_owned()],
        email_from: Some("payday@example.com".to_owned()),
        may_be_inside: true,
    }
}

impl Told {
    async fn new() -> Self {
        let post_office = PostOffice::start().await.expect("letter boxes");
        let alerts = alerts(&post_office);
        Self::with(post_office, &alerts).await
    }

    async fn with(post_office: PostOffice, alerts: &Alerts) -> Self {
        let stage = Stage::new().await;
        let messenger = Messenger::new(stage.db.clone(), alerts, &aws_at(post_office.url.clone()).await);
        Self { stage, post_office, messenger }
    }

    async fn put(&self, key: &str, kind: &'static str, payload: serde_json::Value) -> i64 {
        let mut tx = self.stage.tx().await;
        outbox::put(&mut tx, key, kind, payload).await.expect("put");
        tx.commit(Boundary::Outside).await.expect("a commit");
        self.stage.value("select max(id) from outbox").await
    }

    async fn deliver(&self, id: i64) {
        self.messenger.deliver(id).await.unwrap_or_else(|error| panic!("{error}: {}", error.causes()));
    }

    /// What a sweep announces, delivered.
    async fn sweep(&self) -> usize {
        let now = payday::clock::now();
        let mut tx = self.stage.tx().await;
        let ids = outbox::claim(&mut tx, now, now - Span::minutes(5), 1_000).await.expect("claimed");
        tx.commit(Boundary::Outside).await.expect("a commit");
        for id in &ids {
            self.deliver(*id).await;
        }
        ids.len()
    }

    async fn ways(&self) -> Vec<String> {
        self.stage
            .rows("select channel, recipient, state, attempts from outbox_deliveries order by outbox_id, channel desc, recipient")
            .await
    }

    async fn is_done(&self) -> bool {
        self.stage.value("select bool_and(sent_at is not null) from outbox").await
    }

    fn mails(&self) -> Vec<String> {
        self.post_office.mails().into_iter().map(|mail| format!("{} {}", mail.to.join(","), mail.subject)).collect()
    }
}

#[tokio::test]
async fn an_alert_comes_once_to_everybody_however_often_it_is_hinted_at() {
    let it = Told::new().await;
    let id = it.put("a", "something_new", json!({ "amount": 5, "by": "<!channel>" })).await;
    let again = tokio::join!(it.messenger.deliver(id), it.messenger.deliver(id), it.messenger.deliver(id));
    again.0.and(again.1).and(again.2).expect("delivered");
    it.deliver(id).await;
    it.put("a", "something_new", json!({})).await;
    assert_eq!(
        it.post_office.posts(),
        ["*Payday says: something new*\nDetails are below.\namount: 5\nby: &lt;!channel&gt;\nPayday, message 1"]
    );
    let mut mails = it.mails();
    mails.sort();
    assert_eq!(mails, ["cfo@example.com Payday says: something new", "ops@example.com Payday says: something new"]);
    assert!(it.post_office.mails()[0].html.contains("by: &lt;!channel&gt;"));
    assert_eq!(it.ways().await, ["slack operators sent 1", "email cfo@example.com sent 1", "email ops@example.com sent 1"]);
    assert!(it.is_done().await);
}

#[tokio::test]
async fn a_slack_that_fails_delays_no_email_and_is_told_when_it_works_again() {
    let it = Told::new().await;
    it.post_office.next_posts([Mood::Refuse(503), Mood::Refuse(429), Mood::Refuse(404)]);
    let id = it.put("a", "x", json!({})).await;
    it.deliver(id).await;
    assert_eq!(it.ways().await, ["slack operators waiting 1", "email cfo@example.com sent 1", "email ops@example.com sent 1"]);
    assert!(!it.is_done().await);
    // Not before its time, and each time later.
    assert_eq!(it.sweep().await, 0);
    for (wait, attempts) in [(61, 2), (121, 3), (241, 4)] {
        it.stage.later(Span::seconds(wait - 2)).await;
        assert_eq!(it.sweep().await, 0, "{wait} s");
        it.stage.later(Span::seconds(2)).await;
        assert_eq!(it.sweep().await, 1, "{wait} s");
        assert!(it.ways().await[0].ends_with(&format!(" {attempts}")), "{:?}", it.ways().await);
    }
    assert_eq!(it.ways().await[0], "slack operators sent 4");
    assert_eq!((it.post_office.posts().len(), it.post_office.mails().len()), (1, 2));
    assert!(it.is_done().await);
    assert_eq!(it.sweep().await, 0);
}

#[tokio::test]
async fn what_may_have_arrived_is_not_sent_again_and_a_person_can_see_it() {
    let it = Told::new().await;
    it.post_office.next_posts([Mood::TakeAndHang]);
    it.post_office.next_mails([Mood::TakeAndHang]);
    let id = it.put("a", "x", json!({})).await;
    it.deliver(id).await;
    let unsure = it.stage.rows("select channel, state from outbox_deliveries where state = 'unsure' order by channel").await;
    assert_eq!(unsure, ["email unsure", "slack unsure"]);
    it.stage.later(Span::days(3)).await;
    assert_eq!(it.sweep().await, 0);
    assert_eq!((it.post_office.posts().len(), it.post_office.mails().len()), (1, 2));
    // Nobody knows either when the sender died in the middle.
    let id = it.put("b", "x", json!({})).await;
    it.post_office.next_posts([Mood::TakeAndHang]);
    assert!(tokio::time::timeout(Duration::from_millis(500), it.messenger.deliver(id)).await.is_err(), "it dies while it waits");
    assert_eq!(it.ways().await[3], "slack operators sending 1");
    it.deliver(id).await;
    assert_eq!(it.ways().await[3], "slack operators sending 1", "it may still live");
    it.stage.later(Span::minutes(6)).await;
    it.sweep().await;
    assert_eq!(it.ways().await[3], "slack operators unsure 2");
    assert_eq!(it.post_office.posts().len(), 2);
    assert!(it.is_done().await);
}

#[tokio::test]
async fn a_channel_that_is_not_there_is_tried_until_it_is_given_up_and_never_taken_for_unsure() {
    let post_office = PostOffice::start().await.expect("letter boxes");
    // A closed port, for both.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let alerts = Alerts {
        slack_url: Some(format!("http://{nobody}/x")),
        email_to: vec!["ops@example.com".to_owned()],
        ..alerts(&post_office)
    };
    let stage = Stage::new().await;
    let messenger = Messenger::new(stage.db.clone(), &alerts, &aws_at(format!("http://{nobody}")).await);
    let it = Told { stage, post_office, messenger };
    let id = it.put("a", "x", json!({})).await;
    it.deliver(id).await;
    assert_eq!(it.ways().await, ["slack operators waiting 1", "email ops@example.com waiting 1"]);
    for _ in 0..14 {
        it.stage.later(Span::hours(6)).await;
        it.sweep().await;
    }
    assert_eq!(it.ways().await, ["slack operators given_up 14", "email ops@example.com given_up 14"]);
    assert!(it.is_done().await);
}

#[tokio::test]
async fn a_wrong_slack_url_silences_no_email_and_says_why() {
    let post_office = PostOffice::start().await.expect("letter boxes");
    let alerts = Alerts { may_be_inside: false, ..alerts(&post_office) };
    let it = Told::with(post_office, &alerts).await;
    let id = it.put("a", "x", json!({})).await;
    it.deliver(id).await;
    assert_eq!(it.post_office.mails().len(), 2);
    let why: String = it.stage.value("select why from outbox_deliveries where channel = 'slack'").await;
    assert!(why.starts_with("SLACK_PAYOUT_WEBHOOK_URL: must begin with https"), "{why}");
    assert_eq!(it.post_office.posts(), [""; 0]);
    // An address that SES refuses for ever is given up at once.
    it.stage.run("update payees set email = null").await;
    let id = it.put("b", "destination_changed", json!({ "to": "nobody" })).await;
    it.deliver(id).await;
    assert_eq!(it.ways().await.last().map(String::as_str), Some("email nobody given_up 1"));
}

#[tokio::test]
async fn creators_are_told_once_that_they_are_paid_or_why_not_and_only_those_with_an_address() {
    let it = Told::new().await;
    let stage = &it.stage;
    stage.accounts(1..=5);
    stage.creators(1..=5).await;
    for n in 1..=4 {
        stage.run(format!("update payees set email = 'c{n}@example.com' where id = '{}'", creator(n))).await;
    }
    stage.run("update stripe_accounts set payouts_enabled = false where account = 'acct_4'").await;
    stage.record((1..=5).map(|n| earning(&format!("e{n}"), n, 1_000)).collect()).await;
    stage.cycle(Schedule::Semimonthly, CYCLE, 25).await;
    stage.finish().await;
    let payouts = stage.double.payouts();
    stage.double.settle_payout(&payouts[0].id);
    stage.double.fail_payout(&payouts[0].id, "account_closed");
    stage.double.fail_payout(&payouts[1].id, "account_closed");
    stage.hear().await;
    stage.hear().await;
    it.sweep().await;
    let mut mails = it.mails();
    mails.retain(|mail| mail.starts_with('c') && !mail.starts_with("cfo"));
    mails.sort();
    assert_eq!(
        mails,
        [
            "c1@example.com Your payout of 10.00 USD did not arrive",
            "c1@example.com Your payout of 10.00 USD is on its way",
            "c2@example.com Your payout of 10.00 USD did not arrive",
            "c2@example.com Your payout of 10.00 USD is on its way",
            "c3@example.com Your payout of 10.00 USD is on its way",
            "c4@example.com You were not paid this time",
        ]
    );
    assert!(it.post_office.posts().iter().all(|post| !post.contains("Your payout")), "creators' letters are theirs alone");
    let run = it.post_office.posts().into_iter().find(|post| post.contains("Payout run 1 is complete")).expect("told");
    assert!(
        run.contains("40.00 USD: 4 paid or on their way")
            || run.contains("20.00 USD: 2 paid or on their way, 2 failed (20.00 USD)"),
        "{run}"
    );

    // Another bank: the one who was refused is told of the change, and of the next attempt once.
    let mut account = ready_account("acct_2");
    account["external_accounts"]["data"][0]["fingerprint"] = json!("another bank");
    let event = json!({ "id": "evt_bank", "type": "account.updated", "account": "acct_2", "created": chrono::Utc::now().timestamp() + 60,
                        "livemode": false, "data": { "object": account } });
    stage.take_in(&event).await;
    stage.double.update_account("acct_2", |account| account.banks = vec![Default::default()]);
    stage.finish().await;
    it.sweep().await;
    let of_two: Vec<String> = it.mails().into_iter().filter(|mail| mail.starts_with("c2@")).skip(2).collect();
    assert_eq!(of_two, ["c2@example.com Your bank account was changed", "c2@example.com Your payout of 10.00 USD is on its way"]);
    assert!(it.is_done().await);
    stage.world.audit().await;
}
