//! Pages of protobuf messages in, points out.

use prost::Message;

use super::round::Tally;
use super::series::Series;
use super::*;
use crate::prometheus::exposition::protobuf::{self, Natives};
use crate::prometheus::fuzzing;
use crate::shown::points;

#[derive(Clone, PartialEq, prost::Message)]
struct Family {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metrics: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Pair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Simple>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Simple>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(int64, tag = "6")]
    timestamp: i64,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Simple {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Pair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Summary {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    quantiles: Vec<Quantile>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    sum: f64,
    #[prost(message, repeated, tag = "3")]
    buckets: Vec<Bucket>,
    #[prost(double, tag = "4")]
    count_float: f64,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "13")]
    deltas: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    created: Option<Timestamp>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bucket {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(double, tag = "2")]
    bound: f64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

fn family(name: &str, kind: i32, metric: Metric) -> Family {
    let help = "Help.".to_owned();
    Family { name: name.to_owned(), help, kind, metrics: vec![metric], unit: String::new() }
}

fn page(families: &[Family]) -> Vec<u8> {
    families.iter().flat_map(|family| family.encode_length_delimited_to_vec()).collect()
}

fn everything() -> Vec<u8> {
    let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
    let created = Some(Timestamp { seconds: 1_699_999_000, nanos: 500_000_000 });
    let exemplar = Exemplar {
        labels: vec![pair("trace_id", "0af7")],
        value: 0.5,
        timestamp: Some(Timestamp { seconds: 1_699_999_999, nanos: 0 }),
    };
    let counter = Simple { value: 17.0, exemplar: Some(exemplar.clone()), created: created.clone() };
    let summary = Summary { count: 4, sum: 3.0, quantiles: vec![Quantile { quantile: 0.5, value: 1.0 }] };
    let histogram = Histogram {
        count: 40,
        sum: 9.0,
        buckets: vec![Bucket { count: 10, bound: 0.5 }, Bucket { count: 38, bound: 1.0 }],
        schema: 3,
        zero_threshold: 0.25,
        zero_count: 3,
        spans: vec![Span { offset: 4, length: 1 }, Span { offset: 2, length: 3 }],
        deltas: vec![10, 10, -15, -3],
        created,
        exemplars: vec![exemplar],
        ..Histogram::default()
    };
    let classic = Histogram {
        count: 2,
        sum: 1.0,
        buckets: vec![Bucket { count: 2, bound: f64::INFINITY }],
        ..Histogram::default()
    };
    let gauge = Some(Simple { value: -1.5, ..Simple::default() });
    page(&[
        family(
            "c_total",
            0,
            Metric { labels: vec![pair("b", "2"), pair("a", "1")], counter: Some(counter), ..Metric::default() },
        ),
        family("g", 1, Metric { gauge, timestamp: 1_699_999_999_999, ..Metric::default() }),
        family("s", 2, Metric { summary: Some(summary), ..Metric::default() }),
        family("h", 4, Metric { histogram: Some(histogram), ..Metric::default() }),
        family("k", 4, Metric { histogram: Some(classic), ..Metric::default() }),
    ])
}

/// The points of a page, what was counted, and the error if there is one.
fn scraped(page: &[u8], natives: Natives) -> (Vec<String>, Tally, Option<String>) {
    let settings = Settings { natives, honor_timestamps: true, ..Settings::default() };
    let mut series = Series::default();
    let mut round = Round::new(&settings, &mut series, 1_700_000_000_000);
    let mut parser = protobuf::Parser::new(page, natives);
    let mut labels = Labels::default();
    let mut error = None;
    loop {
        match parser.next(&mut labels) {
            Ok(None) => break,
            Ok(Some(entry)) => round.take(entry, &mut labels).expect("no limits"),
            Err(found) => {
                error = Some(found);
                break;
            }
        }
    }
    let tally = round.tally();
    (points(&round.finish().0), tally, error)
}

