//! TEMPORARY stand-in, replaced at the merge: knows one key and one container.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::Stream;

/// Own streams by stream key.
#[derive(Clone, Default)]
pub(crate) struct Registry;

pub(crate) mod http {
    use futures_util::StreamExt as _;

    use super::{Bytes, Registry, SocketAddr, Stream};

    /// Why an encoder's bytes were not taken.
    #[derive(Debug, thiserror::Error)]
    pub(crate) enum IngestError {
        #[error("no stream has this key")]
        UnknownKey,
        #[error("another encoder holds this stream")]
        Busy,
        #[error("neither fragmented MP4 nor FLV")]
        Unsupported,
        #[error("{0}")]
        Malformed(String),
        #[error("the connection broke: {0}")]
        Broken(String),
    }

    /// Takes an encoder's bytes to their end.
    pub(crate) async fn body<E: std::fmt::Display>(
        _: &Registry,
        key: &str,
        _from: SocketAddr,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), IngestError> {
        match key {
            "good" => {}
            "busy" => return Err(IngestError::Busy),
            _ => return Err(IngestError::UnknownKey),
        }
        let mut body = std::pin::pin!(body);
        let mut first = true;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| IngestError::Broken(error.to_string()))?;
            if first && piece.starts_with(b"junk") {
                return Err(IngestError::Unsupported);
            }
            if first && piece.starts_with(b"ftypbad") {
                return Err(IngestError::Malformed(
                    "a box is longer than its file".into(),
                ));
            }
            first = false;
        }
        Ok(())
    }
}
#[derive(Clone, Default)]
pub(crate) struct SourceState { pub(crate) live: bool, pub(crate) epoch: u32, pub(crate) tracks: Vec<astral_proto::record::TrackSummary>, pub(crate) bitrate_bps: u64 }
impl Registry {
    pub(crate) fn new<F>(_: F) -> Self where F: Fn(astral_proto::ids::StreamId, crate::storage::Marks) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> { Self }
    pub(crate) fn insert(&self, _: crate::storage::OwnStream, _: std::sync::Arc<crate::store::StreamStore>) {}
    pub(crate) fn remove(&self, _: astral_proto::ids::StreamId) {}
    pub(crate) fn set_paused(&self, _: astral_proto::ids::StreamId, _: bool) {}
    pub(crate) fn state(&self, _: astral_proto::ids::StreamId) -> tokio::sync::watch::Receiver<SourceState> { todo!() }
}
pub(crate) mod rtmp {
    pub(crate) async fn serve(_: tokio::net::TcpListener, _: super::Registry, _: tokio_util::sync::CancellationToken) {}
}
