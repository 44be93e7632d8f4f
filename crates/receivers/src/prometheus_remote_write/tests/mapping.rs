//! Series in, points out.

use prost::Message;

use super::prompb::*;
use crate::prometheus::model::STALE;
use crate::prometheus_remote_write::decode::{Request, Version};
use crate::prometheus_remote_write::infos::Infos;
use crate::prometheus_remote_write::metadata::Families;
use crate::prometheus_remote_write::translate::{Outcome, translate};
use crate::shown::{points, scopes};

const T: i64 = 1_700_000_000_000;
const ID: &str = "service.namespace=shop,service.name=cart,service.instance.id=i-1";
const COUNTER: i32 = 1;
const GAUGE: i32 = 2;
const HISTOGRAM: i32 = 3;
const SUMMARY: i32 = 5;
const INFO: i32 = 6;

/// A receiver that remembers.
#[derive(Default)]
struct Rig {
    families: Families,
    infos: Infos,
}

impl Rig {
    fn translate(&self, version: Version, body: &[u8]) -> Outcome {
        let request = Request::new(version, body).expect("a request");
        self.families.learn(request.metadata());
        translate(&request, &self.families, &self.infos, 1 << 20).expect("within the budget")
    }

    fn v1(&self, request: &WriteRequest) -> Outcome {
        self.translate(Version::V1, &request.encode_to_vec())
    }

    fn v2(&self, request: &Request2) -> Outcome {
        self.translate(Version::V2, &request.encode_to_vec())
    }
}

/// The points of `outcome`, of which all are of the resource `ID`.
fn of_cart(outcome: &Outcome) -> Vec<String> {
    assert_eq!((outcome.rejected, outcome.complaints.as_slice()), (0, [].as_slice()));
    let lines = points(&outcome.data);
    assert_eq!(lines.len(), outcome.points);
    lines.iter().map(|line| line.strip_prefix(&format!("{ID} | ")).expect(line).to_owned()).collect()
}

