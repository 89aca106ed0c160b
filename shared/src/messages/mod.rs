//! Sends what is in the outbox to people: to operators by Slack and email, to creators by email.
//!
//! Each way of each message has a row of its own, so one that fails delays no other. The row is claimed in a commit of its own before
//! anything is sent, because neither Slack nor SES knows a request again. What certainly was not taken is tried again, after ever
//! longer, and given up after a day and a half. What may have been taken (no answer, or its sender died) is *unsure* and never sent again.
//! Both are rows that a person sees (`GET /internal/notifications`), and an alarm.

pub mod email;
pub mod letters;
pub mod routes;
pub mod slack;
pub mod store;

use chrono::{DateTime, Duration, Utc};

use crate::boundary::Boundary;
use crate::clock;
use crate::config::Alerts;
use crate::db::Db;
use crate::error::Result;
use crate::telemetry::{Metric, metric};
use email::Email;
use letters::{Audience, Letter};
use slack::Slack;

/// A sender that has said nothing for so long is dead: longer than its function may run.
const SENDER_LIVES: Duration = Duration::seconds(90);
/// The last attempt comes a day and a half after the first.
const MOST_ATTEMPTS: i32 = 14;
const LONGEST_GAP_SECONDS: i64 = 6 * 3_600;

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// Not taken, and may be later.
    NotNow(String),
    /// Not taken, and never will be.
    Never(String),
    /// It may have been taken.
    Unsure(String),
}

/// A way to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Slack,
    Email,
}

impl Channel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Email => "email",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Slack, Self::Email].into_iter().find(|channel| channel.as_str() == text)
    }
}

/// Sends messages; cheap to clone.
#[derive(Clone)]
pub struct Messenger {
    pub db: Db,
    /// None: not set up. An error: set up wrong, and the sentence that says how.
    pub slack: Option<Result<Slack, String>>,
    pub email: Option<Email>,
    /// Operators who get alerts by email.
    pub alerts_to: Vec<String>,
}

impl Messenger {
    /// A wrong address of one channel does not silence the other: its messages wait, with the reason, until they are given up.
    pub fn new(db: Db, alerts: &Alerts, aws: &aws_config::SdkConfig) -> Self {
        let slack = alerts.slack_url.as_deref().map(|url| {
            Slack::new(url, alerts.may_be_inside).map_err(|error| {
                tracing::error!(error = %error, "nothing is posted to slack");
                error.to_string()
            })
        });
        let email = alerts.email_from.as_ref().map(|from| Email::new(aws, from.clone()));
        Self { db, slack, email, alerts_to: alerts.email_to.clone() }
    }

    /// Sends one message of the outbox by every way that is due. Safe to run twice at once: what another sends is not due.
    pub async fn deliver(&self, outbox_id: i64) -> Result<()> {
        let now = clock::now();
        let mut tx = self.db.begin().await?;
        let Some(message) = store::lock(&mut tx, outbox_id).await? else {
            tracing::debug!(outbox = outbox_id, "already sent");
            return Ok(());
        };
        let letter = letters::write(&mut tx, &message).await?;
        if !store::is_planned(&mut tx, outbox_id).await? {
            tracing::info!(outbox = outbox_id, kind = message.kind, payload = %message.payload, "a message for people");
            store::plan(&mut tx, outbox_id, &self.readers(&letter), now).await?;
        }
        let claimed = store::claim(&mut tx, outbox_id, now, now + SENDER_LIVES).await?;
        if claimed.is_empty() {
            store::finish(&mut tx, outbox_id, now).await?;
            return tx.commit(Boundary::MarkOutboxSent).await;
        }
        tx.commit(Boundary::ClaimDeliveries).await?;
        let sends = claimed.into_iter().map(|claim| async {
            let sent = if claim.is_lost { Sent::Unsure("its sender died".to_owned()) } else { self.send(&claim, &letter).await };
            (claim, sent)
        });
        let done = futures::future::join_all(sends).await;
        let now = clock::now();
        let rows: Vec<store::Outcome> = done.iter().map(|(claim, sent)| outcome(claim, sent, now)).collect();
        let mut tx = self.db.begin().await?;
        store::record(&mut tx, outbox_id, &rows, now).await?;
        store::finish(&mut tx, outbox_id, now).await?;
        tx.commit(Boundary::MarkOutboxSent).await?;
        tell(outbox_id, &rows);
        Ok(())
    }

