//! Health: what a component says of itself shows at its pipeline and at the gateway; liveness, readiness
//! and errors are apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::net::TcpStream;
use std::sync::mpsc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use support::otlp::{trace, traces_request};
use support::otlp_client::OK;
use support::{Backend, Gateway, OtlpClient, eventually, http};

fn config(health: &str, exporters: &str, pipelines: &str) -> String {
    format!(
        "
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:@GRPC@}}}}}}}}
exporters:
{exporters}
  nop:
extensions:
{health}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
{pipelines}
"
    )
}

fn otlp_exporter(port: u16) -> String {
    format!(
        "  otlp: {{endpoint: '127.0.0.1:{port}', tls: {{insecure: true}}, \
         retry_on_failure: {{initial_interval: 50ms, max_interval: 200ms, max_elapsed_time: 0}}}}"
    )
}

const TWO_PIPELINES: &str = "
    traces: {receivers: [otlp], exporters: [otlp]}
    metrics/other: {receivers: [otlp], exporters: [nop]}
";

const V1: &str = "  health_check: {endpoint: '127.0.0.1:@HEALTH@'}";

fn send(gateway: &Gateway) {
    let outcome = gateway.client().traces(&traces_request("health", trace(1, 3)));
    assert_eq!(outcome.status, OK, "{outcome:?}");
}

/// The code and the document at `path` of the health port.
fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let answer = http::get(gateway.health_port, path).expect("the health port answers");
    (answer.status, answer.json())
}

/// Waits until the `status` of the document at `path` is `wanted`; gives its code and the document.
fn wait_for(gateway: &Gateway, path: &str, wanted: &str) -> (u16, Value) {
    eventually(&format!("{path} says {wanted}"), || {
        let (code, document) = get(gateway, path);
        if document["status"] == wanted { Ok((code, document)) } else { Err(document) }
    })
}

/// Scenario: the backend of one exporter is away, and comes. Guarantee: the exporter, its pipeline and the
/// gateway say so in the form of healthcheckv2, the other pipeline does not, neither liveness nor
/// readiness changes; and it is over when the backend takes data.
#[test]
fn a_backend_that_is_away_shows_where_it_matters() {
    let mut backend = Backend::stopped();
    let gateway = Gateway::start(&config(V1, &otlp_exporter(backend.port), TWO_PIPELINES));
    let (code, document) = wait_for(&gateway, "/status?verbose", "StatusOK");
    assert_eq!((code, &document["healthy"]), (200, &Value::Bool(true)), "{document}");
    assert_eq!(document["components"]["extensions"]["components"]["extension:health_check"]["status"], "StatusOK");

    send(&gateway);
    let (code, document) = wait_for(&gateway, "/status?verbose", "StatusRecoverableError");
    assert_eq!((code, &document["healthy"]), (200, &Value::Bool(true)), "errors do not count unless asked to");
    let traces = &document["components"]["pipeline:traces"];
    assert_eq!(traces["status"], "StatusRecoverableError", "{document}");
    assert_eq!(traces["components"]["receiver:otlp"]["status"], "StatusOK", "{document}");
    let exporter = &traces["components"]["exporter:otlp"];
    assert_eq!(exporter["status"], "StatusRecoverableError", "{document}");
    assert!(exporter["error"].as_str().is_some_and(|error| !error.is_empty()), "{document}");
    assert!(document["start_time"].is_string() && exporter["status_time"].is_string(), "{document}");
    assert_eq!(document["components"]["pipeline:metrics/other"]["status"], "StatusOK", "{document}");

    let (code, document) = get(&gateway, "/status?pipeline=metrics%2Fother");
    assert_eq!((code, &document["status"]), (200, &Value::from("StatusOK")));
    assert!(document.get("components").is_none(), "not verbose: {document}");
    assert_eq!(http::get(gateway.health_port, "/status?pipeline=logs").unwrap().status, 404);
    for probe in ["/live", "/ready", "/"] {
        assert_eq!(http::get(gateway.health_port, probe).unwrap().status, 200, "{probe}");
    }

    backend.restart();
    wait_for(&gateway, "/status", "StatusOK");
    assert_eq!(gateway.terminate().code, Some(0));
}

