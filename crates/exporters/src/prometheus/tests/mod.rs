//! The page for what was pushed.

mod escaping;
mod served;

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason};
use nyquist_core::clock::ManualClock;
use nyquist_core::component::Extensions;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::metrics::v1::{Metric, MetricsData, metric::Data};
use nyquist_core::runtime::Runtimes;

use super::*;
use crate::testing::*;

struct Running {
    exporter: Arc<PrometheusExporter>,
    clock: Arc<ManualClock>,
    telemetry: Arc<Telemetry>,
    ledger: Ledger,
}

fn exporter_with(config: &str) -> Running {
    let text = format!("endpoint: 127.0.0.1:0\n{config}");
    let config = from_str::<PrometheusConfig>(&text).map_err(|problems| problems.errors).unwrap().0;
    let telemetry = Telemetry::new();
    let ledger = Ledger::new(&telemetry, "exporter/prometheus", Signal::Metrics);
    let clock = ManualClock::new(0);
    let context = ExporterContext {
        id: ComponentId::of("prometheus"),
        signal: Signal::Metrics,
        ledger: ledger.clone(),
        batching: None,
        extensions: &Extensions::default(),
        telemetry: Arc::clone(&telemetry),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
    };
    Running { exporter: config.make(&context).unwrap(), clock, telemetry, ledger }
}

impl Running {
    async fn push(&self, data: MetricsData) {
        self.exporter.consume(Batch::from_metrics(data)).await.unwrap();
    }

    /// The page without connection: `accept` is what the scraper asks for.
    fn page(&self, accept: &str) -> String {
        let config = &self.exporter.config;
        let format = negotiate::Format::negotiate(accept, config.enable_open_metrics, config.send_timestamps);
        String::from_utf8(self.exporter.scrape_page().render(format)).unwrap()
    }

    /// The page as messages.
    fn protobuf(&self) -> Vec<protobuf::MetricFamily> {
        use prost::Message;
        let format = negotiate::Format { encoding: negotiate::Encoding::Protobuf, utf8_names: false, timestamps: true };
        let mut page: bytes::Bytes = self.exporter.scrape_page().render(format).into();
        let mut decoded = Vec::new();
        while !page.is_empty() {
            decoded.push(protobuf::MetricFamily::decode_length_delimited(&mut page).unwrap());
        }
        decoded
    }

