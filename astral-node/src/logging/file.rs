//! A log file that cannot fill the disk: at a size it becomes the old one, of which
//! there is one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

use crate::lock::lock;

/// Size in bytes at which a file is put aside: some weeks of a busy node.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Lines are appended; what cannot be written is lost, and the node goes on.
pub(super) struct LogFile {
    path: PathBuf,
    open: Mutex<Open>,
    bytes_max: u64,
}

struct Open {
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Goes on with the file at `path`, which may be new.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Self::with_max(path, BYTES_MAX)
    }

    fn with_max(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let open = Mutex::new(open(&path)?);
        Ok(Self {
            path,
            open,
            bytes_max,
        })
    }

    fn append(&self, line: &[u8]) -> io::Result<usize> {
        let mut current = lock(&self.open);
        if current.bytes >= self.bytes_max {
            // Without a new file the old one goes on.
            let moved = std::fs::rename(&self.path, self.path.with_extension("log.old"));
            if let Ok(new) = moved.and_then(|()| open(&self.path)) {
                *current = new;
            }
        }
        let written = current.file.write(line)?;
        current.bytes += written as u64;
        Ok(written)
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let file = File::options().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

/// One line's way into the file.
pub(super) struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_the_old_one_and_no_line_is_lost_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("astral-node.log");
        std::fs::write(&path, "before\n").unwrap();
        let log = LogFile::with_max(path.clone(), 20).unwrap();
        for n in 0..4 {
            log.make_writer()
                .write_all(format!("line {n}\n").as_bytes())
                .unwrap();
        }
        let old = std::fs::read_to_string(dir.path().join("astral-node.log.old")).unwrap();
        assert_eq!(old, "before\nline 0\nline 1\n");
        let new = std::fs::read_to_string(&path).unwrap();
        assert_eq!(new, "line 2\nline 3\n");
    }
}
