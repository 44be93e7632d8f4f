//! The byte budget of the buffer, shared by all shards.
//!
//! What a request may need is set aside before any of it is taken in, and a part of the limit is never
//! given to requests: it is for what handing on and tidying up need. So what is held never exceeds the
//! limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::config::{MAX_MEMORY_MIB, MIN_MEMORY_MIB, TailSamplingConfig};
use super::lock::Apart;
use crate::memory_limiter::memory::{Linux, MemorySource};

/// Where early decisions begin: nine tenths of what requests may take.
const HIGH_WATER: (usize, usize) = (9, 10);
/// Where the system does not tell how much memory there is.
const FALLBACK: u64 = 4 << 30;
/// Percent of the memory of the process that the buffer takes unless told otherwise.
const DEFAULT_PERCENTAGE: u32 = 25;

/// Bytes in use, and how many there may be.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    /// What requests may take.
    ceiling: usize,
    used: Apart<AtomicUsize>,
    /// Set aside for requests that are being taken in.
    reserved: Apart<AtomicUsize>,
    /// The most that was ever in use.
    #[cfg(test)]
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes of which requests do not get `headroom`.
    pub(super) fn new(limit: usize, headroom: usize) -> Arc<Self> {
        let ceiling = limit.saturating_sub(headroom);
        Arc::new(Self {
            limit,
            ceiling,
            used: Apart::default(),
            reserved: Apart::default(),
            #[cfg(test)]
            peak: AtomicUsize::new(0),
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn ceiling(&self) -> usize {
        self.ceiling
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// No more can be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.ceiling
    }

    /// More than half of it is in use.
    pub(super) fn is_half_used(&self) -> bool {
        self.used() > self.ceiling / 2
    }

    /// Traces should be decided early.
    pub(super) fn is_high(&self) -> bool {
        self.used() >= self.high_water()
    }

    fn high_water(&self) -> usize {
        let (part, whole) = HIGH_WATER;
        self.ceiling / whole * part
    }

    /// How much is in use beyond where early decisions begin; none where that is half-way to full.
    pub(super) fn small_excess(&self) -> Option<usize> {
        let (excess, most) = (self.used().saturating_sub(self.high_water()), (self.ceiling - self.high_water()) / 2);
        (excess < most).then_some(excess)
    }

    /// What is in use, in percent of what requests may take.
    pub(super) fn level(&self) -> u32 {
        u32::try_from(self.used() as u128 * 100 / (self.ceiling as u128).max(1)).unwrap_or(u32::MAX)
    }

    /// How many bytes would have to be given back before `bytes` can be reserved.
    pub(super) fn missing(&self, bytes: usize) -> usize {
        (self.used() + self.reserved.load(Ordering::Relaxed) + bytes).saturating_sub(self.ceiling)
    }

    /// Sets `bytes` aside, if that many are free.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation<'_>> {
        // First the own claim, then the look: of two that do not both fit, one sees the other.
        let reserved = self.reserved.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let reservation = Reservation { budget: self, bytes };
        (self.used.load(Ordering::SeqCst) + reserved <= self.ceiling).then_some(reservation)
    }

    /// Charges `bytes`, if that many are free.
    pub(super) fn claim(&self, bytes: usize) -> bool {
        self.reserve(bytes).map(|_reservation| self.change(0, bytes)).is_some()
    }

    #[cfg(test)]
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Replaces a charge of `before` bytes by one of `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after >= before {
            let _used = self.used.fetch_add(after - before, Ordering::SeqCst) + (after - before);
            #[cfg(test)]
            self.peak.fetch_max(_used, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::SeqCst);
        }
    }
}

/// Bytes that are set aside, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Bytes outside of the shards; given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(budget: &Arc<Budget>, bytes: usize) -> Self {
        budget.change(0, bytes);
        Self { budget: Arc::clone(budget), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.change(self.bytes, 0);
    }
}

/// The limit in bytes that is configured: absolute, or a part of the memory that the process may use,
/// which is that of its control group, or of the machine.
pub(super) fn limit(config: &TailSamplingConfig) -> u64 {
    limit_of(config, Linux::default().total().unwrap_or(FALLBACK))
}

fn limit_of(config: &TailSamplingConfig, total: u64) -> u64 {
    if config.memory_limit_mib > 0 {
        return config.memory_limit_mib.saturating_mul(1 << 20);
    }
    let percentage =
        if config.memory_limit_percentage > 0 { config.memory_limit_percentage } else { DEFAULT_PERCENTAGE };
    let part = u128::from(total) * u128::from(percentage) / 100;
    u64::try_from(part).unwrap_or(u64::MAX).clamp(MIN_MEMORY_MIB << 20, MAX_MEMORY_MIB << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_absolute_or_a_part_of_what_the_process_may_use() {
        let config = |mib, percentage| TailSamplingConfig {
            memory_limit_mib: mib,
            memory_limit_percentage: percentage,
            ..TailSamplingConfig::default()
        };
        assert_eq!(limit_of(&config(64, 0), 1 << 30), 64 << 20);
        assert_eq!(limit_of(&config(0, 50), 1 << 30), 512 << 20);
        assert_eq!(limit_of(&config(0, 0), 1 << 30), 256 << 20);
        assert_eq!(limit_of(&config(0, 1), 1 << 20), 4 << 20, "never too little to work with");
    }

    #[test]
    fn what_is_set_aside_cannot_be_taken_twice() {
        let budget = Budget::new(1000, 100);
        let first = budget.reserve(600).unwrap();
        assert!(budget.reserve(400).is_none());
        assert_eq!(budget.missing(400), 100);
        budget.change(0, 500);
        drop(first);
        assert!(budget.reserve(400).is_some());
        assert_eq!(budget.level(), 55);
        assert!(!budget.is_high());
        budget.change(0, 340);
        assert_eq!((budget.is_high(), budget.small_excess()), (true, Some(30)));
        budget.change(0, 20);
        assert_eq!(budget.small_excess(), None);
        budget.change(0, 40);
        assert!(budget.is_high() && budget.is_full());
    }
}
