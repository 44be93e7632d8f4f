//! Reading spans: one scan of the bytes gives times, status and dimensions, and the fingerprints of the
//! series that count the span.

mod describe;
mod scan;

use nyquist_core::table::Table;
use nyquist_core::wire::{AnyValue, Attributes, KeyValue, ResourceSpansView, ScopeSpansView, SpanView};

use self::scan::{Head, Wanted, scan};
use super::adjusted::Adjusting;
use super::fingerprint::Fingerprint;
use super::plan::{Family, List, Plan};
use super::recorder::{Exemplar, Spell};

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
    /// What all spans of resource and scope have in common.
    owner: Fingerprint<'a>,
    pub(super) seen: Seen<'a>,
    /// That of the span, or the event, but for what families have of their own.
    common: Fingerprint<'a>,
}

/// What a span, or an event of it, says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen<'a> {
    head: Head<'a>,
    /// How long it took, and how many spans it stands for.
    pub(super) spell: Spell,
    is_adjusted: bool,
}

/// Attributes that are dimensions.
#[derive(Default)]
struct Level<'a> {
    /// By slot: those that are asked for by name.
    named: Vec<Option<AnyValue<'a>>>,
    /// How many slots are empty.
    missing: usize,
    /// Those that match patterns, with the lists of these patterns.
    globbed: Vec<(KeyValue<'a>, u8)>,
}

impl Level<'_> {
    #[inline]
    fn clear(&mut self, slots: usize) {
        self.named.clear();
        self.named.resize(slots, None);
        self.missing = slots;
        self.globbed.clear();
    }
}

/// Puts attributes into a level.
struct Taking<'r, 'a> {
    plan: &'r Plan,
    matches: &'r mut Table<u8>,
    level: &'r mut Level<'a>,
}

impl<'a> Wanted<'a> for Taking<'_, 'a> {
    #[inline(always)]
    fn wants_more(&self) -> bool {
        self.level.missing > 0 || !self.plan.globs.is_empty()
    }

    #[inline(always)]
    fn take(&mut self, key: &'a [u8], value: impl FnOnce() -> AnyValue<'a>) {
        if !self.plan.globs.is_empty() {
            return self.take_globbed(KeyValue { key, value: value() });
        }
        if let Some(slot) = self.plan.keys.index_of(key) {
            self.set(slot, value());
        }
    }
}

impl<'a> Taking<'_, 'a> {
    #[inline]
    fn set(&mut self, slot: usize, new: AnyValue<'a>) {
        // Of equal keys the first one counts.
        if let Some(value @ None) = self.level.named.get_mut(slot) {
            *value = Some(new);
            self.level.missing -= 1;
        }
    }

    fn take_globbed(&mut self, attribute: KeyValue<'a>) {
        if let Some(slot) = self.plan.keys.index_of(attribute.key) {
            self.set(slot, attribute.value);
        }
        let lists = lists_of(self.plan, self.matches, attribute.key);
        if lists != 0 && !self.level.globbed.iter().any(|(known, _)| known.key == attribute.key) {
            self.level.globbed.push((attribute, lists));
        }
    }
}

