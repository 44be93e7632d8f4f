//! The keys of the `prometheus` receiver: Prometheus' own schema under `config`.

mod http;
mod relabel;
mod scrape;
mod targets;
mod unsupported;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use nyquist_core::config::{Check, Validate};
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use http::{Authorization, BasicAuth, TlsConfig};
pub use relabel::{Action, Anchored, RelabelConfig};
pub use scrape::{Protocol, ScrapeConfig};
pub(crate) use targets::check_address;
pub use targets::{FileSd, StaticConfig};
pub use values::{PromBytes, PromDuration};

use unsupported::{SCRAPE_ONLY, refuse};

/// What the `prometheus` receiver is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PrometheusConfig {
    /// A configuration of Prometheus, of which `global` and `scrape_configs` are used.
    pub config: PromConfig,
    /// Take `_total` and the unit off the names of metrics. Default false.
    pub trim_metric_suffixes: bool,
    /// Report `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` too.
    pub report_extra_scrape_metrics: bool,
    target_allocator: Option<IgnoredAny>,
    api_server: Option<IgnoredAny>,
    use_start_time_metric: bool,
    start_time_metric_regex: String,
}

/// `config`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PromConfig {
    /// What holds for all scrape configurations that do not say otherwise.
    pub global: Global,
    /// What to scrape.
    pub scrape_configs: Vec<ScrapeConfig>,
    scrape_config_files: Option<IgnoredAny>,
    rule_files: Option<IgnoredAny>,
    alerting: Option<IgnoredAny>,
    remote_write: Option<IgnoredAny>,
    remote_read: Option<IgnoredAny>,
    otlp: Option<IgnoredAny>,
    storage: Option<IgnoredAny>,
    tracing: Option<IgnoredAny>,
    runtime: Option<IgnoredAny>,
}

/// `config.global`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Global {
    /// How often to scrape. Default 1m.
    pub scrape_interval: PromDuration,
    /// How long a scrape may take. Default 10s, or `scrape_interval` if that is shorter.
    pub scrape_timeout: Option<PromDuration>,
    /// Which formats to ask for, best first.
    pub scrape_protocols: Option<Vec<Protocol>>,
    /// Labels of every series that does not have them already.
    pub external_labels: BTreeMap<String, String>,
    /// Largest body.
    pub body_size_limit: PromBytes,
    /// Most samples of a scrape; 0 for any number.
    pub sample_limit: u64,
    /// Most targets of a scrape configuration; 0 for any number.
    pub target_limit: u64,
    /// Most labels of a sample; 0 for any number.
    pub label_limit: u64,
    /// Longest name of a label, in bytes; 0 for any.
    pub label_name_length_limit: u64,
    /// Longest value of a label, in bytes; 0 for any.
    pub label_value_length_limit: u64,
    /// Accepted: there is no page that shows dropped targets.
    keep_dropped_targets: u64,
    /// Accepted: the rules it is for are refused.
    evaluation_interval: PromDuration,
    rule_query_offset: Option<IgnoredAny>,
    query_log_file: Option<IgnoredAny>,
    scrape_failure_log_file: Option<IgnoredAny>,
    metric_name_validation_scheme: String,
    metric_name_escaping_scheme: String,
    /// Take native histograms. Default false.
    pub scrape_native_histograms: bool,
    /// Take classic histograms beside native ones. Default false.
    pub always_scrape_classic_histograms: bool,
    convert_classic_histograms_to_nhcb: bool,
    extra_scrape_metrics: bool,
    runtime: Option<IgnoredAny>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: PromDuration::from_secs(60),
            scrape_timeout: None,
            scrape_protocols: None,
            external_labels: BTreeMap::new(),
            body_size_limit: PromBytes::default(),
            sample_limit: 0,
            target_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            keep_dropped_targets: 0,
            evaluation_interval: PromDuration::from_secs(60),
            rule_query_offset: None,
            query_log_file: None,
            scrape_failure_log_file: None,
            metric_name_validation_scheme: String::new(),
            metric_name_escaping_scheme: String::new(),
            scrape_native_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            extra_scrape_metrics: false,
            runtime: None,
        }
    }
}

