//! Computers of their own: network namespaces on one bridge, with firewalls, made by
//! root of Linux only. Everything in one is reached by programs that run there.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::places;
use crate::process::{program, tail};
use crate::wait::{check, s, until};

/// Input rules of a firewall that lets in only what was asked for from inside.
const WALL: &str = "table inet wall { chain in { type filter hook input priority 0; policy drop; \
                    ct state established,related accept; iifname lo accept; }; }";
/// Port of every node.
pub const PORT: u16 = 8000;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Whether this user may make namespaces; a test that needs them says so and ends.
pub fn allowed() -> bool {
    let possible = possible();
    if let Err(reason) = &possible {
        eprintln!("skipped: {reason}");
    }
    possible.is_ok()
}

/// Whether namespaces with firewalls can be made here.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<(), String> {
    if !rustix::process::getuid().is_root() {
        return Err("namespaces are made by root only".into());
    }
    let probe = format!("astral-{}-probe", std::process::id());
    attempt(&["ip", "netns", "add", &probe])?;
    let rules = attempt(&["ip", "netns", "exec", &probe, "nft", "list", "ruleset"]);
    attempt(&["ip", "netns", "del", &probe])?;
    rules
}

/// What becomes of packets on a computer's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes.
    Cut,
    /// Nothing that it sends arrives; what others send it does.
    Mute,
    /// So many of a thousand are lost, each way.
    Loss(u16),
}

impl Fault {
    /// Rules for the bridge's port, by the direction in which packets pass it. ARP passes:
    /// else the neighbours would take more time to find each other again than the link to heal.
    fn rules(self, port: &str) -> String {
        let ways: &[&str] = match self {
            Self::Mute => &["iifname"],
            Self::Cut | Self::Loss(_) => &["iifname", "oifname"],
        };
        let dice = match self {
            Self::Loss(permille) => format!("numgen random mod 1000 < {permille}"),
            Self::Cut | Self::Mute => String::new(),
        };
        let rule = |way: &&str| format!("{way} {port} ether type ip {dice} drop; ");
        let rules: String = ways.iter().map(rule).collect();
        format!(
            "table bridge {port} {{ chain f {{ type filter hook forward priority 0; {rules}}}; }}"
        )
    }
}

/// A network: one bridge, 203.0.113.0/24.
pub struct Net {
    name: String,
    hosts: Vec<String>,
}

