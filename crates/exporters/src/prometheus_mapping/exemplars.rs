//! Exemplars of a point.

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

use super::LostExemplars;
use super::labels::{LabelRules, Labels, Source};

/// OpenMetrics' limit for all names and values of an exemplar's labels together, in characters.
const LONGEST_LABELS: usize = 128;

/// An exemplar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// The value.
    pub value: f64,
    /// Its time, in milliseconds since the epoch.
    pub time: i64,
    start: usize,
    end: usize,
}

/// The exemplars of one point, oldest first.
#[derive(Debug, Default)]
pub struct Exemplars {
    items: Vec<Exemplar>,
    encoded: Vec<u8>,
    labels: Labels,
}

impl Exemplars {
    /// The exemplars, oldest first.
    #[must_use]
    pub fn items(&self) -> &[Exemplar] {
        &self.items
    }

    /// An exemplar's labels as encoded `Label` messages.
    #[must_use]
    pub fn labels(&self, exemplar: &Exemplar) -> &[u8] {
        self.encoded.get(exemplar.start..exemplar.end).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.encoded.clear();
    }

    /// Reads the exemplars in field `number` of `point`. Returns what did not stay of them.
    pub(super) fn read(&mut self, point: &[u8], number: u32, rules: LabelRules) -> LostExemplars {
        self.clear();
        let mut lost = LostExemplars::default();
        for field in Fields::new(point) {
            match field.value {
                Value::Len(bytes) if field.number == number => self.push(bytes, rules, &mut lost),
                _ => {}
            }
        }
        self.items.sort_by_key(|exemplar| exemplar.time);
        lost
    }

    fn push(&mut self, bytes: &[u8], rules: LabelRules, lost: &mut LostExemplars) {
        let (mut time, mut value) = (0, 0.0);
        let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
        for Field { number, value: field } in Fields::new(bytes) {
            match (number, field) {
                (2, Value::Fixed64(nanos)) => time = nanos,
                (3, Value::Fixed64(bits)) => value = f64::from_bits(bits),
                (6, Value::Fixed64(bits)) => value = bits as i64 as f64,
                (4, Value::Len(id)) => span_id = id,
                (5, Value::Len(id)) => trace_id = id,
                _ => {}
            }
        }
        self.begin(trace_id, span_id, rules);
        for Field { number, value: field } in Fields::new(bytes) {
            if let (7, Value::Len(attribute)) = (number, field) {
                let attribute = KeyValue::new(attribute);
                let is_named = self.labels.push_attribute(attribute.key, &attribute.value, rules);
                lost.unnamable += usize::from(!is_named);
            }
        }
        let folded = self.labels.sort_and_join();
        lost.overwritten += folded.overwritten;
        lost.joined += folded.joined;
        if self.labels.characters() > LONGEST_LABELS {
            let all = self.labels.len();
            self.begin(trace_id, span_id, rules);
            self.labels.sort_and_join();
            lost.too_long += all.saturating_sub(self.labels.len());
        }
        let start = self.encoded.len();
        self.labels.encode(&mut self.encoded);
        self.items.push(Exemplar { value, time: (time / 1_000_000) as i64, start, end: self.encoded.len() });
    }

    /// Starts a set of labels with the ids, which win over attributes of their name.
    fn begin(&mut self, trace_id: &[u8], span_id: &[u8], rules: LabelRules) {
        self.labels.clear();
        self.push_id(b"trace_id", trace_id, rules);
        self.push_id(b"span_id", span_id, rules);
    }

    fn push_id(&mut self, name: &[u8], id: &[u8], rules: LabelRules) {
        if matches!(id.len(), 8 | 16) && id.iter().any(|&byte| byte != 0) {
            let mut digits = [0; 32];
            let digits = &mut digits[..id.len() * 2];
            if hex::encode_to_slice(id, digits).is_ok() {
                self.labels.push(b"", name, &AnyValue::String(digits), Source::Given, rules);
            }
        }
    }
}