const CLASSIC: &str =
    " | histogram h{} [0.5, 1.0] [10, 28, 2] count=40 sum=Some(9.0) from 1699999000500 @1700000000000";
const NATIVE: &str = " | exponential h{} scale=3 zero=3<0.25 +3:[10, 0, 0, 20, 5, 2] - count=40 sum=Some(9.0) \
                      # 00000000000000000000000000000af7   0.5@1699999999000 from 1699999000500 @1700000000000";
const OTHERS: [&str; 4] = [
    " | counter c_total{a=1,b=2} 17 # 00000000000000000000000000000af7   0.5@1699999999000 from 1699999000500 @1700000000000",
    " | gauge g{} -1.5 @1699999999999",
    " | histogram k{} [] [2] count=2 sum=Some(1.0) from 1700000000000 @1700000000000",
    " | summary s{} 0.5=1 count=4 sum=3 from 1700000000000 @1700000000000",
];

#[test]
fn every_type_is_read_and_native_histograms_where_they_are_asked_for() {
    for (natives, histograms, samples) in [
        (Natives::Ignored, vec![CLASSIC], 13),
        (Natives::Instead, vec![NATIVE], 9),
        (Natives::Beside, vec![CLASSIC, NATIVE], 14),
    ] {
        let mut expected = [OTHERS.as_slice(), &histograms].concat();
        expected.sort_unstable();
        let (points, tally, error) = scraped(&everything(), natives);
        assert_eq!((points.iter().map(String::as_str).collect::<Vec<_>>(), error), (expected, None));
        assert_eq!((tally.scraped, tally.bad), (samples, 0), "{natives:?}");
    }
}

#[test]
fn broken_pages_are_refused() {
    let good = everything();
    let cut = good.get(..good.len() - 1).expect("shorter");
    assert_eq!(scraped(cut, Natives::Instead).2.as_deref(), Some("the page ends inside of a family"));
    assert_eq!(scraped(b"\xff", Natives::Instead).2.as_deref(), Some("a family without its length"));
    assert_eq!(scraped(b"\x02\x18\x01", Natives::Instead).2.as_deref(), Some("a family without a name"));
    let float = Histogram { count_float: 1.5, zero_threshold: 1.0, ..Histogram::default() };
    let page = page(&[family("h", 4, Metric { histogram: Some(float), ..Metric::default() })]);
    let (points, tally, _) = scraped(&page, Natives::Instead);
    assert_eq!((points.len(), tally.bad), (0, 1), "counts that are no integers");
}

#[test]
fn gauge_histograms_are_gauges() {
    let mut histogram = Histogram { count: 2, sum: 1.0, zero_threshold: 1.0, ..Histogram::default() };
    let with = |histogram: &Histogram| {
        page(&[family("h", 5, Metric { histogram: Some(histogram.clone()), ..Metric::default() })])
    };
    let (lines, tally, _) = scraped(&with(&histogram), Natives::Instead);
    assert_eq!((lines.len(), tally.bad), (0, 1), "a native one");
    histogram.buckets = vec![Bucket { count: 2, bound: 1.0 }];
    let (lines, tally, _) = scraped(&with(&histogram), Natives::Instead);
    let expected = [
        " | gauge h_bucket{le=+Inf} 2 @1700000000000",
        " | gauge h_bucket{le=1.0} 2 @1700000000000",
        " | gauge h_count{} 2 @1700000000000",
        " | gauge h_sum{} 1 @1700000000000",
    ];
    assert_eq!((lines, tally.bad), (expected.map(str::to_owned).to_vec(), 0));
}

mod damaged {
    use proptest::prelude::*;

    use super::{everything, fuzzing};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn pages_have_an_answer(at in any::<prop::sample::Index>(), damage in 1u8.., cut in any::<prop::sample::Index>()) {
            let mut page = everything();
            let at = at.index(page.len());
            page[at] ^= damage;
            fuzzing::exposition(&page);
            page.truncate(cut.index(page.len()));
            fuzzing::exposition(&page);
        }
    }
}
