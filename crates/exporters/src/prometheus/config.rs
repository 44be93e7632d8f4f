//! The keys of the `prometheus` exporter.

use std::collections::BTreeMap;

use nyquist_core::config::{Check, Duration, Validate};
use nyquist_core::net::client::AuthConfig;
use nyquist_core::net::tls::ServerTlsConfig;
use serde::Deserialize;

use crate::prometheus_mapping::config::{
    ConstantLabels, ResourceConversion, check_resource_labels, namespace, resource_labels, strategy,
};
use crate::prometheus_mapping::{LabelRules, Settings, Strategy, label_name};

/// What the `prometheus` exporter is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct PrometheusConfig {
    /// Where to listen: `host:port`; port 0 for any free one. Required.
    pub endpoint: String,
    /// TLS; plaintext without it.
    pub tls: Option<ServerTlsConfig>,
    /// Who authenticates the scrapers.
    pub auth: Option<AuthConfig>,
    /// In front of every metric name. Default none.
    pub namespace: String,
    /// Labels of every series that does not have them already.
    pub const_labels: BTreeMap<String, String>,
    /// Give samples the time of their points; otherwise the scrape's time counts. Default false.
    pub send_timestamps: bool,
    /// A series without a new point for this long is gone. Default 5m.
    pub metric_expiration: Duration,
    /// All resource attributes become labels.
    pub resource_to_telemetry_conversion: ResourceConversion,
    /// Some resource attributes become labels.
    pub resource_constant_labels: ConstantLabels,
    /// Answer in OpenMetrics, with exemplars, when the scraper asks for it. Default false.
    pub enable_open_metrics: bool,
    /// Append unit and type to names. Default true. `translation_strategy` says more.
    pub add_metric_suffixes: bool,
    /// How names are translated. Default: as `add_metric_suffixes` says, with escaping.
    pub translation_strategy: String,
    /// Leave out the `otel_scope_*` labels. Default false.
    pub without_scope_info: bool,
    /// How many series are held; further ones are dropped and counted. Default 1000000.
    pub max_series: usize,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            tls: None,
            auth: None,
            namespace: String::new(),
            const_labels: BTreeMap::new(),
            send_timestamps: false,
            metric_expiration: Duration::from_secs(300),
            resource_to_telemetry_conversion: ResourceConversion::default(),
            resource_constant_labels: ConstantLabels::default(),
            enable_open_metrics: false,
            add_metric_suffixes: true,
            translation_strategy: String::new(),
            without_scope_info: false,
            max_series: 1_000_000,
        }
    }
}

impl PrometheusConfig {
    fn strategy(&self) -> Result<Strategy, String> {
        strategy(&self.translation_strategy, self.add_metric_suffixes)
    }

    fn label_rules(&self) -> LabelRules {
        let escape = self.strategy().map_or(true, Strategy::escapes);
        LabelRules { escape, collapse_underscores: false }
    }

    /// How metrics are translated; the configuration has been checked.
    pub(super) fn mapping(&self) -> Settings {
        let rules = self.label_rules();
        let labels = self.const_labels.iter();
        Settings {
            strategy: self.strategy().unwrap_or_default(),
            namespace: namespace(&self.namespace, self.strategy().unwrap_or_default()),
            external_labels: labels
                .filter_map(|(name, value)| Some((label_name(name, rules)?, value.clone())))
                .collect(),
            scope_labels: !self.without_scope_info,
            resource_labels: resource_labels(&self.resource_to_telemetry_conversion, &self.resource_constant_labels),
            target_info: true,
            collapse_underscores: false,
            accept_delta: true,
            ..Settings::default()
        }
    }
}

impl Validate for PrometheusConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.endpoint.is_empty() {
            check.error(&["endpoint"], "requires a non-empty \"endpoint\" to listen on, for example localhost:8889");
        } else if self.endpoint.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            let message = format!("{:?} must be host:port, for example localhost:8889", self.endpoint);
            check.error(&["endpoint"], message);
        }
        if let Err(problem) = self.strategy() {
            check.error(&["translation_strategy"], problem);
        }
        for (name, value) in &self.const_labels {
            if label_name(name, self.label_rules()).is_none() {
                check.error(&["const_labels"], format!("{name:?} cannot be the name of a label"));
            }
            if value.is_empty() {
                check.error(&["const_labels", name], "a label needs a value; remove the label or set one");
            }
        }
        if self.metric_expiration.0.is_zero() {
            check.error(&["metric_expiration"], "it must be positive: series without new points are kept this long");
        }
        if self.max_series == 0 {
            check.error(&["max_series"], "it must be positive: it bounds the memory that series take");
        }
        check_resource_labels(check, &self.resource_to_telemetry_conversion, &self.resource_constant_labels);
        if let Some(tls) = &self.tls {
            check.nested(&["tls"], tls);
        }
    }
}
