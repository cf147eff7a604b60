//! `publish`: create or find a stream, and send a file into it or say how an
//! encoder does.

mod clip;
mod film;
mod meter;
mod namer;
mod recipes;
mod source;
mod stdin;
mod timeline;
mod upload;

use std::io::{Cursor, Read as _};
use std::path::Path;
use std::time::Duration;

use astral_proto::api::{Ingest, NewStream, Node, Stream};
use astral_proto::ids::StreamId;
use astral_proto::slug;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::args::Publish;
use crate::client::{Api, decode};
use crate::commands::{Session, Urls, json};
use crate::failure::Failure;
use crate::home::{self, Choice};
use crate::{signals, term};

pub(crate) use clip::Clip;
use film::Kind;
pub(crate) use meter::Meter;
pub(crate) use source::Source;
pub(crate) use upload::{End, upload};

/// Between the end of a file and the end of its stream: players are that far behind.
const CREDITS: Duration = Duration::from_secs(3);

/// Runs the command.
pub(crate) async fn run(session: &Session, publish: &Publish) -> Result<(), Failure> {
    slug::check_name(&publish.name).map_err(|error| Failure::Usage(error.to_string()))?;
    // A file that cannot be sent must not leave a stream behind.
    let source = match &publish.file {
        Some(file) => Some(open(file, publish.repeat).await?),
        None => None,
    };
    // From here on Ctrl-C ends the stream, too.
    let stop = signals::stop_token()?;
    let found = create_or_find(session, publish).await?;
    let urls = Urls::of(&session.api, &found.stream);
    let Some(source) = source else {
        return match session.global.json {
            true => json(&found.raw),
            false => recipes::print(&found.stream, &urls),
        };
    };
    if session.global.json {
        json(&found.raw)?;
    } else {
        term::line(&format!("watch   {}", urls.page))?;
        term::line(&format!("share   {}", urls.share))?;
    }
    let sent = send(session, source, found.stream.id, &stop).await;
    if found.created && !publish.keep {
        unpublish(session, &found.stream).await?;
    }
    sent
}

/// Opens what is to be sent.
async fn open(file: &Path, repeat: bool) -> Result<Source, Failure> {
    if file != Path::new("-") {
        return Ok(Source::Clip(Clip::file(file, repeat)?));
    }
    if repeat {
        let words = "--loop needs a file: standard input comes once only";
        return Err(Failure::Usage(words.to_owned()));
    }
    // In a thread of its own: it waits for whoever writes.
    let opened = tokio::task::spawn_blocking(|| {
        let (kind, head) = stdin::sniff(std::io::stdin())?;
        let head = Cursor::new(head);
        match kind {
            Kind::Ts | Kind::Flv => {
                Clip::piped(kind, head.chain(std::io::stdin())).map(Opened::Clip)
            }
            Kind::Mp4 | Kind::Other(_) => Ok(Opened::Head(head)),
        }
    });
    match opened.await.map_err(Failure::other)?? {
        Opened::Clip(clip) => Ok(Source::Clip(clip)),
        Opened::Head(head) => {
            let input = tokio::io::AsyncReadExt::chain(head, tokio::io::stdin());
            Ok(Source::Stdin(Box::new(stdin::Stdin::open(input).await?)))
        }
    }
}

/// Standard input, as far as it was read to know what it is.
enum Opened {
    Clip(Clip),
    Head(Cursor<Vec<u8>>),
}

/// The stream to publish into.
struct Found {
    stream: Stream,
    raw: Value,
    created: bool,
}

/// Creates the stream, or finds the one of this name that this node has already.
async fn create_or_find(session: &Session, publish: &Publish) -> Result<Found, Failure> {
    let new = NewStream {
        name: publish.name.clone(),
        description: publish.description.clone(),
        unlisted: publish.unlisted,
    };
    let api = &session.api;
    match api.send(Method::POST, &["streams"], &new).await {
        Ok(raw) => Ok(Found {
            stream: decode(&raw)?,
            raw,
            created: true,
        }),
        Err(Failure::Refused { status, detail }) if status == StatusCode::CONFLICT => {
            let Some(id) = own_stream(api, &publish.name).await? else {
                return Err(Failure::Refused { status, detail });
            };
            let (stream, raw) = api.get(&["streams", &id.to_string()]).await?;
            session.note(&format!(
                "{} is published already, and goes on",
                publish.name
            ));
            Ok(Found {
                stream,
                raw,
                created: false,
            })
        }
        Err(failure) => Err(failure),
    }
}

