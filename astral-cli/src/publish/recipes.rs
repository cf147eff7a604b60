//! What to type into an encoder, and where the browser is one.

use astral_proto::api::Stream;

use crate::commands::Urls;
use crate::failure::Failure;
use crate::term::{self, Style};

/// How ffmpeg codes what any browser plays; a keyframe each second.
const CODE: &str = "-c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p \
     -force_key_frames 'expr:gte(t,n_forced)' -c:a aac -b:a 128k -ar 48000";

/// How GStreamer codes the same of any file; a keyframe each second at 30 per second.
const DECODE: &str = "filesrc location=INPUT ! decodebin name=d";
const PICTURE: &str = "d. ! queue ! videoconvert ! video/x-raw,format=I420 ! \
     x264enc speed-preset=veryfast tune=zerolatency key-int-max=30 ! h264parse ! queue ! m.";
const SOUND: &str = "d. ! queue ! audioconvert ! audioresample ! \
     audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! queue ! m.";

/// Prints how OBS, ffmpeg and GStreamer send the stream.
pub(super) fn print(stream: &Stream, urls: &Urls) -> Result<(), Failure> {
    for line in lines(stream, urls) {
        match line.strip_prefix('#') {
            Some(heading) => term::line(&term::styled(Style::Bold, heading.trim_start()))?,
            None => term::line(&line)?,
        }
    }
    Ok(())
}

/// The lines, headings with `#` before them.
fn lines(stream: &Stream, urls: &Urls) -> Vec<String> {
    let mut lines = vec![
        format!("# {} is published, and waits for its encoder", stream.name),
        format!("  watch         {}", urls.page),
        format!("  share         {}", urls.share),
    ];
    let Some(ingest) = &stream.ingest else {
        lines
            .push("  (the stream key is shown only to those who have the node's token)".to_owned());
        return lines;
    };
    let key = &ingest.stream_key;
    if let Some(server) = &ingest.rtmp_url {
        lines.extend([
            String::new(),
            "# OBS: Settings, Stream, Service \"Custom…\"".to_owned(),
            format!("  Server        {server}"),
            format!("  Stream Key    {key}"),
            "  then Settings, Output: Keyframe Interval 1 s".to_owned(),
            String::new(),
            "# ffmpeg, by RTMP".to_owned(),
            format!("  ffmpeg -re -i INPUT {CODE} -f flv '{server}/{key}'"),
            String::new(),
            "# GStreamer, by RTMP".to_owned(),
            format!(
                "  gst-launch-1.0 -e flvmux streamable=true name=m ! \
                 rtmp2sink location='{server}/{key}' sync=true {DECODE} {PICTURE} {SOUND}"
            ),
        ]);
    }
    lines.extend([
        String::new(),
        "# The browser: camera, screen or a file".to_owned(),
        format!("  {}", urls.publish),
        String::new(),
        "# ffmpeg, by HTTP".to_owned(),
        format!(
            "  ffmpeg -re -i INPUT {CODE} -f mp4 -movflags +cmaf+frag_keyframe \
             -frag_duration 200000 -method PUT '{}'",
            ingest.http_url
        ),
        format!(
            "  ffmpeg -re -i INPUT {CODE} -f mpegts -method PUT '{}'",
            ingest.http_url
        ),
        String::new(),
        "The stream key lets anybody send in this stream's name: keep it to yourself.".to_owned(),
        format!("End it with: astral unpublish {}", stream.slug),
    ]);
    lines
}
