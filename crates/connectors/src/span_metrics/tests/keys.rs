//! By what is counted.

use super::*;

/// One span of a resource, and which attributes its calls and durations have then.
struct Case {
    name: &'static str,
    yaml: &'static str,
    span: &'static [(&'static str, &'static str)],
    resource: &'static [(&'static str, &'static str)],
    calls: &'static [(&'static str, &'static str)],
    durations: &'static [(&'static str, &'static str)],
}

const BASE_EXCLUDED: &str =
    "exclude_dimensions: [service.name, span.name, span.kind, status.code, collector.instance.id]";

#[tokio::test]
async fn dimensions() {
    let cases = [
        Case {
            name: "the span's own attribute comes before the resource's, that before the default",
            yaml: "dimensions: [{name: a, default: x}, {name: b, default: x}, {name: c, default: x}, {name: d}]",
            span: &[("a", "span")],
            resource: &[("a", "resource"), ("b", "resource")],
            calls: &[("a", "span"), ("b", "resource"), ("c", "x")],
            durations: &[("a", "span"), ("b", "resource"), ("c", "x")],
        },
        Case {
            name: "an empty value is a value",
            yaml: "dimensions: [{name: a, default: x}]",
            span: &[("a", "")],
            resource: &[],
            calls: &[("a", "")],
            durations: &[("a", "")],
        },
        Case {
            name: "of equal keys the first one counts",
            yaml: "dimensions: [{name: a}]",
            span: &[("a", "1"), ("a", "2")],
            resource: &[],
            calls: &[("a", "1")],
            durations: &[("a", "1")],
        },
        Case {
            name: "calls and durations have dimensions of their own",
            yaml: "dimensions: [{name: a}]\ncalls_dimensions: [{name: b}]\nhistogram: {dimensions: [{name: c, default: x}]}",
            span: &[("a", "1"), ("b", "2")],
            resource: &[],
            calls: &[("a", "1"), ("b", "2")],
            durations: &[("a", "1"), ("c", "x")],
        },
        Case {
            name: "the same dimension in two lists is one; the last list's default counts",
            yaml: "dimensions: [{name: a, default: x}]\ncalls_dimensions: [{name: a, default: y}]",
            span: &[],
            resource: &[],
            calls: &[("a", "y")],
            durations: &[("a", "x")],
        },
        Case {
            name: "patterns match names of span and resource",
            yaml: "dimensions: [{glob: 'k8s.*.name'}, {name: a}]\nhistogram: {dimensions: [{glob: 'db.**'}]}",
            span: &[("k8s.pod.name", "p"), ("k8s.pod.label.name", "no"), ("db.a.b", "1"), ("a", "1")],
            resource: &[("k8s.pod.name", "hidden"), ("k8s.node.name", "n"), ("db.c", "2")],
            calls: &[("k8s.pod.name", "p"), ("k8s.node.name", "n"), ("a", "1")],
            durations: &[("k8s.pod.name", "p"), ("k8s.node.name", "n"), ("a", "1"), ("db.a.b", "1"), ("db.c", "2")],
        },
    ];
    for Case { name, yaml, span: own, resource, calls, durations } in cases {
        let rig = Rig::new(&format!("{yaml}\n{BASE_EXCLUDED}"));
        let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| text(key, value)).collect::<Vec<_>>();
        let mut one = span("a", 1);
        one.attributes = texts(own);
        let mut attributes = texts(resource);
        attributes.push(text("service.name", "shop"));
        rig.send(&request(vec![resource_spans(attributes, "lib", vec![one])]));
        let points = rig.points(MINUTE).await;
        let expected = |pairs: &[(&str, &str)]| -> Attributes {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(the_one(&points, ".calls").attributes, expected(calls), "{name}: calls");
        assert_eq!(the_one(&points, ".duration").attributes, expected(durations), "{name}: durations");
    }
}

/// Values keep their types, and 1 is not "1".
#[tokio::test]
async fn types_stay() {
    let rig = Rig::new("dimensions: [{name: a}]");
    let with = |value| {
        let mut span = span("x", 1);
        span.attributes = vec![attribute("a", value)];
        span
    };
    let values = [Value::IntValue(1), Value::StringValue("1".into()), Value::BoolValue(true), Value::DoubleValue(1.0)];
    rig.send(&of_shop(values.map(with).into()));
    let points = rig.points(MINUTE).await;
    let mut found: Vec<_> = counted(&points, ".calls").iter().map(|point| point.attribute("a").unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ["1", "bool true", "double 1", "int 1"]);
}

/// Each of the attributes that every series has can be left out; spans that differ in it alone are one
/// series then.
#[tokio::test]
async fn base_dimensions_can_be_left_out() {
    let mut other = failed(span("b", 1));
    other.kind = 3;
    let two = vec![
        resource_spans(vec![text("service.name", "shop")], "lib", vec![span("a", 1)]),
        resource_spans(vec![text("service.name", "cart")], "lib", vec![other]),
    ];
    let all = super::super::config::BASE_DIMENSIONS;
    for left_out in all {
        let rig = Rig::new(&format!("exclude_dimensions: [{left_out}]"));
        rig.send(&request(two.clone()));
        let points = rig.points(MINUTE).await;
        for point in counted(&points, ".calls") {
            let keys: Vec<&str> = point.attributes.keys().map(String::as_str).collect();
            let mut expected: Vec<&str> = all.into_iter().filter(|key| *key != left_out).collect();
            expected.sort_unstable();
            assert_eq!(keys, expected);
        }
    }
    // Without resource and base dimensions there is one series.
    let rig = Rig::new(&format!("add_resource_attributes: false\n{BASE_EXCLUDED}"));
    rig.send(&request(two));
    let points = rig.points(MINUTE).await;
    let point = the_one(&points, ".calls");
    assert_eq!((point.count, point.attributes.len(), point.resource.len()), (2, 0, 0));
}

