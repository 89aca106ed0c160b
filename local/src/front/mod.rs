//! The HTTP API on one port of this machine: requests become events of payload format 2.0, answers become responses.
//!
//! What API Gateway answers by itself it answers here too: 404 without a route, 413 over 10 MB, 500 for a function that fails
//! or answers nonsense, 503 for one that takes longer than the integration's timeout.

mod event;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::lambda_host::{LambdaHost, MAX_PAYLOAD_BYTES};
use crate::template::Route;

/// API Gateway's limit for a request.
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;

#[derive(Clone)]
struct Front {
    routes: Arc<[Route]>,
    host: LambdaHost,
    account: String,
}

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("port {0} is in use by another program; end it, or choose another with --http-port")]
    PortInUse(u16),
    #[error("port {0} may not be used by this user; choose one above 1023 with --http-port")]
    PortForbidden(u16),
    #[error("cannot listen on 127.0.0.1:{0}: {1}")]
    Io(u16, std::io::Error),
}

/// Takes the port, or a free one. Done before anything else starts, so that a busy port leaves nothing half done.
pub async fn bind(port: Option<u16>) -> Result<TcpListener, FrontError> {
    let port = port.unwrap_or(0);
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => FrontError::PortInUse(port),
        std::io::ErrorKind::PermissionDenied => FrontError::PortForbidden(port),
        _ => FrontError::Io(port, error),
    })
}

/// Serves until the task is aborted.
pub fn serve(listener: TcpListener, routes: &[Route], host: LambdaHost, account: &str) -> JoinHandle<()> {
    let front = Front { routes: routes.into(), host, account: account.to_owned() };
    let router = Router::new().fallback(handle).with_state(front).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the http api stopped");
        }
    })
}

/// API Gateway's own answers.
fn own(status: StatusCode, message: &str) -> Response<Body> {
    let body = Body::from(serde_json::json!({ "message": message }).to_string());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", axum::http::HeaderValue::from_static("application/json"));
    response
}

async fn handle(
    State(front): State<Front>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some((route, path_parameters)) = find(&front.routes, parts.method.as_str(), parts.uri.path()) else {
        return own(StatusCode::NOT_FOUND, "Not Found");
    };
    let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
        Err(_) => return own(StatusCode::BAD_REQUEST, "Bad Request"),
    };
    let event = event::from_request(&parts, &body, route, &path_parameters, peer.ip(), &front.account);
    // The event, which may be larger than the request by its base64, has to fit into Lambda.
    if event.to_string().len() > MAX_PAYLOAD_BYTES {
        return own(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
    }
    match tokio::time::timeout(route.timeout, front.host.invoke(&route.function, &event)).await {
        Ok(Ok(answer)) => event::to_response(answer).unwrap_or_else(|why| {
            tracing::error!(function = route.function, why, "the function's answer is no http response");
            own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }),
        Ok(Err(error)) => {
            tracing::error!(%error, "the function failed a request");
            own(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        Err(_) => own(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
    }
}

type PathParameters = Vec<(String, String)>;

/// The most specific route: literal parts before `{name}` before `{name+}` before `$default`, a method before `ANY`.
fn find<'r>(routes: &'r [Route], method: &str, path: &str) -> Option<(&'r Route, PathParameters)> {
    let of_method = routes.iter().filter(|route| route.method == "ANY" || route.method == method);
    let matching = of_method.filter_map(|route| matched(&route.path, path).map(|(rank, parameters)| (rank, route, parameters)));
    matching.min_by_key(|(rank, route, _)| (*rank, route.method == "ANY")).map(|(_, route, parameters)| (route, parameters))
}

/// How a path fits a route's: its rank (lower is more specific) and the parameters.
fn matched(pattern: &str, path: &str) -> Option<(usize, PathParameters)> {
    if pattern == "$default" {
        return Some((usize::MAX, Vec::new()));
    }
    let mut rank = 0;
    let mut parameters = Vec::new();
    let mut parts = path.trim_start_matches('/').split('/');
    for wanted in pattern.trim_start_matches('/').split('/') {
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => match name.strip_suffix('+') {
                Some(greedy) => {
                    let rest: Vec<&str> = parts.collect();
                    parameters.push((greedy.to_owned(), rest.join("/")));
                    return (!rest.is_empty()).then_some((rank + 10_000, parameters));
                }
                None => {
                    parameters.push((name.to_owned(), parts.next().filter(|part| !part.is_empty())?.to_owned()));
                    rank += 100;
                }
            },
            None if parts.next()? == wanted => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some((rank, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_route_takes_a_request() {
        let route = |text: &str| {
            let (method, path) = text.split_once(' ').expect("a method and a path");
            Route {
                method: method.to_owned(),
                path: path.to_owned(),
                function: text.to_owned(),
                timeout: std::time::Duration::from_secs(30),
            }
        };
        let routes: Vec<Route> =
            ["ANY $default", "POST /webhooks/stripe", "ANY /webhooks/{name}", "GET /items/{id}", "ANY /items/{rest+}"]
                .map(route)
                .into();
        for (method, path, function) in [
            ("POST", "/webhooks/stripe", "POST /webhooks/stripe"),
            ("GET", "/webhooks/stripe", "ANY /webhooks/{name}"),
            ("POST", "/webhooks/stripe/", "ANY $default"),
            ("GET", "/items/7", "GET /items/{id}"),
            ("PUT", "/items/7", "ANY /items/{rest+}"),
            ("GET", "/items/7/notes", "ANY /items/{rest+}"),
            ("GET", "/", "ANY $default"),
        ] {
            let (found, _) = find(&routes, method, path).expect("the default takes everything");
            assert_eq!(found.function, function, "{method} {path}");
        }
        let (_, parameters) = find(&routes, "GET", "/items/7").expect("a route");
        assert_eq!(parameters, [("id".to_owned(), "7".to_owned())]);
        assert!(find(&routes[1..], "GET", "/elsewhere").is_none());
    }
}
