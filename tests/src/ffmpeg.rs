//! A real ffmpeg: clips, encoders that publish in real time, and hashes of coded frames.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use astral_proto::api::Ingest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::places;
use crate::process::{program, tail};
use crate::wait::{s, until};

/// Bits of the frame number that is burnt into the picture.
pub const COUNTER_BITS: u32 = 12;

/// A test clip at 30 fps with a moving picture and a beeping tone.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Clip {
    width: u32,
    height: u32,
    seconds: u32,
    /// Frames from keyframe to keyframe.
    gop: u32,
    b_frames: u32,
    kbps: u32,
    counter: bool,
}

impl Clip {
    /// 320x180, 300 kbit/s, a keyframe each second.
    pub const fn small(seconds: u32) -> Self {
        let (width, height) = (320, 180);
        Self {
            width,
            height,
            seconds,
            gop: 30,
            b_frames: 0,
            kbps: 300,
            counter: false,
        }
    }

    /// 1280x720, 2 Mbit/s, a keyframe each second, the frame number burnt in.
    pub const fn hd(seconds: u32) -> Self {
        let (width, height) = (1280, 720);
        Self {
            width,
            height,
            seconds,
            gop: 30,
            b_frames: 0,
            kbps: 2_000,
            counter: true,
        }
    }

    /// With a keyframe every `gop` frames; OBS makes 250 unless told otherwise.
    pub const fn gop(self, gop: u32) -> Self {
        Self { gop, ..self }
    }

    /// With as many B-frames in a row.
    pub const fn b_frames(self, b_frames: u32) -> Self {
        Self { b_frames, ..self }
    }

    /// Frames of video in it.
    pub const fn frames(self) -> u32 {
        self.seconds * 30
    }

    /// Its length.
    pub const fn length(self) -> Duration {
        Duration::from_secs(self.seconds as u64)
    }

    /// Bits per second of its file, as it will be sent.
    pub fn bps(self) -> u64 {
        let bytes = self.path().metadata().expect("the clip").len();
        bytes * 8 / u64::from(self.seconds)
    }

    /// The file; made at first use and kept in `target/tmp`.
    pub fn path(self) -> PathBuf {
        let arguments = self.arguments();
        let mut hasher = DefaultHasher::new();
        arguments.hash(&mut hasher);
        let dir = places::scratch();
        let path = dir.join(format!("clip-{:016x}.mp4", hasher.finish()));
        let lock = File::create(dir.join("clips.lock")).expect("a lock file");
        lock.lock().expect("a lock");
        if !path.is_file() {
            let half = NamedTempFile::with_suffix_in(".mp4", &dir).expect("a temporary file");
            run(ffmpeg().args(&arguments).arg(half.path()));
            half.persist(&path).expect("the clip gets its name");
        }
        path
    }

    fn arguments(self) -> Vec<String> {
        let Self {
            width,
            height,
            seconds,
            gop,
            b_frames,
            kbps,
            counter,
        } = self;
        let picture = format!("testsrc2=s={width}x{height}:r=30");
        let sound = "sine=f=440:beep_factor=4:r=48000";
        let mut words: Vec<String> = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", sound]
            .map(str::to_owned)
            .to_vec();
        if counter {
            words.extend(["-vf".into(), counter_filter(height)]);
        }
        let reorder = if b_frames > 0 {
            ""
        } else {
            "-tune zerolatency "
        };
        let coding = format!(
            "-t {seconds} -c:v libx264 -preset veryfast {reorder}-profile:v high -pix_fmt yuv420p \
             -bf {b_frames} -b_strategy 0 -g {gop} -keyint_min {gop} -sc_threshold 0 \
             -b:v {kbps}k -maxrate {kbps}k -bufsize {kbps}k -c:a aac -b:a 96k -ac 2 \
             -movflags +faststart"
        );
        words.extend(coding.split_whitespace().map(str::to_owned));
        words
    }
}

