//! The signals that end a node.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, ended) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut first = Some(first);
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match first.take() {
                Some(first) => drop(first),
                None => std::process::exit(1),
            }
        }
    });
    Ok(async {
        // The sender is dropped at the first signal.
        let _ = ended.await;
    })
}
