use std::process::Command;

use super::*;

/// Names the option whose value the child process below is to print.
const KEY: &str = "TEST_CONFIG_KEY";
/// The arguments of that child, one a line.
const ARGUMENTS: &str = "TEST_CONFIG_ARGUMENTS";

/// One option: its key, and a value for each layer, as the layer writes it.
struct Case {
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    file: &'static str,
    /// How the file's, environment's and flag's values show in [`value`].
    shown: [&'static str; 3],
}

const CASES: &[Case] = &[
    Case {
        key: "uuid",
        flag: "33333333-0000-8000-8000-000000000000",
        env: "22222222-0000-8000-8000-000000000000",
        file: "'11111111-0000-8000-8000-000000000000'",
        shown: ["Some(11111111)", "Some(22222222)", "Some(33333333)"],
    },
    Case {
        key: "upstream-limit",
        flag: "3mbit",
        env: "2mbit",
        file: "1000000",
        shown: ["Bps(1000000)", "Bps(2000000)", "Bps(3000000)"],
    },
    Case {
        key: "http",
        flag: "127.0.0.1:3",
        env: "127.0.0.1:2",
        file: "'127.0.0.1:1'",
        shown: ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
    },
    Case {
        key: "quic",
        flag: "[::]:3",
        env: "[::]:2",
        file: "'[::]:1'",
        shown: ["Some([::]:1)", "Some([::]:2)", "Some([::]:3)"],
    },
    Case {
        key: "rtmp",
        flag: "127.0.0.1:3",
        env: "off",
        file: "'127.0.0.1:1'",
        shown: [
            "Some(127.0.0.1:1) true",
            "None true",
            "Some(127.0.0.1:3) true",
        ],
    },
    Case {
        key: "peer",
        flag: "c:3",
        env: "b:2 b:22",
        file: "['a:1', 'a:11']",
        shown: ["a:1 a:11", "b:2 b:22", "c:3"],
    },
    Case {
        key: "web",
        flag: "http://c:3/",
        env: "http://b http://b:2/x",
        file: "['http://a']",
        shown: ["http://a", "http://b http://b:2/x", "http://c:3"],
    },
    Case {
        key: "supernode",
        flag: "always",
        env: "auto",
        file: "'never'",
        shown: ["Never", "Auto", "Always"],
    },
    Case {
        key: "accept-seeds",
        flag: "always",
        env: "auto",
        file: "'never'",
        shown: ["Never", "Auto", "Always"],
    },
    Case {
        key: "advertise",
        flag: "c:3",
        env: "b:2 b:22",
        file: "['a:1']",
        shown: ["a:1", "b:2 b:22", "c:3"],
    },
    Case {
        key: "allow-origin",
        flag: "https://c",
        env: "https://b http://b:2",
        file: "['https://A']",
        shown: ["https://a", "https://b http://b:2", "https://c"],
    },
    Case {
        key: "public-http",
        flag: "https://c/",
        env: "https://b",
        file: "'https://a/x'",
        shown: [
            "Some(\"https://a/x\")",
            "Some(\"https://b\")",
            "Some(\"https://c\")",
        ],
    },
    Case {
        key: "data-dir",
        flag: "/c",
        env: "/b",
        file: "'/a'",
        shown: ["\"/a\"", "\"/b\"", "\"/c\""],
    },
    Case {
        key: "ready-file",
        flag: "/c",
        env: "/b",
        file: "'/a'",
        shown: ["Some(\"/a\")", "Some(\"/b\")", "Some(\"/c\")"],
    },
    Case {
        key: "name",
        flag: "three",
        env: "two",
        file: "'one'",
        shown: ["Some(\"one\")", "Some(\"two\")", "Some(\"three\")"],
    },
    Case {
        key: "congestion",
        flag: "tolerant",
        env: "cubic",
        file: "'bbr'",
        shown: ["Bbr", "Cubic", "Tolerant"],
    },
    Case {
        key: "require-token",
        flag: "true",
        env: "no",
        file: "true",
        shown: ["true", "false", "true"],
    },
    Case {
        key: "web-ca",
        flag: "/c",
        env: "/b",
        file: "'/a'",
        shown: ["Some(\"/a\")", "Some(\"/b\")", "Some(\"/c\")"],
    },
    Case {
        key: "daemonize",
        flag: "true",
        env: "no",
        file: "true",
        shown: ["true", "false", "true"],
    },
    Case {
        key: "log-format",
        flag: "json",
        env: "text",
        file: "'json'",
        shown: ["Json", "Text", "Json"],
    },
    Case {
        key: "verbose",
        flag: "",
        env: "2",
        file: "1",
        shown: ["1", "2", "1"],
    },
    Case {
        key: "quiet",
        flag: "true",
        env: "false",
        file: "true",
        shown: ["-1", "0", "-1"],
    },
];

fn value(config: &Config, key: &str) -> String {
    match key {
        "uuid" => format!("{:?}", config.uuid),
        "upstream-limit" => format!("{:?}", config.upstream_limit),
        "http" => config.http.to_string(),
        "quic" => format!("{:?}", config.quic),
        "rtmp" => format!("{:?} {}", config.rtmp, config.rtmp_required),
        "peer" => {
            let peers: Vec<_> = config.peers.iter().map(ToString::to_string).collect();
            peers.join(" ")
        }
        "web" => config.web.join(" "),
        "web-ca" => format!("{:?}", config.web_ca),
        "daemonize" => config.daemonize.to_string(),
        "supernode" => format!("{:?}", config.supernode),
        "accept-seeds" => format!("{:?}", config.accept_seeds),
        "advertise" => config.advertise.join(" "),
        "allow-origin" => config.allow_origin.join(" "),
        "public-http" => format!("{:?}", config.public_http),
        "data-dir" => format!("{:?}", config.data_dir),
        "ready-file" => format!("{:?}", config.ready_file),
        "name" => format!("{:?}", config.name),
        "congestion" => format!("{:?}", config.congestion),
        "require-token" => config.require_token.to_string(),
        "log-format" => format!("{:?}", config.log_format),
        "verbose" | "quiet" => config.verbosity.to_string(),
        other => panic!("no case shows `{other}`"),
    }
}

/// The key of an option in the API.
fn api_key(key: &str) -> String {
    match key {
        "verbose" | "quiet" => "verbosity".to_owned(),
        key => key.replace('-', "_"),
    }
}

fn config(arguments: &[String]) -> anyhow::Result<Config> {
    let program = ["astral-node".to_owned()];
    let matches = Args::command().try_get_matches_from(program.iter().chain(arguments))?;
    Config::from_matches(&matches)
}

fn settings(text: &str) -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    let arguments = vec!["--settings".to_owned(), path.display().to_string()];
    (dir, arguments)
}

