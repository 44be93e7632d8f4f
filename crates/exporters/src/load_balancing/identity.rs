//! By what the Collector tells resources and streams of points from each other: the keys of `resource` and `streamID`,
//! spelled so that balancers of both kinds agree on who gets what.
//!
//! Source: `internal/exp/metrics/identity` and `pkg/pdatautil` of the Collector's contrib repository, v0.161.

use std::io::Write;

use nyquist_core::wire::{AnyValue, Attributes, Fields, KeyValue, MetricFields, MetricKind, Value};
use twox_hash::XxHash64;

/// Deeper values are left out; the ingress check lets none in.
const MAX_DEPTH: usize = 32;

/// FNV-1a of everything that tells one from the others, as far as it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64);

impl Default for Identity {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Identity {
    fn with(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }

    /// Of a resource.
    pub(super) fn of_resource(attributes: [u8; 16]) -> Self {
        Self::default().with(&attributes)
    }

    /// Of a scope of this resource.
    pub(super) fn scope(self, name: &[u8], version: &[u8], attributes: [u8; 16]) -> Self {
        self.with(name).with(version).with(&attributes)
    }

    /// Of a metric of this scope.
    pub(super) fn metric(self, metric: &MetricFields<'_>) -> Self {
        let (kind, is_monotonic, temporality) = match metric.kind {
            None => (0, false, 0),
            Some(MetricKind::Gauge) => (1, false, 0),
            Some(MetricKind::Sum { temporality, monotonic }) => (2, monotonic, temporality as u8),
            Some(MetricKind::Histogram { temporality }) => (3, true, temporality as u8),
            Some(MetricKind::ExponentialHistogram { temporality }) => (4, true, temporality as u8),
            Some(MetricKind::Summary) => (5, false, 0),
        };
        self.with(metric.name).with(metric.unit).with(&[kind, u8::from(is_monotonic), temporality])
    }

    /// Of a stream of points of this metric.
    pub(super) fn stream(self, attributes: [u8; 16]) -> Self {
        self.with(&attributes)
    }

    /// Makes `key` its name: `resource/950ea35c409f946d`.
    pub(super) fn name(self, kind: &str, key: &mut Vec<u8>) {
        key.clear();
        // A Vec takes everything.
        let _ = write!(key, "{kind}/{:x}", self.0);
    }
}

/// Makes 16 bytes that stand for attributes in any order.
#[derive(Debug, Default)]
pub(super) struct Digester<'a> {
    /// What there is to digest.
    bytes: Vec<u8>,
    /// The attributes, while they are sorted.
    pairs: Vec<KeyValue<'a>>,
}

impl<'a> Digester<'a> {
    pub(super) fn digest(&mut self, attributes: impl Iterator<Item = KeyValue<'a>>) -> [u8; 16] {
        self.pairs.clear();
        self.pairs.extend(attributes);
        if self.pairs.is_empty() {
            return [0; 16];
        }
        self.bytes.clear();
        put_pairs(&mut self.bytes, &mut self.pairs, MAX_DEPTH);
        let first = XxHash64::oneshot(0, &self.bytes);
        self.bytes.push(0xf3);
        let second = XxHash64::oneshot(0, &self.bytes);
        (u128::from(first) | u128::from(second) << 64).to_le_bytes()
    }
}

fn put_pairs(out: &mut Vec<u8>, pairs: &mut [KeyValue<'_>], depth: usize) {
    pairs.sort_by_key(|pair| pair.key);
    // Of several of one name the Collector reads the first, as often as there are.
    for same in pairs.chunk_by(|one, other| one.key == other.key) {
        let Some(first) = same.first() else { continue };
        for _ in same {
            out.push(0xf4);
            out.extend_from_slice(first.key);
            put(out, first.value, depth);
        }
    }
}

fn put(out: &mut Vec<u8>, value: AnyValue<'_>, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        AnyValue::Empty => out.push(0xf5),
        AnyValue::Bytes(bytes) => {
            out.push(0xf6);
            out.extend_from_slice(bytes);
        }
        AnyValue::String(text) => {
            out.push(0xf7);
            out.extend_from_slice(text);
        }
        AnyValue::Bool(flag) => out.push(if flag { 0xf8 } else { 0xf9 }),
        AnyValue::Int(number) => {
            out.push(0xfa);
            out.extend_from_slice(&number.to_le_bytes());
        }
        AnyValue::Double(number) => {
            out.push(0xfb);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        AnyValue::KvList(list) => {
            out.push(0xfc);
            let mut pairs: Vec<KeyValue<'_>> = Attributes::new(list, 1).collect();
            put_pairs(out, &mut pairs, depth);
            out.push(0xfd);
        }
        AnyValue::Array(array) => {
            out.push(0xfe);
            for field in Fields::new(array) {
                if let (1, Value::Len(element)) = (field.number, field.value) {
                    put(out, AnyValue::new(element), depth);
                }
            }
            out.push(0xff);
        }
    }
}
