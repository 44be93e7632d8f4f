//! JSON as the specification wants it. That reading it back gives the message is tested where the
//! reader is: in the `otlp_json_file` receiver.

use prost::Message;

use super::write;
use crate::batch::Signal;
use crate::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
use crate::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
};
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use crate::wire::put_len_field;

fn json(signal: Signal, message: &[u8]) -> String {
    let mut out = Vec::new();
    write(signal, message, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// Hex ids, 64-bit integers as text, enums as numbers, bytes in base64; defaults left out.
#[test]
fn a_span_as_the_specification_shows_it() {
    let span = Span {
        trace_id: (1..=16).collect(),
        span_id: vec![0xab; 8],
        name: "a \"b\"\n".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        status: Some(Status { code: 2, ..Default::default() }),
        attributes: vec![
            attribute("n", Value::IntValue(-5)),
            attribute("b", Value::BytesValue(vec![0, 255])),
            attribute("d", Value::DoubleValue(f64::NAN)),
            attribute("l", Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: None }] })),
            attribute("m", Value::KvlistValue(KeyValueList { values: vec![attribute("", Value::BoolValue(false))] })),
        ],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let data = TracesData {
        resource_spans: vec![ResourceSpans { resource: Some(Resource::default()), scope_spans, ..Default::default() }],
    };
    let expected = concat!(
        r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","#,
        r#""spanId":"abababababababab","name":"a \"b\"\n","kind":2,"startTimeUnixNano":"1700000000000000000","#,
        r#""attributes":[{"key":"n","value":{"intValue":"-5"}},{"key":"b","value":{"bytesValue":"AP8="}},"#,
        r#"{"key":"d","value":{"doubleValue":"NaN"}},{"key":"l","value":{"arrayValue":{"values":[{}]}}},"#,
        r#"{"key":"m","value":{"kvlistValue":{"values":[{"value":{"boolValue":false}}]}}}],"#,
        r#""status":{"code":2}}]}]}]}"#,
    );
    assert_eq!(json(Signal::Traces, &data.encode_to_vec()), expected);
}

#[test]
fn metric_points() {
    let number = NumberDataPoint { value: Some(number_data_point::Value::AsInt(0)), ..Default::default() };
    let exponential = ExponentialHistogramDataPoint {
        count: 7,
        scale: -3,
        sum: Some(f64::NEG_INFINITY),
        positive: Some(Buckets { offset: 1, bucket_counts: vec![0, u64::MAX] }),
        ..Default::default()
    };
    let metrics = vec![
        Metric { data: Some(Data::Gauge(Gauge { data_points: vec![number] })), ..Default::default() },
        Metric {
            data: Some(Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 1,
            })),
            ..Default::default()
        },
    ];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let data = MetricsData { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] };
    let expected = concat!(
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":"0"}]}},"#,
        r#"{"exponentialHistogram":{"dataPoints":[{"count":"7","sum":"-Infinity","scale":-3,"#,
        r#""positive":{"offset":1,"bucketCounts":["0","18446744073709551615"]}}],"aggregationTemporality":1}}]}]}]}"#,
    );
    assert_eq!(json(Signal::Metrics, &data.encode_to_vec()), expected);
}

/// A sub-message in two pieces is one; of a oneof the last member counts; an id of no valid length is
/// left out.
#[test]
fn unusual_encodings() {
    let mut value = AnyValue { value: Some(Value::StringValue("x".to_owned())) }.encode_to_vec();
    value.extend(AnyValue { value: Some(Value::BoolValue(true)) }.encode_to_vec());
    let mut attribute = Vec::new();
    put_len_field(&mut attribute, 2, &value);
    let mut resource = Vec::new();
    put_len_field(&mut resource, 1, &attribute);
    let mut resource_spans = Vec::new();
    put_len_field(&mut resource_spans, 1, &resource);
    let scope = ScopeSpans {
        spans: vec![Span { parent_span_id: vec![1, 2], name: "n".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    put_len_field(&mut resource_spans, 2, &scope.encode_to_vec());
    put_len_field(&mut resource_spans, 1, &[0x10, 3]);
    let mut message = Vec::new();
    put_len_field(&mut message, 1, &resource_spans);
    let expected = concat!(
        r#"{"resourceSpans":[{"resource":{"attributes":[{"value":{"boolValue":true}}],"droppedAttributesCount":3},"#,
        r#""scopeSpans":[{"spans":[{"name":"n"}]}]}]}"#,
    );
    assert_eq!(json(Signal::Traces, &message), expected);
}

/// Bytes that are no request are an error, never a panic.
#[test]
fn foreign_bytes() {
    assert!(write(Signal::Logs, &[0x0a, 5, 1], &mut Vec::new()).is_err());
    assert!(write(Signal::Logs, &[0x08, 5], &mut Vec::new()).is_err());
    for seed in 0..500_u32 {
        let bytes: Vec<u8> = (0..seed % 60).map(|at| (seed.wrapping_mul(2_654_435_761) >> (at % 24)) as u8).collect();
        for signal in Signal::ALL {
            let _ = write(signal, &bytes, &mut Vec::new());
        }
    }
}
