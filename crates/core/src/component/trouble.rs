//! What goes wrong for a while.

use std::time::Instant;

use parking_lot::Mutex;

use crate::delivery::Status;

/// Whether something goes wrong now, since when, and what it is: what a component's
/// [`status`](super::Component::status) is made of.
#[derive(Debug, Default)]
pub struct Trouble(Mutex<Option<(Instant, String)>>);

impl Trouble {
    /// It goes wrong, now or still.
    pub fn begin(&self, error: impl Into<String>) {
        let mut trouble = self.0.lock();
        let since = trouble.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *trouble = Some((since, error.into()));
    }

    /// It does not any more.
    pub fn end(&self) {
        *self.0.lock() = None;
    }

    /// It goes wrong if there is an error.
    pub fn set(&self, error: Option<String>) {
        match error {
            Some(error) => self.begin(error),
            None => self.end(),
        }
    }

    /// The same as a status: an error that may pass.
    #[must_use]
    pub fn status(&self) -> Status {
        let (failing_since, last_error) = self.0.lock().clone().unzip();
        Status { failing_since, last_error, is_permanent: false }
    }
}

impl Status {
    /// Of two parts of a component: the one that fails; of two that fail, the one that does so for longer.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.failing_since, other.failing_since) {
            (Some(since), Some(others)) if others < since => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_since_it_began() {
        let trouble = Trouble::default();
        assert_eq!(trouble.status(), Status::default());
        trouble.begin("first");
        let since = trouble.status().failing_since;
        trouble.set(Some("second".to_owned()));
        let status = trouble.status();
        assert!(since.is_some() && status.failing_since == since);
        assert_eq!(status.last_error.as_deref(), Some("second"));
        assert_eq!(status.clone().and(Status::default()), status);
        assert_eq!(Status::default().and(status.clone()), status);
        trouble.set(None);
        assert_eq!(trouble.status().and(Status::default()), Status::default());
    }
}
