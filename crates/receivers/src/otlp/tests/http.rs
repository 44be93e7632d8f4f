//! OTLP/HTTP: methods, types, encodings, errors, CORS.

use std::io::Write;

use super::*;

const PROTOBUF: &str = "application/x-protobuf";

/// The code of an encoded `google.rpc.Status`, and its message.
fn status(body: &[u8]) -> (u64, String) {
    use nyquist_core::wire::{Fields, Value};
    let mut status = (0, String::new());
    for field in Fields::new(body) {
        match (field.number, field.value) {
            (1, Value::Varint(code)) => status.0 = code,
            (2, Value::Len(message)) => status.1 = String::from_utf8_lossy(message).into_owned(),
            _ => {}
        }
    }
    status
}

fn json_span() -> serde_json::Value {
    json!({
        "traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708", "name": "a",
        "startTimeUnixNano": "1700000000000000000", "kind": "SPAN_KIND_SERVER"
    })
}

fn json_request(span: &serde_json::Value) -> serde_json::Value {
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] })
}

#[tokio::test]
async fn protobuf_arrives_as_it_was_sent() {
    let running = Running::start().await;
    let answer = running.post(PROTOBUF, wire(vec![span(1), span(2)])).await;
    assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (StatusCode::OK, 0, PROTOBUF));
    assert_eq!(running.sink.traces(), [traces(vec![span(1), span(2)])]);
    let labels = ["receiver=\"otlp\"", "transport=\"http\""];
    assert_eq!(running.metric("otelcol_receiver_accepted_spans", &labels), 2);
}

#[tokio::test]
async fn each_encoding_is_decoded() {
    let running = Running::start().await;
    let body = wire(vec![span(1); 100]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&body).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&body).unwrap();
    let zlib = zlib.finish().unwrap();
    let encoded = [
        ("gzip", gzip.finish().unwrap()),
        ("deflate", zlib.clone()),
        ("zlib", zlib),
        ("zstd", zstd::bulk::compress(&body, 1).unwrap()),
        ("snappy", snap::raw::Encoder::new().compress_vec(&body).unwrap()),
        ("", body.to_vec()),
    ];
    for (name, encoded) in encoded {
        let headers = [("content-type", PROTOBUF), ("content-encoding", name)];
        let answer = running.send("/v1/traces", &headers, encoded).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {:?}", answer.body);
        assert_eq!(running.sink.traces().pop(), Some(traces(vec![span(1); 100])), "{name}");
    }
}

