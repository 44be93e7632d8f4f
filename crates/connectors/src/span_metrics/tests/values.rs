//! What is counted.

use super::*;

/// Three spans, one of them failed. Guarantee: names, units, attributes, bounds and values are those of
/// the Collector's connector, and each series begins with a zero.
#[tokio::test]
async fn calls_and_durations() {
    let rig = Rig::new("exclude_dimensions: [collector.instance.id]");
    rig.send(&of_shop(vec![span("GET /", 5), span("GET /", 100), failed(span("GET /", 20_000))]));
    let first = rig.points(MINUTE).await;
    assert_eq!(first.len(), 8, "calls and durations of two series, each with a zero: {first:#?}");
    let zeros: Vec<_> = first.iter().filter(|point| point.count == 0).collect();
    assert_eq!(zeros.len(), 4);
    assert!(zeros.iter().all(|zero| (zero.time, zero.start, zero.sum) == (EPOCH, EPOCH, 0.0)));
    let calls = counted(&first, ".calls");
    let ok = calls.iter().find(|point| point.attribute("status.code") == Some("STATUS_CODE_UNSET")).unwrap();
    let expected = [
        ("service.name", "shop"),
        ("span.name", "GET /"),
        ("span.kind", "SPAN_KIND_SERVER"),
        ("status.code", "STATUS_CODE_UNSET"),
    ];
    assert_eq!(ok.attributes, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!((ok.metric.as_str(), ok.unit.as_str(), ok.count), ("traces.span.metrics.calls", "", 2));
    assert_eq!((ok.start, ok.time, ok.is_delta), (EPOCH, EPOCH + 60_000 * MILLI, false));
    assert_eq!(ok.resource, Attributes::from([("service.name".to_owned(), "shop".to_owned())]));
    let durations = counted(&first, ".duration");
    let failed = durations.iter().find(|point| point.attribute("status.code") == Some("STATUS_CODE_ERROR")).unwrap();
    let ok = durations.iter().find(|point| point.attribute("status.code") == Some("STATUS_CODE_UNSET")).unwrap();
    assert_eq!((ok.metric.as_str(), ok.unit.as_str()), ("traces.span.metrics.duration", "ms"));
    let bounds = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10_000, 15_000];
    assert_eq!(ok.bounds, bounds.map(f64::from));
    assert_eq!((ok.count, ok.sum, failed.count, failed.sum), (2, 105.0, 1, 20_000.0));
    // 5 ms is up to 6; 100 ms is up to 100, bounds included; 20 s is above all.
    assert_eq!((ok.buckets[2], ok.buckets[6], failed.buckets[16]), (1, 1, 1));

    // The next report is of totals since the same start, without a zero.
    rig.send(&of_shop(vec![span("GET /", 1)]));
    let second = rig.points(MINUTE).await;
    assert_eq!(second.len(), 4, "{second:#?}");
    let calls = counted(&second, ".calls");
    let ok = calls.iter().find(|point| point.attribute("status.code") == Some("STATUS_CODE_UNSET")).unwrap();
    assert_eq!((ok.count, ok.start, ok.time), (3, EPOCH, EPOCH + 120_000 * MILLI));
    assert!(calls.iter().any(|point| point.count == 1), "the failed one is still told of");
    assert_eq!(rig.gauge("series"), 2);
}

/// A span that ends before it starts took no time; one without times too.
#[tokio::test]
async fn impossible_times() {
    let rig = Rig::new("{}");
    let mut backwards = span("a", 0);
    backwards.start_time_unix_nano = EPOCH + 1;
    let blank = Span { name: "a".into(), kind: 2, ..Span::default() };
    rig.send(&of_shop(vec![backwards, blank]));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, ".duration");
    assert_eq!((point.count, point.sum, point.buckets[0]), (2, 0.0, 2));
}

/// Scenario: spans whose resource has no service.name. Guarantee: they are not counted, and are told of.
#[tokio::test]
async fn resources_without_a_name() {
    let rig = Rig::new("{}");
    let nameless = resource_spans(vec![text("host.name", "a")], "lib", vec![span("a", 1), span("b", 1)]);
    let batch = Batch::from_traces(request(vec![nameless]));
    rig.connector.consume(batch).await.unwrap();
    assert!(rig.points(MINUTE).await.is_empty());
    assert_eq!(rig.counter("skipped_spans"), 2);
    use nyquist_core::telemetry::Entry;
    assert_eq!((rig.spans.count(Entry::Accepted), rig.spans.count(Entry::Filtered)), (2, 2));
}

/// Seconds, bounds of one's own, another namespace, no histogram.
#[tokio::test]
async fn histograms_as_configured() {
    let rig = Rig::new("namespace: ''\nhistogram: {unit: s, explicit: {buckets: [100us, 1ms, 1s]}}");
    rig.send(&of_shop(vec![span("a", 1), span("a", 500)]));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, "duration");
    assert_eq!((point.metric.as_str(), point.unit.as_str(), point.sum), ("duration", "s", 0.501));
    assert_eq!((point.bounds.as_slice(), point.buckets.as_slice()), (&[0.0001, 0.001, 1.0][..], &[0, 1, 1, 0][..]));
    assert_eq!(the_one(&points, "calls").metric, "calls");

    let rig = Rig::new("histogram: {disable: true}");
    rig.send(&of_shop(vec![span("a", 1)]));
    let points = rig.points(MINUTE).await;
    assert!(points.iter().all(|point| point.metric == "traces.span.metrics.calls"));
    assert_eq!(the_one(&points, "calls").count, 1);
}

