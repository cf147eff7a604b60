//! What a node picks up again after a restart: settings, peers, slugs, wanted streams.

use std::collections::BTreeMap;

use astral_proto::api::SettingValue;
use astral_proto::ids::{NodeId, StreamId};
use minicbor::{Decode, Encode};
use redb::TableDefinition;

use super::rows::Table;
use super::{Storage, StorageError};

/// Values that were set at run time, by key.
const SETTINGS: Table = TableDefinition::new("settings");
/// Nodes that were connected, by id.
const PEERS: Table = TableDefinition::new("peers");
/// Streams that bare slugs meant first, by slug.
const SLUGS: Table = TableDefinition::new("slugs");
/// Streams that were asked for, by id.
const WANTED: Table = TableDefinition::new("wanted");

/// Peers that are remembered: enough to find the network again though most are gone.
pub(crate) const PEERS_MAX: usize = 256;
/// Slugs that are remembered: as many as stream records are held.
pub(crate) const SLUGS_MAX: usize = 4096;
/// Wanted streams that are remembered; each is a ticket, and more than any link carries.
pub(crate) const WANTED_MAX: usize = 64;

/// A node that was connected once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct RememberedPeer {
    /// `host:port`, newest first.
    #[n(0)]
    pub(crate) addresses: Vec<String>,
    /// When it was connected last: Unix time in milliseconds.
    #[n(1)]
    pub(crate) connected_ms: u64,
}

/// A stream that a bare slug meant first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RememberedSlug {
    /// The bare slug.
    pub(crate) slug: String,
    /// What it meant.
    pub(crate) stream: StreamId,
    /// When it was seen last: Unix time in milliseconds.
    pub(crate) seen_ms: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SlugRow {
    #[cbor(n(0), with = "minicbor::bytes")]
    stream: [u8; 16],
    #[n(1)]
    seen_ms: u64,
}

/// A stream that this node was asked to receive, or to carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct WantedStream {
    /// Nodes that had it, and their `host:port`.
    #[cbor(n(0), with = "nodes")]
    pub(crate) nodes: Vec<(NodeId, Vec<String>)>,
    /// Whether it is only carried for whoever offered it.
    #[n(1)]
    pub(crate) carried: Option<bool>,
}

