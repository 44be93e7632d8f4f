//! The Prometheus remote write exporter against a real Prometheus: both versions of the protocol, refused samples,
//! restarts of the backend, and `kill -9` of the gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod support;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use support::otlp::attribute;
use support::otlp_client::{METRICS, OK};
use support::{Gateway, OtlpClient, Prometheus, eventually, unix_nanos};
use tempfile::TempDir;

const CUMULATIVE: i32 = 2;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

/// `exporters` as YAML: name and settings, one a line.
fn config(exporters: &[(&str, String)]) -> String {
    let blocks: String = exporters.iter().map(|(name, settings)| format!("  {name}: {{{settings}}}\n")).collect();
    let names: Vec<&str> = exporters.iter().map(|(name, _)| *name).collect();
    format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
{blocks}
service:
  telemetry:
    metrics:
      readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: @METRICS@}}}}}}}}]
  pipelines:
    metrics: {{receivers: [otlp], exporters: [{}]}}
",
        names.join(", ")
    )
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let attributes = vec![attribute("service.name", "cart"), attribute("service.instance.id", "i-1")];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    let description = format!("What {name} is");
    Metric { name: name.to_owned(), unit: unit.to_owned(), description, data: Some(data), ..Metric::default() }
}

fn point(value: f64, time: u64, labels: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: labels.iter().map(|(key, value)| attribute(key, value)).collect(),
        start_time_unix_nano: time - 60 * SECOND,
        time_unix_nano: time,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, "", Data::Gauge(Gauge { data_points }))
}

fn an_exemplar(value: f64, time: u64) -> Exemplar {
    Exemplar {
        time_unix_nano: time,
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        value: Some(exemplar::Value::AsDouble(value)),
        ..Exemplar::default()
    }
}

const TRACE_ID: &str = "0102030405060708090a0b0c0d0e0f10";

/// A metric of each kind, at `time`.
fn all_kinds(time: u64) -> Vec<Metric> {
    let start = time - 60 * SECOND;
    let counted =
        NumberDataPoint { exemplars: vec![an_exemplar(1.0, time)], ..point(7.0, time, &[("http.route", "/a")]) };
    let sum = Sum { data_points: vec![counted], aggregation_temporality: CUMULATIVE, is_monotonic: true };
    let classic = HistogramDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: 6,
        sum: Some(9.0),
        explicit_bounds: vec![0.5, 1.0],
        bucket_counts: vec![1, 2, 3],
        exemplars: vec![an_exemplar(0.7, time)],
        ..HistogramDataPoint::default()
    };
    let exponential = |scale: i32, offset: i32, counts: &[u64]| {
        let point = ExponentialHistogramDataPoint {
            start_time_unix_nano: start,
            time_unix_nano: time,
            scale,
            zero_count: 3,
            sum: Some(9.0),
            count: counts.iter().sum::<u64>() + 3,
            positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
            exemplars: vec![an_exemplar(1.5, time)],
            ..ExponentialHistogramDataPoint::default()
        };
        let data_points = vec![point];
        Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: CUMULATIVE })
    };
    let quantiles = [(0.5, 1.0), (0.99, 2.0)].map(|(quantile, value)| ValueAtQuantile { quantile, value });
    let summary = SummaryDataPoint {
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: 4,
        sum: 3.0,
        quantile_values: quantiles.to_vec(),
        ..SummaryDataPoint::default()
    };
    let histogram = Histogram { data_points: vec![classic], aggregation_temporality: CUMULATIVE };
    vec![
        metric("http.requests", "{request}", Data::Sum(sum)),
        metric("mem.util", "1", Data::Gauge(Gauge { data_points: vec![point(0.5, time, &[])] })),
        metric("h", "s", Data::Histogram(histogram)),
        metric("e", "", exponential(3, 3, &[10, 0, 0, 20, 5, 2])),
        metric("fine", "", exponential(20, -5, &[1, 2, 3, 4, 5, 6, 7, 8])),
        metric("x", "", Data::Summary(Summary { data_points: vec![summary] })),
    ]
}

