//! What is proved here: JSON becomes the message that its protobuf twin is, by the rules of
//! OTLP/JSON, and nothing that comes in does harm.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::common::v1::any_value::Value as AnyKind;
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{Gauge, MetricsData, NumberDataPoint, Sum, exemplar, number_data_point};
use nyquist_core::proto::trace::v1::{Span, TracesData};
use proptest::prelude::*;
use prost::Message;

use super::*;

const LIMIT: usize = 20 << 20;

fn traces(json: &str) -> Result<TracesData, String> {
    let wire = to_wire(Signal::Traces, json.as_bytes(), LIMIT).map_err(|error| error.to_string())?;
    Ok(TracesData::decode(&wire[..]).expect("what is written can be read"))
}

fn metrics(json: &str) -> MetricsData {
    let wire = to_wire(Signal::Metrics, json.as_bytes(), LIMIT).expect("good JSON");
    MetricsData::decode(&wire[..]).expect("what is written can be read")
}

/// The span with these fields.
fn span(fields: &str) -> Result<Span, String> {
    let data = traces(&format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#))?;
    Ok(data.resource_spans[0].scope_spans[0].spans[0].clone())
}

/// The value of the one attribute of a span.
fn value(json: &str) -> Result<Option<AnyKind>, String> {
    let mut span = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#))?;
    Ok(span.attributes.remove(0).value.and_then(|value| value.value))
}

fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/otlp/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a recorded request")
}

/// Two recordings are two runs of one program: what differs between runs is blanked, after a look
/// at whether it is there.
fn comparable_traces(wire: &[u8]) -> TracesData {
    let mut data = TracesData::decode(wire).expect("readable");
    for resource in &mut data.resource_spans {
        blank(&mut resource.resource.as_mut().expect("a resource").attributes, "service.name");
        for span in resource.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans) {
            assert!(span.trace_id.len() == 16 && span.span_id.len() == 8 && span.parent_span_id.len() % 8 == 0);
            assert!(span.start_time_unix_nano > 1_700_000_000_000_000_000);
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
            (span.trace_id, span.span_id, span.parent_span_id) = Default::default();
            (span.start_time_unix_nano, span.end_time_unix_nano) = Default::default();
            for event in &mut span.events {
                event.time_unix_nano = 0;
                blank(&mut event.attributes, "exception.stacktrace");
            }
            for link in &mut span.links {
                (link.trace_id, link.span_id) = Default::default();
            }
        }
    }
    data
}

fn comparable_metrics(wire: &[u8]) -> MetricsData {
    let mut data = MetricsData::decode(wire).expect("readable");
    for resource in &mut data.resource_metrics {
        blank(&mut resource.resource.as_mut().expect("a resource").attributes, "service.name");
        for metric in resource.scope_metrics.iter_mut().flat_map(|scope| &mut scope.metrics) {
            let times: Vec<_> = match metric.data.as_mut().expect("data") {
                Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                    let times =
                        |point: &mut NumberDataPoint| (point.start_time_unix_nano, point.time_unix_nano) = (0, 0);
                    data_points.iter_mut().map(times).collect()
                }
                Data::Histogram(histogram) => {
                    let points = histogram.data_points.iter_mut();
                    points.map(|point| (point.start_time_unix_nano, point.time_unix_nano) = (0, 0)).collect()
                }
                Data::ExponentialHistogram(histogram) => {
                    let points = histogram.data_points.iter_mut();
                    points.map(|point| (point.start_time_unix_nano, point.time_unix_nano) = (0, 0)).collect()
                }
                Data::Summary(_) => Vec::new(),
            };
            assert!(!times.is_empty(), "{} has points", metric.name);
        }
    }
    data
}

fn blank(attributes: &mut [KeyValue], key: &str) {
    for attribute in attributes.iter_mut().filter(|attribute| attribute.key == key) {
        attribute.value = None;
    }
}

#[test]
fn recorded_requests_are_the_same_in_both_encodings() {
    let json = to_wire(Signal::Traces, &recorded("javascript.traces.json"), LIMIT).expect("good JSON");
    assert!(comparable_traces(&json) == comparable_traces(&recorded("javascript.traces.pb")));
    let json = to_wire(Signal::Metrics, &recorded("javascript.metrics.json"), LIMIT).expect("good JSON");
    assert_eq!(comparable_metrics(&json), comparable_metrics(&recorded("javascript.metrics.pb")));
}

