//! A small HTTP server for tests, in the place of a node.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::args::{Args, Global};
use crate::client::Api;
use crate::commands::Session;
use crate::home::Target;

/// Id of the node that [`node`] describes.
pub(crate) const NODE: &str = "8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";
/// Id of the stream that [`stream`] describes.
pub(crate) const STREAM: &str = "1d2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method and path with query, such as `GET /api/v1/node`.
    pub(crate) line: String,
    /// `Authorization`.
    pub(crate) authorization: Option<String>,
    /// The body.
    pub(crate) body: Bytes,
}

/// The server; it ends with the test's runtime.
pub(crate) struct Fake {
    /// `host:port`.
    pub(crate) authority: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// Answers each request, after its whole body, with a status and JSON.
    pub(crate) async fn start(
        answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (log, answer) = (log.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let (log, answer) = (log.clone(), answer.clone());
                    async move { Ok::<_, Infallible>(respond(request, &log, &*answer).await) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { authority, seen }
    }

    /// What was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A session with the token `secret`, for the options in `words`.
    pub(crate) fn session(&self, words: &[&str]) -> Session {
        Session {
            global: self.global(words),
            api: Api::new(Target {
                authority: self.authority.clone(),
                token: Some("secret".to_owned()),
                origin: "test".to_owned(),
            }),
        }
    }

    fn global(&self, words: &[&str]) -> Global {
        use clap::Parser as _;
        let fixed = ["astral", "--node", &self.authority, "status"];
        let words = fixed.iter().chain(words);
        Args::try_parse_from(words).unwrap().global
    }
}

async fn respond(
    request: Request<Incoming>,
    log: &Mutex<Vec<Seen>>,
    answer: &(impl Fn(&str) -> (u16, Value) + ?Sized),
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    let authorization = parts.headers.get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    log.lock().unwrap().push(Seen {
        line: line.clone(),
        authorization,
        body,
    });
    let (status, value) = answer(&line);
    let body = if value.is_null() {
        String::new()
    } else {
        value.to_string()
    };
    Response::builder()
        .status(status)
        .body(Full::from(body))
        .unwrap()
}

/// A page of a list.
pub(crate) fn list(items: &[Value], next: Option<&str>) -> Value {
    json!({"items": items, "next": next})
}

/// A problem document.
pub(crate) fn problem(status: u16, detail: &str) -> (u16, Value) {
    let body = json!({"type": "about:blank", "title": "", "status": status, "detail": detail});
    (status, body)
}

/// The node itself.
pub(crate) fn node() -> Value {
    json!({"uuid": NODE, "name": "box", "addresses": ["192.0.2.1:8000"], "role": "node",
        "primary_supernode": null, "self": true, "rtt_ms": null, "upload_limit_bps": 8_000_000,
        "upload_used_bps": 0, "children": 0, "version": "0.1.0", "last_seen": "2026-01-01T00:00:00Z",
        "connected": false})
}

/// A stream of the node, sent to `http://{authority}/ingest/key`.
pub(crate) fn stream(slug: &str, authority: &str) -> Value {
    json!({"id": STREAM, "slug": slug, "name": slug, "description": "", "unlisted": false,
        "publisher": NODE, "share": format!("astral:{STREAM}@192.0.2.1:8000"), "state": "live",
        "tracks": [], "bitrate_bps": 600_000, "started_at": "2026-01-01T00:00:00Z", "viewers": 3,
        "epoch": 1, "local": {"receiving": true, "parent": null, "standby": null, "hops": 0,
        "latency_ms": 0.0, "frames_received": 9, "frames_lost": 0, "switches": 0},
        "ingest": {"rtmp_url": null, "stream_key": "key",
            "http_url": format!("http://{authority}/ingest/key")}})
}
