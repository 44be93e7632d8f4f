use std::time::Duration;

use nyquist_core::batch::Signal;
use nyquist_core::config::from_str;

use super::super::LoadBalancingConfig;
use super::super::keys::Routing;

/// The first error that `yaml` gives.
fn error(yaml: &str) -> String {
    let diagnostics = from_str::<LoadBalancingConfig>(yaml).map(|_| ()).unwrap_err();
    diagnostics.to_string()
}

fn with(more: &str) -> String {
    format!("resolver: {{static: {{hostnames: [a:4317]}}}}\n{more}\n")
}

#[test]
fn the_collectors_example_is_taken() {
    let yaml = "
routing_key: service
timeout: 10s
retry_on_failure: {enabled: true, initial_interval: 1s}
sending_queue: {enabled: true, num_consumers: 2}
protocol:
  otlp:
    timeout: 1s
    tls: {insecure: true}
    sending_queue: {queue_size: 10}
resolver:
  dns: {hostname: otelcol.observability.svc.cluster.local, port: '55690', interval: 3s, timeout: 500ms}
";
    let (config, diagnostics) = from_str::<LoadBalancingConfig>(yaml).unwrap();
    assert!(diagnostics.to_string().is_empty(), "{diagnostics}");
    let dns = config.resolver.dns.unwrap();
    assert_eq!((dns.port.as_str(), dns.interval.0), ("55690", Duration::from_secs(3)));
    assert_eq!(config.protocol.otlp.sending_queue.queue_size, 10);
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        (String::new(), "no resolvers specified"),
        ("resolver: {k8s: {service: lb}}".to_owned(), "headless service"),
        ("resolver: {aws_cloud_map: {namespace: n}}".to_owned(), "the aws_cloud_map resolver is not built yet"),
        ("resolver: {static: {hostnames: []}}".to_owned(), "no hostnames specified"),
        ("resolver: {static: {hostnames: ['a b:1']}}".to_owned(), "is not a host and a port"),
        ("resolver: {dns: {}}".to_owned(), "no hostname specified"),
        ("resolver: {dns: {hostname: h, port: http}}".to_owned(), "is no port"),
        ("resolver: {dns: {hostname: h, interval: 0s}}".to_owned(), "`interval` must be positive"),
        ("resolver: {file: {}}".to_owned(), "no path specified"),
        ("resolver: {static: {hostnames: [a:1]}, dns: {hostname: h}}".to_owned(), "more than one resolver"),
        (with("routing_key: trace"), "unsupported routing_key \"trace\""),
        (with("routing_key: attributes"), "needs at least one routing attribute"),
        (with("routing_key: service\nrouting_attributes: [a]"), "only `routing_key: attributes`"),
        (with("protocol: {otlp: {compression: rar}}"), "compression"),
        (with("protocol: {otlp: {sending_queue: {storage: file_storage}}}"), "cannot be on disk"),
        (with("sending_queue: {num_consumers: 0}"), "num_consumers"),
    ];
    for (yaml, wanted) in cases {
        let error = error(&yaml);
        assert!(error.contains(wanted), "{yaml}: {error}");
    }
}

#[test]
fn each_signal_has_its_keys() {
    for (signal, key, fits) in [
        (Signal::Traces, "metric", false),
        (Signal::Traces, "resource", false),
        (Signal::Traces, "service", true),
        (Signal::Metrics, "traceID", false),
        (Signal::Metrics, "streamID", true),
        (Signal::Logs, "traceID", true),
        (Signal::Logs, "streamID", false),
    ] {
        let routing = Routing::new(Some(key), &[], signal);
        assert_eq!(routing.is_ok(), fits, "{key} for {}", signal.name());
    }
    assert_eq!(Routing::new(None, &[], Signal::Traces).unwrap(), Routing::TraceId);
    assert_eq!(Routing::new(Some(""), &[], Signal::Logs).unwrap(), Routing::Service);
}
