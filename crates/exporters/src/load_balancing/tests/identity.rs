//! Names of resources and streams, as a program with the Collector's `identity` package (v0.161) printed them.

use nyquist_core::batch::Signal;
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, MetricsData,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use nyquist_core::proto::resource::v1::Resource;
use prost::Message;

use super::super::keys::Routing;
use super::attributes;

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() }
}

fn text(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

/// The only key that `data` is asked for.
fn key(routing: &str, data: &MetricsData) -> String {
    let routing = Routing::new(Some(routing), &[], Signal::Metrics).unwrap();
    let mut keys = Vec::new();
    routing.split(Signal::Metrics, &data.encode_to_vec().into(), false, |key| {
        keys.push(String::from_utf8(key.to_vec()).unwrap());
        0
    });
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

fn of(resource: Vec<KeyValue>, scope: Option<InstrumentationScope>, data: Data) -> MetricsData {
    let metric = Metric { name: "requests".to_owned(), unit: "1".to_owned(), data: Some(data), ..Metric::default() };
    MetricsData {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope, metrics: vec![metric], ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

fn gauge(attributes: Vec<KeyValue>) -> Data {
    Data::Gauge(Gauge { data_points: vec![NumberDataPoint { attributes, ..NumberDataPoint::default() }] })
}

#[test]
fn resources_are_named_as_by_the_collector() {
    let name = |attributes| key("resource", &of(attributes, None, gauge(Vec::new())));
    assert_eq!(name(Vec::new()), "resource/88201fb960ff6465");
    assert_eq!(name(attributes(&[("service.name", "a")])), "resource/950ea35c409f946d");
    let list = ArrayValue { values: vec![any(Value::StringValue("x".to_owned())), any(Value::IntValue(1))] };
    let map = KeyValueList { values: vec![pair("b", text("2")), pair("a", text("1"))] };
    let mut all = vec![
        pair("z.text", text("é<\"")),
        pair("yes", Some(Value::BoolValue(true))),
        pair("no", Some(Value::BoolValue(false))),
        pair("int", Some(Value::IntValue(-5))),
        pair("double", Some(Value::DoubleValue(0.25))),
        pair("bytes", Some(Value::BytesValue(vec![0, 255]))),
        pair("empty", None),
        pair("list", Some(Value::ArrayValue(list))),
        pair("map", Some(Value::KvlistValue(map))),
    ];
    for _ in 0..all.len() {
        all.rotate_left(1);
        assert_eq!(name(all.clone()), "resource/418cbf2121a1b602", "in any order");
    }
}

#[test]
fn streams_are_named_as_by_the_collector() {
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: attributes(&[("k", "v")]),
        ..InstrumentationScope::default()
    };
    let attributes = || vec![pair("path", text("/")), pair("code", Some(Value::IntValue(200)))];
    let numbers = || vec![NumberDataPoint { attributes: attributes(), ..NumberDataPoint::default() }];
    let sum = |is_monotonic, aggregation_temporality| {
        Data::Sum(Sum { data_points: numbers(), is_monotonic, aggregation_temporality })
    };
    let histogram = HistogramDataPoint { attributes: attributes(), ..HistogramDataPoint::default() };
    let exponential = ExponentialHistogramDataPoint { attributes: attributes(), ..Default::default() };
    let summary = SummaryDataPoint { attributes: attributes(), ..SummaryDataPoint::default() };
    for (data, expected) in [
        (gauge(attributes()), "stream/e58b8f9cf1f35024"),
        (sum(true, 2), "stream/a96e8a624d703c3a"),
        (sum(false, 1), "stream/c2c27e879ac54faa"),
        (
            Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 1 }),
            "stream/36c80703483d5af8",
        ),
        (
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 2,
            }),
            "stream/fe4d9e9f3591d4b4",
        ),
        (Data::Summary(Summary { data_points: vec![summary] }), "stream/9667b5e3cc268aa0"),
    ] {
        let data = of(super::attributes(&[("service.name", "a")]), Some(scope.clone()), data);
        assert_eq!(key("streamID", &data), expected);
    }
    let bare = of(Vec::new(), Some(InstrumentationScope::default()), gauge(Vec::new()));
    assert_eq!(key("streamID", &bare), "stream/51b34b621ae50b4d");
}