    fn readers(&self, letter: &Letter) -> Vec<(Channel, String)> {
        match &letter.audience {
            Audience::Operators => {
                let by_email = self.email.is_some().then_some(&self.alerts_to).into_iter().flatten();
                let slack = self.slack.is_some().then(|| (Channel::Slack, "operators".to_owned()));
                slack.into_iter().chain(by_email.map(|to| (Channel::Email, to.clone()))).collect()
            }
            Audience::Creator(to) => to.iter().filter(|_| self.email.is_some()).map(|to| (Channel::Email, to.clone())).collect(),
        }
    }

    async fn send(&self, claim: &store::Claim, letter: &Letter) -> Sent {
        let missing = || Sent::NotNow("the channel is not set up any more".to_owned());
        match claim.channel {
            Channel::Slack => match &self.slack {
                Some(Ok(slack)) => slack.send(letter).await,
                Some(Err(why)) => Sent::NotNow(why.clone()),
                None => missing(),
            },
            Channel::Email => match &self.email {
                Some(email) => email.send(&claim.recipient, letter).await,
                None => missing(),
            },
        }
    }
}

/// The row that an attempt leaves.
fn outcome(claim: &store::Claim, sent: &Sent, now: DateTime<Utc>) -> store::Outcome {
    let row = |state, due_at, why: Option<&String>| store::Outcome {
        channel: claim.channel,
        recipient: claim.recipient.clone(),
        state,
        due_at,
        why: why.cloned(),
    };
    match sent {
        Sent::Yes => row("sent", None, None),
        Sent::NotNow(why) if claim.attempts < MOST_ATTEMPTS => row("waiting", Some(now + gap(claim.attempts)), Some(why)),
        Sent::NotNow(why) | Sent::Never(why) => row("given_up", None, Some(why)),
        Sent::Unsure(why) => row("unsure", None, Some(why)),
    }
}

/// A minute after the first attempt, then twice as long each time, up to six hours.
fn gap(attempts: i32) -> Duration {
    let doubled = 60_i64 << u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    Duration::seconds(doubled.min(LONGEST_GAP_SECONDS))
}

fn tell(outbox_id: i64, rows: &[store::Outcome]) {
    for row in rows {
        let channel = row.channel.as_str();
        match row.state {
            "sent" => {
                tracing::info!(outbox = outbox_id, channel, "told");
                metric(Metric::MessagesDelivered, 1, &[]);
            }
            "waiting" => tracing::warn!(outbox = outbox_id, channel, why = row.why, "not taken; it is tried again"),
            state => {
                tracing::error!(outbox = outbox_id, channel, state, why = row.why, "a message is not known to have arrived");
                metric(Metric::MessagesNotDelivered, 1, &[]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_tried_again_ever_later_and_given_up_after_a_day_and_a_half() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("an instant");
        let of = |attempts: i32, sent: &Sent| {
            let claim = store::Claim { channel: Channel::Slack, recipient: "operators".to_owned(), attempts, is_lost: false };
            let row = outcome(&claim, sent, now);
            (row.state, row.due_at.map(|at| (at - now).num_minutes()))
        };
        let not_now = Sent::NotNow("503".to_owned());
        let gaps: Vec<Option<i64>> = (1..=MOST_ATTEMPTS).map(|attempt| of(attempt, &not_now).1).collect();
        let minutes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360, 360].map(Some);
        assert_eq!(gaps, [&minutes[..], &[None]].concat());
        assert_eq!(gaps.iter().flatten().sum::<i64>() / 60, 32, "hours in all");
        for (sent, state) in [
            (Sent::Yes, "sent"),
            (not_now, "given_up"),
            (Sent::Never("no such address".to_owned()), "given_up"),
            (Sent::Unsure("timed out".to_owned()), "unsure"),
        ] {
            assert_eq!(of(MOST_ATTEMPTS, &sent), (state, None));
        }
    }
}
