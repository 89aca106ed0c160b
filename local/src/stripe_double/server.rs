//! The HTTP side: a listener on 127.0.0.1, plain hyper so that an answer can be cut in half, a connection
//! reset and the listener closed for a while.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming as HyperBody, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::admin;
use super::pipeline::{Answer, Incoming, Reply, process};
use super::state::Inner;

/// Accepts until the task is aborted.
pub(super) async fn serve(inner: Arc<Inner>, first: TcpListener) {
    let mut listener = Some(first);
    let mut open = inner.open.subscribe();
    loop {
        let is_open = *open.borrow_and_update();
        if !is_open {
            listener = None;
            if open.changed().await.is_err() {
                return;
            }
            continue;
        }
        if listener.is_none() {
            listener = TcpListener::bind(inner.address).await.ok();
        }
        let Some(bound) = &listener else {
            // Somebody else has the port for the moment.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        tokio::select! {
            accepted = bound.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(Arc::clone(&inner), stream));
                }
            }
            _ = open.changed() => {}
        }
    }
}

async fn connection(inner: Arc<Inner>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let mut open = inner.open.subscribe();
    if !*open.borrow_and_update() {
        return;
    }
    let service = {
        let reset = Arc::clone(&reset);
        let inner = Arc::clone(&inner);
        service_fn(move |request| {
            let answer = answer(Arc::clone(&inner), Arc::clone(&reset), request);
            Box::pin(answer) as Pin<Box<dyn Future<Output = Result<Response<CutBody>, HungUp>> + Send>>
        })
    };
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let cut = tokio::select! {
        _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => false,
        _ = open.changed() => true,
    };
    if cut || reset.load(Ordering::Acquire) {
        // Unread answers are thrown away and the peer sees a reset.
        let stream = connection.into_parts().io.into_inner();
        let _ = stream.set_zero_linger();
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the double hung up")
    }
}

impl std::error::Error for HungUp {}

async fn answer(inner: Arc<Inner>, reset: Arc<AtomicBool>, request: Request<HyperBody>) -> Result<Response<CutBody>, HungUp> {
    let (head, body) = request.into_parts();
    let method = match head.method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "PUT" => "PUT",
        _ => "OTHER",
    };
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    if path.starts_with("/_double/") || path == "/_double" {
        return Ok(respond(admin::answer(&inner, method, path, &body), false));
    }
    let incoming = Incoming::new(method, path, query, &head.headers, &body);
    // On its own task: whoever hangs up on Stripe does not stop it.
    let reply = tokio::spawn(process(inner, incoming)).await.unwrap_or(Reply::Reset);
    match reply {
        Reply::Answer(answer) => Ok(respond(answer, false)),
        Reply::Truncated(answer) => Ok(respond(answer, true)),
        Reply::Hang => Ok::<_, Infallible>(std::future::pending().await).map_err(|never| match never {}),
        Reply::Reset => {
            reset.store(true, Ordering::Release);
            Err(HungUp)
        }
    }
}

fn respond(answer: Answer, cut: bool) -> Response<CutBody> {
    let mut response = Response::new(CutBody::new(answer.body, cut));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let kind = if answer.html { "text/html" } else { "application/json" };
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(http::header::SERVER, HeaderValue::from_static("nginx"));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A body of a known length, of which perhaps only the first half comes.
struct CutBody {
    rest: Option<Bytes>,
    declared: u64,
    cut: bool,
}

impl CutBody {
    fn new(bytes: Bytes, cut: bool) -> Self {
        let declared = bytes.len() as u64;
        let rest = if cut { bytes.slice(..bytes.len() / 2) } else { bytes };
        Self { rest: Some(rest).filter(|b| !b.is_empty()), declared, cut }
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = HungUp;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HungUp>>> {
        match self.rest.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.cut => Poll::Ready(Some(Err(HungUp))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.declared)
    }
}