/// One white block and the bits of the frame number, lowest first, 32 pixels each, in
/// the bottom 64 rows.
fn counter_filter(height: u32) -> String {
    let y = height - 64;
    let block = |x: u32, color: &str| format!("drawbox=x={x}:y={y}:w=32:h=64:color={color}:t=fill");
    let ground = format!("drawbox=x=0:y={y}:w=448:h=64:color=black:t=fill");
    let bits = (0..COUNTER_BITS).map(|bit| {
        let set = format!("enable='eq(mod(floor(n/pow(2\\,{bit}))\\,2)\\,1)'");
        format!("{}:{set}", block(32 + 32 * bit, "white"))
    });
    [ground, block(0, "white")]
        .into_iter()
        .chain(bits)
        .collect::<Vec<_>>()
        .join(",")
}

fn ffmpeg() -> Command {
    ffmpeg_on(None)
}

fn ffmpeg_on(host: Option<&str>) -> Command {
    let mut command = program(&places::ffmpeg(), host);
    command
        .args(["-nostdin", "-hide_banner", "-v", "error", "-y"])
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("ffmpeg starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    output.stdout
}

/// An encoder that publishes.
pub struct Encoder {
    child: Child,
    log: NamedTempFile,
}

impl Encoder {
    /// Sends a clip by RTMP in real time, as its coded frames are.
    pub fn rtmp(clip: Clip, ingest: &Ingest) -> Self {
        let url = ingest.rtmp_url.as_ref().expect("RTMP is on");
        Self::rtmp_to(clip, &format!("{url}/{}", ingest.stream_key))
    }

    /// The same on the node's own computer.
    pub fn rtmp_on(host: Option<&str>, clip: Clip, ingest: &Ingest) -> Self {
        let url = ingest.rtmp_url.as_ref().expect("RTMP is on");
        let url = format!("{url}/{}", ingest.stream_key);
        let output = ["-f", "flv", &url];
        Self::start_by(ffmpeg_on(host), &clip.path(), &["-re"], &output)
    }

    /// The same to any address.
    pub fn rtmp_to(clip: Clip, url: &str) -> Self {
        Self::start(clip, &["-re"], &["-f", "flv", url])
    }

    /// Sends a clip by RTMP as fast as it is taken, over and over. (Did it end, ffmpeg would
    /// close with the node's acknowledgement unread, and TCP drop what is not read yet.)
    pub fn rtmp_at_once(clip: Clip, ingest: &Ingest) -> Self {
        let url = ingest.rtmp_url.as_ref().expect("RTMP is on");
        Self::start(
            clip,
            &["-stream_loop", "-1"],
            &["-f", "flv", &format!("{url}/{}", ingest.stream_key)],
        )
    }

    /// Sends a clip as fragmented MP4 by HTTP `PUT` in real time.
    pub fn put(clip: Clip, ingest: &Ingest) -> Self {
        let form = [
            "-f",
            "mp4",
            "-movflags",
            "+cmaf+frag_keyframe",
            "-frag_duration",
            "200000",
        ];
        let form = form.into_iter().chain(["-method", "PUT", &ingest.http_url]);
        Self::start(clip, &["-re"], &form.collect::<Vec<_>>())
    }

    /// Sends any file, as its coded frames are, in real time.
    pub fn file(path: &Path, output: &[&str]) -> Self {
        Self::start_file(path, &["-re"], output)
    }

    fn start(clip: Clip, pace: &[&str], output: &[&str]) -> Self {
        Self::start_file(&clip.path(), pace, output)
    }

    fn start_file(path: &Path, pace: &[&str], output: &[&str]) -> Self {
        Self::start_by(ffmpeg(), path, pace, output)
    }

    fn start_by(mut command: Command, path: &Path, pace: &[&str], output: &[&str]) -> Self {
        let log = NamedTempFile::new().expect("a log file");
        let stderr = log.reopen().expect("the log file");
        command
            .args(pace)
            .arg("-i")
            .arg(path)
            .args(["-c", "copy"])
            .args(output);
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn();
        Self {
            child: child.expect("ffmpeg starts"),
            log,
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("the child is still ours to signal");
    }

    /// What it complained about.
    pub fn words(&self) -> String {
        tail(self.log.path())
    }

    /// Waits until it has sent everything, or has given up.
    pub async fn end(&mut self, within: Duration) -> ExitStatus {
        until("ffmpeg's end", within, async || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                Ok(None) => Err("it runs"),
                Err(_) => Err("it cannot be waited for"),
            }
        })
        .await
    }

    /// Waits for the end of `clip` and for success.
    pub async fn finish(&mut self, clip: Clip) {
        let status = self.end(clip.length() + s(20)).await;
        assert!(status.success(), "ffmpeg: {status}: {}", self.words());
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── ffmpeg ──\n{}", self.words());
        }
    }
}

