use std::sync::Arc;

use nyquist_core::batch::{Batch, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Extensions, ProcessorConfig};
use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value};
use nyquist_core::proto::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, MetricsData,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::telemetry::Telemetry;

use super::AttributesConfig;
use crate::test_util::{self, Sink, config, errors};

type Attribute = (&'static str, Value);

fn s(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn attributes(list: &[Attribute]) -> Vec<KeyValue> {
    list.iter()
        .map(|(key, value)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue { value: Some(value.clone()) }),
            ..KeyValue::default()
        })
        .collect()
}

fn span(name: &str, list: &[Attribute]) -> Span {
    Span { name: name.to_owned(), kind: 2, attributes: attributes(list), ..Span::default() }
}

fn traces(service: &str, spans: Vec<Span>) -> TracesData {
    let scope = InstrumentationScope { name: "lib".to_owned(), version: "1.2".to_owned(), ..Default::default() };
    let resource = Resource { attributes: attributes(&[("service.name", s(service))]), ..Resource::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }] }
}

async fn run(yaml: &str, batch: Batch) -> Batch {
    let sink = Arc::new(Sink::default());
    let (telemetry, extensions) = (Telemetry::new(), Extensions::default());
    let clock = Arc::new(SystemClock::default());
    let context = test_util::context(batch.signal(), Arc::clone(&sink) as _, &extensions, &telemetry, clock);
    let processor = config::<AttributesConfig>(yaml).build(context).unwrap();
    processor.consume(batch).await.unwrap();
    sink.take().remove(0)
}

/// The attributes of one span after the actions in `yaml`.
async fn acted(actions: &str, list: &[Attribute]) -> Vec<KeyValue> {
    let yaml = format!("{{actions: [{actions}]}}");
    let mut batch = run(&yaml, Batch::from_traces(traces("shop", vec![span("op", list)]))).await;
    batch.traces_mut().unwrap().resource_spans[0].scope_spans[0].spans[0].attributes.clone()
}

#[tokio::test]
async fn each_action_does_what_the_collectors_does() {
    let sha_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let int = Value::IntValue;
    let cases: &[(&str, &[Attribute], &[Attribute])] = &[
        ("{action: insert, key: k, value: 1}", &[], &[("k", int(1))]),
        ("{action: insert, key: k, value: 1}", &[("k", s("x"))], &[("k", s("x"))]),
        ("{action: update, key: k, value: true}", &[("k", s("x"))], &[("k", Value::BoolValue(true))]),
        ("{action: update, key: k, value: true}", &[], &[]),
        ("{action: UPSERT, key: k, value: 1.5}", &[("a", int(1))], &[("a", int(1)), ("k", Value::DoubleValue(1.5))]),
        ("{action: upsert, key: k, from_attribute: a}", &[("a", int(7))], &[("a", int(7)), ("k", int(7))]),
        ("{action: upsert, key: k, from_attribute: b}", &[("a", int(7))], &[("a", int(7))]),
        ("{action: upsert, key: k, from_attribute: b, default_value: d}", &[], &[("k", s("d"))]),
        ("{action: delete, key: k}", &[("k", int(1)), ("l", int(2))], &[("l", int(2))]),
        ("{action: delete, pattern: '^http\\.'}", &[("http.url", s("u")), ("l", int(2))], &[("l", int(2))]),
        ("{action: hash, key: k}", &[("k", s("abc"))], &[("k", s(sha_of_abc))]),
        (
            "{action: hash, pattern: '^k'}",
            &[("k1", s("abc")), ("l", s("abc"))],
            &[("k1", s(sha_of_abc)), ("l", s("abc"))],
        ),
        (
            "{action: extract, key: url, pattern: '^(?P<proto>.*)://(?P<host>[^/]*)'}",
            &[("url", s("http://a.b/c"))],
            &[("url", s("http://a.b/c")), ("proto", s("http")), ("host", s("a.b"))],
        ),
        ("{action: extract, key: url, pattern: '^(?P<x>z)'}", &[("url", s("a"))], &[("url", s("a"))]),
        ("{action: convert, key: k, converted_type: int}", &[("k", s("12"))], &[("k", int(12))]),
        ("{action: convert, key: k, converted_type: int}", &[("k", s("twelve"))], &[("k", s("twelve"))]),
        ("{action: convert, key: k, converted_type: double}", &[("k", int(2))], &[("k", Value::DoubleValue(2.0))]),
        ("{action: convert, key: k, converted_type: string}", &[("k", Value::DoubleValue(1e21))], &[("k", s("1e+21"))]),
        (
            "{action: convert, key: k, converted_type: string}",
            &[("k", Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(int(1)) }] }))],
            &[("k", s("[1]"))],
        ),
    ];
    for (action, before, after) in cases {
        assert_eq!(acted(action, before).await, attributes(after), "{action}");
    }
}

