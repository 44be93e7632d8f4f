//! `service.telemetry`: the gateway's own logs and metrics.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Check, ComponentId, Duration, Validate};
use crate::telemetry::logs::Encoding;

/// The `service` section as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServiceSection {
    pub(super) extensions: Vec<ComponentId>,
    pub(super) pipelines: BTreeMap<String, PipelineSection>,
    pub(super) telemetry: TelemetrySection,
}

impl Validate for ServiceSection {
    fn validate(&self, check: &mut Check<'_>) {
        check.nested(&["telemetry"], &self.telemetry);
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PipelineSection {
    pub(super) receivers: Vec<ComponentId>,
    pub(super) processors: Vec<ComponentId>,
    pub(super) exporters: Vec<ComponentId>,
}

/// `service.telemetry` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TelemetrySection {
    logs: LogsSection,
    metrics: MetricsSection,
    traces: TracesSection,
    resource: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct LogsSection {
    level: LogLevel,
    encoding: Encoding,
    development: bool,
    disable_caller: bool,
    disable_stacktrace: bool,
    disable_zap_resource: bool,
    sampling: Option<LogSampling>,
    output_paths: Vec<String>,
    error_output_paths: Vec<String>,
    initial_fields: BTreeMap<String, Value>,
    processors: Vec<Value>,
}

impl Default for LogsSection {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            encoding: Encoding::Console,
            development: false,
            disable_caller: false,
            disable_stacktrace: false,
            disable_zap_resource: false,
            sampling: None,
            output_paths: vec!["stderr".to_owned()],
            error_output_paths: vec!["stderr".to_owned()],
            initial_fields: BTreeMap::new(),
            processors: Vec::new(),
        }
    }
}

/// How much the gateway logs (`service.telemetry.logs.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    #[serde(alias = "DEBUG", alias = "Debug")]
    Debug,
    /// What happens.
    #[default]
    #[serde(alias = "INFO", alias = "Info")]
    Info,
    /// What deserves attention.
    #[serde(alias = "WARN", alias = "Warn", alias = "warning", alias = "WARNING")]
    Warn,
    /// What went wrong; the Collector's `dpanic`, `panic` and `fatal` too.
    #[serde(alias = "ERROR", alias = "Error", alias = "dpanic", alias = "panic", alias = "fatal")]
    Error,
}

impl LogLevel {
    /// Its name: `debug`, `info`, `warn`, `error`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The Collector's log sampling. Its keys are checked and otherwise unused: the gateway's own logs are
/// written in full.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct LogSampling {
    enabled: bool,
    tick: Duration,
    initial: u64,
    thereafter: u64,
}

