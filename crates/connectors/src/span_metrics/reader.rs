//! Reading spans: one scan of the bytes gives times, status and dimensions, and the fingerprints of the
//! series that count the span.

use std::hash::{BuildHasher, Hasher};

use nyquist_core::wire::{
    AnyValue, Attributes, Field, Fields, KeyValue, ResourceSpansView, ScopeSpansView, SpanView, Value, put_len_field,
};

use super::adjusted::Adjusting;
use super::catalog::{OVERFLOW, Whose};
use super::encode::{put_attribute, put_text_attribute};
use super::plan::{Family, List, Plan};
use super::recorder::Exemplar;
use super::table::Table;

/// How many attribute names a reader remembers the patterns of.
const MAX_REMEMBERED_NAMES: usize = 4096;

/// Reads the spans of one request. What it says is about the resource, scope, span and event that were
/// entered last.
pub(super) struct Reader<'a> {
    plan: &'a Plan,
    resource: Level<'a>,
    span: Level<'a>,
    event: Level<'a>,
    adjusting: Adjusting<'a>,
    /// Which patterns a name matches.
    matches: Table<u8>,
    resource_view: ResourceSpansView<'a>,
    pub(super) group: u64,
    pub(super) service: &'a [u8],
    /// Name and version, if they are dimensions.
    scope: Option<(&'a [u8], &'a [u8])>,
    pub(super) seen: Seen<'a>,
    hasher: foldhash::quality::FoldHasher<'a>,
}

/// What a span, or an event of it, says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen<'a> {
    name: &'a [u8],
    kind: i32,
    status: i32,
    /// In the unit of the metrics.
    pub(super) duration: f64,
    /// How many spans it stands for.
    pub(super) times: u64,
    is_adjusted: bool,
    trace_id: &'a [u8],
    span_id: &'a [u8],
}

/// Attributes that are dimensions.
#[derive(Default)]
struct Level<'a> {
    /// By slot: those that are asked for by name.
    named: Vec<Option<AnyValue<'a>>>,
    /// Those that match patterns, with the lists of these patterns.
    globbed: Vec<(KeyValue<'a>, u8)>,
}

impl<'a> Level<'a> {
    fn clear(&mut self, slots: usize) {
        self.named.clear();
        self.named.resize(slots, None);
        self.globbed.clear();
    }

    #[inline]
    fn take(&mut self, plan: &Plan, matches: &mut Table<u8>, attribute: KeyValue<'a>) {
        if let Some(slot) = plan.keys.index_of(attribute.key)
            && let Some(value @ None) = self.named.get_mut(slot)
        {
            // Of equal keys the first one counts.
            *value = Some(attribute.value);
        }
        if !plan.globs.is_empty() {
            let lists = lists_of(plan, matches, attribute.key);
            if lists != 0 && !self.globbed.iter().any(|(known, _)| known.key == attribute.key) {
                self.globbed.push((attribute, lists));
            }
        }
    }
}

/// The lists with a pattern that `name` matches, as bits.
fn lists_of(plan: &Plan, matches: &mut Table<u8>, name: &[u8]) -> u8 {
    let hash = plan.hashes.hash_one(name);
    if let Some(&lists) = matches.get(&hash) {
        return lists;
    }
    let matching = plan.globs.iter().filter(|glob| glob.pattern.is_match(name));
    let lists = matching.fold(0, |lists, glob| lists | glob.lists);
    if matches.len() < MAX_REMEMBERED_NAMES {
        matches.insert(hash, lists);
    }
    lists
}

