//! The keys of the `load_balancing` exporter.

use std::path::PathBuf;
use std::sync::Arc;

use nyquist_core::config::{Check, Duration, Validate};
use nyquist_core::delivery::{QueueConfig, RetryConfig};
use nyquist_core::net::client::GrpcEndpoint;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::keys::Routing;
use super::resolver::{Dns, File, Resolver, Static, system_lookup};
use crate::otlp::OtlpConfig;

/// What the `load_balancing` exporter is told.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancingConfig {
    /// How backends are spoken to.
    pub protocol: ProtocolConfig,
    /// Where the list of backends comes from. Required.
    pub resolver: ResolverConfig,
    /// What decides who gets an item: `traceID`, `service`, `attributes`, `resource`, `metric`,
    /// `streamID`. Default `traceID` for traces, `service` for metrics and logs.
    pub routing_key: Option<String>,
    /// The attributes of `routing_key: attributes`.
    pub routing_attributes: Vec<String>,
    /// For how long, at least, what has begun to go to a backend goes there still when the membership
    /// changes; 0 for not at all. Default 0.
    pub overlap: Duration,
    /// How long one attempt to deliver to all backends may take; 0 for no bound. Default 0.
    pub timeout: Duration,
    /// Retries of what a backend has given back. Default off.
    pub retry_on_failure: Option<RetryConfig>,
    /// A queue in front of those of the backends, which may be on disk. Default none.
    pub sending_queue: Option<QueueConfig>,
}

/// `protocol`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ProtocolConfig {
    /// The keys of the `otlp` exporter, but for `endpoint`.
    pub otlp: OtlpConfig,
}

/// `resolver`: exactly one of them.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ResolverConfig {
    /// A fixed list.
    #[serde(rename = "static")]
    pub fixed: Option<StaticConfig>,
    /// The addresses of a name.
    pub dns: Option<DnsConfig>,
    /// The lines of a file.
    pub file: Option<FileConfig>,
    /// Not built.
    pub k8s: Option<IgnoredAny>,
    /// Not built.
    pub aws_cloud_map: Option<IgnoredAny>,
}

/// `resolver.static`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct StaticConfig {
    /// The endpoints. Required.
    pub hostnames: Vec<String>,
}

/// `resolver.dns`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// The name. Required.
    pub hostname: String,
    /// Of all backends. Default none, which stands for 4317.
    pub port: String,
    /// How often to ask. Default 5s.
    pub interval: Duration,
    /// How long an answer may take. Default 1s.
    pub timeout: Duration,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            port: String::new(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }
}

/// `resolver.file`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct FileConfig {
    /// The file. Required.
    pub path: PathBuf,
    /// How often to read it. Default 1s.
    pub interval: Duration,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self { path: PathBuf::new(), interval: Duration::from_secs(1) }
    }
}

const K8S: &str = "the k8s resolver is not built yet; use `dns` with the name of a headless service, which has the \
                   address of every ready pod: `dns: {hostname: <service>.<namespace>.svc.cluster.local}`";
const AWS: &str = "the aws_cloud_map resolver is not built yet; use `dns` with the service's name in a DNS namespace of \
                   Cloud Map, or `file` with a list that is written by a job of your own";

impl ResolverConfig {
    /// How many of them are there.
    fn count(&self) -> usize {
        let Self { fixed, dns, file, k8s, aws_cloud_map } = self;
        let there = [fixed.is_some(), dns.is_some(), file.is_some(), k8s.is_some(), aws_cloud_map.is_some()];
        there.into_iter().filter(|there| *there).count()
    }

    /// The one that is configured.
    pub(super) fn build(&self) -> Result<Arc<dyn Resolver>, String> {
        if let Some(StaticConfig { hostnames }) = &self.fixed {
            return Ok(Arc::new(Static(hostnames.clone())));
        }
        if let Some(DnsConfig { hostname, port, interval, timeout }) = &self.dns {
            let (hostname, port) = (hostname.clone(), port.clone());
            let lookup = system_lookup();
            return Ok(Arc::new(Dns { hostname, port, interval: interval.0, timeout: timeout.0, lookup }));
        }
        if let Some(FileConfig { path, interval }) = &self.file {
            return Ok(Arc::new(File { path: path.clone(), interval: interval.0 }));
        }
        Err(NONE.to_owned())
    }
}

const NONE: &str = "no resolvers specified: add one of static, dns and file, for example \
                    `resolver: {static: {hostnames: [gateway-1:4317, gateway-2:4317]}}`";

