//! The whole API over a real database of its own, with an SQS and a Scheduler that only say yes.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use http::{HeaderMap, Request};
use jsonwebtoken::{EncodingKey, Header, encode};
use payday::config::{Jwt, JwtKeys, Policy, Withdrawals};
use payday::db::Db;
use payday::http::{AppState, Auth, Connect, Cors, CronSecrets, Limits, Queues, Verifier};
use payday::queue::Queue;
use payday::schedule::Scheduler;
use payday::{aws, router};
use payday_local::stripe_double::StripeDouble;
use payday_tests::database::Database;
use payday_tests::schedules::Schedules;
use payday_tests::stage;
use serde_json::{Value as Json, json};
use tower::ServiceExt;
use uuid::Uuid;

pub const CRON: &str = "cron-secret-of-tests";
const JWT: &str = "jwt-secret-of-tests";
/// What stands in for AWS: takes every message and keeps schedules.
#[derive(Clone, Default)]
pub struct Aws {
    pub messages: Arc<Mutex<Vec<Json>>>,
    pub schedules: Schedules,
}

impl Aws {
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let queues = axum::Router::new().fallback(answer).with_state(self.clone());
        let router = self.schedules.routes().fallback_service(queues);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

async fn answer(State(aws): State<Aws>, headers: HeaderMap, body: String) -> axum::Json<Json> {
    let said: Json = serde_json::from_str(&body).unwrap_or_default();
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    axum::Json(match target {
        "AmazonSQS.SendMessageBatch" => {
            let entries = said["Entries"].as_array().cloned().unwrap_or_default();
            let bodies = entries.iter().filter_map(|entry| serde_json::from_str(entry["MessageBody"].as_str()?).ok());
            aws.messages.lock().expect("a lock").extend(bodies);
            let taken: Vec<Json> =
                entries.iter().map(|entry| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "" })).collect();
            json!({ "Successful": taken, "Failed": [] })
        }
        _ => {
            json!({ "Attributes": { "ApproximateNumberOfMessages": "3", "ApproximateNumberOfMessagesNotVisible": "2", "ApproximateNumberOfMessagesDelayed": "1" } })
        }
    })
}

/// The API and its database.
pub struct Api {
    pub db: Db,
    pub aws: Aws,
    pub state: AppState,
    pub database: Database,
}

/// Who calls.
#[derive(Clone, Copy)]
pub enum Who {
    Cron,
    Operator,
    /// Another one.
    Second,
    Creator(Uuid),
}

