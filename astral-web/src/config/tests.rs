use std::process::Command as Process;

use clap::CommandFactory as _;

use super::*;

/// Names the option whose value the child process below is to print.
const KEY: &str = "TEST_CONFIG_KEY";
/// The arguments of that child, one a line.
const ARGUMENTS: &str = "TEST_CONFIG_ARGUMENTS";

/// One option: its key, a value for each layer as the layer writes it, and how the
/// file's, environment's and flag's values show.
struct Case {
    key: &'static str,
    file: &'static str,
    env: &'static str,
    flag: &'static str,
    shown: [&'static str; 3],
}

const CASES: &[Case] = &[
    Case {
        key: "listen",
        file: "'127.0.0.1:1'",
        env: "[::1]:2",
        flag: "0.0.0.0:3",
        shown: ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3"],
    },
    Case {
        key: "directory",
        file: "'redb:/a'",
        env: "redb:/b",
        flag: "redb:/c:c",
        shown: ["/a", "/b", "/c:c"],
    },
    Case {
        key: "tls-cert",
        file: "'/a'",
        env: "/b",
        flag: "/c",
        shown: ["/a", "/b", "/c"],
    },
    Case {
        key: "tls-key",
        file: "'/a'",
        env: "/b",
        flag: "/c",
        shown: ["/a", "/b", "/c"],
    },
    Case {
        key: "trusted-proxy",
        file: "['10.0.0.0/8', '::1']",
        env: "127.0.0.1 fd00::/8",
        flag: "192.0.2.0/24",
        shown: [
            "10.0.0.0/8 ::1/128",
            "127.0.0.1/32 fd00::/8",
            "192.0.2.0/24",
        ],
    },
    Case {
        key: "ready-file",
        file: "'/a'",
        env: "/b",
        flag: "/c",
        shown: ["/a", "/b", "/c"],
    },
    Case {
        key: "log-format",
        file: "'json'",
        env: "text",
        flag: "json",
        shown: ["Json", "Text", "Json"],
    },
    Case {
        key: "verbose",
        file: "1",
        env: "2",
        flag: "",
        shown: ["1", "2", "1"],
    },
    Case {
        key: "quiet",
        file: "true",
        env: "false",
        flag: "true",
        shown: ["-1", "0", "-1"],
    },
];

fn value(config: &Config, key: &str) -> String {
    let path = |path: Option<&PathBuf>| path.map_or("none".to_owned(), |p| p.display().to_string());
    match key {
        "listen" => config.listen.to_string(),
        "directory" => config.directory.display().to_string(),
        "tls-cert" => path(config.tls.as_ref().map(|tls| &tls.cert)),
        "tls-key" => path(config.tls.as_ref().map(|tls| &tls.key)),
        "trusted-proxy" => {
            let all: Vec<_> = config
                .trusted_proxies
                .iter()
                .map(ToString::to_string)
                .collect();
            all.join(" ")
        }
        "ready-file" => path(config.ready_file.as_ref()),
        "log-format" => format!("{:?}", config.log_format),
        "verbose" | "quiet" => config.verbosity.to_string(),
        other => panic!("no case shows `{other}`"),
    }
}

fn config(arguments: &[String]) -> anyhow::Result<Config> {
    let program = ["astral-web".to_owned()];
    match Args::try_parse_from(program.iter().chain(arguments))?.into_task()? {
        Task::Serve(config) => Ok(config),
        Task::DevCerts(certs) => bail!("{certs:?}"),
    }
}

/// The other half of TLS, which is only ever given whole.
fn besides(key: &str) -> &'static str {
    match key {
        "tls-cert" => "tls-key = '/other'\n",
        "tls-key" => "tls-cert = '/other'\n",
        _ => "",
    }
}

fn settings(text: &str) -> (tempfile::TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.toml");
    std::fs::write(&path, text).unwrap();
    let arguments = vec!["--settings".to_owned(), path.display().to_string()];
    (dir, arguments)
}