impl Storage {
    /// Settings that were changed at run time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn settings(&self) -> Result<BTreeMap<String, SettingValue>, StorageError> {
        let rows = self.rows(SETTINGS, |key, value| {
            let key = std::str::from_utf8(key).ok()?.to_owned();
            Some((key, serde_json::from_slice(value).ok()?))
        });
        Ok(rows?.into_iter().collect())
    }

    /// Replaces `before` by `after`, and leaves rows alone that are in neither.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn put_settings(
        &self,
        after: &BTreeMap<String, SettingValue>,
    ) -> Result<(), StorageError> {
        let before = self.settings()?;
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let gone = gone.map(|key| (key.clone().into_bytes(), None));
        let kept = after.iter().map(|(key, value)| {
            let value = serde_json::to_vec(value).expect("a value is text and numbers");
            (key.clone().into_bytes(), Some(value))
        });
        self.put_rows(SETTINGS, &gone.chain(kept).collect::<Vec<_>>())
    }

    /// Nodes that were connected, the latest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn peers(&self) -> Result<Vec<(NodeId, RememberedPeer)>, StorageError> {
        let mut peers = self.rows(PEERS, |key, value| {
            Some((NodeId(uuid_of(key)?), minicbor::decode(value).ok()?))
        })?;
        peers.sort_by_key(|(id, peer): &(NodeId, RememberedPeer)| {
            (std::cmp::Reverse(peer.connected_ms), *id)
        });
        Ok(peers)
    }

    /// Keeps these peers, and of all the [`PEERS_MAX`] that were connected last.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn put_peers(
        &self,
        peers: &BTreeMap<NodeId, RememberedPeer>,
    ) -> Result<(), StorageError> {
        let mut all: Vec<(NodeId, u64)> = self
            .peers()?
            .iter()
            .map(|(id, p)| (*id, p.connected_ms))
            .collect();
        all.retain(|(id, _)| !peers.contains_key(id));
        let mut rows: Vec<_> = peers
            .iter()
            .map(|(id, peer)| (id.0.as_bytes().to_vec(), Some(encoded(peer))))
            .collect();
        let room = PEERS_MAX.saturating_sub(peers.len());
        rows.extend(
            all.iter()
                .skip(room)
                .map(|(id, _)| (id.0.as_bytes().to_vec(), None)),
        );
        self.put_rows(PEERS, &rows)
    }

    /// Forgets a peer; an unknown one is no error.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn forget_peer(&self, id: NodeId) -> Result<(), StorageError> {
        self.put_rows(PEERS, &[(id.0.as_bytes().to_vec(), None)])
    }

    /// What bare slugs meant first, the longest unseen first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn slugs(&self) -> Result<Vec<RememberedSlug>, StorageError> {
        let mut slugs = self.rows(SLUGS, |key, value| {
            let row: SlugRow = minicbor::decode(value).ok()?;
            Some(RememberedSlug {
                slug: std::str::from_utf8(key).ok()?.to_owned(),
                stream: StreamId(uuid_of(&row.stream)?),
                seen_ms: row.seen_ms,
            })
        })?;
        slugs.sort_by(|a, b| (a.seen_ms, &a.slug).cmp(&(b.seen_ms, &b.slug)));
        Ok(slugs)
    }

    /// Keeps these slugs, and of all the [`SLUGS_MAX`] that were seen last.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn put_slugs(&self, slugs: &[RememberedSlug]) -> Result<(), StorageError> {
        let mut old = self.slugs()?;
        old.retain(|known| !slugs.iter().any(|new| new.slug == known.slug));
        let surplus = (old.len() + slugs.len()).saturating_sub(SLUGS_MAX);
        let gone = old.into_iter().take(surplus);
        let mut rows: Vec<_> = gone.map(|slug| (slug.slug.into_bytes(), None)).collect();
        rows.extend(slugs.iter().map(|slug| {
            let row = SlugRow {
                stream: *slug.stream.0.as_bytes(),
                seen_ms: slug.seen_ms,
            };
            (slug.slug.clone().into_bytes(), Some(encoded(&row)))
        }));
        self.put_rows(SLUGS, &rows)
    }

    /// Streams that this node was asked to receive.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn wanted(&self) -> Result<BTreeMap<StreamId, WantedStream>, StorageError> {
        let rows = self.rows(WANTED, |key, value| {
            Some((StreamId(uuid_of(key)?), minicbor::decode(value).ok()?))
        });
        Ok(rows?.into_iter().collect())
    }

    /// Remembers that a stream is wanted, or that it is not any more. Beyond
    /// [`WANTED_MAX`] a new one is not remembered.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn put_wanted(
        &self,
        id: StreamId,
        wanted: Option<&WantedStream>,
    ) -> Result<(), StorageError> {
        let known = self.wanted()?;
        let is_full = known.len() >= WANTED_MAX && !known.contains_key(&id);
        if known.get(&id) == wanted || (wanted.is_some() && is_full) {
            return Ok(());
        }
        self.put_rows(WANTED, &[(id.0.as_bytes().to_vec(), wanted.map(encoded))])
    }
}

/// Nodes with their addresses, as pairs of 16 bytes and texts.
mod nodes {
    use astral_proto::ids::NodeId;
    use minicbor::bytes::ByteArray;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decode, Decoder, Encode, Encoder};

    type Pairs = Vec<(ByteArray<16>, Vec<String>)>;

    pub(super) fn encode<C, W: Write>(
        nodes: &[(NodeId, Vec<String>)],
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let pairs = nodes
            .iter()
            .map(|(node, addresses)| (ByteArray::from(*node.0.as_bytes()), addresses.clone()));
        pairs.collect::<Pairs>().encode(encoder, context)
    }

    pub(super) fn decode<C>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<Vec<(NodeId, Vec<String>)>, DecodeError> {
        let pairs = Pairs::decode(decoder, context)?.into_iter();
        let named = pairs.map(|(id, at)| (NodeId(uuid::Uuid::from_bytes(*id)), at));
        Ok(named.collect())
    }
}

fn encoded(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("a Vec takes all that is written")
}

fn uuid_of(bytes: &[u8]) -> Option<uuid::Uuid> {
    uuid::Uuid::from_slice(bytes).ok()
}
