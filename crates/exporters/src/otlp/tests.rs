use std::time::Duration;

use nyquist_core::batch::{Code, DropReason};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::Extensions;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::net::client::Connector;
use nyquist_core::net::grpc::with_retry;
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::Status;

use super::backend::{Backend, Rig, batch, until};
use super::*;

fn config(yaml: &str) -> OtlpConfig {
    serde_yaml::from_str(yaml).unwrap()
}

/// An exporter to `address`, in plaintext and without a queue; `more` is more YAML, in one line.
fn direct(address: std::net::SocketAddr, more: &str) -> OtlpConfig {
    config(&format!("{{endpoint: '{address}', tls: {{insecure: true}}, sending_queue: {{enabled: false}}, {more}}}"))
}

const NO_RETRY: &str = "retry_on_failure: {enabled: false}";
const QUICK: &str = "retry_on_failure: {initial_interval: 10ms, max_interval: 20ms}";

#[tokio::test]
async fn tonic_understands_every_compression_it_knows() {
    for compression in ["none", "gzip", "zstd"] {
        let backend = Backend::default();
        let (address, _server) = backend.serve("127.0.0.1:0", None).await;
        let rig = Rig::start(&direct(address, &format!("compression: {compression}")), None).await;
        for spans in [1, 3000] {
            rig.exporter.consume(batch("a", spans)).await.unwrap();
        }
        assert_eq!(backend.spans(), [1, 3000], "{compression}");
        let received = backend.received.lock();
        let (first, metadata) = received.first().unwrap();
        assert_eq!(first.resource_spans[0].scope_spans[0].spans[0].name, "a-0");
        let agent = metadata.get("user-agent").unwrap().to_str().unwrap();
        assert!(agent.starts_with("nyquist/") && agent.contains(" (linux/"), "{agent}");
        let encoding = metadata.get("grpc-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(encoding, Some(compression).filter(|name| *name != "none"));
        assert_eq!(rig.ledger.count(Entry::Exported), 3001);
    }
}

/// The connector of an exporter with this in its configuration.
fn connector(more: &str) -> Connector {
    let (extensions, telemetry) = (Extensions::default(), Telemetry::new());
    let context = ExporterContext {
        id: ComponentId::of("otlp"),
        signal: Signal::Traces,
        ledger: Ledger::new(&telemetry, "exporter/otlp", Signal::Traces),
        batching: None,
        extensions: &extensions,
        telemetry,
        clock: Arc::new(SystemClock::default()),
    };
    let config = config(&format!("{{endpoint: 'backend:4317', tls: {{insecure: true}}, {more}}}"));
    let endpoint = GrpcEndpoint::parse(&config.endpoint).unwrap();
    GrpcAttempt::new(&config, &endpoint, &context).unwrap().connector(None).unwrap()
}

/// Guarantee: `balancer_name` says which of a name's addresses are used: each in its turn, or the first that answers.
#[tokio::test]
async fn balancer_name_says_which_addresses_are_used() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let reached = async |connector: &Connector| {
        let mut found = Vec::new();
        for _ in 0..4 {
            let peer = connector.connect_any(&addresses).await.unwrap().peer_addr().unwrap();
            found.push(addresses.iter().position(|address| *address == peer).unwrap());
        }
        found
    };
    for yaml in ["", "balancer_name: ''", "balancer_name: round_robin"] {
        assert_eq!(reached(&connector(yaml)).await, [0, 1, 0, 1], "{yaml:?}");
    }
    let pick_first = connector("balancer_name: pick_first");
    assert_eq!(reached(&pick_first).await, [0; 4]);
    drop(first);
    assert_eq!(reached(&pick_first).await, [1; 4], "the first that answers");
}

#[test]
fn what_has_no_effect_says_so() {
    let yaml = "endpoint: b:4317\nread_buffer_size: 1\nwrite_buffer_size: 2\nwait_for_ready: true\n";
    let (_, findings) = from_str::<OtlpConfig>(yaml).unwrap();
    let paths: Vec<_> = findings.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(paths, ["read_buffer_size", "write_buffer_size", "wait_for_ready"]);
    assert!(findings.warnings.iter().all(|warning| warning.to_string().contains("has no effect: ")));
}

#[tokio::test]
async fn http_scheme_alone_still_means_tls() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let yaml = format!("{{endpoint: 'http://{address}', sending_queue: {{enabled: false}}, {NO_RETRY}}}");
    let rig = Rig::start(&config(&yaml), None).await;
    let refusal = rig.exporter.consume(batch("a", 1)).await.unwrap_err();
    assert!(refusal.message().contains("tls.insecure: true"), "{refusal}");
    let yaml = format!("{{endpoint: 'http://{address}', tls: {{insecure: true}}, sending_queue: {{enabled: false}}}}");
    let rig = Rig::start(&config(&yaml), None).await;
    rig.exporter.consume(batch("a", 1)).await.unwrap();
}