/// What `case` comes to in a process with its environment variable set. A process may
/// not change its own environment while other threads run.
fn in_environment(case: &Case, arguments: &[String]) -> String {
    let variable = format!("ASTRAL_NODE_{}", case.key.to_uppercase().replace('-', "_"));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::tests::child_prints_one_option"])
        .args(["--ignored", "--nocapture"])
        .env(variable, case.env)
        .env(KEY, case.key)
        .env(ARGUMENTS, arguments.join("\n"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text
        .split_once("shown<")
        .unwrap_or_else(|| panic!("{}: {text}", case.key));
    rest.split_once('>').unwrap().0.to_owned()
}

#[test]
#[ignore = "the other half of every_key_obeys_flag_then_environment_then_file_and_tells_which_it_was"]
fn child_prints_one_option() {
    let (Ok(key), Ok(arguments)) = (std::env::var(KEY), std::env::var(ARGUMENTS)) else {
        return;
    };
    let arguments: Vec<String> = arguments.lines().map(str::to_owned).collect();
    let config = config(&arguments).unwrap();
    let source = config.source(&api_key(&key));
    println!("shown<{} {source:?}>", value(&config, &key));
}

#[test]
fn every_key_obeys_flag_then_environment_then_file_and_tells_which_it_was() {
    for case in CASES {
        let (_dir, mut arguments) = settings(&format!("{} = {}", case.key, case.file));
        let [file, env, flag] = case.shown;
        let told = config(&arguments).unwrap();
        let shown = (value(&told, case.key), told.source(&api_key(case.key)));
        assert_eq!(shown, (file.to_owned(), Source::File), "{}", case.key);
        let default = config(&[]).unwrap();
        assert_ne!(
            value(&default, case.key),
            file,
            "the default of {} hides the file",
            case.key
        );
        assert_eq!(default.source(&api_key(case.key)), Source::Default);
        let shown = in_environment(case, &arguments);
        assert_eq!(shown, format!("{env} Environment"), "{}", case.key);
        arguments.push(match case.flag {
            "" => format!("--{}", case.key),
            value => format!("--{}={value}", case.key),
        });
        let shown = in_environment(case, &arguments);
        assert_eq!(shown, format!("{flag} Flag"), "{} everywhere", case.key);
    }
}

#[test]
fn every_flag_has_a_case_an_environment_variable_and_help() {
    let command = Args::command();
    for arg in command.get_arguments() {
        let key = arg.get_long().unwrap();
        if key == "settings" {
            continue;
        }
        assert!(CASES.iter().any(|case| case.key == key), "no case: {key}");
        assert!(live::keys().any(|known| known == api_key(key)), "{key}");
        let variable = format!("ASTRAL_NODE_{}", key.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().unwrap(), variable.as_str());
        assert!(arg.get_help().is_some(), "no help: {key}");
    }
    command.debug_assert();
}

#[test]
fn unknown_key_or_wrong_value_in_the_file_says_where() {
    for (text, expected) in [
        ("upstreamlimit = 1", "unknown field `upstreamlimit`"),
        ("upstream-limit = 1\nupstream_limit = 2", "duplicate field"),
        ("\n\nsupernod = 'auto'", "line 3"),
        ("supernode = 'maybe'", "unknown variant `maybe`"),
        ("settings = 'x'", "unknown field `settings`"),
        ("\nhttp = 'here'", "line 2"),
        ("peer = ['nowhere']", "`nowhere` is not host:port"),
        ("rtmp = 'on'", "neither IP:port nor off"),
        ("upstream-limit = -1", "is not a rate"),
        ("allow-origin = ['https://a/b']", "not a web origin"),
    ] {
        let (_dir, arguments) = settings(text);
        let error = format!("{:#}", config(&arguments).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("node.toml"), "{error}");
    }
}

#[test]
fn keys_of_the_file_may_be_spelt_as_the_api_spells_them() {
    for case in CASES {
        let key = case.key.replace('-', "_");
        let (_dir, arguments) = settings(&format!("{key} = {}", case.file));
        let told = config(&arguments).unwrap();
        assert_eq!(value(&told, case.key), case.shown[0], "{key}");
        assert_eq!(told.source(&api_key(case.key)), Source::File, "{key}");
    }
}

#[test]
fn missing_settings_file_is_an_error() {
    let error = config(&["--settings=/nowhere/node.toml".to_owned()]).unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/node.toml"));
}

#[test]
fn switches_need_no_value_and_verbosity_counts() {
    let parse = |text: &str| {
        let arguments: Vec<_> = text.split(' ').map(str::to_owned).collect();
        config(&arguments).unwrap()
    };
    assert!(parse("--data-dir /d --require-token -v").require_token);
    assert_eq!(parse("--data-dir /d -vvv").verbosity, 2);
    assert_eq!(parse("--data-dir /d -q --name x").verbosity, -1);
    let (_dir, mut arguments) = settings("quiet = true\ndata-dir = '/d'");
    arguments.push("-v".to_owned());
    assert_eq!(config(&arguments).unwrap().verbosity, 1);
}

#[test]
fn default_rtmp_address_may_be_taken_and_a_given_one_may_not() {
    let parse = |text: &str| config(&["--data-dir=/d".to_owned(), text.to_owned()]).unwrap();
    let default = parse("--name=x");
    assert_eq!(default.rtmp, Some("127.0.0.1:1935".parse().unwrap()));
    assert!(!default.rtmp_required);
    assert!(parse("--rtmp=127.0.0.1:1935").rtmp_required);
    assert_eq!(parse("--rtmp=off").rtmp, None);
}

#[test]
fn share_link_with_several_addresses_is_one_peer() {
    let link = "astral:8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f@a:1,b:2";
    let peers = config(&["--data-dir=/d".to_owned(), format!("--peer={link}")])
        .unwrap()
        .peers;
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].to_string(), link);
}

