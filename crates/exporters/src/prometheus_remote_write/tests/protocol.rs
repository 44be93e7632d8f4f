//! Cases of the protocol (P1, P3 to P6, P10, P13), against a receiver in this process. P2 and what answers mean (P3 to
//! P9) are in `answers`, P11 is in `config`, P12 (a queue on disk) in `durable`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason, Metadata, Signal};
use nyquist_core::clock::{Clock, SystemClock};
use nyquist_core::component::{Exporter, ExporterConfig, ExporterContext, Extensions, Host};
use nyquist_core::config::ComponentId;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use tokio::time::{Instant, sleep, timeout};

use super::receiver::{Received, Receiver, Reply};
use crate::testing::*;

pub(super) struct Running {
    exporter: Arc<dyn Exporter>,
    pub(super) ledger: Ledger,
    telemetry: Arc<Telemetry>,
}

/// The exporter with `config` (YAML in braces, without the endpoint) in front of `receiver`.
pub(super) async fn start(receiver: &Receiver, config: &str) -> Running {
    start_with(receiver, config, &Extensions::default()).await
}

/// The same with `extensions`.
pub(super) async fn start_with(receiver: &Receiver, config: &str, extensions: &Extensions) -> Running {
    let config =
        format!("{{target_info: {{enabled: false}}, {}", config.strip_prefix('{').unwrap_or(&format!("{config}}}")));
    start_at(receiver, &config, extensions, Arc::new(SystemClock::default())).await
}

/// The same with `target_info` and a clock.
pub(super) async fn start_at(
    receiver: &Receiver,
    config: &str,
    extensions: &Extensions,
    clock: Arc<dyn Clock>,
) -> Running {
    let config = super::read(&format!("http://{}/api/v1/write", receiver.address), config);
    let telemetry = Telemetry::new();
    let ledger = Ledger::new(&telemetry, "exporter/rw", Signal::Metrics);
    let context = ExporterContext {
        id: ComponentId::of("prometheus_remote_write"),
        signal: Signal::Metrics,
        ledger: ledger.clone(),
        batching: None,
        extensions,
        telemetry: Arc::clone(&telemetry),
        clock: Arc::clone(&clock),
    };
    let exporter = config.build(context).unwrap();
    let host = Host {
        runtimes: Runtimes::current(),
        clock,
        telemetry: Arc::clone(&telemetry),
        fatal: tokio::sync::mpsc::unbounded_channel().0,
    };
    exporter.start(&host).await.unwrap();
    Running { exporter, ledger, telemetry }
}

impl Running {
    pub(super) async fn push(&self, data: MetricsData) {
        self.push_batch(Batch::from_metrics(data)).await;
    }

    pub(super) async fn push_batch(&self, batch: Batch) {
        self.exporter.consume(batch).await.unwrap();
    }

    pub(super) async fn shut_down(&self, within: Duration) {
        self.exporter.shutdown(Instant::now() + within).await;
    }

    /// One of the exporter's own metrics.
    pub(super) fn own(&self, what: &str, labels: &[(&str, &str)]) -> u64 {
        self.telemetry.sum(&format!("otelcol_exporter_prometheusremotewrite_{what}"), labels)
    }

    /// Waits until nothing is held, and checks that the account balances.
    pub(super) async fn settled(&self, accepted: u64) {
        let balance = async {
            while self.ledger.count(Entry::Accepted) < accepted || self.ledger.held_count() != 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), balance).await.expect("items are still held");
        let dropped: u64 = DropReason::ALL.iter().map(|&reason| self.ledger.dropped_count(reason)).sum();
        assert_eq!(self.ledger.count(Entry::Accepted), accepted);
        assert_eq!(self.ledger.count(Entry::Exported) + dropped, accepted);
    }
}

pub(super) fn one(value: f64, at: i64) -> MetricsData {
    push(vec![gauge("x", "", vec![number(value, at, &[])])])
}

/// P1: the headers of both versions. What the message itself must be is checked wherever one is read.
#[tokio::test]
async fn a_request_has_the_headers_of_the_protocol() {
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    has_headers("auto", v2, "2.0.0").await;
    has_headers("io.prometheus.write.v2.Request", v2, "2.0.0").await;
    has_headers("prometheus.WriteRequest", "application/x-protobuf", "0.1.0").await;
}

