//! The differences that are meant to be, and why.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;

use serde_json::{Value, json};

use super::Content;
use super::pushes::*;
use super::support::otlp::attribute;

/// The labels of a series.
pub(crate) type Labels = serde_json::Map<String, Value>;

/// A difference that is meant to be: what has to be done to a series of one side for it to be as on the other. Whatever else
/// differs, in the same metric too, is unexpected.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The metric's name, punctuation and the suffixes of units and types aside.
    pub(crate) metric: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) side: Side,
    /// Makes of a series what the other side has; `false`: it has none.
    pub(crate) rewrite: fn(&mut Labels, &mut Value) -> bool,
}

/// Whose series are rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Theirs,
}

/// Theirs differs.
pub(crate) fn theirs(
    metric: &'static str,
    reason: &'static str,
    rewrite: fn(&mut Labels, &mut Value) -> bool,
) -> Known {
    Known { metric, reason, side: Side::Theirs, rewrite }
}

/// Ours differs.
pub(crate) fn ours(metric: &'static str, reason: &'static str, rewrite: fn(&mut Labels, &mut Value) -> bool) -> Known {
    Known { metric, reason, side: Side::Ours, rewrite }
}

/// Suffixes of the metrics in tests: of units, of types, of the series of a histogram.
const SUFFIXES: [&str; 7] = ["bucket", "count", "sum", "total", "bytes", "seconds", "ratio"];

impl Known {
    /// Is the metric of the series `name` this one?
    fn is_about(&self, name: &str) -> bool {
        let letters = |text: &str| text.replace(['.', '_'], "");
        let name = letters(name);
        let Some(mut rest) = name.strip_prefix(&letters(self.metric)) else { return false };
        while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| rest.strip_suffix(suffix)) {
            rest = shorter;
        }
        rest.is_empty()
    }
}

/// `content` of `side` as `known` says that the other has it; what was rewritten is `seen`.
pub(crate) fn rewritten(content: &Content, side: Side, known: &[Known], seen: &mut BTreeSet<usize>) -> Content {
    let mut all = Content::new();
    for (key, value) in content {
        let (mut labels, mut value): (Labels, Value) = (serde_json::from_str(key).unwrap(), value.clone());
        let name = labels["__name__"].as_str().unwrap_or_default().to_owned();
        let mut is_kept = true;
        for (index, known) in known.iter().enumerate() {
            if known.side != side || !known.is_about(&name) {
                continue;
            }
            let before = (labels.clone(), value.clone());
            is_kept &= (known.rewrite)(&mut labels, &mut value);
            if !is_kept || before != (labels.clone(), value.clone()) {
                seen.insert(index);
            }
        }
        if is_kept {
            all.insert(Value::Object(labels).to_string(), value);
        }
    }
    all
}

/// Fails if one of `known` was not among those `seen`: the list holds nothing that is past.
pub(crate) fn assert_all_seen(known: &[Known], seen: &BTreeSet<usize>) {
    for (index, known) in known.iter().enumerate() {
        assert!(seen.contains(&index), "no such difference any more: {} ({})", known.metric, known.reason);
    }
}

/// The other side has no such series.
pub(crate) fn nothing(_: &mut Labels, _: &mut Value) -> bool {
    false
}

/// Calls `change` with each exemplar's labels, if `value` holds exemplars.
fn exemplar_labels(value: &mut Value, change: impl Fn(&mut Labels)) {
    let is_exemplar = |one: &&mut Value| one.get("labels").is_some();
    for exemplar in value.as_array_mut().into_iter().flatten().filter(is_exemplar) {
        exemplar["labels"].as_object_mut().into_iter().for_each(&change);
    }
}

/// Takes off the zero where a gauge begins: see [`ZEROED`].
fn without_zero(value: &mut Value) {
    if let Some(values) = value[0].as_array_mut().filter(|values| values.len() == 2 && values[0][1] == json!("0")) {
        values.remove(0);
    }
}

