//! Evidence that the spans of a trace go to several gateways.
//!
//! A trace whose time is over has its root span, as a rule. If many have none, their spans probably
//! went elsewhere, and every gateway decides on a part.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many traces are looked at together.
const WINDOW: u64 = 2000;
/// The part of them without a root span, in percent, from which on it is said.
const MANY: u64 = 30;

/// Traces of the present window.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    without_root: AtomicU64,
    with_root: AtomicU64,
    said: AtomicBool,
}

impl Evidence {
    /// Counts traces that were decided in time. Once, when a window holds too many without a root
    /// span: their part in percent.
    pub(super) fn count(&self, without_root: u64, with_root: u64) -> Option<u64> {
        let without = self.without_root.fetch_add(without_root, Ordering::Relaxed) + without_root;
        let with = self.with_root.fetch_add(with_root, Ordering::Relaxed) + with_root;
        if without + with < WINDOW {
            return None;
        }
        self.without_root.store(0, Ordering::Relaxed);
        self.with_root.store(0, Ordering::Relaxed);
        let percentage = without * 100 / (without + with);
        (percentage >= MANY && !self.said.swap(true, Ordering::Relaxed)).then_some(percentage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_only_of_many() {
        let evidence = Evidence::default();
        assert_eq!(evidence.count(500, 1500), None, "some traces have no root anywhere");
        assert_eq!(evidence.count(1000, 500), None, "the window is not over");
        assert_eq!(evidence.count(0, 500), Some(50));
        assert_eq!(evidence.count(2000, 0), None);
    }
}