/// Cookies that a backend (or the load balancer before it) sets come back with the next request, if they are switched on.
#[tokio::test]
async fn cookies_come_back() {
    for (config, expected) in [("{cookies: {enabled: true}}", [None, Some("sid=1; LB=7")]), ("{}", [None, None])] {
        let receiver = Receiver::judging(|_, request| {
            let mut reply = Reply::status(204).all_or_nothing(request);
            reply.headers.extend([
                ("set-cookie", "LB=7; Path=/; Max-Age=3600".to_owned()),
                ("set-cookie", "sid=1; Path=/api".to_owned()),
            ]);
            reply
        })
        .await;
        let running = start(&receiver, config).await;
        for index in 0..2u32 {
            running.push(one(f64::from(index), T + i64::from(index))).await;
            running.settled(u64::from(index) + 1).await;
        }
        let received = receiver.received();
        let sent = received.iter().map(|request| request.headers.get("cookie").map(|value| value.to_str().unwrap()));
        assert_eq!(sent.collect::<Vec<_>>(), expected, "{config}");
        running.shut_down(Duration::from_secs(5)).await;
    }
}

async fn has_headers(message: &str, content_type: &str, version: &str) {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let config =
        format!("{{headers: {{X-Scope-OrgID: me}}, include_metadata_keys: [Tenant], protobuf_message: {message}}}");
    let running = start(&receiver, &config).await;
    let metadata = Metadata { headers: vec![("tenant".into(), "t1".into()), ("other".into(), "no".into())] };
    let batch = Batch::from_metrics(one(1.0, T)).with_metadata(Arc::new(metadata));
    running.exporter.consume(batch).await.unwrap();
    running.settled(1).await;
    let [received] = receiver.received().try_into().ok().unwrap();
    let header = |name: &str| received.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("content-type").as_deref(), Some(content_type));
    assert_eq!(header("content-encoding").as_deref(), Some("snappy"));
    assert_eq!(header("x-prometheus-remote-write-version").as_deref(), Some(version));
    assert!(header("user-agent").unwrap().starts_with("nyquist/"));
    assert_eq!(header("x-scope-orgid").as_deref(), Some("me"));
    assert_eq!(header("tenant").as_deref(), Some("t1"));
    assert_eq!(header("other"), None);
    assert_eq!(received.message().timeseries[0].lines(), [format!(r#"x{{instance="i-1",job="shop/cart"}} 1@{T}"#)]);
}

/// A proxy that opens tunnels; `asked` gets what is asked of it.
async fn proxy(asked: tokio::sync::mpsc::UnboundedSender<String>) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            asked.send(head).unwrap();
            let mut backend = tokio::net::TcpStream::connect(target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut backend).await });
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_is_gone_through() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let proxy = proxy(asked).await;
    let running = start(&receiver, &format!("proxy_url: 'http://u:p@{proxy}'")).await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    assert_eq!((running.ledger.count(Entry::Exported), receiver.received().len()), (1, 1));
    let head = requests.recv().await.unwrap();
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", receiver.address)), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic dTpw\r\n"), "{head}");
}

/// P3: server errors are retried with the same bytes, later and later.
#[tokio::test]
async fn server_errors_are_retried() {
    let receiver = Receiver::start(|n| (if n < 3 { 503 } else { 204 }, None, "busy")).await;
    let running = start(&receiver, "retry_on_failure: {initial_interval: 20ms, randomization_factor: 0}").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    assert!(received.windows(2).all(|pair| pair[0].body == pair[1].body));
    let gap = |n: usize| received[n + 1].at - received[n].at;
    for (n, least) in [20, 40, 80].into_iter().enumerate() {
        assert!(gap(n) >= Duration::from_millis(least), "gap {n}: {:?}", gap(n));
    }
    assert_eq!(received[3].headers["retry-attempt"], "3");
    assert_eq!(running.ledger.count(Entry::Exported), 1);
}

/// P4: what the backend refuses for good is sent once and counted.
#[tokio::test]
async fn bad_requests_are_not_retried() {
    let receiver = Receiver::start(|_| (400, None, "out of order sample")).await;
    let running = start(&receiver, "{}").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 1);
    let refused = start(&receiver, "remote_write_queue: {enabled: false}").await;
    let refusal = refused.exporter.consume(Batch::from_metrics(one(1.0, T))).await.unwrap_err();
    assert_eq!(refusal.message(), "400 Bad Request: out of order sample");
    assert!(!refusal.is_retryable());
}

/// All timestamps that were taken, in the order of their arrival.
fn taken(receiver: &Receiver) -> Vec<i64> {
    let received = receiver.received();
    let taken = received.iter().filter(|received| received.status.is_success());
    let series = taken.flat_map(|received| received.message().timeseries);
    series.flat_map(|series| series.samples).map(|sample| sample.timestamp).collect()
}

/// Answers as Prometheus does for remote write 1.0: one sample at a `bad` time, and all is refused. The first
/// `busy` requests are put off, so that others gather behind them.
fn strict(busy: usize, is_bad: impl Fn(i64) -> bool) -> impl Fn(usize, &Received) -> Reply {
    move |n, request| {
        let series = request.message().timeseries;
        match series.iter().flat_map(|series| &series.samples).any(|sample| is_bad(sample.timestamp)) {
            _ if n < busy => Reply::status(503),
            true => Reply { status: 400, body: "out of order sample", ..Reply::default() },
            false => Reply::status(204),
        }
    }
}