/// Scenario: a gateway that takes only metrics is sent traces by another one, whose health counts permanent
/// errors. Guarantee: the sender's exporter is in a permanent error, the HTTP code is 500, and gRPC says
/// NOT_SERVING for the gateway and the pipeline, SERVING for another one, NOT_FOUND for none.
#[test]
fn what_takes_people_is_permanent_and_counts_if_asked_to() {
    let metrics_only = "
    metrics: {receivers: [otlp], exporters: [nop]}
";
    let nothing = "  debug:";
    let backend = Gateway::start(&config(V1, nothing, metrics_only));
    let grpc_port = support::ports::free_port();
    let health = format!(
        "  health_check:
    use_v2: true
    component_health: {{include_permanent_errors: true}}
    http: {{endpoint: '127.0.0.1:@HEALTH@', status: {{path: /health/status}}}}
    grpc: {{endpoint: '127.0.0.1:{grpc_port}'}}"
    );
    let config = config(&health, &otlp_exporter(backend.grpc_port), TWO_PIPELINES);
    // `@HEALTH@` would have `/` asked, which version 2 does not have.
    let gateway = Gateway::start_without_health(&config);
    let mut client = OtlpClient::connect(grpc_port);
    let mut check = |service: &str| {
        let mut message = vec![10, u8::try_from(service.len()).unwrap()];
        message.extend_from_slice(service.as_bytes());
        let outcome = client.call("/grpc.health.v1.Health/Check", &message).expect("an answer");
        (outcome.status, outcome.body.get(5..).unwrap_or_default().to_vec())
    };
    const SERVING: &[u8] = &[8, 1];
    const NOT_SERVING: &[u8] = &[8, 2];
    const NOT_FOUND: i32 = 5;
    wait_for(&gateway, "/health/status", "StatusOK");
    assert_eq!(check(""), (OK, SERVING.to_vec()));
    assert_eq!(check("logs").0, NOT_FOUND);

    send(&gateway);
    let (code, document) = wait_for(&gateway, "/health/status?pipeline=traces&verbose", "StatusPermanentError");
    assert_eq!((code, &document["healthy"]), (500, &Value::Bool(false)), "{document}");
    assert_eq!(document["components"]["exporter:otlp"]["healthy"], Value::Bool(false), "{document}");
    assert_eq!(get(&gateway, "/health/status?pipeline=metrics/other").0, 200);
    assert_eq!(check(""), (OK, NOT_SERVING.to_vec()));
    assert_eq!(check("traces"), (OK, NOT_SERVING.to_vec()));
    assert_eq!(check("metrics/other"), (OK, SERVING.to_vec()));
    assert_eq!(http::get(gateway.health_port, "/live").unwrap().status, 200);
}

/// Scenario: SIGTERM while the backend hangs. Guarantee: not ready and stopping from then on, still alive.
#[test]
fn a_gateway_that_drains_is_alive_and_not_ready() {
    let backend = Backend::start();
    backend.behave(support::Behaviour::Hang);
    let config = config(V1, &otlp_exporter(backend.port), TWO_PIPELINES);
    let gateway = Gateway::start_with_args(&config, &["--drain-timeout", "20s"]);
    send(&gateway);
    gateway.process.signal("TERM");
    let (code, _) = wait_for(&gateway, "/status", "StatusStopping");
    assert_eq!(code, 503);
    assert_eq!(get(&gateway, "/ready"), (503, serde_json::json!({"status": "draining"})));
    assert_eq!(get(&gateway, "/live"), (200, serde_json::json!({"status": "draining"})));
    gateway.kill();
}

