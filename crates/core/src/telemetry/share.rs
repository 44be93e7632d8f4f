//! What one of several components of a kind adds to a gauge that they share.

use std::sync::atomic::{AtomicI64, Ordering};

use super::UpDown;

/// A component's part of a gauge. Components of a kind, and those of one id in several pipelines, have one series together: if
/// each of them set it, it would show what the last one said. It shows their sum, of those that are there.
#[derive(Debug)]
pub struct Share {
    gauge: UpDown,
    part: AtomicI64,
}

impl Share {
    /// One that adds nothing yet.
    #[must_use]
    pub fn new(gauge: UpDown) -> Self {
        Self { gauge, part: AtomicI64::new(0) }
    }

    /// From now on it adds `value`.
    pub fn set(&self, value: i64) {
        let before = self.part.swap(value, Ordering::Relaxed);
        if value != before {
            self.gauge.add(value.wrapping_sub(before));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Telemetry;
    use super::*;

    /// Guarantee: the gauge is the sum of what each said last, without those that are gone.
    #[test]
    fn shares_add_up() {
        let telemetry = Telemetry::new();
        let gauge = || telemetry.gauge("shared", "shared", &[]);
        let (one, other) = (Share::new(gauge()), Share::new(gauge()));
        one.set(5);
        other.set(7);
        one.set(6);
        assert_eq!(gauge().get(), 13);
        drop(other);
        assert_eq!(gauge().get(), 6);
        one.set(0);
        assert_eq!(gauge().get(), 0);
    }
}