    /// Starts it, and says where it listens.
    async fn listen(&self) -> std::net::SocketAddr {
        let host = Host {
            runtimes: Runtimes::current(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            telemetry: Arc::clone(&self.telemetry),
            fatal: tokio::sync::mpsc::unbounded_channel().0,
        };
        self.exporter.start(&host).await.unwrap();
        self.exporter.server.lock().as_ref().unwrap().address()
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.telemetry.sum("otelcol_exporter_prometheus_dropped_points", &[("reason", reason)])
    }
}

const SHOP_LABELS: &str = r#"instance="i-1",job="shop/cart""#;
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

fn x(value: f64, at: i64) -> Metric {
    gauge("x", "", vec![number(value, at, &[])])
}

#[tokio::test]
async fn the_page_in_the_text_format() {
    let running = exporter_with("const_labels: {region: eu}");
    let mut point = histogram_point();
    point.exemplars = vec![an_exemplar(0.7, &[])];
    let counter = sum("http.requests", "{request}", true, CUMULATIVE, vec![int(7, T)]);
    let path = gauge("disk.free", "By", vec![number(1e21, T, &[("path", "C:\\ \"a\"\nb")])]);
    running.push(push(vec![counter, histogram(point), summary(), path])).await;
    let expected = r#"# HELP disk_free_bytes What it is
# TYPE disk_free_bytes gauge
disk_free_bytes{%B,path="C:\\ \"a\"\nb",region="eu"} 1e21
# HELP h_seconds What it is
# TYPE h_seconds histogram
h_seconds_bucket{%B,region="eu",le="0.5"} 1
h_seconds_bucket{%B,region="eu",le="1"} 3
h_seconds_bucket{%B,region="eu",le="+Inf"} 6
h_seconds_sum{%B,region="eu"} 9
h_seconds_count{%B,region="eu"} 6
# HELP http_requests_total What it is
# TYPE http_requests_total counter
http_requests_total{%B,region="eu"} 7
# HELP x What it is
# TYPE x summary
x{%B,region="eu",quantile="0.5"} 1
x{%B,region="eu",quantile="0.99"} 2
x_sum{%B,region="eu"} 3
x_count{%B,region="eu"} 4
"#;
    assert_eq!(running.page(OPEN_METRICS), expected.replace("%B", SHOP_LABELS), "OpenMetrics is off by default");
    assert_eq!(running.ledger.count(Entry::Exported), 4);
}

#[tokio::test]
async fn the_page_in_open_metrics() {
    let running = exporter_with("enable_open_metrics: true\nsend_timestamps: true");
    let mut point = histogram_point();
    point.exemplars = vec![an_exemplar(0.7, &[])];
    let mut seven = int(7, T);
    seven.exemplars = vec![an_exemplar(2.0, &[])];
    running.push(push(vec![sum("c", "s", true, CUMULATIVE, vec![seven]), histogram(point)])).await;
    let ids = r#"{span_id="0102030405060708",trace_id="0102030405060708090a0b0c0d0e0f10"}"#;
    let expected = r#"# HELP c_seconds What it is
# TYPE c_seconds counter
# UNIT c_seconds seconds
c_seconds_total{%B} 7 1700000000 # %I 2 1700000000
# HELP h_seconds What it is
# TYPE h_seconds histogram
# UNIT h_seconds seconds
h_seconds_bucket{%B,le="0.5"} 1 1700000000
h_seconds_bucket{%B,le="1.0"} 3 1700000000 # %I 0.7 1700000000
h_seconds_bucket{%B,le="+Inf"} 6 1700000000
h_seconds_sum{%B} 9 1700000000
h_seconds_count{%B} 6 1700000000
# EOF
"#;
    assert_eq!(running.page(OPEN_METRICS), expected.replace("%B", SHOP_LABELS).replace("%I", ids));
    let plain = running.page("text/plain");
    assert!(plain.contains("c_seconds_total{instance=\"i-1\",job=\"shop/cart\"} 7 1700000000000\n"), "{plain}");
}

#[tokio::test]
async fn resources_have_a_target_info() {
    let running = exporter_with("");
    let resource = [SHOP, &[("host.name", "h1")]].concat();
    running.push(push_from(&resource, vec![x(1.0, T)])).await;
    let page = running.page("");
    let expected = format!(
        "# HELP target_info Target metadata\n# TYPE target_info gauge\ntarget_info{{host_name=\"h1\",{SHOP_LABELS}}} 1\n"
    );
    assert!(page.starts_with(&expected), "{page}");
}

/// A target has one `target_info`, whatever becomes of its attributes, unless several resources share it.
#[tokio::test]
async fn changed_targets_replace_what_was_there() {
    let running = exporter_with("metric_expiration: 1h");
    let from = |host: &str, at: i64| push_from(&[SHOP, &[("host.name", host)]].concat(), vec![x(1.0, at)]);
    let hosts = || {
        let page = running.page("");
        let lines = page.lines().filter(|line| line.starts_with("target_info{"));
        lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    running.push(from("h1", T)).await;
    running.push(from("h1", T + 1)).await;
    assert_eq!(hosts(), ["h1"]);
    running.push(from("h2", T + 2)).await;
    assert_eq!(hosts(), ["h2"]);
    let mut both = from("h3", T + 3);
    both.resource_metrics.extend(from("h4", T + 3).resource_metrics);
    running.push(both).await;
    assert_eq!(hosts(), ["h3", "h4"]);

    running.clock.advance(Duration::from_secs(1200));
    let other = push_from(&[("service.name", "pay"), ("host.name", "h5")], vec![x(1.0, T + 4)]);
    running.push(other.clone()).await;
    assert_eq!(hosts(), ["h3", "h4", "h5"], "as long as the series of their targets");
    running.clock.advance(Duration::from_secs(2400));
    running.push(other).await;
    assert_eq!(hosts(), ["h5"]);
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 0);
}

#[tokio::test]
async fn deltas_add_up() {
    let running = exporter_with("");
    let delta = |value: i64, at: i64| push(vec![sum("d", "", true, DELTA, vec![int(value, at)])]);
    running.push(delta(5, T)).await;
    running.push(delta(2, T + 10)).await;
    assert!(running.page("").contains("} 7\n"));
    running.push(delta(100, T + 10)).await;
    assert!(running.page("").contains("} 7\n"), "a repetition is not added");
    assert_eq!(running.dropped("out_of_order"), 1);
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 1);

