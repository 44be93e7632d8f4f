//! The recorded requests, the limits, and the properties of `fuzzing` on generated input.

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::batch::Signal;

fn recorded() -> Vec<(String, Signal, Bytes)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/otlp");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let signal = if name.contains("traces") { Signal::Traces } else { Signal::Metrics };
            (name, signal, std::fs::read(path).unwrap().into())
        })
        .collect();
    found.sort();
    assert!(found.len() > 10);
    found
}

/// What the SDKs and the Collector really send is accepted and shown as prost decodes it.
#[test]
fn recorded_requests_read_as_prost_reads_them() {
    for (name, signal, bytes) in recorded() {
        let checked = check(signal, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(checked.items > 0 && checked.invalid_ids == 0 && !checked.split_values, "{name}: {checked:?}");
        fuzzing::compare(signal, &bytes);
        fuzzing::reshape(&[&[0, 1, 2, 3], &bytes[..]].concat());
        fuzzing::reshape(&[&[41, 7, 1, 0], &bytes[..]].concat());
    }
}

/// A recorded request that is cut off anywhere, or has any one byte changed, is decided on as
/// prost decides.
#[test]
fn damaged_recordings_are_judged_as_prost_judges_them() {
    for (_, signal, bytes) in recorded() {
        let step = 1 + bytes.len() / 60;
        for at in (0..bytes.len()).step_by(step) {
            fuzzing::compare(signal, &bytes[..at]);
            for damage in [0x01, 0x08, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= damage;
                fuzzing::compare(signal, &damaged);
            }
        }
    }
}

/// The fuzz targets' bodies on seeded random input: what CI runs where there is no fuzzer.
#[test]
fn seeded_run_of_the_fuzz_targets() {
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut data = vec![0; 1 + seed as usize % 2_000];
        random.fill_bytes(&mut data);
        for signal in Signal::ALL {
            fuzzing::check_and_views(signal, &data);
        }
        fuzzing::reshape(&data);
    }
}

/// The generator is worth its name only if most of what it makes is accepted and has items.
#[test]
fn generated_requests_are_mostly_acceptable() {
    for signal in Signal::ALL {
        let (mut accepted, mut items, mut split) = (0, 0, 0);
        for seed in 0..300 {
            let mut data = vec![0; 1_500];
            StdRng::seed_from_u64(seed).fill_bytes(&mut data);
            let request = fuzzing::generate(signal, &mut fuzzing::Entropy::new(&data));
            let Ok(checked) = check(signal, &request) else { continue };
            accepted += 1;
            items += checked.items;
            split += usize::from(checked.split_values);
        }
        assert!(accepted > 270 && items > 1_500 && split > 10, "{signal:?}: {accepted}, {items}, {split}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn check_and_views_agree_with_prost(data in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        for signal in Signal::ALL {
            fuzzing::check_and_views(signal, &data);
        }
    }

    #[test]
    fn reshaping_bytes_is_reshaping_the_message(data in proptest::collection::vec(any::<u8>(), 0..1_500)) {
        fuzzing::reshape(&data);
    }

    #[test]
    fn a_key_set_finds_what_a_list_finds(
        keys in proptest::collection::vec("[a-c.]{0,12}", 0..40),
        asked in proptest::collection::vec("[a-c.]{0,12}", 0..100),
    ) {
        let set = KeySet::new(&keys);
        prop_assert_eq!(set.len(), keys.len());
        for key in asked.iter().chain(&keys) {
            prop_assert_eq!(set.index_of(key.as_bytes()), keys.iter().position(|known| known == key));
        }
    }
}

/// A request of one span with one attribute of this value.
fn with_value(value: &[u8]) -> Vec<u8> {
    let mut request = value.to_vec();
    // KeyValue.value, Span.attributes, ScopeSpans.spans, ResourceSpans.scope_spans, request.
    for number in [2, 9, 2, 2, 1] {
        request = wrapped(number, &request);
    }
    request
}

fn wrapped(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_len_field(&mut out, number, content);
    out
}

/// Values may nest 32 deep, in arrays and in lists, and not deeper.
#[test]
fn value_depth_is_limited() {
    for depth in 1..=60 {
        // Each step: AnyValue { array_value { values: this } }.
        let array = (1..depth).fold(wrapped(1, b"x"), |value, _| wrapped(5, &wrapped(1, &value)));
        // Each step: AnyValue { kvlist_value { values { value: this } } }.
        let list = (1..depth).fold(wrapped(1, b"x"), |value, _| wrapped(6, &wrapped(1, &wrapped(2, &value))));
        for request in [with_value(&array), with_value(&list)] {
            fuzzing::compare(Signal::Traces, &request);
            let checked = check(Signal::Traces, &request);
            if depth > 32 {
                assert!(
                    matches!(checked, Err(CheckError::ValueDepth | CheckError::Depth { .. })),
                    "{depth} {checked:?}"
                );
            }
        }
        assert_eq!(check(Signal::Traces, &with_value(&array)).is_ok(), depth <= 32, "{depth}");
        // Lists use three levels of messages each: prost's limit of 100 comes first, just.
        assert_eq!(check(Signal::Traces, &with_value(&list)).is_ok(), depth <= 32, "{depth}");
    }
}

