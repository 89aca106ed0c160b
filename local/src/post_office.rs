//! People's letter boxes on this machine: an endpoint shaped like SES and one shaped like Slack's webhooks. They keep what comes, show
//! it at `/`, and can be told to be as unkind as the real ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::identity::Identities;

/// SES takes as many for one email.
const MOST_RECIPIENTS: usize = 50;

/// An email as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// What a box does with its next letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Refuses it with this status.
    Refuse(u16),
    /// Takes it and never answers.
    TakeAndHang,
    /// Does not take it and never answers.
    Hang,
}

#[derive(Debug, Default)]
struct Boxes {
    mails: Vec<Mail>,
    posts: Vec<String>,
    mail_moods: VecDeque<Mood>,
    post_moods: VecDeque<Mood>,
}

/// Cheap to clone; clones are handles to the same boxes, which close with the last.
#[derive(Clone)]
pub struct PostOffice {
    pub url: String,
    boxes: Arc<Mutex<Boxes>>,
    /// Who may send by the template's roles; before a stack has told, anybody.
    identities: Arc<Mutex<Option<Arc<Identities>>>>,
    _serving: Arc<Serving>,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone)]
struct Shared {
    boxes: Arc<Mutex<Boxes>>,
    identities: Arc<Mutex<Option<Arc<Identities>>>>,
}

impl PostOffice {
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Shared { boxes: Arc::default(), identities: Arc::default() };
        let router = Router::new()
            .route("/", get(show))
            .route("/slack", post(take_post))
            .route("/v2/email/outbound-emails", post(take_mail))
            .with_state(shared.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the letter boxes are closed");
            }
        });
        Ok(Self { url, boxes: shared.boxes, identities: shared.identities, _serving: Arc::new(Serving(serving)) })
    }

    /// Stands in for `SLACK_PAYOUT_WEBHOOK_URL`.
    pub fn slack_url(&self) -> String {
        format!("{}/slack", self.url)
    }

    /// From now on a function needs the right to send emails.
    pub(crate) fn obey(&self, identities: Arc<Identities>) {
        *self.identities.lock().unwrap_or_else(PoisonError::into_inner) = Some(identities);
    }

    fn boxes(&self) -> MutexGuard<'_, Boxes> {
        open(&self.boxes)
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.boxes().mails.clone()
    }

    /// What was posted to Slack.
    pub fn posts(&self) -> Vec<String> {
        self.boxes().posts.clone()
    }

    /// The next emails meet these moods, one each.
    pub fn next_mails(&self, moods: impl IntoIterator<Item = Mood>) {
        self.boxes().mail_moods.extend(moods);
    }

    pub fn next_posts(&self, moods: impl IntoIterator<Item = Mood>) {
        self.boxes().post_moods.extend(moods);
    }
}

fn open(boxes: &Mutex<Boxes>) -> MutexGuard<'_, Boxes> {
    boxes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn never<T>() -> T {
    // Longer than anybody's patience.
    tokio::time::sleep(Duration::from_secs(600)).await;
    std::future::pending().await
}

async fn take_post(State(shared): State<Shared>, body: String) -> Response {
    let Some(text) = serde_json::from_str::<Value>(&body).ok().and_then(|body| body["text"].as_str().map(str::to_owned)) else {
        return (StatusCode::BAD_REQUEST, "invalid_payload").into_response();
    };
    let mood = {
        let mut boxes = open(&shared.boxes);
        let mood = boxes.post_moods.pop_front();
        if matches!(mood, None | Some(Mood::TakeAndHang)) {
            boxes.posts.push(text);
        }
        mood
    };
    match mood {
        None => "ok".into_response(),
        Some(Mood::Refuse(status)) => refused(status, "rollup_error"),
        Some(Mood::TakeAndHang | Mood::Hang) => never().await,
    }
}

fn refused(status: u16, why: &'static str) -> Response {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why).into_response()
}

/// An error as SES words it.
fn ses_error(status: u16, kind: &str, message: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("x-amzn-errortype", kind.to_owned())], Json(json!({ "message": message }))).into_response()
}

async fn take_mail(State(shared): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let identities = shared.identities.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = body.pointer("/Destination/ToAddresses").and_then(Value::as_array).cloned().unwrap_or_default();
    let mail = Mail {
        from: text("/FromEmailAddress"),
        to: list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        subject: text("/Content/Simple/Subject/Data"),
        text: text("/Content/Simple/Body/Text/Data"),
        html: text("/Content/Simple/Body/Html/Data"),
    };
    let resource = format!("arn:aws:ses:us-east-1:123456789012:identity/{}", mail.from);
    if let Some(Err(why)) = identities.map(|identities| identities.check(&headers, "ses:SendEmail", &resource)) {
        return ses_error(403, "AccessDeniedException", why);
    }
    let is_address =
        |address: &String| address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
    if mail.to.is_empty() || mail.to.len() > MOST_RECIPIENTS || !mail.to.iter().chain([&mail.from]).all(is_address) {
        return ses_error(400, "BadRequestException", "Missing or wrong address".to_owned());
    }
    if mail.subject.contains(['\r', '\n']) || mail.text.is_empty() || mail.html.is_empty() {
        return ses_error(400, "BadRequestException", "Missing or wrong content".to_owned());
    }
    let mood = {
        let mut boxes = open(&shared.boxes);
        let mood = boxes.mail_moods.pop_front();
        if matches!(mood, None | Some(Mood::TakeAndHang)) {
            boxes.mails.push(mail);
        }
        mood
    };
    match mood {
        None => Json(json!({ "MessageId": "0100000000000000-local" })).into_response(),
        Some(Mood::Refuse(429)) => ses_error(429, "TooManyRequestsException", "Maximum sending rate exceeded.".to_owned()),
        Some(Mood::Refuse(status)) => ses_error(status, "InternalServiceErrorException", "try again".to_owned()),
        Some(Mood::TakeAndHang | Mood::Hang) => never().await,
    }
}

/// Everything that came, for whoever looks.
async fn show(State(shared): State<Shared>) -> Response {
    let boxes = open(&shared.boxes);
    Json(json!({ "slack": boxes.posts, "emails": boxes.mails })).into_response()
}