#[tokio::test]
async fn other_methods_types_and_paths_are_refused_in_the_collectors_words() {
    let running = Running::with(defaults(), Sink::default(), &[Signal::Traces]).await;
    let answer = send(running.http(), Method::GET, "/v1/traces", &[], "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.text(), "405 method not allowed, supported: [POST]");
    let answer = running.post("text/plain", "").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let text = "415 unsupported media type, supported: [application/json, application/x-protobuf]";
    assert_eq!(answer.text(), text);
    for path in ["/v1/metrics", "/v1/trace", "/"] {
        let answer = running.send(path, &[("content-type", PROTOBUF)], "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_content_type_may_have_parameters() {
    let running = Running::start().await;
    let answer = running.post("application/json; charset=utf-8", json_request(&json_span()).to_string()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}"));
    assert_eq!(running.sink.len(), 1);
}

#[tokio::test]
async fn an_empty_request_succeeds_and_goes_no_further() {
    let running = Running::start().await;
    let answer = running.post_json(json!({"resourceSpans": []})).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert!(answer.json().is_object());
    assert_eq!(running.post(PROTOBUF, "").await.status, StatusCode::OK);
    assert_eq!(running.sink.len(), 0);
}

#[tokio::test]
async fn json_errors_are_statuses_in_json() {
    let running = Running::start().await;
    let mut bad = json_span();
    bad["traceId"] = json!("0102");
    let answer = running.post_json(json_request(&bad)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::BAD_REQUEST, &json!(3)));
    let message = answer.json()["message"].to_string();
    assert!(message.contains("traceId: length mismatch"), "{message}");
    let mut unknown = json_span();
    unknown["somethingNew"] = json!({"a": [1, {"b": null}]});
    assert_eq!(running.post_json(json_request(&unknown)).await.status, StatusCode::OK);
    let mut bad_kind = json_span();
    bad_kind["kind"] = json!("X");
    assert_eq!(running.post_json(json_request(&bad_kind)).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(running.post("application/json", "{\"resourceSpans\":[").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(running.sink.len(), 1);
}

#[tokio::test]
async fn spans_without_valid_ids_are_reported_in_the_requests_format() {
    let running = Running::start().await;
    let mut zero = json_span();
    zero["spanId"] = json!("0000000000000000");
    let answer = running.post_json(json_request(&zero)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "1");
    assert_eq!(running.sink.len(), 0);
}

#[tokio::test]
async fn an_unknown_encoding_is_named() {
    let running = Running::start().await;
    for (content_type, is_json) in [(PROTOBUF, false), ("application/json", true)] {
        let headers = [("content-type", content_type), ("content-encoding", "br")];
        let answer = running.send("/v1/traces", &headers, "abc").await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::BAD_REQUEST, content_type));
        let expected = "unsupported Content-Encoding: br";
        if is_json {
            assert_eq!(answer.json(), json!({"code": 3, "message": expected}));
        } else {
            assert_eq!(status(&answer.body), (3, expected.to_owned()));
        }
    }
}

#[tokio::test]
async fn encodings_can_be_restricted() {
    let config = with("http", json!({"compression_algorithms": ["zstd"]}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let body = zstd::bulk::compress(&wire(vec![span(1)]), 1).unwrap();
    let zstd = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    assert_eq!(running.send("/v1/traces", &zstd, body).await.status, StatusCode::OK);
    let gzip = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    let answer = running.send("/v1/traces", &gzip, "x").await;
    assert_eq!(status(&answer.body).1, "unsupported Content-Encoding: gzip");
    assert_eq!(running.post(PROTOBUF, wire(vec![span(1)])).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_as_they_come_and_as_they_decode() {
    let running = Running::start().await;
    let too_large = "http: request body too large".to_owned();
    let answer = running.post(PROTOBUF, vec![0; 21 << 20]).await;
    assert_eq!((answer.status, status(&answer.body)), (StatusCode::BAD_REQUEST, (3, too_large.clone())));
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
    let headers = [("content-type", PROTOBUF), ("content-encoding", "zstd")];
    let answer = running.send("/v1/traces", &headers, bomb).await;
    assert_eq!((answer.status, status(&answer.body)), (StatusCode::BAD_REQUEST, (3, too_large)));
    let config = with("http", json!({"max_request_body_size": 100}));
    let small = Running::with(config, Sink::default(), &Signal::ALL).await;
    assert_eq!(small.post(PROTOBUF, wire(vec![span(1); 10])).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn refusals_are_mapped_to_statuses_of_http() {
    use nyquist_core::batch::Code;
    let retry = |delay: Option<u64>| Refusal::retryable(delay.map(Duration::from_millis), "queue is full");
    let cases = [
        (retry(None), 503, "1"),
        (retry(Some(2900)), 503, "2"),
        (retry(Some(200)), 503, "1"),
        (retry(Some(5000)).with_code(Code::ResourceExhausted), 429, "5"),
        (Refusal::permanent("no"), 500, ""),
        (Refusal::permanent("no").with_code(Code::InvalidArgument), 400, ""),
        (Refusal::permanent("no").with_code(Code::PermissionDenied), 403, ""),
        (Refusal::permanent("no").with_code(Code::ResourceExhausted), 429, ""),
        (Refusal::permanent("no").with_code(Code::DeadlineExceeded), 503, ""),
    ];
    let running = Running::start().await;
    for (refusal, expected, retry_after) in cases {
        *running.sink.refusal.lock() = Some(refusal.clone());
        let answer = running.post(PROTOBUF, wire(vec![span(1)])).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (expected, retry_after), "{refusal:?}");
        assert_eq!(status(&answer.body), (refusal.code() as u64, refusal.message().to_owned()));
        let answer = running.post_json(json_request(&json_span())).await;
        assert_eq!(answer.json()["code"], refusal.code() as i32);
        assert_eq!(answer.json().get("details").is_some(), refusal.is_retryable());
    }
}

#[tokio::test]
async fn who_is_not_let_in_gets_401_before_anything_else() {
    let config = with("http", json!({"auth": {"authenticator": "key", "request_params": ["x-key"]}}));
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let answer = running.post(PROTOBUF, wire(vec![span(1)])).await;
    assert_eq!((answer.status, status(&answer.body)), (StatusCode::UNAUTHORIZED, (16, "wrong key".to_owned())));
    assert_eq!(running.sink.len(), 0);
    let answer = send(running.http(), Method::GET, "/nowhere", &[], "").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let headers = [("content-type", PROTOBUF), ("x-key", "right")];
    assert_eq!(running.send("/v1/traces", &headers, "").await.status, StatusCode::OK);
    let in_query = running.send("/v1/traces?x-key=ri%67ht", &[("content-type", PROTOBUF)], "").await;
    assert_eq!(in_query.status, StatusCode::OK);
}

#[tokio::test]
async fn paths_and_headers_are_as_configured() {
    let section = json!({
        "traces_url_path": "in/spans", "include_metadata": true, "response_headers": {"x-gateway": "nyquist"}
    });
    let running = Running::with(with("http", section), Sink::default(), &Signal::ALL).await;
    let headers = [("content-type", PROTOBUF), ("X-Tenant", "blue")];
    let answer = running.send("/in/spans", &headers, wire(vec![span(1)])).await;
    assert_eq!((answer.status, answer.header("x-gateway")), (StatusCode::OK, "nyquist"));
    let batch = running.sink.batches.lock().pop().expect("a batch");
    assert!(batch.metadata().headers.contains(&("x-tenant".to_owned(), "blue".to_owned())));
    assert_eq!(running.send("/v1/traces", &headers, "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn browsers_are_told_whether_pages_may_send() {
    let cors = json!({"cors": {
        "allowed_origins": ["https://*.example.com"], "allowed_headers": ["X-Key"], "exposed_headers": ["X-Gateway", "Date"],
        "max_age": 7
    }});
    let running = Running::with(with("http", cors), Sink::default(), &Signal::ALL).await;
    let preflight = async |origin: &str, header: &str| {
        let headers =
            [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", header)];
        send(running.http(), Method::OPTIONS, "/v1/traces", &headers, "").await
    };
    let origin = "https://shop.example.com";
    let answer = preflight(origin, "content-type, x-key").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("access-control-allow-origin"), origin);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert_eq!(answer.header("access-control-max-age"), "7");
    assert_eq!(preflight("https://evil.test", "x-key").await.header("access-control-allow-origin"), "");
    assert_eq!(preflight(origin, "x-other").await.header("access-control-allow-origin"), "");
    let headers = [("origin", origin), ("content-type", PROTOBUF)];
    let answer = running.send("/v1/traces", &headers, wire(vec![span(1)])).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (StatusCode::OK, origin));
    assert_eq!(answer.header("vary"), "Origin");
    assert_eq!(answer.header("access-control-expose-headers"), "X-Gateway, Date");
    let stranger = [("origin", "https://evil.test"), ("content-type", PROTOBUF)];
    let answer = running.send("/v1/traces", &stranger, wire(vec![span(1)])).await;
    assert_eq!(answer.header("access-control-expose-headers"), "", "nothing is shown to other pages");
}

#[tokio::test]
async fn each_signal_has_its_path() {
    let running = Running::start().await;
    for (path, file) in [("/v1/traces", "go.traces.pb"), ("/v1/metrics", "go.metrics.pb")] {
        let body = std::fs::read(format!("{}/testdata/otlp/{file}", env!("CARGO_MANIFEST_DIR"))).expect("recorded");
        let answer = running.send(path, &[("content-type", PROTOBUF)], body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert_eq!(running.sink.batches.lock().pop().expect("a batch").into_wire(), body, "{file}");
    }
}

/// Guarantee: a client over its rate gets 429 with `Retry-After`, and another client is not in its way.
#[tokio::test]
async fn a_tenant_over_its_rate_comes_back_later() {
    let mut config = defaults();
    config["client_limits"] =
        json!([{"per": "metadata.x-scope-orgid", "items_per_second": 0.01, "burst": "100s", "max_in_flight": "1MiB"}]);
    let running = Running::with(config, Sink::default(), &Signal::ALL).await;
    let send = async |tenant: &str| {
        let headers = [("content-type", "application/x-protobuf"), ("x-scope-orgid", tenant)];
        running.send("/v1/traces", &headers, wire(vec![span(1); 3])).await
    };
    assert_eq!(send("red").await.status, StatusCode::OK);
    let refused = send("red").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!((100..=300).contains(&refused.header("retry-after").parse::<u64>().expect("seconds")));
    assert_eq!(send("blue").await.status, StatusCode::OK);
    assert_eq!(running.sink.len(), 2);
    assert_eq!(running.metric("nyquist_receiver_limited_requests", &["limit=\"items_per_second\""]), 1);
    assert_eq!(running.metric("nyquist_receiver_limited_clients", &[]), 2);
}
