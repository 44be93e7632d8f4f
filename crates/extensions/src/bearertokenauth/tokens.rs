//! The tokens, and the file that they may come from.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nyquist_core::config::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::BearerTokenConfig;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tokens that follow their file. The file is looked at when a token is needed, at most once a
/// second: no task, no watch, and it works for the symbolic links of Kubernetes secrets.
pub(super) struct Tokens {
    filename: String,
    state: Mutex<State>,
}

struct State {
    tokens: Arc<[Secret]>,
    looked_at: Option<Instant>,
    /// When the file was changed last, and its length.
    version: Option<(SystemTime, u64)>,
}

impl Tokens {
    pub(super) fn new(config: &BearerTokenConfig) -> Self {
        let single = Some(&config.token).filter(|token| !token.expose().is_empty());
        let tokens = config.tokens.iter().chain(single).map(|token| trimmed(token.expose())).collect();
        let state = State { tokens, looked_at: None, version: None };
        Self { filename: config.filename.clone(), state: Mutex::new(state) }
    }

    /// Reads the file, if there is one.
    pub(super) fn load(&self) -> Result<(), String> {
        if self.filename.is_empty() {
            return Ok(());
        }
        self.refresh(&mut self.state.lock())
    }

    /// The tokens as they are now.
    pub(super) fn current(&self) -> Arc<[Secret]> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_due = state.looked_at.is_none_or(|then| now.duration_since(then) >= INTERVAL);
        if !self.filename.is_empty() && is_due {
            state.looked_at = Some(now);
            if let Err(error) = self.refresh(&mut state) {
                tracing::warn!(error, "cannot reload bearer tokens; the old ones stay in use");
            }
        }
        Arc::clone(&state.tokens)
    }

    fn refresh(&self, state: &mut State) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", self.filename);
        let metadata = std::fs::metadata(&self.filename).map_err(failed)?;
        let version = (metadata.modified().map_err(failed)?, metadata.len());
        if state.version == Some(version) {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.filename).map_err(failed)?;
        let tokens: Arc<[Secret]> = text.lines().filter(|line| !line.trim().is_empty()).map(trimmed).collect();
        if tokens.is_empty() {
            return Err(format!("{} holds no token", self.filename));
        }
        state.tokens = tokens;
        state.version = Some(version);
        Ok(())
    }
}

fn trimmed(token: &str) -> Secret {
    Secret::from(token.trim().to_owned())
}
