//! A small client of the node's HTTP API.

use std::fmt;
use std::time::Duration;

use astral_proto::api::{Ingest, List, NewStream, NewTicket, Node, Stream, Ticket};
use astral_proto::ids::NodeId;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::netns;

/// Longest that a request may take; a ticket takes up to 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A node's API.
#[derive(Clone, Debug)]
pub struct Api {
    /// `host:port`.
    pub authority: String,
    /// Token for changes.
    pub token: String,
    /// The computer that the address is on, if it is not this one ([`netns`]).
    pub host: Option<String>,
}

/// What the node answered.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        )
    }
}

impl Answer {
    /// The body as JSON; panics unless the status is 2xx.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert!(self.status.is_success(), "{self}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl Api {
    /// The API at an address.
    pub fn new(authority: &str, token: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            token: token.to_owned(),
            host: None,
        }
    }

    /// `http://host:port` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// A request with `Host` and token, to be sent with [`Self::send`].
    pub fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority);
        request.header(AUTHORIZATION, format!("Bearer {}", self.token))
    }

    /// Sends a request and reads the head of the answer.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let words = |error: &dyn fmt::Display| format!("{}: {error}", self.authority);
        let socket = match &self.host {
            None => TcpStream::connect(&self.authority).await,
            Some(host) => netns::connect(host, &self.authority).await,
        };
        let socket = socket.map_err(|error| words(&error))?;
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = connected.map_err(|error| words(&error))?;
        tokio::spawn(connection);
        sender
            .send_request(request)
            .await
            .map_err(|error| words(&error))
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let whole = async {
            let (head, body) = self.open(request).await?.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        timeout(ANSWER_WITHIN, whole)
            .await
            .unwrap_or_else(|_| Err("no answer".into()))
    }

    /// `GET`, whatever comes of it.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        let request = self.request(Method::GET, path).body(Full::default());
        self.send(request.expect("a path")).await
    }

    /// `GET` of a path under `/api/v1` that must succeed.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.try_get(&format!("/api/v1{path}")).await;
        answer
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
            .json()
    }

    /// A request under `/api/v1` with a JSON body.
    pub async fn call(&self, method: Method, path: &str, body: &impl Serialize) -> Answer {
        let request = self.request(method.clone(), &format!("/api/v1{path}"));
        let json = serde_json::to_vec(body).expect("JSON");
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .body(json.into());
        let answer = self.send(request.expect("a path")).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A `DELETE` under `/api/v1`.
    pub async fn delete(&self, path: &str) -> Answer {
        let request = self.request(Method::DELETE, &format!("/api/v1{path}"));
        let answer = self
            .send(request.body(Full::default()).expect("a path"))
            .await;
        answer.unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
    }

    /// This node.
    pub async fn node(&self) -> Node {
        self.get("/node").await
    }

    /// Publishes a stream; its encoder's URLs come along.
    pub async fn publish(&self, name: &str) -> (Stream, Ingest) {
        let new = NewStream {
            name: name.to_owned(),
            description: None,
            unlisted: false,
        };
        let answer = self.call(Method::POST, "/streams", &new).await;
        assert_eq!(answer.status, 201, "{answer}");
        let stream: Stream = answer.json();
        let ingest = stream
            .ingest
            .clone()
            .expect("the publisher tells the encoder's URLs");
        (stream, ingest)
    }

    /// A stream, if it is known.
    pub async fn try_stream(&self, slug: &str) -> Result<Stream, String> {
        let answer = self.try_get(&format!("/api/v1/streams/{slug}")).await?;
        if answer.status.is_success() {
            Ok(answer.json())
        } else {
            Err(answer.to_string())
        }
    }

    /// A stream that must be known.
    pub async fn stream(&self, slug: &str) -> Stream {
        self.get(&format!("/streams/{slug}")).await
    }

    /// Asks the node to receive a stream.
    pub async fn watch(&self, slug: &str) -> Answer {
        let path = format!("/streams/{slug}/tickets");
        self.call(Method::POST, &path, &NewTicket::default()).await
    }

    /// The tickets of a stream.
    pub async fn tickets(&self, slug: &str) -> Vec<Ticket> {
        self.get::<List<Ticket>>(&format!("/streams/{slug}/tickets"))
            .await
            .items
    }

    /// Who feeds this node.
    pub async fn parent(&self, slug: &str) -> Option<NodeId> {
        self.stream(slug).await.local.parent
    }
}