/// Gives a label another value, if it has this one; `None`: there is no such label.
fn swap(labels: &mut Labels, name: &str, from: Option<&str>, to: Option<&str>) {
    if labels.get(name).and_then(Value::as_str) == from {
        match to {
            Some(to) => drop(labels.insert(name.to_owned(), to.into())),
            None => drop(labels.remove(name)),
        }
    }
}

/// Metrics that the two ways treat in different ways: what, and why.
pub(crate) fn different(times: Times) -> (Vec<ResourceMetrics>, Vec<Known>) {
    let x = |name: &str, labels: &[(&str, &str)]| gauge(name, "", vec![number(times, 1.0, labels)]);
    let mut thresholded = exponential_point(times, 0, (0, &[1]), (0, &[]), 2);
    thresholded.zero_threshold = 0.25;
    let mut sumless = exponential_point(times, 0, (0, &[1]), (0, &[]), 2);
    sumless.sum = None;
    let mut exemplified = number(times, 8.0, &[]);
    exemplified.exemplars = vec![exemplar(times, 2.0, &[("user.id", "7")])];
    let mut unsorted = histogram_point(times, &[0.5, 1.0], &[1, 1, 1]);
    unsorted.exemplars = vec![exemplar(times, 0.7, &[]), exemplar(times.after(1), 0.1, &[])];
    let mut own_le = histogram_point(times, &[0.5, 1.0], &[1, 1, 1]);
    own_le.attributes = vec![attribute("le", "mine")];
    let nameless = InstrumentationScope { version: "1".to_owned(), ..InstrumentationScope::default() };
    let mut scoped = of(CART, vec![x("nameless.scope", &[])]);
    scoped.scope_metrics[0].scope = Some(nameless);
    let named = InstrumentationScope {
        name: "lib".to_owned(),
        attributes: vec![attribute("name", "q")],
        ..InstrumentationScope::default()
    };
    let mut own_name = of(CART, vec![x("scope.attribute.name", &[])]);
    own_name.scope_metrics[0].scope = Some(named);
    let metrics = vec![
        exponential("wide.zero", CUMULATIVE, vec![thresholded]),
        exponential("sumless.exponential", CUMULATIVE, vec![sumless]),
        sum("sanitised.exemplar", "", true, CUMULATIVE, vec![exemplified]),
        histogram("unsorted.exemplars", CUMULATIVE, vec![unsorted]),
        histogram("own.le", CUMULATIVE, vec![own_le]),
    ];
    let empty = [("service.namespace", ""), ("service.name", "cart")];
    let resources = vec![of(CART, metrics), scoped, own_name, of(&empty, vec![x("empty.namespace", &[])])];
    let list = vec![
        theirs("wide.zero", "Prometheus ignores the zero threshold that OTLP has", |_, value| {
            for histogram in value[1].as_array_mut().into_iter().flatten() {
                for bucket in histogram[1].get_mut("buckets").and_then(Value::as_array_mut).into_iter().flatten() {
                    // It is the one that is closed on both sides.
                    if bucket[0] == json!(3) {
                        (bucket[1], bucket[2]) = (json!("-0.25"), json!("0.25"));
                    }
                }
            }
            true
        }),
        theirs(
            "sumless.exponential",
            "the specification drops native histograms without a sum; Prometheus makes it 0",
            nothing,
        ),
        theirs(
            "unsorted.exemplars",
            "they are given to buckets in the order in which they came, so that one is beyond its bucket",
            |labels, value| {
                let is_last = labels.get("le").is_some_and(|le| le == "1" || le == "1.0");
                if let Some(exemplars) = value.as_array_mut().filter(|_| is_last) {
                    exemplars.retain(|one| one.get("labels").is_none() || one["value"] != json!("0.1"));
                }
                true
            },
        ),
        ours(
            "unsorted.exemplars",
            "each is at its bucket; Prometheus expects them in the order of their values",
            |_, value| {
                let Some(exemplars) =
                    value.as_array_mut().filter(|all| all.iter().any(|one| one.get("labels").is_some()))
                else {
                    return true;
                };
                exemplars.retain(|exemplar| exemplar["value"] != json!("0.1"));
                !exemplars.is_empty()
            },
        ),
        theirs(
            "own.le",
            "an attribute called le is overwritten in all series; in Prometheus it stays in _sum and _count",
            |labels, _| {
                swap(labels, "le", Some("mine"), None);
                true
            },
        ),
        theirs(
            "nameless.scope",
            "Prometheus leaves out scopes without a name, versions and attributes included",
            |labels, value| {
                swap(labels, "otel_scope_version", None, Some("1"));
                without_zero(value);
                true
            },
        ),
        theirs(
            "empty.namespace",
            "an empty service.namespace counts as none; Prometheus begins the job with a slash",
            |labels, value| {
                swap(labels, "job", Some("/cart"), Some("cart"));
                without_zero(value);
                true
            },
        ),
    ];
    (resources, list)
}

