//! The HTTP API in front: events of payload version 2 and the answers to them.

use payday_local::front;
use payday_local::stack::Stack;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::World;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A request as bytes on a connection, so that nothing is tidied up on the way.
pub async fn request(origin: &str, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    let address = origin.strip_prefix("http://").expect("an origin");
    let body = body.as_ref();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("sent");
    // A server that has refused the length does not read on.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub async fn post(origin: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    request(origin, "POST", path, headers, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_as_an_event_of_format_two() {
    let world = World::start().await;
    let headers =
        [("x-many", "a"), ("x-many", "b"), ("cookie", "k=v; l=w"), ("content-type", "application/json"), ("user-agent", "test")];
    let answer = request(&world.stack.http_url, "PUT", "/a%20b/c?x=1&x=2&y=%20z", &headers, r#"{"n":1}"#).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("set-cookie: seen=1"), "{}", answer.head);
    let event: Value = serde_json::from_str(&answer.body).expect("json");
    for (pointer, value) in [
        ("/version", json!("2.0")),
        ("/routeKey", json!("$default")),
        ("/rawPath", json!("/a%20b/c")),
        ("/rawQueryString", json!("x=1&x=2&y=%20z")),
        ("/queryStringParameters", json!({ "x": "1,2", "y": " z" })),
        ("/headers/x-many", json!("a,b")),
        ("/cookies", json!(["k=v", "l=w"])),
        ("/body", json!("{\"n\":1}")),
        ("/isBase64Encoded", json!(false)),
        ("/requestContext/http/method", json!("PUT")),
        ("/requestContext/http/sourceIp", json!("127.0.0.1")),
        ("/requestContext/http/userAgent", json!("test")),
        ("/requestContext/stage", json!("$default")),
    ] {
        assert_eq!(event.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(event.pointer("/headers/cookie").is_none());

    let binary = post(&world.stack.http_url, "/", &[("content-type", "application/octet-stream")], [0xff, 0x00]).await;
    let event: Value = serde_json::from_str(&binary.body).expect("json");
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_gateway_answers_for_a_function_that_cannot() {
    let world = World::start().await;
    let url = &world.stack.http_url;
    let json_type = [("content-type", "application/json")];
    for (body, status, message) in [
        (json!({ "act": "fail" }), 500, "Internal Server Error"),
        (json!({ "act": "crash" }), 500, "Internal Server Error"),
        (json!({ "act": "answer", "with": { "statusCode": "much" } }), 500, "Internal Server Error"),
        (json!({ "act": "large", "bytes": 6 * 1024 * 1024 + 1 }), 500, "Internal Server Error"),
        (json!({ "act": "sleep", "ms": 1500 }), 503, "Service Unavailable"),
    ] {
        let answer = post(url, "/", &json_type, body.to_string()).await;
        assert_eq!((answer.status, answer.body), (status, json!({ "message": message }).to_string()), "{body}");
    }
    let large = post(url, "/", &json_type, vec![b'x'; 10 * 1024 * 1024 + 1]).await;
    assert_eq!(large.status, 413);
    let teapot =
        post(url, "/", &json_type, json!({ "act": "answer", "with": { "statusCode": 418, "body": "short" } }).to_string()).await;
    assert_eq!((teapot.status, teapot.body.as_str()), (418, "short"));
    assert!(teapot.head.contains("content-type: text/plain"), "{}", teapot.head);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named_and_nothing_is_started() {
    let taken = front::bind(None).await.expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = crate::options(folder.path());
    options.http_port = Some(port);
    let refused = Stack::start(options).await.err().expect("refused").to_string();
    assert_eq!(refused, format!("port {port} is in use by another program; end it, or choose another with --http-port"));
}
