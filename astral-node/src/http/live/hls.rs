//! `GET /live/{slug}/index.m3u8` and what it names: low-latency HLS.
//!
//! Every answer is made from the store as it is, by [`astral_media::hls`]; nothing is
//! kept between requests but the stream itself, which is received for 30 s after the
//! last of them. A request for what is not there yet is held.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use astral_media::catalog::Catalog;
use astral_media::fmp4::mux::{fragment, init_segment};
use astral_media::frame::Frame;
use astral_media::hls::{File, Playlist, Report, Segment, State as SegmentState, master};
use astral_media::track::TrackKind;
use astral_proto::record::StreamState;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use hyper::{Method, Uri};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::super::extract::query;
use super::super::problem::Failure;
use super::super::{App, Caller};
use super::egress::Egress;
use crate::handle::Live;
use crate::store::{Fetched, StartAt, StreamStore};

/// Longest wait for the first part of a stream; players give up after 10 s.
const FIRST_WITHIN: Duration = Duration::from_secs(9);
/// A request is held for at most this many target durations (rfc8216bis §6.2.5.2).
const HELD_TARGETS: u32 = 3;
/// Holes become gaps by time alone, so it is looked at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A request may be this many segments ahead of the newest one.
const AHEAD_MAX: u64 = 2;
/// Rate that is announced while none is known, bit/s.
const BANDWIDTH_UNKNOWN_BPS: u64 = 4_000_000;

/// Target duration that is assumed while none is known, milliseconds.
const TARGET_UNKNOWN_MS: u32 = 2_000;

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// What never changes under its name may be kept; an hour outlives any live player's need.
const FOR_EVER: &str = "public, max-age=3600, immutable";

/// Delivery directives (rfc8216bis §6.2.5); what else is in the query is not ours.
#[derive(Debug, Default, Deserialize)]
struct Directives {
    #[serde(rename = "_HLS_msn")]
    sequence: Option<u64>,
    #[serde(rename = "_HLS_part")]
    part: Option<u32>,
    #[serde(rename = "_HLS_skip")]
    skip: Option<String>,
}

/// Answers with one of the files of a stream.
#[utoipa::path(
    get,
    path = "/live/{slug}/{file}",
    params(
        ("slug" = String, Path, description = "Slug, full slug, id or share link"),
        ("file" = String, Path, description = "Playlist, init segment, segment or part"),
        ("_HLS_msn" = Option<u64>, Query, description = "Of a playlist: wait until it has this segment"),
        ("_HLS_part" = Option<u32>, Query, description = "And this part of it"),
        ("_HLS_skip" = Option<String>, Query, description = "`YES` or `v2`: old segments may be left out"),
    ),
    responses((status = 200, description = "Low-latency HLS: `index.m3u8` and what it names")),
)]
pub(in super::super) async fn file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path((slug, name)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let file: File = name
        .parse()
        .map_err(|_| Failure::unknown(format!("a stream has no file `{name}`")))?;
    let directives = directives(&uri, file)?;
    let id = app.handle.resolve(&slug).await?;
    if method == Method::HEAD {
        // Asking about the stream is not asking for it.
        return Ok([(CONTENT_TYPE, kind_of(file))].into_response());
    }
    let live = app
        .handle
        .open_live(id, StartAt::Live { target_ms: 0 })
        .await?;
    let answering = answer(&live, file, &directives, &headers);
    let (response, bytes) = tokio::select! {
        answered = answering => answered?,
        () = app.stop.cancelled() => return Err(Failure::not_now("the node is stopping")),
    };
    Egress::new(&app, &caller).charge(0, bytes).await;
    Ok(response)
}

fn directives(uri: &Uri, file: File) -> Result<Directives, Failure> {
    if !matches!(file, File::Playlist { .. }) {
        return Ok(Directives::default());
    }
    let bad = |failure: Failure| Failure::malformed(failure.problem.detail);
    let directives: Directives = query(uri).map_err(bad)?;
    if directives.part.is_some() && directives.sequence.is_none() {
        return Err(Failure::malformed("_HLS_part goes with _HLS_msn"));
    }
    match directives.skip.as_deref() {
        None | Some("YES" | "v2") => Ok(directives),
        Some(_) => Err(Failure::malformed("_HLS_skip is YES or v2")),
    }
}

