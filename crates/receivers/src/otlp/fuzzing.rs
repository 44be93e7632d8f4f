//! What holds for every input: the body of the fuzz target for OTLP/JSON, which ordinary tests run too. Panics
//! are findings.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::otlp_json;
use nyquist_core::wire::fuzzing::{Entropy, generate, mutate};
use nyquist_core::wire::{check, join_split_values, without_invalid_ids};

use super::json::to_wire;

/// What a document may become in this test, in bytes.
const LIMIT: usize = 1 << 20;

/// Reads `data` as a document of every signal, and documents that are made of it: a request as it is
/// written, and the same damaged.
#[allow(clippy::missing_panics_doc, reason = "panics are findings")]
pub fn document(data: &[u8]) {
    for signal in Signal::ALL {
        read(signal, data);
        let (for_request, for_damage) = data.split_at(data.len() - data.len().min(16));
        let request = acceptable(signal, generate(signal, &mut Entropy::new(for_request)));
        let Some(request) = request else { continue };
        let document = written(signal, &request);
        read(signal, &document);
        read(signal, &mutate(document, &mut Entropy::new(for_damage)));
    }
}

/// What is read is within the limit, the ingress check takes it, and written and read again it is the same.
fn read(signal: Signal, document: &[u8]) {
    let Ok(request) = to_wire(signal, document, LIMIT) else { return };
    assert!(request.len() <= LIMIT);
    let Some(request) = acceptable(signal, request) else { panic!("what was read is refused") };
    let once = written(signal, &request);
    let Ok(again) = to_wire(signal, &once, usize::MAX) else {
        // serde_json does not go as deep as a request may.
        return;
    };
    assert_eq!(
        check(signal, &again).map(|checked| checked.items),
        check(signal, &request).map(|checked| checked.items)
    );
    let twice = written(signal, &again);
    assert!(once == twice, "{} became {}", String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice));
}

/// As pipelines get it; `None` if they do not.
fn acceptable(signal: Signal, request: Vec<u8>) -> Option<Bytes> {
    let request = Bytes::from(request);
    let checked = check(signal, &request).ok()?;
    let request = if checked.split_values { join_split_values(signal, &request) } else { request };
    Some(if checked.invalid_ids > 0 { without_invalid_ids(&request).0 } else { request })
}

fn written(signal: Signal, request: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let result = otlp_json::write(signal, request, &mut out);
    assert!(result.is_ok(), "a request that was checked can be written");
    out
}