#[test]
fn data_folder_follows_xdg_and_ignores_what_is_empty_or_relative() {
    let dir = |xdg: Option<&str>, home: Option<&str>| {
        let (xdg, home) = (xdg.map(OsString::from), home.map(OsString::from));
        default_data_dir(move |name| match name {
            "XDG_STATE_HOME" => xdg.clone(),
            _ => home.clone(),
        })
    };
    assert_eq!(dir(Some("/s"), Some("/h")).unwrap(), Path::new("/s/astral"));
    let home = Path::new("/h/.local/state/astral");
    assert_eq!(dir(None, Some("/h")).unwrap(), home);
    assert_eq!(dir(Some(""), Some("/h")).unwrap(), home);
    assert_eq!(dir(Some("s"), Some("/h")).unwrap(), home);
    assert!(dir(None, None).is_err());
}

#[test]
fn an_origin_is_scheme_host_and_port_and_nothing_else() {
    for fine in [
        "https://a",
        "HTTP://A.example:80",
        "http://[::1]:8080",
        "http://[::1]",
    ] {
        assert!(fine.parse::<Origin>().is_ok(), "{fine}");
    }
    for wrong in [
        "a",
        "null",
        "https://",
        "https://:1",
        "https://a:",
        "https://a:65536",
        "https://a:2*",
        "https://a:+1",
        "https://a/",
        "https://a b",
        "https://u@a",
        "https://[x]",
        "https://::1",
    ] {
        assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
    }
}

