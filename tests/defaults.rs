//! A bare `nyquist` with the repository's pipeline.yaml and no backend up: it starts, is useful, and
//! says what it cannot reach.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::gateway::binary;
use support::metrics::Samples;
use support::otlp::{attribute, sum_request, trace, traces_request};
use support::otlp_client::OK;
use support::process::Process;
use support::{OtlpClient, eventually, http, unix_nanos};

const GRPC: u16 = 4317;
const HTTP: u16 = 4318;
const OWN_METRICS: u16 = 8888;
const SCRAPE_PAGE: u16 = 8889;
const HEALTH: u16 = 13133;

// One test: the default ports can be used once at a time.
#[test]
fn the_default_pipeline_runs_with_nothing_else_up() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(repository.join("pipeline.yaml").is_file(), "pipeline.yaml is what a bare `nyquist` runs");
    let mut nyquist = Process::spawn("nyquist", Command::new(binary()).current_dir(repository));
    eventually("the health check says 200", || {
        if let Some(status) = nyquist.exited() {
            panic!("ended with {status}:\n{}", nyquist.output());
        }
        match http::get(HEALTH, "/") {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.status.to_string()),
            Err(error) => Err(error),
        }
    });
    let health = http::get(HEALTH, "/").unwrap().json();
    assert_eq!(health["status"], "Server available", "{health}");

    let status = nyquist.status();
    assert!(!status.contains("THP_enabled:\t1"), "the gateway asks for small pages:\n{status}");

    // An error trace is kept; it is on its way to a backend that is not there.
    let mut client = OtlpClient::connect(GRPC);
    let mut spans = trace(1, 5);
    spans[0].status.as_mut().unwrap().code = 2;
    let outcome = client.traces(&traces_request("defaults", spans));
    assert_eq!(outcome.status, OK, "{outcome:?}");
    let users = [(vec![attribute("region", "eu")], 7), (vec![attribute("region", "us")], 5)];
    let outcome = client.metrics(&sum_request("defaults", "app.visits", unix_nanos(), &users));
    assert_eq!(outcome.status, OK, "{outcome:?}");
    assert_eq!(http::post(HTTP, "/v1/traces", "application/json", "", "{}").unwrap().status, 200);

    let page = eventually("the scrape page has the metric", || {
        let page = Samples::parse(&http::get(SCRAPE_PAGE, "/metrics")?.text());
        if page.sum("app_visits_total", &[]) == 12.0 { Ok(page) } else { Err(format!("{page:?}")) }
    });
    assert_eq!(page.sum("app_visits_total", &[("region", "eu")]), 7.0);

    let own = eventually("kept data is held for the backend that is away", || {
        let samples = Samples::parse(&http::get(OWN_METRICS, "/metrics")?.text());
        let holds = samples.ledger().iter().any(|account| account.name.contains("exporter/") && account.held >= 5.0);
        if holds { Ok(samples) } else { Err(format!("{:?}", samples.ledger())) }
    });
    assert!(own.has_family("otelcol_receiver_accepted_spans"), "the Collector's names");
    assert!(own.has_family("otelcol_process_uptime") || own.has_family("otelcol_process_cpu"), "about the process");

    eventually("the log says what cannot be reached", || {
        let output = nyquist.output();
        let tells = |word: &str| {
            let warnings = output.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
            warnings.filter(|line| line.contains(word)).count() > 0
        };
        if tells("jaeger") && tells("prometheus") { Ok(()) } else { Err(()) }
    });
    eventually("the debug exporter sums up the kept trace", || {
        let output = nyquist.output();
        let summary = output.lines().any(|line| line.contains("debug") && line.contains("spans") && line.contains('5'));
        if summary { Ok(()) } else { Err(()) }
    });

    nyquist.signal("TERM");
    let status = nyquist.wait(Duration::from_secs(60));
    assert!(status.code().is_some(), "it leaves by itself although the backend is away: {status}");
}
