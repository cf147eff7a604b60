//! The node's HTTP JSON API, as a client sees it.

use std::time::Duration;

use astral_proto::api::{LIMIT_MAX, List, Problem};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::home::Target;

/// Time to connect. A node on this machine or in this network is quick or not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a whole answer: the slowest route (a ticket) takes 5 s at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read, against a server that is no node.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// Most pages of a list, likewise.
const PAGES_MAX: usize = 1_000;

/// A node's API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: Client<HttpConnector, Full<Bytes>>,
    target: Target,
}

impl Api {
    /// A client of the node at `target`; connects when first used.
    pub(crate) fn new(target: Target) -> Self {
        Self {
            http: Client::builder(TokioExecutor::new()).build(connector()),
            target,
        }
    }

    /// `http://host:port` of the node.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.target.authority)
    }

    /// `GET` of an object, typed and as it came.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<(T, Value), Failure> {
        let value = self.call(Method::GET, &path(segments), None).await?;
        Ok((decode(&value)?, value))
    }

    /// `GET` of all pages of a list.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        segments: &[&str],
    ) -> Result<(Vec<T>, List<Value>), Failure> {
        let mut all = List {
            items: Vec::new(),
            next: None,
        };
        for _ in 0..PAGES_MAX {
            let mut page = format!("{}?limit={LIMIT_MAX}", path(segments));
            if let Some(after) = &all.next {
                page.push_str("&after=");
                page.push_str(&encoded(after));
            }
            let value = self.call(Method::GET, &page, None).await?;
            let List { items, next } = decode(&value)?;
            all.items.extend(items);
            all.next = next;
            if all.next.is_none() {
                break;
            }
        }
        let items = all.items.iter().map(decode).collect::<Result<_, _>>()?;
        Ok((items, all))
    }

    /// `POST` or `PATCH` of an object; answers what came back.
    pub(crate) async fn send(
        &self,
        method: Method,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::other)?;
        self.call(method, &path(segments), Some(body)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<(), Failure> {
        let answer = self.call(Method::DELETE, &path(segments), None).await;
        answer.map(|_| ())
    }

    /// `GET` outside the API whose body goes on and on.
    pub(crate) async fn open(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let request = self.request(Method::GET, path, None)?;
        let response = self.answer(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = timeout(ANSWER_TIMEOUT, read(response)).await;
        Err(refusal(status, &body.map_err(|_| slow())??))
    }

    /// One call of the API; an empty answer is `null`.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Value, Failure> {
        let request = self.request(method, &format!("/api/v1{path}"), body)?;
        let response = self.answer(request).await?;
        let status = response.status();
        let bytes = timeout(ANSWER_TIMEOUT, read(response)).await;
        let bytes = bytes.map_err(|_| slow())??;
        if !status.is_success() {
            return Err(refusal(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| self.no_node())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base()));
        if let Some(token) = &self.target.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::from(body.unwrap_or_default());
        request.body(body).map_err(Failure::other)
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let response = timeout(ANSWER_TIMEOUT, self.http.request(request)).await;
        response.map_err(|_| slow())?.map_err(|error| {
            let why = root_cause(&error);
            self.target.unreachable(&why)
        })
    }

    fn no_node(&self) -> Failure {
        let at = &self.target.authority;
        Failure::other(format!("what answers at {at} is not an Astral node"))
    }
}

/// A connector with our time limits.
pub(crate) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector
}

/// A whole body, within [`ANSWER_MAX`].
pub(crate) async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let body =
        body.map_err(|error| Failure::other(format!("the node's answer broke off: {error}")))?;
    Ok(body.to_bytes())
}

