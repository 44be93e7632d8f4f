//! The cases of the mapping (E1 to E42), through configuration, translation and encoding, in
//! both versions of the protocol.

use std::time::Duration;

use nyquist_core::proto::common::v1::InstrumentationScope;
use nyquist_core::proto::metrics::v1::MetricsData;
use prost::Message;

use super::bench::{B, Bench, check, check_with};
use super::prompb_v2;
use crate::testing::*;

fn scope(name: &str, version: &str, labels: &[(&str, &str)]) -> InstrumentationScope {
    InstrumentationScope {
        name: name.to_owned(),
        version: version.to_owned(),
        attributes: attributes(labels),
        ..Default::default()
    }
}

#[test]
fn numbers() {
    check("E1", &push(vec![gauge("mem.util", "1", vec![number(0.5, T, &[])])]), &["mem_util_ratio{%B} 0.5@%T"]);
    check(
        "E2",
        &push(vec![sum("http.requests", "{request}", true, CUMULATIVE, vec![int(7, T)])]),
        &["http_requests_total{%B} 7@%T"],
    );
    check("E3", &push(vec![sum("queue.size", "", false, CUMULATIVE, vec![int(3, T)])]), &["queue_size{%B} 3@%T"]);
    let bench = check("E4", &push(vec![sum("d", "", true, DELTA, vec![int(3, T)]), labelled(&[])]), &["x{%B} 1@%T"]);
    assert_eq!((bench.dropped("delta"), bench.untranslatable), (1, 1));
    assert_eq!(bench.counted("failed_translations"), 1);
    check("E38", &push(vec![gauge("x", "", vec![int(9_007_199_254_740_993, T)])]), &["x{%B} 9007199254740992@%T"]);
    let twice = push(vec![gauge("x", "", vec![number(1.0, T, &[]), number(2.0, T, &[])])]);
    assert_eq!(check("E39", &twice, &["x{%B} 2@%T"]).counted("duplicate_points"), 1);
    let same = push(vec![gauge("x", "", vec![number(1.0, T, &[]), number(1.0, T, &[])])]);
    assert_eq!(check("E39, equal values", &same, &["x{%B} 1@%T"]).counted("duplicate_points"), 0);
    let bench = check("E41", &push(vec![gauge("日本", "", vec![number(1.0, T, &[])])]), &[]);
    assert_eq!(bench.dropped("name"), 1);
}

#[test]
fn an_ended_number_is_stale() {
    let mut point = number(1.0, T, &[]);
    point.flags = 1;
    check("no recorded value", &push(vec![gauge("x", "", vec![point])]), &["x{%B} stale@%T"]);
}

#[test]
fn points_out_of_order_are_put_in_order() {
    let data = push(vec![gauge("x", "", vec![number(2.0, T + 1, &[]), number(1.0, T, &[]), number(3.0, T + 2, &[])])]);
    let times: Vec<i64> =
        Bench::new("{}").request(&data).timeseries.iter().map(|series| series.samples[0].timestamp).collect();
    assert_eq!(times, [T, T + 1, T + 2]);
}