#[tokio::test]
async fn without_a_queue_the_sender_sees_the_backends_status() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let rig = Rig::start(&direct(address, ""), None).await;
    backend.answer(Err(Status::invalid_argument("no such tenant")));
    let refusal = rig.exporter.consume(batch("a", 1)).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.is_retryable()), (Code::InvalidArgument, false));
    assert!(refusal.message().contains("no such tenant"));
    assert_eq!(rig.ledger.count(Entry::Accepted), 0, "the sender keeps what was refused");
    assert_eq!(rig.metric("otelcol_exporter_send_failed_spans"), 1.0);
}

#[tokio::test]
async fn resource_exhausted_is_tried_again_only_with_a_delay() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let rig = Rig::start(&direct(address, QUICK), None).await;
    backend.answer(Err(Status::resource_exhausted("quota")));
    let refusal = rig.exporter.consume(batch("a", 1)).await.unwrap_err();
    assert!(!refusal.is_retryable());
    let begin = Instant::now();
    backend.answer(Err(with_retry(Code::ResourceExhausted, "quota", Duration::from_millis(300))));
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(backend.spans().len(), 3);
    let rig = Rig::start(&direct(address, &format!("{QUICK}, retry_resource_exhausted: true")), None).await;
    backend.answer(Err(Status::resource_exhausted("quota")));
    rig.exporter.consume(batch("a", 1)).await.unwrap();
}

#[tokio::test]
async fn retryable_statuses_are_those_of_the_specification() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let rig = Rig::start(&direct(address, NO_RETRY), None).await;
    for number in 1..=16 {
        backend.answer(Err(Status::new(Code::from(number), "x")));
        let refusal = rig.exporter.consume(batch("a", 1)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::from(number));
        assert_eq!(refusal.is_retryable(), [1, 4, 10, 11, 14, 15].contains(&number), "{number}");
    }
}

#[tokio::test]
async fn partial_success_is_counted_and_not_sent_again() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let rig = Rig::start(&direct(address, QUICK), None).await;
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "x".to_owned() };
    backend.answer(Ok(ExportTraceServiceResponse { partial_success: Some(partial) }));
    rig.exporter.consume(batch("a", 10)).await.unwrap();
    assert_eq!(backend.spans(), [10]);
    assert_eq!(rig.ledger.count(Entry::Exported), 7);
    assert_eq!(rig.ledger.dropped_count(DropReason::PartlyRejected), 3);
    assert_eq!(rig.metric("otelcol_exporter_sent_spans"), 10.0);
}

#[tokio::test]
async fn a_restarted_backend_is_found_again() {
    let backend = Backend::default();
    let (address, server) = backend.serve("127.0.0.1:0", None).await;
    let yaml = format!("{{endpoint: '{address}', tls: {{insecure: true}}, {QUICK}}}");
    let rig = Rig::start(&config(&yaml), None).await;
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    until("the first batch arrives", || backend.spans() == [1]).await;
    server.abort();
    let _ = server.await;
    for spans in 2..=5 {
        rig.exporter.consume(batch("b", spans)).await.unwrap();
    }
    until("the outage is noticed", || rig.exporter.status().unwrap().failing_since.is_some()).await;
    let (_, _server) = backend.serve(&address.to_string(), None).await;
    until("all arrive", || backend.spans().len() == 5).await;
    let mut spans = backend.spans();
    spans.sort_unstable();
    assert_eq!(spans, [1, 2, 3, 4, 5], "each once");
    until("all are booked", || rig.ledger.held_count() == 0).await;
    assert_eq!(rig.exporter.status().unwrap().failing_since, None);
    assert_eq!(rig.ledger.count(Entry::Exported), 15);
}

#[tokio::test]
async fn merged_requests_are_one_message() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let yaml = format!("{{endpoint: '{address}', tls: {{insecure: true}}, sending_queue: {{batch: {{}}}}}}");
    let rig = Rig::start(&config(&yaml), None).await;
    for _ in 0..3 {
        rig.exporter.consume(batch("a", 100)).await.unwrap();
    }
    until("they arrive", || backend.spans() == [300]).await;
}

