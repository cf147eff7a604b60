//! A reader of `GET /events` (server-sent events, WHATWG HTML §9.2).

use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use crate::api::Api;
use crate::wait::s;

/// An open stream of events.
pub struct Events {
    body: Incoming,
    text: String,
    ids: Vec<u64>,
    count: usize,
}

impl Events {
    /// Opens it, with the token.
    pub async fn open(api: &Api) -> Self {
        let request = api.request(Method::GET, "/api/v1/events");
        let answer = api
            .open(request.body(Full::default()).expect("a path"))
            .await;
        let (head, body) = answer.expect("events").into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["content-type"], "text/event-stream");
        Self {
            body,
            text: String::new(),
            ids: Vec::new(),
            count: 0,
        }
    }

    /// Reads on until an event of this kind is the wanted one.
    pub async fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let block = self.block().await;
            let of = |name: &str| {
                let mut lines = block.lines();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim_start)
            };
            let Some(data) = of("data:") else { continue };
            self.count += 1;
            self.ids
                .extend(of("id:").and_then(|id| id.parse::<u64>().ok()));
            let data: Value = serde_json::from_str(data).expect("JSON");
            let change = data["change"].as_str().expect("a change");
            assert!(["added", "updated", "removed"].contains(&change), "{data}");
            let name = of("event:").expect("a kind");
            assert!(data[name].is_object(), "`{name}` in {data}");
            if name == kind && wanted(&data) {
                return data;
            }
        }
    }

    /// Reads on until a comment comes, which a quiet node sends every 15 s.
    pub async fn comment(&mut self) {
        while !self.block().await.starts_with(':') {}
    }

    /// Numbers of the events so far.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// How many events have come.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The next event or comment.
    async fn block(&mut self) -> String {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return block;
            }
            let frame = timeout(s(30), self.body.frame())
                .await
                .expect("an event in time");
            let bytes = frame
                .expect("the node goes on")
                .expect("the connection holds");
            let bytes = bytes.into_data().expect("no trailers");
            self.text
                .push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }
}
