//! Settings shown and changed while the node runs.

use std::sync::Arc;

use astral_proto::api;
use astral_proto::overlay::Event;
use tokio::sync::watch;
use tracing::info;

use super::{ApiError, Handle};
use crate::config::{ChangeError, Config};
use crate::logging;
use crate::node::{consent_of, limit_of, mode_of};

impl Handle {
    /// Every option: what it is, where that comes from, and whether it can be changed now.
    pub fn settings(&self) -> api::Settings {
        self.inner.settings.shown()
    }

    /// What holds now, and every later change of it.
    pub(crate) fn settings_watch(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.settings.watch()
    }

    /// Changes settings, all or none: kept over restarts, and applied when this returns.
    ///
    /// # Errors
    /// [`ApiError::Invalid`] for keys and values that do not fit, [`ApiError::Conflict`] if a
    /// flag or an environment variable decides, [`ApiError::Failed`] if it cannot be kept.
    pub async fn change_settings(
        &self,
        patch: api::SettingsPatch,
    ) -> Result<api::Settings, ApiError> {
        let handle = self.clone();
        // A task of its own: whoever asked may go away, and what is kept must also hold.
        let changed = self
            .inner
            .tasks
            .spawn(async move { handle.change(&patch).await });
        changed
            .await
            .map_err(|error| ApiError::Failed(error.to_string()))??;
        Ok(self.settings())
    }

    async fn change(&self, patch: &api::SettingsPatch) -> Result<(), ApiError> {
        let _turn = self.inner.state.changing.lock().await;
        let settings = &self.inner.settings;
        let change = settings.check(patch)?;
        let (storage, saved) = (self.inner.storage.clone(), change.saved.clone());
        tokio::task::spawn_blocking(move || storage.put_settings(&saved))
            .await
            .map_err(|error| ApiError::Failed(error.to_string()))?
            .map_err(|error| ApiError::Failed(error.to_string()))?;
        let before = settings.apply(change);
        for (key, value) in &patch.0 {
            let value = value.as_ref().map(ToString::to_string);
            info!(key, value, "setting changed");
        }
        self.follow(&before).await;
        Ok(())
    }

    /// Brings the running node in line with what holds now.
    async fn follow(&self, before: &Config) {
        let config = self.config();
        logging::set_verbosity(config.verbosity);
        if config.upstream_limit != before.upstream_limit {
            let bps = limit_of(config.upstream_limit);
            self.inner.uplink.set_limit(bps);
            self.tell(Event::Limit { bps }).await;
        }
        // Before the first bootstrap round there is nothing to change the mind of.
        if config.supernode != before.supernode && self.is_ready() {
            let mode = mode_of(config.supernode);
            self.tell(Event::Supernodes { mode }).await;
        }
        if config.accept_seeds != before.accept_seeds {
            let consent = consent_of(config.accept_seeds);
            self.tell(Event::Consent { consent }).await;
        }
        if config.name != before.name {
            let identity = &self.inner.identity;
            identity.rename(config.name.clone());
            let record = identity.sign(|_| {}).await;
            self.tell(Event::Identity { record }).await;
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let words = error.to_string();
        match error {
            ChangeError::Overruled { .. } => Self::Conflict(words),
            ChangeError::Unknown(_) | ChangeError::Fixed(_) | ChangeError::Invalid { .. } => {
                Self::Invalid(words)
            }
        }
    }
}
