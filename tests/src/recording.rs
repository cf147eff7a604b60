//! A player that only writes down: reads `stream.mp4` and notes when each piece came.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use tokio::task::JoinHandle;

use crate::api::Api;
use crate::ffmpeg::{Clip, assert_run, packets};
use crate::fmp4::{Fragment, Part, Splitter};
use crate::wait::{check, until};

/// What has come so far.
#[derive(Debug, Default)]
pub struct Received {
    /// Every byte.
    pub bytes: Vec<u8>,
    /// Initialisation segments.
    pub inits: usize,
    /// Pieces, in the order in which they came, and when each was whole.
    pub fragments: Vec<(Fragment, Instant)>,
    /// Why nothing more comes.
    pub end: Option<String>,
}

impl Received {
    /// The bytes of a fragment.
    pub fn bytes_of(&self, fragment: &Fragment) -> &[u8] {
        &self.bytes[fragment.range.clone()]
    }

    /// Fragments by track and decoding time; panics if one came twice or out of order.
    pub fn by_time(&self) -> BTreeMap<(u32, u64), (&Fragment, Instant)> {
        let mut all = BTreeMap::new();
        let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
        for (fragment, at) in &self.fragments {
            let key = (fragment.track, fragment.tfdt);
            let before = newest.insert(fragment.track, fragment.tfdt);
            assert!(
                before < Some(fragment.tfdt),
                "{key:?} comes after {before:?}"
            );
            all.insert(key, (fragment, *at));
        }
        all
    }

    /// Samples of a track.
    pub fn samples(&self, track: u32) -> u32 {
        let of_track = self
            .fragments
            .iter()
            .filter(|(fragment, _)| fragment.track == track);
        of_track.map(|(fragment, _)| fragment.samples).sum()
    }

    fn take(&mut self, splitter: &mut Splitter, bytes: &[u8]) {
        let at = Instant::now();
        self.bytes.extend_from_slice(bytes);
        let mut parts = Vec::new();
        splitter.split(&self.bytes, &mut parts);
        for part in parts {
            match part {
                Part::Init(_) => self.inits += 1,
                Part::Fragment(fragment) => self.fragments.push((fragment, at)),
            }
        }
    }
}

/// A recording under way; dropping it ends the request.
pub struct Recording {
    received: Arc<Mutex<Received>>,
    task: JoinHandle<()>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recording {
    /// Asks for `/live/{slug}/stream.mp4` with this query.
    pub fn start(api: &Api, slug: &str, query: &str) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let (api, to) = (api.clone(), received.clone());
        let path = format!("/live/{slug}/stream.mp4?{query}");
        let task = tokio::spawn(async move {
            let end = record(&api, &path, &to).await;
            to.lock().expect("no panic").end = Some(end);
        });
        Self { received, task }
    }

    /// What has come so far.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("the recorder does not panic")
    }

    /// The longest time without a picture of those that lasted at some time between the two.
    pub fn longest_gap(&self, since: Instant, until: Instant) -> Duration {
        let received = self.received();
        let video = received.fragments.iter().filter(|(f, _)| f.track == 1);
        let times: Vec<Instant> = video.map(|(_, at)| *at).collect();
        let within = times.windows(2).filter(|pair| pair[1] >= since);
        let gaps = within.take_while(|pair| pair[0] <= until);
        let running = times
            .last()
            .filter(|at| **at <= until)
            .map(Instant::elapsed);
        gaps.map(|pair| pair[1] - pair[0])
            .chain(running)
            .max()
            .unwrap_or_default()
    }

    /// Waits until `enough` holds.
    pub async fn wait(&self, what: &str, within: Duration, enough: impl Fn(&Received) -> bool) {
        until(what, within, async || {
            let received = self.received();
            let (pieces, bytes) = (received.fragments.len(), received.bytes.len());
            check(
                enough(&received),
                format!("{pieces} pieces, {bytes} bytes, {:?}", received.end),
            )
        })
        .await;
    }

    /// Waits until nothing has come for `quiet`.
    pub async fn wait_quiet(&self, quiet: Duration, within: Duration) {
        until("the end of the recording", within, async || {
            let last = self.received().fragments.last().map(|(_, at)| at.elapsed());
            check(
                last.is_some_and(|last| last > quiet),
                format!("{last:?} since the last piece"),
            )
        })
        .await;
    }

    /// Checks that every picture and every piece of sound of `clip` that came is the next
    /// one that was sent.
    pub fn assert_whole(&self, clip: Clip) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let came = self.save(dir.path(), "came.mp4");
        for track in ["v:0", "a:0"] {
            let (sent, came) = (packets(&clip.path(), track), packets(&came, track));
            // The last one may have been cut by the end of the recording.
            assert_run(track, &sent, &came[..came.len() - 1]);
        }
        self.received().by_time();
    }

    /// Writes what was received, up to the last whole piece.
    pub fn save(&self, dir: &Path, name: &str) -> PathBuf {
        let received = self.received();
        let end = received
            .fragments
            .last()
            .map_or(0, |(fragment, _)| fragment.range.end);
        let path = dir.join(name);
        std::fs::write(&path, &received.bytes[..end]).expect("room for a recording");
        path
    }
}

async fn record(api: &Api, path: &str, to: &Mutex<Received>) -> String {
    let request = api
        .request(Method::GET, path)
        .body(Full::default())
        .expect("a path");
    let response = match api.open(request).await {
        Ok(response) => response,
        Err(error) => return error,
    };
    let status = response.status();
    let mut body = response.into_body();
    if !status.is_success() {
        let words = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        return format!("{status}: {}", String::from_utf8_lossy(&words));
    }
    let mut splitter = Splitter::default();
    loop {
        match body.frame().await {
            None => return "the response ended".into(),
            Some(Err(error)) => return error.to_string(),
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else {
                    continue;
                };
                to.lock().expect("no panic").take(&mut splitter, &bytes);
            }
        }
    }
}
