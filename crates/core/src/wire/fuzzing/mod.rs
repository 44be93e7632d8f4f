//! What holds for every input: the bodies of the fuzz targets, which ordinary tests run too.
//!
//! The model is prost: whatever bytes come, the check decides as prost's decoder does, the views
//! show what the decoded message holds, and reshaping bytes is reshaping the message. Panics are
//! findings.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzz body reports")]

mod generate;
mod model;
mod reshape;

pub use generate::{Entropy, generate, mutate, value_depth};
pub use reshape::reshape;

use super::common::len_fields;
use super::{CheckError, SpanView, check, join_split_values};
use crate::batch::Signal;
use crate::proto::logs::v1::LogsData;
use crate::proto::metrics::v1::MetricsData;
use crate::proto::trace::v1::TracesData;

/// The check and the views against prost, on `data` as it is, on a request generated from it, and
/// on that request damaged.
pub fn check_and_views(signal: Signal, data: &[u8]) {
    compare(signal, data);
    let (for_request, for_damage) = data.split_at(data.len() - data.len().min(16));
    let request = generate(signal, &mut Entropy::new(for_request));
    compare(signal, &request);
    compare(signal, &mutate(request, &mut Entropy::new(for_damage)));
}

/// The check and the views against prost, on `bytes`.
pub fn compare(signal: Signal, bytes: &[u8]) {
    match signal {
        Signal::Traces => compare_as::<TracesData>(signal, bytes),
        Signal::Metrics => compare_as::<MetricsData>(signal, bytes),
        Signal::Logs => compare_as::<LogsData>(signal, bytes),
    }
}

fn compare_as<M: model::Model>(signal: Signal, bytes: &[u8]) {
    let decoded = M::decode(bytes);
    let checked = check(signal, bytes);
    let (mut decoded, checked) = match (decoded, checked) {
        (Ok(decoded), Ok(checked)) => (decoded, checked),
        (Err(_), Err(_)) => return,
        (Ok(decoded), Err(CheckError::ValueDepth)) => {
            // Values that were replaced are nested too, so the message alone is no proof.
            let depth = value_depth(signal, bytes);
            assert!(depth > 32, "refused as too deep, but has depth {depth}: {decoded:?}");
            return;
        }
        (Ok(decoded), Err(error)) => panic!("prost accepts, the check does not: {error}\n{decoded:?}"),
        (Err(error), Ok(checked)) => panic!("the check accepts ({checked:?}), prost does not: {error}"),
    };
    assert_eq!(checked.items, decoded.items(), "items of {decoded:?}");
    assert_eq!(checked.invalid_ids, decoded.invalid_ids(), "invalid ids of {decoded:?}");
    if signal == Signal::Traces && checked.invalid_ids == 0 && !checked.inner_ids {
        assert_edge_ids(bytes);
    }
    if checked.split_values {
        let joined = join_split_values(signal, &bytes.to_vec().into());
        let again = M::decode(joined.clone()).expect("joining keeps a request decodable");
        assert_eq!(again.encode_to_vec(), decoded.encode_to_vec(), "joined {again:?}");
        let checked_again = check(signal, &joined).expect("joining keeps a request acceptable");
        assert!(!checked_again.split_values);
        assert_eq!(checked_again.items, checked.items);
        assert_eq!(checked_again.invalid_ids, checked.invalid_ids);
        assert_views(&joined, &mut decoded);
    } else {
        assert_views(bytes, &mut decoded);
    }
}

/// What is read at the edge of each span is its trace id.
fn assert_edge_ids(bytes: &[u8]) {
    let scopes = len_fields(bytes, 1).flat_map(|resource| len_fields(resource, 2));
    for span in scopes.flat_map(|scope| len_fields(scope, 2)).map(SpanView::new) {
        assert_eq!(span.edge_trace_id(), span.trace_id(), "of {span:?}");
    }
}

fn assert_views<M: model::Model>(bytes: &[u8], decoded: &mut M) {
    let viewed = M::through_views(bytes);
    decoded.forget_what_views_lack();
    // Encoded, so that NaN equals NaN.
    assert!(viewed.encode_to_vec() == decoded.encode_to_vec(), "views show {viewed:?}\nprost decodes {decoded:?}");
}
