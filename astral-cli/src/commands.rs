//! The commands that are one or two calls of the API.

use astral_proto::api::{NewTicket, Node, Stream, StreamPatch, Ticket};
use astral_proto::ids::TicketId;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use crate::args::{Args, Command, Global};
use crate::client::Api;
use crate::failure::Failure;
use crate::glance::Glance;
use crate::{
    demo, events, home, manual, open, publish, service, settings, suggest, tables, term, top, watch,
};

/// Runs the command.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    // These need no node.
    if let Command::Demo(demo) = &command {
        return demo::run(demo).await;
    } else if let Command::Service(service) = &command {
        return service::run(&global, service);
    } else if let Command::Completions(completions) = &command {
        return manual::completions(completions);
    } else if let Command::Man(man) = &command {
        return manual::man(man);
    }
    let api = Api::new(home::locate(&global.choice(), home::environment)?);
    let session = Session { global, api };
    match command {
        Command::Status => session.status().await,
        Command::Nodes => session.nodes().await,
        Command::Streams => session.streams().await,
        Command::Tickets => session.tickets().await,
        Command::Publish(publish) => publish::run(&session, &publish).await,
        Command::Unpublish(of) => session.unpublish(&of.slug).await,
        Command::Pause(of) => session.pause(&of.slug, true).await,
        Command::Resume(of) => session.pause(&of.slug, false).await,
        Command::Watch(watch) => watch::run(&session, &watch).await,
        Command::Url(of) => session.url(&of.slug).await,
        Command::Seed(seed) => session.seed(&seed.slug, seed.uuid).await,
        Command::Stop(of) => session.stop(&of.slug).await,
        Command::Revoke(revoke) => session.revoke(revoke.ticket).await,
        Command::Forget(forget) => session.forget(&forget.uuid.to_string()).await,
        Command::Events => events::run(&session).await,
        Command::Top(top) => top::run(session, &top).await,
        Command::Settings(args) => settings::run(&session, &args).await,
        Command::Open(args) => open::run(&session, &args).await,
        Command::Shutdown => session.shutdown().await,
        Command::Demo(_) | Command::Service(_) | Command::Completions(_) | Command::Man(_) => {
            Ok(())
        }
    }
}

/// A command under way: how it was called, and the node it talks to.
pub(crate) struct Session {
    /// Options of every command.
    pub(crate) global: Global,
    /// The node.
    pub(crate) api: Api,
}

impl Session {
    async fn status(&self) -> Result<(), Failure> {
        let (node, raw): (Node, _) = self.api.get(&["node"]).await?;
        if self.global.json {
            return json(&raw);
        }
        let (nodes, _) = self.api.list(&["nodes"]).await?;
        let (streams, _) = self.api.list(&["streams"]).await?;
        let (tickets, _) = self.api.list(&["tickets"]).await?;
        let glance = Glance {
            base: &self.api.base(),
            node: &node,
            nodes: &nodes,
            streams: &streams,
            tickets: &tickets,
        };
        glance.print()
    }

    async fn nodes(&self) -> Result<(), Failure> {
        let (nodes, raw) = self.api.list(&["nodes"]).await?;
        if self.global.json {
            return json(&raw);
        }
        tables::nodes(&nodes).print()
    }

    async fn streams(&self) -> Result<(), Failure> {
        let (streams, raw) = self.api.list(&["streams"]).await?;
        if self.global.json {
            return json(&raw);
        }
        let (own, _): (Node, _) = self.api.get(&["node"]).await?;
        tables::streams(&streams, &raw.items, own.uuid).print()
    }

    async fn tickets(&self) -> Result<(), Failure> {
        let (tickets, raw) = self.api.list(&["tickets"]).await?;
        if self.global.json {
            return json(&raw);
        }
        tables::tickets(&tickets).print()
    }

    async fn unpublish(&self, slug: &str) -> Result<(), Failure> {
        let done = self.api.delete(&["streams", slug]).await;
        self.stream_known(slug, done).await?;
        self.note(&format!("{slug} has ended"));
        Ok(())
    }

    async fn pause(&self, slug: &str, paused: bool) -> Result<(), Failure> {
        let body = StreamPatch { paused };
        let done = self
            .api
            .send(Method::PATCH, &["streams", slug], &body)
            .await;
        let stream = self.stream_known(slug, done).await?;
        if self.global.json {
            return json(&stream);
        }
        self.note(&match paused {
            true => format!("{slug} is paused; `astral resume {slug}` lets it go on"),
            false => format!("{slug} goes on"),
        });
        Ok(())
    }

