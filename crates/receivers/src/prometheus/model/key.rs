//! What identifies a series, in a form that can be looked up without allocating and read back.
//!
//! Length-prefixed texts in four sections: resource (job, instance), scope, metric (name, shape, type), and
//! the attributes of the point. Each section's end is known, so that a prefix of a series' key is the key of
//! its metric, scope and resource.

use nyquist_core::wire::{Fields, put_varint};

use super::Shape;
use crate::prometheus::exposition::MetricType;
use crate::prometheus::labels::{Labels, NAME};

/// Labels with this prefix say which scope a series belongs to.
const SCOPE: &str = "otel_scope_";

/// The key of one series.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeriesKey {
    bytes: Vec<u8>,
    resource: usize,
    scope: usize,
    metric: usize,
}

impl SeriesKey {
    /// The key of the series of metric `name` with `labels`, of which `skipped` (`le` of a histogram) and
    /// `__name__` do not count.
    pub(crate) fn encode(&mut self, name: &str, shape: Shape, kind: MetricType, labels: &Labels<'_>, skipped: &str) {
        let bytes = &mut self.bytes;
        bytes.clear();
        put(bytes, labels.get("job"));
        put(bytes, labels.get("instance"));
        self.resource = bytes.len();
        put(bytes, labels.get("otel_scope_name"));
        put(bytes, labels.get("otel_scope_version"));
        put(bytes, labels.get("otel_scope_schema_url"));
        for (key, value) in labels.iter() {
            let own = key.strip_prefix(SCOPE);
            if let Some(attribute) = own.filter(|own| !matches!(*own, "name" | "version" | "schema_url")) {
                put(bytes, attribute);
                put(bytes, value);
            }
        }
        self.scope = bytes.len();
        bytes.extend([shape as u8, kind as u8]);
        put(bytes, name);
        self.metric = bytes.len();
        for (key, value) in labels.iter() {
            if key != "job" && key != "instance" && key != NAME && key != skipped && !key.starts_with(SCOPE) {
                put(bytes, key);
                put(bytes, value);
            }
        }
    }

    /// The key as bytes, and back with the ends of its sections.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where its sections end.
    pub(crate) fn ends(&self) -> [usize; 3] {
        [self.resource, self.scope, self.metric]
    }

    /// Makes it the key that `bytes` and `ends` were taken from.
    pub(crate) fn restore(&mut self, bytes: &[u8], ends: [usize; 3]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        [self.resource, self.scope, self.metric] = ends;
    }

    pub(super) fn resource_key(&self) -> &[u8] {
        self.bytes.get(..self.resource).unwrap_or_default()
    }

    pub(super) fn scope_key(&self) -> &[u8] {
        self.bytes.get(..self.scope).unwrap_or_default()
    }

    pub(super) fn metric_key(&self) -> &[u8] {
        self.bytes.get(..self.metric).unwrap_or_default()
    }

    /// Job and instance.
    pub(super) fn resource(&self) -> Texts<'_> {
        Texts(self.resource_key())
    }

    /// Name, version, schema URL; then names and values of attributes.
    pub(super) fn scope(&self) -> Texts<'_> {
        Texts(self.bytes.get(self.resource..self.scope).unwrap_or_default())
    }

    /// The metric's name.
    pub(crate) fn name(&self) -> &str {
        Texts(self.bytes.get(self.scope + 2..self.metric).unwrap_or_default()).next().unwrap_or_default()
    }

    /// The type of the metric.
    pub(crate) fn kind(&self) -> MetricType {
        self.bytes.get(self.scope + 1).map_or(MetricType::Unknown, |byte| MetricType::from_byte(*byte))
    }

    /// Names and values of the attributes.
    pub(super) fn attributes(&self) -> Texts<'_> {
        Texts(self.bytes.get(self.metric..).unwrap_or_default())
    }
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    // As a field of a message, so that the cursor of messages can read it.
    bytes.push(0x0a);
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Texts of a key, in order.
#[derive(Debug, Clone)]
pub(super) struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut fields = Fields::new(self.0);
        let text = match fields.next()?.value {
            nyquist_core::wire::Value::Len(text) => std::str::from_utf8(text).ok()?,
            _ => return None,
        };
        self.0 = self.0.get(fields.position()..).unwrap_or_default();
        Some(text)
    }
}
