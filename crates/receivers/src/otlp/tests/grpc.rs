//! OTLP/gRPC as a tonic client sees it.

use nyquist_core::batch::Code;
use nyquist_core::net::grpc::retry_delay;
use nyquist_core::proto::collector::metrics::v1::ExportMetricsServiceRequest;
use nyquist_core::proto::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use nyquist_core::proto::collector::trace::v1::ExportTraceServiceRequest;
use nyquist_core::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::*;

type Client = TraceServiceClient<Channel>;

impl Running {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc())).expect("an address").connect().await.expect("connects")
    }

    async fn client(&self) -> Client {
        TraceServiceClient::new(self.channel().await)
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: traces(spans).resource_spans }
}

fn bulky(bytes: usize) -> ExportTraceServiceRequest {
    let mut large = span(1);
    large.attributes.push(attribute("bulk", &"x".repeat(bytes)));
    request(vec![large])
}

#[tokio::test]
async fn spans_arrive_as_they_were_sent() {
    let running = Running::start().await;
    let response = running.client().await.export(request(vec![span(1), span(2)])).await.expect("accepted");
    assert_eq!(response.into_inner().partial_success, None);
    assert_eq!(running.sink.traces(), [traces(vec![span(1), span(2)])]);
    let labels = ["receiver=\"otlp\"", "transport=\"grpc\""];
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &labels), 2);
    assert_eq!(running.metric("otelcol_receiver_requests", &["outcome=\"success\"", "transport=\"grpc\""]), 1);
}

#[tokio::test]
async fn requests_of_every_size_arrive_compressed_or_not() {
    let running =
        Running::with(with("grpc", json!({"max_recv_msg_size_mib": 16})), Sink::default(), &Signal::ALL).await;
    let sizes = [1, 100, 16 << 10, 40 << 10, 70 << 10, 1 << 20, 5 << 20, 15 << 20];
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = running.client().await.max_encoding_message_size(64 << 20);
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        for size in sizes {
            client.export(bulky(size)).await.unwrap_or_else(|status| panic!("{encoding:?} {size}: {status}"));
            let received = running.sink.traces().pop().expect("one batch");
            assert_eq!(received.resource_spans, bulky(size).resource_spans);
            running.sink.batches.lock().clear();
        }
    }
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_for_good() {
    let running = Running::start().await;
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = running.client().await;
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        let status = client.export(bulky(5 << 20)).await.expect_err("5 MiB are too much");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("larger than max ("), "{status}");
        assert!(status.message().ends_with("vs. 4194304)"), "{status}");
        assert_eq!(retry_delay(status.details()), None);
        // The connection is as good as before.
        client.export(request(vec![span(1)])).await.expect("accepted");
    }
}

#[tokio::test]
async fn an_empty_request_succeeds_and_goes_no_further() {
    let running = Running::start().await;
    running.client().await.export(request(vec![])).await.expect("accepted");
    running.client().await.export(ExportTraceServiceRequest::default()).await.expect("accepted");
    assert_eq!(running.sink.len(), 0);
}

#[tokio::test]
async fn spans_without_valid_ids_are_left_out_and_reported() {
    let running = Running::start().await;
    let zero = Span { trace_id: vec![0; 16], ..span(1) };
    let short = Span { span_id: vec![1; 7], ..span(1) };
    let response = running.client().await.export(request(vec![zero.clone(), span(2), short])).await.expect("accepted");
    let partial = response.into_inner().partial_success.expect("a partial success");
    assert_eq!(partial.rejected_spans, 2);
    assert_eq!(partial.error_message, "2 spans without a valid trace or span id were dropped");
    assert_eq!(running.sink.traces(), [traces(vec![span(2)])]);
    let dropped = ["account=\"receiver/otlp\"", "reason=\"invalid_id\"", "signal=\"traces\""];
    assert_eq!(running.metric("nyquist_ledger_dropped_items", &dropped), 2);
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &["transport=\"grpc\""]), 1);
    // Nothing is left of a request that has no other spans.
    running.client().await.export(request(vec![zero])).await.expect("accepted");
    assert_eq!(running.sink.len(), 1);
}

#[tokio::test]
async fn a_retryable_refusal_asks_to_come_back() {
    let refusal = Refusal::retryable(None, "data refused due to high memory usage");
    let running = Running::with(defaults(), Sink::refusing(refusal), &Signal::ALL).await;
    let status = running.client().await.export(request(vec![span(1)])).await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "data refused due to high memory usage"));
    assert_eq!(retry_delay(status.details()), Some(Duration::from_secs(1)));
    assert_eq!(running.metric("otelcol_receiver_refused_spans", &["transport=\"grpc\""]), 1);
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &["transport=\"grpc\""]), 0);
    let delay = Duration::from_millis(2900);
    *running.sink.refusal.lock() = Some(Refusal::retryable(Some(delay), "queue is full"));
    let status = running.client().await.export(request(vec![span(1)])).await.expect_err("refused");
    assert_eq!(retry_delay(status.details()), Some(delay));
}