    async fn url(&self, slug: &str) -> Result<(), Failure> {
        let (stream, _) = self.stream(slug).await?;
        let urls = Urls::of(&self.api, &stream);
        if self.global.json {
            return json(&urls);
        }
        for (key, value) in [
            ("page", &urls.page),
            ("mp4", &urls.mp4),
            ("ts", &urls.ts),
            ("hls", &urls.hls),
            ("share", &urls.share),
        ] {
            let key = term::styled(term::Style::Bold, &format!("{key:<6}"));
            term::line(&format!("{key} {value}"))?;
        }
        Ok(())
    }

    async fn seed(&self, slug: &str, node: astral_proto::ids::NodeId) -> Result<(), Failure> {
        let body = NewTicket {
            destination: Some(node),
        };
        let done = self
            .api
            .send(Method::POST, &["streams", slug, "tickets"], &body)
            .await;
        let ticket = match done {
            Err(Failure::NotFound(_)) if self.stream(slug).await.is_ok() => {
                return Err(self.unknown_node(&node.to_string()).await);
            }
            done => self.stream_known(slug, done).await?,
        };
        if self.global.json {
            return json(&ticket);
        }
        self.note(&match ticket.is_null() {
            false => format!("{slug} is forwarded to {node}"),
            true => format!("{node} takes {slug}, from another node or when somebody has room"),
        });
        Ok(())
    }

    async fn stop(&self, slug: &str) -> Result<(), Failure> {
        let done = self.api.delete(&["streams", slug, "ticket"]).await;
        match done {
            // The stream may be known and merely not received.
            Err(Failure::NotFound(detail)) if self.stream(slug).await.is_ok() => {
                return Err(Failure::NotFound(detail));
            }
            done => self.stream_known(slug, done).await?,
        }
        self.note(&format!("{slug} is no longer received"));
        Ok(())
    }

    async fn revoke(&self, id: TicketId) -> Result<(), Failure> {
        let id = id.to_string();
        let (tickets, _): (Vec<Ticket>, _) = self.api.list(&["tickets"]).await?;
        let Some(ticket) = tickets.iter().find(|ticket| ticket.id == id) else {
            let hint = suggest::hint(&id, tickets.iter().map(|ticket| ticket.id.as_str()));
            let words = format!("no ticket {id} is known{hint}");
            return Err(Failure::NotFound(words));
        };
        let stream = ticket.stream.id.to_string();
        self.api
            .delete(&["streams", &stream, "tickets", &id])
            .await?;
        self.note(&format!("ticket {id} has ended"));
        Ok(())
    }

    async fn forget(&self, node: &str) -> Result<(), Failure> {
        match self.api.delete(&["nodes", node]).await {
            Err(Failure::NotFound(_)) => return Err(self.unknown_node(node).await),
            done => done?,
        }
        self.note(&format!("{node} is forgotten, until it is heard of again"));
        Ok(())
    }

    async fn shutdown(&self) -> Result<(), Failure> {
        self.api.delete(&["node"]).await?;
        self.note("the node shuts down");
        Ok(())
    }

    /// A stream that must be known, and its object as it came.
    pub(crate) async fn stream(&self, slug: &str) -> Result<(Stream, Value), Failure> {
        let found = self.api.get(&["streams", slug]).await;
        self.stream_known(slug, found).await
    }

    /// Puts the nearest names into "no such stream".
    pub(crate) async fn stream_known<T>(
        &self,
        slug: &str,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Err(Failure::NotFound(_)) = result else {
            return result;
        };
        let known: Vec<Stream> = match self.api.list(&["streams"]).await {
            Ok((streams, _)) => streams,
            Err(_) => Vec::new(),
        };
        let hint = suggest::hint(slug, known.iter().map(|stream| stream.slug.as_str()));
        let words = format!("no stream `{slug}` is known{hint}");
        Err(Failure::NotFound(match hint.is_empty() {
            true => format!("{words}; `astral streams` lists those that are"),
            false => words,
        }))
    }

    async fn unknown_node(&self, node: &str) -> Failure {
        let known: Vec<Node> = match self.api.list(&["nodes"]).await {
            Ok((nodes, _)) => nodes,
            Err(_) => Vec::new(),
        };
        let ids: Vec<String> = known.iter().map(|node| node.uuid.to_string()).collect();
        let hint = suggest::hint(node, ids.iter().map(String::as_str));
        Failure::NotFound(format!(
            "no node {node} is known{hint}; `astral nodes` lists those that are"
        ))
    }

    /// Says something unless asked to be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.global.quiet {
            term::note(text);
        }
    }
}