/// What `case` comes to in a process with its environment variable set. A process may
/// not change its own environment while other threads run.
fn in_environment(case: &Case, arguments: &[String]) -> String {
    let variable = format!("ASTRAL_WEB_{}", case.key.to_uppercase().replace('-', "_"));
    let output = Process::new(std::env::current_exe().unwrap())
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
#[ignore = "the other half of every_key_obeys_flag_then_environment_then_file"]
fn child_prints_one_option() {
    let (Ok(key), Ok(arguments)) = (std::env::var(KEY), std::env::var(ARGUMENTS)) else {
        return;
    };
    let arguments: Vec<String> = arguments.lines().map(str::to_owned).collect();
    println!("shown<{}>", value(&config(&arguments).unwrap(), &key));
}

#[test]
fn every_key_obeys_flag_then_environment_then_file() {
    for case in CASES {
        let text = format!("{}{} = {}", besides(case.key), case.key, case.file);
        let (_dir, mut arguments) = settings(&text);
        let [file, env, flag] = case.shown;
        assert_eq!(value(&config(&arguments).unwrap(), case.key), file);
        let default = value(&config(&[]).unwrap(), case.key);
        assert_ne!(default, file, "the default of {} hides the file", case.key);
        assert_eq!(in_environment(case, &arguments), env, "{}", case.key);
        arguments.push(match case.flag {
            "" => format!("--{}", case.key),
            value => format!("--{}={value}", case.key),
        });
        let shown = in_environment(case, &arguments);
        assert_eq!(shown, flag, "{} everywhere", case.key);
    }
}

#[test]
fn every_flag_has_a_case_an_environment_variable_and_help() {
    let command = Args::command();
    for arg in command.get_arguments() {
        let key = arg.get_long().unwrap();
        assert!(arg.get_help().is_some(), "no help: {key}");
        let variable = format!("ASTRAL_WEB_{}", key.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().unwrap(), variable.as_str());
        let known = key == "settings" || CASES.iter().any(|case| case.key == key);
        assert!(known, "no case: {key}");
    }
    command.debug_assert();
}

#[test]
fn unknown_key_or_wrong_value_in_the_file_says_where() {
    for (text, expected) in [
        ("listen_at = 1", "unknown field `listen_at`"),
        ("\n\nlisten = 'here'", "line 3"),
        ("settings = 'x'", "unknown field `settings`"),
        ("directory = 'nats://a:4222'", "not built yet"),
        ("directory = 'sqlite:x'", "`sqlite:x` is not redb:PATH"),
        ("directory = 'redb:'", "is not redb:PATH"),
        ("trusted-proxy = ['here']", "`here` is not a network"),
        ("log-format = 'xml'", "unknown variant `xml`"),
    ] {
        let (_dir, arguments) = settings(text);
        let error = format!("{:#}", config(&arguments).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("web.toml"), "{error}");
    }
    let error = config(&["--settings=/nowhere/web.toml".to_owned()]).unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/web.toml"));
}

#[test]
fn half_a_certificate_is_refused_with_the_name_of_the_other_half() {
    for (given, wanted) in [
        ("--tls-cert=/a", "--tls-key"),
        ("--tls-key=/a", "--tls-cert"),
    ] {
        let error = config(&[given.to_owned()]).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn certificates_are_a_task_of_their_own() {
    let parse = |text: &str| Args::try_parse_from(text.split(' ')).map(Args::into_task);
    let Ok(Ok(Task::DevCerts(certs))) = parse("astral-web dev-certs live.example 192.0.2.1") else {
        panic!("not understood");
    };
    assert_eq!(certs.out, Path::new("certs"));
    assert_eq!(certs.hosts, ["live.example", "192.0.2.1"]);
    assert!(parse("astral-web --listen 127.0.0.1:1 dev-certs").is_err());
}
