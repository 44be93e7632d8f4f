//! What all shards share: settings, global budgets, time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use nyquist_core::clock::Clock;
use nyquist_core::wire::{AnyValue, KeyValue, put_len_field};
use parking_lot::Mutex;
use regex::bytes::RegexSet;

use super::config::{CardinalityLimitConfig, GaugeMode, OnExceed};
use super::forgotten::Forgotten;
use super::hash::Hashes;
use super::report::Report;
use crate::attributes::put_nested;

/// The label of overflow series, as the SDKs have it.
pub(super) const OVERFLOW: &[u8] = b"otel.metric.overflow";

/// A share of the memory limit that only collapsed series and slots may use, so that last values
/// of collapsed streams never take the room in which their sums are kept.
const RESERVED_SHARE: usize = 4;

pub(super) struct Shared {
    pub(super) hashes: Hashes,
    pub(super) report: Report,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) on_exceed: OnExceed,
    pub(super) dry_run: bool,
    pub(super) gauge: GaugeMode,
    pub(super) replacement: Vec<u8>,
    /// The hash of `otel.metric.overflow=true`.
    pub(super) overflow_hash: u64,
    /// The `KeyValue` of `otel.metric.overflow=true`.
    pub(super) overflow_attribute: Vec<u8>,
    pub(super) protected: HashSet<Vec<u8>>,
    rules: Vec<ReadyRule>,
    default: Limits,
    max_series: usize,
    memory_limit: usize,
    /// What of it is for all but the filter of forgotten streams.
    state_limit: usize,
    series: AtomicUsize,
    bytes: AtomicUsize,
    pub(super) forgotten: Mutex<Forgotten>,
    /// Idle times are counted in epochs of this length.
    epoch_length: Duration,
    /// After so many epochs without a point something is idle.
    pub(super) idle_epochs: u16,
    last_sweep: AtomicU32,
    starving: AtomicBool,
}

struct ReadyRule {
    metrics: RegexSet,
    limits: Limits,
}

/// The budgets of one metric.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) max_series: usize,
    max_values: usize,
    labels: Vec<(Vec<u8>, usize)>,
}

impl Limits {
    /// How many values `label` may have.
    pub(super) fn max_values(&self, label: &[u8]) -> usize {
        self.labels.iter().find(|(name, _)| name == label).map_or(self.max_values, |(_, max)| *max)
    }
}

impl Shared {
    pub(super) fn new(config: &CardinalityLimitConfig, report: Report, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let hashes = Hashes::default();
        let overflow = KeyValue { key: OVERFLOW, value: AnyValue::Bool(true) };
        let mut overflow_attribute = Vec::new();
        put_len_field(&mut overflow_attribute, 1, OVERFLOW);
        put_nested(&mut overflow_attribute, 2, |out| out.extend_from_slice(&[0x10, 1]));
        let default = Limits {
            max_series: config.default.max_series_per_metric,
            max_values: config.default.max_values_per_label,
            labels: Vec::new(),
        };
        let rule = |rule: &super::config::Rule| {
            let patterns = rule.metrics.iter().map(|glob| glob_pattern(glob));
            let metrics = RegexSet::new(patterns).map_err(|error| error.to_string())?;
            let limits = Limits {
                max_series: rule.max_series_per_metric.unwrap_or(default.max_series),
                max_values: rule.max_values_per_label.unwrap_or(default.max_values),
                labels: rule.labels.iter().map(|(name, limit)| (name.clone().into_bytes(), limit.max)).collect(),
            };
            Ok(ReadyRule { metrics, limits })
        };
        let rules = config.rules.iter().map(rule).collect::<Result<_, String>>()?;
        let memory_limit = config.memory_limit_mib << 20;
        // Set aside, so that remembering what was given up needs no room of its own.
        let for_forgotten = memory_limit / 16;
        let usual = (config.idle_ttl.0 / 16).clamp(Duration::from_millis(100), Duration::from_secs(64));
        // Epochs are counted in 16 bits.
        let epoch_length = usual.max(config.idle_ttl.0 / 30_000);
        let idle_epochs = config.idle_ttl.0.as_nanos().div_ceil(epoch_length.as_nanos());
        Ok(Self {
            overflow_hash: hashes.attribute(&overflow),
            hashes,
            report,
            on_exceed: config.on_exceed,
            dry_run: config.dry_run,
            gauge: config.gauge,
            replacement: config.replacement.clone().into_bytes(),
            overflow_attribute,
            protected: config.protect_labels.iter().map(|label| label.clone().into_bytes()).collect(),
            rules,
            default,
            max_series: config.max_series,
            memory_limit,
            state_limit: memory_limit - for_forgotten,
            series: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            forgotten: Mutex::new(Forgotten::new(for_forgotten, clock.unix_nanos())),
            epoch_length,
            // Half of the 16-bit circle, so that "older" stays well defined.
            idle_epochs: u16::try_from(idle_epochs).unwrap_or(u16::MAX).min(u16::MAX / 2),
            last_sweep: AtomicU32::new(0),
            starving: AtomicBool::new(false),
            clock,
        })
    }

