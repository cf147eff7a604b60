//! astral-web: a directory of signed records with leases, and its pages (DESIGN §7).
//!
//! It vouches for nothing: records travel as they were signed, and whoever
//! receives them verifies them. No media passes here.

mod catalog;
mod config;
mod directory;
mod http;
pub mod logging;
mod ready;
pub mod signals;
mod state;

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, LogFormat, Place};

use directory::Redb;
use ready::ReadyFile;
use state::State;

/// A directory that is about to serve.
pub struct Web {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
    _ready: Option<ReadyFile>,
}

impl Web {
    /// Opens the directory and the listener, and writes the ready file.
    ///
    /// # Errors
    /// One of them cannot be opened; the directory is left as it was.
    pub async fn load(config: &Config) -> anyhow::Result<Self> {
        let directory = Redb::open(&config.path()?)?;
        let state = Arc::new(State::load(directory).context("directory")?);
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let ready = config.ready_file.as_deref();
        let ready = ready
            .map(|path| ReadyFile::write(path, address))
            .transpose()?;
        writeln!(std::io::stdout(), "listening: http http://{address}/")?;
        Ok(Self {
            listener,
            address,
            state,
            _ready: ready,
        })
    }

    /// Where it really listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, and a few seconds more for answers that are under way.
    ///
    /// # Errors
    /// None yet: what goes wrong with one connection is that connection's.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let serving = http::serve(self.listener, self.state, stop.clone());
        let ending = async {
            shutdown.await;
            stop.cancel();
        };
        tokio::join!(serving, ending);
        Ok(())
    }
}