/// The lists with a pattern that `name` matches, as bits.
fn lists_of(plan: &Plan, matches: &mut Table<u8>, name: &[u8]) -> u8 {
    let hash = plan.hashes.text(name);
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
            owner: plan.hashes.begin(),
            seen: Seen::default(),
            common: plan.hashes.begin(),
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
                identity = identity.wrapping_add(plan.hashes.attribute(&attribute));
            }
            Taking { plan, matches: &mut self.matches, level: &mut self.resource }
                .take(attribute.key, || attribute.value);
        }
        let Some(service) = service else { return false };
        self.service = service;
        let mut hash = plan.hashes.begin();
        hash.words(identity, 0);
        if !plan.has_resource && plan.base.service {
            // What is not reported must not tell apart what is reported.
            hash.text(service);
        }
        // Zero is the group of those that have none.
        self.group = hash.finish().max(1);
        true
    }

    /// Enters a scope of the resource.
    pub(super) fn enter_scope(&mut self, scope: ScopeSpansView<'a>) {
        let plan = self.plan;
        self.scope = None;
        if !plan.scopes.is_empty() {
            let name = scope.scope_name();
            if !name.is_empty() && plan.scopes.iter().any(|wanted| **wanted == *name) {
                self.scope = Some((name, scope.scope_version()));
            }
        }
        let mut hash = plan.hashes.begin();
        hash.words(self.group, u64::from(self.scope.is_some()));
        if plan.base.service {
            hash.text(self.service);
        }
        if let Some((name, version)) = self.scope {
            hash.text(name);
            hash.text(version);
        }
        self.owner = hash;
    }

    /// Enters a span of the scope.
    #[inline(always)]
    pub(super) fn enter_span(&mut self, span: SpanView<'a>) {
        let plan = self.plan;
        self.span.clear(plan.keys.len());
        let mut taking = Taking { plan, matches: &mut self.matches, level: &mut self.span };
        let head = scan(span.bytes(), &mut taking);
        let (times, is_adjusted) = self.adjusting.count(head.trace_state, |below| rand::random_range(0..below));
        let spell = Spell::new(head.end.saturating_sub(head.start), plan.nanos_per_unit, times);
        self.seen = Seen { head, spell, is_adjusted };
        self.common = self.hash_common(false);
    }

    /// Enters an event (a `Span.Event`) of the span.
    pub(super) fn enter_event(&mut self, event: &'a [u8]) {
        let plan = self.plan;
        self.event.clear(plan.keys.len());
        let mut taking = Taking { plan, matches: &mut self.matches, level: &mut self.event };
        for attribute in Attributes::new(event, 3) {
            taking.take(attribute.key, || attribute.value);
        }
        self.common = self.hash_common(true);
    }

    /// The fingerprint of the series of `family`.
    #[inline(always)]
    pub(super) fn fingerprint(&self, index: usize, family: &Family) -> u64 {
        let mut hash = self.common;
        self.hash_list(&mut hash, &family.extra, family.is_events);
        hash.finish_with(index as u64)
    }

    /// The span as an example, if it has ids.
    pub(super) fn exemplar(&self) -> Option<Exemplar> {
        let Seen { head, spell, .. } = &self.seen;
        let trace_id: [u8; 16] = head.trace_id.try_into().ok()?;
        let span_id = head.span_id.try_into().unwrap_or_default();
        (trace_id != [0; 16]).then_some(Exemplar { trace_id, span_id, duration: spell.duration })
    }

    #[inline(always)]
    fn hash_common(&self, is_event: bool) -> Fingerprint<'a> {
        let (plan, base, Seen { head, .. }) = (self.plan, &self.plan.base, &self.seen);
        let mut hash = self.owner;
        if base.name {
            hash.text(head.name);
        }
        let kind = if base.kind { head.kind as u32 } else { 0 };
        let status = if base.status { head.status as u32 } else { 0 };
        let is_adjusted = plan.has_sampling_method && self.seen.is_adjusted;
        hash.words(u64::from(kind) << 32 | u64::from(status), u64::from(is_adjusted));
        self.hash_list(&mut hash, &plan.common, is_event);
        hash
    }

    #[inline(always)]
    fn hash_list(&self, hash: &mut Fingerprint<'a>, list: &List, is_event: bool) {
        /// Of so many values the kinds fit into one number.
        const TOGETHER: usize = 16;
        for some in list.named.chunks(TOGETHER) {
            let mut kinds = 0;
            for named in some {
                let kind = self.value(named.slot, is_event).map_or(0, |value| hash.value(value));
                kinds = kinds << 3 | kind;
            }
            hash.words(kinds, 0);
        }
        if list.glob_bit != 0 {
            let matching = self.globbed(list.glob_bit, is_event);
            // Their order does not matter.
            let sum = matching.fold(0u64, |sum, attribute| sum.wrapping_add(self.plan.hashes.attribute(attribute)));
            hash.words(sum, 1);
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
}
