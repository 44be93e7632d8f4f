//! One of `scrape_configs`.

use std::collections::BTreeMap;

use nyquist_core::config::{Check, Secret, Validate};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http::{Authorization, BasicAuth, TlsConfig};
use super::relabel::RelabelConfig;
use super::targets::{FileSd, StaticConfig};
use super::unsupported::{self, refuse};
use super::{Global, PromBytes, PromDuration};
use crate::prometheus::exposition::protobuf::Natives;

/// What to scrape, and how.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ScrapeConfig {
    /// The `job` label. Required.
    pub job_name: String,
    /// How often to scrape; `global` says the default.
    pub scrape_interval: Option<PromDuration>,
    /// How long a scrape may take; `global` says the default.
    pub scrape_timeout: Option<PromDuration>,
    /// Which formats to ask for, best first.
    pub scrape_protocols: Option<Vec<Protocol>>,
    /// How to read what has no content type, or an unknown one. Default `PrometheusText0.0.4`.
    pub fallback_scrape_protocol: Option<Protocol>,
    /// The path of the page. Default `/metrics`.
    pub metrics_path: String,
    /// `http` or `https`. Default `http`.
    pub scheme: String,
    /// Query parameters.
    pub params: BTreeMap<String, Vec<String>>,
    /// Where a sample has a label of the target, keep the sample's; otherwise it is renamed to
    /// `exported_...`. Default false.
    pub honor_labels: bool,
    /// Keep timestamps that samples bring. Default true.
    pub honor_timestamps: bool,
    /// Mark series stale that bring timestamps, too. Default false.
    pub track_timestamps_staleness: bool,
    /// Targets, written out.
    pub static_configs: Vec<StaticConfig>,
    /// Targets from files, which are read again and again.
    pub file_sd_configs: Vec<FileSd>,
    /// Changes labels of targets, and drops targets.
    pub relabel_configs: Vec<RelabelConfig>,
    /// Changes labels of samples, and drops samples.
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// The `Authorization` header.
    pub authorization: Option<Authorization>,
    /// An old spelling of `authorization.credentials`.
    pub bearer_token: Secret,
    /// An old spelling of `authorization.credentials_file`.
    pub bearer_token_file: String,
    /// TLS.
    pub tls_config: TlsConfig,
    /// Further headers.
    pub http_headers: BTreeMap<String, HeaderValues>,
    /// Go where a target points. Default true.
    pub follow_redirects: bool,
    /// Ask for gzip. Default true.
    pub enable_compression: bool,
    /// Largest body; `global` says the default, and that is 256 MiB.
    pub body_size_limit: Option<PromBytes>,
    /// Most samples of a scrape; more fail it.
    pub sample_limit: Option<u64>,
    /// Most targets; more fail all of them.
    pub target_limit: Option<u64>,
    /// Most labels of a sample; more fail the scrape.
    pub label_limit: Option<u64>,
    /// Longest name of a label; a longer one fails the scrape.
    pub label_name_length_limit: Option<u64>,
    /// Longest value of a label; a longer one fails the scrape.
    pub label_value_length_limit: Option<u64>,
    /// How targets are asked to escape names outside the classic alphabet. Default `allow-utf-8`.
    pub metric_name_escaping_scheme: String,
    /// Report `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` too.
    pub extra_scrape_metrics: bool,
    /// Accepted: connections are HTTP/1.1.
    enable_http2: bool,
    /// Accepted: there is no page that shows dropped targets.
    keep_dropped_targets: Option<u64>,
    /// Take native histograms. Default false.
    pub scrape_native_histograms: Option<bool>,
    /// Take classic histograms beside native ones. Default false.
    pub always_scrape_classic_histograms: Option<bool>,
    /// An old spelling of that.
    pub scrape_classic_histograms: Option<bool>,
    metric_name_validation_scheme: String,
    convert_classic_histograms_to_nhcb: bool,
    native_histogram_bucket_limit: u64,
    native_histogram_min_bucket_factor: f64,
    scrape_failure_log_file: Option<IgnoredAny>,
    oauth2: Option<IgnoredAny>,
    proxy_url: String,
    no_proxy: Option<IgnoredAny>,
    proxy_from_environment: bool,
    proxy_connect_header: Option<IgnoredAny>,
    aws_sd_configs: Option<IgnoredAny>,
    azure_sd_configs: Option<IgnoredAny>,
    consul_sd_configs: Option<IgnoredAny>,
    digitalocean_sd_configs: Option<IgnoredAny>,
    dns_sd_configs: Option<IgnoredAny>,
    docker_sd_configs: Option<IgnoredAny>,
    dockerswarm_sd_configs: Option<IgnoredAny>,
    ec2_sd_configs: Option<IgnoredAny>,
    eureka_sd_configs: Option<IgnoredAny>,
    gce_sd_configs: Option<IgnoredAny>,
    hetzner_sd_configs: Option<IgnoredAny>,
    http_sd_configs: Option<IgnoredAny>,
    ionos_sd_configs: Option<IgnoredAny>,
    kubernetes_sd_configs: Option<IgnoredAny>,
    kuma_sd_configs: Option<IgnoredAny>,
    lightsail_sd_configs: Option<IgnoredAny>,
    linode_sd_configs: Option<IgnoredAny>,
    marathon_sd_configs: Option<IgnoredAny>,
    nerve_sd_configs: Option<IgnoredAny>,
    nomad_sd_configs: Option<IgnoredAny>,
    openstack_sd_configs: Option<IgnoredAny>,
    ovhcloud_sd_configs: Option<IgnoredAny>,
    puppetdb_sd_configs: Option<IgnoredAny>,
    scaleway_sd_configs: Option<IgnoredAny>,
    serverset_sd_configs: Option<IgnoredAny>,
    stackit_sd_configs: Option<IgnoredAny>,
    triton_sd_configs: Option<IgnoredAny>,
    uyuni_sd_configs: Option<IgnoredAny>,
    vultr_sd_configs: Option<IgnoredAny>,
}

