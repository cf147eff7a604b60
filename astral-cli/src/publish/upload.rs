//! Sends a source to the node's ingest as one chunked `PUT`, and again whenever
//! the node has gone away.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::meter::Meter;
use super::source::Source;
use super::timeline::Pacer;
use crate::client::{connector, read, refusal, root_cause};
use crate::failure::Failure;

/// Pieces between the pacer and the socket: a third of a second.
const QUEUE: usize = 32;
/// A node that takes nothing for so long is given up: its own stall limit is 10 s.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the node's last words, after a clean end and after a break.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// First pause before trying again; doubled each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(500);
/// Longest pause: a node that is back waits no longer for its stream.
const BACK_OFF_MAX: Duration = Duration::from_secs(8);
/// A connection that lasted so long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// How an upload ended, when it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The source is over.
    Finished,
    /// We were asked to stop.
    Stopped,
}

/// Where the stream goes; asked before each connection, since a node that was
/// started again may listen elsewhere.
pub(crate) trait Ingest {
    /// Complete URL for `PUT`.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] is tried again, all others end the upload.
    async fn url(&mut self) -> Result<String, Failure>;
}

/// How one connection ended.
#[derive(Debug)]
enum Outcome {
    Done(End),
    /// Worth another try, with the reason.
    Broken(String),
}

/// Sends all of `source`, in real time.
///
/// # Errors
/// The node refuses the stream for good, or the source cannot be read.
pub(crate) async fn upload(
    source: &mut Source,
    ingest: &mut impl Ingest,
    meter: &mut Meter,
    stop: &CancellationToken,
) -> Result<End, Failure> {
    let mut pause = BACK_OFF_MIN;
    loop {
        let begun = Instant::now();
        let attempt = async {
            let url = tokio::select! {
                () = stop.cancelled() => return Ok(Outcome::Done(End::Stopped)),
                url = ingest.url() => url,
            };
            match url {
                Ok(url) => connection(&url, source, meter, stop).await,
                Err(Failure::Unreachable(why)) => Ok(Outcome::Broken(why)),
                Err(failure) => Err(failure),
            }
        };
        let why = match attempt.await? {
            Outcome::Done(end) => return Ok(end),
            Outcome::Broken(why) => why,
        };
        if begun.elapsed() > GOOD {
            pause = BACK_OFF_MIN;
        }
        let wait = jittered(pause);
        let seconds = wait.as_secs_f64();
        meter.note(&format!("{why}; trying again in {seconds:.1} s"));
        tokio::select! {
            () = stop.cancelled() => return Ok(End::Stopped),
            () = tokio::time::sleep(wait) => {}
        }
        pause = (pause * 2).min(BACK_OFF_MAX);
        source.restart();
    }
}

/// One connection: from the head until the source ends, the node breaks off, or `stop`.
async fn connection(
    url: &str,
    source: &mut Source,
    meter: &mut Meter,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let (out, pieces) = mpsc::channel(QUEUE);
    let request = Request::builder()
        .method(Method::PUT)
        .uri(url)
        .header(http::header::CONTENT_TYPE, "video/mp4")
        .body(StreamBody::new(body(pieces)))
        .map_err(|error| Failure::other(format!("the node's ingest URL is wrong: {error}")))?;
    let client = Client::builder(TokioExecutor::new()).build(connector());
    let mut answer = pin!(client.request(request));
    let fed = tokio::select! {
        answer = &mut answer => return answered(answer, false).await,
        fed = feed(source, meter, stop, out) => fed?,
    };
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    match (fed, answer) {
        (Fed::Ended(end), Ok(answer)) => match answered(answer, true).await {
            Ok(Outcome::Done(_)) => Ok(Outcome::Done(end)),
            // All is sent and somebody wants us to stop: no second try for that.
            Ok(Outcome::Broken(_)) if end == End::Stopped => Ok(Outcome::Done(end)),
            other => other,
        },
        // A slow last word changes nothing: everything was sent.
        (Fed::Ended(end), Err(_)) => Ok(Outcome::Done(end)),
        (Fed::Closed, Ok(answer)) => answered(answer, false).await,
        (Fed::Closed, Err(_)) => Ok(Outcome::Broken("the node has gone away".to_owned())),
        (Fed::Stalled, _) => Ok(Outcome::Broken(format!(
            "the node has taken nothing for {} s",
            SEND_TIMEOUT.as_secs()
        ))),
    }
}

/// What the node's answer means; `whole` if everything had been sent before it.
async fn answered(
    answer: Result<Response<Incoming>, legacy::Error>,
    whole: bool,
) -> Result<Outcome, Failure> {
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            let why = root_cause(&error);
            return Ok(Outcome::Broken(format!(
                "the connection to the node is lost ({why})"
            )));
        }
    };
    let status = response.status();
    if status.is_success() {
        return Ok(match whole {
            true => Outcome::Done(End::Finished),
            false => Outcome::Broken("the node ended the upload".to_owned()),
        });
    }
    let words = timeout(ANSWER_TIMEOUT, read(response)).await;
    let words = words.ok().and_then(Result::ok).unwrap_or_default();
    let failure = refusal(status, &words);
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(Outcome::Broken(failure.to_string()));
    }
    Err(failure)
}

/// How the feeding of one connection ended.
enum Fed {
    Ended(End),
    Closed,
    Stalled,
}

