//! `sending_queue` and `retry_on_failure`, with the Collector's keys.

use serde::Deserialize;

use crate::config::{ByteSize, Check, Duration, Validate};

/// In what a queue or a batch is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sizer {
    /// Whole requests.
    Requests,
    /// Spans, data points, log records.
    Items,
    /// Bytes of the OTLP message.
    Bytes,
}

impl Sizer {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Items => "items",
            Self::Bytes => "bytes",
        }
    }
}

/// What happens to a batch that finds the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The sender is told to come back later.
    #[default]
    Refuse,
    /// The batch is acknowledged, dropped and counted: other exporters of the pipeline go on.
    Drop,
}

/// `sending_queue`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct QueueConfig {
    /// Without a queue the sender waits for the backend's answer. Default true.
    pub enabled: bool,
    /// Requests on their way at once. Default 10.
    pub num_consumers: usize,
    /// How much the queue holds, what is on its way included, in units of `sizer`. Default 1000.
    pub queue_size: usize,
    /// The unit of `queue_size`. Default `requests`.
    pub sizer: Option<Sizer>,
    /// The sender waits for room instead of being refused. Default false.
    pub block_on_overflow: bool,
    /// The sender waits for the backend's answer. Default false.
    pub wait_for_result: bool,
    /// The storage extension that keeps the queue on disk. Default none: in memory.
    pub storage: Option<String>,
    /// How waiting requests are merged. Default: as the pipeline's `batch` processor says, else
    /// not at all.
    pub batch: Option<BatchConfig>,
    /// What happens to a batch that finds the queue full. Default `refuse`.
    pub on_full: OnFull,
    /// How many bytes of messages the queue holds at the most, on disk if it is there, whatever
    /// `sizer` says; does not apply where `sizer` is `bytes`. Default 256 MiB.
    pub max_bytes: ByteSize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: None,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: None,
            on_full: OnFull::Refuse,
            max_bytes: ByteSize::mib(256),
        }
    }
}

impl QueueConfig {
    /// The queue of an exporter that has none unless it is asked for (`debug`).
    #[must_use]
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    pub(super) fn sizer(&self) -> Sizer {
        self.sizer.unwrap_or(Sizer::Requests)
    }
}

impl Validate for QueueConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if !self.enabled {
            if self.storage.is_some() {
                check.warning(&["storage"], "has no effect without a queue: `enabled` is false");
            }
            return;
        }
        if self.num_consumers == 0 {
            check.error(
                &["num_consumers"],
                "`num_consumers` must be positive: it is how many requests are sent at once",
            );
        }
        if self.queue_size == 0 {
            check.error(
                &["queue_size"],
                "`queue_size` must be positive; to have no queue, write `sending_queue: {enabled: false}`",
            );
        }
        if self.max_bytes.0 == 0 {
            check.error(&["max_bytes"], "`max_bytes` must be positive: it bounds the bytes in the queue");
        }
        if self.block_on_overflow && self.on_full == OnFull::Drop {
            check.error(&["on_full"], "`on_full: drop` contradicts `block_on_overflow: true`: choose one");
        }
        if self.storage.is_some() && self.wait_for_result {
            check.error(
                &["wait_for_result"],
                "`wait_for_result` is not supported with a persistent queue configured with `storage`",
            );
        }
        if let Some(batch) = &self.batch {
            check.nested(&["batch"], batch);
            let batch_sizer = batch.sizer_under(self.sizer);
            let same_unit = self.sizer() == batch_sizer;
            if same_unit && batch.min_size > self.queue_size {
                let message = format!(
                    "`min_size` must be less than or equal to `queue_size`, and {} is more than {} {}",
                    batch.min_size,
                    self.queue_size,
                    batch_sizer.name()
                );
                check.error(&["batch", "min_size"], message);
            }
        }
    }
}

/// How queued requests are merged before they are sent (`sending_queue.batch`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct BatchConfig {
    /// Send at the latest after this time. Default 200ms.
    pub flush_timeout: Duration,
    /// Send as soon as this much is waiting, in units of `sizer`. Default 8192.
    pub min_size: usize,
    /// Never send more than this at once, in units of `sizer`; 0 for no bound. Default 0.
    pub max_size: usize,
    /// `items` or `bytes`. Default: the queue's sizer if that is one of them, else `items`.
    pub sizer: Option<Sizer>,
    /// Which requests may be merged with each other.
    pub partition: Partition,
}

/// `sending_queue.batch.partition`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Partition {
    /// Only requests whose clients sent the same values of these headers are merged. Default none.
    pub metadata_keys: Vec<String>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
            max_size: 0,
            sizer: None,
            partition: Partition::default(),
        }
    }
}