#[tokio::test]
async fn include_and_exclude_choose_spans() {
    // Each case says which of the spans "get /a" of shop (with x: 1) and "post" of cart (without)
    // are worked on.
    let cases = [
        ("include: {match_type: strict, services: [shop]}", [true, false]),
        ("exclude: {match_type: strict, services: [shop]}", [false, true]),
        ("include: {match_type: regexp, span_names: ['^get']}", [true, false]),
        ("include: {match_type: strict, span_names: [get]}", [false, false]),
        ("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}", [true, true]),
        ("include: {match_type: strict, attributes: [{key: x, value: 1}]}", [true, false]),
        ("include: {match_type: strict, attributes: [{key: x, value: '1'}]}", [false, false]),
        ("include: {match_type: regexp, attributes: [{key: x, value: '^1$'}]}", [true, false]),
        ("include: {match_type: strict, attributes: [{key: x}]}", [true, false]),
        ("include: {match_type: strict, resources: [{key: service.name, value: cart}]}", [false, true]),
        ("include: {match_type: strict, libraries: [{name: lib}]}", [true, true]),
        ("include: {match_type: strict, libraries: [{name: lib, version: '2'}]}", [false, false]),
        (
            "include: {match_type: regexp, services: ['.']}, exclude: {match_type: strict, span_names: [post]}",
            [true, false],
        ),
        ("exclude: {match_type: strict, services: [shop], attributes: [{key: y}]}", [true, true]),
    ];
    for (filter, expected) in cases {
        let mut data = traces("shop", vec![span("get /a", &[("x", Value::IntValue(1))])]);
        data.resource_spans.extend(traces("cart", vec![span("post", &[])]).resource_spans);
        let yaml = format!("{{actions: [{{action: insert, key: done, value: true}}], {filter}}}");
        let mut batch = run(&yaml, Batch::from_traces(data)).await;
        let done: Vec<bool> = (batch.traces_mut().unwrap().resource_spans.iter())
            .map(|resource| resource.scope_spans[0].spans[0].attributes.iter().any(|pair| pair.key == "done"))
            .collect();
        assert_eq!(done, expected, "{filter}");
    }
}

#[tokio::test]
async fn points_of_every_kind_are_changed() {
    let datas = [
        Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default()] }),
        Data::Sum(Sum { data_points: vec![NumberDataPoint::default()], is_monotonic: true, ..Sum::default() }),
        Data::Histogram(Histogram { data_points: vec![HistogramDataPoint::default()], ..Default::default() }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint::default()],
            ..Default::default()
        }),
        Data::Summary(Summary { data_points: vec![SummaryDataPoint::default()] }),
    ];
    let metrics = |datas: &[Data]| {
        let metric = |data: &Data| Metric { name: "m".to_owned(), data: Some(data.clone()), ..Metric::default() };
        let other = Metric { name: "other".to_owned(), data: Some(datas[0].clone()), ..Metric::default() };
        let metrics = datas.iter().map(metric).chain([other]).collect();
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        MetricsData { resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }] }
    };
    let yaml = "{actions: [{action: insert, key: k, value: v}], include: {match_type: strict, metric_names: [m]}}";
    let mut batch = run(yaml, Batch::from_metrics(metrics(&datas))).await;
    assert_eq!(batch.items(), 6);
    let mut expected = metrics(&datas);
    for metric in expected.resource_metrics[0].scope_metrics[0].metrics.iter_mut().take(5) {
        let attributes = attributes(&[("k", s("v"))]);
        match metric.data.as_mut().unwrap() {
            Data::Gauge(data) => data.data_points[0].attributes = attributes,
            Data::Sum(data) => data.data_points[0].attributes = attributes,
            Data::Histogram(data) => data.data_points[0].attributes = attributes,
            Data::ExponentialHistogram(data) => data.data_points[0].attributes = attributes,
            Data::Summary(data) => data.data_points[0].attributes = attributes,
        }
    }
    assert_eq!(*batch.metrics_mut().unwrap(), expected);
}

