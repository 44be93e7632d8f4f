//! What a Prometheus scrapes off the page of the `prometheus` exporter, beside what it takes in itself.

use std::collections::BTreeSet;

use prost::Message;
use serde_json::{Value, json};

use super::known::{Known, assert_all_seen, of_the_scrape, without_native_histograms};
use super::pushes::common;
use super::support::ports::free_port;
use super::support::{Gateway, Prometheus, eventually, http};
use super::{Content, PROMETHEUS, differences, exemplars, in_both_forms, series, times};

const PAGE: &str = "
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}}}
exporters:
  prometheus:
    endpoint: 127.0.0.1:@PAGE@
    send_timestamps: true
    enable_open_metrics: true
    translation_strategy: @STRATEGY@
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]
  pipelines:
    metrics: {receivers: [otlp], exporters: [prometheus]}
";

const SCRAPER: &str = "
global: {}
storage: {exemplars: {max_exemplars: 10000}}
scrape_configs:
  - job_name: gateway
    honor_labels: true
    scrape_interval: 1s
    scrape_protocols: [@PROTOCOL@]
    scrape_native_histograms: true
    static_configs: [{targets: ['127.0.0.1:@PAGE@']}]
";

/// Compares what a Prometheus scrapes off the page with what another one takes in itself.
fn scrape(protocol: &str, strategy: &str, more: &[Known]) {
    let page = free_port().to_string();
    let gateway = Gateway::start(&PAGE.replace("@PAGE@", &page).replace("@STRATEGY@", strategy));
    let times = times();
    let mut pushed = common(times, times.now | 1);
    pushed.resource_metrics.extend(in_both_forms(times).resource_metrics);
    assert_eq!(gateway.client().metrics(&pushed).status, 0);
    let scraper = SCRAPER.replace("@PAGE@", &page).replace("@PROTOCOL@", protocol);
    let ours = Prometheus::start_with(&scraper, &["--enable-feature=exemplar-storage"]);
    let config = PROMETHEUS.replace("@STRATEGY@", strategy).replace("@NHCB@", "false");
    let features = "--enable-feature=exemplar-storage,otlp-deltatocumulative";
    let theirs = Prometheus::start_with(&config, &["--web.enable-otlp-receiver", features]);
    let kind = "application/x-protobuf";
    let answer = http::post(theirs.port, "/api/v1/otlp/v1/metrics", kind, "", pushed.encode_to_vec());
    assert_eq!(answer.expect("Prometheus answers").status, 200);
    let mut list = of_the_scrape();
    list.extend(more.iter().map(|known| Known { ..*known }));
    let mut seen = BTreeSet::new();
    eventually("what is scraped is what is taken in", || {
        seen.clear();
        let (ours, theirs) = (with_plain_bounds(series(&ours)), with_plain_bounds(series(&theirs)));
        let unexpected = differences(&ours, &theirs, &list, &mut seen);
        if unexpected.is_empty() { Ok(()) } else { Err(unexpected.join("\n")) }
    });
    assert_all_seen(&list, &seen);
    let exemplified = exemplars(&ours);
    assert!(protocol.starts_with("PrometheusText") || exemplified.len() > 3, "{exemplified:#?}");
    assert_eq!(ours.value("count(up == 1)"), Some(1.0));
}

/// A scraping Prometheus writes bounds as `1.0`, and one that takes in OTLP as `1`.
fn with_plain_bounds(content: Content) -> Content {
    let plain = |(key, value): (String, Value)| {
        let mut labels: Value = serde_json::from_str(&key).unwrap();
        for name in ["le", "quantile"] {
            if let Some(bound) = labels[name].as_str().and_then(|text| text.parse::<f64>().ok()) {
                labels[name] = json!(bound.to_string());
            }
        }
        let present: serde_json::Map<_, _> = labels
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        (Value::Object(present).to_string(), value)
    };
    content.into_iter().map(plain).collect()
}

#[test]
fn scraped_as_protobuf() {
    scrape("PrometheusProto", "UnderscoreEscapingWithSuffixes", &[]);
}

#[test]
fn scraped_as_protobuf_with_utf8_names() {
    scrape("PrometheusProto, PrometheusText1.0.0", "NoTranslation", &[]);
}

#[test]
fn scraped_as_open_metrics() {
    scrape("OpenMetricsText1.0.0", "UnderscoreEscapingWithSuffixes", &without_native_histograms());
}

#[test]
fn scraped_as_text() {
    scrape("PrometheusText0.0.4", "UnderscoreEscapingWithSuffixes", &without_native_histograms());
}

#[test]
fn scraped_as_text_with_utf8_names() {
    scrape("PrometheusText1.0.0", "NoUTF8EscapingWithSuffixes", &without_native_histograms());
}
