//! README's command lines, word for word: each line of each `sh` block is run by a
//! shell, on machines of their own (network namespaces), by a newcomer with an empty home.
//!
//! A comment in a block, such as `# on web.example`, says on which machine its lines
//! are typed. Only three things are not as typed: the first two commands, which build
//! and test everything, are run in a bounded form, and what goes on for ever is
//! interrupted once it has done what it is there for.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use astral_tests::ffmpeg::Clip;
use astral_tests::terminal::Terminal;
use astral_tests::turn;
use astral_tests::village::{Machine, Place, Village, enter};
use astral_tests::wait::{check, s, until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

const README: &str = include_str!("../../README.md");
/// The script that README calls `tests/run.sh`.
const RUN_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh");

/// Where README says that lines are typed, and the machines of this test that are meant.
const MACHINES: &[(&str, &[&str])] = &[
    ("publisher.example", &["publisher"]),
    ("another machine", &["viewer"]),
    ("web.example", &["web"]),
    ("every friend's machine", &["anna", "ben"]),
];
/// What a line ends with, or has in it, that goes on until it is interrupted.
const ENDLESS: &[&str] = &["--loop", "| astral publish", "--output", "astral events"];

/// A line of a block.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    on: &'static [&'static str],
    text: String,
}

/// All lines of all `sh` blocks, those that a backslash joins as one.
fn lines(readme: &str) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let (mut inside, mut on, mut joined) = (false, MACHINES[0].1, String::new());
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            on = MACHINES[0].1;
            continue;
        }
        if !inside || line.trim().is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix("# on ") {
            let known = MACHINES.iter().find(|(name, _)| *name == comment);
            on = known
                .unwrap_or_else(|| panic!("README: which machine is `{comment}`?"))
                .1;
            continue;
        }
        joined.push_str(line);
        if line.ends_with('\\') {
            joined.push('\n');
            continue;
        }
        found.push(Line {
            on,
            text: std::mem::take(&mut joined),
        });
    }
    found
}

#[test]
fn lines_are_found_with_their_machines() {
    let readme =
        "# T\n```sh\na b\n# on web.example\nc \\\n  d &\n```\n```\nno\n```\n```sh\ne\n```\n";
    let line = |on, text: &str| Line {
        on,
        text: text.to_owned(),
    };
    let expected = [
        line(MACHINES[0].1, "a b"),
        line(MACHINES[2].1, "c \\\n  d &"),
        line(MACHINES[0].1, "e"),
    ];
    assert_eq!(lines(readme), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_line_of_the_readme_does_what_it_says() {
    match enter("every_command_line_of_the_readme_does_what_it_says") {
        Place::Inside => {}
        Place::Done => return,
        Place::Impossible => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must let us make network namespaces"
            );
            eprintln!(
                "SKIPPED: README's lines need network namespaces: run as root, or allow them"
            );
            return;
        }
    }
    let _turn = turn::shared().await;
    let village = Village::new(&[
        ("publisher", &["publisher.example"]),
        ("viewer", &[]),
        ("web", &["web.example"]),
        ("anna", &[]),
        ("ben", &[]),
    ]);
    fs::copy(
        Clip::small(12).path(),
        village.machine("publisher").home.join("clip.mp4"),
    )
    .expect("a clip of the newcomer's own");
    let mut newcomer = Newcomer {
        left_running: Vec::new(),
    };
    for line in lines(README) {
        for name in line.on {
            println!("{name}$ {}", line.text);
            newcomer.types(&village.machine(name), &line.text).await;
        }
    }
    // What the lines are there for.
    let viewer = village.machine("viewer");
    until("pictures at the viewer", s(20), async || {
        let frames = stream(&viewer).map(|stream| stream["local"]["frames_received"].clone());
        check(
            frames.as_ref().is_some_and(|n| n.as_u64() > Some(60)),
            format!("{frames:?}"),
        )
    })
    .await;
    until("friends that found each other", s(20), async || {
        let nodes = json(&village.machine("anna"), "astral nodes --json");
        let count = nodes["items"].as_array().map_or(0, Vec::len);
        check(count == 2, nodes)
    })
    .await;
    newcomer.goes_home().await;
}

/// Somebody who types README's lines.
struct Newcomer {
    left_running: Vec<Job>,
}