/// Makes a file with these arguments.
pub fn make(arguments: &str, path: &Path) {
    run(ffmpeg().args(arguments.split_whitespace()).arg(path));
}

/// A decoded picture, or a piece of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Time in microseconds.
    pub pts: i64,
    /// MD5 of its bytes.
    pub hash: String,
}

/// What ffmpeg decodes of a track (`v:0`, `a:0`), with the times that it reads.
pub fn decoded(file: &Path, track: &str) -> Vec<Decoded> {
    let mut command = ffmpeg();
    command.args(["-copyts", "-i"]).arg(file);
    // A picture of another size is not scaled to that of the first.
    command.args(["-autoscale", "0"]);
    command.args(["-map", &format!("0:{track}"), "-vsync", "passthrough"]);
    command.args(["-enc_time_base", "1:1000000", "-f", "framehash"]);
    let output = run(command.args(["-hash", "md5", "-"]));
    let text = String::from_utf8(output).expect("framehash writes text");
    let scale = text.lines().find_map(|line| line.strip_prefix("#tb 0: "));
    let (num, den) = scale
        .and_then(|scale| scale.split_once('/'))
        .expect("a time base");
    let (num, den): (i64, i64) = (num.parse().expect("tb"), den.parse().expect("tb"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            Decoded {
                pts: fields[2].parse::<i64>().expect("a time") * 1_000_000 * num / den,
                hash: fields[5].to_owned(),
            }
        })
        .collect()
}

/// Hashes of the coded packets of a track (`v:0`, `a:0`), in coding order, without
/// what carries no picture: delimiters, filler, parameter sets equal to the configuration.
pub fn packets(file: &Path, track: &str) -> Vec<String> {
    let mut command = ffmpeg();
    command
        .args(["-ignore_editlist", "1", "-copyts", "-i"])
        .arg(file);
    command.args(["-map", &format!("0:{track}"), "-c", "copy"]);
    if track.starts_with('v') {
        command.args(["-bsf:v", "filter_units=remove_types=7-9|12"]);
    }
    let output = run(command.args(["-f", "framehash", "-hash", "md5", "-"]));
    let text = String::from_utf8(output).expect("framehash writes text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit(',').next().expect("a hash").trim().to_owned())
        .collect()
}

/// Where `received` begins in `sent`; panics unless it is all of it from there to the end.
pub fn assert_tail(what: &str, sent: &[String], received: &[String]) -> usize {
    let start = assert_run(what, sent, received);
    let (end, all) = (start + received.len(), sent.len());
    assert!(
        end == all,
        "{what}: the last {} of {all} packets are missing",
        all - end
    );
    start
}

/// Where `received` begins in `sent`; panics unless none is missing up to its own end.
pub fn assert_run(what: &str, sent: &[String], received: &[String]) -> usize {
    let first = received
        .first()
        .unwrap_or_else(|| panic!("{what}: nothing came"));
    let start = sent.iter().position(|hash| hash == first);
    let start = start.unwrap_or_else(|| panic!("{what}: the first packet was never sent"));
    let pairs = sent[start..].iter().zip(received);
    let same = pairs.take_while(|(sent, came)| sent == came).count();
    if let Some(wrong) = received.get(same) {
        let place = sent.iter().position(|hash| hash == wrong);
        panic!(
            "{what}: {} of {} packets came, from number {start} on, but in the place of number {} \
             there is {place:?}",
            received.len(),
            sent.len(),
            start + same
        );
    }
    start
}
