//! The watch page as a test sees it: what it shows, and which frames it really shows.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::cdp::Browser;
use crate::wait::{check, s, until};

/// Reads the burnt-in frame number of every picture that the browser shows.
const READ_FRAMES: &str = "(() => {
  const video = document.getElementById('video');
  const canvas = document.createElement('canvas');
  canvas.width = 448; canvas.height = 1;
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  const seen = (window.testSeen = {numbers: [], presented: [], unreadable: 0});
  const look = (now, meta) => {
    const top = video.videoHeight - 64;
    pen.drawImage(video, 0, top + 24, 448, 16, 0, 0, 448, 1);
    const row = pen.getImageData(0, 0, 448, 1).data;
    const white = (block) => row[4 * (32 * block + 16)] > 127;
    let number = 0;
    for (let bit = 0; bit < 12; bit++) if (white(bit + 1)) number |= 1 << bit;
    if (white(0)) { seen.numbers.push(number); seen.presented.push(meta.presentedFrames); }
    else seen.unreadable++;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  const note = (name) => video.addEventListener(name, () => window.testEvents.push(name));
  window.testEvents = [];
  ['waiting', 'stalled', 'error', 'emptied', 'seeking'].forEach(note);
  return true;
})()";

/// What `window.astralStats()` gives.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub state: String,
    pub stream_state: Option<String>,
    pub connected: bool,
    pub reconnects: u32,
    pub waiting_events: u32,
    pub stalled_ms: f64,
    pub dropped_frames: u32,
    pub total_frames: u32,
    pub frame_gap_max_ms: f64,
    pub latency_ms: Option<f64>,
    pub buffer_s: f64,
    pub current_time: f64,
    pub width: u32,
    pub height: u32,
    pub epoch: Option<u32>,
    pub jumps: u32,
    pub seeks: u32,
    pub gaps: u32,
    pub rebuilds: u32,
    pub first_playing_ms: Option<f64>,
    pub errors: Vec<String>,
    pub parent: Option<String>,
    pub standby: Option<String>,
    pub hops: Option<u32>,
    pub switches: Option<u32>,
    pub bitrate_bps: Option<f64>,
}

/// What the page says in words.
#[derive(Clone, Debug, Deserialize)]
pub struct Shown {
    pub pill: String,
    pub latency: String,
    pub bitrate: String,
    pub resolution: String,
    pub parent: String,
}

/// The frame numbers as they were shown.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub numbers: Vec<u32>,
    presented: Vec<u32>,
    pub unreadable: u32,
}

impl Seen {
    /// Forgets the first frames.
    pub fn skip(&mut self, frames: usize) {
        self.numbers.drain(..frames);
        self.presented.drain(..frames);
    }

    /// How the numbers follow each other.
    pub fn order(&self) -> Order {
        let mut order = Order {
            read: self.numbers.len(),
            ..Order::default()
        };
        let pairs = self.numbers.windows(2).zip(self.presented.windows(2));
        for (number, presented) in pairs {
            match number[1] as i64 - number[0] as i64 {
                1 => {}
                2 => order.single_misses += 1,
                0 => order.repeated += 1,
                step if step < 0 => order.backwards += 1,
                step => order.holes.push(step as u32 - 1),
            }
            // The browser did show more pictures than it called us for.
            order.missed_calls += presented[1].saturating_sub(presented[0] + 1);
        }
        order
    }
}

/// How frame numbers follow each other.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// Frames read.
    pub read: usize,
    /// One number missing, its neighbours there.
    pub single_misses: usize,
    /// The same number twice.
    pub repeated: usize,
    /// Numbers below the one before.
    pub backwards: usize,
    /// Two numbers or more missing in a row.
    pub holes: Vec<u32>,
    /// Pictures that were shown without our being called.
    pub missed_calls: u32,
}

impl Order {
    /// Isolated misses per hundred frames.
    pub fn miss_percent(&self) -> f64 {
        100.0 * self.single_misses as f64 / self.read.max(1) as f64
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            read,
            single_misses,
            repeated,
            backwards,
            holes,
            missed_calls,
        } = self;
        write!(
            f,
            "{read} frames read, {single_misses} single misses ({:.2} %), {repeated} repeated, \
             {backwards} backwards, holes {holes:?}, {missed_calls} pictures without a call",
            self.miss_percent()
        )
    }
}

/// A watch page that is open in a browser.
pub struct Player {
    pub browser: Browser,
}

impl Player {
    /// Opens a watch page.
    pub async fn open(url: &str) -> Self {
        let mut browser = Browser::start().await;
        browser.go(url).await;
        Self { browser }
    }

    /// Waits until it plays, then begins to read frames and to count events.
    pub async fn plays(&mut self) {
        until("the player to play", s(30), async || {
            let stats = self.stats().await;
            let plays = stats.state == "playing" && stats.current_time > 0.0;
            check(plays && stats.total_frames > 5, format!("{stats:?}"))
        })
        .await;
        self.reads_frames().await;
    }

    /// Waits until it plays something else than at `before`, and beyond it.
    pub async fn plays_on(&mut self, what: &str, within: Duration, before: &Stats, more_s: f64) {
        until(what, within, async || {
            let stats = self.stats().await;
            let plays =
                stats.state == "playing" && stats.current_time > before.current_time + more_s;
            check(plays, format!("{stats:?}"))
        })
        .await;
    }

    /// What the badge has said, also what is not shown any more.
    pub async fn news(&mut self) -> Vec<String> {
        let said = "astralEvents.filter((e) => e.name === 'news').map((e) => e.detail)";
        self.browser.evaluate(said).await
    }

    /// Begins to read frame numbers and to note events of the element `video`.
    pub async fn reads_frames(&mut self) {
        let _: bool = self.browser.evaluate(READ_FRAMES).await;
    }

    /// The page's own figures.
    pub async fn stats(&mut self) -> Stats {
        self.browser.evaluate("window.astralStats()").await
    }

    /// What a person reads on the page.
    pub async fn shown(&mut self) -> Shown {
        let text = |id: &str| format!("document.getElementById('{id}').textContent");
        let ids = ["pill", "latency", "bitrate", "resolution"];
        let fields = ids.map(|id| format!("{id}: {}", text(id))).join(", ");
        let parent = "parent: document.getElementById('parent').title";
        self.browser
            .evaluate(&format!("({{{fields}, {parent}}})"))
            .await
    }

    /// Frame numbers read since [`Self::plays`].
    pub async fn seen(&mut self) -> Seen {
        self.browser.evaluate("window.testSeen").await
    }

    /// Events of the video element since [`Self::plays`].
    pub async fn events(&mut self) -> Vec<String> {
        self.browser.evaluate("window.testEvents").await
    }

    /// Bytes of sound that were decoded.
    pub async fn audio_bytes(&mut self) -> u64 {
        let bytes = "document.getElementById('video').webkitAudioDecodedByteCount";
        self.browser.evaluate(bytes).await
    }
}
