//! Headless Chromium, driven over the DevTools protocol without any middleman.
//!
//! <https://chromedevtools.github.io/devtools-protocol/>: JSON over one WebSocket, each
//! command with a number that its answer repeats. Events are kept as far as a test may
//! want to show them: what the page logged and threw.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::places;
use crate::process::tail;
use crate::wait::{s, until};

/// Longest that one command may take, screenshots under load included.
const COMMAND_WITHIN: Duration = s(30);
/// Longest start of the browser.
const START_WITHIN: Duration = s(60);
/// For a browser without a person, a screen or a sandbox's privileges.
const FLAGS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--window-size=1280,1000",
];

/// A browser with one page.
pub struct Browser {
    child: Child,
    folder: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    last_id: u64,
    /// What the page logged as an error or threw.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts Chromium with an empty profile and an empty page.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = fs::File::create(folder.path().join("chromium.log")).expect("a log file");
        let profile = folder.path().join("profile");
        let mut command = Command::new(places::chromium());
        command.args(FLAGS).args(flags);
        command.arg("--remote-debugging-port=0");
        command
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank");
        // A group of its own, so that its many processes can be ended together.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        let mut child = Ended(Some(command.spawn().expect("Chromium starts")));
        let port_file = profile.join("DevToolsActivePort");
        let url = until("Chromium's debugging port", START_WITHIN, async || {
            debugger_url(&port_file).ok_or_else(|| tail(&folder.path().join("chromium.log")))
        })
        .await;
        let no_limits = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        let connected = connect_async_with_config(url, Some(no_limits), true).await;
        let (socket, _) = connected.expect("Chromium lets us in");
        let child = child.0.take().expect("a child");
        let (session, complaints) = (None, Vec::new());
        let mut browser = Self {
            child,
            folder,
            socket,
            session,
            last_id: 0,
            complaints,
        };
        browser.attach().await;
        browser
    }

    async fn attach(&mut self) {
        let page = self
            .command("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let attached = self.command("Target.attachToTarget", attach).await;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.command(domain, json!({})).await;
        }
    }

    /// Sends a command and gives its result; panics if it fails.
    pub async fn command(&mut self, method: &str, params: Value) -> Value {
        let done = self.try_command(method, params).await;
        done.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Sends a command that may fail, for instance since a frame has gone meanwhile.
    async fn try_command(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let answered = timeout(COMMAND_WITHIN, async {
            let text = Message::text(command.to_string());
            self.socket.send(text).await.expect("Chromium listens");
            loop {
                let message = self.message().await;
                if message["id"] == id {
                    return message;
                }
                self.event(&message);
            }
        });
        let mut answer = answered
            .await
            .unwrap_or_else(|_| panic!("{method}: no answer"));
        if answer["error"].is_null() {
            Ok(answer["result"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }

    async fn message(&mut self) -> Value {
        loop {
            let message = self
                .socket
                .next()
                .await
                .expect("Chromium runs")
                .expect("a message");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).expect("Chromium speaks JSON");
            }
        }
    }

    fn event(&mut self, message: &Value) {
        let params = &message["params"];
        let complaint = match message["method"].as_str().unwrap_or("") {
            "Runtime.exceptionThrown" => &params["exceptionDetails"],
            "Runtime.consoleAPICalled" if params["type"] == "error" => &params["args"],
            "Log.entryAdded" if params["entry"]["level"] == "error" => &params["entry"],
            "Page.javascriptDialogOpening" => params,
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }

    /// Goes to a page, and waits until it is loaded.
    pub async fn go(&mut self, url: &str) {
        let gone = self.command("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        until("the page", s(30), async || {
            let state: String = self.evaluate("document.readyState").await;
            if state == "complete" {
                Ok(())
            } else {
                Err(state)
            }
        })
        .await;
    }

    /// The value of an expression in the page; promises are waited for.
    pub async fn evaluate<T: DeserializeOwned>(&mut self, expression: &str) -> T {
        let how = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.command("Runtime.evaluate", how).await;
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        let value = result["result"]["value"].clone();
        serde_json::from_value(value)
            .unwrap_or_else(|error| panic!("{expression}: {error}: {result}"))
    }

    /// The value of an expression in the page's first frame, also of another origin, with
    /// a click's rights; an error while that loads.
    pub async fn inside(&mut self, expression: &str) -> Result<Value, String> {
        let tree = self.try_command("Page.getFrameTree", json!({})).await?;
        let frame = &tree["frameTree"]["childFrames"][0]["frame"]["id"];
        let world = json!({"frameId": frame});
        let world = self.try_command("Page.createIsolatedWorld", world).await?;
        let how = json!({
            "expression": expression,
            "contextId": world["executionContextId"],
            "userGesture": true,
        });
        let result = self.try_command("Runtime.evaluate", how).await?;
        let thrown = &result["exceptionDetails"];
        if thrown.is_null() {
            Ok(result["result"]["value"].clone())
        } else {
            Err(thrown.to_string())
        }
    }

    /// Clicks on an element as a person does: what needs a click is allowed.
    pub async fn click(&mut self, selector: &str) {
        let expression = format!("document.querySelector({}).click()", json!(selector));
        let how = json!({"expression": expression, "userGesture": true});
        let result = self.command("Runtime.evaluate", how).await;
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{selector}: {thrown}");
    }

    /// Presses a key, such as `Tab`.
    pub async fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 0 };
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.command("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Makes the page as wide and as high as this, in the dark or light theme.
    pub async fn looks(&mut self, width: u32, height: u32, theme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1,
                          "mobile": width < 600});
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.command("Emulation.setEmulatedMedia", scheme).await;
    }

    /// Writes a picture of the whole page, also of what has to be scrolled to.
    pub async fn whole_screenshot(&mut self, to: &Path) {
        let how = json!({"format": "png", "captureBeyondViewport": true});
        let shot = self.command("Page.captureScreenshot", how).await;
        let base64 = shot["data"].as_str().expect("a picture");
        fs::write(to, from_base64(base64)).expect("room for a picture");
        println!("screenshot: {}", to.display());
    }

    /// Writes a picture of the page.
    pub async fn screenshot(&mut self, to: &Path) {
        let shot = self
            .command("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let base64 = shot["data"].as_str().expect("a picture");
        fs::write(to, from_base64(base64)).expect("room for a picture");
        println!("screenshot: {}", to.display());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!("── page ──\n{}", self.complaints.join("\n"));
            eprintln!(
                "── chromium ──\n{}",
                tail(&self.folder.path().join("chromium.log"))
            );
        }
    }
}

/// A child that is ended with what started it.
struct Ended(Option<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    let group = Pid::from_raw(child.id() as i32).expect("a process id");
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

fn debugger_url(port_file: &Path) -> Option<String> {
    let text = fs::read_to_string(port_file).ok()?;
    let (port, path) = text.split_once('\n')?;
    let path = path.trim();
    (!path.is_empty()).then(|| format!("ws://127.0.0.1:{port}{path}"))
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let values: Vec<u8> = text.bytes().filter_map(value).collect();
    let groups = values.chunks(4).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0_u32, |bits, value| bits << 6 | u32::from(*value));
        let bits = bits << (6 * (4 - group.len()));
        let bytes = bits.to_be_bytes();
        bytes[1..group.len()].to_vec()
    });
    groups.collect()
}
