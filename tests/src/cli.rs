//! `astral`, as a person calls it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::places;
use crate::process::{Node, clean};
use crate::wait::{s, until};

/// `astral` for the node of this folder, where there is no desktop.
pub fn command(data_dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(places::astral());
    clean(&mut command);
    for desktop in [
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(desktop);
    }
    command.env(
        "HOME",
        data_dir.parent().expect("a folder of the test's own"),
    );
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(words)
        .stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub async fn astral(data_dir: &Path, words: &[&str]) -> Output {
    let mut command = command(data_dir, words);
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.expect("no panic").expect("astral starts")
}

/// What it prints when all goes well.
pub async fn says(node: &Node, words: &[&str]) -> String {
    let output = astral(&node.data_dir(), words).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "astral {words:?}: {}: {errors}",
        output.status
    );
    String::from_utf8(output.stdout).expect("text")
}

/// A child that does not outlive its test.
pub struct Guarded(Child);

impl Guarded {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("astral starts"))
    }

    /// Ctrl-C; gives the exit code.
    pub async fn interrupt(&mut self) -> Option<i32> {
        self.signal(Signal::INT).await
    }

    /// Sends a signal; gives the exit code.
    pub async fn signal(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(self.0.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("it runs");
        self.ended().await
    }

    /// Its exit code, once it has ended.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = until("its end", s(10), async || match self.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs"),
            Err(_) => Err("it cannot be waited for"),
        });
        ended.await.code()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