impl Newcomer {
    async fn types(&mut self, at: &Machine, line: &str) {
        match line {
            "tests/run.sh" => return self.could_run_everything(),
            line if line.ends_with("astral demo") => return self.tries_the_demo(at, line).await,
            "astral top" => return looks_at_top(at).await,
            _ => {}
        }
        if line.ends_with('&') {
            // The shell waits for what it has in the background; nobody waits for the shell.
            let mut job = Job::start(at.shell(&format!("{line}\nwait")));
            let ready = if line.starts_with("astral-web") {
                WEB_ANSWERS
            } else {
                "astral status"
            };
            until(&format!("`{line}` to be ready"), s(30), async || {
                assert!(job.ended().is_none(), "`{line}` ended: {}", job.said());
                let output = at.shell(ready).output().expect("a shell");
                check(
                    output.status.success(),
                    String::from_utf8_lossy(&output.stderr),
                )
            })
            .await;
            self.left_running.push(job);
        } else if ENDLESS.iter().any(|word| line.contains(word)) {
            let mut job = Job::start(at.shell(line));
            until(&format!("`{line}` to do its work"), s(40), async || {
                assert!(job.ended().is_none(), "`{line}` ended: {}", job.said());
                has_worked(at, line, &job)
            })
            .await;
            if line.contains("--loop") {
                self.left_running.push(job);
            } else {
                job.is_interrupted(line).await;
            }
        } else {
            let mut job = Job::start(at.shell(line));
            let code = until(&format!("`{line}` to end"), s(60), async || {
                job.ended().ok_or("it runs")
            })
            .await;
            println!("{}", job.said());
            assert_eq!(code, Some(0), "`{line}`: {}", job.said());
        }
    }

    /// This test is part of it, so it is only looked at.
    fn could_run_everything(&self) {
        let script = RUN_SH;
        let read = Command::new("bash").arg("-n").arg(script).status();
        assert!(read.expect("bash").success());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(script)
            .expect("tests/run.sh is there")
            .permissions()
            .mode();
        assert_ne!(mode & 0o100, 0, "tests/run.sh can be called");
    }

    /// It was built by whoever runs this test; the demo ends by itself, and opens nothing.
    async fn tries_the_demo(&self, at: &Machine, line: &str) {
        assert_eq!(line, "cargo build && target/debug/astral demo");
        let mut demo = at.shell("astral demo --no-open --seconds 5");
        let running = tokio::task::spawn_blocking(move || demo.output());
        let output = running.await.expect("no panic").expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{errors}");
        assert!(said.contains("/watch/"), "{said}");
    }

    /// Ctrl-C, everywhere; the lines end well.
    async fn goes_home(self) {
        for mut job in self.left_running.into_iter().rev() {
            job.is_interrupted("what was left running").await;
        }
    }
}

const WEB_ANSWERS: &str = "exec 3<>/dev/tcp/127.0.0.1/8080";

/// Whether a line that goes on for ever has shown what it is for.
fn has_worked(at: &Machine, line: &str, job: &Job) -> Result<(), String> {
    if line.contains("--output") {
        let recorded = fs::read_dir(&at.home).expect("a home").flatten();
        let largest = recorded
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .max();
        return check(largest > Some(100_000), format!("{largest:?} bytes"));
    }
    if line.contains("events") {
        return check(job.said().contains("added"), job.said());
    }
    let stream = stream(at).ok_or("no stream")?;
    let sends = stream["state"] == "live" && stream["bitrate_bps"].as_u64() > Some(0);
    check(sends, format!("{stream}, {}", job.said()))
}

/// The only stream that a machine's node knows.
fn stream(at: &Machine) -> Option<Value> {
    json(at, "astral streams --json")["items"].get(0).cloned()
}

/// What a command prints; `null` if it fails.
fn json(at: &Machine, line: &str) -> Value {
    let output = at.shell(line).output().expect("a shell");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

async fn looks_at_top(at: &Machine) {
    let mut terminal = Terminal::new(120, 40);
    let mut command = at.shell("astral top");
    terminal.attach(&mut command);
    let mut top = command.spawn().expect("a shell");
    until("streams in `astral top`", s(20), async || {
        check(terminal.shown().contains("my-show"), terminal.shown())
    })
    .await;
    terminal.press("q");
    let code = until("the end of `astral top`", s(10), async || {
        top.try_wait().expect("our child").ok_or("it runs")
    });
    assert!(code.await.success());
    terminal.assert_given_back();
}

/// A line that runs.
struct Job {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Job {
    fn start(mut command: Command) -> Self {
        let (mut output, input) = std::io::pipe().expect("a pipe");
        command
            .stdout(input.try_clone().expect("a handle"))
            .stderr(input);
        let child = command.stdin(Stdio::null()).spawn().expect("a shell");
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = said.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                log.lock()
                    .expect("no panic")
                    .extend_from_slice(&piece[..read]);
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("no panic")).into_owned()
    }

    /// Its exit code, once it has ended.
    fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.try_wait().expect("our child");
        status.map(|status| status.code())
    }

    /// Ctrl-C goes to the whole line, as in a terminal.
    async fn is_interrupted(&mut self, line: &str) {
        let group = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process_group(group, Signal::INT).expect("it runs");
        let code = until(
            &format!("the end of `{line}`"),
            s(20),
            async || match self.ended() {
                Some(code) => Ok(code),
                None => Err(self.said()),
            },
        )
        .await;
        // A shell that only waits is ended by Ctrl-C itself.
        assert!(
            matches!(code, Some(0) | None),
            "`{line}` ended with {code:?}: {}",
            self.said()
        );
    }
}