/// Exponential buckets: every duration is in one, in no more than asked for.
#[tokio::test]
async fn exponential_histograms() {
    let rig = Rig::new("histogram: {exponential: {max_size: 10}}");
    rig.send(&of_shop(vec![span("a", 0), span("a", 1), span("a", 2), span("a", 1000)]));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, ".duration");
    assert_eq!((point.count, point.sum), (4, 1003.0));
    let (scale, zeros, offset, counts) = point.exponential.clone().unwrap();
    // 1 to 1000 ms are ten powers of two: (0.5, 1] to (512, 1024] are eleven, so half as many with scale -1.
    assert_eq!((scale, zeros, offset), (-1, 1, -1));
    assert_eq!(counts, [1, 1, 0, 0, 0, 1]);
}

/// Spans with a sampling threshold count for those that were not sampled.
#[tokio::test]
async fn sampled_spans_stand_for_others() {
    let rig = Rig::new("enable_metrics_sampling_method: true");
    let mut sampled = span("a", 10);
    sampled.trace_state = "ot=th:c".to_owned();
    rig.send(&of_shop(vec![sampled.clone(), sampled, span("a", 10)]));
    let points = rig.points(MINUTE).await;
    let count = |metric: &str, method: &str| {
        let points = counted(&points, metric);
        let of = points.iter().find(|point| point.attribute("sampling.method") == Some(method)).unwrap();
        (of.count, of.sum)
    };
    assert_eq!((count(".calls", "extrapolated").0, count(".calls", "counted").0), (8, 1));
    assert_eq!((count(".duration", "extrapolated"), count(".duration", "counted")), ((8, 80.0), (1, 10.0)));
}

/// Events are counted by their own attributes too.
#[tokio::test]
async fn events() {
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    let yaml =
        "{events: {enabled: true, dimensions: [{name: exception.type}, {name: host}]}, dimensions: [{name: zone}]}";
    let rig = Rig::new(yaml);
    let event = |attributes| Event { name: "exception".into(), attributes, ..Event::default() };
    let mut one = span("a", 1);
    one.events = vec![event(vec![text("exception.type", "X"), text("zone", "e")]), event(vec![text("host", "h2")])];
    let resource = vec![text("service.name", "shop"), text("host", "h1"), text("zone", "r")];
    rig.send(&request(vec![resource_spans(resource, "lib", vec![one])]));
    let points = rig.points(MINUTE).await;
    let events = counted(&points, ".events");
    let mut found: Vec<_> = events
        .iter()
        .map(|point| (point.attribute("exception.type"), point.attribute("host"), point.attribute("zone"), point.count))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(None, Some("h2"), Some("r"), 1), (Some("X"), Some("h1"), Some("e"), 1)]);
    let calls = the_one(&points, ".calls");
    assert_eq!(
        (calls.attribute("exception.type"), calls.attribute("host"), calls.attribute("zone")),
        (None, None, Some("r"))
    );
}

/// Exemplars are of the spans since the last report, no more than asked for.
#[tokio::test]
async fn exemplars() {
    let rig = Rig::new("exemplars: {enabled: true, max_per_data_point: 2}");
    let mut nameless = span("b", 1);
    nameless.trace_id = vec![0; 16];
    rig.send(&of_shop(vec![span("a", 5), span("a", 6), span("a", 7), nameless]));
    let reports = rig.report(MINUTE).await;
    let all = points(&reports);
    for metric in [".calls", ".duration"] {
        let found: Vec<_> = counted(&all, metric)
            .iter()
            .map(|point| (point.attribute("span.name").unwrap().to_owned(), point.exemplars))
            .collect();
        assert!(found.contains(&("a".to_owned(), 2)) && found.contains(&("b".to_owned(), 0)), "{found:?}");
    }
    let metrics = &reports[0].resource_metrics[0].scope_metrics[0].metrics;
    let exemplars: Vec<_> = metrics
        .iter()
        .filter_map(|metric| match metric.data.as_ref() {
            Some(Data::Histogram(histogram)) => Some(histogram.data_points.iter().flat_map(|point| &point.exemplars)),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!((exemplars[0].trace_id.as_slice(), exemplars[0].span_id.as_slice()), (&[7; 16][..], &[9; 8][..]));
    assert_eq!(exemplars[0].time_unix_nano, EPOCH + 60_000 * MILLI);
    use opentelemetry_proto::tonic::metrics::v1::exemplar::Value;
    assert_eq!(exemplars[1].value, Some(Value::AsDouble(6.0)));
    let later = rig.points(MINUTE).await;
    assert!(later.iter().all(|point| point.exemplars == 0), "they are told of once");
    rig.send(&of_shop(vec![span("a", 5)]));
    let again = rig.points(MINUTE).await;
    assert!(counted(&again, ".calls").iter().any(|point| point.exemplars == 1));
}
