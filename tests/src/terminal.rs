//! A terminal of our own, with somebody at its keys: a pseudoterminal (pty(7)).

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// The terminal, as the one who sits before it has it.
pub struct Terminal {
    keys: File,
    line: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// A terminal of this size.
    pub fn new(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keys = openpt(flags).expect("a pseudoterminal");
        grantpt(&keys).expect("it is ours");
        unlockpt(&keys).expect("it is ours");
        let name = ptsname(&keys, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = rustix::fs::open(name, flags, Mode::empty()).expect("its other end");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&keys, size).expect("a size");
        let before = tcgetattr(&line).expect("modes");
        let keys = File::from(keys);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let mut reader = keys.try_clone().expect("a second handle");
        let screen = shown.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Ends with an error once the other end is closed.
            while let Ok(read @ 1..) = reader.read(&mut piece) {
                screen
                    .lock()
                    .expect("no panic")
                    .extend_from_slice(&piece[..read]);
            }
        });
        Self {
            keys,
            line,
            before,
            shown,
        }
    }

    /// Connects a program to it.
    pub fn attach(&self, command: &mut Command) {
        let end = || Stdio::from(self.line.try_clone().expect("a handle"));
        command.stdin(end()).stdout(end()).stderr(end());
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it takes keys");
    }

    /// All that was shown so far, control sequences included.
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().expect("no panic");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Asserts that a program that took the terminal over has given it back.
    pub fn assert_given_back(&self) {
        let now = tcgetattr(&self.line).expect("modes");
        for mode in [LocalModes::ICANON, LocalModes::ECHO, LocalModes::ISIG] {
            let was = self.before.local_modes.contains(mode);
            assert_eq!(now.local_modes.contains(mode), was, "{mode:?} is as before");
        }
        let shown = self.shown();
        for (taken, given) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
            let (taken, given) = (shown.rfind(taken), shown.rfind(given));
            assert!(taken < given, "{taken:?} before {given:?}: {shown:?}");
        }
    }
}
