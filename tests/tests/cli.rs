//! `astral`, as a person calls it.

use std::path::Path;
use std::process::{Command, Stdio};

use astral_tests::cli::{Guarded, astral, command, says};
use astral_tests::places;
use astral_tests::process::{Launch, Node, clean};
use astral_tests::terminal::Terminal;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use rustix::process::Signal;
use serde_json::Value;

/// A row of DESIGN §8: what is typed (words are apart by spaces, `~` stands for one
/// inside a word), how it ends, and what is said.
type Row<'a> = (&'a str, i32, &'a [&'a str]);

/// Types the rows one after the other.
async fn types(node: &Node, rows: &[Row<'_>]) {
    for (typed, code, wanted) in rows {
        let words: Vec<String> = typed
            .split(' ')
            .map(|word| word.replace('~', " "))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = astral(&node.data_dir(), &words).await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "astral {typed}: {said}");
        for word in *wanted {
            assert!(
                said.contains(word),
                "astral {typed}: {word} is not in\n{said}"
            );
        }
        assert!(
            !said.contains('\x1b'),
            "no colours but on a terminal: {said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_ends_and_says_as_the_table_has_it() {
    let _turn = turn::shared().await;
    let other = Launch::new("other").start().await;
    let node = Launch::new("node")
        .limit("20mbit")
        .peer(&other)
        .start()
        .await;
    until("the other node is known", s(15), async || {
        let nodes = says(&node, &["nodes", "--json"]).await;
        check(nodes.contains(&other.id().to_string()), nodes)
    })
    .await;
    let (id, other_id) = (node.id().to_string(), other.id().to_string());
    let (own, page) = (node.api.url("/"), node.api.url("/watch/my-show"));
    let stranger = "8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";
    let (seed, forget) = (
        format!("seed my-shwo {stranger}"),
        format!("forget {other_id}"),
    );
    let forget_stranger = format!("forget {stranger}");
    types(
        &node,
        &[
            (
                "status",
                0,
                &[&id, "upload", "20 Mbit/s", "1 other nodes known"],
            ),
            ("nodes", 0, &[&id, &other_id, "(this node)"]),
            ("streams", 0, &["`astral publish NAME`"]),
            ("-q tickets", 0, &["no tickets"]),
            (
                "publish My~Show",
                0,
                &["OBS", "ffmpeg", "rtmp://", "Stream Key", "astral:"],
            ),
            ("publish My~Show", 0, &["published already"]),
            ("publish Hidden --unlisted", 0, &["astral:"]),
            ("streams", 0, &["my-show", "waiting", "published here"]),
            ("pause my-show", 0, &["`astral resume my-show`"]),
            ("streams", 0, &["paused"]),
            ("resume my-show", 0, &["goes on"]),
            ("url my-show", 0, &[&page, "/stream.mp4", "astral:"]),
            ("url my-shwo", 4, &["did you mean my-show?"]),
            ("watch my-show --print-url", 0, &[&page]),
            ("watch zebra", 4, &["zebra", "`astral streams`"]),
            ("watch my-show --player mpv --output x", 2, &["--output"]),
            ("open", 0, &[&own]),
            ("open my-show", 0, &[&page]),
            (
                "settings",
                0,
                &["upstream_limit", "20000000", "flag", "can be changed"],
            ),
            ("settings upstream-limit", 0, &["20000000"]),
            ("settings upstream_limit 1mbit", 1, &["flag"]),
            ("settings name Living~room", 0, &["Living room"]),
            ("settings name", 0, &["Living room"]),
            ("settings name --unset", 0, &["default"]),
            ("settings verbosity -1", 0, &["-1"]),
            (
                "settings supernode sometimes",
                1,
                &["auto, always or never"],
            ),
            (
                "settings upstream_limt",
                4,
                &["did you mean upstream_limit?"],
            ),
            (&seed, 4, &["did you mean my-show?"]),
            ("stop my-shwo", 4, &["did you mean my-show?"]),
            ("revoke 00000000000000ff", 4, &["no ticket"]),
            ("revoke my-show", 2, &[]),
            (&forget, 0, &["until it is heard of again"]),
            (&forget_stranger, 4, &["`astral nodes`"]),
            ("unpublish my-show", 0, &["has ended"]),
            ("unpublish my-show", 4, &["my-show"]),
            ("top", 2, &["terminal"]),
            ("completions bash", 0, &["complete"]),
            ("completions tcsh", 2, &["zsh"]),
            ("man", 0, &[".TH", "astral demo"]),
            ("man watch", 0, &["player"]),
            ("service status", 4, &["`astral service install`"]),
            (
                "service install --print -- --name My~node",
                0,
                &["ExecStart=", "--name \"My node\""],
            ),
            ("dance", 2, &["dance"]),
            ("shutdown", 0, &["shuts down"]),
        ],
    )
    .await;
    until("the node's end", s(10), async || {
        let output = astral(&node.data_dir(), &["status"]).await;
        check(output.status.code() == Some(3), format!("{output:?}"))
    })
    .await;
    types(&node, &[("status", 3, &["Start one with `astral-node`"])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_every_command_prints_the_apis_own_objects() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    let field = async |words: &[&str], pointer: &str| {
        let said = says(&node, &[&["--json"], words].concat()).await;
        let value: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        value
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| panic!("{words:?}: {pointer}: {said}"))
    };
    assert_eq!(field(&["status"], "/uuid").await, node.id().to_string());
    assert_eq!(field(&["publish", "Show"], "/slug").await, "show");
    let key = field(&["publish", "Show"], "/ingest/stream_key").await;
    assert!(key.as_str().is_some_and(|key| key.len() >= 16), "{key}");
    for list in ["nodes", "streams", "tickets"] {
        assert!(field(&[list], "/items").await.is_array());
    }
    assert_eq!(field(&["pause", "show"], "/state").await, "paused");
    assert_ne!(field(&["resume", "show"], "/state").await, "paused");
    assert!(field(&["url", "show"], "/page").await.is_string());
    assert_eq!(field(&["settings"], "/verbosity/value").await, 0);
    assert_eq!(field(&["settings", "verbosity"], "/changeable").await, true);
    assert_eq!(
        field(&["settings", "verbosity", "1"], "/verbosity/source").await,
        "saved"
    );
    assert!(field(&["open"], "/url").await.is_string());
    assert_eq!(says(&node, &["--json", "unpublish", "show"]).await, "");
}

/// Words that make `astral` complete `typed`, as the script of `completions bash` has it.
async fn completed(node: &Node, typed: &[&str]) -> String {
    let mut command = Command::new(places::astral());
    clean(&mut command);
    command
        .env("ASTRAL_NODE_DATA_DIR", node.data_dir())
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", (typed.len() - 1).to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "true")
        .arg("--")
        .args(typed)
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = running.await.expect("no panic").expect("astral starts");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tab_key_knows_commands_slugs_and_settings() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    node.api.publish("My Show").await;
    assert!(
        completed(&node, &["astral", "unp"])
            .await
            .contains("unpublish")
    );
    assert!(
        completed(&node, &["astral", "watch", "my"])
            .await
            .contains("my-show")
    );
    let settings = completed(&node, &["astral", "settings", "up"]).await;
    assert_eq!(settings.trim(), "upstream_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_the_node_and_gives_the_terminal_back() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    node.api.publish("My Show").await;
    for end in ["q", "\x03", "SIGTERM"] {
        let mut terminal = Terminal::new(100, 30);
        let mut command = command(&node.data_dir(), &["top"]);
        terminal.attach(&mut command);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let mut top = Guarded::start(&mut command);
        until("the stream on the screen", s(15), async || {
            let shown = terminal.shown();
            let all = ["my-show", &node.id().to_string(), "upload", "\x1b[1m"];
            check(all.iter().all(|wanted| shown.contains(wanted)), shown)
        })
        .await;
        match end {
            "SIGTERM" => assert_eq!(top.signal(Signal::TERM).await, Some(0)),
            keys => {
                terminal.press(keys);
                assert_eq!(top.ended().await, Some(0), "{keys:?}");
            }
        }
        terminal.assert_given_back();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn units_please_systemd_and_are_written_and_removed() {
    let _turn = turn::shared().await;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    for scope in [&[][..], &["--system"]] {
        let words = [
            &["service", "install", "--print"],
            scope,
            &["--", "--name", "50% $me"],
        ]
        .concat();
        let output = astral(&data, &words).await;
        assert!(output.status.success(), "{output:?}");
        let unit = folder.path().join("astral-node.service");
        std::fs::write(&unit, &output.stdout).expect("a unit");
        let verified = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&unit)
            .output();
        let verified = verified.expect("systemd-analyze; `bash tests/setup.sh` installs it");
        assert!(verified.status.success(), "{verified:?}");
        assert_eq!(String::from_utf8_lossy(&verified.stderr), "", "{scope:?}");
        assert_eq!(String::from_utf8_lossy(&verified.stdout), "", "{scope:?}");
    }
    let installed = astral(&data, &["service", "install", "--no-start"]).await;
    let said = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(
        installed.status.success() && said.contains("systemctl --user"),
        "{installed:?}"
    );
    let unit = folder
        .path()
        .join(".config/systemd/user/astral-node.service");
    assert!(unit.is_file(), "{said}");
    if Path::new("/run/systemd/system").exists() {
        // A service manager that is not this test's to play with.
        return;
    }
    let output = astral(&data, &["service", "install"]).await;
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("systemd does not run this machine"),
        "{words}"
    );
    assert!(
        words.contains("systemctl --user enable --now astral-node.service"),
        "{words}"
    );
    assert!(
        astral(&data, &["service", "uninstall"])
            .await
            .status
            .success()
    );
    assert!(!unit.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_lines_until_ctrl_c() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    let terminal = Terminal::new(100, 30);
    let mut command = command(&node.data_dir(), &["--json", "events"]);
    terminal.attach(&mut command);
    let mut events = Guarded::start(&mut command);
    until("the snapshot", s(15), async || {
        let shown = terminal.shown();
        check(shown.contains(&node.id().to_string()), shown)
    })
    .await;
    node.api.publish("My Show").await;
    until("the new stream", s(15), async || {
        let shown = terminal.shown();
        let is_new = |line: &str| line.contains("\"kind\":\"stream\"") && line.contains("my-show");
        check(shown.lines().any(is_new), shown)
    })
    .await;
    assert_eq!(events.interrupt().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_is_reported_as_not_reachable() {
    let _turn = turn::shared().await;
    let mut node = Launch::new("node").start().await;
    node.kill();
    let output = astral(&node.data_dir(), &["status"]).await;
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
