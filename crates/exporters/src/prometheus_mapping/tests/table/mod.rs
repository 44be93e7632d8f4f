//! The cases of the mapping by their numbers, E1 to E42, and what follows from them: what is
//! pushed with which settings, the lines it becomes, and what is lost. In lines `%B` stands for the
//! labels of the resource `SHOP`, `%T` for the time and `%S` for the start of the points.
//!
//! E39 (two values of one series and time) is in `series`. E31 (custom buckets with remote write 1.0 are a mistake) and the like half of E40 are about keys of
//! `prometheus_remote_write`, whose tests have them.

mod histograms;

use std::time::Duration;

use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::{Metric, MetricsData, metric::Data};

use super::lines::Bench;
use crate::prometheus_mapping::{Accumulator, LostExemplars, LostLabels, ResourceLabels, Settings, Strategy, glob};
use crate::testing::*;
use histograms::{custom_buckets, histograms, native_histograms};

/// `%B` in the expected lines.
const B: &str = r#"instance="i-1",job="shop/cart""#;

struct Case {
    name: &'static str,
    settings: Settings,
    pushes: Vec<MetricsData>,
    lines: Vec<&'static str>,
    /// Reason, metric and points.
    lost: Vec<(&'static str, &'static str, usize)>,
    labels: LostLabels,
    exemplars: LostExemplars,
}

fn case(name: &'static str, pushed: MetricsData, lines: &[&'static str]) -> Case {
    let settings = Settings { needs_time: true, ..Settings::default() };
    let (lines, lost, labels) = (lines.to_vec(), Vec::new(), LostLabels::default());
    Case { name, settings, pushes: vec![pushed], lines, lost, labels, exemplars: LostExemplars::default() }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// A push that comes later; `lines` are those of all pushes.
    fn then(mut self, pushed: MetricsData) -> Self {
        self.pushes.push(pushed);
        self
    }

    fn losing(mut self, reason: &'static str, metric: &'static str, points: usize) -> Self {
        self.lost.push((reason, metric, points));
        self
    }

    fn losing_labels(mut self, unnamable: usize, overwritten: usize, joined: usize) -> Self {
        self.labels = LostLabels { unnamable, overwritten, joined };
        self
    }

    fn losing_exemplars(mut self, lose: impl FnOnce(&mut LostExemplars)) -> Self {
        lose(&mut self.exemplars);
        self
    }

    fn check(&self) -> Result<(), String> {
        let mut bench = Bench::new(self.settings.clone());
        if self.settings.accept_delta {
            bench.streams.accumulator = Some(Accumulator::new(1 << 20, Duration::from_secs(300)));
        }
        let mut got: Vec<String> = self.pushes.iter().flat_map(|push| bench.lines(push)).collect();
        let start = (T - 60_000).to_string();
        let fill = |line: &&str| line.replace("%B", B).replace("%T", &T.to_string()).replace("%S", &start);
        let mut wanted: Vec<String> = self.lines.iter().map(fill).collect();
        got.sort();
        wanted.sort();
        let lost: Vec<_> =
            bench.lost.points.iter().map(|(reason, metric, points)| (*reason, metric.as_str(), *points)).collect();
        if got != wanted {
            return Err(format!("{}: got {got:#?}\nwanted {wanted:#?}", self.name));
        }
        let is_right = lost == self.lost && bench.lost.labels == self.labels && bench.lost.exemplars == self.exemplars;
        if !is_right {
            let wanted = (&self.lost, self.labels, self.exemplars);
            return Err(format!("{}: lost {:?}, wanted {wanted:?}", self.name, bench.lost));
        }
        Ok(())
    }
}

#[test]
fn all_cases() {
    let cases = [
        numbers(),
        labels(),
        scopes(),
        histograms(),
        native_histograms(),
        custom_buckets(),
        target_info(),
        resources(),
    ];
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    assert!(cases.len() > 60);
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.check().err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

fn ended(mut metric: Metric) -> Metric {
    match &mut metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.iter_mut().for_each(|point| point.flags = 1),
        Some(Data::Sum(sum)) => sum.data_points.iter_mut().for_each(|point| point.flags = 1),
        Some(Data::Summary(summary)) => summary.data_points.iter_mut().for_each(|point| point.flags = 1),
        _ => panic!("set the flag of the point"),
    }
    metric
}

fn one(metric: Metric) -> MetricsData {
    push(vec![metric])
}

fn strategy(strategy: Strategy) -> impl FnOnce(&mut Settings) {
    move |settings| settings.strategy = strategy
}

