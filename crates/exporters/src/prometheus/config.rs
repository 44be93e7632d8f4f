//! The keys of the `prometheus` exporter.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use nyquist_core::config::{ByteSize, Check, Duration, Secret, Validate};
use nyquist_core::net::client::AuthConfig;
use nyquist_core::net::server::Family;
use nyquist_core::net::tls::ServerTlsConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::store::Bounds;
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
    /// `tcp`, `tcp4` or `tcp6`. Default `tcp`.
    pub transport: String,
    /// TLS; plaintext without it.
    pub tls: Option<ServerTlsConfig>,
    /// Who authenticates the scrapers.
    pub auth: Option<AuthConfig>,
    /// Headers of every reply.
    pub response_headers: BTreeMap<String, Secret>,
    /// How long a request's head may take, and how long a connection may wait for its next request; 0
    /// for ever. Default 5m.
    pub read_header_timeout: Duration,
    /// How long a reply may find no reader; 0 for ever. Default 0s.
    pub write_timeout: Duration,
    /// Connections without requests are closed after this time; 0 for never. Default 0s.
    pub idle_timeout: Duration,
    /// May HTTP/1 connections carry more than one request? Default true.
    pub keep_alives_enabled: bool,
    /// Accepted for the Collector's sake, like the three below: the bodies of scrapes are not read.
    pub read_timeout: Duration,
    /// See `read_timeout`.
    pub max_request_body_size: i64,
    /// See `read_timeout`.
    pub compression_algorithms: Option<Vec<String>>,
    /// Accepted for the Collector's sake: nothing comes in that could carry metadata.
    pub include_metadata: bool,
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
    /// What they may take in memory, roughly; further ones are dropped and counted. Default 1GiB.
    pub max_size: ByteSize,
    cors: Option<IgnoredAny>,
    middlewares: Vec<IgnoredAny>,
}

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            transport: "tcp".to_owned(),
            tls: None,
            auth: None,
            response_headers: BTreeMap::new(),
            read_header_timeout: Duration::from_secs(300),
            write_timeout: Duration::default(),
            idle_timeout: Duration::default(),
            keep_alives_enabled: true,
            read_timeout: Duration::default(),
            max_request_body_size: 0,
            compression_algorithms: None,
            include_metadata: false,
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
            max_size: ByteSize(1 << 30),
            cors: None,
            middlewares: Vec::new(),
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

    /// What the store may hold.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            series: self.max_series,
            bytes: usize::try_from(self.max_size.0).unwrap_or(usize::MAX),
            expiration: self.metric_expiration.0,
        }
    }

    /// Which addresses of the host to use.
    pub(super) fn family(&self) -> Option<Family> {
        match self.transport.as_str() {
            "" | "tcp" => Some(Family::Any),
            "tcp4" => Some(Family::V4),
            "tcp6" => Some(Family::V6),
            _ => None,
        }
    }

    /// The headers of every reply that can be sent; the configuration has been checked.
    pub(super) fn headers(&self) -> HeaderMap {
        let parse = |(name, value): (&String, &Secret)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.expose()).ok()?))
        };
        self.response_headers.iter().filter_map(parse).collect()
    }

    fn check_server(&self, check: &mut Check<'_>) {
        if self.family().is_none() {
            check.error(&["transport"], format!("unknown transport {:?}: use tcp, tcp4 or tcp6", self.transport));
        }
        for (name, value) in &self.response_headers {
            if HeaderName::try_from(name).is_err() {
                check.error(&["response_headers", name], "is not a header name");
            } else if HeaderValue::from_str(value.expose()).is_err() {
                check.error(&["response_headers", name], "its value has characters that headers cannot have");
            }
        }
        if let Some(tls) = &self.tls {
            check.nested(&["tls"], tls);
        }
        for (key, is_set, instead) in [
            ("cors", self.cors.is_some(), "remove it: web pages do not scrape; let Prometheus answer them"),
            ("middlewares", !self.middlewares.is_empty(), "remove it: there are no middleware extensions"),
        ] {
            if is_set {
                check.error_with(&[key], format!("{key} is not supported"), instead);
            }
        }
        let unread = [
            ("read_timeout", !self.read_timeout.0.is_zero()),
            ("max_request_body_size", self.max_request_body_size != 0),
            ("compression_algorithms", self.compression_algorithms.is_some()),
            ("include_metadata", self.include_metadata),
        ];
        for (key, _) in unread.iter().filter(|(_, is_set)| *is_set) {
            check.warning(&[key], "has no effect: what a scraper sends along with its request is not read");
        }
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
        if self.max_size.0 == 0 {
            check.error(&["max_size"], "it must be positive: it bounds the memory that series take");
        }
        self.check_server(check);
        check_resource_labels(check, &self.resource_to_telemetry_conversion, &self.resource_constant_labels);
    }
}