/// Scenario: the socket of a receiver dies under it, while a backend hangs. Guarantee: the receiver, its pipelines and the
/// gateway are in a fatal state, with the reason, for as long as the drain lasts, which is not ready and alive; the
/// exit code is that of a failure.
#[test]
fn a_receiver_that_cannot_go_on_ends_the_gateway() {
    let mut backend = Backend::start();
    backend.behave(support::Behaviour::Hang);
    let config = config(V1, &otlp_exporter(backend.port), TWO_PIPELINES);
    let mut gateway = Gateway::start_with_args(&config, &["--drain-timeout", "60s"]);
    send(&gateway);
    gateway.process.break_listener(gateway.grpc_port);
    let (code, document) = wait_for(&gateway, "/status?verbose", "StatusFatalError");
    assert_eq!((code, &document["healthy"]), (500, &Value::Bool(false)), "{document}");
    let reason = format!("no longer listens on 127.0.0.1:{}: ", gateway.grpc_port);
    let error = |of: &Value| of["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(&document).starts_with(&format!("receiver:otlp: {reason}")), "{document}");
    for pipeline in ["pipeline:traces", "pipeline:metrics/other"] {
        let pipeline = &document["components"][pipeline];
        assert_eq!(pipeline["status"], "StatusFatalError", "{document}");
        let receiver = &pipeline["components"]["receiver:otlp"];
        assert_eq!(receiver["status"], "StatusFatalError", "{document}");
        assert!(error(receiver).starts_with(&reason), "{document}");
    }
    let exporter = &document["components"]["pipeline:traces"]["components"]["exporter:otlp"];
    assert_ne!(exporter["status"], "StatusFatalError", "{document}");
    assert_eq!(get(&gateway, "/status?pipeline=traces").0, 500);
    assert_eq!(wait_for(&gateway, "/ready", "draining").0, 503);
    assert_eq!(get(&gateway, "/live").0, 200);

    // The drain need not wait for it any more.
    backend.stop();
    let status = gateway.process.wait(support::PATIENCE);
    assert_eq!(status.code(), Some(1), "not 3: that is for what a shutdown that was asked for left behind");
    let output = gateway.process.output();
    assert!(output.contains(&reason) && output.contains("shutting down after a fault that no retry mends"), "{output}");
}

/// Scenario: of two backends behind `load_balancing` one dies, then the other one; both come back. Guarantee: beneath
/// the exporter each has a state of its own, with its error, from when it dies until it takes data again; the exporter
/// and its pipeline are well while one of the two is, and readiness does not change.
#[test]
fn backends_of_a_load_balancer_show_beneath_it() {
    let mut backends = [Backend::start(), Backend::start()];
    let names = [0, 1].map(|index: usize| format!("127.0.0.1:{}", backends[index].port));
    let exporters = format!(
        "  load_balancing:
    resolver: {{static: {{hostnames: ['{}', '{}']}}}}
    protocol:
      otlp:
        tls: {{insecure: true}}
        retry_on_failure: {{initial_interval: 50ms, max_interval: 200ms, max_elapsed_time: 0}}",
        names[0], names[1]
    );
    let pipelines = TWO_PIPELINES.replace("exporters: [otlp]", "exporters: [load_balancing]");
    let gateway = Gateway::start(&config(V1, &exporters, &pipelines));
    // Enough traces that each has its share.
    let send_many = || {
        let traces = (0..50).flat_map(|number| trace(number, 2)).collect();
        assert_eq!(gateway.client().traces(&traces_request("health", traces)).status, OK);
    };
    let (ok, failing) = ("StatusOK", "StatusRecoverableError");
    let wait_until = |pipeline: &str, [one, two]: [&str; 2]| {
        eventually("the states are as they should be", || {
            let (code, document) = get(&gateway, "/status?pipeline=traces&verbose");
            assert_eq!((code, &document["healthy"]), (200, &Value::Bool(true)), "{document}");
            let exporter = &document["components"]["exporter:load_balancing"];
            let parts = [0, 1].map(|index| &exporter["components"][format!("backend:{}", names[index])]);
            let found = [&document["status"], &exporter["status"], &parts[0]["status"], &parts[1]["status"]];
            for part in parts.iter().filter(|part| part["status"] == failing) {
                assert!(part["error"].as_str().is_some_and(|error| !error.is_empty()), "{document}");
            }
            if found == [pipeline, pipeline, one, two] { Ok(()) } else { Err(document) }
        });
        assert_eq!(get(&gateway, "/ready").0, 200);
    };
    send_many();
    wait_until(ok, [ok, ok]);
    backends[1].stop();
    send_many();
    wait_until(ok, [ok, failing]);
    backends[0].stop();
    send_many();
    wait_until(failing, [failing, failing]);
    backends[0].restart();
    wait_until(ok, [ok, failing]);
    backends[1].restart();
    wait_until(ok, [ok, ok]);
    assert_eq!(gateway.terminate().code, Some(0));
    let shares = backends.each_ref().map(Backend::span_count);
    assert!(shares.iter().all(|spans| *spans > 0) && shares.iter().sum::<usize>() == 300, "{shares:?}");
}

/// What `Watch` tells of `service`, one answer after the other, until the gateway ends.
fn watch(port: u16, service: &str) -> mpsc::Receiver<Vec<u8>> {
    let mut message = vec![0, 0, 0, 0, 0, 10, u8::try_from(service.len()).unwrap()];
    message.extend_from_slice(service.as_bytes());
    message[4] = u8::try_from(message.len() - 5).unwrap();
    let (answers, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            let request = Request::post("http://localhost/grpc.health.v1.Health/Watch");
            let request = request.header("content-type", "application/grpc").body(Full::new(Bytes::from(message)));
            let mut body = sender.send_request(request.unwrap()).await.unwrap().into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data()
                    && answers.send(data.slice(5..).to_vec()).is_err()
                {
                    return;
                }
            }
        });
    });
    told
}

