use bytes::Bytes;
use nyquist_core::batch::Batch;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData, span::Event};
use prost::Message;

use super::*;
use crate::otlp::backend::Rig;

fn request() -> Request {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let attribute =
        |key: &str, value: &str| KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() };
    let event = Event { name: "boom".to_owned(), ..Event::default() };
    let span = Span {
        name: "GET /".to_owned(),
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        kind: 2,
        start_time_unix_nano: 1_581_452_772_000_000_321,
        attributes: vec![attribute("http.route", "/")],
        events: vec![event],
        ..Span::default()
    };
    let resource = Resource { attributes: vec![attribute("service.name", "cart")], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let data = TracesData {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }],
    };
    Request::new(Signal::Traces, data.encode_to_vec().into(), 1)
}

#[test]
fn each_verbosity_says_more() {
    let basic = text::write(&request(), Verbosity::Basic).unwrap();
    assert_eq!((basic.title, basic.summary.as_str()), ("Traces", r#"{"resource spans": 1, "spans": 1}"#));
    assert_eq!(basic.details, "");
    let normal = text::write(&request(), Verbosity::Normal).unwrap().details;
    assert!(normal.contains("ResourceTraces #0 service.name=cart"), "{normal}");
    assert!(normal.contains("GET / abababababababababababababababab cdcdcdcdcdcdcdcd http.route=/"), "{normal}");
    let detailed = text::write(&request(), Verbosity::Detailed).unwrap().details;
    for line in [
        "     -> service.name: Str(cart)",
        "    Trace ID       : abababababababababababababababab",
        "    Kind           : Server",
        "    Start time     : 2020-02-11 20:26:12.000000321 +0000 UTC",
        "     -> Name: boom",
    ] {
        assert!(detailed.lines().any(|found| found == line), "{line}\n{detailed}");
    }
}

#[test]
fn foreign_bytes_are_no_panic() {
    for signal in Signal::ALL {
        let request = Request::new(signal, Bytes::from_static(b"\xff\xff"), 1);
        assert!(text::write(&request, Verbosity::Detailed).is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn sampling_starts_over_each_second() {
    let sampler = Sampler::new(2, 3);
    let second = || (0..8).map(|_| u8::from(sampler.takes())).collect::<Vec<_>>();
    assert_eq!(second(), [1, 1, 0, 0, 1, 0, 0, 1]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(second(), [1, 1, 0, 0, 1, 0, 0, 1]);
    let sampler = Sampler::new(1, 0);
    assert!(sampler.takes() && !sampler.takes());
}

#[tokio::test]
async fn it_delivers_at_once() {
    let config: DebugConfig = serde_yaml::from_str("{verbosity: detailed}").unwrap();
    let rig = Rig::start(&config, None).await;
    rig.exporter.consume(Batch::from_wire(Signal::Traces, request().bytes(), 1)).await.unwrap();
    assert_eq!(rig.ledger.count(nyquist_core::telemetry::Entry::Exported), 1);
}