impl Validate for PrometheusConfig {
    fn validate(&self, check: &mut Check<'_>) {
        refuse(
            check,
            "target_allocator",
            self.target_allocator.is_some(),
            "write the targets into static_configs, or let something write them into a file for file_sd_configs",
        );
        refuse(check, "api_server", self.api_server.is_some(), "remove it: own metrics say how scrapes go");
        let by_metric = self.use_start_time_metric || !self.start_time_metric_regex.is_empty();
        let key = if self.use_start_time_metric { "use_start_time_metric" } else { "start_time_metric_regex" };
        refuse(check, key, by_metric, "remove it: start times come from _created, else from the first scrape");
        if self.config.scrape_configs.is_empty() {
            check.error(&["config", "scrape_configs"], "there is nothing to scrape: add a scrape configuration");
        }
        check.nested(&["config"], &self.config);
    }
}

impl Validate for PromConfig {
    fn validate(&self, check: &mut Check<'_>) {
        for (key, value) in [
            ("rule_files", &self.rule_files),
            ("alerting", &self.alerting),
            ("remote_write", &self.remote_write),
            ("remote_read", &self.remote_read),
            ("otlp", &self.otlp),
            ("storage", &self.storage),
            ("tracing", &self.tracing),
            ("runtime", &self.runtime),
        ] {
            refuse(check, key, value.is_some(), SCRAPE_ONLY);
        }
        let files = "list what they hold under scrape_configs, or bring it in with ${file:...}";
        refuse(check, "scrape_config_files", self.scrape_config_files.is_some(), files);
        check.nested(&["global"], &self.global);
        let mut names = BTreeSet::new();
        for (index, scrape) in self.scrape_configs.iter().enumerate() {
            let index = index.to_string();
            check.nested(&["scrape_configs", &index], scrape);
            if !scrape.job_name.is_empty() && !names.insert(&scrape.job_name) {
                let message = format!("there are two scrape configurations with the job_name {:?}", scrape.job_name);
                check.error(&["scrape_configs", &index, "job_name"], message);
            }
            // The timeout of `global` gives way instead.
            let interval = scrape.interval(&self.global);
            if let Some(timeout) = scrape.scrape_timeout.filter(|timeout| *timeout > interval) {
                let message = format!("the scrape_timeout {timeout} is longer than the scrape_interval {interval}");
                check.error(&["scrape_configs", &index, "scrape_timeout"], message);
            }
        }
    }
}

impl Validate for Global {
    fn validate(&self, check: &mut Check<'_>) {
        unsupported::keep_dropped_targets(check);
        check.without_effect(&["evaluation_interval"], "it is for rules, which are not evaluated here");
        if self.scrape_interval.0.is_zero() {
            check.error(&["scrape_interval"], "must be longer than 0");
        }
        let interval = self.scrape_interval;
        if let Some(timeout) = self.scrape_timeout.filter(|timeout| *timeout > interval) {
            let message = format!("the scrape_timeout {timeout} is longer than the scrape_interval {interval}");
            check.error(&["scrape_timeout"], message);
        }
        for (key, value) in [
            ("rule_query_offset", &self.rule_query_offset),
            ("query_log_file", &self.query_log_file),
            ("runtime", &self.runtime),
        ] {
            refuse(check, key, value.is_some(), SCRAPE_ONLY);
        }
        refuse(check, "scrape_failure_log_file", self.scrape_failure_log_file.is_some(), unsupported::FAILURE_LOG);
        let nhcb = self.convert_classic_histograms_to_nhcb;
        refuse(check, "convert_classic_histograms_to_nhcb", nhcb, unsupported::NATIVE);
        unsupported::naming(check, &self.metric_name_validation_scheme, &self.metric_name_escaping_scheme);
        if self.scrape_protocols.as_ref().is_some_and(Vec::is_empty) {
            check.error(&["scrape_protocols"], "name at least one, or leave the key out");
        }
    }
}