const ONE_SHARD: &str = "{max_batch_request_parallelism: 1, protobuf_message: prometheus.WriteRequest, \
                         retry_on_failure: {initial_interval: 20ms}}";

/// What is wrong with one point costs neither its push nor those that share its request; the order stays.
#[tokio::test]
async fn a_bad_point_is_dropped_alone() {
    let receiver = Receiver::judging(strict(3, |time| time == T + 13)).await;
    let running = start(&receiver, ONE_SHARD).await;
    for step in 0..20 {
        let points = [2 * step, 2 * step + 1].map(|step| number(step as f64, T + step, &[]));
        running.push(push(vec![gauge("x", "", points.into())])).await;
    }
    running.settled(40).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 1);
    assert_eq!(running.ledger.count(Entry::Exported), 39);
    assert_eq!(taken(&receiver), (0..40).filter(|step| *step != 13).map(|step| T + step).collect::<Vec<_>>());
    assert!(receiver.received().len() < 20, "pushes shared requests: {}", receiver.received().len());
    assert_eq!(running.own("dropped_points", &[("reason", "rejected")]), 1);
    assert!((1..=6).contains(&running.own("split_requests", &[])), "{}", running.own("split_requests", &[]));
}

/// Where nothing can be saved, the backend is not asked for every point.
#[tokio::test]
async fn hopeless_requests_are_not_cut_for_ever() {
    let receiver = Receiver::judging(strict(0, |_| true)).await;
    let running = start(&receiver, ONE_SHARD).await;
    let points = (0..2000).map(|step| number(1.0, T, &[("n", &step.to_string())]));
    running.push(push(vec![gauge("x", "", points.collect())])).await;
    running.settled(2000).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 2000);
    assert!(receiver.received().len() <= 150, "{}", receiver.received().len());
}

/// Many bad points in one request: all but a few of the good ones are saved, with bounded effort.
#[tokio::test]
async fn cutting_is_bounded() {
    let receiver = Receiver::judging(strict(0, |time| time % 100 == 0)).await;
    let running = start(&receiver, ONE_SHARD).await;
    running.push(push(vec![gauge("x", "", (0..2000).map(|step| number(1.0, T + step, &[])).collect())])).await;
    running.settled(2000).await;
    assert!(receiver.received().len() <= 2 * 128 + 1, "{}", receiver.received().len());
    let exported = running.ledger.count(Entry::Exported);
    assert!((1400..=1980).contains(&exported), "{exported}");
    let arrived = taken(&receiver);
    assert!(arrived.is_sorted() && arrived.len() as u64 == exported);
}

/// P5: 429 is retried when the backend says, and not for ever.
#[tokio::test]
async fn too_many_requests_wait_as_asked() {
    let receiver = Receiver::start(|n| (if n == 0 { 429 } else { 204 }, Some("1"), "")).await;
    let running = start(&receiver, "{}").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    let received = receiver.received();
    assert!(received[1].at - received[0].at >= Duration::from_secs(1));

    let limited = Receiver::start(|_| (429, Some("3600"), "")).await;
    let brief = "retry_on_failure: {initial_interval: 1ms, max_interval: 2ms, max_elapsed_time: 50ms}";
    let running = start(&limited, brief).await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    assert_eq!(running.ledger.dropped_count(DropReason::RetriesExhausted), 1);
    let running = start(&limited, "retry_on_429: false").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 1);
}

/// P6: a date in the past does not hold anything up.
#[tokio::test]
async fn a_date_in_the_past_asks_for_nothing() {
    let receiver =
        Receiver::start(|n| (if n == 0 { 503 } else { 204 }, Some("Sun, 06 Nov 1994 08:49:37 GMT"), "")).await;
    let running = start(&receiver, "{}").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    assert_eq!(receiver.received().len(), 2);
}