/// The values of one of `http_headers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderValues {
    /// As they are.
    pub values: Vec<String>,
    /// As they are; not printed.
    pub secrets: Vec<Secret>,
    files: Option<IgnoredAny>,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            job_name: String::new(),
            scrape_interval: None,
            scrape_timeout: None,
            scrape_protocols: None,
            fallback_scrape_protocol: None,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            basic_auth: None,
            authorization: None,
            bearer_token: Secret::default(),
            bearer_token_file: String::new(),
            tls_config: TlsConfig::default(),
            http_headers: BTreeMap::new(),
            follow_redirects: true,
            enable_compression: true,
            body_size_limit: None,
            sample_limit: None,
            target_limit: None,
            label_limit: None,
            label_name_length_limit: None,
            label_value_length_limit: None,
            metric_name_escaping_scheme: String::new(),
            extra_scrape_metrics: false,
            enable_http2: true,
            keep_dropped_targets: None,
            always_scrape_classic_histograms: None,
            scrape_classic_histograms: None,
            metric_name_validation_scheme: String::new(),
            scrape_native_histograms: None,
            convert_classic_histograms_to_nhcb: false,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            scrape_failure_log_file: None,
            oauth2: None,
            proxy_url: String::new(),
            no_proxy: None,
            proxy_from_environment: false,
            proxy_connect_header: None,
            aws_sd_configs: None,
            azure_sd_configs: None,
            consul_sd_configs: None,
            digitalocean_sd_configs: None,
            dns_sd_configs: None,
            docker_sd_configs: None,
            dockerswarm_sd_configs: None,
            ec2_sd_configs: None,
            eureka_sd_configs: None,
            gce_sd_configs: None,
            hetzner_sd_configs: None,
            http_sd_configs: None,
            ionos_sd_configs: None,
            kubernetes_sd_configs: None,
            kuma_sd_configs: None,
            lightsail_sd_configs: None,
            linode_sd_configs: None,
            marathon_sd_configs: None,
            nerve_sd_configs: None,
            nomad_sd_configs: None,
            openstack_sd_configs: None,
            ovhcloud_sd_configs: None,
            puppetdb_sd_configs: None,
            scaleway_sd_configs: None,
            serverset_sd_configs: None,
            stackit_sd_configs: None,
            triton_sd_configs: None,
            uyuni_sd_configs: None,
            vultr_sd_configs: None,
        }
    }
}

/// A format to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// Prometheus' protobuf messages: the only ones with native histograms.
    PrometheusProto,
    /// The classic text format.
    #[serde(rename = "PrometheusText0.0.4")]
    PrometheusText004,
    /// The same with quoted UTF-8 names.
    #[serde(rename = "PrometheusText1.0.0")]
    PrometheusText100,
    /// OpenMetrics.
    #[serde(rename = "OpenMetricsText0.0.1")]
    OpenMetricsText001,
    /// OpenMetrics.
    #[serde(rename = "OpenMetricsText1.0.0")]
    OpenMetricsText100,
}

impl Protocol {
    /// What is asked for if nothing else is said.
    pub(crate) const DEFAULT: [Self; 4] =
        [Self::OpenMetricsText100, Self::OpenMetricsText001, Self::PrometheusText100, Self::PrometheusText004];