impl Net {
    /// An empty one.
    pub fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("astral-{}-{count}", std::process::id());
        let net = Self {
            name: name.clone(),
            hosts: Vec::new(),
        };
        run(&["ip", "netns", "add", &name]);
        run(&[
            "ip",
            "-n",
            &name,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "forward_delay",
            "0",
        ]);
        run(&["ip", "-n", &name, "link", "set", "br0", "up"]);
        net
    }

    /// A computer at 203.0.113.`number`, behind a firewall or not.
    pub fn host(&mut self, number: u8, walled: bool) -> String {
        let host = format!("{}-{number}", self.name);
        let port = format!("p{number}");
        run(&["ip", "netns", "add", &host]);
        self.hosts.push(host.clone());
        run(&[
            "ip", "-n", &self.name, "link", "add", &port, "type", "veth", "peer", "name", "eth0",
            "netns", &host,
        ]);
        run(&[
            "ip", "-n", &self.name, "link", "set", &port, "master", "br0", "up",
        ]);
        run(&["ip", "-n", &host, "link", "set", "lo", "up"]);
        // A batch is cut into packets before it is sent: it would be lost as a whole.
        run(&[
            "ip",
            "-n",
            &host,
            "link",
            "set",
            "eth0",
            "gso_max_segs",
            "1",
            "up",
        ]);
        move_to(&host, number);
        if walled {
            run(&["ip", "netns", "exec", &host, "nft", WALL]);
        }
        host
    }

    /// Spoils the link of computer `number` until [`Self::heal`]. It is done at the bridge:
    /// a firewall of its own would tell the sender.
    pub fn spoil(&self, number: u8, fault: Fault) {
        let rules = fault.rules(&format!("p{number}"));
        run(&["ip", "netns", "exec", &self.name, "nft", &rules]);
    }

    /// Lets everything pass again.
    pub fn heal(&self, number: u8) {
        let table = format!("p{number}");
        run(&[
            "ip", "netns", "exec", &self.name, "nft", "delete", "table", "bridge", &table,
        ]);
    }

    /// A computer at 10.9.0.2 behind a router at 203.0.113.`number`; gives both.
    pub fn behind_router(&mut self, number: u8) -> (String, String) {
        let router = self.host(number, false);
        let inner = format!("{router}-in");
        run(&["ip", "netns", "add", &inner]);
        self.hosts.push(inner.clone());
        run(&[
            "ip", "-n", &router, "link", "add", "lan", "type", "veth", "peer", "name", "eth0",
            "netns", &inner,
        ]);
        for (host, link, address) in [
            (&router, "lan", "10.9.0.1/24"),
            (&inner, "eth0", "10.9.0.2/24"),
        ] {
            run(&["ip", "-n", host, "addr", "add", address, "dev", link]);
            run(&["ip", "-n", host, "link", "set", link, "up"]);
        }
        run(&["ip", "-n", &inner, "link", "set", "lo", "up"]);
        run(&[
            "ip", "-n", &inner, "route", "add", "default", "via", "10.9.0.1",
        ]);
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let forward = ["ip", "netns", "exec", &router, "sh", "-c", forward];
        run(&forward);
        run(&["ip", "netns", "exec", &router, "nft", ROUTER]);
        (router, inner)
    }
}

/// Rules of a router that translates addresses, and forwards one port to the computer
/// behind it.
const ROUTER: &str = "table ip nat { \
                      chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }; \
                      chain pre { type nat hook prerouting priority dstnat; \
                      iifname eth0 udp dport 9123 dnat to 10.9.0.2:8000; }; }";
/// The port that the router forwards.
pub const FORWARDED: u16 = 9123;

/// Moves a computer to 203.0.113.`number`.
pub fn move_to(host: &str, number: u8) {
    run(&["ip", "-n", host, "addr", "flush", "dev", "eth0"]);
    let address = format!("203.0.113.{number}/24");
    run(&["ip", "-n", host, "addr", "add", &address, "dev", "eth0"]);
    // The route goes with the last address.
    let route = [
        "ip", "-n", host, "route", "replace", "default", "dev", "eth0",
    ];
    run(&route);
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.name]) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs a program that must succeed.
pub fn run(words: &[&str]) {
    attempt(words).unwrap_or_else(|error| panic!("{error}"));
}

fn attempt(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    check(output.status.success(), format!("{words:?}: {said}"))
}

/// Connects from a computer to an address that it knows, such as its own 127.0.0.1.
///
/// # Errors
/// Nobody there.
pub async fn connect(host: &str, to: &str) -> io::Result<TcpStream> {
    let (host, to) = (host.to_owned(), to.to_owned());
    let (tell, told) = oneshot::channel();
    // A thread of its own: it never leaves the namespace.
    std::thread::spawn(move || {
        let socket = enter(&host).and_then(|()| std::net::TcpStream::connect(to));
        // Nobody waits for it any longer: it is closed.
        let _ = tell.send(socket);
    });
    let socket = told.await.expect("the thread tells")?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

/// Moves this thread to a computer.
fn enter(host: &str) -> io::Result<()> {
    let namespace = File::open(format!("/run/netns/{host}"))?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    Ok(rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        kind,
    )?)
}

/// A node on a computer of its own.
pub struct Node {
    host: String,
    child: Child,
    /// The node's folder; files of a test fit in, too.
    pub folder: TempDir,
    log: PathBuf,
    helpers: Vec<Child>,
}