fn wait_until_drained(gateway: &Gateway) {
    eventually("everything has left the gateway", || {
        let ledger = gateway.metrics().ledger();
        let holding: Vec<_> = ledger.into_iter().filter(|account| account.held != 0.0).collect();
        if holding.is_empty() { Ok(()) } else { Err(holding) }
    });
}

/// Scenario: a metric of each kind through three exporters: 2.0 by negotiation, 1.0, and 2.0 with all that only it has.
/// Guarantee: Prometheus has the same values from both versions, native histograms and exemplars included; custom buckets
/// and UTF-8 names arrive.
#[test]
fn every_kind_arrives_in_both_versions() {
    let prometheus = Prometheus::start_with("global: {}\n", &["--enable-feature=exemplar-storage"]);
    let url = prometheus.write_url();
    let exporter = |wire: &str, more: &str| {
        let name = Box::leak(format!("prometheus_remote_write/{wire}").into_boxed_str());
        (&*name, format!("endpoint: '{url}', external_labels: {{wire: {wire}}}, {more}"))
    };
    let gateway = Gateway::start(&config(&[
        exporter("auto", ""),
        exporter("v1", "protobuf_message: prometheus.WriteRequest"),
        exporter(
            "v2",
            "protobuf_message: io.prometheus.write.v2.Request, translation_strategy: NoTranslation, \
             convert_explicit_histograms_to_nhcb: true",
        ),
    ]));
    let outcome = gateway.client().metrics(&request(all_kinds(unix_nanos())));
    assert_eq!(outcome.status, OK, "{outcome:?}");

    let same = [
        (r#"http_requests_total{job="cart",instance="i-1",http_route="/a",%}"#, 7.0),
        ("mem_util_ratio{%}", 0.5),
        (r#"h_seconds_bucket{le="0.5",%}"#, 1.0),
        (r#"h_seconds_bucket{le="1",%}"#, 3.0),
        (r#"h_seconds_bucket{le="+Inf",%}"#, 6.0),
        ("h_seconds_count{%}", 6.0),
        ("h_seconds_sum{%}", 9.0),
        ("histogram_count(e{%})", 40.0),
        ("histogram_sum(e{%})", 9.0),
        // Between 2^(6/8) and 2^(7/8) lie 20 of 40 observations.
        ("histogram_fraction(1.681792830507429, 1.8340080864093424, e{%})", 0.5),
        ("histogram_count(fine{%})", 39.0),
        ("histogram_fraction(-Inf, 1e-100, fine{%})", 3.0 / 39.0),
        (r#"x{quantile="0.99",%}"#, 2.0),
        ("x_sum{%}", 3.0),
        ("x_count{%}", 4.0),
    ];
    for wire in ["auto", "v1"] {
        for (query, expected) in same {
            prometheus.wait_for(&query.replace('%', &format!("wire={wire:?}")), expected);
        }
        for (series, value) in [("http_requests_total", 1.0), ("h_seconds_bucket", 0.7), ("e", 1.5)] {
            let found = prometheus.exemplars(&format!("{series}{{wire={wire:?}}}"));
            let [(labels, exemplar)] = found.as_slice() else { panic!("{series} by {wire}: {found:?}") };
            assert_eq!((labels["trace_id"].as_str(), *exemplar), (Some(TRACE_ID), value), "{series} by {wire}");
        }
    }
    prometheus.wait_for(r#"{"http.requests", "http.route"="/a", wire="v2"}"#, 7.0);
    prometheus.wait_for(r#"histogram_count(h{wire="v2"})"#, 6.0);
    prometheus.wait_for(r#"histogram_fraction(0.5, 1, h{wire="v2"})"#, 2.0 / 6.0);
    assert!(prometheus.query(r#"h_bucket{wire="v2"}"#).is_empty());

    wait_until_drained(&gateway);
    let own = gateway.metrics();
    let own = |what: &str, wire: &str| {
        let exporter = format!("prometheus_remote_write/{wire}");
        own.sum(&format!("otelcol_exporter_prometheusremotewrite_{what}"), &[("exporter", &exporter)])
    };
    for (wire, samples, histograms) in [("auto", 11.0, 2.0), ("v1", 0.0, 0.0), ("v2", 6.0, 3.0)] {
        assert_eq!((own("written_samples", wire), own("written_histograms", wire)), (samples, histograms), "{wire}");
        assert_eq!(own("fallbacks", wire) + own("dropped_points", wire), 0.0, "{wire}");
    }
    assert_eq!(own("written_exemplars", "auto"), 4.0);
}

/// Scenario: a Prometheus that puts a zero where a stream begins gets one push. Guarantee: with 2.0 it knows when counters,
/// histograms and native histograms began, so that their first value is an increase; with 1.0 it cannot.
#[test]
fn start_times_reach_prometheus() {
    let prometheus = Prometheus::start_with("global: {}\n", &["--enable-feature=created-timestamp-zero-ingestion"]);
    let exporter = |message: &str, wire: &str| {
        let url = prometheus.write_url();
        format!("endpoint: '{url}', external_labels: {{wire: {wire}}}, protobuf_message: {message}")
    };
    let gateway = Gateway::start(&config(&[
        ("prometheus_remote_write/v2", exporter("auto", "v2")),
        ("prometheus_remote_write/v1", exporter("prometheus.WriteRequest", "v1")),
    ]));
    assert_eq!(gateway.client().metrics(&request(all_kinds(unix_nanos() - SECOND))).status, OK);
    for (series, is_cumulative) in
        [("http_requests_total", true), ("h_seconds_count", true), ("e", true), ("mem_util_ratio", false)]
    {
        let count = |wire: &str| format!("count_over_time({series}{{wire={wire:?}}}[1h])");
        prometheus.wait_for(&count("v1"), 1.0);
        prometheus.wait_for(&count("v2"), if is_cumulative { 2.0 } else { 1.0 });
    }
    wait_until_drained(&gateway);
}

/// Scenario: Prometheus refuses a sample that is older than what it has, in the middle of a push that shares its request
/// with others. Guarantee: that sample is lost, counted and named, and nothing else, in both versions.
#[test]
fn a_refused_sample_costs_nothing_else() {
    for (message, reason) in [("prometheus.WriteRequest", "rejected"), ("auto", "partly_rejected")] {
        let prometheus = Prometheus::start();
        let url = prometheus.write_url();
        let settings = format!("endpoint: '{url}', protobuf_message: {message}, max_batch_request_parallelism: 1");
        let gateway = Gateway::start(&config(&[("prometheus_remote_write", settings)]));
        let mut client = gateway.client();
        let mut send = |points: Vec<NumberDataPoint>| {
            let outcome = client.metrics(&request(vec![gauge("shop.load", points)]));
            assert_eq!(outcome.status, OK, "{outcome:?}");
        };
        let now = unix_nanos() - 10 * SECOND;
        let name = |n: u64| n.to_string();
        send((0..50).map(|n| point(1.0, now, &[("n", &name(n))])).collect());
        prometheus.wait_for("count(shop_load)", 50.0);
        for step in 1..=20 {
            let time = |n: u64| if step == 7 && n == 13 { now - 5 * SECOND } else { now + step * 100 * MILLI };
            send((0..50).map(|n| point(1.0 + step as f64, time(n), &[("n", &name(n))])).collect());
        }
        wait_until_drained(&gateway);
        prometheus.wait_for("sum(count_over_time(shop_load[5m]))", 50.0 * 21.0 - 1.0);
        prometheus.wait_for(r#"count_over_time(shop_load{n="13"}[5m])"#, 20.0);
        let account = gateway.metrics().account("exporter/prometheus_remote_write", "metrics");
        assert_eq!((account.dropped, account.exported), (1.0, 50.0 * 21.0 - 1.0), "{message}: {account:?}");
        let own = gateway.metrics();
        assert_eq!(own.sum("otelcol_exporter_prometheusremotewrite_dropped_points", &[("reason", reason)]), 1.0);
        let output = gateway.process.output();
        let is_named = |line: &&str| line.contains("shop_load") && line.contains("out of order");
        assert_eq!(output.lines().filter(is_named).count(), 1, "{message}:\n{output}");
    }
}

/// Scenario: Prometheus is killed and started again, and stopped and started again, under traffic. Guarantee: every sample
/// of every series is there, in both versions.
#[test]
fn restarts_of_prometheus_lose_nothing() {
    for message in ["prometheus.WriteRequest", "auto"] {
        let mut prometheus = Prometheus::start();
        let settings = format!(
            "endpoint: '{}', protobuf_message: {message}, retry_on_failure: {{initial_interval: 20ms, max_interval: 200ms}}",
            prometheus.write_url()
        );
        let gateway = Gateway::start(&config(&[("prometheus_remote_write", settings)]));
        let mut client = gateway.client();
        let begin = unix_nanos() - 200 * SECOND;
        let mut step = 0;
        let mut send = |count: u64| {
            for _ in 0..count {
                let time = begin + step * 100 * MILLI;
                let points = (0..20).map(|n| point(step as f64, time, &[("n", &n.to_string())])).collect();
                let outcome = client.metrics(&request(vec![gauge("shop.load", points)]));
                assert_eq!(outcome.status, OK, "{outcome:?}");
                step += 1;
            }
        };
        send(200);
        std::thread::scope(|scope| {
            let restarts = scope.spawn(|| {
                prometheus.restart("KILL");
                prometheus.restart("TERM");
            });
            while !restarts.is_finished() {
                send(1);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        send(200);
        wait_until_drained(&gateway);
        println!("{message}: {step} pushes");
        let account = gateway.metrics().account("exporter/prometheus_remote_write", "metrics");
        // A request that was taken although its answer got lost is out of order when it comes again: it is there, as is
        // asked for below, and Prometheus has refused it.
        assert_eq!(account.dropped + account.exported, step as f64 * 20.0, "{account:?}");
        assert!(account.dropped <= account.accepted / 10.0, "no more than was on its way twice: {account:?}");
        prometheus.wait_for("min(count_over_time(shop_load[1h]))", step as f64);
        prometheus.wait_for("count(shop_load)", 20.0);
        prometheus.wait_for("max(resets(shop_load[1h]))", 0.0);
    }
}

/// Sends until the gateway is gone; gives the number of pushes that were acknowledged.
fn send_until_killed(mut client: OtlpClient, begin: u64, next: &mut u64, gateway: Gateway, pushes: u64) {
    let goal = *next + pushes;
    while *next < goal {
        let points =
            (0..10).map(|n| point(*next as f64, begin + *next * 100 * MILLI, &[("n", &n.to_string())])).collect();
        let message = request(vec![gauge("shop.load", points)]).encode_to_vec();
        match client.call(METRICS, &message) {
            Ok(outcome) if outcome.status == OK => *next += 1,
            outcome => panic!("the gateway refuses: {outcome:?}"),
        }
    }
    gateway.kill();
}

/// Kills a gateway with this exporter in `config(url)` twice while Prometheus is away, and once while it is being delivered, and starts it again.
/// Every acknowledged sample must arrive, each series in order.
fn kill_9_and_look(exporter: &str, config: impl Fn(&str) -> String) -> Gateway {
    let prometheus = Prometheus::start();
    let away = format!("http://127.0.0.1:{}/api/v1/write", support::ports::free_port());
    let begin = unix_nanos() - 200 * SECOND;
    let mut acknowledged = 0;
    for _ in 0..2 {
        let gateway = Gateway::start(&config(&away));
        send_until_killed(gateway.client(), begin, &mut acknowledged, gateway, 150);
    }
    let gateway = Gateway::start(&config(&prometheus.write_url()));
    send_until_killed(gateway.client(), begin, &mut acknowledged, gateway, 50);
    let gateway = Gateway::start(&config(&prometheus.write_url()));
    prometheus.wait_for("min(count_over_time(shop_load[1h]))", acknowledged as f64);
    prometheus.wait_for("count(shop_load)", 10.0);
    prometheus.wait_for("max(resets(shop_load[1h]))", 0.0);
    wait_until_drained(&gateway);
    let account = gateway.metrics().account(&format!("exporter/{exporter}"), "metrics");
    // What was on its way at the kill is sent again, and refused where newer samples are there already: it is booked as
    // dropped, but it had arrived.
    assert_eq!(account.exported + account.dropped, account.created, "{account:?}");
    assert!(account.dropped < 50.0 * 10.0, "{account:?}");
    gateway
}

const RETRY: &str = "retry_on_failure: {initial_interval: 20ms, max_interval: 100ms}";

/// Scenario: a queue on disk; Prometheus is away; `kill -9` of the gateway, twice; a third one finds Prometheus there.
/// Guarantee: every acknowledged sample arrives, each series in order.
#[test]
fn kill_9_keeps_what_was_acknowledged() {
    let storage = TempDir::new().unwrap();
    kill_9_and_look("prometheus_remote_write", |url| {
        let settings = format!("endpoint: '{url}', sending_queue: {{storage: file_storage}}, {RETRY}");
        let exporter = config(&[("prometheus_remote_write", settings)]);
        let storage = storage.path().display();
        format!("extensions: {{file_storage: {{directory: {storage}, create_directory: true}}}}\n{exporter}")
            .replace("service:\n", "service:\n  extensions: [file_storage]\n")
    });
}

/// Scenario: the same with the Collector's `wal`, as its README has it, in a directory where a Collector has left its log.
/// Guarantee: the same; the Collector's log is left alone, and a warning names it.
#[test]
fn kill_9_keeps_what_is_in_the_wal() {
    let directory = TempDir::new().unwrap();
    let collectors = directory.path().join("prom_rw/prom_remotewrite/00000000000000000001");
    std::fs::create_dir_all(collectors.parent().unwrap()).unwrap();
    std::fs::write(&collectors, "a request").unwrap();
    let gateway = kill_9_and_look("prometheusremotewrite", |url| {
        let place = directory.path().join("prom_rw");
        let wal = format!("wal: {{directory: {}, buffer_size: 100, truncate_frequency: 45s}}", place.display());
        config(&[("prometheusremotewrite", format!("endpoint: '{url}', {wal}, {RETRY}"))])
    });
    let labels = &[("storage", "prometheusremotewrite"), ("owner", "exporter_prometheus~5fremote~5fwrite__metrics")];
    let reported = gateway.metrics().all("nyquist_storage_records", labels).count();
    assert_eq!(reported, 1, "its metrics are those of any storage");
    let output = gateway.process.output();
    assert!(output.contains("the Collector's write-ahead log is here"), "{output}");
    assert_eq!(std::fs::read_to_string(&collectors).unwrap(), "a request");
}

/// Scenario: two gateways with the same `wal`. Guarantee: the second one does not start, and says which key it is about.
#[test]
fn a_wal_has_one_user() {
    let directory = TempDir::new().unwrap();
    let away = format!("http://127.0.0.1:{}/api/v1/write", support::ports::free_port());
    let wal = format!("endpoint: '{away}', wal: {{directory: {}}}", directory.path().display());
    let configuration = config(&[("prometheus_remote_write", wal)]);
    let first = Gateway::start(&configuration);
    let (code, output) = Gateway::fail_to_start(&configuration);
    let is_said = output.contains("wal.directory: ") && output.contains("in use by another");
    assert!(code != Some(0) && is_said, "{code:?}: {output}");
    drop(first);
}
