//! Reading certificates again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::TlsError;
use crate::component::Trouble;
use crate::delivery::Status;

/// Where a rustls configuration comes from.
pub(super) trait Source {
    /// What was read from files.
    type Material: PartialEq;
    /// What rustls wants.
    type Ready;

    fn read(&self) -> Result<Self::Material, TlsError>;
    fn ready(&self, material: &Self::Material) -> Result<Self::Ready, TlsError>;
}

/// A rustls configuration that follows its files.
pub(super) struct Reloading<S: Source> {
    source: S,
    interval: Duration,
    current: Mutex<Current<S>>,
    trouble: Trouble,
}

struct Current<S: Source> {
    read_at: Instant,
    material: S::Material,
    ready: Arc<S::Ready>,
}

impl<S: Source> Reloading<S> {
    /// Reads for the first time. An `interval` of zero never reads again.
    pub(super) fn new(source: S, interval: Duration) -> Result<Self, TlsError> {
        let material = source.read()?;
        let ready = Arc::new(source.ready(&material)?);
        let current = Mutex::new(Current { read_at: Instant::now(), material, ready });
        Ok(Self { source, interval, current, trouble: Trouble::default() })
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Whether the files can still be read.
    pub(super) fn status(&self) -> Status {
        self.current();
        self.trouble.status()
    }

    /// What to use for a connection that is made now.
    pub(super) fn current(&self) -> Arc<S::Ready> {
        let mut current = self.current.lock();
        let now = Instant::now();
        if self.interval.is_zero() || now.duration_since(current.read_at) < self.interval {
            return Arc::clone(&current.ready);
        }
        current.read_at = now;
        // Unchanged files keep what is there, and with it the sessions that can be resumed.
        let renewed = self.source.read().and_then(|material| {
            if material == current.material {
                return Ok(None);
            }
            let ready = self.source.ready(&material)?;
            Ok(Some((material, ready)))
        });
        self.trouble.set(renewed.as_ref().err().map(|error| format!("cannot reload TLS certificates: {error}")));
        match renewed {
            Ok(None) => {}
            Ok(Some((material, ready))) => {
                current.material = material;
                current.ready = Arc::new(ready);
                tracing::info!("new TLS certificates are in use");
            }
            Err(error) => tracing::warn!(%error, "cannot reload TLS certificates; the old ones stay in use"),
        }
        Arc::clone(&current.ready)
    }
}
