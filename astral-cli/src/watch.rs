//! `watch`: receive a stream, and hand it to a browser, a player or a file.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use astral_proto::api::NewTicket;
use http::Method;
use http_body_util::BodyExt as _;
use tokio::process;

use crate::args::{Player, Watch};
use crate::commands::{Session, Urls};
use crate::failure::Failure;
use crate::format::{duration, rate, size};
use crate::term::Live;
use crate::{signals, term};

/// Silence after which a recording says that nothing comes.
const SILENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(session: &Session, watch: &Watch) -> Result<(), Failure> {
    let mut line = Live::new(session.global.quiet);
    line.set(&format!("looking for {} …", watch.slug));
    let (stream, _) = session.stream(&watch.slug).await?;
    let id = stream.id.to_string();
    let path = ["streams", id.as_str(), "tickets"];
    let ticket = session
        .api
        .send(Method::POST, &path, &NewTicket::default())
        .await?;
    drop(line);
    let urls = Urls::of(&session.api, &stream);
    if watch.print_url {
        return term::line(&urls.page);
    }
    if let Some(output) = &watch.output {
        return record(session, &stream.slug, output).await;
    }
    if session.global.json {
        crate::commands::json(&ticket)?;
    }
    match watch.player {
        Some(player) => play(player, &urls.mp4).await?,
        None => browse(session, &urls.page)?,
    }
    // One's own stream has no ticket.
    if !ticket.is_null() {
        let slug = &stream.slug;
        session.note(&format!(
            "this node goes on receiving {slug} and may forward it; `astral stop {slug}` ends that"
        ));
    }
    Ok(())
}

/// Opens the page in the browser, or says where it is.
fn browse(session: &Session, page: &str) -> Result<(), Failure> {
    if !session.global.json {
        term::line(page)?;
    }
    if !open_browser(page) {
        session.note("no browser could be opened here: open the page above, or try --player");
    }
    Ok(())
}

/// Opens the browser if there is a desktop; answers whether it could.
pub(crate) fn open_browser(page: &str) -> bool {
    has_desktop() && open::that_detached(page).is_ok()
}

/// Whether a window can appear.
pub(crate) fn has_desktop() -> bool {
    let set = |name| crate::home::environment(name).is_some();
    cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Runs a player until it ends.
async fn play(player: Player, url: &str) -> Result<(), Failure> {
    let (program, options): (_, &[&str]) = match player {
        Player::Mpv => ("mpv", &["--profile=low-latency"]),
        Player::Vlc => ("vlc", &["--network-caching=500"]),
        Player::Ffplay => ("ffplay", &["-hide_banner", "-loglevel", "warning"]),
    };
    let status = process::Command::new(program)
        .args(options)
        .arg(url)
        .status()
        .await;
    let status = status.map_err(|error| {
        Failure::other(if error.kind() == io::ErrorKind::NotFound {
            format!("{program} is not installed; any player can open {url}")
        } else {
            format!("cannot start {program}: {error}")
        })
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::other(format!("{program} ended with {status}")))
    }
}

/// Writes the stream to a file or standard output until it ends or Ctrl-C.
async fn record(session: &Session, slug: &str, output: &Path) -> Result<(), Failure> {
    let stop = signals::stop_token()?;
    let mut line = Live::new(session.global.quiet);
    line.set(&format!("waiting for {slug} …"));
    let path = format!("/live/{slug}/stream.mp4");
    let response = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        response = session.api.open(&path) => response?,
    };
    let mut out = Output::open(output)?;
    let mut body = response.into_body();
    let begun = Instant::now();
    let (mut bytes, mut shown) = (0u64, begun);
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break,
            frame = tokio::time::timeout(SILENCE, body.frame()) => frame,
        };
        let Ok(frame) = frame else {
            line.set(&format!("nothing comes; {} so far", size(bytes)));
            continue;
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            let words = format!("the node broke off after {} ({error})", size(bytes));
            Failure::other(words)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        out.write(&data)?;
        bytes += data.len() as u64;
        if shown.elapsed() >= Duration::from_millis(500) {
            shown = Instant::now();
            line.set(&progress(bytes, begun.elapsed()));
        }
    }
    out.finish()?;
    if output != Path::new("-") && !session.global.quiet {
        let shown = output.display();
        line.note(&format!("{shown}: {}", progress(bytes, begun.elapsed())));
    }
    Ok(())
}

fn progress(bytes: u64, elapsed: Duration) -> String {
    let bps = (bytes as f64 * 8.0 / elapsed.as_secs_f64().max(0.001)) as u64;
    format!(
        "{} in {}, {} on average",
        size(bytes),
        duration(elapsed),
        rate(bps)
    )
}

/// Where a recording goes. Writes block: a slow disk or pipe then holds back the
/// reading, and the node drops what is too old.
struct Output(Box<dyn io::Write>);

impl Output {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self(Box::new(io::stdout().lock())));
        }
        let file = std::fs::File::create(path)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
        Ok(Self(Box::new(file)))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.0.write_all(data)?;
        // A player at the other end of a pipe wants each piece as it comes.
        Ok(self.0.flush()?)
    }

    fn finish(mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}