    let delta = |at: i64| {
        let mut point = histogram_point();
        point.time_unix_nano = nanos(at);
        let mut metric = histogram(point);
        if let Some(Data::Histogram(histogram)) = &mut metric.data {
            histogram.aggregation_temporality = DELTA;
        }
        push(vec![metric])
    };
    running.push(delta(T)).await;
    running.push(delta(T + 1)).await;
    let page = running.page("");
    assert!(
        page.contains(r#"le="1"} 6"#) && page.contains("h_seconds_count{instance=\"i-1\",job=\"shop/cart\"} 12"),
        "{page}"
    );
}

/// Deltas that are NaN or infinite do not count, and say so; a total that begins anew begins where the old one ended.
#[tokio::test]
async fn what_is_no_number_spoils_no_total() {
    for values in [[f64::NAN, 5.0, 2.0], [5.0, f64::INFINITY, 2.0]] {
        let running = exporter_with("");
        for (at, value) in (T..).zip(values) {
            let mut point = histogram_point();
            (point.time_unix_nano, point.sum) = (nanos(at), Some(value));
            let mut histogram = histogram(point);
            if let Some(Data::Histogram(histogram)) = &mut histogram.data {
                histogram.aggregation_temporality = DELTA;
            }
            running.push(push(vec![sum("d", "", true, DELTA, vec![number(value, at, &[])]), histogram])).await;
        }
        let page = running.page("");
        for expected in ["d_total{%B} 7\n", "h_seconds_sum{%B} 7\n", "h_seconds_count{%B} 18\n"] {
            assert!(page.contains(&expected.replace("%B", SHOP_LABELS)), "{values:?}: {page}");
        }
        assert_eq!(running.dropped("value"), 1, "{values:?}");
    }
    let running = exporter_with("");
    for (at, bounds) in [(T, [0.5, 1.0]), (T + 10_000, [0.7, 1.0])] {
        let mut point = histogram_point();
        (point.time_unix_nano, point.explicit_bounds) = (nanos(at), bounds.to_vec());
        let mut histogram = histogram(point);
        if let Some(Data::Histogram(histogram)) = &mut histogram.data {
            histogram.aggregation_temporality = DELTA;
        }
        running.push(push(vec![histogram])).await;
    }
    let series = running.exporter.store.snapshot(running.clock.now()).series;
    assert_eq!(series.iter().find(|one| one.family.name == "h_seconds").unwrap().start, T);
}

/// The series of a classic histogram that came on their own stand on the page as what they are: samples of no known type,
/// because a histogram of their name would look otherwise.
#[tokio::test]
async fn parts_of_histograms_stand_alone() {
    let running = exporter_with("enable_open_metrics: true");
    let mut part = sum("h_seconds_bucket", "s", true, CUMULATIVE, vec![number(3.0, T, &[("le", "0.5")])]);
    part.metadata = attributes(&[("prometheus.type", "histogram")]);
    running.push(push(vec![part])).await;
    let sample = format!("h_seconds_bucket{{{SHOP_LABELS},le=\"0.5\"}} 3\n");
    for (accept, kind) in [("", "untyped"), (OPEN_METRICS, "unknown")] {
        let page = running.page(accept);
        assert!(page.contains(&format!("# TYPE h_seconds_bucket {kind}\n")) && page.contains(&sample), "{page}");
    }
    let family = running.protobuf().remove(0);
    assert_eq!((family.name.as_str(), family.kind), ("h_seconds_bucket", 3));
}

#[tokio::test]
async fn the_latest_value_counts() {
    let running = exporter_with("");
    running.push(push(vec![x(1.0, T)])).await;
    running.push(push(vec![x(2.0, T + 1)])).await;
    running.push(push(vec![x(9.0, T)])).await;
    assert!(running.page("").contains("} 2\n"));
    assert_eq!(running.dropped("out_of_order"), 1);
}

#[tokio::test]
async fn series_end_when_told_and_when_silent() {
    let running = exporter_with("metric_expiration: 1m");
    running.push(push(vec![x(1.0, T)])).await;
    let mut ended = number(0.0, T + 1, &[]);
    ended.flags = 1;
    running.push(push(vec![gauge("x", "", vec![ended])])).await;
    assert_eq!(running.page(""), "");
    running.push(push(vec![x(1.0, T + 2)])).await;
    running.clock.advance(Duration::from_secs(59));
    assert!(!running.page("").is_empty());
    running.clock.advance(Duration::from_secs(1));
    assert_eq!(running.page(""), "");
    assert_eq!(running.exporter.store.len(), 0);
}

#[tokio::test]
async fn conflicting_types_do_not_mix() {
    let running = exporter_with("");
    let counter = sum("x", "", true, CUMULATIVE, vec![int(7, T)]);
    running.push(push(vec![gauge("x_total", "", vec![number(1.0, T, &[])]), counter])).await;
    let page = running.page("");
    assert_eq!(page.matches("# TYPE x_total").count(), 1);
    assert!(page.contains("# TYPE x_total gauge\n") && page.contains("} 1\n") && !page.contains("} 7\n"), "{page}");
    assert_eq!(running.dropped("type_conflict"), 1);
}

#[tokio::test]
async fn there_are_never_too_many_series() {
    let running = exporter_with("max_series: 10");
    let points = (0..25).map(|n| number(1.0, T, &[("n", &n.to_string())])).collect();
    running.push(push(vec![gauge("x", "", points)])).await;
    assert_eq!(running.page("").lines().filter(|line| !line.starts_with('#')).count(), 10);
    assert_eq!(running.dropped("over_limit"), 15);
    assert_eq!(running.ledger.count(Entry::Exported), 10);
}

#[tokio::test]
async fn utf8_names_are_for_those_who_ask() {
    let running = exporter_with("translation_strategy: NoTranslation");
    running.push(push(vec![gauge("disk.free", "By", vec![number(1.0, T, &[("a.b", "c")])])])).await;
    let page = running.page("text/plain; version=1.0.0; escaping=allow-utf-8");
    assert!(page.contains("# TYPE \"disk.free\" gauge\n"), "{page}");
    assert!(page.contains("{\"disk.free\",\"a.b\"=\"c\",instance=\"i-1\",job=\"shop/cart\"} 1\n"), "{page}");
    let page = running.page("text/plain");
    assert!(page.contains("# TYPE disk_free gauge\ndisk_free{a_b=\"c\",instance"), "{page}");
}

#[tokio::test]
async fn native_histograms_are_in_protobuf() {
    let running = exporter_with("send_timestamps: true");
    let delta = |at: i64, scale: i32| {
        let mut point = exponential(scale, 0, &[1, 2]);
        (point.time_unix_nano, point.start_time_unix_nano) = (nanos(at), nanos(T - 1));
        point.exemplars = vec![an_exemplar(1.5, &[])];
        let mut metric = exponentials(point);
        if let Some(Data::ExponentialHistogram(histogram)) = &mut metric.data {
            histogram.aggregation_temporality = DELTA;
        }
        push(vec![metric, histogram(histogram_point()), sum("c", "", true, CUMULATIVE, vec![int(7, at)]), summary()])
    };
    running.push(delta(T, 1)).await;
    running.push(delta(T + 10, 0)).await;
    let decoded = running.protobuf();
    let [counter, native, classic, summary] = decoded.as_slice() else { panic!("{decoded:#?}") };
    assert_eq!((counter.name.as_str(), counter.kind, native.kind, summary.kind), ("c_total", 0, 4, 2));
    assert_eq!(counter.metric[0].counter.as_ref().unwrap().value, 7.0);
    assert_eq!(classic.metric[0].histogram.as_ref().unwrap().bucket.len(), 3);
    let [metric] = native.metric.as_slice() else { panic!("{native:#?}") };
    assert_eq!(metric.timestamp_ms, Some(T + 10));
    let histogram = metric.histogram.as_ref().unwrap();
    // At scale 1: (1, 1.4] 1, (1.4, 2] 2; at scale 0: (1, 2] 1, (2, 4] 2.
    assert_eq!((histogram.sample_count, histogram.sample_sum, histogram.schema), (6, 18.0, Some(0)));
    assert_eq!((histogram.positive_span[0].offset, &*histogram.positive_delta), (1, &[4, -2][..]));
    assert_eq!(histogram.exemplars.len(), 1);
    assert_eq!(histogram.created_timestamp.as_ref().unwrap().seconds, (T - 1) / 1000);
}

/// A histogram in both its forms under one name, as while a source moves from one to the other.
#[tokio::test]
async fn classic_and_native_under_one_name() {
    let running = exporter_with("");
    for at in [T, T + 1] {
        let mut native_point = exponential(0, 0, &[4]);
        let mut point = histogram_point();
        (native_point.time_unix_nano, point.time_unix_nano) = (nanos(at), nanos(at));
        let mut native = exponentials(native_point);
        (native.name, native.unit) = ("h".to_owned(), "s".to_owned());
        running.push(push(vec![native, histogram(point)])).await;
    }
    assert_eq!(running.exporter.store.len(), 2);
    assert_eq!(running.ledger.count(Entry::Exported), 4);

    let [family] = running.protobuf().try_into().unwrap();
    let forms: Vec<(usize, Option<i32>)> = family
        .metric
        .iter()
        .map(|metric| metric.histogram.as_ref().unwrap())
        .map(|histogram| (histogram.bucket.len(), histogram.schema))
        .collect();
    assert_eq!(forms, [(3, None), (0, Some(0))]);

    let page = running.page("");
    assert_eq!(page.matches("# TYPE h_seconds histogram\n").count(), 1);
    assert_eq!((page.matches("h_seconds_count{").count(), page.matches(r#"le="+Inf"} 6"#).count()), (1, 1), "{page}");

    let mut end = histogram_point();
    (end.time_unix_nano, end.flags) = (nanos(T + 2), 1);
    running.push(push(vec![histogram(end)])).await;
    let page = running.page("");
    assert!(page.contains(r#"le="+Inf"} 4"#), "the other form stays: {page}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let running = exporter_with("max_size: 64KiB");
    for at in 0..3 {
        let points = (0..1000).map(|n| number(1.0, T + at, &[("n", &n.to_string())])).collect();
        running.push(push(vec![gauge("x", "", points)])).await;
    }
    let store = &running.exporter.store;
    assert!((10..500).contains(&store.len()) && store.bytes() < (64 << 10) + 1000, "{} {}", store.len(), store.bytes());
    assert_eq!(running.dropped("over_limit") as usize, 3 * (1000 - store.len()));
    running.clock.advance(Duration::from_secs(300));
    running.page("");
    assert_eq!((store.len(), store.bytes()), (0, 0), "what expires is given back");
}
