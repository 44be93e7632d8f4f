//! Which points belong together: keyed hashes of all that identifies a stream.
//!
//! The seed is random for each process, so that no sender can look for collisions; by chance, among n
//! streams, one happens with n^2 / 2^65.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;
use nyquist_core::wire::{AnyValue, KeyValue, MetricFields, MetricKind, ResourceMetricsView, ScopeMetricsView};

/// The hash functions of one processor.
#[derive(Debug, Default)]
pub(crate) struct Identities(RandomState);

impl Identities {
    /// The hash of a resource.
    pub(crate) fn resource(&self, resource: ResourceMetricsView<'_>) -> u64 {
        self.attributes(resource.resource_attributes())
    }

    /// The hash of a scope of the resource with the hash `resource`.
    pub(crate) fn scope(&self, resource: u64, scope: ScopeMetricsView<'_>) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(resource);
        put(&mut hasher, scope.scope_name());
        put(&mut hasher, scope.scope_version());
        hasher.write_u64(self.attributes(scope.scope_attributes()));
        hasher.finish()
    }

    /// The hash of a metric of the scope with the hash `scope`.
    pub(crate) fn metric(&self, scope: u64, metric: &MetricFields<'_>) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(scope);
        put(&mut hasher, metric.name);
        put(&mut hasher, metric.unit);
        let is_monotonic = matches!(metric.kind, Some(MetricKind::Sum { monotonic: true, .. }));
        hasher.write_u32(metric.kind.map_or(0, MetricKind::field_number));
        hasher.write_u8(u8::from(is_monotonic));
        hasher.finish()
    }

    /// The hash of the stream with these attributes of the metric with the hash `metric`.
    pub(crate) fn stream<'a>(&self, metric: u64, attributes: impl Iterator<Item = KeyValue<'a>>) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(metric);
        hasher.write_u64(self.attributes(attributes));
        hasher.finish()
    }

    /// Attributes in any order.
    fn attributes<'a>(&self, attributes: impl Iterator<Item = KeyValue<'a>>) -> u64 {
        attributes.fold(0, |sum, attribute| sum.wrapping_add(self.attribute(&attribute)))
    }

    fn attribute(&self, attribute: &KeyValue<'_>) -> u64 {
        let mut hasher = self.0.build_hasher();
        put(&mut hasher, attribute.key);
        let (kind, bytes) = match attribute.value {
            AnyValue::Empty => (0, &[][..]),
            AnyValue::Bool(flag) => (2, if flag { &[1][..] } else { &[0][..] }),
            AnyValue::Int(number) => {
                hasher.write_i64(number);
                (3, &[][..])
            }
            AnyValue::Double(number) => {
                hasher.write_u64(number.to_bits());
                (4, &[][..])
            }
            AnyValue::String(text) => (1, text),
            AnyValue::Array(bytes) => (5, bytes),
            AnyValue::KvList(bytes) => (6, bytes),
            AnyValue::Bytes(bytes) => (7, bytes),
        };
        hasher.write_u8(kind);
        put(&mut hasher, bytes);
        hasher.finish()
    }
}

fn put(hasher: &mut impl Hasher, bytes: &[u8]) {
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}
