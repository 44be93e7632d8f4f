//! Exemplars.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::metrics::v1::{Exemplar, exemplar as proto};

use super::text;

/// An exemplar from its labels: `trace_id` and `span_id` in hexadecimal become ids.
pub(crate) fn exemplar<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>, value: f64, time: u64) -> Exemplar {
    let mut trace_id = Vec::new();
    let mut span_id = Vec::new();
    let mut filtered_attributes: Vec<KeyValue> = Vec::new();
    for (name, value) in labels {
        match (name, hex::decode(value)) {
            ("trace_id", Ok(id)) if id.len() <= 16 && !id.is_empty() => trace_id = padded::<16>(&id),
            ("span_id", Ok(id)) if id.len() <= 8 && !id.is_empty() => span_id = padded::<8>(&id),
            _ => filtered_attributes.push(text(name, value)),
        }
    }
    Exemplar {
        filtered_attributes,
        time_unix_nano: time,
        span_id,
        trace_id,
        value: Some(proto::Value::AsDouble(value)),
    }
}

/// Ids may be shorter in other systems: zeros go in front.
fn padded<const N: usize>(id: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; N.saturating_sub(id.len())];
    padded.extend_from_slice(id);
    padded
}