impl Default for LogSampling {
    fn default() -> Self {
        Self { enabled: true, tick: Duration::from_secs(10), initial: 10, thereafter: 100 }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MetricsSection {
    level: MetricsLevel,
    address: Option<String>,
    readers: Option<Vec<Reader>>,
    views: Vec<Value>,
}

/// How many metrics the gateway has of itself (`service.telemetry.metrics.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsLevel {
    /// None, and nothing listens.
    #[serde(alias = "None", alias = "NONE")]
    None,
    /// The essential ones.
    #[serde(alias = "Basic", alias = "BASIC")]
    Basic,
    /// The default.
    #[default]
    #[serde(alias = "Normal", alias = "NORMAL")]
    Normal,
    /// All of them.
    #[serde(alias = "Detailed", alias = "DETAILED")]
    Detailed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reader {
    pull: Option<Pull>,
    periodic: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pull {
    exporter: PullExporter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PullExporter {
    prometheus: PrometheusReader,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct PrometheusReader {
    host: String,
    port: u16,
    without_type_suffix: bool,
    without_units: bool,
    without_scope_info: bool,
    with_resource_constant_labels: Labels,
}

impl Default for PrometheusReader {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8888,
            without_type_suffix: true,
            without_units: true,
            without_scope_info: true,
            with_resource_constant_labels: Labels::default(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Labels {
    included: Vec<String>,
    excluded: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TracesSection {
    level: MetricsLevel,
    propagators: Vec<String>,
    processors: Vec<Value>,
    sampler: Option<Value>,
}

impl Validate for TelemetrySection {
    fn validate(&self, check: &mut Check<'_>) {
        self.validate_logs(check);
        self.validate_metrics(check);
        if !self.traces.processors.is_empty() {
            check.warning(&["traces", "processors"], "not yet: the gateway sends no traces of itself");
        }
        if self.traces.sampler.is_some() {
            check.warning(&["traces", "sampler"], "not yet: the gateway sends no traces of itself");
        }
        let _ = (self.traces.level, &self.traces.propagators);
    }
}

impl TelemetrySection {
    fn validate_logs(&self, check: &mut Check<'_>) {
        let logs = &self.logs;
        for (key, paths) in [("output_paths", &logs.output_paths), ("error_output_paths", &logs.error_output_paths)] {
            if paths.iter().any(|path| path != "stderr") {
                check.warning(&["logs", key], "not yet: the gateway logs to standard error only");
            }
        }
        if !logs.processors.is_empty() {
            check.warning(&["logs", "processors"], "not yet: the gateway logs to standard error only");
        }
        if !logs.initial_fields.is_empty() {
            check.warning(&["logs", "initial_fields"], "not yet: log lines have no fields beside their own");
        }
        if let Some(sampling) = &logs.sampling {
            let is_sampling = sampling.enabled && sampling.tick > Duration::default();
            if is_sampling && (sampling.initial, sampling.thereafter) != (10, 100) {
                check.warning(&["logs", "sampling"], "not yet: the gateway's own logs are written in full");
            }
        }
        // Without effect in either position: log lines carry neither callers, stack traces nor the resource.
        let _ = (logs.development, logs.disable_caller, logs.disable_stacktrace, logs.disable_zap_resource);
    }

    fn validate_metrics(&self, check: &mut Check<'_>) {
        let metrics = &self.metrics;
        if !metrics.views.is_empty() {
            check.warning(&["metrics", "views"], "not yet: the gateway's own metrics are served as they are");
        }
        if let Some(address) = &metrics.address {
            match split_address(address) {
                Err(message) => check.error(&["metrics", "address"], message),
                Ok(_) if metrics.readers.is_some() => {
                    check.warning(&["metrics", "address"], "ignored, since readers say where metrics are served");
                }
                Ok(_) => check.warning(
                    &["metrics", "address"],
                    "replaced by readers in newer Collectors; accepted as readers: [{pull: {exporter: {prometheus: {host, port}}}}]",
                ),
            }
        }
        let Some(readers) = &metrics.readers else { return };
        if readers.is_empty() && metrics.address.is_none() && metrics.level != MetricsLevel::None {
            check.error(
                &["metrics", "readers"],
                "collector telemetry metrics reader should exist when metric level is not none",
            );
        }
        let mut pulls = 0;
        for (index, reader) in readers.iter().enumerate() {
            let at = index.to_string();
            if reader.periodic.is_some() {
                let message = "not yet: the gateway's own metrics are not pushed, only served for scraping";
                check.warning(&["metrics", "readers", &at, "periodic"], message);
            }
            if let Some(pull) = &reader.pull {
                let page = &pull.exporter.prometheus;
                let labels = &page.with_resource_constant_labels;
                for (key, is_set) in [
                    ("without_units", !page.without_units),
                    ("without_scope_info", !page.without_scope_info),
                    ("with_resource_constant_labels", !labels.included.is_empty() || !labels.excluded.is_empty()),
                ] {
                    if is_set {
                        let path = ["metrics", "readers", &at, "pull", "exporter", "prometheus", key];
                        check.warning(&path, "not yet: names have no units, series no scope or resource labels");
                    }
                }
                pulls += 1;
                if pulls > 1 {
                    check.warning(&["metrics", "readers", &at], "not yet: only the first Prometheus reader is served");
                }
            }
            if reader.pull.is_none() && reader.periodic.is_none() {
                check.error(&["metrics", "readers", &at], "a reader is either pull or periodic");
            }
        }
    }

    /// The section as the code uses it.
    pub(super) fn into_config(self) -> TelemetryConfig {
        let mut readers = self.metrics.readers.unwrap_or_default().into_iter();
        let mut page = readers.find_map(|reader| reader.pull).map(|pull| pull.exporter.prometheus).unwrap_or_default();
        if let Some(Ok((host, port))) = self.metrics.address.as_deref().map(split_address) {
            (page.host, page.port) = (host, port);
        }
        let host = if page.host.contains(':') { format!("[{}]", page.host) } else { page.host };
        let endpoint = (self.metrics.level != MetricsLevel::None).then(|| format!("{host}:{}", page.port));
        TelemetryConfig {
            log_level: self.logs.level,
            log_encoding: self.logs.encoding,
            metrics: MetricsConfig {
                level: self.metrics.level,
                endpoint,
                without_type_suffix: page.without_type_suffix,
                without_units: page.without_units,
                without_scope_info: page.without_scope_info,
                resource_labels_included: page.with_resource_constant_labels.included,
                resource_labels_excluded: page.with_resource_constant_labels.excluded,
            },
            resource: resource(self.resource),
        }
    }
}

/// The gateway's own logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// `logs.level`; default info.
    pub log_level: LogLevel,
    /// `logs.encoding`; default console.
    pub log_encoding: Encoding,
    /// `metrics`.
    pub metrics: MetricsConfig,
    /// `resource`: attributes to set, and with `None` those not to have.
    pub resource: Vec<(String, Option<String>)>,
}

/// What no section at all means.
impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetrySection::default().into_config()
    }
}

/// The gateway's own metrics, served for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// `level`; default normal.
    pub level: MetricsLevel,
    /// Where they are served, `host:port`; default `localhost:8888`. `None` with level none.
    pub endpoint: Option<String>,
    /// Whether counters are named without `_total`; default true.
    pub without_type_suffix: bool,
    /// Whether names are without their unit; default true.
    pub without_units: bool,
    /// Whether series are without scope labels; default true.
    pub without_scope_info: bool,
    /// Resource attributes that every series has as labels: patterns with `*`.
    pub resource_labels_included: Vec<String>,
    /// Exceptions from `resource_labels_included`.
    pub resource_labels_excluded: Vec<String>,
}

/// `host:port`; no host means every address.
fn split_address(address: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{address:?} is not host:port");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((if host.is_empty() { "0.0.0.0" } else { host }.to_owned(), port))
}

fn resource(section: BTreeMap<String, Value>) -> Vec<(String, Option<String>)> {
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let mut attributes = Vec::new();
    for (key, value) in section {
        match (key.as_str(), value) {
            // The declarative form: attributes: [{name: ..., value: ...}].
            ("attributes", Value::Array(items)) => {
                for item in items {
                    let name = item.get("name").and_then(Value::as_str).map(str::to_owned);
                    let value = item.get("value").cloned().unwrap_or_default();
                    attributes.extend(name.map(|name| (name, text(value))));
                }
            }
            ("schema_url" | "detectors", _) => {}
            (_, value) => attributes.push((key, text(value))),
        }
    }
    attributes
}