    /// The budgets of the metric called `name`.
    pub(super) fn limits(&self, name: &[u8]) -> Limits {
        let rule = self.rules.iter().find(|rule| rule.metrics.is_match(name));
        rule.map_or(&self.default, |rule| &rule.limits).clone()
    }

    fn epochs(&self) -> u32 {
        (self.clock.now().as_nanos() / self.epoch_length.as_nanos().max(1)) as u32
    }

    /// The current epoch.
    pub(super) fn epoch(&self) -> u16 {
        self.epochs() as u16
    }

    /// Has something last seen in the epoch `seen` been idle too long?
    pub(super) fn is_idle(&self, seen: u16, now: u16) -> bool {
        // One more epoch, as it may have been seen at the end of its own.
        now.wrapping_sub(seen) > self.idle_epochs
    }

    /// Is it time to look for what is idle? True once an epoch.
    pub(super) fn sweep_is_due(&self) -> bool {
        let now = self.epochs();
        self.last_sweep.swap(now, Ordering::Relaxed) != now
    }

    /// Is there room for one more series, globally?
    pub(super) fn has_slot(&self) -> bool {
        self.series.load(Ordering::Relaxed) < self.max_series
    }

    pub(super) fn take_slot(&self) {
        self.series.fetch_add(1, Ordering::Relaxed);
        self.report.new_series.inc();
    }

    pub(super) fn give_slots(&self, count: usize) {
        self.series.fetch_sub(count, Ordering::Relaxed);
    }

    /// May `bytes` more be used for slots and collapsed series?
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.state_limit
    }

    /// May `bytes` more be used for the last values of collapsed streams?
    pub(super) fn fits_input(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.state_limit - self.state_limit / RESERVED_SHARE
    }

    /// Somebody did not get memory: at the next flush others give some up.
    pub(super) fn starve(&self) {
        self.starving.store(true, Ordering::Relaxed);
    }

    /// Has somebody not got memory since this was last asked?
    pub(super) fn was_starved(&self) -> bool {
        self.starving.swap(false, Ordering::Relaxed)
    }

    /// Books that a part of the state has grown or shrunk.
    pub(super) fn resized(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Remembers streams that were counted, and are known no longer: their hashes, and when they
    /// started (0 if that is not known).
    pub(super) fn forget(&self, streams: impl Iterator<Item = (u64, u64)>) {
        let now = self.clock.unix_nanos();
        let mut forgotten = self.forgotten.lock();
        for (stream, start) in streams {
            forgotten.add(stream, if start == 0 { now } else { start });
        }
    }

    fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that all state takes.
    pub(super) fn bytes(&self) -> usize {
        self.used() + self.forgotten.lock().bytes()
    }

    pub(super) fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Publishes the global budgets.
    pub(super) fn publish(&self) {
        self.report.budgets(self.bytes(), self.memory_limit, self.series(), self.max_series);
    }
}

/// The regular expression of a pattern in which `*` stands for any text and `?` for one character.
fn glob_pattern(glob: &str) -> String {
    let mut pattern = "^(?s:".to_owned();
    for letter in glob.chars() {
        match letter {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push_str(")$");
    pattern
}
