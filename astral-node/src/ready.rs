//! The ready file: how the `astral` command and scripts find a node and its token.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use astral_proto::api::Ready;

use crate::storage::write_private;

/// Name of the ready file in the data folder.
const FILE_NAME: &str = "node.json";
/// Random bytes of a token: too many to guess.
const TOKEN_BYTES: usize = 32;

/// The ready files of a running node; dropped, they are gone.
#[derive(Debug)]
pub(crate) struct ReadyFiles {
    paths: Vec<PathBuf>,
    text: Vec<u8>,
}

impl ReadyFiles {
    /// Writes `ready` to `<data-dir>/node.json` and to `extra`, each by rename, mode 0600;
    /// on a full disk over the file that a killed node has left, if there is one.
    ///
    /// # Errors
    /// One of them cannot be written; then neither is left.
    pub(crate) fn write(
        data_dir: &Path,
        extra: Option<&Path>,
        ready: &Ready,
    ) -> anyhow::Result<Self> {
        let mut text = serde_json::to_vec(ready)?;
        text.push(b'\n');
        let mut files = Self {
            paths: Vec::new(),
            text,
        };
        let own = data_dir.join(FILE_NAME);
        for path in [Some(own.as_path()), extra].into_iter().flatten() {
            put(path, &files.text).with_context(|| format!("ready file {}", path.display()))?;
            files.paths.push(path.to_owned());
        }
        Ok(files)
    }
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    match write_private(path, text) {
        Err(full) if full.kind() == io::ErrorKind::StorageFull => {
            write_over(path, text).map_err(|_| full)
        }
        written => written,
    }
}

/// Puts `text` in the place of what a file holds, for which there is room already.
fn write_over(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

impl Drop for ReadyFiles {
    fn drop(&mut self) {
        for path in &self.paths {
            // Another node may have been told to write its file at the same place since.
            if std::fs::read(path).is_ok_and(|text| text == self.text)
                && let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "ready file not removed");
            }
        }
    }
}

/// What the ready file in a data folder says, if there is one and it can be read.
pub(crate) fn read(data_dir: &Path) -> Option<Ready> {
    let text = std::fs::read(data_dir.join(FILE_NAME)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// A new secret for the HTTP API: 64 hexadecimal digits.
///
/// # Errors
/// The operating system gives no random numbers.
pub(crate) fn token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use astral_proto::ids::{NodeId, SecretKey};

    use super::*;

    fn ready(token: &str) -> Ready {
        Ready {
            pid: 7,
            uuid: NodeId::of(&SecretKey::from_seed([1; 32]).public()),
            http: "127.0.0.1:8000".to_owned(),
            quic: "[::]:8000".to_owned(),
            rtmp: None,
            token: token.to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn both_files_are_there_while_the_node_runs() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().join("node.json"), dir.path().join("extra.json")];
        let files = ReadyFiles::write(dir.path(), Some(&paths[1]), &ready("t")).unwrap();
        for path in &paths {
            let read: Ready = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            assert_eq!(read, ready("t"));
        }
        drop(files);
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn file_of_another_node_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = ReadyFiles::write(dir.path(), None, &ready("first")).unwrap();
        let second = ReadyFiles::write(dir.path(), None, &ready("second")).unwrap();
        drop(first);
        assert!(dir.path().join("node.json").exists());
        drop(second);
        assert!(!dir.path().join("node.json").exists());
    }

    #[test]
    fn failure_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("missing/ready.json");
        let error = ReadyFiles::write(dir.path(), Some(&nowhere), &ready("t")).unwrap_err();
        assert!(error.to_string().contains("ready.json"));
        assert!(!dir.path().join("node.json").exists());
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, two) = (token().unwrap(), token().unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
    }
}
