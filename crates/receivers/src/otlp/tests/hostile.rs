//! Hostile input is normal input: an answer, bounded memory, and the next request works.

use nyquist_core::batch::Code;
use nyquist_core::wire::put_len_field;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PROTOBUF: &str = "application/x-protobuf";

impl Running {
    async fn is_alive(&self) {
        let before = self.sink.len();
        assert_eq!(self.post(PROTOBUF, wire(vec![span(1)])).await.status, StatusCode::OK);
        assert_eq!(self.sink.len(), before + 1);
        assert_eq!(self.receiver.admission.used(), 0);
    }
}

#[tokio::test]
async fn what_is_not_the_message_is_refused() {
    let running = Running::start().await;
    let good = wire(vec![span(1); 3]);
    let mut not_text = traces(vec![span(1)]).encode_to_vec();
    let name = not_text.windows(6).position(|bytes| bytes == b"span 1").expect("the name");
    not_text[name] = 0xff;
    let bodies = [
        good.slice(..good.len() - 1),
        Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f"),
        Bytes::from_static(b"\x08\x01"),
        Bytes::from_static(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        not_text.into(),
    ];
    for body in bodies {
        let answer = running.post(PROTOBUF, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body:?}");
    }
    let failures = ["outcome=\"failure\"", "transport=\"http\""];
    assert_eq!(running.metric("otelcol_receiver_requests", &failures), 5);
    running.is_alive().await;
}

#[tokio::test]
async fn deep_nesting_is_refused_in_both_formats() {
    let running = Running::start().await;
    let mut value = Vec::new();
    for _ in 0..10_000 {
        let mut list = Vec::new();
        put_len_field(&mut list, 1, &value);
        value = Vec::new();
        put_len_field(&mut value, 5, &list);
    }
    let mut attribute = Vec::new();
    put_len_field(&mut attribute, 2, &value);
    let mut message = attribute;
    for field in [9, 2, 2, 1] {
        let mut outer = Vec::new();
        put_len_field(&mut outer, field, &message);
        message = outer;
    }
    assert_eq!(running.post(PROTOBUF, message).await.status, StatusCode::BAD_REQUEST);
    let deep = r#"{"arrayValue":{"values":["#.repeat(10_000);
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"value":{deep}"#);
    assert_eq!(running.post("application/json", json).await.status, StatusCode::BAD_REQUEST);
    let unknown = format!(r#"{{"unknown":{}"#, "[".repeat(1_000_000));
    assert_eq!(running.post("application/json", unknown).await.status, StatusCode::BAD_REQUEST);
    running.is_alive().await;
}

#[tokio::test]
async fn json_that_grows_on_the_wire_stops_at_the_limit() {
    let config = with("http", json!({"max_request_body_size": 100_000}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    // Two bytes of JSON are eight on the wire.
    let bounds = vec!["1"; 40_000].join(",");
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{bounds}]}}]}}}}]}}]}}]}}"#
    );
    let answer = running.send("/v1/metrics", &[("content-type", "application/json")], json).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("http: request body too large"), "{}", answer.text());
    running.is_alive().await;
}

#[tokio::test]
async fn an_attribute_of_nearly_the_limit_is_telemetry_like_any_other() {
    let running = Running::start().await;
    let mut large = span(1);
    large.attributes.push(attribute("bulk", &"x".repeat(20_000_000)));
    assert_eq!(running.post(PROTOBUF, wire(vec![large])).await.status, StatusCode::OK);
    running.is_alive().await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_holds_nothing() {
    let running = Running::start().await;
    let mut socket = TcpStream::connect(running.http()).await.expect("connects");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 1000000\r\n\r\nabc";
    socket.write_all(head.as_bytes()).await.expect("writes");
    while running.receiver.admission.used() == 0 {
        tokio::task::yield_now().await;
    }
    drop(socket);
    while running.receiver.admission.used() > 0 {
        tokio::task::yield_now().await;
    }
    running.is_alive().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let config = with("http", json!({"read_header_timeout": "100ms"}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let mut socket = TcpStream::connect(running.http()).await.expect("connects");
    socket.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("writes");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the server closed");
}

#[tokio::test]
async fn a_body_slower_than_read_timeout_is_given_up() {
    let config = with("http", json!({"read_timeout": "100ms"}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let mut socket = TcpStream::connect(running.http()).await.expect("connects");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.expect("writes");
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), socket.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("reads");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

/// Guarantee: the headers of requests count as what they take in memory, over both protocols, while their bodies
/// come; requests with many are refused when there is no more room, and all is given back.
#[tokio::test]
async fn headers_count_as_bytes_in_flight() {
    // A client alone gets two thirds: room for three.
    let each = REQUEST_OVERHEAD + 90 * (100 + 128);
    let mut config = defaults();
    config["max_in_flight"] = json!(5 * each + each / 2);
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let used = || running.receiver.admission.used();
    let headers: String = (0..90).map(|number| format!("x-{number}: {}\r\n", "y".repeat(100))).collect();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 9\r\n{headers}\r\n"
    );
    let mut open = Vec::new();
    for number in 1..=3 {
        let mut socket = TcpStream::connect(running.http()).await.expect("connects");
        socket.write_all(head.as_bytes()).await.expect("writes");
        while used() < number * each {
            tokio::task::yield_now().await;
        }
        open.push(socket);
    }
    assert!(used() < 4 * each, "{}", used());
    let mut refused = TcpStream::connect(running.http()).await.expect("connects");
    refused.write_all(head.as_bytes()).await.expect("writes");
    refused.write_all(b"123456789").await.expect("writes");
    let mut answer = [0; 12];
    refused.read_exact(&mut answer).await.expect("reads");
    assert_eq!(&answer, b"HTTP/1.1 503");
    drop(open);
    while used() > 0 {
        tokio::task::yield_now().await;
    }
    running.is_alive().await;
}

#[tokio::test]
async fn grpc_requests_that_are_no_protobuf_are_invalid_arguments() {
    let running = Running::start().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", running.grpc())).expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect().await.expect("connects"));
    client.ready().await.expect("ready");
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export".parse().expect("a path");
    // Field 1 of a TracesData as a string is not UTF-8-checked as a message: it is no message.
    let codec = tonic_prost::ProstCodec::<String, ()>::default();
    let status = client.unary(tonic::Request::new("not a message".to_owned()), path, codec).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("cannot decode the request: "), "{status}");
    running.is_alive().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damaged requests get an answer that is not an internal error.
    #[test]
    fn damaged_requests_are_answered(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), is_json in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let running = Running::start().await;
            let (content_type, mut body) = if is_json {
                let json = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0102030405060708090a0b0c0d0e0f10"}]}]}]});
                ("application/json", json.to_string().into_bytes())
            } else {
                (PROTOBUF, wire(vec![span(1), span(2)]).to_vec())
            };
            for (index, byte) in &flips {
                let at = index.index(body.len());
                body[at] = *byte;
            }
            let status = running.post(content_type, body).await.status;
            assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{status}");
        });
    }
}
