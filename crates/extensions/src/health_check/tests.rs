//! The health page over a real socket.

use nyquist_core::clock::ManualClock;
use nyquist_core::component::{Condition, ExtensionContext, State};
use nyquist_core::config::ComponentId;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Scenario: start, ready, draining. Guarantee: 503, 200, 503, with the Collector's documents.
#[tokio::test]
async fn follows_the_life_of_the_pipelines() {
    let clock = ManualClock::new(1_700_000_000_000_000_000);
    let telemetry = Telemetry::new();
    let config = HealthCheckConfig { endpoint: "127.0.0.1:0".into(), ..HealthCheckConfig::default() };
    let extension = HealthCheck::new(config, clock);
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let clock = Arc::clone(&extension.shared.clock);
    extension.start(&Host { runtimes: Runtimes::current(), clock, telemetry, fatal }).await.unwrap();
    let address = extension.page.lock().as_ref().unwrap().address();

    let before = get(address, "/").await;
    assert!(before.starts_with("HTTP/1.1 503"), "{before}");
    assert!(before.ends_with(r#"{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}"#));

    extension.ready();
    let during = get(address, "/").await;
    assert!(during.starts_with("HTTP/1.1 200"), "{during}");
    assert!(during.contains(r#""status":"Server available""#), "{during}");
    assert!(during.contains(r#""upSince":"2023-11-14T22:13:20.000000000Z""#), "{during}");
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));

    extension.not_ready();
    assert!(get(address, "/").await.starts_with("HTTP/1.1 503"));
}

/// Guarantee: `response_body` is what is answered, with the status that it would have been.
#[tokio::test]
async fn bodies_are_as_configured() {
    let keys = "{endpoint: '127.0.0.1:0', response_body: {healthy: I am fine, unhealthy: I am not}}";
    let (config, _) = nyquist_core::config::from_str::<HealthCheckConfig>(keys).unwrap();
    let extension = HealthCheck::new(config, ManualClock::new(0));
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let clock = Arc::clone(&extension.shared.clock);
    let host = Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal };
    extension.start(&host).await.unwrap();
    let address = extension.page.lock().as_ref().unwrap().address();
    let before = get(address, "/").await;
    assert!(before.starts_with("HTTP/1.1 503") && before.ends_with("\r\n\r\nI am not"), "{before}");
    extension.ready();
    let during = get(address, "/").await;
    assert!(during.starts_with("HTTP/1.1 200") && during.ends_with("\r\n\r\nI am fine"), "{during}");
}

/// Scenario: start, ready, draining, asked by probes. Guarantee: liveness holds throughout, so that nobody
/// restarts a gateway that replays or drains; readiness only while it takes data.
#[tokio::test]
async fn liveness_and_readiness_are_apart() {
    let clock = ManualClock::new(1_700_000_000_000_000_000);
    let config = HealthCheckConfig { endpoint: "127.0.0.1:0".into(), ..HealthCheckConfig::default() };
    let extension = HealthCheck::new(config, clock);
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let clock = Arc::clone(&extension.shared.clock);
    let host = Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal };
    extension.start(&host).await.unwrap();
    let address = extension.page.lock().as_ref().unwrap().address();

    type Change = fn(&HealthCheck);
    let changes: [(Change, &str, &str); 3] = [
        (|_| {}, "starting", "503"),
        (|extension| extension.ready(), "ready", "200"),
        (|extension| extension.not_ready(), "draining", "503"),
    ];
    for (change, phase, readiness) in changes {
        change(&extension);
        let body = format!("{{\"status\":\"{phase}\"}}");
        let live = get(address, "/live").await;
        assert!(live.starts_with("HTTP/1.1 200") && live.ends_with(&body), "{live}");
        let ready = get(address, "/ready").await;
        assert!(ready.starts_with(&format!("HTTP/1.1 {readiness}")) && ready.ends_with(&body), "{ready}");
    }
}

/// Errors of components do not make the gateway unhealthy unless asked to, and a recoverable one only
/// once it has lasted.
#[test]
fn component_health_decides_which_errors_count() {
    let state = |condition| State { condition, error: None, since: 10_000_000_000 };
    let quiet = ComponentHealth::default();
    let strict = ComponentHealth {
        include_permanent_errors: true,
        include_recoverable_errors: true,
        recovery_duration: nyquist_core::config::Duration::from_secs(5),
    };
    use Condition::{FatalError, Ok, PermanentError, RecoverableError};
    for (condition, seconds, by_default, if_strict) in [
        (Ok, 100, true, true),
        (RecoverableError, 14, true, true),
        (RecoverableError, 15, true, false),
        (PermanentError, 10, true, false),
        (FatalError, 10, false, false),
    ] {
        let healthy = |health: &ComponentHealth| health.is_healthy(&state(condition), seconds * 1_000_000_000);
        assert_eq!((healthy(&quiet), healthy(&strict)), (by_default, if_strict), "{condition:?} at {seconds}");
    }
}

#[test]
fn what_the_keys_get_wrong() {
    let problems = |yaml: &str| match nyquist_core::config::from_str::<HealthCheckConfig>(yaml) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics
            .errors
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect::<Vec<_>>(),
    };
    assert_eq!(problems("{use_v2: true, http: , grpc: , component_health: {recovery_duration: 5m}}"), [""; 0]);
    assert_eq!(problems("{use_v2: true}"), ["use_v2: must specify at least one protocol: add http or grpc"],);
    assert_eq!(problems("{http: {endpoint: 'localhost:1'}}"), ["http: http is of version 2 of the extension"]);
    assert_eq!(problems("{use_v2: true, http: {status: {path: status}}}"), ["http.status.path: must start with /"],);
    assert_eq!(
        problems("{use_v2: true, grpc: {transport: unix}}"),
        ["grpc.transport: unknown transport \"unix\"; write tcp"],
    );
}

#[test]
fn builds_from_its_defaults() {
    let context = ExtensionContext {
        id: ComponentId::of("health_check"),
        telemetry: Telemetry::new(),
        clock: ManualClock::new(0),
    };
    assert!(HealthCheckConfig::default().build(context).is_ok());
}
