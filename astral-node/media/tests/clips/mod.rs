//! Clips made by the real ffmpeg, in a directory that goes away with the test.

#![allow(dead_code, reason = "each test takes what it needs of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory, and the clips in it.
pub(crate) struct Clips {
    dir: TempDir,
}

impl Clips {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// 640x360 H.264 at 30 fps and AAC of 48 kHz, `seconds` long, with further options.
    pub(crate) fn make(&self, name: &str, seconds: u32, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let video = format!("testsrc2=size=640x360:rate=30:duration={seconds}");
        let audio = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
        let inputs = ["-f", "lavfi", "-i", &video, "-f", "lavfi", "-i", &audio];
        let codecs = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac -ac 2 -b:a 96k";
        let mut command = ffmpeg();
        command.args(inputs).args(codecs.split(' '));
        command.args(options).arg(&path);
        run(&mut command);
        path
    }
}

/// ffmpeg that prints errors only; its output must then be empty.
pub(crate) fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    command
}

/// Runs ffmpeg to its end and gives what it wrote; nothing may be on stderr.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "this test needs ffmpeg with libx264 in PATH ({error}); \
             install it, e.g. `apt-get install ffmpeg` or `brew install ffmpeg`"
        )
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    assert!(words.is_empty(), "{command:?}: {words}");
    output
}

/// A coded packet as ffmpeg sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) dts: i64,
    pub(crate) pts: i64,
    pub(crate) hash: String,
}

/// Hashes of the coded packets of a stream (`v:0`, `a:0`), edit lists left aside.
pub(crate) fn packets(path: &Path, stream: &str) -> Vec<Packet> {
    let mut command = ffmpeg();
    command
        .args(["-ignore_editlist", "1", "-copyts", "-i"])
        .arg(path);
    command.args(["-map", &format!("0:{stream}"), "-c", "copy"]);
    command.args(["-f", "framehash", "-hash", "md5", "-"]);
    let output = run(&mut command).stdout;
    let text = String::from_utf8(output).expect("framehash writes text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            Packet {
                dts: fields[1].parse().expect("dts"),
                pts: fields[2].parse().expect("pts"),
                hash: fields[5].to_owned(),
            }
        })
        .collect()
}

/// Hashes of the decoded pictures or pieces of sound, with their times in microseconds.
pub(crate) fn decoded(path: &Path, stream: &str) -> Vec<Packet> {
    let mut command = ffmpeg();
    command.args(["-copyts", "-i"]).arg(path);
    command.args(["-map", &format!("0:{stream}"), "-vsync", "passthrough"]);
    command.args([
        "-enc_time_base",
        "1:1000000",
        "-f",
        "framehash",
        "-hash",
        "md5",
        "-",
    ]);
    let output = run(&mut command).stdout;
    let text = String::from_utf8(output).expect("framehash writes text");
    let scale = text.lines().find_map(|line| line.strip_prefix("#tb 0: "));
    let scale = scale.and_then(|scale| scale.split_once('/'));
    let (num, den) = scale.expect("a time base");
    let (num, den): (i64, i64) = (num.parse().expect("tb"), den.parse().expect("tb"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(',').map(str::trim).collect();
            let micros =
                |field: &str| field.parse::<i64>().expect("a time") * 1_000_000 * num / den;
            Packet {
                dts: micros(fields[1]),
                pts: micros(fields[2]),
                hash: fields[5].to_owned(),
            }
        })
        .collect()
}