impl Api {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let database = Database::new().await;
        let aws = Aws::default();
        let url = aws.serve().await;
        let keys = aws_credential_types::Credentials::from_keys("key", "secret", None);
        let settings = aws::settings().await.into_builder().endpoint_url(&url).region(aws_config::Region::new("us-east-1"));
        let settings =
            settings.credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(keys)).build();
        let queue = |name| Queue::new(&settings, format!("{url}/123456789012/{name}"));
        let mut policy = Policy::load().expect("the defaults hold");
        change(&mut policy);
        let jwt = Jwt { keys: JwtKeys::Secret(JWT.to_owned()), issuer: None, audience: "authenticated".to_owned() };
        // As many connections as the function has.
        let db = Db::connect(&database.url(), 2).expect("an address");
        let state = AppState {
            db: db.clone(),
            policy: policy.into(),
            withdrawals: Withdrawals::OnDemand,
            auth: Auth { cron_secrets: CronSecrets::new(&[CRON.to_owned()]), tokens: Verifier::new(jwt), limits: Limits::new(0) },
            queues: Queues { create_batch: queue("create"), process_chunk: queue("chunk"), notification: queue("notify") },
            scheduler: Scheduler::new(&settings, "payday".to_owned()),
            connect: None,
            stripe_api_base: url.into(),
            stuck_run_minutes: 60,
            two_person_above_cents: 0,
        };
        Self { db, aws, state, database }
    }

    /// With a Stripe under a key that connects people.
    pub fn connecting(mut self, double: &StripeDouble) -> Self {
        self.state.connect = Some(Connect {
            stripe: stage::stripe(double, "rk_test_connect"),
            platform_country: "US".into(),
            frontend: "https://app.example.com".into(),
        });
        self
    }

    pub async fn call(&self, who: Who, method: &str, path: &str, body: Option<Json>) -> (u16, Json) {
        let (status, text) = self.answer(who, method, path, body).await;
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
        (status, json)
    }

    /// A file that must be there.
    pub async fn text(&self, who: Who, path: &str) -> String {
        let (status, text) = self.answer(who, "GET", path, None).await;
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    async fn answer(&self, who: Who, method: &str, path: &str, body: Option<Json>) -> (u16, String) {
        let token = |user: Uuid, roles: &[&str]| {
            let claims = json!({ "sub": user, "aud": "authenticated", "exp": Utc::now().timestamp() + 600, "app_metadata": { "roles": roles } });
            format!("Bearer {}", encode(&Header::default(), &claims, &EncodingKey::from_secret(JWT.as_bytes())).expect("a token"))
        };
        let request = Request::builder().method(method).uri(path);
        let request = match who {
            Who::Cron => request.header("x-cron-secret", CRON),
            Who::Operator => request.header("authorization", token(Uuid::from_u128(7), &["operator"])),
            Who::Second => request.header("authorization", token(Uuid::from_u128(8), &["operator"])),
            Who::Creator(id) => request.header("authorization", token(id, &[])),
        };
        let body = body.map_or_else(Body::empty, |body| body.to_string().into());
        let request = request.header("content-type", "application/json").body(body).expect("a request");
        let response = router::router(self.state.clone(), Cors::default()).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 8 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    /// A call that must succeed.
    pub async fn fine(&self, who: Who, method: &str, path: &str, body: Option<Json>) -> Json {
        let (status, json) = self.call(who, method, path, body).await;
        assert_eq!((status, &json["ok"], &json["success"]), (200, &json!(true), &json!(true)), "{method} {path}: {json}");
        json
    }

    pub async fn earnings(&self, creator: Uuid) -> Json {
        self.fine(Who::Creator(creator), "GET", "/api/tokens/earnings", None).await["earnings"].clone()
    }

    pub async fn earn(&self, creator: Uuid, rows: impl IntoIterator<Item = Earned>) {
        let rows: Vec<Json> = rows.into_iter().map(|row| row.json(creator)).collect();
        self.fine(Who::Cron, "POST", "/internal/earnings", Some(json!({ "earnings": rows }))).await;
    }

    /// What the batch creator does with the run.
    pub async fn create_batches(&self, run: i64) {
        payday::payouts::cycle::create_batches(
            &self.db,
            &self.state.queues.process_chunk,
            &self.state.policy,
            25,
            payday::id::RunId(run),
        )
        .await
        .expect("batches");
    }

    pub fn policy(&self) -> &Policy {
        &self.state.policy
    }

    pub async fn sql(&self, sql: &str) {
        self.database.run(sql).await;
    }

    /// A creator whom nothing but money keeps from being paid.
    pub async fn connect(&self, creator: Uuid, interval: &str) {
        self.sql(&format!(
            "insert into payees (id) values ('{creator}') on conflict do nothing;
             insert into stripe_accounts (payee_id, account, country, transfers_active, payouts_enabled, payout_interval)
             values ('{creator}', 'acct_{}', 'US', true, true, '{interval}')",
            creator.simple()
        ))
        .await;
    }
}

/// An earning, so many days ago.
pub struct Earned {
    pub tokens: Option<i64>,
    pub amount: Option<(i64, &'static str)>,
    pub connected: bool,
    pub at: DateTime<Utc>,
}

pub fn tokens(tokens: i64, days_ago: i64) -> Earned {
    Earned { tokens: Some(tokens), amount: None, connected: false, at: Utc::now() - chrono::Duration::days(days_ago) }
}

/// An amount without a fee, in minor units.
pub fn amount(minor: i64, currency: &'static str, days_ago: i64) -> Earned {
    Earned { tokens: None, amount: Some((minor, currency)), ..tokens(1, days_ago) }
}

impl Earned {
    pub fn connected(mut self) -> Self {
        self.connected = true;
        self
    }

    pub fn on(mut self, date: NaiveDate) -> Self {
        self.at = date.and_time(chrono::NaiveTime::MIN).and_utc();
        self
    }

    fn json(&self, creator: Uuid) -> Json {
        let mut row = json!({ "sourceId": Uuid::new_v4(), "creatorId": creator, "kind": "tip", "occurredAt": self.at });
        if let Some(tokens) = self.tokens {
            row["tokens"] = tokens.into();
        }
        if let Some((minor, currency)) = self.amount {
            row["amount"] = minor.into();
            row["currency"] = currency.into();
            row["fee"] = 0.into();
            row["place"] = if self.connected { "connected" } else { "platform" }.into();
        }
        row
    }
}
