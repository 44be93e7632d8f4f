//! The keys of the `prometheus_remote_write` exporter.

mod blocks;
mod bounds;
mod http;

use std::collections::BTreeMap;

use nyquist_core::config::{ByteSize, Check, Duration, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use serde::Deserialize;

pub use blocks::{DropOutOfOrder, RemoteWriteQueue, RemoteWriteRetry, TargetInfoConfig};
pub use bounds::LeFormat;

use super::outgoing::Limits;
use super::protocol::{AUTO, MESSAGE_V1, MESSAGE_V2};
use super::wal::WalConfig;
use crate::http_client::HttpClientConfig;
use crate::prometheus_mapping::config::{
    ConstantLabels, ResourceConversion, check_resource_labels, namespace, resource_labels, strategy,
};
use crate::prometheus_mapping::{CustomBuckets, LabelRules, Settings, Strategy, glob, label_name};

/// Words of `delta`.
const DROP: &str = "drop";
pub(super) const ACCUMULATE: &str = "accumulate";

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
const MAX_BATCH_SIZE: usize = 3_000_000;
const MAX_SAMPLES: usize = 10_000;

/// What the `prometheus_remote_write` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct RemoteWriteConfig {
    /// How requests are sent: to its `endpoint`, which is required. `timeout` is 5s by default; `compression` is always
    /// `snappy`, which the protocol prescribes.
    #[serde(rename = "nyquist::flat")]
    pub client: HttpClientConfig,
    /// The same settings in a block of their own, which wins if it is there.
    pub http: Option<HttpClientConfig>,
    /// In front of every metric name. Default none.
    pub namespace: String,
    /// Labels of every series that does not have them already.
    pub external_labels: BTreeMap<String, String>,
    /// External labels overwrite labels of their names. Default false.
    pub external_labels_override: bool,
    /// What becomes of delta temporality: `drop`, or `accumulate` to totals. Default `drop`.
    pub delta: String,
    /// The total of a delta stream without points for this long is forgotten. Default 5m.
    pub delta_max_stale: Duration,
    /// A series without points for this long ends with a stale marker; 0 for never. Default 0s.
    pub stale_after: Duration,
    /// What the totals, and the series that may be ended, may take in memory each. Default 256MiB.
    pub max_stream_state: ByteSize,
    /// Append unit and type to names. Default true. `translation_strategy` says more.
    pub add_metric_suffixes: bool,
    /// How names are translated. Default: as `add_metric_suffixes` says, with escaping.
    pub translation_strategy: String,
    /// Turn `a..b` into the label `a_b` rather than `a__b`. Default false.
    pub collapse_underscores: bool,
    /// How bounds and quantiles are written: `plain` (`1`), or `openmetrics` (`1.0`) as Prometheus 3 does
    /// when it scrapes. Default `plain`.
    pub le_format: LeFormat,
    /// Leave out the `otel_scope_*` labels. Default false.
    pub disable_scope_info: bool,
    /// All resource attributes become labels.
    pub resource_to_telemetry_conversion: ResourceConversion,
    /// Some resource attributes become labels.
    pub resource_constant_labels: ConstantLabels,
    /// The `target_info` series.
    pub target_info: TargetInfoConfig,
    /// Send type, help and unit of metrics, when they change and once a minute. Default false.
    pub send_metadata: bool,
    /// `prometheus.WriteRequest` (remote write 1.0), `io.prometheus.write.v2.Request` (2.0), or
    /// `auto`: 2.0 where the backend takes it, else 1.0. Default `auto`.
    pub protobuf_message: String,
    /// Send exponential histograms as native ones; otherwise their count and sum, as classic ones without
    /// buckets. Default true.
    pub native_histograms: bool,
    /// Send histograms with explicit bounds as native ones with custom buckets; remote write 2.0
    /// only. Default false.
    pub convert_explicit_histograms_to_nhcb: bool,
    /// Send them as classic ones, too. Default false.
    pub keep_classic_histograms: bool,
    /// The size of a request before compression, in bytes. Default 3000000.
    pub max_batch_size_bytes: usize,
    /// How many samples a request holds. Default 2000, at most 10000.
    pub max_samples_per_send: usize,
    /// Leave out samples that are not later than the one that their series was delivered with.
    pub drop_out_of_order: DropOutOfOrder,
    /// Requests on their way at once, each of other series. Default: `remote_write_queue.num_consumers`.
    pub max_batch_request_parallelism: Option<usize>,
    /// Client metadata to send on as headers.
    pub include_metadata_keys: Vec<String>,
    /// Try again after 429 Too Many Requests. Default true.
    pub retry_on_429: bool,
    /// The queue, in the words of all exporters. Default: as `remote_write_queue` says.
    pub sending_queue: Option<QueueConfig>,
    /// The queue, in the Collector's words.
    pub remote_write_queue: RemoteWriteQueue,
    /// The retries.
    pub retry_on_failure: RemoteWriteRetry,
    /// The queue on disk in the Collector's words: in a directory of this exporter's own.
    pub wal: Option<WalConfig>,
}