fn numbers() -> Vec<Case> {
    let counter = |value: i64| sum("http.requests", "{request}", true, CUMULATIVE, vec![int(value, T)]);
    let delta = |value: i64, at: i64| sum("d", "", true, DELTA, vec![int(value, at)]);
    let accumulated = |settings: &mut Settings| settings.accept_delta = true;
    let gauge_x = |value: f64, at: i64| gauge("x", "", vec![number(value, at, &[])]);
    let mut timeless = number(1.0, T, &[]);
    timeless.time_unix_nano = 0;
    let mut valueless = number(1.0, T, &[]);
    valueless.value = None;
    let mut typed = gauge_x(1.0, T);
    typed.metadata = attributes(&[("prometheus.type", "unknown")]);
    let unspecified = sum("u", "", true, 0, vec![int(7, T)]);
    vec![
        case("E1", one(gauge("mem.util", "1", vec![number(0.5, T, &[])])), &["mem_util_ratio{%B} 0.5@%T"]),
        case("E2", one(counter(7)), &["http_requests_total{%B} 7@%T start=%S"]),
        case("E3", one(sum("queue.size", "", false, CUMULATIVE, vec![int(3, T)])), &["queue_size{%B} 3@%T"]),
        case("E4", push(vec![delta(5, T), gauge_x(1.0, T)]), &["x{%B} 1@%T"]).losing("delta", "d", 1),
        case("E5", one(delta(5, T)), &["d_total{%B} 5@%T start=%S", "d_total{%B} 7@1700000010000 start=%S"])
            .with(accumulated)
            .then(one(delta(2, T + 10_000))),
        case("E5: a repetition is not added", one(delta(5, T)), &["d_total{%B} 5@%T start=%S"])
            .with(accumulated)
            .then(one(delta(5, T)))
            .losing("out_of_order", "d_total", 1),
        case("E38", one(gauge("x", "", vec![int(9_007_199_254_740_993, T)])), &["x{%B} 9007199254740992@%T"]),
        case(
            "no recorded value",
            push(vec![ended(gauge_x(1.0, T)), ended(counter(7))]),
            &["http_requests_total{%B} stale@%T start=%S", "x{%B} stale@%T"],
        ),
        case("no temporality", push(vec![unspecified, gauge_x(1.0, T)]), &["x{%B} 1@%T"]).losing("temporality", "u", 1),
        case("no time", one(gauge("x", "", vec![timeless.clone(), number(2.0, T, &[])])), &["x{%B} 2@%T"])
            .losing("time", "x", 1),
        case("no time, where none is needed", one(gauge("x", "", vec![timeless])), &["x{%B} 1@0"])
            .with(|settings| settings.needs_time = false),
        case("no value", one(gauge("x", "", vec![valueless, number(2.0, T, &[])])), &["x{%B} 2@%T"])
            .losing("value", "x", 1),
        case("a type from metadata", one(typed), &["x{%B} 1@%T"]),
        case(
            "E32",
            one(summary()),
            &[r#"x{%B,quantile="0.5"} 1@%T"#, r#"x{%B,quantile="0.99"} 2@%T"#, "x_count{%B} 4@%T", "x_sum{%B} 3@%T"],
        ),
        case(
            "E32, ended",
            one(ended(summary())),
            &[
                r#"x{%B,quantile="0.5"} stale@%T"#,
                r#"x{%B,quantile="0.99"} stale@%T"#,
                "x_count{%B} stale@%T",
                "x_sum{%B} stale@%T",
            ],
        ),
        case(
            "E40",
            one(sum("http.requests", "", true, CUMULATIVE, vec![number(1.0, T, &[("http.method", "GET")])])),
            &[r#"http.requests{http.method="GET",%B} 1@%T start=%S"#],
        )
        .with(strategy(Strategy::NoTranslation)),
        case(
            "E40, with suffixes",
            one(sum("http.requests", "", true, CUMULATIVE, vec![int(1, T)])),
            &["http.requests_total{%B} 1@%T start=%S"],
        )
        .with(strategy(Strategy::NoUTF8EscapingWithSuffixes)),
        case("without suffixes", one(counter(1)), &["http_requests{%B} 1@%T start=%S"])
            .with(strategy(Strategy::UnderscoreEscapingWithoutSuffixes)),
        case("E41", push(vec![gauge("日本", "", vec![int(1, T), int(2, T + 1)]), gauge_x(1.0, T)]), &["x{%B} 1@%T"])
            .losing("name", "日本", 2),
        case("E41, kept", one(gauge("日本", "", vec![int(1, T)])), &["日本{%B} 1@%T"])
            .with(strategy(Strategy::NoTranslation)),
        case("a namespace", one(counter(7)), &["ns_http_requests_total{%B} 7@%T start=%S"])
            .with(|settings| settings.namespace = "ns".to_owned()),
    ]
}

fn typed_attribute(key: &str, value: any_value::Value) -> Vec<KeyValue> {
    vec![KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }]
}

fn labels() -> Vec<Case> {
    let x = |labels: &[(&str, &str)]| one(labelled(labels));
    let mut numbered = number(1.0, T, &[]);
    numbered.attributes = typed_attribute("n", any_value::Value::IntValue(-7));
    vec![
        case("E6", x(&[("foo.bar", "a"), ("foo_bar", "b")]), &[r#"x{foo_bar="a;b",%B} 1@%T"#]).losing_labels(0, 0, 1),
        case("E6, in any order", x(&[("foo_bar", "b"), ("foo.bar", "a")]), &[r#"x{foo_bar="a;b",%B} 1@%T"#])
            .losing_labels(0, 0, 1),
        case("E7", x(&[("foo.bar", "a"), ("foo_bar", "a")]), &[r#"x{foo_bar="a",%B} 1@%T"#]).losing_labels(0, 0, 1),
        case("E8", x(&[("x", "")]), &["x{%B} 1@%T"]),
        case("E9", x(&[("job", "z")]), &["x{%B} 1@%T"]).losing_labels(0, 1, 0),
        case("E10", x(&[("é", "1"), ("a", "b")]), &[r#"x{a="b",%B} 1@%T"#]).losing_labels(1, 0, 0),
        case("E11", x(&[("1st", "v"), ("a..b", "w")]), &[r#"x{a__b="w",%B,key_1st="v"} 1@%T"#]),
        case("E11, collapsed", x(&[("1st", "v"), ("a..b", "w")]), &[r#"x{a_b="w",%B,key_1st="v"} 1@%T"#])
            .with(|settings| settings.collapse_underscores = true),
        case("E12", push_from(&[("service.name", "cart")], vec![labelled(&[])]), &[r#"x{job="cart"} 1@%T"#]),
        case(
            "E12, empty",
            push_from(&[("service.namespace", ""), ("service.name", "cart")], vec![labelled(&[])]),
            &[r#"x{job="cart"} 1@%T"#],
        ),
        case(
            "E13",
            push_from(&[("service.instance.id", "i-1"), ("service.namespace", "shop")], vec![labelled(&[])]),
            &[r#"x{instance="i-1"} 1@%T"#],
        ),
        case("a name of its own", x(&[("__name__", "y")]), &["x{%B} 1@%T"]).losing_labels(0, 1, 0),
        case(
            "E40: labels",
            x(&[("http.method", "GET"), ("é", "1"), ("__", "2")]),
            &[r#"x{http.method="GET",%B,é="1"} 1@%T"#],
        )
        .with(strategy(Strategy::NoTranslation))
        .losing_labels(1, 0, 0),
        case("values are text", one(gauge("x", "", vec![numbered])), &[r#"x{%B,n="-7"} 1@%T"#]),
    ]
}

fn scopes() -> Vec<Case> {
    let from = |labels: &[(&str, &str)]| {
        let scope = InstrumentationScope {
            name: "lib".to_owned(),
            version: "1.2".to_owned(),
            attributes: attributes(labels),
            ..Default::default()
        };
        push_scoped(SHOP, scope, "u", vec![labelled(&[])])
    };
    const OWN: &str = r#"x{%B,otel_scope_name="lib",otel_scope_schema_url="u",otel_scope_version="1.2"} 1@%T"#;
    let with_team =
        r#"x{%B,otel_scope_name="lib",otel_scope_schema_url="u",otel_scope_team="x",otel_scope_version="1.2"} 1@%T"#;
    vec![
        case("E14", from(&[("team", "x")]), &[with_team]),
        case("E15", from(&[("name", "q"), ("version", "q"), ("schema_url", "q")]), &[OWN]),
        case("without", from(&[("team", "x")]), &["x{%B} 1@%T"]).with(|settings| settings.scope_labels = false),
    ]
}

const H: [&str; 5] = [
    r#"h_seconds_bucket{%B,le="0.5"} 1@%T"#,
    r#"h_seconds_bucket{%B,le="1"} 3@%T"#,
    r#"h_seconds_bucket{%B,le="+Inf"} 6@%T"#,
    "h_seconds_count{%B} 6@%T",
    "h_seconds_sum{%B} 9@%T",
];

fn target_info() -> Vec<Case> {
    let from = |host: &str, at: i64| {
        let resource = [SHOP, &[("host.name", host)]].concat();
        push_from(&resource, vec![gauge("x", "", vec![number(1.0, at, &[])])])
    };
    let mut both = from("h1", T);
    both.resource_metrics.extend(from("h1", T + 1).resource_metrics);
    vec![
        case(
            "E33",
            from("h1", T),
            &[
                r#"target_info{host_name="h1",%B} 1@%T"#,
                "x{%B} 1@%T",
                "x{%B} 1@1700000010000",
                r#"target_info{host_name="h1",%B} 1@1700000060000"#,
                "x{%B} 1@1700000060000",
            ],
        )
        .then(from("h1", T + 10_000))
        .then(from("h1", T + 60_000)),
        case(
            "E34",
            both,
            &[r#"target_info{host_name="h1",%B} 1@1700000000001"#, "x{%B} 1@%T", "x{%B} 1@1700000000001"],
        ),
        case(
            "E35",
            from("h1", T),
            &[
                r#"target_info{host_name="h1",%B} 1@%T"#,
                "x{%B} 1@%T",
                r#"target_info{host_name="h1",%B} stale@1700000000001"#,
                r#"target_info{host_name="h2",%B} 1@1700000000001"#,
                "x{%B} 1@1700000000001",
            ],
        )
        .then(from("h2", T + 1)),
        case(
            "attributes that do not stay as they are",
            push_from(
                &[SHOP, &[("a.b", "1"), ("a_b", "2"), ("job", "mine"), ("é", "x")]].concat(),
                vec![labelled(&[])],
            ),
            &[r#"target_info{a_b="1;2",%B} 1@%T"#, "x{%B} 1@%T"],
        )
        .losing_labels(1, 1, 1),
        case(
            "nothing but attributes without a name",
            push_from(&[SHOP, &[("é", "x")]].concat(), vec![labelled(&[])]),
            &["x{%B} 1@%T"],
        )
        .losing_labels(1, 0, 0),
        case("no points", push_from(&[("service.name", "cart"), ("host.name", "h")], vec![]), &[]),
        case(
            "some labels only",
            push_from(
                &[("service.name", "cart"), ("host.name", "h"), ("pid", "7")],
                vec![gauge("x", "", vec![number(1.0, T, &[])])],
            ),
            &[r#"target_info{host_name="h",job="cart"} 1@%T"#, r#"x{job="cart"} 1@%T"#],
        )
        .with(|settings| settings.target_labels = vec![glob("host.*").unwrap()]),
        case("off", from("h1", T), &["x{%B} 1@%T"]).with(|settings| settings.target_info = false),
    ]
}

fn resources() -> Vec<Case> {
    let external = |settings: &mut Settings| {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        settings.external_labels = vec![label("job", "q"), label("region", "eu")];
    };
    let overriding = move |settings: &mut Settings| {
        external(settings);
        settings.external_override = true;
    };
    let promoted = |settings: &mut Settings| {
        let included = vec![glob("k8s.*").unwrap()];
        settings.resource_labels = ResourceLabels::Matching { included, excluded: vec![], without_service: false };
    };
    let resource = [("k8s.pod.name", "p"), ("host.name", "h"), ("service.name", "cart")];
    const INFO: &str = r#"target_info{host_name="h",job="cart",k8s_pod_name="p"} 1@%T"#;
    let own = one(labelled(&[("region", "own")]));
    vec![
        case("E36", one(labelled(&[])), &[r#"x{%B,region="eu"} 1@%T"#]).with(external),
        case("E36: the point's own", own.clone(), &[r#"x{%B,region="own"} 1@%T"#]).with(external),
        case("E36: overriding", own, &[r#"x{instance="i-1",job="q",region="eu"} 1@%T"#])
            .with(overriding)
            .losing_labels(0, 1, 0),
        case("E37", push_from(&resource, vec![labelled(&[])]), &[r#"x{job="cart",k8s_pod_name="p"} 1@%T"#, INFO])
            .with(promoted),
        case(
            "E37: the point's own",
            push_from(&resource, vec![labelled(&[("k8s.pod.name", "mine")]), labelled(&[("k8s_pod_name", "other")])]),
            &[r#"x{job="cart",k8s_pod_name="mine"} 1@%T"#, r#"x{job="cart",k8s_pod_name="p;other"} 1@%T"#, INFO],
        )
        .with(promoted)
        .losing_labels(0, 0, 1),
        case(
            "all of the resource",
            push_from(&resource, vec![labelled(&[])]),
            &[r#"x{host_name="h",job="cart",k8s_pod_name="p"} 1@%T"#, INFO],
        )
        .with(|settings| settings.resource_labels = ResourceLabels::all(true)),
        case(
            "all of the resource, with names of ours",
            push_scoped(
                &[SHOP, &[("job", "mine"), ("instance", "me"), ("otel_scope_name", "s"), ("region", "own")]].concat(),
                InstrumentationScope { name: "lib".to_owned(), ..Default::default() },
                "",
                vec![labelled(&[])],
            ),
            &[r#"x{%B,otel_scope_name="lib",region="own"} 1@%T"#],
        )
        .with(external)
        .with(|settings| {
            settings.target_info = false;
            settings.resource_labels = ResourceLabels::all(true);
        })
        .losing_labels(0, 3, 0),
    ]
}