/// The answer and its length in bytes.
async fn answer(
    live: &Live,
    file: File,
    directives: &Directives,
    headers: &HeaderMap,
) -> Result<(Response, usize), Failure> {
    let store = &live.store;
    match file {
        File::Master => {
            let catalog = first(store, playable).await?;
            let rate = store
                .stats()
                .peak_bps
                .max(catalog.bitrate_bps.unwrap_or(0).into());
            let rate = if rate == 0 {
                BANDWIDTH_UNKNOWN_BPS
            } else {
                rate
            };
            Ok(text(master(&catalog, rate), headers))
        }
        File::Playlist { track } => {
            let playlist = blocked(store, track, directives).await?;
            Ok(text(playlist.text(directives.skip.is_some()), headers))
        }
        File::Init { track, epoch } => init(store, track, epoch),
        File::Segment { track, sequence } => media(store, track, sequence, None).await,
        File::Part {
            track,
            sequence,
            part,
        } => media(store, track, sequence, Some(part)).await,
    }
}

/// Waits until `look` finds something.
async fn first<T>(
    store: &StreamStore,
    look: impl Fn(&StreamStore) -> Option<T>,
) -> Result<T, Failure> {
    let nothing = || Failure::not_now("the stream has nothing to play yet");
    wait(store, Instant::now() + FIRST_WITHIN, look)
        .await
        .ok_or_else(nothing)
}

async fn wait<T>(
    store: &StreamStore,
    until: Instant,
    look: impl Fn(&StreamStore) -> Option<T>,
) -> Option<T> {
    let mut changes = store.subscribe();
    loop {
        changes.borrow_and_update();
        if let Some(found) = look(store) {
            return Some(found);
        }
        let now = Instant::now();
        if now >= until {
            return None;
        }
        let look_again = until.min(now + LOOK_EVERY);
        let _ = timeout_at(look_again, changes.changed()).await;
    }
}

/// The catalog, once its target duration is fixed and there is a part to play.
fn playable(store: &StreamStore) -> Option<Arc<Catalog>> {
    let catalog = store.catalog()?;
    store.target_duration_ms()?;
    let main = catalog.main()?.id;
    (!store.segments(main).is_empty()).then_some(catalog)
}

/// A playlist with what the player asked for, or the present one when it is held in vain:
/// while an encoder is away, a playlist that was there stays.
async fn blocked(
    store: &StreamStore,
    track: u8,
    directives: &Directives,
) -> Result<Playlist, Failure> {
    let now = first(store, |store| playlist(store, track)).await?;
    let Some(sequence) = directives.sequence else {
        return Ok(now);
    };
    let last = now.segments.last().map_or(0, |last| last.sequence);
    if !now.ended && sequence > last.saturating_add(AHEAD_MAX) {
        return Err(Failure::malformed(format!(
            "segment {sequence} is more than {AHEAD_MAX} ahead of the newest, {last}"
        )));
    }
    let held = Duration::from_millis(now.target_ms.into()) * HELD_TARGETS;
    let asked = |store: &StreamStore| {
        playlist(store, track).filter(|playlist| playlist.has(sequence, directives.part))
    };
    let found = wait(store, Instant::now() + held, asked).await;
    Ok(found.or_else(|| playlist(store, track)).unwrap_or(now))
}

/// The playlist as it is now; made at every chunk for each request that is held, so that
/// every track is looked at once.
fn playlist(store: &StreamStore, track: u8) -> Option<Playlist> {
    let catalog = store.catalog()?;
    let main = catalog.main()?.id;
    let segments = store.segments(track);
    let newest = segments.last()?;
    let target_ms = store.target_duration_ms()?;
    let part_target_ms = store.catalog_of(newest.epoch)?.part_target_ms;
    let mut reports = Vec::new();
    for other in catalog.tracks.iter().filter(|other| other.id != track) {
        match store.segments(other.id).last() {
            Some(last) => reports.push(report(other.id, last)),
            // Players begin with the picture.
            None if other.id == main => return None,
            None => {}
        }
    }
    Some(Playlist {
        track,
        target_ms,
        part_target_ms,
        ended: store.state() == StreamState::Ended,
        reports,
        segments,
    })
}

fn report(track: u8, last: &Segment) -> Report {
    let parts = last.parts.len() as u32;
    Report {
        track,
        sequence: last.sequence,
        part: match last.state {
            SegmentState::Open | SegmentState::Whole => parts.checked_sub(1),
            SegmentState::Gap => None,
        },
    }
}

fn init(store: &StreamStore, track: u8, epoch: u32) -> Result<(Response, usize), Failure> {
    let catalog = store.catalog_of(epoch);
    let catalog = catalog.and_then(|catalog| alone(&catalog, track));
    let catalog = catalog
        .ok_or_else(|| Failure::unknown(format!("track {track} is not in epoch {epoch}")))?;
    Ok(bytes(init_segment(&catalog), kind_of_track(&catalog)))
}

