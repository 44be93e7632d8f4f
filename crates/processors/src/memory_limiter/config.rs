//! The keys of `memory_limiter`, as the Collector has them.

use std::sync::{Arc, OnceLock};

use nyquist_core::config::{Check, Duration, Validate};
use serde::Deserialize;

use super::limiter::{Limiter, Limits};

/// Configuration of the `memory_limiter` processor.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct MemoryLimiterConfig {
    /// How often memory use is measured. Must be set.
    pub check_interval: Duration,
    /// The hard limit in MiB. Wins over `limit_percentage`.
    pub limit_mib: u32,
    /// How far below the hard limit refusing begins, in MiB. Default: a fifth of the limit.
    pub spike_limit_mib: u32,
    /// The hard limit as a percentage of the memory that the process may use.
    pub limit_percentage: u32,
    /// How far below the hard limit refusing begins, as a percentage of the same memory.
    pub spike_limit_percentage: u32,
    /// Go's garbage collector; accepted, without effect. Default 10s.
    pub min_gc_interval_when_soft_limited: Duration,
    /// Go's garbage collector; accepted, without effect. Default 0.
    pub min_gc_interval_when_hard_limited: Duration,
    /// Go's garbage collector; accepted, without effect. Default 30s.
    pub max_gc_interval_when_soft_limited: Duration,
    /// Go's garbage collector; accepted, without effect. Default 30s.
    pub max_gc_interval_when_hard_limited: Duration,
    /// The one limiter that all pipelines share which list this processor.
    #[serde(skip)]
    pub(super) shared: OnceLock<Arc<Limiter>>,
}

impl Default for MemoryLimiterConfig {
    fn default() -> Self {
        Self {
            check_interval: Duration::default(),
            limit_mib: 0,
            spike_limit_mib: 0,
            limit_percentage: 0,
            spike_limit_percentage: 0,
            min_gc_interval_when_soft_limited: Duration::from_secs(10),
            min_gc_interval_when_hard_limited: Duration::default(),
            max_gc_interval_when_soft_limited: Duration::from_secs(30),
            max_gc_interval_when_hard_limited: Duration::from_secs(30),
            shared: OnceLock::new(),
        }
    }
}

impl MemoryLimiterConfig {
    /// The limits in bytes, given what `total` says of the memory that the process may use.
    ///
    /// # Errors
    /// If a percentage is set and the total is not known.
    pub(super) fn limits(&self, total: impl FnOnce() -> Result<u64, String>) -> Result<Limits, String> {
        const MIB: u64 = 1 << 20;
        let (hard, spike) = if self.limit_mib > 0 {
            (u64::from(self.limit_mib) * MIB, u64::from(self.spike_limit_mib) * MIB)
        } else {
            let total = total()?;
            let part = |percentage: u32| (u128::from(total) * u128::from(percentage) / 100) as u64;
            (part(self.limit_percentage), part(self.spike_limit_percentage))
        };
        let spike = if spike == 0 { hard / 5 } else { spike };
        Ok(Limits::new(hard, spike))
    }
}

impl Validate for MemoryLimiterConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.check_interval.0.is_zero() {
            let message = "'check_interval' must be greater than zero: nothing is measured without it; 1s is usual";
            check.error(&["check_interval"], message);
        }
        if self.min_gc_interval_when_soft_limited < self.min_gc_interval_when_hard_limited {
            let message = "'min_gc_interval_when_soft_limited' should be larger than \
                           'min_gc_interval_when_hard_limited'";
            check.error(&["min_gc_interval_when_soft_limited"], message);
        }
        let collector = [
            "min_gc_interval_when_soft_limited",
            "min_gc_interval_when_hard_limited",
            "max_gc_interval_when_soft_limited",
            "max_gc_interval_when_hard_limited",
        ];
        check.without_effect(&collector, "there is no garbage collector here");
        if self.limit_mib == 0 && self.limit_percentage == 0 {
            let message = "'limit_mib' or 'limit_percentage' must be greater than zero";
            check.error(&["limit_mib"], message);
        }
        if self.limit_percentage > 100 || self.spike_limit_percentage > 100 {
            let message = format!(
                "'limit_percentage' and 'spike_limit_percentage' must be greater than zero and less than or equal to \
                 hundred: they are {} and {}",
                self.limit_percentage, self.spike_limit_percentage
            );
            check.error(&["limit_percentage"], message);
        }
        if self.limit_mib > 0 && self.spike_limit_mib >= self.limit_mib {
            let message = format!(
                "'spike_limit_mib' must be smaller than 'limit_mib': {} is not smaller than {}; refusing begins at \
                 limit minus spike limit",
                self.spike_limit_mib, self.limit_mib
            );
            check.error(&["spike_limit_mib"], message);
        }
        if self.limit_percentage > 0 && self.spike_limit_percentage >= self.limit_percentage {
            let message = format!(
                "'spike_limit_percentage' must be smaller than 'limit_percentage': {} is not smaller than {}; refusing \
                 begins at limit minus spike limit",
                self.spike_limit_percentage, self.limit_percentage
            );
            check.error(&["spike_limit_percentage"], message);
        }
    }
}