/// This node's own stream of a name, listed or not.
async fn own_stream(api: &Api, name: &str) -> Result<Option<StreamId>, Failure> {
    let (node, _): (Node, _) = api.get(&["node"]).await?;
    let (streams, _): (Vec<Stream>, _) = api.list(&["streams"]).await?;
    let mut own = streams
        .iter()
        .filter(|stream| stream.publisher == node.uuid);
    if let Some(stream) = own.find(|stream| stream.name == name) {
        return Ok(Some(stream.id));
    }
    // Not in the list: a bare slug means one's own stream. The id that the function
    // takes matters only for names without a letter, which have no bare slug.
    let slug = slug::slug_of(name, StreamId(Default::default()));
    match api.get::<Stream>(&["streams", &slug]).await {
        Ok((stream, _)) => Ok((stream.publisher == node.uuid).then_some(stream.id)),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Sends the source until it ends or Ctrl-C.
async fn send(
    session: &Session,
    mut source: Source,
    stream: StreamId,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut meter = Meter::new(session.global.quiet);
    let mut ingest = NodeIngest::new(session.global.choice(), stream);
    let end = upload(&mut source, &mut ingest, &mut meter, stop).await?;
    meter.note(&format!("sent {}", meter.sum()));
    if end == End::Finished {
        wait(CREDITS, stop).await;
    }
    Ok(())
}

async fn wait(time: Duration, stop: &CancellationToken) {
    // Either way it goes on.
    let _ = tokio::time::timeout(time, stop.cancelled()).await;
}

/// Ends a stream that this command created.
async fn unpublish(session: &Session, stream: &Stream) -> Result<(), Failure> {
    let api = Api::new(home::locate(&session.global.choice(), home::environment)?);
    match api.delete(&["streams", &stream.id.to_string()]).await {
        Ok(()) => session.note(&format!("{} has ended", stream.name)),
        Err(Failure::NotFound(_)) => {}
        Err(failure) => {
            let slug = &stream.slug;
            session.note(&format!(
                "{slug} stays published; `astral unpublish {slug}` ends it"
            ));
            return Err(failure);
        }
    }
    Ok(())
}

/// The ingest of a stream at a node that may be started again meanwhile.
pub(crate) struct NodeIngest {
    choice: Choice,
    stream: StreamId,
}

impl NodeIngest {
    /// The ingest of `stream` at the node that `choice` names.
    pub(crate) fn new(choice: Choice, stream: StreamId) -> Self {
        Self { choice, stream }
    }
}

impl upload::Ingest for NodeIngest {
    async fn url(&mut self) -> Result<String, Failure> {
        let api = Api::new(home::locate(&self.choice, home::environment)?);
        let found = api
            .get::<Stream>(&["streams", &self.stream.to_string()])
            .await;
        if let Err(Failure::NotFound(_)) = found {
            let words = "the stream is no longer published at the node";
            return Err(Failure::NotFound(words.to_owned()));
        }
        let (stream, _) = found?;
        let ingest: Option<Ingest> = stream.ingest;
        ingest.map(|ingest| ingest.http_url).ok_or_else(|| {
            Failure::other("the node does not say where to send the stream: is the token right?")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, list, node, problem, stream};

    fn named(name: &str) -> Publish {
        Publish {
            name: name.to_owned(),
            file: None,
            repeat: false,
            keep: false,
            description: None,
            unlisted: true,
        }
    }

    #[tokio::test]
    async fn a_new_stream_is_ours_to_end() {
        let fake = Fake::start(|_| (201, stream("my-show", "x:1"))).await;
        let session = fake.session(&["--quiet"]);
        let found = create_or_find(&session, &named("My Show")).await.unwrap();
        assert!(found.created);
        let body: serde_json::Value = serde_json::from_slice(&fake.seen()[0].body).unwrap();
        assert_eq!(body, json!({"name": "My Show", "unlisted": true}));
    }

    #[tokio::test]
    async fn a_stream_that_was_there_is_found_by_name_or_slug_and_not_ours_to_end() {
        for listed in [true, false] {
            let fake = Fake::start(move |line| match line.split('?').next() {
                Some("POST /api/v1/streams") => problem(409, "there is one of this name"),
                Some("GET /api/v1/node") => (200, node()),
                Some("GET /api/v1/streams") if listed => {
                    (200, list(&[stream("my-show", "x:1")], None))
                }
                Some("GET /api/v1/streams") => (200, list(&[], None)),
                _ => (200, stream("my-show", "x:1")),
            })
            .await;
            let session = fake.session(&["--quiet"]);
            let found = create_or_find(&session, &named("my-show")).await.unwrap();
            assert!(!found.created);
            let last = fake.seen().pop().unwrap().line;
            assert_eq!(last, format!("GET /api/v1/streams/{}", crate::fake::STREAM));
        }
    }
}