/// Unknown fields and groups at every depth that messages can reach: as prost has it.
#[test]
fn groups_nest_as_deep_as_in_prost() {
    for groups in 0..110 {
        let start = [0xfb, 0x01].repeat(groups);
        let end = [0xfc, 0x01].repeat(groups);
        for inner in [&[][..], &[0xf8, 0x01, 0x05], &[0xfa, 0x01, 0x00]] {
            let nested = [&start, inner, &end].concat();
            fuzzing::compare(Signal::Traces, &nested);
            fuzzing::compare(Signal::Traces, &with_value(&nested));
            for lists in [20, 28, 30, 31] {
                let value = (0..lists).fold(nested.clone(), |value, _| wrapped(6, &wrapped(1, &wrapped(2, &value))));
                fuzzing::compare(Signal::Logs, &with_value(&value));
                fuzzing::compare(Signal::Traces, &with_value(&value));
            }
        }
    }
}

/// Refusals name the field and what is wrong with it.
#[test]
fn refusals_are_for_people() {
    let span_name = wrapped(1, &wrapped(2, &wrapped(2, &wrapped(5, b"\xff"))));
    let error = check(Signal::Traces, &span_name).unwrap_err();
    assert_eq!(error.to_string(), "Span.name is not valid UTF-8");

    let span_time = wrapped(1, &wrapped(2, &wrapped(2, &wrapped(7, b""))));
    let error = check(Signal::Traces, &span_time).unwrap_err();
    assert_eq!(error.to_string(), "Span: field 7 has wire type 2, which is not its own");

    let error = check(Signal::Logs, &[0x0a, 5, 0]).unwrap_err();
    assert_eq!(error.to_string(), "ExportLogsServiceRequest: message ends inside a field");
}

/// Without validity of ids there is nothing to do; with one invalid span, only it goes.
#[test]
fn only_spans_with_invalid_ids_are_removed() {
    let span = |trace_id: &[u8], span_id: &[u8]| [wrapped(1, trace_id), wrapped(2, span_id)].concat();
    let spans = [span(&[1; 16], &[1; 8]), span(&[0; 16], &[1; 8]), span(&[1; 16], &[2; 7]), span(&[2; 16], &[3; 8])];
    let scope: Vec<u8> = spans.iter().flat_map(|span| wrapped(2, span)).collect();
    let request: Bytes = wrapped(1, &wrapped(2, &scope)).into();
    let checked = check(Signal::Traces, &request).unwrap();
    assert_eq!((checked.items, checked.invalid_ids), (4, 2));
    let (valid, left) = without_invalid_ids(&request);
    assert_eq!(left, 2);
    let scope = [wrapped(2, &spans[0]), wrapped(2, &spans[3])].concat();
    assert_eq!(valid, wrapped(1, &wrapped(2, &scope)));
}

/// Trace ids are read at the edge of their spans where the check found them there, however they are written.
#[test]
fn trace_ids_at_the_edge_are_found() {
    let (id, other, span_id) = (wrapped(1, &[7; 16]), wrapped(1, &[8; 16]), wrapped(2, &[1; 8]));
    // What is not the shortest spelling: the length in two bytes, the key in two.
    let long_length = [&[0x0a, 0x90, 0x00][..], &[7; 16]].concat();
    let long_key = [&[0x8a, 0x00, 0x10][..], &[7; 16]].concat();
    // A name that ends as if it were a trace id.
    let decoy = wrapped(5, &other);
    let empty = wrapped(1, &[]);
    let cases: [(&[&[u8]], bool); 11] = [
        (&[&id, &span_id], true),
        (&[&span_id, &id], true),
        (&[&id, &span_id, &decoy], true),
        (&[&span_id, &decoy, &id], true),
        (&[&long_length, &span_id, &decoy], true),
        (&[&span_id, &long_length], true),
        (&[&span_id, &long_key], true),
        (&[&empty, &span_id, &id], true),
        (&[&long_key, &span_id, &decoy], false),
        (&[&span_id, &id, &decoy], false),
        (&[&other, &span_id, &id], false),
    ];
    for (index, (fields, at_edge)) in cases.into_iter().enumerate() {
        let span = fields.concat();
        let request = wrapped(1, &wrapped(2, &wrapped(2, &span)));
        let checked = check(Signal::Traces, &request).unwrap();
        assert_eq!((checked.invalid_ids, checked.inner_ids), (0, !at_edge), "case {index}");
        assert_eq!(SpanView::new(&span).trace_id(), [7; 16], "case {index}");
        if at_edge {
            assert_eq!(SpanView::new(&span).edge_trace_id(), [7; 16], "case {index}");
        }
    }
}