#[test]
fn types_come_from_metadata() {
    let mut request = Request2::new();
    request.add(
        "http_requests_total{instance=i-1,job=shop/cart,code=200}",
        COUNTER,
        &[(7.0, T, T - 5000), (8.0, T + 1000, T - 5000)],
    );
    request.add("temperature{instance=i-1,job=shop/cart}", GAUGE, &[(-1.5, T, 0)]);
    request.add("h_bucket{instance=i-1,job=shop/cart,le=0.5}", HISTOGRAM, &[(3.0, T, T - 5000)]);
    request.add("h_count{instance=i-1,job=shop/cart}", HISTOGRAM, &[(3.0, T, 0)]);
    request.add("s{instance=i-1,job=shop/cart,quantile=0.5}", SUMMARY, &[(1.0, T, 0)]);
    request.add("s_sum{instance=i-1,job=shop/cart}", SUMMARY, &[(2.0, T, 0)]);
    request.add("build_info{instance=i-1,job=shop/cart}", INFO, &[(1.0, T, 0)]);
    request.add("what{instance=i-1,job=shop/cart}", 0, &[(1.0, T, 0)]);
    let outcome = Rig::default().v2(&request);
    let expected = [
        "counter h_bucket{le=0.5} 3 from 1699999995000 @1700000000000",
        "counter h_count{} 3 @1700000000000",
        "counter http_requests_total{code=200} 7 from 1699999995000 @1700000000000",
        "counter http_requests_total{code=200} 8 from 1699999995000 @1700000001000",
        "counter s_sum{} 2 @1700000000000",
        "gauge s{quantile=0.5} 1 @1700000000000",
        "gauge temperature{} -1.5 @1700000000000",
        "gauge what{} 1 @1700000000000",
        "sum build_info{} 1 @1700000000000",
    ];
    assert_eq!(of_cart(&outcome), expected);
    assert_eq!((outcome.samples, outcome.histograms, outcome.exemplars), (9, 0, 0));
    let scope = format!(
        "github.com/nyquist-telemetry/nyquist/receiver/prometheus_remote_write {}  ",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(scopes(&outcome.data), [scope]);
}

#[test]
fn without_metadata_names_decide_until_a_sender_says_more() {
    let rig = Rig::default();
    let write = || WriteRequest {
        timeseries: vec![
            series("a_total{instance=i-1,job=shop/cart}", &[(1.0, T)]),
            series("b_bucket{instance=i-1,job=shop/cart,le=1}", &[(1.0, T)]),
            series("b_count{instance=i-1,job=shop/cart}", &[(1.0, T)]),
            series("c{instance=i-1,job=shop/cart}", &[(1.0, T)]),
        ],
        metadata: Vec::new(),
    };
    let shapes = |outcome: &Outcome| {
        let lines = of_cart(outcome);
        lines.iter().map(|line| line.split(['{', '[']).next().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&rig.v1(&write())), ["counter a_total", "counter b_bucket", "counter b_count", "gauge c"]);
    let describe = |family: &str, kind: i32| MetricMetadata {
        kind,
        family: family.to_owned(),
        help: "Help.".to_owned(),
        unit: String::new(),
    };
    let told = WriteRequest {
        timeseries: Vec::new(),
        metadata: vec![describe("a_total", GAUGE), describe("b", HISTOGRAM), describe("c", COUNTER)],
    };
    assert_eq!(rig.v1(&told).points, 0);
    let outcome = rig.v1(&write());
    assert_eq!(shapes(&outcome), ["counter b_bucket", "counter b_count", "counter c", "gauge a_total"]);
    let metrics = &outcome.data.resource_metrics[0].scope_metrics[0].metrics;
    assert!(metrics.iter().all(|metric| metric.description == "Help."));
}

/// Scenario: 1.0, and the parts of a histogram and of a summary in requests of their own, without metadata. Guarantee:
/// they count once a series has shown what the family is, and what senders say goes first.
#[test]
fn labels_show_what_a_family_is() {
    let rig = Rig::default();
    let kinds = |name: &str| {
        let timeseries = [name, "_sum", "_count"].map(|own| match own.strip_prefix('_') {
            Some(suffix) => format!("{}_{suffix}", name.split(['_', '{']).next().expect("a name")),
            None => own.to_owned(),
        });
        timeseries.map(|name| {
            let request = WriteRequest { timeseries: vec![series(&name, &[(1.0, T)])], metadata: Vec::new() };
            let line = points(&rig.v1(&request).data).remove(0);
            line.trim_start_matches(" | ").split(['{', '[']).next().expect("a name").to_owned()
        })
    };
    assert_eq!(kinds("h"), ["gauge h", "gauge h_sum", "gauge h_count"]);
    assert_eq!(kinds("h_bucket"), ["gauge h_bucket", "gauge h_sum", "gauge h_count"], "no bucket without a bound");
    assert_eq!(kinds("h_bucket{le=1}"), ["counter h_bucket", "counter h_sum", "counter h_count"]);
    assert_eq!(kinds("s{quantile=0.5}"), ["gauge s", "counter s_sum", "counter s_count"]);
    let said = MetricMetadata { kind: GAUGE, family: "g".to_owned(), help: String::new(), unit: String::new() };
    rig.v1(&WriteRequest { timeseries: Vec::new(), metadata: vec![said] });
    assert_eq!(kinds("g_bucket{le=1}"), ["gauge g_bucket", "gauge g_sum", "gauge g_count"]);
}

#[test]
fn exemplars_find_their_series_wherever_they_stand() {
    let mut request = Request2::new();
    let labels_refs = request.refs("{trace_id=000102030405060708090a0b0c0d0e0f,k=v}");
    let exemplar = Exemplar2 { labels_refs, value: 0.5, timestamp: T - 1 };
    // As Prometheus sends them: in series of their own.
    request.add("c_total{instance=i-1,job=shop/cart}", COUNTER, &[]).exemplars = vec![exemplar.clone()];
    request.add("c_total{instance=i-1,job=shop/cart}", COUNTER, &[(1.0, T, 0)]);
    request.add("d_total{instance=i-1,job=shop/cart}", COUNTER, &[]).exemplars = vec![exemplar];
    let outcome = Rig::default().v2(&request);
    let expected = ["counter c_total{} 1 # 000102030405060708090a0b0c0d0e0f  k=v 0.5@1699999999999 @1700000000000"];
    assert_eq!(of_cart(&outcome), expected);
    assert_eq!((outcome.exemplars, outcome.lost_exemplars), (1, 1));
}

fn spans(spans: &[(i32, u32)]) -> Vec<BucketSpan> {
    spans.iter().map(|&(offset, length)| BucketSpan { offset, length }).collect()
}

/// The specification's example: offset 3, counts 10,0,0,20,5,2.
fn native() -> Histogram {
    Histogram {
        count: 40,
        sum: 9.0,
        schema: 3,
        zero_threshold: 1e-128,
        zero_count: 3,
        positive_spans: spans(&[(4, 1), (2, 3)]),
        positive_deltas: vec![10, 10, -15, -3],
        timestamp: T,
        ..Histogram::default()
    }
}

#[test]
fn native_histograms_become_exponential_ones() {
    let mut request = Request2::new();
    let mut both = native();
    both.negative_spans = spans(&[(-1, 2)]);
    both.negative_deltas = vec![1, 1];
    both.start = T - 1000;
    request.add("h{instance=i-1,job=shop/cart}", HISTOGRAM, &[]).histograms = vec![both];
    let outcome = Rig::default().v2(&request);
    let zero = 1e-128;
    let expected = format!(
        "exponential h{{}} scale=3 zero=3<{zero} +3:[10, 0, 0, 20, 5, 2] --2:[1, 2] count=40 sum=Some(9.0) \
         from 1699999999000 @1700000000000"
    );
    assert_eq!(of_cart(&outcome), [expected]);
    assert_eq!((outcome.samples, outcome.histograms), (0, 1));
    let old = WriteRequest {
        timeseries: vec![TimeSeries {
            labels: labels("h{instance=i-1,job=shop/cart}"),
            histograms: vec![native()],
            ..TimeSeries::default()
        }],
        ..WriteRequest::default()
    };
    assert_eq!(Rig::default().v1(&old).histograms, 1);
}

#[test]
fn histograms_with_bounds_of_their_own_become_explicit_ones() {
    let mut request = Request2::new();
    request.add("h{instance=i-1,job=shop/cart}", HISTOGRAM, &[]).histograms = vec![Histogram {
        count: 37,
        sum: 9.0,
        schema: -53,
        positive_spans: spans(&[(0, 1), (2, 3)]),
        positive_deltas: vec![10, 10, -15, -3],
        custom_values: vec![-2.0, -1.0, 0.0, 1.0, 2.0],
        timestamp: T,
        ..Histogram::default()
    }];
    let expected =
        ["histogram h{} [-2.0, -1.0, 0.0, 1.0, 2.0] [10, 0, 0, 20, 5, 2] count=37 sum=Some(9.0) @1700000000000"];
    assert_eq!(of_cart(&Rig::default().v2(&request)), expected);
}

#[test]
fn wide_histograms_are_merged_and_lose_no_count() {
    let mut request = Request2::new();
    let wide =
        Histogram { positive_spans: spans(&[(-100_000, 1), (300_000, 1)]), positive_deltas: vec![7, -2], ..native() };
    request.add("h{instance=i-1,job=shop/cart}", HISTOGRAM, &[]).histograms = vec![wide];
    let outcome = Rig::default().v2(&request);
    let line = of_cart(&outcome).remove(0);
    assert!(line.contains("scale=-4 ") && line.contains("[7, 0, ") && line.contains(", 0, 5]"), "{line}");
}

#[test]
fn stale_samples_end_their_series() {
    let mut request = Request2::new();
    let stale = f64::from_bits(STALE);
    request.add("c_total{instance=i-1,job=shop/cart}", COUNTER, &[(1.0, T, 0), (stale, T + 1000, 0)]);
    request.add("g{instance=i-1,job=shop/cart}", GAUGE, &[(f64::NAN, T, 0)]);
    request.add("h{instance=i-1,job=shop/cart}", HISTOGRAM, &[]).histograms =
        vec![Histogram { sum: stale, timestamp: T, ..Histogram::default() }];
    let expected = [
        "counter c_total{} 1 @1700000000000",
        "counter c_total{} ended @1700000001000",
        "exponential h{} ended @1700000000000",
        "gauge g{} NaN @1700000000000",
    ];
    assert_eq!(of_cart(&Rig::default().v2(&request)), expected);
}

#[test]
fn target_info_describes_resources_of_later_requests_too() {
    let rig = Rig::default();
    let mut first = Request2::new();
    first.add("target_info{host_name=h1,instance=i-1,job=shop/cart}", GAUGE, &[(1.0, T, 0)]);
    let outcome = rig.v2(&first);
    assert_eq!((outcome.points, outcome.samples), (0, 1));
    let mut second = Request2::new();
    second.add("a{instance=i-1,job=shop/cart}", GAUGE, &[(1.0, T, 0)]);
    second.add("a{instance=i-2,job=cart}", GAUGE, &[(1.0, T, 0)]);
    second.add("b", GAUGE, &[(1.0, T, 0)]);
    let expected = [
        " | gauge b{} 1 @1700000000000".to_owned(),
        "service.name=cart,service.instance.id=i-2 | gauge a{} 1 @1700000000000".to_owned(),
        format!("{ID},host_name=h1 | gauge a{{}} 1 @1700000000000"),
    ];
    assert_eq!(points(&rig.v2(&second).data), expected);
}

#[test]
fn what_is_wrong_with_one_series_does_not_touch_its_neighbours() {
    let mut request = Request2::new();
    request.add("good{instance=i-1,job=shop/cart}", GAUGE, &[(1.0, T, 0)]);
    request.add("{a=b}", GAUGE, &[(1.0, T, 0)]);
    request.add("odd{a=b}", GAUGE, &[(1.0, T, 0)]).labels_refs.pop();
    request.add("far{a=b}", GAUGE, &[(1.0, T, 0)]).labels_refs = vec![0, 99];
    request.add("twice{a=b,a=c}", GAUGE, &[(1.0, T, 0)]);
    request.add("empty{a=b}", GAUGE, &[]);
    request.add("both{a=b}", GAUGE, &[(1.0, T, 0)]).histograms = vec![native()];
    let mut bad = |change: fn(&mut Histogram)| {
        let mut histogram = native();
        change(&mut histogram);
        request.add("native{a=b}", HISTOGRAM, &[]).histograms = vec![histogram];
    };
    bad(|histogram| histogram.count_float = Some(1.5));
    bad(|histogram| histogram.reset_hint = 3);
    bad(|histogram| histogram.schema = 9);
    let outcome = Rig::default().v2(&request);
    assert_eq!((outcome.samples, outcome.histograms, outcome.rejected), (1, 1, 9));
    let told = outcome.complaints.join("\n");
    for complaint in [
        "series {a=\"b\"}: there is no metric name",
        "a label's name without a value",
        "a reference to symbol 99",
        "label \"a\" is there twice",
        "series {__name__=\"empty\", a=\"b\"}: there is neither a sample nor a histogram",
        "both samples and histograms",
        "counts that are no integers",
        "a native gauge histogram is not supported",
        "the unknown schema 9",
    ] {
        assert!(told.contains(complaint), "{complaint}: {told}");
    }
    let mut request = Request2::new();
    let mut bad = |change: fn(&mut Histogram)| {
        let mut histogram = native();
        change(&mut histogram);
        request.add("native{a=b}", HISTOGRAM, &[]).histograms = vec![histogram];
    };
    bad(|histogram| histogram.positive_deltas.push(1));
    bad(|histogram| histogram.positive_deltas = vec![-1, 0, 0, 0]);
    bad(|histogram| histogram.positive_spans[1].offset = -1);
    let outcome = Rig::default().v2(&request);
    assert_eq!((outcome.points, outcome.rejected), (0, 3));
}

#[test]
fn a_request_that_comes_to_too_much_is_refused() {
    let mut request = Request2::new();
    let long = "x".repeat(10_000);
    for n in 0..200 {
        request.add(&format!("a{{n={n},b={long}}}"), GAUGE, &[(1.0, T, 0)]);
    }
    let body = request.encode_to_vec();
    assert!(body.len() < 100_000);
    let read = Request::new(Version::V2, &body).expect("a request");
    assert!(translate(&read, &Families::default(), &Infos::default(), 1 << 20).is_err());
}
