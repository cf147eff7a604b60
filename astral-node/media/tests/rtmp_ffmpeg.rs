//! A real ffmpeg publishes to the RTMP session: every coded frame arrives, byte for
//! byte, and refusals are shown to whoever runs the encoder.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use astral_media::flv::{AUDIO_TRACK, FlvDemuxer, FlvFile, VIDEO_TRACK};
use astral_media::frame::audio_units;
use astral_media::rtmp::{Event, Limits, Refusal, RefusalCode, Session};
use astral_media::segmenter::{AUDIO, Options, Segmented, Segmenter, Start, VIDEO, Wall};
use astral_media::source::SourceEvent;
use aws_lc_rs::digest::{SHA256, digest};

/// Longest silence of the socket before a test fails.
const SILENCE: Duration = Duration::from_secs(20);
const REFUSED: &str = "The stream key is not known here.";

/// Four seconds of H.264 with B-frames and AAC in an FLV file, of which copies are published.
struct Clip {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Clip {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.flv");
        let inputs = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=frequency=440:sample_rate=48000";
        let codecs =
            "-t 4 -c:v libx264 -preset veryfast -g 30 -bf 2 -pix_fmt yuv420p -c:a aac -ac 2";
        let mut command = ffmpeg(&format!("{inputs} {codecs}"));
        done(command.arg(&path));
        Self {
            _folder: folder,
            path,
        }
    }

    /// SHA-256 of each coded frame of a track as ffmpeg itself reads them.
    fn hashes(&self, track: &str) -> Vec<String> {
        let mut command = ffmpeg("-i");
        command.arg(&self.path);
        let options = [
            "-map",
            track,
            "-c",
            "copy",
            "-f",
            "framehash",
            "-hash",
            "sha256",
            "-",
        ];
        let output = done(command.args(options));
        let text = String::from_utf8(output.stdout).unwrap();
        let frames = text.lines().filter(|line| !line.starts_with('#'));
        frames
            .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
            .collect()
    }
}

fn ffmpeg(arguments: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-y"]);
    command.args(arguments.split_whitespace());
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect(
        "ffmpeg is needed for this test and could not be started: \
         install it (Debian: apt-get install ffmpeg; macOS: brew install ffmpeg)",
    )
}

fn done(command: &mut Command) -> Output {
    let output = run(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
    output
}

/// What one connection brought.
#[derive(Default)]
struct Received {
    asked: Option<(String, String)>,
    events: Vec<SourceEvent>,
    stamps: Vec<u32>,
    unpublished: bool,
    play_refused: bool,
}

/// Serves one connection to its end; the key `good` may publish.
fn serve() -> (u16, JoinHandle<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        serve_connection(socket)
    });
    (port, server)
}

fn serve_connection(mut socket: TcpStream) -> Received {
    let (mut session, mut demuxer) = (Session::new(Limits::default()), FlvDemuxer::new());
    let mut received = Received::default();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) => return received,
            Ok(count) => count,
            // An encoder that closes with our replies unread resets the connection.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return received,
            Err(error) => panic!("the encoder fell silent: {error}"),
        };
        for event in session.feed(&buffer[..count]).unwrap() {
            received.take(event, &mut session, &mut demuxer);
        }
        // The encoder may be gone already; what it sent still counts.
        let _ = socket.write_all(&session.take_output());
    }
}

impl Received {
    fn take(&mut self, event: Event, session: &mut Session, demuxer: &mut FlvDemuxer) {
        match event {
            Event::Publish { app, key } => {
                if key == "good" {
                    session.accept_publish();
                } else {
                    session.refuse_publish(&Refusal {
                        code: RefusalCode::Denied,
                        description: REFUSED.into(),
                    });
                }
                self.asked = Some((app, key));
            }
            Event::Media {
                kind,
                timestamp,
                payload,
            } => {
                self.stamps.push(timestamp);
                demuxer
                    .push(kind, timestamp, &payload, &mut self.events)
                    .unwrap();
            }
            Event::Metadata(metadata) => demuxer.metadata(&metadata, &mut self.events),
            Event::Unpublish => self.unpublished = true,
            Event::PlayRefused => self.play_refused = true,
            Event::Pong { .. } => {}
        }
    }
}

/// Publishes a copy of the clip, as fast as it goes.
fn publish(clip: &Path, options: &str, name: &str) -> (Output, Received) {
    let (port, server) = serve();
    let mut command = ffmpeg("-i");
    command.arg(clip).args(["-map", "0", "-c", "copy"]);
    command.args(options.split_whitespace());
    command.args(["-f", "flv", &format!("rtmp://127.0.0.1:{port}/live/{name}")]);
    let output = run(&mut command);
    (output, server.join().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hashes(events: &[SourceEvent], track: u32) -> Vec<String> {
    let samples = events.iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) if sample.track == track => Some(sample),
        SourceEvent::Sample(_)
        | SourceEvent::Track(_)
        | SourceEvent::Promised { .. }
        | SourceEvent::End => None,
    });
    samples
        .map(|sample| hex(digest(&SHA256, &sample.data).as_ref()))
        .collect()
}

