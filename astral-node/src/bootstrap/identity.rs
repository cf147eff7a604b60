//! The node's own record: signed anew whenever something in it changes.

use std::sync::{Arc, Mutex};

use astral_proto::ids::SecretKey;
use astral_proto::limits::ADDRESSES_MAX;
use astral_proto::overlay::Description;
use astral_proto::record::{Address, NodeRecord, SignedNode};
use tracing::debug;

use crate::lock::lock;
use crate::node::unix_ms;
use crate::storage::Storage;

/// What it takes to sign the node's record.
pub(crate) struct Identity {
    key: Arc<SecretKey>,
    storage: Storage,
    /// The record that was signed last, without what was for it alone.
    last: Mutex<NodeRecord>,
}

impl Identity {
    /// Goes on from a record that is signed already.
    pub(crate) fn new(key: SecretKey, storage: Storage, record: NodeRecord) -> Self {
        Self {
            key: Arc::new(key),
            storage,
            last: Mutex::new(record),
        }
    }

    /// Takes another name from the next record on.
    pub(crate) fn rename(&self, name: Option<String>) {
        lock(&self.last).name = name;
    }

    /// Signs a record that says this, and so will the later ones; its addresses are those
    /// where others have reached the node, then `own`.
    pub(crate) async fn describe(&self, said: Description, own: Vec<Address>) -> SignedNode {
        {
            let mut last = lock(&self.last);
            let mut addresses = said.reached;
            for address in own {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses.truncate(ADDRESSES_MAX);
            (last.role, last.addresses, last.load) = (said.role, addresses, said.load);
        }
        self.sign(|_| {}).await
    }

    /// Signs the record with a new number and this change, which is for this record alone.
    pub(crate) async fn sign(&self, change: impl FnOnce(&mut NodeRecord)) -> SignedNode {
        let record = {
            let mut last = lock(&self.last);
            let mut record = last.clone();
            record.seq = unix_ms().max(last.seq + 1);
            change(&mut record);
            last.seq = record.seq;
            record
        };
        let (storage, seq) = (self.storage.clone(), record.seq);
        let raised = tokio::task::spawn_blocking(move || storage.raise_record_seq(seq)).await;
        if let Ok(Err(error)) = raised {
            debug!(%error, "the number of the node's record could not be stored");
        }
        SignedNode::sign(record, &self.key)
    }
}