impl Default for RemoteWriteConfig {
    fn default() -> Self {
        Self {
            client: HttpClientConfig::default(),
            http: None,
            namespace: String::new(),
            external_labels: BTreeMap::new(),
            external_labels_override: false,
            delta: DROP.to_owned(),
            delta_max_stale: Duration::from_secs(300),
            stale_after: Duration::default(),
            max_stream_state: ByteSize(256 << 20),
            add_metric_suffixes: true,
            translation_strategy: String::new(),
            collapse_underscores: false,
            le_format: LeFormat::Plain,
            disable_scope_info: false,
            resource_to_telemetry_conversion: ResourceConversion::default(),
            resource_constant_labels: ConstantLabels::default(),
            target_info: TargetInfoConfig::default(),
            send_metadata: false,
            protobuf_message: AUTO.to_owned(),
            native_histograms: true,
            convert_explicit_histograms_to_nhcb: false,
            keep_classic_histograms: false,
            max_batch_size_bytes: MAX_BATCH_SIZE,
            max_samples_per_send: 2000,
            drop_out_of_order: DropOutOfOrder::default(),
            max_batch_request_parallelism: None,
            include_metadata_keys: Vec::new(),
            retry_on_429: true,
            sending_queue: None,
            remote_write_queue: RemoteWriteQueue::default(),
            retry_on_failure: RemoteWriteRetry::default(),
            wal: None,
        }
    }
}

impl RemoteWriteConfig {
    /// The HTTP settings that apply.
    pub(super) fn client(&self) -> &HttpClientConfig {
        self.http.as_ref().unwrap_or(&self.client)
    }