/// The instance id is a UUID, the same for all series of a connector.
#[tokio::test]
async fn the_instance_id() {
    let rig = Rig::new("{}");
    rig.send(&of_shop(vec![span("a", 1), span("b", 1)]));
    let points = rig.points(MINUTE).await;
    let ids: std::collections::BTreeSet<_> =
        points.iter().map(|point| point.attribute("collector.instance.id").unwrap()).collect();
    let [id] = Vec::from_iter(ids)[..] else { panic!("{points:?}") };
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!((parts.as_slice(), &id[14..15]), (&[8, 4, 4, 4, 12][..], "4"), "{id}");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
}

/// Scopes become attributes if asked for.
#[tokio::test]
async fn scopes() {
    let rig = Rig::new("include_instrumentation_scope: [express]");
    let resource = || vec![text("service.name", "shop")];
    rig.send(&request(vec![
        resource_spans(resource(), "express", vec![span("a", 1)]),
        resource_spans(resource(), "other", vec![span("a", 1)]),
    ]));
    let points = rig.points(MINUTE).await;
    let mut found: Vec<_> = counted(&points, ".calls")
        .iter()
        .map(|point| {
            let attribute = |part: &str| point.attribute(&format!("span.instrumentation.scope.{part}"));
            (attribute("name"), attribute("version"), point.count)
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(None, None, 1), (Some("express"), Some("1.2"), 1)]);
}

/// Which resources are counted apart.
#[tokio::test]
async fn resources() {
    let of = |pid: i64| {
        let attributes = vec![text("service.name", "shop"), attribute("process.pid", Value::IntValue(pid))];
        resource_spans(attributes, "lib", vec![span("a", 1)])
    };
    let data = request(vec![of(1), of(2), of(1)]);
    let counts = async |yaml: &str| {
        let rig = Rig::new(yaml);
        rig.send(&data);
        let points = rig.points(MINUTE).await;
        let mut counts: Vec<_> = counted(&points, ".calls")
            .iter()
            .map(|point| (point.count, point.resource.get("process.pid").cloned().unwrap_or_default()))
            .collect();
        counts.sort_unstable();
        counts
    };
    let own = |count: u64, pid: &str| (count, pid.to_owned());
    assert_eq!(counts("{}").await, [own(1, "int 2"), own(2, "int 1")]);
    assert_eq!(counts("add_resource_attributes: true").await, [own(1, "int 2"), own(2, "int 1")]);
    assert_eq!(counts("resource_metrics_key_attributes: [service.name]").await, [own(3, "int 1")]);
    assert_eq!(counts("add_resource_attributes: false").await, [own(3, "")]);
}

/// What cannot work is said, where it is written.
#[test]
fn what_is_refused() {
    let cases = [
        ("dimensions: [{name: a}, {name: a}]", "dimensions[1]: duplicate dimension name \"a\""),
        ("dimensions: [{name: span.kind}]", "dimensions[0]: duplicate dimension name \"span.kind\""),
        ("calls_dimensions: [{}]", "calls_dimensions[0]: dimension entry must set one of `name` or `glob`"),
        ("dimensions: [{name: a, glob: b}]", "must set only one of `name` or `glob`, got both"),
        ("dimensions: [{glob: 'a*', default: x}]", "`default` is not supported on `glob` dimension \"a*\""),
        ("histogram: {dimensions: [{glob: '{a'}]}", "histogram.dimensions[0]: invalid dimension glob \"{a\""),
        ("dimensions: [{name: ab}, {glob: 'a*'}]", "duplicate dimension name \"ab\" conflicting with glob \"a*\""),
        ("events: {enabled: true}", "events.dimensions: no dimensions configured for events"),
        ("histogram: {explicit: , exponential: }", "use either `explicit` or `exponential` buckets histogram"),
        ("histogram: {explicit: {buckets: [2s, 1s]}}", "must be in ascending order"),
        ("histogram: {exponential: {max_size: 1}}", "must be between 2 and 1000"),
        ("histogram: {unit: m}", "histogram.unit"),
        ("aggregation_temporality: DELTA", "aggregation_temporality"),
        ("metrics_flush_interval: 0s", "must be at least 100ms"),
        ("metrics_expiration: -1s", "negative duration"),
        ("resource_metrics_cache_size: 0", "must be greater than zero"),
        ("aggregation_cardinality_limit: -1", "aggregation_cardinality_limit"),
        ("exemplars: {enabled: true, max_per_data_point: 1000}", "must not be greater than 100"),
        ("{add_resource_attributes: false, resource_metrics_key_attributes: [a]}", "remove one of the two"),
        ("dimension: []", "dimension"),
    ];
    for (yaml, expected) in cases {
        let errors = from_str::<SpanMetricsConfig>(yaml).err().unwrap_or_else(|| panic!("{yaml} is accepted"));
        let text: Vec<_> =
            errors.errors.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        assert!(text.iter().any(|line| line.contains(expected)), "{yaml}: {text:?}");
    }
    let deprecated = from_str::<SpanMetricsConfig>("{dimensions_cache_size: 5, exclude_dimensions: [x]}").unwrap().1;
    assert_eq!(deprecated.warnings.len(), 2);
}