impl Validate for ResolverConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if self.k8s.is_some() {
            check.error(&["k8s"], K8S);
        }
        if self.aws_cloud_map.is_some() {
            check.error(&["aws_cloud_map"], AWS);
        }
        match self.count() {
            0 => check.error(&[], NONE),
            1 => {}
            _ => check.error(&[], "more than one resolver: the list of backends comes from one; remove the others"),
        }
        if let Some(StaticConfig { hostnames }) = &self.fixed {
            if hostnames.is_empty() {
                check.error(&["static", "hostnames"], "no hostnames specified: list at least one backend as host:port");
            }
            for (index, hostname) in hostnames.iter().enumerate() {
                if let Err(error) = parse_endpoint(hostname) {
                    check.error(&["static", "hostnames", &index.to_string()], error);
                }
            }
        }
        if let Some(dns) = &self.dns {
            if dns.hostname.is_empty() {
                check.error(&["dns", "hostname"], "no hostname specified to resolve the backends");
            }
            let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
            if !dns.port.is_empty() && !is_port(&dns.port) {
                check
                    .error(&["dns", "port"], format!("{:?} is no port: it must be a number from 1 to 65535", dns.port));
            }
            for (name, value) in [("interval", dns.interval), ("timeout", dns.timeout)] {
                if value.0.is_zero() {
                    check.error(&["dns", name], format!("`{name}` must be positive, for example 5s"));
                }
            }
        }
        if let Some(file) = &self.file {
            if file.path.as_os_str().is_empty() {
                check.error(&["file", "path"], "no path specified: name a file with one host:port on each line");
            }
            if file.interval.0.is_zero() {
                check.error(&["file", "interval"], "`interval` must be positive, for example 1s");
            }
        }
    }
}

/// Where to connect for `endpoint`, which has port 4317 if it has none.
pub(super) fn parse_endpoint(endpoint: &str) -> Result<GrpcEndpoint, String> {
    let error = match GrpcEndpoint::parse(endpoint) {
        Ok(GrpcEndpoint { socket: Some(_), .. }) => {
            return Err(format!("{endpoint:?}: a member of the ring cannot be a unix socket; write host:port"));
        }
        Ok(endpoint) => return Ok(endpoint),
        Err(error) => error,
    };
    let with_port = GrpcEndpoint::parse(&format!("{endpoint}:4317"));
    with_port.map_err(|other| if endpoint.contains(':') { error } else { other })
}

/// The template of the backends' exporters, as if the endpoint were there.
struct Template(OtlpConfig);

impl Validate for Template {
    fn validate(&self, check: &mut Check<'_>) {
        self.0.validate(check);
        if self.0.sending_queue.storage.is_some() {
            check.error(
                &["sending_queue", "storage"],
                "the queues of the backends cannot be on disk; set `storage` in the exporter's own `sending_queue`, \
                 beside `protocol`",
            );
        }
    }
}

impl Validate for LoadBalancingConfig {
    fn validate(&self, check: &mut Check<'_>) {
        if check.is_written(&["protocol", "otlp", "endpoint"]) && !self.protocol.otlp.endpoint.is_empty() {
            check.warning(&["protocol", "otlp", "endpoint"], "has no effect: the resolver names the endpoints");
        }
        let template = OtlpConfig { endpoint: "backend:4317".to_owned(), ..self.protocol.otlp.clone() };
        check.nested(&["protocol", "otlp"], &Template(template));
        check.nested(&["resolver"], &self.resolver);
        let key = self.routing_key.as_deref().unwrap_or_default();
        if !key.is_empty() && !Routing::is_known(key) {
            let message = format!("unsupported routing_key {key:?}: use one of {}", Routing::names(None));
            check.error(&["routing_key"], message);
        }
        if key == "attributes" && self.routing_attributes.is_empty() {
            check.error(&["routing_attributes"], "`routing_key: attributes` needs at least one routing attribute");
        }
        if key != "attributes" && !self.routing_attributes.is_empty() {
            check.error(&["routing_attributes"], "only `routing_key: attributes` takes routing attributes");
        }
        if let Some(queue) = &self.sending_queue {
            check.nested(&["sending_queue"], queue);
        }
        if let Some(retry) = &self.retry_on_failure {
            let queue = self.sending_queue.clone().unwrap_or_else(QueueConfig::disabled);
            check.nested(&["retry_on_failure"], &retry.beside(&queue));
        }
    }
}