#[test]
fn names_may_be_written_either_way() {
    let camel = span(r#""traceId":"0102030405060708090a0b0c0d0e0f10","startTimeUnixNano":"7","droppedLinksCount":3"#);
    let snake =
        span(r#""trace_id":"0102030405060708090A0B0C0D0E0F10","start_time_unix_nano":7,"dropped_links_count":"3""#);
    assert_eq!(camel, snake);
    assert_eq!(camel.expect("good").dropped_links_count, 3);
}

#[test]
fn ids_are_hex_digits_of_the_right_number() {
    assert_eq!(span(r#""spanId":"""#).expect("unset").span_id, Vec::<u8>::new());
    for bad in
        [r#""traceId":"0102""#, r#""spanId":"010203040506070""#, r#""spanId":"zz02030405060708""#, r#""spanId":8"#]
    {
        assert!(span(bad).is_err(), "{bad}");
    }
    assert!(span(r#""traceId":"0102""#).unwrap_err().contains("traceId: length mismatch: 2 bytes instead of 16"));
}

#[test]
fn integers_are_numbers_or_text_and_fit_their_type() {
    assert_eq!(
        span(r#""startTimeUnixNano":"1700000000000000000""#),
        span(r#""startTimeUnixNano":1700000000000000000"#)
    );
    assert_eq!(span(r#""startTimeUnixNano":18446744073709551615"#).expect("good").start_time_unix_nano, u64::MAX);
    assert_eq!(span(r#""flags":257"#).expect("good").flags, 257);
    assert_eq!(span(r#""flags":1.0"#).expect("good").flags, 1);
    for bad in ["-1", "4294967296", "1.5", r#""abc""#, r#""""#, "true", "[]"] {
        assert!(span(&format!(r#""flags":{bad}"#)).is_err(), "{bad}");
    }
    assert_eq!(value(r#"{"intValue":"-9223372036854775808"}"#), Ok(Some(AnyKind::IntValue(i64::MIN))));
    assert_eq!(value(r#"{"intValue":0}"#), Ok(Some(AnyKind::IntValue(0))));
    assert!(value(r#"{"intValue":9223372036854775808}"#).is_err());
}

#[test]
fn enums_are_numbers_or_names() {
    assert_eq!(span(r#""kind":"SPAN_KIND_SERVER""#), span(r#""kind":2"#));
    assert_eq!(span(r#""kind":99"#).expect("kept").kind, 99);
    assert_eq!(span(r#""kind":-1"#).expect("kept").kind, -1);
    assert!(span(r#""kind":"X""#).unwrap_err().contains("kind: unknown enum value \"X\""));
    assert_eq!(span(r#""status":{"code":"STATUS_CODE_ERROR"}"#).expect("good").status.expect("set").code, 2);
}

#[test]
fn doubles_are_numbers_or_text() {
    let double = |json: &str| match value(&format!(r#"{{"doubleValue":{json}}}"#)) {
        Ok(Some(AnyKind::DoubleValue(number))) => Ok(number),
        other => Err(format!("{other:?}")),
    };
    assert_eq!(double("1.5"), Ok(1.5));
    assert_eq!(double("0"), Ok(0.0));
    assert_eq!(double("-7"), Ok(-7.0));
    assert_eq!(double("1e300"), Ok(1e300));
    assert_eq!(double(r#""2.5e3""#), Ok(2500.0));
    assert_eq!(double(r#""Infinity""#), Ok(f64::INFINITY));
    assert_eq!(double(r#""-Infinity""#), Ok(f64::NEG_INFINITY));
    assert!(double(r#""NaN""#).expect("good").is_nan());
    assert!(double("-0.0").expect("good").is_sign_negative());
    for bad in [r#""inf""#, r#""nan""#, r#""x""#, "true", "null"] {
        assert!(double(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_of_every_kind() {
    let text = |text: &str| Ok(Some(AnyKind::StringValue(text.to_owned())));
    assert_eq!(value(r#"{"stringValue":"a\u00e9\n\ud83d\ude00"}"#), text("aé\n😀"));
    assert_eq!(value(r#"{"stringValue":""}"#), text(""));
    assert_eq!(value(r#"{"boolValue":false}"#), Ok(Some(AnyKind::BoolValue(false))));
    assert_eq!(value(r#"{"bytesValue":"AQID"}"#), Ok(Some(AnyKind::BytesValue(vec![1, 2, 3]))));
    assert_eq!(value("{}"), Ok(None));
    assert_eq!(value("null"), Ok(None));
    let nested = r#"{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":1},{}]}}}]}}"#;
    let Ok(Some(AnyKind::KvlistValue(list))) = value(nested) else { panic!("a list") };
    let Some(AnyKind::ArrayValue(array)) = list.values[0].value.as_ref().and_then(|value| value.value.clone()) else {
        panic!("an array")
    };
    assert_eq!(array.values.len(), 2);
    assert!(value(r#"{"bytesValue":"***"}"#).is_err());
    assert!(value(r#"{"stringValue":1}"#).is_err());
    assert!(value(r#"{"boolValue":"true"}"#).is_err());
}

#[test]
fn half_a_surrogate_pair_does_not_cost_the_request() {
    let Ok(Some(AnyKind::StringValue(text))) = value(r#"{"stringValue":"a\ud800b"}"#) else { panic!("text") };
    assert!(text.starts_with('a') && text.ends_with('b') && text.contains('\u{fffd}'), "{text:?}");
}

#[test]
fn null_is_an_absent_text_list_or_message_and_an_error_elsewhere() {
    assert_eq!(span(r#""name":null,"attributes":null,"status":null,"events":null"#), Ok(Span::default()));
    for bad in [r#""kind":null"#, r#""traceId":null"#, r#""flags":null"#, r#""startTimeUnixNano":null"#] {
        assert!(span(bad).is_err(), "{bad}");
    }
    assert_eq!(span(r#""events":[null]"#).expect("good").events.len(), 1);
}

#[test]
fn unknown_fields_and_what_follows_the_object_are_skipped() {
    assert_eq!(span(r#""new":{"deep":[[[{"a":null}]]]},"name":"a","x":1e999"#).expect("good").name, "a");
    assert_eq!(traces(r#"{"resourceSpans":[]} trailing"#), Ok(TracesData::default()));
    for bad in ["", "[]", "null", "1", "{", r#"{"resourceSpans":{}}"#, r#"{"resourceSpans":[1]}"#] {
        assert!(traces(bad).is_err(), "{bad}");
    }
}

#[test]
fn values_nest_as_deep_as_the_ingress_check_allows() {
    let nested = |depth: usize| {
        let mut json = r#"{"intValue":1}"#.to_owned();
        for _ in 1..depth {
            json = format!(r#"{{"arrayValue":{{"values":[{json}]}}}}"#);
        }
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"key":"k","value":{json}}}]}}]}}]}}]}}"#
        )
    };
    let wire = to_wire(Signal::Traces, nested(32).as_bytes(), LIMIT).expect("as deep as allowed");
    assert!(nyquist_core::wire::check(Signal::Traces, &wire).is_ok());
    assert!(to_wire(Signal::Traces, nested(33).as_bytes(), LIMIT).is_err());
}

#[test]
fn metrics_of_every_kind() {
    let data = metrics(
        r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}],"entityRefs":[{"type":"host","idKeys":["x","y"]}]},
        "schemaUrl":"u","scopeMetrics":[{"scope":{"name":"n","version":"v"},"metrics":[
        {"name":"g","unit":"1","description":"d","gauge":{"dataPoints":[{"asDouble":0,"timeUnixNano":"5"},{"asInt":"-3"}]}},
        {"name":"s","sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","isMonotonic":true,
          "dataPoints":[{"asInt":4,"exemplars":[{"asDouble":"1.5","traceId":"0102030405060708090a0b0c0d0e0f10"}]}]}},
        {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","sum":0,"min":-1,"bucketCounts":["1",2],"explicitBounds":[0.5,"1e3"]}]}},
        {"name":"e","exponentialHistogram":{"dataPoints":[{"scale":-3,"zeroCount":1,"positive":{"offset":-7,"bucketCounts":["300",0]},"zeroThreshold":0.1}]}},
        {"name":"q","summary":{"dataPoints":[{"count":1,"sum":2.5,"quantileValues":[{"quantile":0.5,"value":1}]}]},"metadata":[{"key":"m"}]}
        ]}]}]}"#,
    );
    let resource = &data.resource_metrics[0];
    assert_eq!(resource.resource.as_ref().expect("set").entity_refs[0].id_keys, ["x", "y"]);
    let found = &resource.scope_metrics[0].metrics;
    let Some(Data::Gauge(gauge)) = &found[0].data else { panic!("a gauge") };
    assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(0.0)));
    assert_eq!(gauge.data_points[1].value, Some(number_data_point::Value::AsInt(-3)));
    let Some(Data::Sum(sum)) = &found[1].data else { panic!("a sum") };
    assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (2, true));
    assert_eq!(sum.data_points[0].exemplars[0].value, Some(exemplar::Value::AsDouble(1.5)));
    let Some(Data::Histogram(histogram)) = &found[2].data else { panic!("a histogram") };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, point.min, point.max), (3, Some(0.0), Some(-1.0), None));
    assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[1, 2][..], &[0.5, 1000.0][..]));
    let Some(Data::ExponentialHistogram(histogram)) = &found[3].data else { panic!("an exponential histogram") };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().expect("set");
    assert_eq!((point.scale, positive.offset, &positive.bucket_counts[..]), (-3, -7, &[300, 0][..]));
    let Some(Data::Summary(summary)) = &found[4].data else { panic!("a summary") };
    assert_eq!(summary.data_points[0].quantile_values[0].value, 1.0);
    assert_eq!(found[4].metadata[0].key, "m");
}

#[test]
fn log_records() {
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1","observedTimeUnixNano":2,
        "severityNumber":"SEVERITY_NUMBER_ERROR2","severityText":"E","body":{"stringValue":"oh"},"flags":1,
        "traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","eventName":"ev"}]}]}]}"#;
    let wire = to_wire(Signal::Logs, json.as_bytes(), LIMIT).expect("good JSON");
    let data = LogsData::decode(&wire[..]).expect("readable");
    let record = &data.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!((record.severity_number, record.flags, record.observed_time_unix_nano), (18, 1, 2));
    assert_eq!((record.event_name.as_str(), record.trace_id.len()), ("ev", 16));
}

#[test]
fn output_is_bounded() {
    let json = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"explicitBounds":[{}]}}]}}}}]}}]}}]}}"#,
        vec!["1"; 1000].join(",")
    );
    assert!(to_wire(Signal::Metrics, json.as_bytes(), 10_000).is_ok());
    let error = to_wire(Signal::Metrics, json.as_bytes(), 4_000).expect_err("8000 bytes of doubles");
    assert!(error.to_string().starts_with("http: request body too large"), "{error}");
}

#[test]
fn statuses_in_json() {
    use std::time::Duration;
    let mut rejection = Rejection::new(nyquist_core::batch::Code::Unavailable, "later");
    rejection.retry = Some(Duration::from_millis(2500));
    let status: Value = serde_json::from_slice(&status(&rejection)).expect("JSON");
    assert_eq!(status["details"][0]["retryDelay"], "2.500000000s");
    assert_eq!((&status["code"], &status["message"]), (&json!(14), &json!("later")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Damaged JSON never panics, and what is written from it passes the ingress check.
    #[test]
    fn damaged_json(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5), cut in any::<prop::sample::Index>()) {
        let mut json = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"a","value":{"stringValue":"b"}}]},
            "scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","kind":2,"startTimeUnixNano":"12","flags":1,
            "attributes":[{"key":"k","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":1.5},{"boolValue":true}]}}}]}]}]}]}"#.to_vec();
        for (index, byte) in flips {
            let at = index.index(json.len());
            json[at] = byte;
        }
        if cut.index(4) == 0 {
            json.truncate(cut.index(json.len()));
        }
        for signal in Signal::ALL {
            if let Ok(wire) = to_wire(signal, &json, LIMIT) {
                prop_assert!(nyquist_core::wire::check(signal, &wire).is_ok());
            }
        }
    }

    /// Sub-messages of every size get their length right.
    #[test]
    fn long_texts(len in 0usize..70_000) {
        let name = "n".repeat(len);
        prop_assert_eq!(span(&format!(r#""name":"{name}""#)).expect("good").name, name);
    }
}
