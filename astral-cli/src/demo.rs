//! `demo`: astral-web, a publisher, a relay and a viewer as real processes on this machine.
//!
//! The nodes are told nothing but the address of astral-web, and find each other
//! through it. The publisher's upload has room for one copy of the stream, so the
//! viewer is fed by the relay. Everything is on loopback, in one temporary folder
//! that goes at the end, as do the processes.

mod board;
mod lab;

use std::time::Duration;

use astral_proto::api::web::WebStream;
use astral_proto::api::{NewStream, NewTicket, Stream};
use http::Method;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::args::Demo;
use crate::client::{Api, decode};
use crate::commands::Urls;
use crate::failure::Failure;
use crate::home::Choice;
use crate::publish::{Clip, End, Meter, NodeIngest, Source, upload};
use crate::term::{self, Board, Live};
use crate::{signals, watch};
use lab::{Lab, Member};

/// The clip, drawn by `assets/make-clip.sh`.
const CLIP: &[u8] = include_bytes!("../assets/clip.mp4");
/// Length of the clip.
const CLIP_SECONDS: u64 = 16;
/// The publisher's upload in tenths of the clip's rate: one copy is charged at
/// 1.15 of its peak, and two do not fit.
const UPLOAD_TENTHS: u64 = 18;
/// Time for each step until the viewer has pictures.
const STEP: Duration = Duration::from_secs(20);
/// The port where astral-web's pages look for the visitor's own node: the viewer is that.
const NODE_PORT: u16 = 8000;
/// Pause between two looks at a node.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) async fn run(demo: &Demo) -> Result<(), Failure> {
    let stop = signals::stop_token()?;
    let mut lab = Lab::new()?;
    let shown = tokio::select! {
        () = stop.cancelled() => Ok(()),
        shown = show(&mut lab, demo) => shown,
    };
    let closed = lab.close().await;
    shown.and(closed)
}

/// Starts everything and shows it until the time is over.
async fn show(lab: &mut Lab, demo: &Demo) -> Result<(), Failure> {
    let mut line = Live::new(false);
    line.set("starting astral-web and three nodes …");
    let web = lab.web().await?;
    let upload_kbit = CLIP.len() as u64 * 8 * UPLOAD_TENTHS / 10 / CLIP_SECONDS / 1_000;
    let limit = format!("{upload_kbit}kbit");
    let options = ["--web", web.url.as_str()];
    let limited = ["--web", web.url.as_str(), "-l", limit.as_str()];
    let publisher = lab.node("publisher", 0, &limited).await?;
    let relay = lab.node("relay", 0, &options).await?;
    let viewer = match lab.node("viewer", NODE_PORT, &options).await {
        Ok(viewer) => viewer,
        // Somebody has that port.
        Err(_) => lab.node("viewer", 0, &options).await?,
    };

    line.set("publishing the clip …");
    let mut uploading = Upload::start(&publisher).await?;
    let stream = uploading.stream.id.to_string();
    let live = |stream: &Stream| stream.bitrate_bps > 0;
    see(
        &publisher.api,
        &stream,
        "the publisher's first pictures",
        live,
    )
    .await?;
    for member in [&relay, &viewer] {
        line.set(&format!("{} joins …", member.name));
        join(member, &stream).await?;
    }
    line.set("waiting for astral-web to list the stream …");
    let listed = listed(&web.api, &stream).await?;
    drop(line);

    let (watched, _) = viewer.api.get(&["streams", &stream]).await?;
    let urls = Urls::of(&viewer.api, &watched);
    term::line(&format!("watch   {}", urls.page))?;
    term::line(&format!("web     {}/streams/{listed}", web.url))?;
    term::line(&format!("share   {}", urls.share))?;
    term::line("")?;
    if !demo.no_open && term::stdout_is_terminal() && watch::has_desktop() {
        watch::open_browser(&urls.page);
    }
    let members = [publisher, relay, viewer];
    let end = demo.seconds.map(Duration::from_secs);
    tokio::select! {
        shown = refresh(&members, &stream, end) => shown,
        failure = lab.died() => Err(failure),
        failure = uploading.failed() => Err(failure),
    }
}

