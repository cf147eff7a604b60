//! Records whose signatures were verified already: what lets the simulator run 10⁵ nodes
//! on one core.
//!
//! Whether a signature verifies is a function of the bytes, so remembering the answer
//! changes nothing but the time it takes and the memory: everybody who holds a record
//! shares one copy. Nothing is remembered on threads that did not ask for it, so a
//! program that was built with the simulator in it verifies as ever.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;

use super::{Record, SignedRecord};

type Known = HashMap<Bytes, Box<dyn Any>>;

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// Starts to remember, on this thread, and forgets what was.
pub(crate) fn start() {
    KNOWN.set(Some(Known::new()));
}

/// Forgets all, and remembers no more.
pub(crate) fn stop() {
    KNOWN.set(None);
}

pub(super) fn recall<T: Record>(wire: &[u8]) -> Option<SignedRecord<T>> {
    KNOWN.with_borrow(|known| {
        let found = known.as_ref()?.get(wire)?;
        found.downcast_ref::<SignedRecord<T>>().cloned()
    })
}

pub(super) fn remember<T: Record>(record: &SignedRecord<T>) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.insert(record.wire.clone(), Box::new(record.clone()));
        }
    });
}
