//! What the pages load: compiled in, under `/assets/`.
//!
//! Plain modules and style sheets as they stand beside this file: nothing is built.
//! They change with the program only, so browsers keep them and ask each time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use astral_proto::ids::sha256;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};

use super::super::problem::Failure;

macro_rules! assets {
    ($($path:literal)+) => { &[$(($path, include_str!($path))),+] };
}

/// Path and text of every asset.
const ASSETS: &[(&str, &str)] = assets! {
    "common/base.css"
    "common/api.js"
    "common/dom.js"
    "common/format.js"
    "common/lock.js"
    "common/plot.js"
    "dashboard/dashboard.css"
    "dashboard/events.js"
    "dashboard/main.js"
    "dashboard/network.js"
    "dashboard/picture.js"
    "dashboard/settings.js"
    "dashboard/streams.js"
    "player/boxes.js"
    "player/buffer.js"
    "player/control.js"
    "player/hls.js"
    "player/link.js"
    "player/log.js"
    "player/media.js"
    "player/pace.js"
    "player/player.js"
    "publish/capture.js"
    "publish/clock.js"
    "publish/encoder.js"
    "publish/main.js"
    "publish/publish.css"
    "publish/recipes.js"
    "publish/uplink.js"
    "vendor/hls.js.LICENSE"
    "vendor/hls.min.mjs"
    "watch/controls.js"
    "watch/embed.js"
    "watch/main.js"
    "watch/stats.js"
    "watch/watch.css"
    "watch/words.js"
};

struct Asset {
    kind: &'static str,
    text: &'static str,
    etag: HeaderValue,
}

static BY_PATH: LazyLock<BTreeMap<&'static str, Asset>> = LazyLock::new(|| {
    let assets = ASSETS
        .iter()
        .map(|&(path, text)| (path, Asset::of(path, text)));
    assets.collect()
});

impl Asset {
    fn of(path: &str, text: &'static str) -> Self {
        let kind = match path.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some(_) | None => "text/plain; charset=utf-8",
        };
        let digest = sha256(text.as_bytes());
        let hex: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        let etag = HeaderValue::from_str(&format!("\"{hex}\""));
        Self {
            kind,
            text,
            etag: etag.expect("hexadecimal digits are fit for a header"),
        }
    }
}

/// `GET /assets/{path}`.
pub(in super::super) async fn asset(
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let asset = BY_PATH.get(path.as_str());
    let asset = asset.ok_or_else(|| Failure::unknown(format!("no asset `{path}`")))?;
    let mut known = headers.get_all(IF_NONE_MATCH).iter();
    let mut response = if known.any(|etag| *etag == asset.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        asset.text.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, asset.etag.clone());
    Ok(response)
}
