//! astral-web's API as a client sees it. What comes from there is a stranger's.

use std::sync::Arc;
use std::time::Duration;

use astral_proto::api::web::{Bootstrap, Submission};
use astral_proto::record::{Address, SignedNode, SignedStream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tracing::debug;

use super::connect::Connector;

/// Time for a connection and the whole answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: 16 nodes and 100 streams of 8 KiB records, as base64.
const ANSWER_MAX: usize = 1024 * 1024;
/// Nodes that are looked at in one answer; astral-web gives up to 16.
const NODES_MAX: usize = 16;
/// Streams likewise; it gives up to 100.
const STREAMS_MAX: usize = 100;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The URL of the settings makes no request.
    #[error("no request can be made: {0}")]
    Request(#[from] hyper::http::Error),
    /// No connection, or it broke.
    #[error("{}", chain(.0))]
    Connection(#[from] legacy::Error),
    /// No answer within 5 s.
    #[error("no answer within 5 s")]
    Late,
    /// The answer broke off or is longer than 1 MiB.
    #[error("the answer is broken or too long: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is none of the API's.
    #[error("the answer makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    /// A newer record is listed there (409).
    #[error("a newer record is listed")]
    Outdated,
    /// Any other status.
    #[error("it answered {0}")]
    Status(StatusCode),
}

/// The error with what caused it: "client error (Connect)" alone helps nobody.
fn chain(error: &legacy::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

/// What `GET /bootstrap` came to.
#[derive(Debug)]
pub(super) enum Answer {
    /// As the last time.
    Unchanged,
    /// This.
    New(Box<Bootstrap>),
}

/// A client of one astral-web.
pub(super) struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    url: String,
    etag: Option<HeaderValue>,
}

impl Client {
    /// A client; connects when first used.
    pub(super) fn new(url: &str, trust: Arc<ClientConfig>) -> Self {
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(Connector::new(trust)),
            url: url.to_owned(),
            etag: None,
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn bootstrap(&mut self) -> Result<Answer, Failure> {
        let mut request = Request::get(format!("{}/api/v1/bootstrap", self.url));
        if let Some(etag) = &self.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let (status, etag, body) = self.exchange(request.body(Full::default())?).await?;
        match status {
            StatusCode::NOT_MODIFIED => Ok(Answer::Unchanged),
            StatusCode::OK => {
                let answer = serde_json::from_slice(&body)?;
                self.etag = etag;
                Ok(Answer::New(Box::new(answer)))
            }
            other => Err(Failure::Status(other)),
        }
    }

    /// Lists a record among `nodes` or `streams`.
    pub(super) async fn post(&self, list: &str, record: &Bytes) -> Result<(), Failure> {
        let record = URL_SAFE_NO_PAD.encode(record);
        let body = serde_json::to_vec(&Submission { record })?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/api/v1/{list}", self.url))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        match self.exchange(request).await?.0 {
            StatusCode::CONFLICT => Err(Failure::Outdated),
            status if status.is_success() => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Option<HeaderValue>, Bytes), Failure> {
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let etag = response.headers().get(ETAG).cloned();
            let body = Limited::new(response.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(Failure::Body)?.to_bytes();
            Ok((status, etag, body))
        };
        tokio::time::timeout(ANSWER_WITHIN, exchange)
            .await
            .unwrap_or(Err(Failure::Late))
    }
}

/// Nodes with where they are, and streams.
pub(super) type Verified = (Vec<(SignedNode, Vec<Address>)>, Vec<SignedStream>);

/// What verifies of an answer; the rest is left out.
pub(super) fn verified(answer: &Bootstrap) -> Verified {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let nodes = answer.supernodes.iter().take(NODES_MAX).filter_map(|node| {
        let record = bytes(node.record.as_ref()?).and_then(|wire| SignedNode::decode(&wire).ok());
        let Some(record) = record else {
            debug!(node = %node.uuid, "astral-web lists a node whose record does not verify");
            return None;
        };
        // Only what is signed is believed: nobody sends this node to strangers' ports.
        let addresses = record.value().addresses.clone();
        Some((record, addresses))
    });
    let streams = answer.streams.iter().take(STREAMS_MAX);
    let streams = streams.filter_map(|stream| {
        let record = bytes(&stream.record).and_then(|wire| SignedStream::decode(&wire).ok());
        if record.is_none() {
            debug!(stream = %stream.id, "astral-web lists a stream whose record does not verify");
        }
        record
    });
    (nodes.collect(), streams.collect())
}
