//! The byte budget of the buffer, shared by all shards.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where early decisions begin: nine tenths of the budget.
const HIGH_WATER: (usize, usize) = (9, 10);
/// Where the system does not tell how much memory there is.
const FALLBACK: u64 = 1 << 30;
/// The part of the memory limit that the buffer takes unless told otherwise.
const PART: u64 = 4;

/// Bytes in use, and how many there may be.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// No more can be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.limit
    }

    /// Traces should be decided early.
    pub(super) fn is_high(&self) -> bool {
        let (part, whole) = HIGH_WATER;
        self.used() >= self.limit / whole * part
    }

    /// Replaces a charge of `before` bytes by one of `after`.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
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

/// A quarter of the memory that the process may use: of its cgroup's limit, or of the machine.
pub(super) fn default_limit() -> u64 {
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let limit = match (cgroup, machine) {
        (Some(cgroup), Some(machine)) => cgroup.min(machine),
        (one, other) => one.or(other).unwrap_or(FALLBACK * PART),
    };
    limit / PART
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