#[tokio::test]
async fn a_permanent_refusal_keeps_its_code() {
    let running = Running::with(defaults(), Sink::refusing(Refusal::permanent("no")), &Signal::ALL).await;
    let status = running.client().await.export(request(vec![span(1)])).await.expect_err("refused");
    assert_eq!((status.code(), status.message(), status.details()), (Code::Internal, "no", &[][..]));
    *running.sink.refusal.lock() = Some(Refusal::permanent("bad").with_code(Code::InvalidArgument));
    let status = running.client().await.export(request(vec![span(1)])).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_panic_in_a_pipeline_is_an_internal_error_and_nothing_worse() {
    let sink = Sink { panics: true, ..Sink::default() };
    let running = Running::with(defaults(), sink, &Signal::ALL).await;
    let mut client = running.client().await;
    for _ in 0..2 {
        let status = client.export(request(vec![span(1)])).await.expect_err("refused");
        assert_eq!(status.code(), Code::Internal);
    }
    assert_eq!(running.receiver.admission.used(), 0);
}

#[tokio::test]
async fn a_signal_without_pipeline_is_unimplemented() {
    let running = Running::with(defaults(), Sink::default(), &[Signal::Traces]).await;
    let mut client = MetricsServiceClient::new(running.channel().await);
    let status = client.export(ExportMetricsServiceRequest::default()).await.expect_err("no pipeline");
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("unknown service opentelemetry.proto.collector.metrics.v1.MetricsService"));
}

#[tokio::test]
async fn who_is_not_let_in_is_unauthenticated_and_not_counted() {
    let config = with("grpc", json!({"auth": {"authenticator": "key"}}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let mut client = running.client().await;
    let status = client.export(request(vec![span(1)])).await.expect_err("no key");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "wrong key"));
    assert_eq!(running.sink.len(), 0);
    let mut good = tonic::Request::new(request(vec![span(1)]));
    good.metadata_mut().insert("x-key", "right".parse().expect("a value"));
    client.export(good).await.expect("accepted");
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &["transport=\"grpc\""]), 1);
}

#[tokio::test]
async fn headers_come_along_when_asked_for() {
    let config = with("grpc", json!({"include_metadata": true}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let mut with_tenant = tonic::Request::new(request(vec![span(1)]));
    with_tenant.metadata_mut().insert("x-tenant", "blue".parse().expect("a value"));
    running.client().await.export(with_tenant).await.expect("accepted");
    let batch = running.sink.batches.lock().pop().expect("a batch");
    assert!(batch.metadata().headers.contains(&("x-tenant".to_owned(), "blue".to_owned())));
}

#[tokio::test]
async fn what_a_client_that_left_had_sent_is_delivered() {
    let running = Running::with(defaults(), Sink::closed(), &Signal::ALL).await;
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.export(request(vec![span(1)])).await });
    running.sink.arrived.notified().await;
    call.abort();
    let _ = call.await;
    running.sink.release();
    running.shutdown(Duration::from_secs(20)).await;
    assert_eq!(running.sink.traces(), [traces(vec![span(1)])]);
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &["transport=\"grpc\""]), 1);
}

#[tokio::test]
async fn shutdown_waits_for_the_pipeline_but_not_beyond_the_deadline() {
    let running = Running::with(defaults(), Sink::closed(), &Signal::ALL).await;
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.export(request(vec![span(1)])).await });
    running.sink.arrived.notified().await;
    running.shutdown(Duration::from_millis(50)).await;
    assert_eq!(running.sink.len(), 0);
    assert!(call.await.expect("no panic").is_err());
}

#[tokio::test]
async fn requests_beyond_max_in_flight_are_asked_to_come_back() {
    let mut config = defaults();
    config["max_in_flight"] = json!(100_000);
    let running = Running::with(config, Sink::closed(), &Signal::ALL).await;
    let mut client = running.client().await;
    let first = tokio::spawn({
        let mut client = client.clone();
        async move { client.export(bulky(60_000)).await }
    });
    running.sink.arrived.notified().await;
    let status = client.export(bulky(60_000)).await.expect_err("no room");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(retry_delay(status.details()), Some(Duration::from_secs(1)));
    running.sink.release();
    first.await.expect("no panic").expect("accepted");
    client.export(bulky(60_000)).await.expect("there is room again");
    assert_eq!(running.receiver.admission.used(), 0);
}

#[tokio::test]
async fn who_speaks_http_on_the_grpc_port_is_told_where_to_go() {
    let running = Running::start().await;
    let json = [("content-type", "application/json")];
    let answer = send(running.grpc(), Method::POST, "/v1/traces", &json, "{}").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(answer.text().contains("port 4318"), "{}", answer.text());
}