#[tokio::test]
async fn log_records_are_chosen_by_body_and_severity() {
    let record = |body: &str, severity_number: i32| LogRecord {
        body: Some(AnyValue { value: Some(s(body)) }),
        severity_number,
        severity_text: "INFO".to_owned(),
        ..LogRecord::default()
    };
    let cases = [
        ("{match_type: regexp, log_bodies: ['^a']}", [true, false, true]),
        ("{match_type: strict, log_severity_texts: [INFO]}", [true, true, true]),
        ("{match_type: strict, log_severity_number: {min: 9}}", [false, true, false]),
        ("{match_type: strict, log_severity_number: {min: 9, match_undefined: true}}", [false, true, true]),
    ];
    for (include, expected) in cases {
        let records = vec![record("a1", 5), record("b", 9), record("a2", 0)];
        let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
        let data = LogsData { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] };
        let yaml = format!("{{actions: [{{action: insert, key: done, value: true}}], include: {include}}}");
        let mut batch = run(&yaml, Batch::from_logs(data)).await;
        let records = &batch.logs_mut().unwrap().resource_logs[0].scope_logs[0].log_records;
        let done: Vec<bool> = records.iter().map(|record| !record.attributes.is_empty()).collect();
        assert_eq!(done, expected, "{include}");
    }
}

#[test]
fn errors_name_the_place_and_the_rule() {
    let cases = [
        ("{}", "actions: at least one action is needed"),
        ("{actions: [{action: insert, value: 1}]}", "actions[0].key: missing required field \"key\""),
        ("{actions: [{action: insert, key: a}]}", "needs one of \"value\", \"from_attribute\" and \"from_context\""),
        ("{actions: [{action: insert, key: a, value: 1, from_attribute: b}]}", "only one of"),
        ("{actions: [{action: delete, key: a, value: 1}]}", "action \"delete\" does not use \"value\""),
        ("{actions: [{action: insert, key: a, value: 1, pattern: b}]}", "does not use the \"pattern\" field"),
        ("{actions: [{action: extract, key: a}]}", "missing required field \"pattern\" for action \"extract\""),
        ("{actions: [{action: extract, key: a, pattern: '(x)'}]}", "at least one unnamed matcher group"),
        ("{actions: [{action: extract, key: a, pattern: 'x'}]}", "contains no named matcher groups"),
        ("{actions: [{action: hash, pattern: '('}]}", "invalid regular expression"),
        ("{actions: [{action: convert, key: a}]}", "missing required field \"converted_type\""),
        ("{actions: [{action: convert, key: a, converted_type: bool}]}", "known are int, double, string"),
        ("{actions: [{action: insert, key: a, from_context: client.address}]}", "not there yet"),
        ("{actions: [{action: delete, key: a}], include: {services: [a]}}", "include.match_type: must be set"),
        ("{actions: [{action: delete, key: a}], exclude: {match_type: expr}}", "unrecognized match_type \"expr\""),
        ("{actions: [{action: delete, key: a}], include: {match_type: strict}}", "at least one property"),
        ("{actions: [{action: delete, key: a}], include: {match_type: regexp, services: ['(']}}", "include.services"),
    ];
    for (yaml, expected) in cases {
        let errors = errors::<AttributesConfig>(yaml);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{yaml}: {errors:?}");
    }
}

#[test]
fn properties_of_another_signal_are_refused_when_the_pipeline_is_known() {
    let (telemetry, extensions) = (Telemetry::new(), Extensions::default());
    let config: AttributesConfig =
        config("{actions: [{action: delete, key: a}], include: {match_type: strict, metric_names: [m]}}");
    let clock = Arc::new(SystemClock::default());
    let sink = Arc::new(Sink::default());
    let context = test_util::context(Signal::Traces, sink, &extensions, &telemetry, clock);
    let error = config.build(context).err().unwrap();
    assert_eq!(error.path, ["include", "metric_names"]);
    assert_eq!(error.message, "metric_names should not be specified in a pipeline of traces");
}
