//! Emails through SES. [docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html]

use std::error::Error as StdError;

use aws_config::SdkConfig;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::error::SdkError;
use aws_sdk_sesv2::operation::send_email::SendEmailError;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message};

use super::Sent;
use super::letters::Letter;
use crate::boundary::{Boundary, Interruption, cross};

/// A sender; cheap to clone.
#[derive(Clone)]
pub struct Email {
    client: Client,
    from: String,
}

/// Why an email was not taken, or is not known to have been.
#[derive(Debug)]
enum Refusal {
    Ses(Box<SdkError<SendEmailError>>),
    Interrupted(Interruption),
    SentBefore,
}

impl From<Interruption> for Refusal {
    fn from(interruption: Interruption) -> Self {
        Self::Interrupted(interruption)
    }
}

impl Email {
    /// SES does not know a request again, so the client makes each once: trying again is decided here, by what is known.
    pub fn new(aws: &SdkConfig, from: String) -> Self {
        let config = aws_sdk_sesv2::config::Builder::from(aws).retry_config(RetryConfig::disabled()).build();
        Self { client: Client::from_conf(config), from }
    }

    pub(super) async fn send(&self, to: &str, letter: &Letter) -> Sent {
        let utf8 = |data: String| Content::builder().data(data).charset("UTF-8").build();
        let parts = (utf8(letter.subject.clone()), utf8(text(letter)), utf8(html(letter)));
        let (Ok(subject), Ok(text), Ok(html)) = parts else { return Sent::Never("the letter has no text".to_owned()) };
        let message = Message::builder().subject(subject).body(Body::builder().text(text).html(html).build()).build();
        let request = self
            .client
            .send_email()
            .from_email_address(&self.from)
            .destination(Destination::builder().to_addresses(to).build())
            .content(EmailContent::builder().simple(message).build());
        let mut once = Some(request);
        let sent = cross(Boundary::SendEmail, || {
            let request = once.take();
            async {
                match request {
                    Some(request) => request.send().await.map(drop).map_err(|error| Refusal::Ses(Box::new(error))),
                    None => Err(Refusal::SentBefore),
                }
            }
        });
        match sent.await {
            Ok(()) => Sent::Yes,
            Err(refusal) => read(refusal),
        }
    }
}

fn read(refusal: Refusal) -> Sent {
    let error = match refusal {
        Refusal::Interrupted(Interruption::Before) => return Sent::NotNow("a test interrupts this".to_owned()),
        Refusal::Interrupted(Interruption::After) | Refusal::SentBefore => {
            return Sent::Unsure("a test interrupts this".to_owned());
        }
        Refusal::Ses(error) => error,
    };
    let why = causes(&*error);
    match &*error {
        SdkError::ConstructionFailure(_) => Sent::Never(why),
        // SES has answered, and with a no.
        SdkError::ServiceError(answer) => match answer.err() {
            SendEmailError::BadRequestException(_) | SendEmailError::MessageRejected(_) => Sent::Never(why),
            _ => Sent::NotNow(why),
        },
        SdkError::DispatchFailure(_) if never_connected(&*error) => Sent::NotNow(why),
        // Among them an answer that cannot be read, and none in time.
        _ => Sent::Unsure(why),
    }
}

fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    chain(error).filter_map(|error| error.downcast_ref::<hyper_util::client::legacy::Error>()).any(|error| error.is_connect())
}

fn causes(error: &(dyn StdError + 'static)) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn text(letter: &Letter) -> String {
    let paragraphs: Vec<&str> = letter.paragraphs.iter().chain([&letter.footer]).map(String::as_str).collect();
    paragraphs.join("\n\n")
}

fn html(letter: &Letter) -> String {
    let paragraph = |text: &String| format!("<p>{}</p>", html_escape::encode_safe(text));
    let paragraphs: String = letter.paragraphs.iter().map(paragraph).collect();
    format!(
        "<!doctype html><html><body>{paragraphs}<p style=\"color:#777\">{}</p></body></html>",
        html_escape::encode_safe(&letter.footer)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::letters::Audience;

    #[test]
    fn what_people_wrote_is_text_in_a_page_and_one_line_in_a_subject() {
        let paragraphs = vec!["<script>alert('x')</script> & \"more\"".to_owned()];
        let letter = Letter::new(Audience::Operators, "one\r\nBcc: everybody@example.com", paragraphs, 7);
        assert_eq!(letter.subject, "one Bcc: everybody@example.com");
        let page = html(&letter);
        assert!(page.contains("<p>&lt;script&gt;alert(&#x27;x&#x27;)&lt;&#x2F;script&gt; &amp; &quot;more&quot;</p>"), "{page}");
        assert!(!page.contains("<script"));
        assert!(text(&letter).starts_with("<script>alert('x')"), "plain text is not escaped");
    }
}