/// What a refusal means: its problem document's words, or those of its status.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let mut detail = match &problem {
        Some(problem) if !problem.detail.is_empty() => problem.detail.clone(),
        Some(problem) if !problem.title.is_empty() => problem.title.clone(),
        Some(_) | None => format!("the node answers {status}"),
    };
    let candidates = problem
        .map(|problem| problem.candidates)
        .unwrap_or_default();
    if !candidates.is_empty() {
        detail.push_str(&format!("; choose one of {}", candidates.join(", ")));
    }
    if status == StatusCode::UNAUTHORIZED {
        detail.push_str(
            "; the token is in the node's ready file: run this as the user who runs the node, \
             say --data-dir DIR, or set ASTRAL_NODE_TOKEN",
        );
    }
    match status {
        StatusCode::NOT_FOUND => Failure::NotFound(detail),
        status => Failure::Refused {
            status: status.as_u16(),
            detail,
        },
    }
}

/// A typed view of an answer.
pub(crate) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| {
        Failure::other(format!(
            "the node's answer is not understood ({error}); are `astral` and `astral-node` of one version?"
        ))
    })
}

/// A path of segments, each percent-encoded.
fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        path.push_str(&encoded(segment));
        path
    })
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// The innermost reason of an error: outer ones say only "client error".
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn slow() -> Failure {
    Failure::other(format!(
        "the node did not answer within {} s",
        ANSWER_TIMEOUT.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place_in_the_path() {
        assert_eq!(
            path(&["streams", "my-show~k3f9q"]),
            "/streams/my-show~k3f9q"
        );
        assert_eq!(
            path(&["streams", "a/../b?c#d"]),
            "/streams/a%2F..%2Fb%3Fc%23d"
        );
        assert_eq!(
            encoded("astral:x@[::1]:1"),
            "astral%3Ax%40%5B%3A%3A1%5D%3A1"
        );
        assert_eq!(encoded("直"), "%E7%9B%B4");
    }

    #[test]
    fn refusals_carry_the_nodes_words_and_the_right_exit_code() {
        let body = br#"{"type":"about:blank","title":"Conflict","status":409,
            "detail":"two streams are called so","candidates":["a~11111","a~22222"]}"#;
        let failure = refusal(StatusCode::CONFLICT, body);
        assert_eq!(failure.exit_code(), 1);
        let words = "two streams are called so; choose one of a~11111, a~22222";
        assert_eq!(failure.to_string(), words);
        assert_eq!(refusal(StatusCode::NOT_FOUND, b"").exit_code(), 4);
        let bare = refusal(StatusCode::SERVICE_UNAVAILABLE, b"<html>");
        assert!(bare.to_string().contains("503"));
    }

    mod with_a_node {
        use serde_json::json;

        use super::*;
        use crate::fake::{Fake, list};

        #[tokio::test]
        async fn lists_are_read_page_by_page_with_the_token() {
            let fake = Fake::start(|line| match line {
                "GET /api/v1/nodes?limit=1000" => (200, list(&[json!(1)], Some("a b"))),
                "GET /api/v1/nodes?limit=1000&after=a%20b" => (200, list(&[json!(2)], None)),
                other => panic!("{other}"),
            })
            .await;
            let api = fake.session(&[]).api;
            let (items, raw): (Vec<u32>, _) = api.list(&["nodes"]).await.unwrap();
            assert_eq!(items, [1, 2]);
            assert_eq!((raw.items.len(), raw.next), (2, None));
            let seen = fake.seen();
            let token = |seen: &crate::fake::Seen| seen.authorization.clone();
            assert!(
                seen.iter()
                    .all(|seen| token(seen).as_deref() == Some("Bearer secret"))
            );
        }

        #[tokio::test]
        async fn a_node_that_is_gone_is_unreachable() {
            // A port that was free a moment ago.
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                authority: listener.local_addr().unwrap().to_string(),
                token: None,
                origin: "test".to_owned(),
            };
            drop(listener);
            let failure = Api::new(target).delete(&["node"]).await.unwrap_err();
            assert_eq!(failure.exit_code(), 3);
            assert!(failure.to_string().contains("`astral-node`"));
        }

        #[tokio::test]
        async fn another_server_is_not_taken_for_a_node() {
            let fake = Fake::start(|_| (200, json!({"hello": "world"}))).await;
            let api = fake.session(&[]).api;
            let failure = api
                .get::<astral_proto::api::Node>(&["node"])
                .await
                .unwrap_err();
            assert_eq!(failure.exit_code(), 1);
        }
    }
}