/// Feeds a connection, each piece when it is due. The connection's body ends when
/// this drops `out`.
async fn feed(
    source: &mut Source,
    meter: &mut Meter,
    stop: &CancellationToken,
    out: mpsc::Sender<Bytes>,
) -> Result<Fed, Failure> {
    let mut pacer = Pacer::new();
    let mut bytes = source.head();
    loop {
        let size = bytes.len();
        let taken = tokio::select! {
            () = stop.cancelled() => return Ok(Fed::Ended(End::Stopped)),
            taken = timeout(SEND_TIMEOUT, out.send(bytes)) => taken,
        };
        match taken {
            Ok(Ok(())) => meter.sent(size),
            Ok(Err(_)) => return Ok(Fed::Closed),
            Err(_) => return Ok(Fed::Stalled),
        }
        let piece = tokio::select! {
            () = stop.cancelled() => return Ok(Fed::Ended(End::Stopped)),
            piece = source.next() => piece?,
        };
        let Some(piece) = piece else {
            return Ok(Fed::Ended(End::Finished));
        };
        if let Some(at) = piece.at {
            tokio::select! {
                () = stop.cancelled() => return Ok(Fed::Ended(End::Stopped)),
                () = sleep_until(pacer.due(at, Instant::now())) => {}
            }
        }
        bytes = piece.bytes;
    }
}

/// The request's body: what comes through the channel, until it is closed.
fn body(
    pieces: mpsc::Receiver<Bytes>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Unpin {
    Box::pin(stream::unfold(pieces, |mut pieces| async move {
        let bytes = pieces.recv().await?;
        Some((Ok(Frame::data(bytes)), pieces))
    }))
}

/// A pause give or take a quarter, so that many do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    pause.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::Value;

    use super::*;
    use crate::fake::{Fake, problem};
    use crate::publish::Clip;

    const CLIP: &[u8] = include_bytes!("../../assets/clip.mp4");

    struct Fixed(String);

    impl Ingest for Fixed {
        async fn url(&mut self) -> Result<String, Failure> {
            Ok(self.0.clone())
        }
    }

    async fn upload_to(fake: &Fake, stop: &CancellationToken) -> Result<End, Failure> {
        let mut source = Source::Clip(Clip::bundled(CLIP).unwrap());
        let mut ingest = Fixed(format!("http://{}/ingest/key", fake.authority));
        upload(&mut source, &mut ingest, &mut Meter::new(true), stop).await
    }

    fn stop_after(time: Duration) -> CancellationToken {
        let stop = CancellationToken::new();
        let later = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            later.cancel();
        });
        stop
    }

    #[tokio::test]
    async fn stopping_ends_the_put_cleanly_and_it_was_sent_in_real_time() {
        let fake = Fake::start(|_| (200, Value::Null)).await;
        let stop = stop_after(Duration::from_secs(2));
        assert_eq!(upload_to(&fake, &stop).await.unwrap(), End::Stopped);
        let seen = fake.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].line, "PUT /ingest/key");
        assert_eq!(seen[0].body[4..8], *b"ftyp");
        // Two of sixteen seconds, the first picture of each being larger than the rest.
        assert!(
            (50_000..300_000).contains(&seen[0].body.len()),
            "{}",
            seen[0].body.len()
        );
    }

    #[tokio::test]
    async fn an_unknown_key_is_final() {
        // The clip does not end, so only an answer in mid-body can be seen: as the node does.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut some = [0; 1_000];
            socket.read_exact(&mut some).await.unwrap();
            let (status, body) = problem(403, "no stream has this key");
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} Forbidden\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            socket.write_all((head + &body).as_bytes()).await.unwrap();
            // Read on, so that the answer is not lost to a reset.
            while socket.read(&mut some).await.is_ok_and(|read| read > 0) {}
        });
        let mut source = Source::Clip(Clip::bundled(CLIP).unwrap());
        let mut ingest = Fixed(format!("http://{authority}/ingest/key"));
        let stop = stop_after(Duration::from_secs(20));
        let failure = upload(&mut source, &mut ingest, &mut Meter::new(true), &stop).await;
        assert_eq!(failure.unwrap_err().to_string(), "no stream has this key");
    }

    #[tokio::test]
    async fn a_node_that_comes_back_is_sent_to_again() {
        struct Moving(Arc<AtomicUsize>, String);
        impl Ingest for Moving {
            async fn url(&mut self) -> Result<String, Failure> {
                match self.0.fetch_add(1, Ordering::Relaxed) {
                    0 => Err(Failure::Unreachable("gone".to_owned())),
                    _ => Ok(self.1.clone()),
                }
            }
        }
        let fake = Fake::start(|_| (200, Value::Null)).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let url = format!("http://{}/ingest/key", fake.authority);
        let mut source = Source::Clip(Clip::bundled(CLIP).unwrap());
        let mut ingest = Moving(asked.clone(), url);
        let stop = stop_after(Duration::from_millis(1_500));
        let end = upload(&mut source, &mut ingest, &mut Meter::new(true), &stop).await;
        assert_eq!(end.unwrap(), End::Stopped);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(fake.seen()[0].body[4..8], *b"ftyp");
    }

    #[test]
    fn pauses_differ_by_at_most_a_quarter() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(4));
            assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&pause));
        }
    }
}
