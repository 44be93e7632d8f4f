//! A started receiver and targets that it scrapes over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Consumer, Extensions, Host, Outputs, ReceiverContext};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::prometheus::{PrometheusConfig, PrometheusReceiver};
use crate::shown::points;

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// What a target answers, and the requests it saw.
struct Target {
    address: String,
    answer: Mutex<Answer>,
    requests: Mutex<Vec<Request<()>>>,
    connections: Mutex<usize>,
}

impl Target {
    async fn start(page: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let answer = Mutex::new((200, vec![("content-type", "text/plain".to_owned())], page.as_bytes().to_vec()));
        let target = Arc::new(Self { address, answer, requests: Mutex::default(), connections: Mutex::default() });
        let own = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *own.connections.lock() += 1;
                let own = Arc::clone(&own);
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let response = own.respond(request.map(drop));
                        async move { Ok::<_, std::convert::Infallible>(response) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        target
    }

    fn respond(&self, request: Request<()>) -> Response<Full<Bytes>> {
        let (status, headers, body) = self.answer.lock().clone();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
        self.requests.lock().push(request);
        response
    }

    fn answers(&self, status: u16, headers: &[(&'static str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        *self.answer.lock() = (status, headers, body.to_vec());
    }
}

/// A pipeline: records what it takes; refuses the next so many batches.
#[derive(Default)]
struct Sink {
    batches: Mutex<Vec<MetricsData>>,
    refusals: Mutex<usize>,
}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        {
            let mut refusals = self.refusals.lock();
            if *refusals > 0 {
                *refusals -= 1;
                return Err(Refusal::retryable(None, "not now"));
            }
        }
        let data = MetricsData::decode(batch.into_wire()).expect("OTLP");
        self.batches.lock().push(data);
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Running {
    receiver: PrometheusReceiver,
    sink: Arc<Sink>,
    telemetry: Arc<Telemetry>,
}

impl Running {
    /// A receiver of one job, with `keys` beside its name and interval.
    async fn start(keys: &str) -> Self {
        let text = format!("config:\n  scrape_configs:\n    - job_name: shop\n      scrape_interval: 100ms\n{keys}");
        Self::of(&text).await
    }

    async fn of(text: &str) -> Self {
        let (config, _) = from_str::<PrometheusConfig>(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}"));
        let sink = Arc::new(Sink::default());
        let telemetry = Telemetry::new();
        let mut outputs = Outputs::default();
        outputs.set(Signal::Metrics, Arc::clone(&sink) as Arc<dyn Consumer>);
        let clock = Arc::new(SystemClock::default());
        let context = ReceiverContext {
            id: ComponentId::of("prometheus"),
            outputs,
            extensions: &Extensions::default(),
            telemetry: Arc::clone(&telemetry),
            clock: Arc::clone(&clock) as Arc<dyn nyquist_core::clock::Clock>,
        };
        let receiver = PrometheusReceiver::new(&config, &context).expect("a receiver");
        let host = Host {
            runtimes: Runtimes::current(),
            clock,
            telemetry: Arc::clone(&telemetry),
            fatal: tokio::sync::mpsc::unbounded_channel().0,
        };
        receiver.start(&host).await.expect("starts");
        Self { receiver, sink, telemetry }
    }

    /// Waits for a batch, from now on, one of whose lines contains `text`; that line.
    async fn wait_for(&self, text: &str) -> String {
        self.sink.batches.lock().clear();
        let searching = async {
            loop {
                let lines: Vec<String> = self.sink.batches.lock().iter().flat_map(points).collect();
                if let Some(line) = lines.into_iter().find(|line| line.contains(text)) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), searching).await;
        found.unwrap_or_else(|_| panic!("no line with {text:?}"))
    }

    async fn stop(self) {
        self.receiver.shutdown(Instant::now() + Duration::from_secs(60)).await;
    }
}

fn static_target(target: &Target) -> String {
    format!("      static_configs: [{{targets: ['{}']}}]\n", target.address)
}

#[tokio::test]
async fn a_target_is_scraped_over_one_connection() {
    let target = Target::start("# TYPE visits counter\nvisits 3\n").await;
    let running = Running::start(&format!("{}      params: {{a: [b]}}\n", static_target(&target))).await;
    let line = running.wait_for("counter visits{} 3 from").await;
    assert!(line.starts_with(&format!("service.name=shop,service.instance.id={},server.port=", target.address)));
    for report in ["up{} 1 @", "scrape_samples_scraped{} 1 @", "scrape_samples_post_metric_relabeling{} 1 @"] {
        running.wait_for(report).await;
    }
    running.wait_for("scrape_series_added{} 0 @").await;
    running.wait_for("scrape_duration_seconds[s]{} ").await;
    assert!(running.telemetry.sum("nyquist_receiver_scrapes", &[("outcome", "success")]) >= 2);
    assert!(running.telemetry.sum("otelcol_receiver_accepted_metric_points", &[("receiver", "prometheus")]) >= 12);
    running.stop().await;
    assert_eq!(*target.connections.lock(), 1);
    let requests = target.requests.lock();
    assert_eq!(requests[0].uri(), "/metrics?a=b");
    let header = |name: &str| requests[0].headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("host"), target.address);
    assert_eq!(header("accept-encoding"), "gzip");
    assert_eq!(header("x-prometheus-scrape-timeout-seconds"), "0.1");
    assert_eq!(
        header("accept"),
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.9,\
         application/openmetrics-text;version=0.0.1;q=0.8,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.7,\
         text/plain;version=0.0.4;q=0.6,*/*;q=0.1"
    );
}

#[tokio::test]
async fn what_fails_says_up_0_and_ends_series() {
    let target = Target::start("a 1\n").await;
    let running = Running::start(&format!("{}      body_size_limit: 1KB\n", static_target(&target))).await;
    let text = [("content-type", "text/plain")];
    let bomb = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'\n'; 1 << 20]).expect("compressed");
        gzip.finish().expect("compressed")
    };
    type Broken<'a> = (u16, &'a [(&'static str, &'a str)], &'a [u8]);
    let broken: [Broken<'_>; 6] = [
        (503, &text, b"a 1\n"),
        (200, &text, b"a 1\nb{\n"),
        (200, &text, &[b'#'; 2000]),
        (200, &[("content-type", "text/plain"), ("content-encoding", "gzip")], &bomb),
        (200, &[("content-type", "application/openmetrics-text")], b"a 1\n"),
        (200, &text, b"a{b=\"\xff\"} 1\n"),
    ];
    for (status, headers, body) in broken {
        target.answers(200, &text, b"a 1\n");
        running.wait_for("gauge a{} 1 @").await;
        target.answers(status, headers, body);
        running.wait_for("gauge a{} ended @").await;
        running.wait_for("gauge up{} 0 @").await;
    }
    target.answers(200, &text, b"a 1\n");
    running.wait_for("gauge up{} 1 @").await;
    assert!(running.telemetry.sum("nyquist_receiver_scrapes", &[("outcome", "failure")]) >= 6);
    running.stop().await;
}

#[tokio::test]
async fn gzip_and_openmetrics_are_understood() {
    use std::io::Write;
    let target = Target::start("").await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"# TYPE a counter\na_total 5\na_created 1700000000\n# EOF\n").expect("compressed");
    let page = gzip.finish().expect("compressed");
    let headers =
        [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8"), ("content-encoding", "gzip")];
    target.answers(200, &headers, &page);
    let running = Running::start(&static_target(&target)).await;
    running.wait_for("counter a_total{} 5 from 1700000000000 @").await;
    running.stop().await;
}

#[tokio::test]
async fn a_slow_target_fails_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let running = Running::start(&format!("      static_configs: [{{targets: ['{address}']}}]\n")).await;
    running.wait_for("gauge up{} 0 @").await;
    running.stop().await;
}

#[tokio::test]
async fn credentials_are_sent_and_files_are_read_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").expect("written");
    let target = Target::start("a 1\n").await;
    let keys = format!(
        "{}      authorization: {{credentials_file: '{}'}}\n      http_headers: {{x-tenant: {{values: [t1]}}}}\n",
        static_target(&target),
        path.display()
    );
    let running = Running::start(&keys).await;
    running.wait_for("gauge up{} 1 @").await;
    std::fs::write(&path, "second\n").expect("written");
    running.wait_for("gauge up{} 1 @").await;
    running.wait_for("gauge up{} 1 @").await;
    running.stop().await;
    {
        let requests = target.requests.lock();
        let sent = |request: &Request<()>| request.headers()["authorization"].to_str().expect("text").to_owned();
        assert_eq!(sent(&requests[0]), "Bearer first");
        assert_eq!(sent(requests.last().expect("some")), "Bearer second");
        assert_eq!(requests[0].headers()["x-tenant"], "t1");
    }

    let target = Target::start("a 1\n").await;
    let keys = format!("{}      basic_auth: {{username: u, password: p}}\n", static_target(&target));
    let running = Running::start(&keys).await;
    running.wait_for("gauge up{} 1 @").await;
    running.stop().await;
    assert_eq!(target.requests.lock()[0].headers()["authorization"], "Basic dTpw");
}

#[tokio::test]
async fn redirects_are_followed_without_credentials_for_others() {
    let home = Target::start("").await;
    let other = Target::start("a 1\n").await;
    // By name, so that the host is another one.
    let port = other.address.rsplit(':').next().expect("a port");
    home.answers(307, &[("location", &format!("http://localhost:{port}/there"))], b"");
    let keys = format!("{}      bearer_token: secret\n", static_target(&home));
    let running = Running::start(&keys).await;
    running.wait_for("gauge a{} 1 @").await;
    running.stop().await;
    assert_eq!(other.requests.lock()[0].uri(), "/there");
    assert!(!other.requests.lock()[0].headers().contains_key("authorization"));
    assert!(home.requests.lock()[0].headers().contains_key("authorization"));

    let running = Running::start(&format!("{}      follow_redirects: false\n", static_target(&home))).await;
    running.wait_for("gauge up{} 0 @").await;
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_leaves_its_file_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("targets.json");
    let target = Target::start("a 1\n").await;
    std::fs::write(&path, format!(r#"[{{"targets": ["{}"], "labels": {{"zone": "eu"}}}}]"#, target.address))
        .expect("written");
    let keys = format!("      file_sd_configs: [{{files: ['{}']}}]\n", path.display());
    let running = Running::start(&keys).await;
    running.wait_for("gauge a{zone=eu} 1 @").await;
    std::fs::write(&path, "[]").expect("written");
    running.wait_for("gauge a{zone=eu} ended @").await;
    running.stop().await;
}

#[tokio::test]
async fn what_the_pipeline_refuses_for_now_is_offered_again() {
    let target = Target::start("a 1\n").await;
    let text = format!(
        "config:\n  scrape_configs:\n    - job_name: shop\n      scrape_interval: 3s\n{}",
        static_target(&target)
    );
    let running = Running::of(&text).await;
    *running.sink.refusals.lock() = 1;
    running.wait_for("gauge a{} 1 @").await;
    let first: usize = target.requests.lock().len();
    assert_eq!(first, 1, "the same scrape was offered again");
    assert_eq!(running.telemetry.sum("otelcol_receiver_refused_metric_points", &[]), 0);
    running.stop().await;
}

#[tokio::test]
async fn too_many_targets_fail_all_of_them() {
    let target = Target::start("a 1\n").await;
    let keys =
        format!("      target_limit: 1\n      static_configs: [{{targets: ['{}', 'localhost:1']}}]\n", target.address);
    let running = Running::start(&keys).await;
    running.wait_for("gauge up{} 0 @").await;
    running.stop().await;
    assert_eq!(target.requests.lock().len(), 0);
}

#[tokio::test]
async fn external_labels_and_extra_metrics() {
    let target = Target::start("a{region=\"own\"} 1\nb 1\n").await;
    let text = format!(
        "report_extra_scrape_metrics: true\nconfig:\n  global: {{scrape_interval: 100ms, external_labels: {{region: eu}}}}\n\
         \x20 scrape_configs:\n    - job_name: shop\n{}",
        static_target(&target)
    );
    let running = Running::of(&text).await;
    running.wait_for("gauge a{region=own} 1 @").await;
    running.wait_for("gauge b{region=eu} 1 @").await;
    running.wait_for("gauge up{region=eu} 1 @").await;
    running.wait_for("scrape_timeout_seconds[s]{region=eu} 0.1 @").await;
    running.wait_for("scrape_body_size_bytes[By]{region=eu} 22 @").await;
    running.stop().await;
}