fn segmented(events: Vec<SourceEvent>) -> Vec<Segmented> {
    let start = Start {
        epoch: 1,
        group: 1,
        time_ns: 0,
    };
    let mut segmenter = Segmenter::new(start, Options::default());
    let now = Wall { unix_ms: 0 };
    let mut out = Vec::new();
    for event in events {
        out.extend(segmenter.push(now, event).unwrap());
    }
    out.extend(segmenter.finish());
    out
}

#[test]
fn every_coded_frame_arrives() {
    let clip = Clip::new();
    let (output, received) = publish(&clip.path, "", "good?x=1");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(received.asked, Some(("live".into(), "good".into())));
    assert!(received.unpublished, "the clean end was not seen");
    let promise = SourceEvent::Promised {
        video: true,
        audio: true,
    };
    assert_eq!(received.events[0], promise);
    let video = clip.hashes("0:v");
    assert_eq!(video.len(), 120);
    assert_eq!(hashes(&received.events, VIDEO_TRACK), video);
    assert_eq!(hashes(&received.events, AUDIO_TRACK), clip.hashes("0:a"));
}

#[test]
fn stamps_beyond_24_bits_arrive() {
    let clip = Clip::new();
    let (output, received) = publish(&clip.path, "-output_ts_offset 16775.2", "good");
    assert!(output.status.success());
    // Configurations are stamped 0.
    let media = received.stamps.iter().filter(|stamp| **stamp > 0);
    let (min, max) = (media.clone().min().unwrap(), media.max().unwrap());
    assert!(*min < 0xff_ffff && *max > 0xff_ffff);
    assert!((3900..4200).contains(&(max - min)), "{min} to {max}");
    assert_eq!(hashes(&received.events, VIDEO_TRACK), clip.hashes("0:v"));
}

#[test]
fn a_published_clip_becomes_groups_on_the_timeline() {
    let clip = Clip::new();
    let (_, received) = publish(&clip.path, "", "good");
    let out = segmented(received.events);
    let (mut pictures, mut sounds, mut groups) = (0, 0, 0);
    let mut expected = None;
    for item in &out {
        match item {
            Segmented::Frame(frame) if frame.track == VIDEO => {
                pictures += 1;
                groups += u32::from(frame.keyframe);
                assert_eq!(frame.keyframe, frame.index == 0);
            }
            Segmented::Frame(frame) => {
                assert_eq!(frame.track, AUDIO);
                sounds += audio_units(&frame.payload).unwrap().len();
                let begins = frame.dts;
                assert_eq!(expected.unwrap_or(begins), begins, "sound has a hole");
                expected = Some(begins + i64::from(frame.duration));
            }
            Segmented::Catalog(catalog) => {
                assert_eq!((catalog.epoch, catalog.tracks.len()), (1, 2));
                catalog.encode().unwrap();
            }
            Segmented::GroupEnd { .. } => {}
        }
    }
    assert_eq!((pictures, groups), (120, 4));
    // At most two frames of sound lie before the first picture.
    let all = clip.hashes("0:a").len();
    assert!((all - 2..=all).contains(&sounds), "{sounds} of {all}");
}

#[test]
fn the_file_gives_what_the_connection_gives() {
    let clip = Clip::new();
    let bytes = std::fs::read(&clip.path).unwrap();
    let (mut file, mut events) = (FlvFile::new(), Vec::new());
    for piece in bytes.chunks(1000) {
        file.push(piece, &mut events).unwrap();
    }
    assert_eq!(hashes(&events, VIDEO_TRACK), clip.hashes("0:v"));
    assert_eq!(hashes(&events, AUDIO_TRACK), clip.hashes("0:a"));
}

#[test]
fn a_wrong_key_is_refused_with_a_sentence() {
    let clip = Clip::new();
    let (output, received) = publish(&clip.path, "", "wrong");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&format!("Server error: {REFUSED}")),
        "{errors}"
    );
    assert!(!output.status.success());
    assert!(received.events.is_empty() && !received.unpublished);
}

#[test]
fn a_player_is_told_where_to_play() {
    let (port, server) = serve();
    let input = format!("-i rtmp://127.0.0.1:{port}/live/good -f null -");
    let output = run(&mut ffmpeg(&input));
    assert!(!output.status.success());
    assert!(server.join().unwrap().play_refused);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("Open its watch page"), "{errors}");
}
