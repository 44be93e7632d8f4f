//! What points have from their resource and scope.

use nyquist_core::wire::{AnyValue, Attributes, Field, Fields, KeyValue, Value};

use super::labels::{LabelRules, Labels, Source};
use super::settings::Settings;

/// The fields `number` that are messages or text.
pub(super) fn len_fields(fields: Fields<'_>, number: u32) -> impl Iterator<Item = &[u8]> {
    fields.filter_map(move |field| match field.value {
        Value::Len(bytes) if field.number == number => Some(bytes),
        _ => None,
    })
}

/// The attributes of the resource.
pub(super) fn resource_attributes(resource_metrics: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    len_fields(Fields::new(resource_metrics), 1).flat_map(|resource| Attributes::new(resource, 1))
}

/// Adds `job` and `instance`, unless they are empty.
pub(super) fn push_identity(labels: &mut Labels, job: &[u8], instance: &[u8], rules: LabelRules) {
    labels.push(b"", b"job", &AnyValue::String(job), Source::Given, rules);
    labels.push(b"", b"instance", &AnyValue::String(instance), Source::Given, rules);
}

/// Adds the external labels.
pub(super) fn push_external(labels: &mut Labels, settings: &Settings, rules: LabelRules) {
    let source = if settings.external_override { Source::Override } else { Source::External };
    for (name, value) in &settings.external_labels {
        labels.push(b"", name.as_bytes(), &AnyValue::String(value.as_bytes()), source, rules);
    }
}

/// Adds the scope's labels. Returns how many have no name.
pub(super) fn push_scope(labels: &mut Labels, scope_metrics: &[u8], rules: LabelRules) -> usize {
    const PREFIX: &[u8] = b"otel_scope_";
    let (mut name, mut version, mut schema_url): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut unnamable = 0;
    for Field { number, value } in Fields::new(scope_metrics) {
        match (number, value) {
            (1, Value::Len(scope)) => {
                for Field { number, value } in Fields::new(scope) {
                    match (number, value) {
                        (1, Value::Len(text)) => name = text,
                        (2, Value::Len(text)) => version = text,
                        (3, Value::Len(attribute)) => {
                            let attribute = KeyValue::new(attribute);
                            if !matches!(attribute.key, b"name" | b"version" | b"schema_url") {
                                let is_named =
                                    labels.push(PREFIX, attribute.key, &attribute.value, Source::Given, rules);
                                unnamable += usize::from(!is_named);
                            }
                        }
                        _ => {}
                    }
                }
            }
            (3, Value::Len(text)) => schema_url = text,
            _ => {}
        }
    }
    labels.push(PREFIX, b"name", &AnyValue::String(name), Source::Given, rules);
    labels.push(PREFIX, b"version", &AnyValue::String(version), Source::Given, rules);
    labels.push(PREFIX, b"schema_url", &AnyValue::String(schema_url), Source::Given, rules);
    unnamable
}