/// Lets a node watch the stream, and waits for its first frame.
async fn join(member: &Member, stream: &str) -> Result<(), Failure> {
    let what = format!("the {}'s first pictures", member.name);
    see(
        &member.api,
        stream,
        &format!("the {} to hear of the stream", member.name),
        |_| true,
    )
    .await?;
    let path = ["streams", stream, "tickets"];
    let deadline = Instant::now() + STEP;
    loop {
        match member
            .api
            .send(Method::POST, &path, &NewTicket::default())
            .await
        {
            Ok(_) => break,
            // Nobody has room yet, or nobody is known yet.
            Err(Failure::Refused { status: 503, .. } | Failure::NotFound(_))
                if Instant::now() < deadline =>
            {
                sleep(LOOK).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    see(&member.api, stream, &what, |stream| {
        stream.local.frames_received > 0
    })
    .await
}

/// Looks at a stream until it is as it should be.
async fn see(
    api: &Api,
    stream: &str,
    what: &str,
    wanted: impl Fn(&Stream) -> bool,
) -> Result<(), Failure> {
    let looking = async {
        loop {
            match api.get::<Stream>(&["streams", stream]).await {
                Ok((stream, _)) if wanted(&stream) => return Ok(()),
                Ok(_) | Err(Failure::NotFound(_)) => sleep(LOOK).await,
                Err(failure) => return Err(failure),
            }
        }
    };
    let seconds = STEP.as_secs();
    let late = |_| Failure::other(format!("waited {seconds} s for {what} in vain"));
    timeout(STEP, looking).await.map_err(late)?
}

/// Waits until astral-web lists a stream; gives the slug that it has there.
async fn listed(web: &Api, stream: &str) -> Result<String, Failure> {
    let looking = async {
        loop {
            match web.get::<WebStream>(&["streams", stream]).await {
                Ok((stream, _)) => return Ok(stream.slug),
                Err(Failure::NotFound(_)) => sleep(LOOK).await,
                Err(failure) => return Err(failure),
            }
        }
    };
    let late = |_| Failure::other("astral-web does not list the stream");
    timeout(STEP, looking).await.map_err(late)?
}

/// Shows each node's line again and again, until `end`.
async fn refresh(
    members: &[Member; 3],
    stream: &str,
    end: Option<Duration>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let pause = if term::stdout_is_terminal() { 1 } else { 5 };
    let mut ticks = interval(Duration::from_secs(pause));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut board = Board::default();
    let over = async {
        match end {
            Some(end) => sleep(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut over => return board.show(&board::lines(members, stream, begun.elapsed()).await),
        }
        board.show(&board::lines(members, stream, begun.elapsed()).await)?;
    }
}

/// The clip on its way to the publisher.
struct Upload {
    stream: Stream,
    task: JoinHandle<Result<End, Failure>>,
    stop: CancellationToken,
}

impl Upload {
    async fn start(publisher: &Member) -> Result<Self, Failure> {
        let new = NewStream {
            name: "Astral demo".to_owned(),
            description: Some("A night sky, from node to node".to_owned()),
            unlisted: false,
        };
        let stream = publisher.api.send(Method::POST, &["streams"], &new).await?;
        let stream: Stream = decode(&stream)?;
        let choice = Choice {
            node: None,
            data_dir: Some(publisher.folder.clone()),
        };
        let mut ingest = NodeIngest::new(choice, stream.id);
        let mut source = Source::Clip(Clip::bundled(CLIP)?);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            upload(&mut source, &mut ingest, &mut Meter::new(true), &stopped).await
        });
        Ok(Self { stream, task, stop })
    }

    /// Waits until the upload ends by itself, which it should not.
    async fn failed(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(_)) => Failure::other("the clip is over, though it should go on and on"),
            Err(error) => Failure::other(format!("the upload broke down: {error}")),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_is_small_and_the_publisher_has_room_for_one_copy_only() {
        assert!(CLIP.len() <= 1_200_000);
        let charged = 115 * CLIP.len() as u64 * 8 / CLIP_SECONDS / 100;
        let limit = CLIP.len() as u64 * 8 * UPLOAD_TENTHS / 10 / CLIP_SECONDS;
        assert!(charged < limit && limit < 2 * charged);
    }
}