#[test]
fn labels() {
    let one = |labels: &[(&str, &str)]| push(vec![labelled(labels)]);
    check("E6", &one(&[("foo_bar", "b"), ("foo.bar", "a")]), &[r#"x{foo_bar="a;b",%B} 1@%T"#]);
    check("E7", &one(&[("foo.bar", "a"), ("foo_bar", "a")]), &[r#"x{foo_bar="a",%B} 1@%T"#]);
    check("E8", &one(&[("x", "")]), &["x{%B} 1@%T"]);
    let bench = check("E9", &one(&[("job", "z")]), &["x{%B} 1@%T"]);
    assert_eq!(bench.counted("overwritten_labels"), 1);
    let bench = check("E10", &one(&[("é", "1"), ("a", "b")]), &[r#"x{a="b",%B} 1@%T"#]);
    assert_eq!(bench.counted("dropped_labels"), 1);
    check(
        "E11",
        &one(&[("1st", "v"), ("a..b", "w")]),
        &[r#"x{a__b="w",%B,key_1st="v"} 1@%T"#.replace("%B,key", r#"instance="i-1",job="shop/cart",key"#).as_str()],
    );
    check_with("collapse_underscores: true", "E11", &one(&[("a..b", "w")]), &[r#"x{a_b="w",%B} 1@%T"#]);
    check("__name__", &one(&[("__name__", "w")]), &["x{%B} 1@%T"]);
}

#[test]
fn job_and_instance() {
    let x = || vec![labelled(&[])];
    check("E12", &push_from(&[("service.name", "cart")], x()), &[r#"x{job="cart"} 1@%T"#]);
    let empty = [("service.namespace", ""), ("service.name", "cart")];
    check("E12", &push_from(&empty, x()), &[r#"x{job="cart"} 1@%T"#]);
    check("E13", &push_from(&[("service.instance.id", "i-1")], x()), &[r#"x{instance="i-1"} 1@%T"#]);
}

#[test]
fn scopes() {
    let x = || vec![labelled(&[])];
    check(
        "E14",
        &push_scoped(SHOP, scope("lib", "1.2", &[("team", "x")]), "u", x()),
        &[r#"x{%B,otel_scope_name="lib",otel_scope_schema_url="u",otel_scope_team="x",otel_scope_version="1.2"} 1@%T"#],
    );
    let renamed = push_scoped(SHOP, scope("lib", "", &[("name", "q")]), "", x());
    check("E15", &renamed, &[r#"x{%B,otel_scope_name="lib"} 1@%T"#]);
    check_with("disable_scope_info: true", "without scope", &renamed, &["x{%B} 1@%T"]);
}

#[test]
fn histograms() {
    let of = |point| push(vec![histogram(point)]);
    let buckets = [
        r#"h_seconds_bucket{%B,le="0.5"} 1@%T"#,
        r#"h_seconds_bucket{%B,le="1"} 3@%T"#,
        r#"h_seconds_bucket{%B,le="+Inf"} 6@%T"#,
        "h_seconds_count{%B} 6@%T",
        "h_seconds_sum{%B} 9@%T",
    ];
    check("E16", &of(histogram_point()), &buckets);
    let mut point = histogram_point();
    point.sum = None;
    check("E17", &of(point), &buckets[..4]);
    let mut point = histogram_point();
    point.explicit_bounds.push(f64::INFINITY);
    point.bucket_counts.push(0);
    check("E18", &of(point), &buckets);
    let mut point = histogram_point();
    (point.explicit_bounds, point.bucket_counts, point.count, point.sum) = (vec![], vec![], 4, None);
    check("E19", &of(point), &[r#"h_seconds_bucket{%B,le="+Inf"} 4@%T"#, "h_seconds_count{%B} 4@%T"]);
    let mut point = histogram_point();
    point.flags = 1;
    let stale: Vec<String> =
        buckets.iter().map(|line| format!("{} stale@%T", line.rsplit_once(' ').unwrap().0)).collect();
    check("E20", &of(point), &stale.iter().map(String::as_str).collect::<Vec<_>>());
    let mut point = histogram_point();
    point.attributes = attributes(&[("le", "x")]);
    assert_eq!(check("E42", &of(point), &buckets).counted("overwritten_labels"), 1);
}

#[test]
fn exemplars() {
    let mut point = histogram_point();
    point.exemplars = vec![an_exemplar(0.7, &[("user.id", "7"), ("trace_id", "fake")])];
    let ids = r#"span_id="0102030405060708",trace_id="0102030405060708090a0b0c0d0e0f10""#;
    let with = |exemplar: &str| {
        vec![
            r#"h_seconds_bucket{%B,le="0.5"} 1@%T"#.to_owned(),
            format!(r#"h_seconds_bucket{{%B,le="1"}} 3@%T # 0.7@%T{{{exemplar}}}"#),
            r#"h_seconds_bucket{%B,le="+Inf"} 6@%T"#.to_owned(),
            "h_seconds_count{%B} 6@%T".to_owned(),
            "h_seconds_sum{%B} 9@%T".to_owned(),
        ]
    };
    let check_owned = |case: &str, data: &MetricsData, expected: Vec<String>| {
        check(case, data, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    check_owned("E21", &push(vec![histogram(point.clone())]), with(&format!(r#"{ids},user_id="7""#)));
    point.exemplars = vec![an_exemplar(0.7, &[("long", &"x".repeat(100))])];
    check_owned("E22", &push(vec![histogram(point)]), with(ids));
    let mut counted = int(7, T);
    counted.exemplars = vec![an_exemplar(1.0, &[])];
    check_owned(
        "on counters",
        &push(vec![sum("c", "", true, CUMULATIVE, vec![counted.clone()])]),
        vec![format!("c_total{{%B}} 7@%T # 1@%T{{{ids}}}")],
    );
    check("not on gauges", &push(vec![gauge("g", "", vec![counted])]), &["g{%B} 7@%T"]);
}

#[test]
fn exponential_histograms() {
    let one = |point| push(vec![exponentials(point)]);
    let head = |schema: i32, count: u64| format!("e{{%B}} schema={schema} zt=1e-128 zero=0 count={count} sum=9");
    let cases: [(&str, i32, i32, &[u64], &str); 4] = [
        ("E23", 3, 3, &[10, 0, 0, 20, 5, 2], "{4:10,7:20,8:5,9:2}"),
        ("E24", 9, 0, &[0, 0, 3, 5], "{2:8}"),
        ("E25", 9, 0, &[0, 0, 0, 0, 3, 5], "{3:8}"),
        ("E26", 9, -2, &[1, 2, 3, 4], "{0:3,1:7}"),
    ];
    for (case, scale, offset, counts, buckets) in cases {
        let head = head(scale.min(8), counts.iter().sum());
        check(case, &one(exponential(scale, offset, counts)), &[format!("{head} {buckets}@%T").as_str()]);
    }
    assert_eq!(check("E27", &one(exponential(-5, 0, &[1])), &[]).dropped("scale"), 1);
    let mut point = exponential(3, 0, &[1]);
    point.sum = None;
    assert_eq!(check("E28", &one(point.clone()), &[]).dropped("no_sum"), 1);
    point.flags = 1;
    check("E29", &one(point), &["e{%B} schema=0 zt=1e-128 zero=0 count=0 sum=stale {}@%T"]);
}

/// For backends without native histograms: what else there is to say, also of points that could be none.
#[test]
fn exponential_histograms_without_native_ones() {
    let off = "native_histograms: false";
    let one = |point| push(vec![exponentials(point)]);
    let classic = [r#"e_bucket{%B,le="+Inf"} 3@%T"#, "e_count{%B} 3@%T", "e_sum{%B} 9@%T"];
    check_with(off, "off", &one(exponential(3, 0, &[1, 2])), &classic);
    let mut coarse = exponential(-9, 0, &[1, 2]);
    coarse.sum = None;
    assert_eq!(check_with(off, "off", &one(coarse), &classic[..2]).counted("dropped_points"), 0);
    let mut ended = exponential(3, 0, &[1, 2]);
    (ended.flags, ended.attributes) = (1, attributes(&[("le", "x")]));
    let stale = [r#"e_bucket{%B,le="+Inf"} stale@%T"#, "e_count{%B} stale@%T", "e_sum{%B} stale@%T"];
    check_with(off, "off", &one(ended), &stale);
}

/// E30, and what only 2.0 has a place for.
#[test]
fn remote_write_2() {
    const V2: &str = "protobuf_message: io.prometheus.write.v2.Request";
    let mut point = histogram_point();
    point.explicit_bounds = vec![-2.0, -1.0, 0.0, 1.0, 2.0];
    (point.bucket_counts, point.count) = (vec![10, 0, 0, 20, 5, 2], 37);
    let data = push(vec![histogram(point)]);
    let native = "h_seconds{%B} schema=-53 zt=0e0 zero=0 count=37 sum=9 {0:10,3:20,4:5,5:2} \
                  custom=[-2.0, -1.0, 0.0, 1.0, 2.0]@%T";
    let config = format!("{{{V2}, convert_explicit_histograms_to_nhcb: true}}");
    check_with(&config, "E30", &data, &[native]);
    let config = format!("{{{V2}, convert_explicit_histograms_to_nhcb: true, keep_classic_histograms: true}}");
    let mut bench = Bench::new(&config);
    let lines = bench.lines(&data);
    assert_eq!(lines.len(), 1 + 6 + 2, "{lines:#?}");
    assert_eq!(bench.counted("duplicate_points"), 0);

    let counter = || sum("http.requests", "{request}", true, CUMULATIVE, vec![int(7, T)]);
    let utf8 = format!("{{{V2}, translation_strategy: NoTranslation}}");
    let labelled = gauge("日本", "", vec![number(1.0, T, &[("http.method", "GET")])]);
    check_with(&utf8, "E40, E41", &push(vec![labelled]), &[r#"日本{http.method="GET",%B} 1@%T"#]);

    let mut bench = Bench::new("{}");
    let request = bench.request(&push(vec![
        counter(),
        sum("queue.size", "", false, CUMULATIVE, vec![int(3, T)]),
        exponentials(nyquist_core::proto::metrics::v1::ExponentialHistogramDataPoint {
            start_time_unix_nano: nanos(T - 5),
            ..exponential(0, 0, &[1])
        }),
    ]));
    let starts: Vec<i64> = request
        .timeseries
        .iter()
        .flat_map(|series| {
            let samples = series.samples.iter().map(|sample| sample.start);
            samples.chain(series.histograms.iter().map(|histogram| histogram.start))
        })
        .collect();
    assert_eq!(starts, [T - 60_000, 0, T - 5], "E2, E3");
    let described =
        |kind: i32, unit: &str| prompb_v2::Described { kind, help: "What it is".to_owned(), unit: unit.to_owned() };
    assert_eq!(bench.described, [described(1, ""), described(2, ""), described(3, "")]);
    bench.request(&push(vec![sum("c", "By", true, CUMULATIVE, vec![int(1, T)])]));
    assert_eq!(bench.described, [described(1, "bytes")]);
}

#[test]
fn summaries() {
    let expected =
        [r#"x{%B,quantile="0.5"} 1@%T"#, r#"x{%B,quantile="0.99"} 2@%T"#, "x_count{%B} 4@%T", "x_sum{%B} 3@%T"];
    check("E32", &push(vec![summary()]), &expected);
}

#[test]
fn target_info() {
    let with_host = |host: &str, at: i64| {
        let resource = [SHOP, &[("host.name", host)]].concat();
        push_from(&resource, vec![gauge("x", "", vec![number(1.0, at, &[])])])
    };
    let info = |host: &str, value: &str, at: i64| format!(r#"target_info{{host_name="{host}",{B}}} {value}@{at}"#);
    let x = |at: i64| format!("x{{{B}}} 1@{at}");

    let mut bench = Bench::new("{}");
    assert_eq!(bench.lines(&with_host("h1", T)), [info("h1", "1", T), x(T)], "E33");
    assert_eq!(bench.lines(&with_host("h1", T + 10_000)), [x(T + 10_000)], "E33: not again so soon");
    let later = T + 60_000;
    assert_eq!(bench.lines(&with_host("h1", later)), [info("h1", "1", later), x(later)], "E33: after a minute");

    let mut bench = Bench::new("{}");
    let mut both = with_host("h1", T);
    both.resource_metrics.extend(with_host("h1", T + 1).resource_metrics);
    assert_eq!(bench.lines(&both), [info("h1", "1", T + 1), x(T), x(T + 1)], "E34");
    let changed = bench.lines(&with_host("h2", T + 2));
    assert_eq!(changed, [info("h1", "stale", T + 2), info("h2", "1", T + 2), x(T + 2)], "E35");
    let back = bench.lines(&with_host("h1", T + 3));
    assert_eq!(back, [info("h1", "1", T + 3), x(T + 3)], "two resources share a target: nothing is ended");

    bench.now += Duration::from_secs(400);
    let silent = bench.lines(&push(vec![]));
    assert_eq!(silent, [info("h1", "stale", T + 4), info("h2", "stale", T + 3)], "silent targets end");

    let namespaced = Bench::new("namespace: ns").lines(&with_host("h1", T));
    assert!(namespaced[0].starts_with("ns_target_info{"), "{namespaced:?}");
    let off = Bench::new("target_info: {enabled: false}").request(&with_host("h1", T));
    assert!(off.timeseries.iter().all(|series| series.name() == "x"));
}

#[test]
fn external_and_constant_labels() {
    let external = "external_labels: {job: q, region: eu, cluster: c}";
    let own = push(vec![labelled(&[("region", "own")])]);
    check_with(external, "E36", &own, &[r#"x{cluster="c",%B,region="own"} 1@%T"#]);
    check_with(external, "E36", &push(vec![labelled(&[])]), &[r#"x{cluster="c",%B,region="eu"} 1@%T"#]);
    let resource = [("k8s.pod.name", "p"), ("host.name", "h"), ("service.name", "cart")];
    let data =
        push_from(&resource, vec![labelled(&[("k8s.pod.name", "mine")]), labelled(&[("k8s_pod_name", "other")])]);
    check_with(
        "{resource_constant_labels: {included: ['k8s.*']}, target_info: {enabled: false}}",
        "E37",
        &push_from(&resource, vec![labelled(&[])]),
        &[r#"x{job="cart",k8s_pod_name="p"} 1@%T"#],
    );
    check_with(
        "resource_constant_labels: {included: ['k8s.*']}",
        "E37: with the point's own labels",
        &data,
        &[
            r#"x{job="cart",k8s_pod_name="mine"} 1@%T"#,
            r#"x{job="cart",k8s_pod_name="p;other"} 1@%T"#,
            r#"target_info{host_name="h",job="cart",k8s_pod_name="p"} 1@%T"#,
        ],
    );
    check_with(
        "{resource_to_telemetry_conversion: {enabled: true, exclude_service_attributes: true}, target_info: {enabled: false}}",
        "all resource attributes",
        &push_from(&resource, vec![labelled(&[])]),
        &[r#"x{host_name="h",job="cart",k8s_pod_name="p"} 1@%T"#],
    );
}

#[test]
fn metadata_is_sent_when_it_changes_and_once_a_minute() {
    let mut bench = Bench::new("send_metadata: true");
    let data = push(vec![sum("c", "s", true, CUMULATIVE, vec![int(1, T)])]);
    let [metadata] = bench.request(&data).metadata.try_into().unwrap();
    assert_eq!((metadata.kind, metadata.family.as_str()), (1, "c_seconds_total"));
    assert_eq!((metadata.help.as_str(), metadata.unit.as_str()), ("What it is", "seconds"));
    assert_eq!(bench.request(&data).metadata, []);
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.request(&data).metadata.len(), 1);
    assert_eq!(Bench::new("{}").request(&data).metadata, []);
}

/// The type in `prometheus.type`: where OTLP has no kind for it, and for the series of a classic histogram or summary,
/// which keep their names under every strategy.
#[test]
fn types_come_from_metadata_too() {
    let gauge = |name: &str| gauge(name, "s", vec![number(1.0, T, &[])]);
    let counter = |name: &str| sum(name, "s", true, CUMULATIVE, vec![number(1.0, T, &[])]);
    let up_down = |name: &str| sum(name, "s", false, CUMULATIVE, vec![number(1.0, T, &[])]);
    // Type, metric; name and number of the type, and whose they are in 1.0.
    let cases = [
        ("unknown", gauge("x_seconds"), "x_seconds", 0, "x_seconds"),
        ("info", gauge("x_seconds"), "x_seconds", 6, "x_seconds"),
        ("stateset", gauge("x_seconds"), "x_seconds", 7, "x_seconds"),
        ("unknown", up_down("x_seconds"), "x_seconds", 0, "x_seconds"),
        ("info", up_down("x_seconds"), "x_seconds", 6, "x_seconds"),
        ("stateset", up_down("x_seconds"), "x_seconds", 7, "x_seconds"),
        ("gauge", up_down("x_seconds"), "x_seconds", 2, "x_seconds"),
        ("summary", gauge("x_seconds"), "x_seconds", 2, "x_seconds"),
        ("nonsense", gauge("x_seconds"), "x_seconds", 2, "x_seconds"),
        ("unknown", counter("x_seconds_total"), "x_seconds_total", 1, "x_seconds_total"),
        ("histogram", counter("x_seconds_bucket"), "x_seconds_bucket", 3, "x_seconds"),
        ("histogram", counter("x_seconds_sum"), "x_seconds_sum", 3, "x_seconds"),
        ("histogram", counter("x_seconds_count"), "x_seconds_count", 3, "x_seconds"),
        ("summary", counter("x_seconds_sum"), "x_seconds_sum", 5, "x_seconds"),
        ("summary", counter("x_seconds_count"), "x_seconds_count", 5, "x_seconds"),
    ];
    let strategies = [
        "UnderscoreEscapingWithSuffixes",
        "UnderscoreEscapingWithoutSuffixes",
        "NoUTF8EscapingWithSuffixes",
        "NoTranslation",
    ];
    for strategy in strategies {
        for (prometheus_type, metric, name, kind, family) in cases.clone() {
            let mut metric = metric;
            metric.metadata = attributes(&[("prometheus.type", prometheus_type)]);
            let what = format!("{strategy}: {prometheus_type} {}", metric.name);
            let mut bench = Bench::new(&format!(
                "{{send_metadata: true, protobuf_message: io.prometheus.write.v2.Request, translation_strategy: {strategy}}}"
            ));
            let request = bench.request(&push(vec![metric]));
            assert_eq!((request.timeseries[0].name(), bench.described[0].kind), (name, kind), "{what}");
            let [metadata] = request.metadata.try_into().unwrap();
            assert_eq!((metadata.kind, metadata.family.as_str()), (kind, family), "{what}");
        }
    }
    let mut other = counter("x_bucket");
    other.metadata = attributes(&[("prometheus.type", "summary")]);
    assert_eq!(Bench::new("{}").request(&push(vec![other])).timeseries[0].name(), "x_bucket_seconds_total");
}

/// What the SDKs really send: everything is translated, and nothing is lost but deltas.
#[test]
fn recorded_requests() {
    let recorded: [(&str, &[u8]); 7] = [
        ("python", include_bytes!("../../../testdata/python.metrics.pb")),
        ("python 2", include_bytes!("../../../testdata/python.metrics-2.pb")),
        ("javascript", include_bytes!("../../../testdata/javascript.metrics.pb")),
        ("java", include_bytes!("../../../testdata/java.metrics.pb")),
        ("java 2", include_bytes!("../../../testdata/java.metrics-2.pb")),
        ("go", include_bytes!("../../../testdata/go.metrics.pb")),
        ("collector", include_bytes!("../../../testdata/collector.metrics.pb")),
    ];
    let mut seen = std::collections::BTreeMap::new();
    for (who, bytes) in recorded {
        let mut bench = Bench::new("{}");
        let lines = bench.lines(&MetricsData::decode(bytes).unwrap());
        assert!(lines.len() > 3, "{who}: {lines:#?}");
        assert_eq!(bench.untranslatable as u64, bench.dropped("delta"), "{who}");
        // Recorded at other times: compare what comes before them.
        seen.insert(who, lines.iter().filter_map(|line| Some(line.split('@').next()?.to_owned())).collect::<Vec<_>>());
    }
    assert_eq!(seen["python"], seen["collector"], "the order of fields on the wire does not matter");
}