    /// Where these settings stand.
    pub(super) fn client_path(&self) -> &'static [&'static str] {
        if self.http.is_some() { &["http"] } else { &[] }
    }

    /// How long one attempt may take; zero for no bound.
    pub(super) fn timeout(&self) -> std::time::Duration {
        self.client().timeout.or(self.client.timeout).map_or(TIMEOUT, |timeout| timeout.0)
    }

    /// The queue that applies.
    pub(super) fn queue(&self) -> QueueConfig {
        let RemoteWriteQueue { enabled, queue_size, num_consumers } = self.remote_write_queue;
        let in_memory = || QueueConfig { enabled, queue_size, num_consumers, ..QueueConfig::default() };
        let default = || self.wal.as_ref().map_or_else(in_memory, WalConfig::queue);
        self.sending_queue.clone().unwrap_or_else(default)
    }

    /// How many requests are on their way at once.
    pub(super) fn shards(&self) -> usize {
        self.max_batch_request_parallelism.unwrap_or(self.remote_write_queue.num_consumers)
    }

    /// How many series each shard remembers the last time of.
    pub(super) fn ordered_series(&self) -> usize {
        let DropOutOfOrder { enabled, max_series } = self.drop_out_of_order;
        if enabled { max_series.div_ceil(self.shards().max(1)) } else { 0 }
    }

    pub(super) fn limits(&self) -> Limits {
        let bytes = if self.max_batch_size_bytes == 0 { MAX_BATCH_SIZE } else { self.max_batch_size_bytes };
        Limits { bytes, samples: self.max_samples_per_send }
    }

    /// How long a request is tried; zero for as long as it takes.
    fn give_up_after(&self) -> Duration {
        if self.wal.is_some() {
            // As in the Collector, whatever `retry_on_failure` says.
            return Duration::default();
        }
        let queue = self.queue();
        let is_on_disk = queue.enabled && queue.storage.is_some();
        let default = Duration::from_secs(if is_on_disk { 0 } else { 300 });
        self.retry_on_failure.max_elapsed_time.unwrap_or(default)
    }

    pub(super) fn retry(&self) -> RetryConfig {
        let retry = self.retry_on_failure.clone();
        RetryConfig {
            enabled: retry.enabled || self.wal.is_some(),
            initial_interval: retry.initial_interval,
            randomization_factor: retry.randomization_factor,
            multiplier: retry.multiplier,
            max_interval: retry.max_interval,
            // The shards that retry know of no disk.
            max_elapsed_time: Some(self.give_up_after()),
        }
    }

    /// How metrics are translated; the configuration has been checked.
    pub(super) fn mapping(&self) -> Settings {
        let rules = self.label_rules();
        let external = self.external_labels.iter();
        Settings {
            strategy: self.strategy(),
            native_histograms: self.native_histograms,
            namespace: namespace(&self.namespace, self.strategy()),
            external_labels: external
                .filter_map(|(name, value)| Some((label_name(name, rules)?, value.clone())))
                .collect(),
            scope_labels: !self.disable_scope_info,
            resource_labels: resource_labels(&self.resource_to_telemetry_conversion, &self.resource_constant_labels),
            target_info: self.target_info.enabled,
            collapse_underscores: self.collapse_underscores,
            custom_buckets: self.custom_buckets(),
            accept_delta: self.delta == ACCUMULATE,
            external_override: self.external_labels_override,
            needs_time: true,
            target_labels: self.target_info.labels.iter().filter_map(|pattern| glob(pattern).ok()).collect(),
        }
    }

    /// How histograms with explicit bounds are sent.
    fn custom_buckets(&self) -> CustomBuckets {
        match (self.convert_explicit_histograms_to_nhcb, self.keep_classic_histograms) {
            (false, _) => CustomBuckets::Off,
            (true, false) => CustomBuckets::Instead,
            (true, true) => CustomBuckets::Beside,
        }
    }

    fn strategy(&self) -> Strategy {
        strategy(&self.translation_strategy, self.add_metric_suffixes).unwrap_or_default()
    }

    fn label_rules(&self) -> LabelRules {
        LabelRules { escape: self.strategy().escapes(), collapse_underscores: self.collapse_underscores }
    }

    fn check_names(&self, check: &mut Check<'_>) {
        match strategy(&self.translation_strategy, self.add_metric_suffixes) {
            Ok(strategy) if strategy.escapes() || self.protobuf_message == MESSAGE_V2 => {}
            Ok(_) => check.error(
                &["translation_strategy"],
                format!(
                    "names outside of [a-zA-Z0-9_:] need remote write 2.0: set protobuf_message: {MESSAGE_V2}, if the \
                     backend takes it, or use UnderscoreEscapingWithSuffixes or UnderscoreEscapingWithoutSuffixes"
                ),
            ),
            Err(problem) => check.error(&["translation_strategy"], problem),
        }
        let rules = self.label_rules();
        for (name, value) in &self.external_labels {
            if label_name(name, rules).is_none() {
                check.error(&["external_labels"], format!("{name:?} cannot be the name of a label"));
            }
            if value.is_empty() {
                check.error(&["external_labels", name], "an external label needs a value; remove the label or set one");
            }
        }
        for pattern in &self.target_info.labels {
            if let Err(problem) = glob(pattern) {
                check.error(&["target_info", "labels"], problem);
            }
        }
        check_resource_labels(check, &self.resource_to_telemetry_conversion, &self.resource_constant_labels);
    }

    fn check_message(&self, check: &mut Check<'_>) {
        let message = self.protobuf_message.as_str();
        if !matches!(message, AUTO | MESSAGE_V1 | MESSAGE_V2) {
            check.error(
                &["protobuf_message"],
                format!("unknown message {message:?}: use {AUTO}, {MESSAGE_V2} or {MESSAGE_V1}"),
            );
        }
        if self.convert_explicit_histograms_to_nhcb && message != MESSAGE_V2 {
            let text = format!(
                "histograms with custom buckets must not be sent with remote write 1.0: set protobuf_message: {MESSAGE_V2}, \
                 if the backend takes it, or remove this key"
            );
            check.error(&["convert_explicit_histograms_to_nhcb"], text);
        }
        if self.convert_explicit_histograms_to_nhcb && !self.native_histograms {
            let text = "makes native histograms, and native_histograms: false says to send none: remove one of the two";
            check.error(&["convert_explicit_histograms_to_nhcb"], text);
        }
        if self.keep_classic_histograms && !self.convert_explicit_histograms_to_nhcb {
            let text = "has no effect without convert_explicit_histograms_to_nhcb: histograms are sent as classic ones";
            check.warning(&["keep_classic_histograms"], text);
        }
        if message == MESSAGE_V2 && self.send_metadata {
            check.warning(&["send_metadata"], "has no effect with remote write 2.0, which has metadata at each series");
        }
    }

    fn check_streams(&self, check: &mut Check<'_>) {
        if ![DROP, ACCUMULATE].contains(&self.delta.as_str()) {
            check.error(&["delta"], format!("unknown word {:?}: write drop or accumulate", self.delta));
        }
        if self.delta_max_stale.0.is_zero() {
            check.error(&["delta_max_stale"], "it must be positive: totals of silent streams are kept this long");
        }
        if self.max_stream_state.0 == 0 {
            check.error(&["max_stream_state"], "it must be positive: it bounds the memory that streams take");
        }
        if !self.stale_after.0.is_zero() && !self.include_metadata_keys.is_empty() {
            check.error(
                &["stale_after"],
                "cannot be used with include_metadata_keys: nobody would know with which headers to end a series",
            );
        }
    }

    fn check_sizes(&self, check: &mut Check<'_>) {
        if !(1..=MAX_SAMPLES).contains(&self.max_samples_per_send) {
            let message = format!("it must be from 1 to {MAX_SAMPLES}, and {} is not", self.max_samples_per_send);
            check.error(&["max_samples_per_send"], message);
        }
        if self.shards() == 0 {
            let path: &[&str] = match self.max_batch_request_parallelism {
                Some(_) => &["max_batch_request_parallelism"],
                None => &["remote_write_queue", "num_consumers"],
            };
            check.error(path, "it must be positive: it is how many requests are sent at once");
        }
        if self.drop_out_of_order.enabled && self.drop_out_of_order.max_series == 0 {
            check.error(
                &["drop_out_of_order", "max_series"],
                "it must be positive: it is how many series are remembered",
            );
        }
        if self.remote_write_queue.enabled && self.remote_write_queue.queue_size == 0 {
            check.error(
                &["remote_write_queue", "queue_size"],
                "it must be positive; to have no queue, write `remote_write_queue: {enabled: false}`",
            );
        }
        if let Some(queue) = &self.sending_queue {
            check.nested(&["sending_queue"], queue);
            if self.remote_write_queue != RemoteWriteQueue::default() {
                check.warning(&["remote_write_queue"], "sending_queue is set too, and wins, except for num_consumers");
            }
        }
    }
}

impl Validate for RemoteWriteConfig {
    fn validate(&self, check: &mut Check<'_>) {
        http::check(check, self.client_path(), self.client());
        let beside = HttpClientConfig { timeout: None, ..self.client.clone() };
        if self.http.is_some() && beside != HttpClientConfig::default() {
            let message = "has all settings of the HTTP client: those beside it, except timeout, have no effect; move \
                           them into it";
            check.warning(&["http"], message);
        }
        self.check_names(check);
        self.check_message(check);
        self.check_streams(check);
        self.check_sizes(check);
        for name in &self.include_metadata_keys {
            http::check_header(check, &["include_metadata_keys"], name);
        }
        check.nested(&["retry_on_failure"], &self.retry());
        if check.is_written(&["sending_queue", "num_consumers"]) {
            let message = "has no effect here: each series must stay in order, so shards send; set \
                           max_batch_request_parallelism for how many there are";
            check.warning(&["sending_queue", "num_consumers"], message);
        }
        if let Some(wal) = &self.wal {
            wal.check(check, self.sending_queue.as_ref());
        }
    }
}
