//! One-time links to the node's own pages, for a browser that cannot show the token.
//!
//! With `--require-token` the pages are closed, and a browser that follows a link sends no
//! header of ours. A link made with the token opens one page once, within a minute; what
//! that page then does it does with the guard value, which it carries. There is no cookie:
//! other programs on this machine, at other ports, would get it too.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use astral_proto::ids::sha256;
use tokio::time::Instant;

use crate::lock::lock;
use crate::ready::token;

/// Name of the link's secret in the query of a page.
pub(super) const ONCE: &str = "once";
/// A link holds for this long: a browser takes seconds to start.
pub(super) const HOLDS: Duration = Duration::from_secs(60);
/// Links that are open at a time; beyond that the oldest goes.
const LINKS_MAX: usize = 32;

/// Digests of the links that nobody has followed yet, and when they expire.
#[derive(Default)]
pub(super) struct Links(Mutex<BTreeMap<[u8; 32], Instant>>);

impl Links {
    /// The secret of a new link.
    ///
    /// # Errors
    /// The operating system gives no random numbers.
    pub(super) fn make(&self) -> Result<String, getrandom::Error> {
        let secret = token()?;
        let now = Instant::now();
        let mut links = lock(&self.0);
        links.retain(|_, expires| *expires > now);
        if links.len() >= LINKS_MAX {
            let oldest = links.iter().min_by_key(|(_, expires)| **expires);
            let oldest = oldest.map(|(digest, _)| *digest);
            oldest.and_then(|digest| links.remove(&digest));
        }
        links.insert(sha256(secret.as_bytes()), now + HOLDS);
        Ok(secret)
    }

    /// Whether a query has the secret of a link, which is spent by that.
    pub(super) fn spend(&self, query: &str) -> bool {
        let secret = query
            .split('&')
            .filter_map(|field| field.split_once('='))
            .find(|(name, _)| *name == ONCE);
        let Some((_, secret)) = secret else {
            return false;
        };
        let expires = lock(&self.0).remove(&sha256(secret.as_bytes()));
        expires.is_some_and(|expires| expires > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_works_once_and_for_a_minute_and_there_are_not_too_many() {
        let links = Links::default();
        let query = |secret: &str| format!("embed&once={secret}");
        let first = query(&links.make().unwrap());
        assert!(links.spend(&first) && !links.spend(&first));
        assert!(!links.spend("once=other") && !links.spend("") && !links.spend("once"));
        let late = query(&links.make().unwrap());
        tokio::time::advance(HOLDS).await;
        assert!(!links.spend(&late));
        let oldest = query(&links.make().unwrap());
        for _ in 0..LINKS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            links.make().unwrap();
        }
        assert!(!links.spend(&oldest));
        assert!(lock(&links.0).len() <= LINKS_MAX);
    }
}