impl<'a> Reader<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            resource: Level::default(),
            span: Level::default(),
            event: Level::default(),
            adjusting: Adjusting::default(),
            matches: Table::default(),
            resource_view: ResourceSpansView::new(&[]),
            group: 0,
            service: &[],
            scope: None,
            seen: Seen::default(),
            hasher: plan.hashes.build_hasher(),
        }
    }

    /// Enters a resource; `false` if it has no `service.name`.
    pub(super) fn enter_resource(&mut self, resource: ResourceSpansView<'a>) -> bool {
        let plan = self.plan;
        self.resource_view = resource;
        self.resource.clear(plan.keys.len());
        let mut service = None;
        let mut identity = 0u64;
        for attribute in resource.resource_attributes() {
            if attribute.key == b"service.name" && service.is_none() {
                service = Some(match attribute.value {
                    AnyValue::String(name) => name,
                    _ => &[],
                });
            }
            if plan.has_resource && plan.identifying.as_ref().is_none_or(|keys| keys.index_of(attribute.key).is_some())
            {
                // Their order does not matter.
                identity = identity.wrapping_add(hash_attribute(plan, &attribute));
            }
            self.resource.take(plan, &mut self.matches, attribute);
        }
        let Some(service) = service else { return false };
        self.service = service;
        let mut hasher = plan.hashes.build_hasher();
        hasher.write_u64(identity);
        if !plan.has_resource && plan.base.service {
            // What is not reported must not tell apart what is reported.
            hasher.write(service);
        }
        // Zero is the group of those that have none.
        self.group = hasher.finish().max(1);
        true
    }

    /// Enters a scope of the resource.
    pub(super) fn enter_scope(&mut self, scope: ScopeSpansView<'a>) {
        self.scope = None;
        if self.plan.scopes.is_empty() {
            return;
        }
        let name = scope.scope_name();
        if !name.is_empty() && self.plan.scopes.iter().any(|wanted| **wanted == *name) {
            self.scope = Some((name, scope.scope_version()));
        }
    }

    /// Enters a span of the scope.
    #[inline]
    pub(super) fn enter_span(&mut self, span: SpanView<'a>) {
        let plan = self.plan;
        let reads_attributes = !plan.keys.is_empty() || !plan.globs.is_empty();
        if reads_attributes {
            self.span.clear(plan.keys.len());
        }
        let mut seen = Seen::default();
        let (mut start, mut end) = (0, 0);
        let mut trace_state: &[u8] = &[];
        for Field { number, value } in Fields::new(span.bytes()) {
            match (number, value) {
                (1, Value::Len(id)) => seen.trace_id = id,
                (2, Value::Len(id)) => seen.span_id = id,
                (3, Value::Len(state)) => trace_state = state,
                (5, Value::Len(name)) => seen.name = name,
                (6, Value::Varint(kind)) => seen.kind = kind as i32,
                (7, Value::Fixed64(time)) => start = time,
                (8, Value::Fixed64(time)) => end = time,
                (9, Value::Len(attribute)) if reads_attributes => {
                    self.span.take(plan, &mut self.matches, KeyValue::new(attribute));
                }
                (15, Value::Len(status)) => {
                    for Field { number, value } in Fields::new(status) {
                        if let (3, Value::Varint(code)) = (number, value) {
                            seen.status = code as i32;
                        }
                    }
                }
                _ => {}
            }
        }
        seen.duration = end.saturating_sub(start) as f64 / plan.nanos_per_unit;
        (seen.times, seen.is_adjusted) = self.adjusting.count(trace_state, |below| rand::random_range(0..below));
        self.seen = seen;
        self.hasher = self.hash_common(false);
    }

    /// Enters an event (a `Span.Event`) of the span.
    pub(super) fn enter_event(&mut self, event: &'a [u8]) {
        self.event.clear(self.plan.keys.len());
        for attribute in Attributes::new(event, 3) {
            self.event.take(self.plan, &mut self.matches, attribute);
        }
        self.hasher = self.hash_common(true);
    }

    /// The fingerprint of the series of `family`.
    #[inline]
    pub(super) fn fingerprint(&self, index: usize, family: &Family) -> u64 {
        let mut hasher = self.hasher.clone();
        hasher.write_usize(index);
        self.hash_list(&mut hasher, &family.extra, family.is_events);
        hasher.finish()
    }

    /// The span as an example, if it has ids.
    pub(super) fn exemplar(&self) -> Option<Exemplar> {
        let trace_id: [u8; 16] = self.seen.trace_id.try_into().ok()?;
        let span_id = self.seen.span_id.try_into().unwrap_or_default();
        (trace_id != [0; 16]).then_some(Exemplar { trace_id, span_id, duration: self.seen.duration })
    }

    #[inline]
    fn hash_common(&self, is_event: bool) -> foldhash::quality::FoldHasher<'a> {
        let (base, seen) = (&self.plan.base, &self.seen);
        let mut hasher = self.plan.hashes.build_hasher();
        hasher.write_u64(self.group);
        if base.service {
            hasher.write_usize(self.service.len());
            hasher.write(self.service);
        }
        if base.name {
            hasher.write_usize(seen.name.len());
            hasher.write(seen.name);
        }
        let kind = if base.kind { seen.kind } else { 0 };
        let status = if base.status { seen.status } else { 0 };
        hasher.write_u64(u64::from(kind as u32) << 32 | u64::from(status as u32));
        if let Some((name, version)) = self.scope {
            hasher.write_usize(name.len());
            hasher.write(name);
            hasher.write(version);
        }
        if self.plan.has_sampling_method {
            hasher.write_u8(u8::from(seen.is_adjusted));
        }
        self.hash_list(&mut hasher, &self.plan.common, is_event);
        hasher
    }

    #[inline]
    fn hash_list(&self, hasher: &mut impl Hasher, list: &List, is_event: bool) {
        for named in &list.named {
            match self.value(named.slot, is_event) {
                Some(value) => hash_value(hasher, value),
                None => hasher.write_u8(u8::MAX),
            }
        }
        if list.glob_bit != 0 {
            let matching = self.globbed(list.glob_bit, is_event);
            // Their order does not matter.
            hasher.write_u64(matching.fold(0, |sum, attribute| sum.wrapping_add(hash_attribute(self.plan, attribute))));
        }
    }

    /// What the span, else its event, else its resource has in `slot`.
    #[inline]
    fn value(&self, slot: usize, is_event: bool) -> Option<AnyValue<'a>> {
        let of = |level: &Level<'a>| level.named.get(slot).copied().flatten();
        of(&self.span).or_else(|| if is_event { of(&self.event) } else { None }).or_else(|| of(&self.resource))
    }

    /// The attributes that match a pattern of the lists in `bit`, each name once: the span's, else its
    /// event's, else its resource's.
    fn globbed(&self, bit: u8, is_event: bool) -> impl Iterator<Item = &KeyValue<'a>> {
        let event: &[(KeyValue<'a>, u8)] = if is_event { &self.event.globbed } else { &[] };
        let has = |level: &[(KeyValue<'a>, u8)], key: &[u8]| level.iter().any(|(known, _)| known.key == key);
        let span = &self.span.globbed;
        let of_event = event.iter().filter(move |(attribute, _)| !has(span, attribute.key));
        let resource = self.resource.globbed.iter();
        let of_resource =
            resource.filter(move |(attribute, _)| !has(span, attribute.key) && !has(event, attribute.key));
        let all = span.iter().chain(of_event).chain(of_resource);
        all.filter(move |(_, lists)| lists & bit != 0).map(|(attribute, _)| attribute)
    }

    /// The resource as a field of a `ResourceMetrics`; nothing if metrics leave it out.
    pub(super) fn resource_field(&self) -> Vec<u8> {
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
    pub(super) fn attributes(&self, family: &Family, whose: Whose) -> Vec<u8> {
        let (plan, base, seen) = (self.plan, &self.plan.base, &self.seen);
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
            texts.push((b"span.name", seen.name));
        }
        if base.kind {
            texts.push((b"span.kind", kind_name(seen.kind)));
        }
        if base.status {
            texts.push((b"status.code", status_name(seen.status)));
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
            texts.push((b"sampling.method", if seen.is_adjusted { b"extrapolated" } else { b"counted" }));
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

fn hash_attribute(plan: &Plan, attribute: &KeyValue<'_>) -> u64 {
    let mut hasher = plan.hashes.build_hasher();
    hasher.write_usize(attribute.key.len());
    hasher.write(attribute.key);
    hash_value(&mut hasher, attribute.value);
    hasher.finish()
}

#[inline]
fn hash_value(hasher: &mut impl Hasher, value: AnyValue<'_>) {
    let (kind, bytes) = match value {
        AnyValue::Empty => return hasher.write_u8(0),
        AnyValue::Bool(flag) => return hasher.write_u16(0x200 | u16::from(flag)),
        AnyValue::Int(number) => {
            hasher.write_u8(3);
            return hasher.write_i64(number);
        }
        AnyValue::Double(number) => {
            hasher.write_u8(4);
            return hasher.write_u64(number.to_bits());
        }
        AnyValue::String(text) => (1, text),
        AnyValue::Array(bytes) => (5, bytes),
        AnyValue::KvList(bytes) => (6, bytes),
        AnyValue::Bytes(bytes) => (7, bytes),
    };
    hasher.write_usize(bytes.len() << 3 | kind);
    hasher.write(bytes);
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