    /// The same, for native histograms.
    pub(crate) const DEFAULT_NATIVE: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText100,
        Self::OpenMetricsText001,
        Self::PrometheusText100,
        Self::PrometheusText004,
    ];

    /// Its media type in an `Accept` header.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText004 => "text/plain;version=0.0.4",
            Self::PrometheusText100 => "text/plain;version=1.0.0",
            Self::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText100 => "application/openmetrics-text;version=1.0.0",
        }
    }
}

impl ScrapeConfig {
    /// Which formats to ask for.
    pub(crate) fn protocols<'c>(&'c self, global: &'c Global) -> &'c [Protocol] {
        let chosen = self.scrape_protocols.as_deref().or(global.scrape_protocols.as_deref());
        let is_native = self.natives(global) != Natives::Ignored;
        chosen.unwrap_or(if is_native { &Protocol::DEFAULT_NATIVE } else { &Protocol::DEFAULT })
    }

    /// What to do with native histograms.
    pub(crate) fn natives(&self, global: &Global) -> Natives {
        let classic = self.always_scrape_classic_histograms.or(self.scrape_classic_histograms);
        match self.scrape_native_histograms.unwrap_or(global.scrape_native_histograms) {
            false => Natives::Ignored,
            true if classic.unwrap_or(global.always_scrape_classic_histograms) => Natives::Beside,
            true => Natives::Instead,
        }
    }

    /// How often to scrape.
    #[must_use]
    pub fn interval(&self, global: &Global) -> PromDuration {
        self.scrape_interval.filter(|interval| !interval.0.is_zero()).unwrap_or(global.scrape_interval)
    }

    /// How long a scrape may take. What `global` says gives way to a shorter interval.
    #[must_use]
    pub fn timeout(&self, global: &Global) -> PromDuration {
        let default = PromDuration::from_secs(10);
        let timeout = self.scrape_timeout.or(global.scrape_timeout).filter(|timeout| !timeout.0.is_zero());
        timeout.unwrap_or(default).min(self.interval(global))
    }
}

impl Validate for ScrapeConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.job_name.is_empty() {
            check.error(&["job_name"], "job_name is missing: it becomes the job label, and service.name");
        }
        if self.scrape_interval.is_some_and(|interval| interval.0.is_zero()) {
            check.error(&["scrape_interval"], "must be longer than 0");
        }
        if !matches!(self.scheme.as_str(), "http" | "https") {
            check.error(&["scheme"], format!("unknown scheme {:?}: there are http and https", self.scheme));
        }
        self.validate_requests(check);
        for (index, group) in self.static_configs.iter().enumerate() {
            check.nested(&["static_configs", &index.to_string()], group);
        }
        for (index, files) in self.file_sd_configs.iter().enumerate() {
            check.nested(&["file_sd_configs", &index.to_string()], files);
        }
        for (key, rules) in
            [("relabel_configs", &self.relabel_configs), ("metric_relabel_configs", &self.metric_relabel_configs)]
        {
            for (index, rule) in rules.iter().enumerate() {
                check.nested(&[key, &index.to_string()], rule);
            }
        }
        unsupported::naming(check, &self.metric_name_validation_scheme, &self.metric_name_escaping_scheme);
        let asks = self.scrape_protocols.as_ref().is_none_or(|chosen| chosen.contains(&Protocol::PrometheusProto));
        if self.scrape_native_histograms == Some(true) && !asks {
            let message = "only PrometheusProto has native histograms: add it, or leave the key out";
            check.error(&["scrape_protocols"], message);
        }
        if self.scrape_protocols.as_ref().is_some_and(Vec::is_empty) {
            check.error(&["scrape_protocols"], "name at least one, or leave the key out");
        }
        check.without_effect(&["enable_http2"], "targets are scraped over HTTP/1.1");
        unsupported::keep_dropped_targets(check);
        self.refuse_unsupported(check);
    }
}

