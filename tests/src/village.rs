//! A handful of machines on this one: network namespaces on a bridge, each with all
//! its ports free and a home of its own, and with names that only they know.
//!
//! The test that wants them runs a second time inside of namespaces for processes,
//! mounts and network: whatever it starts there ends with it, and nothing of it shows
//! outside.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::places;
use crate::process::clean;

/// Set for the run inside.
const INSIDE: &str = "ASTRAL_TESTS_INSIDE";
/// Ways to be allowed to make namespaces: as root, as a root of one's own, by sudo.
const WAYS: [&[&str]; 3] = [
    &["unshare"],
    &["unshare", "--user", "--map-root-user"],
    &["sudo", "--non-interactive", "unshare"],
];
/// What is made anew.
const NAMESPACES: [&str; 6] = [
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// Shows that a way is good: the rights that [`Village::new`] needs.
const PROBE: &str = "mount -t tmpfs none /run && ip netns add probe && ip link add br0 type bridge \
     && ip link add port0 type veth peer name eth0 netns probe";

/// Where the test is.
pub enum Place {
    /// Inside: go on.
    Inside,
    /// It has run inside, and all was well.
    Done,
    /// This machine lets us make no namespaces.
    Impossible,
}

/// Runs the test called `test` again inside of namespaces, unless it is there already.
pub fn enter(test: &str) -> Place {
    if env::var_os(INSIDE).is_some() {
        return Place::Inside;
    }
    let allowed = |way: &&&[&str]| {
        let mut probe = command(way);
        probe.args(["sh", "-c", PROBE]).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(way) = WAYS.iter().find(allowed) else {
        return Place::Impossible;
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let status = command(way)
        // sudo passes no environment on.
        .args(["env", &format!("{INSIDE}=1")])
        .arg(format!("PATH={}", path.to_string_lossy()))
        .arg(env::current_exe().expect("a test knows its own path"))
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("the way was tried before");
    assert!(
        status.success(),
        "inside of namespaces {test} fails: see above"
    );
    Place::Done
}

fn command(way: &[&str]) -> Command {
    let mut command = Command::new(way[0]);
    command
        .args(&way[1..])
        .args(NAMESPACES)
        .stdin(Stdio::null());
    command
}

/// The machines.
pub struct Village {
    folder: TempDir,
}

/// One of them.
#[derive(Clone)]
pub struct Machine {
    /// Its name, also of its namespace.
    pub name: String,
    /// Its user's home; commands begin there.
    pub home: PathBuf,
}

impl Village {
    /// Makes a network of machines; each is known to the others by its names.
    pub fn new(machines: &[(&str, &[&str])]) -> Self {
        let folder = tempfile::Builder::new().prefix("astral-village-").tempdir();
        let folder = folder.expect("a temporary folder");
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        sh("mount -t tmpfs none /run");
        sh("ip link set lo up");
        sh("ip link add br0 type bridge forward_delay 0 && ip link set br0 up");
        for (number, (name, known_as)) in machines.iter().enumerate() {
            let address = format!("10.77.0.{}", number + 1);
            let port = format!("port{number}");
            sh(&format!("ip netns add {name}"));
            sh(&format!(
                "ip link add {port} type veth peer name eth0 netns {name}"
            ));
            sh(&format!("ip link set {port} master br0 up"));
            sh(&format!("ip -n {name} addr add {address}/24 dev eth0"));
            sh(&format!(
                "ip -n {name} link set eth0 up && ip -n {name} link set lo up"
            ));
            for known_as in *known_as {
                hosts.push_str(&format!("{address} {known_as}\n"));
            }
            fs::create_dir(folder.path().join(name)).expect("a home");
        }
        let file = folder.path().join("hosts");
        fs::write(&file, hosts).expect("a list of names");
        sh(&format!("mount --bind {} /etc/hosts", file.display()));
        Self { folder }
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Machine {
        let home = self.folder.path().join(name);
        assert!(home.is_dir(), "there is no machine {name}");
        Machine {
            name: name.to_owned(),
            home,
        }
    }
}

impl Machine {
    /// A line for the machine's shell, where the programs of this build come first.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("ip");
        clean(&mut command);
        for hidden in [
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_RUNTIME_DIR",
            "DISPLAY",
            "WAYLAND_DISPLAY",
        ] {
            command.env_remove(hidden);
        }
        command
            .args([
                "netns",
                "exec",
                &self.name,
                "bash",
                "--noprofile",
                "--norc",
                "-c",
                line,
            ])
            .env("HOME", &self.home)
            .env("PATH", path_with_ours())
            .env("TERM", "xterm")
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }
}

fn path_with_ours() -> String {
    let programs = places::astral();
    let ours = programs.parent().unwrap_or(Path::new("/"));
    let theirs = env::var("PATH").unwrap_or_default();
    format!("{}:{theirs}", ours.display())
}

fn sh(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status();
    let status = status.expect("there is a shell");
    assert!(status.success(), "`{line}` ended with {status}");
}