impl Node {
    /// Starts it on `host`, and waits until it is ready.
    pub async fn start(host: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("node.log");
        let mut command = inside(host, &places::astral_node());
        command.arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--http", "127.0.0.1:8000", "--rtmp", "off"]);
        command.args(["--quic", "0.0.0.0:8000"]).args(options);
        let stderr = File::create(&log).expect("a log file");
        let child = command.stderr(stderr).spawn().expect("ip runs it");
        let node = Self {
            host: host.to_owned(),
            child,
            folder,
            log,
            helpers: Vec::new(),
        };
        until("the node is ready", s(60), async || {
            let answer = node.astral(&["--json", "status"]);
            check(
                answer.status.success(),
                String::from_utf8_lossy(&answer.stderr),
            )
        })
        .await;
        node
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = inside(&self.host, &places::astral());
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"));
        command.args(words);
        command
    }

    /// Calls `astral` for this node, and waits for its end.
    pub fn astral(&self, words: &[&str]) -> Output {
        let command = &mut self.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().expect("ip runs astral")
    }

    /// What `astral --json` says.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.astral(&[&["--json"], words].concat());
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Calls `astral` for this node, and lets it run until the node's end.
    pub fn astral_on(&mut self, words: &[&str]) {
        let log = File::options().append(true).open(&self.log);
        let command = &mut self.command(words);
        let log = log.expect("the log is there");
        let child = command.stderr(log).spawn().expect("ip runs astral");
        self.helpers.push(child);
    }

    /// Watches a stream into a file of the node's folder.
    pub fn record(&mut self, slug: &str) -> PathBuf {
        let file = self.folder.path().join("recording.mp4");
        let path = file.to_string_lossy().into_owned();
        self.astral_on(&["watch", slug, "--output", &path]);
        file
    }
}

fn inside(host: &str, path: &Path) -> Command {
    let mut command = program(path, Some(host));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.helpers.iter_mut().chain([&mut self.child]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("── {} ──\n{}", self.host, tail(&self.log));
        }
    }
}

/// Waits until a recording is longer by `bytes`.
pub async fn grows(what: &str, file: &Path, bytes: u64) {
    let length = || std::fs::metadata(file).map_or(0, |data| data.len());
    let before = length();
    until(what, s(60), async || {
        let now = length();
        check(now >= before + bytes, format!("{now} bytes after {before}"))
    })
    .await;
}

/// Answers NAT-PMP (RFC 6886) on a router: every mapping gets the port [`FORWARDED`] of
/// `external`. Runs in a thread for as long as the test does.
pub fn serve_nat_pmp(router: &str, external: [u8; 4]) {
    let router = router.to_owned();
    std::thread::spawn(move || {
        enter(&router).expect("root may enter it");
        let socket = UdpSocket::bind(("0.0.0.0", 5351)).expect("the port is free there");
        let mut packet = [0; 1100];
        loop {
            let (length, from) = socket.recv_from(&mut packet).expect("a socket that works");
            let answer = nat_pmp(&packet[..length], external);
            let _ = socket.send_to(&answer, from);
        }
    });
}

fn nat_pmp(request: &[u8], external: [u8; 4]) -> Vec<u8> {
    let operation = request.get(1).copied().unwrap_or_default() & 0x7f;
    let head = |result: u8| vec![0, 128 | operation, 0, result, 0, 0, 0, 9];
    match (request.first(), request.len()) {
        // "What is your address?"
        (Some(0), 2) => [head(0), external.to_vec()].concat(),
        // "Forward a port of yours to mine, for so long."
        (Some(0), 12) => {
            let port = FORWARDED.to_be_bytes();
            [
                head(0),
                request[4..6].to_vec(),
                port.to_vec(),
                request[8..12].to_vec(),
            ]
            .concat()
        }
        // PCP and whatever else: unsupported version.
        _ => head(1),
    }
}
