//! astral-web: a directory of signed records with leases, and its pages (DESIGN §7).
//!
//! It vouches for nothing: records travel as they were signed, and whoever
//! receives them verifies them. No media passes here.
//!
//! | where | what | deliberately absent |
//! |---|---|---|
//! | `config` | flags, environment and settings file → [`Config`] | defaults that hide the file |
//! | `catalog` | the rules: leases, order, networks, slugs; pure, the time comes in | I/O, signatures |
//! | `directory` | rows that outlive the process; the only place of `redb` | rules |
//! | `state` | catalog, directory and the thread between them | HTTP |
//! | `limits`, `metrics`, `history` | what callers may ask, what is counted, who watched lately | |
//! | `http` | connections, callers, the API and its document | |
//! | `http::pages` | pages and their pictures; templates in `templates/` | calls to the visitor's node |
//! | `dev_certs`, `tls` | certificates for development, HTTPS | |

mod catalog;
mod config;
pub mod dev_certs;
mod directory;
mod history;
mod http;
mod limits;
pub mod logging;
mod metrics;
mod ready;
pub mod signals;
mod state;
mod tls;

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use config::{Config, DevCerts, LogFormat, Network, Task, TlsFiles};

use directory::Redb;
use ready::ReadyFile;
use state::State;

/// A directory that is about to serve.
pub struct Web {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    trusted_proxies: Vec<Network>,
    state: Arc<State>,
    _ready: Option<ReadyFile>,
}

impl Web {
    /// Opens the directory and the listener, and writes the ready file.
    ///
    /// # Errors
    /// One of them cannot be opened; the directory is left as it was.
    pub async fn load(config: &Config) -> anyhow::Result<Self> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let directory = Redb::open(&config.directory)?;
        let state = Arc::new(State::load(directory).context("directory")?);
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let ready = config.ready_file.as_deref();
        let ready = ready
            .map(|path| ReadyFile::write(path, scheme, address))
            .transpose()?;
        writeln!(
            std::io::stdout(),
            "listening: {scheme} {scheme}://{address}/"
        )?;
        Ok(Self {
            listener,
            tls,
            address,
            trusted_proxies: config.trusted_proxies.clone(),
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
        let door = http::Door {
            listener: self.listener,
            tls: self.tls,
            trusted_proxies: self.trusted_proxies,
        };
        let serving = http::serve(door, self.state, stop.clone());
        let ending = async {
            shutdown.await;
            stop.cancel();
        };
        tokio::join!(serving, ending);
        Ok(())
    }
}
