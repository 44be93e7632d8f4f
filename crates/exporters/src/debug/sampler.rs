//! Which requests are written.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// In each second the first `initial`, then each `thereafter`-th: as the Collector's logger does.
pub(super) struct Sampler {
    initial: u64,
    thereafter: u64,
    second: Mutex<(Option<Instant>, u64)>,
}

impl Sampler {
    pub(super) fn new(initial: u64, thereafter: u64) -> Self {
        Self { initial, thereafter, second: Mutex::new((None, 0)) }
    }

    pub(super) fn takes(&self) -> bool {
        let now = Instant::now();
        let mut second = self.second.lock();
        let (begin, count) = &mut *second;
        if begin.is_none_or(|begin| now.duration_since(begin) >= Duration::from_secs(1)) {
            *begin = Some(now);
            *count = 0;
        }
        *count += 1;
        if *count <= self.initial {
            return true;
        }
        self.thereafter > 0 && (*count - self.initial).is_multiple_of(self.thereafter)
    }
}
