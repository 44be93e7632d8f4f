//! Authentication that takes its time: password hashes are slow on purpose.

use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::Semaphore;

use super::{Identity, ServerAuth};

/// Slow answers are worked out one at a time, in the whole process: whoever guesses passwords keeps one core
/// busy at the most, and no worker.
static TURN: Semaphore = Semaphore::const_new(1);

impl dyn ServerAuth {
    /// [`ServerAuth::identify`] for a worker: what is slow is worked out on another thread.
    ///
    /// # Errors
    /// The message for a 401 / UNAUTHENTICATED answer.
    pub async fn admit(self: &Arc<Self>, headers: &HeaderMap) -> Result<Identity, String> {
        if !self.is_slow(headers) {
            return self.identify(headers);
        }
        let _turn = TURN.acquire().await;
        // Somebody may have found out while this one waited.
        if !self.is_slow(headers) {
            return self.identify(headers);
        }
        let (auth, headers) = (Arc::clone(self), headers.clone());
        let found = tokio::task::spawn_blocking(move || auth.identify(&headers)).await;
        found.unwrap_or_else(|_| Err("internal error while the credentials were checked".to_owned()))
    }
}