#[tokio::test]
async fn headers_and_authority_are_sent() {
    let backend = Backend::default();
    let (address, _server) = backend.serve("127.0.0.1:0", None).await;
    let more = "headers: {X-Tenant: \"a\\n\"}, authority: backend.example, user_agent: mine/1";
    let rig = Rig::start(&direct(address, more), None).await;
    rig.exporter.consume(batch("a", 1)).await.unwrap();
    let received = backend.received.lock();
    let metadata = &received[0].1;
    assert_eq!(metadata.get("x-tenant").unwrap(), "a");
    assert_eq!(metadata.get("user-agent").unwrap(), "mine/1");
}

#[tokio::test]
async fn an_unknown_authenticator_is_named() {
    let yaml = "{endpoint: 'b:4317', auth: {authenticator: nobody}}";
    let rig = std::panic::catch_unwind(|| Rig::build(&config(yaml), None, &Extensions::default()));
    assert!(rig.is_err());
}

/// Scenario: a tonic server that takes messages of 2000 bytes; a request of many spans, then one with a single span that
/// is too long; compressed and not; without a queue, and in a queue that tries for ever. Guarantee: what can be split
/// arrives in pieces, each span once; what cannot is dropped as rejected and stops nobody.
#[tokio::test]
async fn what_is_too_large_for_tonic_is_split_and_never_tried_for_ever() {
    for (compression, queue) in [
        ("none", "enabled: false"),
        ("gzip", "enabled: false"),
        ("none", "num_consumers: 1"),
        ("gzip", "num_consumers: 1"),
    ] {
        let backend = Backend { longest: Some(2000), ..Backend::default() };
        let (address, _server) = backend.serve("127.0.0.1:0", None).await;
        let yaml = format!(
            "{{endpoint: '{address}', tls: {{insecure: true}}, compression: {compression}, sending_queue: {{{queue}}}, \
             retry_on_failure: {{initial_interval: 10ms, max_interval: 20ms, max_elapsed_time: 0}}}}"
        );
        let rig = Rig::start(&config(&yaml), None).await;
        let has_queue = queue != "enabled: false";
        rig.exporter.consume(batch("a", 300)).await.unwrap();
        let refused = rig.exporter.consume(batch(&"long".repeat(1000), 1)).await.err();
        assert_eq!(
            refused.as_ref().map(|refusal| refusal.is_retryable()),
            (!has_queue).then_some(false),
            "{refused:?}"
        );
        rig.exporter.consume(batch("b", 1)).await.unwrap();
        until("all is settled", || rig.ledger.count(Entry::Exported) == 301).await;
        assert_eq!(rig.ledger.held_count(), 0);
        assert_eq!(rig.ledger.dropped_count(DropReason::Rejected), u64::from(has_queue));
        let received = backend.received.lock();
        let scopes =
            received.iter().flat_map(|(request, _)| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        let names: Vec<&String> = scopes.flat_map(|scope| &scope.spans).map(|span| &span.name).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!((names.len(), distinct.len()), (301, 301), "{compression}, {queue}");
    }
}

/// Guarantee: the words of the servers that there are, each with its own code; anything else is what its code says.
#[tokio::test]
async fn every_library_says_too_large_in_its_own_words() {
    let too_large = [
        Status::resource_exhausted("grpc: received message larger than max (5242880 vs. 4194304)"),
        Status::resource_exhausted("SERVER: Received message larger than max (5242880 vs. 4194304)"),
        Status::resource_exhausted("gRPC message exceeds maximum size 4194304: 5242880"),
        Status::resource_exhausted("Received message exceeds the maximum configured message size."),
        Status::out_of_range(
            "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes",
        ),
        Status::resource_exhausted(
            "Error decompressing: size limit, of 4194304 bytes, exceeded while decompressing message",
        ),
    ];
    for status in too_large {
        let backend = Backend::default();
        let (address, _server) = backend.serve("127.0.0.1:0", None).await;
        let rig = Rig::start(&direct(address, NO_RETRY), None).await;
        backend.answer(Err(status.clone()));
        rig.exporter.consume(batch("a", 10)).await.unwrap();
        assert_eq!(backend.spans(), [10, 5, 5], "{status}");
    }
    for (status, retryable) in
        [(Status::resource_exhausted("no room"), false), (Status::out_of_range("too late"), true)]
    {
        let backend = Backend::default();
        let (address, _server) = backend.serve("127.0.0.1:0", None).await;
        let rig = Rig::start(&direct(address, NO_RETRY), None).await;
        backend.answer(Err(status.clone()));
        let refusal = rig.exporter.consume(batch("a", 10)).await.unwrap_err();
        assert_eq!(refusal.is_retryable(), retryable, "{status}");
        assert_eq!(backend.spans(), [10]);
    }
}
