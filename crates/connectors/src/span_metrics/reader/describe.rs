//! What a new series is told of: the attributes that its fingerprint stands for. Only its first span on a core
//! comes here.

use nyquist_core::wire::{AnyValue, Field, Fields, Value, put_len_field};

use super::Reader;
use crate::span_metrics::catalog::{OVERFLOW, Whose};
use crate::span_metrics::encode::{put_attribute, put_text_attribute};
use crate::span_metrics::plan::Family;

impl Reader<'_> {
    /// The resource as a field of a `ResourceMetrics`; nothing if metrics leave it out.
    pub(in crate::span_metrics) fn resource_field(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.plan.has_resource {
            for Field { number, value } in Fields::new(self.resource_view.bytes()) {
                if let (1, Value::Len(resource)) = (number, value) {
                    put_len_field(&mut out, 1, resource);
                }
            }
        }
        out
    }

    /// The attributes, as fields 7, of the series of `family`, or of the overflow series that stands in for it.
    pub(in crate::span_metrics) fn attributes(&self, family: &Family, whose: Whose) -> Vec<u8> {
        let (plan, base, head) = (self.plan, &self.plan.base, &self.seen.head);
        let mut out = Vec::new();
        if whose != Whose::Own {
            if base.service && !plan.has_resource && whose == Whose::Overflow {
                put_text_attribute(&mut out, 7, b"service.name", self.service);
            }
            if let Some(instance) = &base.instance {
                put_text_attribute(&mut out, 7, b"collector.instance.id", instance.as_bytes());
            }
            put_attribute(&mut out, 7, OVERFLOW, AnyValue::Bool(true));
            return out;
        }
        let mut texts: Vec<(&[u8], &[u8])> = Vec::new();
        if base.service {
            texts.push((b"service.name", self.service));
        }
        if base.name {
            texts.push((b"span.name", head.name));
        }
        if base.kind {
            texts.push((b"span.kind", kind_name(head.kind)));
        }
        if base.status {
            texts.push((b"status.code", status_name(head.status)));
        }
        if let Some(instance) = &base.instance {
            texts.push((b"collector.instance.id", instance.as_bytes()));
        }
        if let Some((name, version)) = self.scope {
            texts.push((b"span.instrumentation.scope.name", name));
            if !version.is_empty() {
                texts.push((b"span.instrumentation.scope.version", version));
            }
        }
        if plan.has_sampling_method {
            texts.push((b"sampling.method", if self.seen.is_adjusted { b"extrapolated" } else { b"counted" }));
        }
        let mut attributes: Vec<(&[u8], AnyValue<'_>)> =
            texts.into_iter().map(|(key, text)| (key, AnyValue::String(text))).collect();
        for list in [&plan.common, &family.extra] {
            for named in &list.named {
                let default = named.default.as_ref().map(|default| AnyValue::String(default.as_bytes()));
                if let Some(value) = self.value(named.slot, family.is_events).or(default) {
                    attributes.push((named.name.as_bytes(), value));
                }
            }
            if list.glob_bit != 0 {
                let matching = self.globbed(list.glob_bit, family.is_events);
                attributes.extend(matching.map(|attribute| (attribute.key, attribute.value)));
            }
        }
        for (index, (key, value)) in attributes.iter().enumerate() {
            // Of equal keys the last one counts.
            let is_overridden = attributes.iter().skip(index + 1).any(|(later, _)| later == key);
            if !is_overridden {
                put_attribute(&mut out, 7, key, *value);
            }
        }
        out
    }
}

fn kind_name(kind: i32) -> &'static [u8] {
    match kind {
        0 => b"SPAN_KIND_UNSPECIFIED",
        1 => b"SPAN_KIND_INTERNAL",
        2 => b"SPAN_KIND_SERVER",
        3 => b"SPAN_KIND_CLIENT",
        4 => b"SPAN_KIND_PRODUCER",
        5 => b"SPAN_KIND_CONSUMER",
        _ => b"",
    }
}

fn status_name(status: i32) -> &'static [u8] {
    match status {
        0 => b"STATUS_CODE_UNSET",
        1 => b"STATUS_CODE_OK",
        2 => b"STATUS_CODE_ERROR",
        _ => b"",
    }
}
