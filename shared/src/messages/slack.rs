//! Slack's incoming webhooks. [docs.slack.dev/messaging/sending-messages-using-incoming-webhooks]

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use http::header::HeaderValue;
use hyper::body::Bytes;
use serde_json::json;

use super::Sent;
use super::letters::Letter;
use crate::boundary::{Boundary, cross};
use crate::error::{Error, Result};
use crate::http_client::{Answer, Failure, HttpClient};

/// Ten messages of a batch wait for it at once, and the function has a minute.
const PATIENCE: Duration = Duration::from_secs(5);
/// Slack takes 40,000 characters and shows a few thousand.
const MOST_CHARACTERS: usize = 3_500;

/// One webhook; cheap to clone.
#[derive(Clone)]
pub struct Slack {
    http: HttpClient,
    url: String,
}

impl Slack {
    /// The URL comes from outside and is called from inside. So it has to be https to a public host: neither by its name nor by what
    /// the name resolves to may it lead to this network. `may_be_inside` is for one machine, where AWS is inside too.
    pub fn new(url: &str, may_be_inside: bool) -> Result<Self> {
        let refused = |why: &str| Error::config("SLACK_PAYOUT_WEBHOOK_URL", why);
        let parsed: http::Uri = url.parse().map_err(|_| refused("is not a URL like https://hooks.slack.com/services/…"))?;
        let host = parsed.host().unwrap_or_default();
        let scheme = parsed.scheme_str().unwrap_or_default();
        if host.is_empty() || !["http", "https"].contains(&scheme) {
            return Err(refused("is not a URL like https://hooks.slack.com/services/…"));
        }
        if may_be_inside {
            return Ok(Self { http: HttpClient::new(PATIENCE)?, url: url.to_owned() });
        }
        if scheme != "https" || parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused("must begin with https:// and name no user"));
        }
        if !crate::http_client::may_be_public(host) {
            return Err(refused(
                "leads inside (a private, loopback or link-local address); it must be a public host like hooks.slack.com",
            ));
        }
        Ok(Self { http: HttpClient::to_public_hosts(PATIENCE)?, url: url.to_owned() })
    }

    pub(super) async fn send(&self, letter: &Letter) -> Sent {
        let body = Bytes::from(json!({ "text": text(letter) }).to_string());
        let headers = vec![("content-type", HeaderValue::from_static("application/json"))];
        // Slack does not know a request again, so this one is made once whatever happens.
        let mut once = Some((headers, body));
        #[expect(clippy::disallowed_methods, reason = "the named wrapper")]
        let answer = cross(Boundary::SendSlack, || {
            let request = once.take();
            async {
                match request {
                    Some((headers, body)) => self.http.send(Method::POST, &self.url, headers, body).await,
                    None => Err(Failure::Unanswered("sent before".to_owned())),
                }
            }
        });
        read(answer.await)
    }
}

/// Slack's answer. An answer that says no means that nothing was posted; no answer may mean anything.
fn read(answer: Result<Answer, Failure>) -> Sent {
    match answer {
        Ok(answer) if answer.status.is_success() => Sent::Yes,
        Ok(answer) => Sent::NotNow(format!("Slack answered {}", answer.status)),
        Err(Failure::NotSent(why)) => Sent::NotNow(why),
        Err(Failure::Unanswered(why)) => Sent::Unsure(why),
    }
}

/// A letter in Slack's notation, in which `<`, `>` and `&` make links and call people.
fn text(letter: &Letter) -> String {
    let mut text = format!("*{}*", escape(&letter.subject).replace('*', "∗"));
    for paragraph in letter.paragraphs.iter().chain([&letter.footer]) {
        text.push('\n');
        text.push_str(&escape(paragraph));
    }
    if text.chars().count() > MOST_CHARACTERS {
        text = text.chars().take(MOST_CHARACTERS).chain(['…']).collect();
    }
    text
}

fn escape(text: &str) -> Cow<'_, str> {
    // The three that Slack asks for are what HTML escapes in text.
    html_escape::encode_text(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::letters::Audience;

    #[test]
    fn a_url_that_points_inside_is_refused_by_name() {
        for url in [
            "http://hooks.slack.com/services/T/B/x",
            "https://localhost/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://10.1.2.3/x",
            "https://169.254.169.254/latest/meta-data",
            "https://metadata.google.internal/x",
            "https://db.internal/x",
            "https://postgres/x",
            "https://user@hooks.slack.com/x",
            "https://hooks.slack.com@10.0.0.1/x",
            "file:///etc/passwd",
            "https://",
            "hooks.slack.com/services/T/B/x",
            "",
        ] {
            let refusal = Slack::new(url, false).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(refusal.message.starts_with("SLACK_PAYOUT_WEBHOOK_URL: "), "{url}: {refusal}");
            assert!(url.matches('/').count() < 3 || !refusal.message.contains(url), "{url}: the secret is not shown: {refusal}");
        }
        assert!(Slack::new("https://hooks.slack.com/services/T/B/x", false).is_ok());
        assert!(Slack::new("http://127.0.0.1:9/x", true).is_ok());
        assert!(Slack::new("file:///etc/passwd", true).is_err());
    }

    #[tokio::test]
    async fn a_public_name_that_resolves_to_an_address_inside_is_not_called() {
        // Whatever resolves it, this name is for the machine itself.
        let http = HttpClient::to_public_hosts(PATIENCE).expect("a client");
        let slack = Slack { http, url: "http://localhost:9/x".to_owned() };
        let letter = Letter::new(Audience::Operators, "s", vec![], 1);
        match slack.send(&letter).await {
            Sent::NotNow(why) => assert!(why.contains("inside"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_people_wrote_cannot_call_anybody_or_make_a_link() {
        let paragraphs = vec!["<!channel> & <https://evil.example|click>".to_owned(), "x".repeat(5_000)];
        let letter = Letter::new(Audience::Operators, "a *bold* <@U1>", paragraphs, 7);
        let text = text(&letter);
        assert!(
            text.starts_with("*a ∗bold∗ &lt;@U1&gt;*\n&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;\n"),
            "{text}"
        );
        assert!(text.chars().count() == MOST_CHARACTERS + 1);
    }

    #[test]
    fn only_what_was_not_answered_is_unsure() {
        let answer = |status: u16| {
            let status = http::StatusCode::from_u16(status).expect("a status");
            Ok(Answer { status, headers: http::HeaderMap::new(), body: Bytes::new() })
        };
        assert_eq!(read(answer(200)), Sent::Yes);
        for status in [302, 400, 403, 404, 410, 429, 500, 503] {
            assert!(matches!(read(answer(status)), Sent::NotNow(_)), "{status}");
        }
        assert!(matches!(read(Err(Failure::NotSent("refused".to_owned()))), Sent::NotNow(_)));
        assert!(matches!(read(Err(Failure::Unanswered("reset".to_owned()))), Sent::Unsure(_)));
    }
}