/// The catalog with this track only.
fn alone(catalog: &Catalog, track: u8) -> Option<Catalog> {
    let track = catalog.track(track)?.clone();
    Some(Catalog {
        tracks: vec![track],
        ..catalog.clone()
    })
}

async fn media(
    store: &StreamStore,
    track: u8,
    sequence: u64,
    part: Option<u32>,
) -> Result<(Response, usize), Failure> {
    let target_ms = store.target_duration_ms().unwrap_or(TARGET_UNKNOWN_MS);
    let held = Duration::from_millis(target_ms.into()) * HELD_TARGETS;
    let look = |store: &StreamStore| match store.fetch(track, sequence, part) {
        Fetched::Frames(catalog, frames) => Some(Some((catalog, frames))),
        Fetched::NotYet => None,
        Fetched::Never => Some(None),
    };
    match wait(store, Instant::now() + held, look).await {
        Some(Some((catalog, frames))) => muxed(&catalog, track, &frames),
        Some(None) => Err(Failure::unknown(format!(
            "segment {sequence} of track {track} has no such part, or is not held any more"
        ))),
        None => Err(Failure::not_now("the encoder sends nothing")),
    }
}

fn muxed(catalog: &Catalog, track: u8, frames: &[Frame]) -> Result<(Response, usize), Failure> {
    let unknown = || Failure::unknown(format!("there is no track {track}"));
    let catalog = alone(catalog, track).ok_or_else(unknown)?;
    let mut out = BytesMut::new();
    for frame in frames {
        match fragment(&catalog.tracks[0], frame) {
            Ok(piece) => out.extend_from_slice(&piece),
            Err(error) => debug!(%error, track, group = frame.group, "frame left out"),
        }
    }
    Ok(bytes(out.freeze(), kind_of_track(&catalog)))
}

fn kind_of(file: File) -> &'static str {
    match file {
        File::Master | File::Playlist { .. } => PLAYLIST,
        File::Init { .. } | File::Segment { .. } | File::Part { .. } => "video/mp4",
    }
}

fn kind_of_track(catalog: &Catalog) -> &'static str {
    match catalog.tracks.first().map(|track| track.config.kind()) {
        Some(TrackKind::Audio) => "audio/mp4",
        Some(TrackKind::Video) | None => "video/mp4",
    }
}

fn bytes(bytes: Bytes, kind: &'static str) -> (Response, usize) {
    let len = bytes.len();
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, FOR_EVER)];
    ((headers, bytes).into_response(), len)
}

/// A playlist, compressed if the player takes that: a tenth of the bytes, several times
/// a second.
fn text(text: String, asked: &HeaderMap) -> (Response, usize) {
    let zipped = takes_gzip(asked).then(|| gzip(text.as_bytes())).flatten();
    let is_zipped = zipped.is_some();
    let body = zipped.unwrap_or_else(|| text.into_bytes());
    let len = body.len();
    let headers = [(CONTENT_TYPE, PLAYLIST), (CACHE_CONTROL, "no-cache")];
    let mut response = (headers, body).into_response();
    if is_zipped {
        let gzip = HeaderValue::from_static("gzip");
        response.headers_mut().insert(CONTENT_ENCODING, gzip);
    }
    (response, len)
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut words = coding.split(';').map(str::trim);
        let refused = |word: &str| word.strip_prefix("q=").is_some_and(is_zero);
        words
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
            && !words.any(refused)
    })
}

fn is_zero(weight: &str) -> bool {
    weight.parse() == Ok(0.0f32)
}

fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        for (value, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000, br", false),
            ("identity", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn directives_are_read_strictly_and_other_words_passed_over() {
        let track = File::Playlist { track: 1 };
        let read = |query: &str| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            directives(&uri, track).map(|read| (read.sequence, read.part, read.skip.is_some()))
        };
        let read_ok = |query| read(query).unwrap();
        assert_eq!(read_ok("t=1"), (None, None, false));
        assert_eq!(read_ok("_HLS_msn=7&_HLS_part=2"), (Some(7), Some(2), false));
        assert_eq!(read_ok("_HLS_msn=7&_HLS_skip=v2"), (Some(7), None, true));
        for bad in ["_HLS_part=1", "_HLS_msn=-1", "_HLS_msn=x", "_HLS_skip=NO"] {
            assert_eq!(read(bad).unwrap_err().problem.status, 400, "{bad}");
        }
    }
}