/// What a player can open.
#[derive(Debug, Serialize)]
pub(crate) struct Urls {
    /// The node's page with the player.
    pub(crate) page: String,
    /// Endless fragmented MP4.
    pub(crate) mp4: String,
    /// Endless MPEG-TS.
    pub(crate) ts: String,
    /// Playlist of low-latency HLS.
    pub(crate) hls: String,
    /// The node's page that sends camera, screen or a file from the browser.
    pub(crate) publish: String,
    /// Share link.
    pub(crate) share: String,
}

impl Urls {
    /// The URLs of a stream at this node.
    pub(crate) fn of(api: &Api, stream: &Stream) -> Self {
        let (base, slug) = (api.base(), &stream.slug);
        Self {
            page: format!("{base}/watch/{slug}"),
            mp4: format!("{base}/live/{slug}/stream.mp4"),
            ts: format!("{base}/live/{slug}/stream.ts"),
            hls: format!("{base}/live/{slug}/index.m3u8"),
            publish: format!("{base}/publish?stream={slug}"),
            share: stream.share.clone(),
        }
    }
}

/// Prints JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    term::line(&serde_json::to_string(value).map_err(Failure::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, list, node, problem, stream};

    #[tokio::test]
    async fn an_unknown_stream_is_answered_with_the_nearest_names() {
        let fake = Fake::start(|line| match line {
            "GET /api/v1/streams?limit=1000" => (200, list(&[stream("my-show", "x:1")], None)),
            _ => problem(404, "unknown"),
        })
        .await;
        let session = fake.session(&["--quiet"]);
        let failure = session.pause("my-shwo", true).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        let words = "no stream `my-shwo` is known; did you mean my-show?";
        assert_eq!(failure.to_string(), words);
        let failure = session.url("zebra").await.unwrap_err();
        assert!(failure.to_string().contains("`astral streams`"));
    }

    #[tokio::test]
    async fn changes_are_the_calls_of_the_interface() {
        let fake = Fake::start(|line| match line.split(' ').next() {
            Some("DELETE") => (204, Value::Null),
            _ => (200, stream("my-show", "x:1")),
        })
        .await;
        let session = fake.session(&["--quiet"]);
        session.unpublish("my-show").await.unwrap();
        session.pause("my-show", true).await.unwrap();
        session.stop("my-show").await.unwrap();
        session.forget(crate::fake::NODE).await.unwrap();
        session.shutdown().await.unwrap();
        let lines: Vec<String> = fake.seen().into_iter().map(|seen| seen.line).collect();
        let forget = format!("DELETE /api/v1/nodes/{}", crate::fake::NODE);
        let expected = [
            "DELETE /api/v1/streams/my-show",
            "PATCH /api/v1/streams/my-show",
            "DELETE /api/v1/streams/my-show/ticket",
            &forget,
            "DELETE /api/v1/node",
        ];
        assert_eq!(lines, expected);
        assert_eq!(fake.seen()[1].body, r#"{"paused":true}"#);
    }

    #[tokio::test]
    async fn a_ticket_is_revoked_at_its_stream() {
        let id = "00000000000000ff";
        let ticket = serde_json::json!({"id": id, "stream": {"id": crate::fake::STREAM, "slug": "s"},
            "source": crate::fake::NODE, "destination": crate::fake::NODE, "state": "active",
            "reason": null, "hops": 1, "path": [], "created_at": "", "expires_at": "",
            "bytes": 0, "bitrate_bps": 0});
        let fake = Fake::start(move |line| match line.starts_with("GET") {
            true => (200, list(std::slice::from_ref(&ticket), None)),
            false => (204, Value::Null),
        })
        .await;
        let session = fake.session(&["--quiet"]);
        session.revoke(id.parse().unwrap()).await.unwrap();
        let stream = crate::fake::STREAM;
        let line = format!("DELETE /api/v1/streams/{stream}/tickets/{id}");
        assert_eq!(fake.seen()[1].line, line);
        let unknown = session.revoke("00000000000000fe".parse().unwrap()).await;
        assert_eq!(unknown.unwrap_err().exit_code(), 4);
    }

    #[tokio::test]
    async fn an_unknown_node_is_told_from_an_unknown_stream_when_seeding() {
        let fake = Fake::start(|line| match line.split('?').next() {
            Some("GET /api/v1/streams/my-show") => (200, stream("my-show", "x:1")),
            Some("GET /api/v1/nodes") => (200, list(&[node()], None)),
            _ => problem(404, "unknown"),
        })
        .await;
        let session = fake.session(&["--quiet"]);
        let other = "8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e90".parse().unwrap();
        let failure = session.seed("my-show", other).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.to_string().contains(crate::fake::NODE), "{failure}");
    }
}
