//! `GET /events`: what changes, as server-sent events (WHATWG HTML §9.2).
//!
//! First every node, stream and ticket as `added`, then the differences between
//! what is so now and what this listener was told last. A listener that reads
//! slowly is told less often, never a backlog: nothing waits for it but one set
//! of differences.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::App;
use super::super::guard::Access;

/// An object is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// What changes by itself, such as rates, is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a comment comes, which keeps proxies from closing a quiet connection.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// Fields that move all the time and alone are no news.
const RESTLESS: [&str; 4] = ["last_seen", "rtt_ms", "expires_at", "latency_ms"];

/// Kind and id of an object.
type Name = (&'static str, String);

struct Listener {
    app: Arc<App>,
    trusted: bool,
    changes: watch::Receiver<u64>,
    known: BTreeMap<Name, Value>,
    waiting: VecDeque<Event>,
    looked: Option<Instant>,
    commented: Instant,
    count: u64,
}

/// `GET /events`.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    responses((status = 200, description = "Server-sent events `node`, `stream` and `ticket`: a snapshot, then changes; endless", content_type = "text/event-stream", body = String)),
)]
pub(in super::super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let listener = Listener {
        changes: app.handle.changes(),
        app,
        trusted: access.trusted,
        known: BTreeMap::new(),
        waiting: VecDeque::new(),
        looked: None,
        commented: Instant::now(),
        count: 0,
    };
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Sse::new(events)
}

impl Listener {
    /// The next event; `None` when the node stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let stop = self.app.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                () = self.wait() => {}
            }
            self.look().await;
        }
    }

    /// Waits until there may be something new to tell.
    async fn wait(&mut self) {
        let Some(looked) = self.looked else { return };
        tokio::select! {
            _ = self.changes.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        sleep_until(looked + TELL_EVERY).await;
    }

    async fn look(&mut self) {
        self.looked = Some(Instant::now());
        if self.commented.elapsed() >= COMMENT_EVERY {
            self.commented = Instant::now();
            let comment = Event::default().comment("still here");
            self.waiting.push_back(comment);
        }
        self.changes.borrow_and_update();
        let now = snapshot(&self.app, self.trusted).await;
        for (name, value) in &now {
            match self.known.get(name) {
                None => self.tell("added", name, value),
                Some(before) if calm(before) != calm(value) => self.tell("updated", name, value),
                Some(_) => {}
            }
        }
        let before = std::mem::replace(&mut self.known, now);
        for (name, mut value) in before {
            if !self.known.contains_key(&name) {
                // A stream may go on elsewhere; a ticket is here or nowhere.
                if name.0 == "ticket" {
                    value["state"] = json!("ended");
                }
                self.tell("removed", &name, &value);
            }
        }
    }

    fn tell(&mut self, change: &str, name: &Name, value: &Value) {
        let kind = name.0;
        self.count += 1;
        let data = json!({ "change": change, kind: value }).to_string();
        let event = Event::default()
            .event(kind)
            .id(self.count.to_string())
            .data(data);
        self.waiting.push_back(event);
    }
}

/// Everything that is told, by kind and id.
async fn snapshot(app: &App, trusted: bool) -> BTreeMap<Name, Value> {
    let mut all = BTreeMap::new();
    let this = app.handle.node().await;
    for node in std::iter::once(this).chain(app.handle.nodes().await) {
        put(&mut all, "node", node.uuid.to_string(), &node);
    }
    for mut stream in app.handle.streams().await {
        stream.ingest = trusted.then(|| app.handle.ingest_of(stream.id)).flatten();
        put(&mut all, "stream", stream.id.to_string(), &stream);
    }
    for ticket in app.handle.tickets().await {
        put(&mut all, "ticket", ticket.id.clone(), &ticket);
    }
    all
}

fn put(all: &mut BTreeMap<Name, Value>, kind: &'static str, id: String, object: &impl Serialize) {
    let value = serde_json::to_value(object).expect("the API's types have text keys only");
    all.insert((kind, id), value);
}

/// The object without what moves all the time.
fn calm(object: &Value) -> Option<Map<String, Value>> {
    let mut fields = object.as_object()?.clone();
    if let Some(Value::Object(local)) = fields.get_mut("local") {
        local.retain(|name, _| !RESTLESS.contains(&name.as_str()));
    }
    fields.retain(|name, _| !RESTLESS.contains(&name.as_str()));
    Some(fields)
}
