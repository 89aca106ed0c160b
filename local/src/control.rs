//! How a command in another terminal reaches a running payday: a small HTTP server on this machine, whose address and token
//! stand in the private folder, readable by its owner only.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use payday::http_client::HttpClient;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::scheduler::Scheduler;

/// What a running payday leaves in its folder for others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub http_url: String,
    pub database_url: String,
    control_url: String,
    token: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no payday runs in {0}. Start one with: cargo payday up", folder.display())]
    NotRunning { folder: PathBuf },
    #[error("the payday in {} does not answer: {why}", folder.display())]
    Silent { folder: PathBuf, why: String },
    #[error("{0}")]
    Refused(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// The server side: ends with this.
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

#[derive(Clone)]
struct Served {
    scheduler: Scheduler,
    token: String,
    stop: Arc<Notify>,
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("running.json")
}

impl Control {
    pub async fn start(folder: &Path, http_url: &str, database_url: &str, scheduler: Scheduler) -> Result<Self, ControlError> {
        let path = path_in(folder);
        let io = |source| ControlError::Io { path: path.clone(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io)?;
        let control_url = format!("http://{}", listener.local_addr().map_err(io)?);
        let token = uuid::Uuid::new_v4().simple().to_string();
        let running = Running {
            pid: std::process::id(),
            http_url: http_url.to_owned(),
            database_url: database_url.to_owned(),
            control_url,
            token: token.clone(),
        };
        let stop = Arc::new(Notify::new());
        let router = Router::new()
            .route("/schedules", get(schedules))
            .route("/fire", post(fire))
            .route("/stop", post(stopped))
            .with_state(Served { scheduler, token, stop: Arc::clone(&stop) });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the control server stopped");
            }
        });
        let control = Self { path: path.clone(), task, stop };
        // Removed first: the mode holds for a new file only.
        let _ = std::fs::remove_file(&path);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        file.write_all(json!(running).to_string().as_bytes()).map_err(io)?;
        Ok(control)
    }

    /// Returns when another command wants this payday to stop.
    pub async fn stop_wanted(&self) {
        self.stop.notified().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

type Reply = (StatusCode, Json<Value>);

/// The token keeps web pages and other users of this machine out.
fn check(served: &Served, headers: &HeaderMap) -> Result<(), Reply> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given == Some(&format!("Bearer {}", served.token)) {
        Ok(())
    } else {
        Err((StatusCode::UNAUTHORIZED, Json(json!({ "error": "the token is wrong" }))))
    }
}

#[derive(Serialize, Deserialize)]
struct Fire {
    name: String,
    at: DateTime<Utc>,
}

async fn fire(State(served): State<Served>, headers: HeaderMap, Json(order): Json<Fire>) -> Result<Reply, Reply> {
    check(&served, &headers)?;
    match served.scheduler.fire(&order.name, order.at).await {
        Ok(answer) => Ok((StatusCode::OK, Json(json!({ "answer": answer })))),
        Err(error) => Err((StatusCode::CONFLICT, Json(json!({ "error": error.to_string() })))),
    }
}

async fn schedules(State(served): State<Served>, headers: HeaderMap) -> Result<Reply, Reply> {
    check(&served, &headers)?;
    let schedules: Vec<Value> =
        served.scheduler.schedules().into_iter().map(|(name, due)| json!({ "name": name, "due": due })).collect();
    Ok((StatusCode::OK, Json(json!(schedules))))
}

async fn stopped(State(served): State<Served>, headers: HeaderMap) -> Result<Reply, Reply> {
    check(&served, &headers)?;
    served.stop.notify_one();
    Ok((StatusCode::OK, Json(json!({ "stopping": true }))))
}

impl Running {
    /// The payday that runs in the folder, if one left word. It may have died since.
    pub fn find(folder: &Path) -> Result<Self, ControlError> {
        let not_running = || ControlError::NotRunning { folder: folder.to_owned() };
        let text = std::fs::read_to_string(path_in(folder)).map_err(|_| not_running())?;
        serde_json::from_str(&text).map_err(|_| not_running())
    }

    async fn order(&self, folder: &Path, path: &str, body: Value) -> Result<Value, ControlError> {
        let silent = |why: String| ControlError::Silent { folder: folder.to_owned(), why };
        // A schedule's function may take its whole 15 minutes.
        let client = HttpClient::new(Duration::from_secs(960)).map_err(|error| silent(error.to_string()))?;
        let token = HeaderValue::from_str(&format!("Bearer {}", self.token)).map_err(|error| silent(error.to_string()))?;
        let headers = vec![("authorization", token), ("content-type", HeaderValue::from_static("application/json"))];
        let answer = client.send(Method::POST, &format!("{}{path}", self.control_url), headers, body.to_string().into()).await;
        let answer = answer.map_err(|failure| match failure {
            payday::http_client::Failure::NotSent(_) => ControlError::NotRunning { folder: folder.to_owned() },
            payday::http_client::Failure::Unanswered(why) => silent(why),
        })?;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            return Ok(said);
        }
        Err(ControlError::Refused(said["error"].as_str().unwrap_or("it refused without a reason").to_owned()))
    }

    /// Fires a schedule there and returns what its function answered.
    pub async fn fire(&self, folder: &Path, name: &str, at: DateTime<Utc>) -> Result<Value, ControlError> {
        let order = Fire { name: name.to_owned(), at };
        Ok(self.order(folder, "/fire", json!(order)).await?["answer"].take())
    }

    pub async fn stop(&self, folder: &Path) -> Result<(), ControlError> {
        self.order(folder, "/stop", json!({})).await.map(drop)
    }
}
