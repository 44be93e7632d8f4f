//! Any body has an answer.

use proptest::prelude::*;
use prost::Message;

use super::prompb::*;
use crate::prometheus_remote_write::fuzzing;

/// A request of 2.0 that has everything.
fn everything() -> Request2 {
    let mut request = Request2::new();
    let labels_refs = request.refs("{trace_id=00}");
    let histogram = Histogram {
        count: 3,
        sum: 1.0,
        schema: 2,
        positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
        positive_deltas: vec![1, 1],
        negative_spans: vec![BucketSpan { offset: -3, length: 1 }],
        negative_deltas: vec![1],
        timestamp: 5,
        ..Histogram::default()
    };
    request.add("c_total{job=a/b,instance=i}", 1, &[(1.0, 2, 1)]).exemplars =
        vec![Exemplar2 { labels_refs, value: 1.0, timestamp: 1 }];
    request.add("h{job=a}", 3, &[]).histograms = vec![histogram.clone()];
    let custom = Histogram {
        schema: -53,
        custom_values: vec![1.0, 2.0],
        negative_spans: vec![],
        negative_deltas: vec![],
        ..histogram
    };
    request.add("n{otel_scope_name=s,otel_scope_x=y}", 3, &[]).histograms = vec![custom];
    request.add("target_info{job=a,k=v}", 2, &[(1.0, 2, 0)]);
    request
}

fn everything_old() -> WriteRequest {
    let mut own = series("c_total{job=a}", &[(1.0, 2)]);
    own.exemplars = vec![Exemplar { labels: labels("{trace_id=00}"), value: 1.0, timestamp: 1 }];
    let metadata = MetricMetadata { kind: 1, family: "c_total".to_owned(), help: "h".to_owned(), unit: String::new() };
    WriteRequest { timeseries: vec![own], metadata: vec![metadata] }
}

#[test]
fn the_whole_requests_are_fine() {
    fuzzing::request(&everything().encode_to_vec());
    fuzzing::request(&everything_old().encode_to_vec());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::request(&body);
    }

    #[test]
    fn a_damaged_request_has_an_answer(
        at in any::<prop::sample::Index>(),
        damage in 1u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        for mut body in [everything().encode_to_vec(), everything_old().encode_to_vec()] {
            let at = at.index(body.len());
            body[at] ^= damage;
            fuzzing::request(&body);
            body.truncate(cut.index(body.len()));
            fuzzing::request(&body);
        }
    }
}
