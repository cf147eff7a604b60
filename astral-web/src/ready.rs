//! The ready file: how scripts learn that it serves, and where.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The ready file of a running astral-web; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    path: PathBuf,
    text: Vec<u8>,
}

impl ReadyFile {
    /// Writes it by rename.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn write(path: &Path, scheme: &str, http: SocketAddr) -> anyhow::Result<Self> {
        let what = || format!("ready file {}", path.display());
        let ready = serde_json::json!({
            "pid": std::process::id(),
            "http": http.to_string(),
            "url": format!("{scheme}://{http}"),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let mut file = tempfile::Builder::new()
            .prefix(".astral-web-")
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(what)?;
        let text = format!("{ready}\n").into_bytes();
        file.write_all(&text).with_context(what)?;
        file.persist(path).with_context(what)?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Another one may have been told to write its file at the same place since.
        if std::fs::read(&self.path).is_ok_and(|text| text == self.text)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "ready file not removed");
        }
    }
}