/// Scenario: a load balancer watches the gateway and pipelines while a backend goes away for good and comes back.
/// Guarantee: it is told at once how each is, again when that changes, and nothing else.
#[test]
fn watchers_are_told_when_something_changes() {
    let mut backend = Backend::stopped();
    let grpc_port = support::ports::free_port();
    let health = format!(
        "  health_check:
    use_v2: true
    component_health: {{include_recoverable_errors: true, recovery_duration: 1s}}
    http: {{endpoint: '127.0.0.1:@HEALTH@', status: {{path: /health/status}}}}
    grpc: {{endpoint: '127.0.0.1:{grpc_port}'}}"
    );
    let gateway = Gateway::start_without_health(&config(&health, &otlp_exporter(backend.port), TWO_PIPELINES));
    wait_for(&gateway, "/health/status", "StatusOK");
    let [whole, traces, metrics, none] =
        ["", "traces", "metrics/other", "nowhere"].map(|service| watch(grpc_port, service));
    let next = |watcher: &mpsc::Receiver<Vec<u8>>| watcher.recv_timeout(support::PATIENCE).unwrap();
    let (serving, not_serving, unknown) = (vec![8, 1], vec![8, 2], vec![8, 3]);
    assert_eq!(
        [next(&whole), next(&traces), next(&metrics), next(&none)],
        [serving.clone(), serving.clone(), serving.clone(), unknown]
    );
    send(&gateway);
    assert_eq!([next(&whole), next(&traces)], [not_serving.clone(), not_serving.clone()]);
    backend.restart();
    assert_eq!([next(&whole), next(&traces)], [serving.clone(), serving]);
    assert!(metrics.try_recv().is_err() && none.try_recv().is_err(), "nothing has changed there");
    backend.behave(support::Behaviour::Hang);
    send(&gateway);
    gateway.process.signal("TERM");
    assert_eq!(next(&metrics), not_serving, "it is stopping");
    gateway.kill();
}

/// Scenario: a receiver may have one connection, and two clients come. Guarantee: the receiver says that it takes no
/// more, its pipelines too, and no longer when nobody has been turned away for a while.
#[test]
fn a_receiver_that_turns_connections_away_says_so() {
    let config = config(V1, "  debug:", "\n    traces: {receivers: [otlp], exporters: [nop]}\n")
        .replace("receivers: {otlp: {", "receivers: {otlp: {max_connections: 1, ");
    let gateway = Gateway::start(&config);
    let _first = gateway.client();
    let (_, status) = eventually("the receiver says so", || {
        let _second = TcpStream::connect(("127.0.0.1", gateway.grpc_port)).unwrap();
        let (code, status) = get(&gateway, "/status?pipeline=traces&verbose");
        if status["status"] == "StatusRecoverableError" { Ok((code, status)) } else { Err(status) }
    });
    let receiver = &status["components"]["receiver:otlp"];
    assert_eq!(receiver["status"], "StatusRecoverableError", "{status}");
    assert!(receiver["error"].as_str().unwrap().contains("all 1 connections are in use"), "{status}");
    wait_for(&gateway, "/status?pipeline=traces", "StatusOK");
}

/// Scenario: none of a scraper's targets answers, then one does. Guarantee: the receiver says so, with the target and
/// the reason, and then is well.
#[test]
fn a_scraper_without_targets_that_answer_says_so() {
    let target = support::ports::free_port();
    let config = format!(
        "
receivers:
  prometheus:
    config:
      scrape_configs: [{{job_name: it, scrape_interval: 1s, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]
exporters: {{nop: }}
extensions: {{health_check: {{endpoint: '127.0.0.1:@HEALTH@'}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [prometheus], exporters: [nop]}}}}
"
    );
    let gateway = Gateway::start(&config);
    let (_, status) = wait_for(&gateway, "/status?pipeline=metrics&verbose", "StatusRecoverableError");
    let error = status["components"]["receiver:prometheus"]["error"].as_str().unwrap_or_default();
    assert!(
        error.starts_with(&format!("none of 1 targets can be scraped; the last one: 127.0.0.1:{target}: ")),
        "{status}"
    );
    let page = "up_and_running 1\n";
    let listener = std::net::TcpListener::bind(("127.0.0.1", target)).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
        }
    });
    wait_for(&gateway, "/status?pipeline=metrics", "StatusOK");
}