#[test]
fn origins_of_the_astral_webs_are_allowed_too() {
    let arguments = "--data-dir=/d --web=http://Live.example:8443/astral/ --web=http://[::1]:8080 \
                     --allow-origin=https://a";
    let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
    let origins = config(&arguments).unwrap().origins();
    let expected = ["https://a", "http://live.example:8443", "http://[::1]:8080"];
    assert_eq!(origins, expected);
}

#[test]
fn configuration_for_tests_takes_no_fixed_port() {
    let config = Config::default_in("/d");
    assert_eq!(config.http.port(), 0);
    assert_eq!(config.quic.unwrap().port(), 0);
    assert_eq!(config.rtmp.unwrap().port(), 0);
    assert_eq!(config.data_dir, Path::new("/d"));
}

#[test]
fn pages_of_astral_web_may_play_from_the_node_by_http_and_https() {
    let arguments = [
        "--web=http://Live.Example:90/path/",
        "--web=https://live.example",
    ];
    let config = config(&arguments.map(str::to_owned)).unwrap();
    let expected = ["http://live.example:90", "https://live.example"];
    assert_eq!(config.origins(), expected);
    for wrong in [
        "live.example",
        "ftp://live.example",
        "https://a@b",
        "https://a?b",
    ] {
        assert!(wrong.parse::<WebUrl>().is_err(), "{wrong}");
    }
}
