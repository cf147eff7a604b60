//! Locks that stay usable when a holder panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. What a panic of another holder leaves is nothing that the next could not
/// bear: every holder in this crate keeps its data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
