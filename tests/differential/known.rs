//! The differences that are meant to be, and why.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;

use super::pushes::*;
use super::support::otlp::attribute;

/// A difference that is meant to be.
pub(crate) struct Known {
    /// The beginning of the metric's name, punctuation aside.
    pub(crate) metric: &'static str,
    pub(crate) reason: &'static str,
}

pub(crate) fn known(metric: &'static str, reason: &'static str) -> Known {
    Known { metric, reason }
}

/// Fails if one of `known` was not among those `seen`: the list holds nothing that is past.
pub(crate) fn assert_all_seen(known: &[Known], seen: &BTreeSet<usize>) {
    for (index, known) in known.iter().enumerate() {
        assert!(seen.contains(&index), "no such difference any more: {} ({})", known.metric, known.reason);
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
        known("wide.zero", "Prometheus ignores the zero threshold that OTLP has"),
        known("sumless.exponential", "the specification drops native histograms without a sum; Prometheus makes it 0"),
        known("unsorted.exemplars", "each is at its bucket; Prometheus expects them in the order of their values"),
        known(
            "own.le",
            "an attribute called le is overwritten in all series; in Prometheus it stays in _sum and _count",
        ),
        known("nameless.scope", "Prometheus leaves out scopes without a name, versions and attributes included"),
        known("empty.namespace", "an empty service.namespace counts as none; Prometheus begins the job with a slash"),
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

/// What a scrape adds.
pub(crate) fn of_the_scrape() -> Vec<Known> {
    vec![
        known("up", "of the scrape"),
        known("scrape_", "of the scrape"),
        known("nobody", "the scraper fills in job and instance"),
        known("only.instance", "the scraper fills in job and instance"),
        known("visits", "the scraper fills in the instance"),
        known("target_info", "the scraper fills in job or instance"),
    ]
}

/// Exponential histograms in `common`, and why a text page does not have them.
pub(crate) fn without_native_histograms() -> Vec<Known> {
    const NAMES: [&str; 10] = [
        "both.forms",
        "bytes.sent",
        "down.scaled",
        "high.scale",
        "both.signs",
        "only.zeros",
        "nothing.yet",
        "exemplified.bytes",
        "delta.bytes",
        "many",
    ];
    NAMES.map(|name| known(name, "the text formats have no native histograms")).into()
}
