//! The attributes of one message, to be changed without decoding their values.

use std::borrow::Cow;

use nyquist_core::wire::{AnyValue, Fields, KeyValue, Value, put_len_field};

use super::value::put_any;
use super::wire_edit::put_nested;

struct Entry<'a> {
    key: Cow<'a, [u8]>,
    /// The `KeyValue` message.
    encoded: Cow<'a, [u8]>,
}

/// Attributes in order. Where a key occurs twice the first one counts, as in the Collector.
pub(crate) struct AttributeSet<'a> {
    entries: Vec<Entry<'a>>,
    changed: bool,
}

impl<'a> AttributeSet<'a> {
    /// The attributes in field `number` of `message`.
    pub(crate) fn new(message: &'a [u8], number: u32) -> Self {
        let mut entries = Vec::new();
        for field in Fields::new(message) {
            if let Value::Len(encoded) = field.value
                && field.number == number
            {
                entries.push(Entry { key: KeyValue::new(encoded).key.into(), encoded: encoded.into() });
            }
        }
        Self { entries, changed: false }
    }

    /// Has anything been changed?
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// Appends all attributes as fields `number`.
    pub(crate) fn put(&self, out: &mut Vec<u8>, number: u32) {
        for entry in &self.entries {
            put_len_field(out, number, &entry.encoded);
        }
    }

    /// The keys of all attributes that `matches`.
    pub(crate) fn keys(&self, matches: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        self.entries.iter().filter(|entry| matches(&entry.key)).map(|entry| entry.key.to_vec()).collect()
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.position(key).is_some()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<AnyValue<'_>> {
        let entry = self.entries.get(self.position(key)?)?;
        Some(KeyValue::new(&entry.encoded).value)
    }

    /// The `AnyValue` message of `key`.
    pub(crate) fn encoded(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        put_any(self.get(key)?, &mut out);
        Some(out)
    }

    /// Adds `key`, or replaces its value. `value` is an `AnyValue` message.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) {
        self.changed = true;
        let mut encoded = Vec::with_capacity(key.len() + value.len() + 8);
        put_len_field(&mut encoded, 1, key);
        put_nested(&mut encoded, 2, |out| out.extend_from_slice(value));
        let encoded = Cow::Owned(encoded);
        match self.position(key).and_then(|index| self.entries.get_mut(index)) {
            Some(entry) => entry.encoded = encoded,
            None => self.entries.push(Entry { key: Cow::Owned(key.to_vec()), encoded }),
        }
    }

    /// Sets `key` to `value`.
    pub(crate) fn set_any(&mut self, key: &[u8], value: AnyValue<'_>) {
        let mut encoded = Vec::new();
        put_any(value, &mut encoded);
        self.set(key, &encoded);
    }

    /// Removes the attributes whose key `matches`.
    pub(crate) fn remove(&mut self, matches: impl Fn(&[u8]) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| !matches(&entry.key));
        self.changed |= self.entries.len() < before;
    }

    fn position(&self, key: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| *entry.key == *key)
    }
}
