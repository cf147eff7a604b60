//! Whose turn it is: tests that need the machine to themselves, and those that share it.
//!
//! A file lock, so that it also holds between the processes of different test binaries.

use std::fs::File;

use crate::places;

/// Held for the length of a test.
pub struct Turn(#[expect(dead_code, reason = "the lock goes with the file")] File);

/// Takes a turn beside others that share.
pub async fn shared() -> Turn {
    lock(File::lock_shared).await
}

/// Takes a turn alone: for a browser, or for figures that a busy machine would spoil.
pub async fn alone() -> Turn {
    lock(File::lock).await
}

async fn lock(how: fn(&File) -> std::io::Result<()>) -> Turn {
    let path = places::scratch().join("turn.lock");
    let waiting = tokio::task::spawn_blocking(move || {
        let file = File::create(path)?;
        how(&file)?;
        Ok::<_, std::io::Error>(file)
    });
    Turn(
        waiting
            .await
            .expect("no panic")
            .expect("a lock file in target/tmp"),
    )
}