impl BatchConfig {
    /// The unit of its sizes, in a queue that is measured in `queue`.
    pub(super) fn sizer_under(&self, queue: Option<Sizer>) -> Sizer {
        let inherited = queue.filter(|&sizer| sizer != Sizer::Requests);
        self.sizer.or(inherited).unwrap_or(Sizer::Items)
    }
}

impl Validate for BatchConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.flush_timeout.0.is_zero() {
            check.error(&["flush_timeout"], "`flush_timeout` must be positive, for example 200ms");
        }
        if self.sizer == Some(Sizer::Requests) {
            check.error(&["sizer"], "`batch` supports only `items` or `bytes` sizer");
        }
        if self.max_size > 0 && self.max_size < self.min_size {
            let message =
                format!("`max_size` ({}) must be greater or equal to `min_size` ({})", self.max_size, self.min_size);
            check.error(&["max_size"], message);
        }
        let keys = &self.partition.metadata_keys;
        for (index, key) in keys.iter().enumerate() {
            if keys.iter().take(index).any(|earlier| earlier.eq_ignore_ascii_case(key)) {
                let message = format!("duplicate entry in metadata_keys: {key:?} (ignoring case)");
                check.error(&["partition", "metadata_keys"], message);
            }
        }
    }
}

/// `retry_on_failure`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct RetryConfig {
    /// Default true.
    pub enabled: bool,
    /// The first wait, before jitter. Default 5s.
    pub initial_interval: Duration,
    /// Waits are drawn from base * (1 - this) to base * (1 + this). Default 0.5.
    pub randomization_factor: f64,
    /// What the base grows by from wait to wait. Default 1.5.
    pub multiplier: f64,
    /// What the base grows to; jitter may exceed it. Default 30s.
    pub max_interval: Duration,
    /// Give up after this time: the last attempt is made so long after the first one; 0 for never.
    /// Default: 5m, or never where the queue is on disk.
    pub max_elapsed_time: Option<Duration>,
}

impl RetryConfig {
    /// How long a request in memory is tried if nothing is said.
    const PATIENCE: Duration = Duration::from_secs(300);

    /// How long a request is tried; zero for as long as it takes. What is `on_disk` is kept while the log
    /// has room, unless told otherwise.
    #[must_use]
    pub fn give_up_after(&self, on_disk: bool) -> std::time::Duration {
        let default = if on_disk { Duration::default() } else { Self::PATIENCE };
        self.max_elapsed_time.unwrap_or(default).0
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Duration::from_secs(30),
            max_elapsed_time: None,
        }
    }
}

/// `retry_on_failure` beside a `sending_queue`, which decides how long a request is tried if nothing is said.
#[derive(Debug)]
pub struct RetryBeside<'a> {
    retry: &'a RetryConfig,
    is_on_disk: bool,
}

impl RetryConfig {
    /// For [`Validate`]: what is on disk is tried for ever unless told otherwise.
    #[must_use]
    pub fn beside(&self, queue: &QueueConfig) -> RetryBeside<'_> {
        RetryBeside { retry: self, is_on_disk: queue.enabled && queue.storage.is_some() }
    }
}

/// Checked even when `enabled` is false, as in the Collector.
impl Validate for RetryBeside<'_> {
    fn validate(&self, check: &mut Check<'_>) {
        let Self { retry, is_on_disk } = *self;
        if !(0.0..=1.0).contains(&retry.randomization_factor) {
            let message =
                format!("'randomization_factor' must be within [0, 1], and {} is not", retry.randomization_factor);
            check.error(&["randomization_factor"], message);
        }
        if !retry.multiplier.is_finite() || retry.multiplier < 0.0 {
            let message = format!("'multiplier' must be non-negative, and {} is not", retry.multiplier);
            check.error(&["multiplier"], message);
        }
        let limit = retry.give_up_after(is_on_disk);
        if limit.is_zero() {
            return;
        }
        let whose = if retry.max_elapsed_time.is_none() { " (its default; 0 tries for ever)" } else { "" };
        for (name, interval) in [("initial_interval", retry.initial_interval), ("max_interval", retry.max_interval)] {
            if limit < interval.0 {
                let message = format!(
                    "'max_elapsed_time' must not be less than '{name}', and {limit:?}{whose} is less than {:?}",
                    interval.0
                );
                check.error(&["max_elapsed_time"], message);
            }
        }
    }
}

/// Of a queue in memory.
impl Validate for RetryConfig {
    fn validate(&self, check: &mut Check<'_>) {
        RetryBeside { retry: self, is_on_disk: false }.validate(check);
    }
}