/// Gauges and sums that can fall, by the letters and digits that their names begin with. They have start times in OTLP, and Prometheus puts
/// a zero there as it does for counters: a value that they never had. Through the gateway they have no start time.
pub(crate) const ZEROED: [&str; 20] = [
    "5xx",
    "berall",
    "bigint",
    "colliding",
    "deltaupdown",
    "endedgauge",
    "gaugeexemplar",
    "job:rate",
    "memutil",
    "nobody",
    "oddlabels",
    "oddvalues",
    "onlyinstance",
    "queuesize",
    "scoped",
    "scopeattribute",
    "speed",
    "systemmemory",
    "temperature",
    "typedlabels",
];

/// Where the two differ in `target_info`, which is equal in labels, values and times otherwise: a query, what it gives through the gateway, what
/// straight, and why.
pub(crate) const TARGETS: [(&str, f64, f64, &str); 3] = [
    (
        "count(target_info{job=\"moved\"})",
        1.0,
        2.0,
        "when the attributes of a resource change, the old series ends; in Prometheus it stays for five minutes, and joins find both",
    ),
    (
        "count_over_time(target_info{job=\"late\"}[1h])",
        1.0,
        5.0,
        "of points of one push that lie far apart the newest one counts; Prometheus fills the time between every 2.5 minutes",
    ),
    (
        "count_over_time(target_info{job=\"steady\"}[1h])",
        1.0,
        3.0,
        "by default again after a minute (`target_info.interval`), enough for joins; Prometheus sends it with every push",
    ),
];

/// What Prometheus says of the scrape itself.
pub(crate) fn of_the_scrape() -> Vec<Known> {
    const NAMES: [&str; 5] = [
        "up",
        "scrape_duration_seconds",
        "scrape_samples_scraped",
        "scrape_samples_post_metric_relabeling",
        "scrape_series_added",
    ];
    NAMES.map(|name| ours(name, "of the scrape", nothing)).into()
}

/// Colliding labels with equal values.
pub(crate) fn equal_values() -> Known {
    let reason = "colliding labels with equal values are not repeated, as in the Collector";
    theirs("equal.values", reason, |labels, value| {
        swap(labels, "foo_bar", Some("a;a"), Some("a"));
        without_zero(value);
        true
    })
}

/// Labels of exemplars that are escaped.
pub(crate) fn sanitised_exemplar() -> Known {
    theirs("sanitised.exemplar", "Prometheus keeps dots in the labels of exemplars", |_, value| {
        exemplar_labels(value, |labels| {
            if let Some(user) = labels.remove("user.id") {
                labels.insert("user_id".to_owned(), user);
            }
        });
        true
    })
}

/// Histograms without a sum, where others become native ones.
pub(crate) fn without_sum() -> [Known; 2] {
    const REASON: &str = "classic if there is no sum; Prometheus makes it 0";
    [theirs("sumless.duration", REASON, nothing), ours("sumless.duration", REASON, nothing)]
}