impl ScrapeConfig {
    fn validate_requests(&self, check: &mut Check<'_>) {
        if let Some(auth) = &self.basic_auth {
            check.nested(&["basic_auth"], auth);
        }
        if let Some(auth) = &self.authorization {
            check.nested(&["authorization"], auth);
        }
        check.nested(&["tls_config"], &self.tls_config);
        let ways = [
            ("basic_auth", self.basic_auth.is_some()),
            ("authorization", self.authorization.is_some()),
            ("bearer_token", !self.bearer_token.expose().is_empty()),
            ("bearer_token_file", !self.bearer_token_file.is_empty()),
        ];
        let set: Vec<&str> = ways.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect();
        if let [_, second, ..] = set.as_slice() {
            check.error(&[second], format!("at most one of {} may be set", set.join(", ")));
        }
        for (name, header) in &self.http_headers {
            let path = ["http_headers", name.as_str()];
            const RESERVED: [&str; 7] = [
                "authorization",
                "host",
                "accept",
                "accept-encoding",
                "user-agent",
                "content-length",
                "x-prometheus-scrape-timeout-seconds",
            ];
            if http::HeaderName::try_from(name).is_err() {
                check.error(&path, "is not a header name");
            } else if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
                check.error(&path, format!("the header {name} cannot be set here"));
            }
            let texts = header.values.iter().map(String::as_str).chain(header.secrets.iter().map(Secret::expose));
            if texts.into_iter().any(|value| http::HeaderValue::from_str(value).is_err()) {
                check.error(&path, "its value has characters that headers cannot have");
            }
            if header.files.is_some() {
                let file = "write its content with ${file:...} under values or secrets";
                check.error_with(&["http_headers", name, "files"], "files is not supported", file);
            }
        }
    }

    fn refuse_unsupported(&self, check: &mut Check<'_>) {
        for (key, value) in [
            ("aws_sd_configs", &self.aws_sd_configs),
            ("azure_sd_configs", &self.azure_sd_configs),
            ("consul_sd_configs", &self.consul_sd_configs),
            ("digitalocean_sd_configs", &self.digitalocean_sd_configs),
            ("dns_sd_configs", &self.dns_sd_configs),
            ("docker_sd_configs", &self.docker_sd_configs),
            ("dockerswarm_sd_configs", &self.dockerswarm_sd_configs),
            ("ec2_sd_configs", &self.ec2_sd_configs),
            ("eureka_sd_configs", &self.eureka_sd_configs),
            ("gce_sd_configs", &self.gce_sd_configs),
            ("hetzner_sd_configs", &self.hetzner_sd_configs),
            ("http_sd_configs", &self.http_sd_configs),
            ("ionos_sd_configs", &self.ionos_sd_configs),
            ("kubernetes_sd_configs", &self.kubernetes_sd_configs),
            ("kuma_sd_configs", &self.kuma_sd_configs),
            ("lightsail_sd_configs", &self.lightsail_sd_configs),
            ("linode_sd_configs", &self.linode_sd_configs),
            ("marathon_sd_configs", &self.marathon_sd_configs),
            ("nerve_sd_configs", &self.nerve_sd_configs),
            ("nomad_sd_configs", &self.nomad_sd_configs),
            ("openstack_sd_configs", &self.openstack_sd_configs),
            ("ovhcloud_sd_configs", &self.ovhcloud_sd_configs),
            ("puppetdb_sd_configs", &self.puppetdb_sd_configs),
            ("scaleway_sd_configs", &self.scaleway_sd_configs),
            ("serverset_sd_configs", &self.serverset_sd_configs),
            ("stackit_sd_configs", &self.stackit_sd_configs),
            ("triton_sd_configs", &self.triton_sd_configs),
            ("uyuni_sd_configs", &self.uyuni_sd_configs),
            ("vultr_sd_configs", &self.vultr_sd_configs),
        ] {
            let instead = if key.starts_with("kubernetes") { unsupported::KUBERNETES } else { unsupported::DISCOVERY };
            refuse(check, key, value.is_some(), instead);
        }
        let by_environment = "remove it: targets are connected to directly";
        refuse(check, "proxy_url", !self.proxy_url.is_empty(), by_environment);
        refuse(check, "no_proxy", self.no_proxy.is_some(), by_environment);
        refuse(check, "proxy_from_environment", self.proxy_from_environment, by_environment);
        refuse(check, "proxy_connect_header", self.proxy_connect_header.is_some(), by_environment);
        let token = "use authorization with a credentials_file that something else keeps fresh";
        refuse(check, "oauth2", self.oauth2.is_some(), token);
        refuse(
            check,
            "convert_classic_histograms_to_nhcb",
            self.convert_classic_histograms_to_nhcb,
            unsupported::NATIVE,
        );
        refuse(check, "native_histogram_bucket_limit", self.native_histogram_bucket_limit > 0, unsupported::NATIVE);
        let factor = self.native_histogram_min_bucket_factor > 0.0;
        refuse(check, "native_histogram_min_bucket_factor", factor, unsupported::NATIVE);
        refuse(check, "scrape_failure_log_file", self.scrape_failure_log_file.is_some(), unsupported::FAILURE_LOG);
    }
}