/// P10: whatever fails in between, each series arrives in order, and all of it.
#[tokio::test]
async fn series_stay_in_order() {
    const SERIES: usize = 20;
    const PUSHES: usize = 1000;
    let receiver = Receiver::start(|n| (if n % 7 == 6 { 503 } else { 204 }, None, "")).await;
    let config = "{max_batch_request_parallelism: 8, max_samples_per_send: 50,
                  retry_on_failure: {initial_interval: 1ms, max_interval: 2ms}}";
    let running = start(&receiver, config).await;
    for step in 0..PUSHES {
        let points = (0..SERIES).map(|series| number(step as f64, T + step as i64, &[("n", &series.to_string())]));
        running.push(push(vec![gauge("x", "", points.collect())])).await;
    }
    running.settled((SERIES * PUSHES) as u64).await;
    let mut last: HashMap<String, i64> = HashMap::new();
    let mut samples = 0;
    for request in receiver.received().iter().filter(|received| received.status.is_success()) {
        let message = request.message();
        assert!(message.timeseries.len() <= 50);
        for series in message.timeseries {
            let [sample] = series.samples.as_slice() else { panic!("one sample each") };
            let before = last.insert(super::prompb::labels(&series.labels), sample.timestamp);
            assert_eq!(sample.timestamp, before.map_or(T, |before| before + 1), "{:?}", series.labels);
            samples += 1;
        }
    }
    assert_eq!((samples, last.len()), (SERIES * PUSHES, SERIES));
    assert_eq!(running.ledger.count(Entry::Exported), (SERIES * PUSHES) as u64);
}

/// Requests keep to both limits, and none is empty.
#[tokio::test]
async fn requests_are_cut_by_bytes() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{max_batch_size_bytes: 1000, max_batch_request_parallelism: 1}").await;
    let points = (0..100).map(|n| number(1.0, T, &[("n", &n.to_string())])).collect();
    running.push(push(vec![gauge("x", "", points)])).await;
    running.settled(100).await;
    let received = receiver.received();
    let sizes: Vec<usize> =
        received.iter().map(|received| snap::raw::decompress_len(&received.body).unwrap()).collect();
    assert!(sizes.iter().all(|size| (1..=1000).contains(size)), "{sizes:?}");
    assert_eq!(received.iter().map(|received| received.message().timeseries.len()).sum::<usize>(), 100);
}

/// What cannot be translated is booked as such; the rest arrives.
#[tokio::test]
async fn untranslatable_points_are_booked() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{}").await;
    let deltas = sum("d", "", true, DELTA, vec![int(1, T), int(2, T + 1)]);
    running.push(push(vec![deltas, labelled(&[])])).await;
    running.settled(3).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 2);
    assert_eq!(running.ledger.count(Entry::Exported), 1);
    let name = "otelcol_exporter_prometheusremotewrite_sent_batches";
    assert_eq!(running.telemetry.sum(name, &[]), 1);
    let twice = vec![number(1.0, T, &[]), number(2.0, T, &[])];
    running.push(push(vec![gauge("x", "", twice)])).await;
    running.settled(5).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 3);
    // Nothing at all is left of this one: no request, and nothing is held.
    running.push(push(vec![sum("d", "", true, DELTA, vec![int(1, T)])])).await;
    running.settled(6).await;
    assert_eq!(receiver.received().len(), 2);
}

/// A small message can ask for a huge one: labels are repeated with each bucket. Such a point is dropped alone.
#[tokio::test]
async fn points_that_would_be_huge_are_dropped() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{}").await;
    let mut point = histogram_point();
    point.explicit_bounds = (0..9_999).map(f64::from).collect();
    point.bucket_counts = vec![1; 10_000];
    (point.count, point.attributes) = (10_000, attributes(&[("long", &"x".repeat(5000))]));
    running.push(push(vec![histogram(point), labelled(&[])])).await;
    running.settled(2).await;
    assert_eq!(running.own("dropped_points", &[("reason", "too_large")]), 1);
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 1);
    let [received] = receiver.received().try_into().ok().unwrap();
    assert_eq!(received.message().timeseries.len(), 1);
}

/// P13: with the backend down a shutdown still ends in time, and what is lost is booked.
#[tokio::test]
async fn a_shutdown_ends_in_time() {
    let receiver = Receiver::start(|_| (503, None, "")).await;
    let running =
        start(&receiver, "retry_on_failure: {initial_interval: 1h, max_interval: 1h, max_elapsed_time: 0}").await;
    for step in 0..20 {
        running.push(one(1.0, T + step)).await;
    }
    receiver.wait_for(|received| !received.is_empty()).await;
    let begun = Instant::now();
    running.shut_down(Duration::from_secs(5)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    running.settled(20).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Shutdown), 20);
    assert!(running.exporter.status().unwrap().last_error.unwrap().contains("503"));
    assert!(running.exporter.consume(Batch::from_metrics(one(1.0, T))).await.is_err());
}

/// A backend that takes connections and says nothing does not hold a shutdown up either.
#[tokio::test]
async fn a_shutdown_cuts_off_silent_backends() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = {
        let address = silent.local_addr().unwrap();
        let config = format!("{{timeout: 0, http: {{endpoint: 'http://{address}/', timeout: 0}}}}");
        start(&receiver, &config).await
    };
    running.push(one(1.0, T)).await;
    let begun = Instant::now();
    running.shut_down(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    running.settled(1).await;
    assert_eq!(running.ledger.dropped_count(DropReason::Shutdown), 1);
}
