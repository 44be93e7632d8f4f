//! What a Prometheus scrapes off the page of the `prometheus` exporter, beside what it takes in itself.

use std::collections::BTreeSet;

use prost::Message;
use serde_json::{Value, json};

use super::known::{Labels, assert_all_seen, of_the_scrape};
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
fn scrape(protocol: &str, strategy: &str, has_native: bool) {
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
    let list = of_the_scrape();
    let mut seen = BTreeSet::new();
    eventually("what is scraped is what is taken in", || {
        seen.clear();
        let ours = without_scraper(with_plain_bounds(series(&ours)), &format!("127.0.0.1:{page}"));
        let mut theirs = with_plain_bounds(series(&theirs));
        if !has_native {
            theirs = without_native(theirs);
        }
        let unexpected = differences(&ours, &theirs, &list, &mut seen);
        if unexpected.is_empty() { Ok(()) } else { Err(unexpected.join("\n")) }
    });
    assert_all_seen(&list, &seen);
    let exemplified = exemplars(&ours);
    assert!(protocol.starts_with("PrometheusText") || exemplified.len() > 3, "{exemplified:#?}");
    assert_eq!(ours.value("count(up == 1)"), Some(1.0));
}

/// Series without a job or an instance of their own get those of the scraper.
fn without_scraper(content: Content, address: &str) -> Content {
    let own = |(key, value): (String, Value)| {
        let mut labels: Labels = serde_json::from_str(&key).unwrap();
        for (name, filled_in) in [("job", "gateway"), ("instance", address)] {
            if labels.get(name) == Some(&json!(filled_in)) && !is_of_the_scrape(&labels) {
                labels.remove(name);
            }
        }
        (Value::Object(labels).to_string(), value)
    };
    content.into_iter().map(own).collect()
}

fn is_of_the_scrape(labels: &Labels) -> bool {
    let name = labels["__name__"].as_str().unwrap_or_default();
    name == "up" || name.starts_with("scrape_")
}

/// The text formats have no native histograms: there they are histograms of one bucket, beside which a classic one of the
/// same name wins.
fn without_native(content: Content) -> Content {
    let mut classic = Content::new();
    let mut made = Content::new();
    for (key, value) in content {
        let labels: Labels = serde_json::from_str(&key).unwrap();
        let name = labels["__name__"].as_str().unwrap_or_default().to_owned();
        if let Some(histograms) = value[1].as_array() {
            for (suffix, part, le) in
                [("_bucket", "count", Some("inf")), ("_count", "count", None), ("_sum", "sum", None)]
            {
                let mut labels = labels.clone();
                labels.insert("__name__".to_owned(), json!(format!("{name}{suffix}")));
                le.map(|le| labels.insert("le".to_owned(), json!(le)));
                let values: Vec<Value> = histograms.iter().map(|one| json!([one[0], one[1][part]])).collect();
                made.insert(Value::Object(labels).to_string(), json!([values, null]));
            }
        }
        if !value[0].is_null() {
            classic.insert(key, json!([value[0], null]));
        }
    }
    made.extend(classic);
    made
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
    scrape("PrometheusProto", "UnderscoreEscapingWithSuffixes", true);
}

#[test]
fn scraped_as_protobuf_with_utf8_names() {
    scrape("PrometheusProto, PrometheusText1.0.0", "NoTranslation", true);
}

#[test]
fn scraped_as_open_metrics() {
    scrape("OpenMetricsText1.0.0", "UnderscoreEscapingWithSuffixes", false);
}

#[test]
fn scraped_as_text() {
    scrape("PrometheusText0.0.4", "UnderscoreEscapingWithSuffixes", false);
}

#[test]
fn scraped_as_text_with_utf8_names() {
    scrape("PrometheusText1.0.0", "NoUTF8EscapingWithSuffixes", false);
}
