//! The values by which adaptive rates tell traces apart.
//!
//! A trace has a set of distinct values, as hashes of 61 bits with the number of their key: all of them, up to [`MOST`]
//! of a key; beyond that the [`MOST`] smallest hashes, which are the same whatever the order of spans, and however often a value
//! occurs. The set is a list of small nodes, which come out of a vector (for a request) or a slab (for a trace): no
//! allocation for a span, and nothing for traces if no rate asks.

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

use super::random::{Fnv, finish};

/// Distinct keys of all rules together; their numbers fit into [`KEY`].
pub(super) const MAX_KEYS: usize = 8;
/// The bits of a value that are the number of its key.
const KEY: u64 = MAX_KEYS as u64 - 1;
/// Values of one key that a trace is known by.
const MOST: usize = 64;
/// The end of a list of nodes, and a list without any.
pub(crate) const NO_NODE: u32 = u32::MAX;

/// By key: a number for the set of values that a trace has of it; 0 for none.
pub(crate) type Marks = [u64; MAX_KEYS];

/// A value of each key at most, as a resource has them; 0 for none.
pub(crate) type Single = [u64; MAX_KEYS];

/// Some of the values that a trace has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    values: [u64; Node::VALUES],
    /// The next one.
    pub(crate) next: u32,
    len: u32,
}

/// What seven values take; part of what the README says of memory.
const _: () = assert!(size_of::<Node>() == 64);

impl Node {
    const VALUES: usize = 7;
    pub(crate) const EMPTY: Self = Self { values: [0; Self::VALUES], next: NO_NODE, len: 0 };

    pub(crate) fn values(&self) -> &[u64] {
        self.values.get(..self.len as usize).unwrap_or_default()
    }

    fn push(&mut self, value: u64) -> bool {
        let place = self.values.get_mut(self.len as usize);
        self.len += u32::from(place.is_some());
        place.map(|place| *place = value).is_some()
    }
}

/// Where nodes are.
pub(crate) trait Nodes {
    fn node(&self, at: u32) -> Option<&Node>;

    fn node_mut(&mut self, at: u32) -> Option<&mut Node>;

    /// The place of a new node.
    fn add(&mut self, node: Node) -> u32;

    /// Adds a value to the set that begins at `first`, unless it is in it or there are [`MOST`] smaller ones of its key. Takes
    /// one node more at most, and for a whole other set no more than that has.
    fn include(&mut self, first: &mut u32, value: u64) {
        let (mut count, mut largest, mut place) = (0, 0, None);
        let mut at = *first;
        while let Some(node) = self.node(at) {
            for (index, &known) in node.values().iter().enumerate() {
                if known == value {
                    return;
                }
                if (known ^ value) & KEY == 0 {
                    count += 1;
                    if known > largest {
                        (largest, place) = (known, Some((at, index)));
                    }
                }
            }
            at = node.next;
        }
        if count >= MOST {
            if value < largest
                && let Some((at, index)) = place
                && let Some(place) = self.node_mut(at).and_then(|node| node.values.get_mut(index))
            {
                *place = value;
            }
            return;
        }
        // Only the first node has room.
        if !self.node_mut(*first).is_some_and(|node| node.push(value)) {
            let mut node = Node { next: *first, ..Node::EMPTY };
            node.push(value);
            *first = self.add(node);
        }
    }

    /// What a trace is known by whose values begin at `first`.
    fn marks(&self, first: u32) -> Marks {
        let mut marks = Marks::default();
        let mut at = first;
        while let Some(node) = self.node(at) {
            for &value in node.values() {
                if let Some(mark) = marks.get_mut((value & KEY) as usize) {
                    // In any order; and no value is in it twice.
                    *mark = mark.wrapping_add(finish(value));
                }
            }
            at = node.next;
        }
        marks
    }
}

impl Nodes for Vec<Node> {
    fn node(&self, at: u32) -> Option<&Node> {
        self.get(at as usize)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node> {
        self.get_mut(at as usize)
    }

    fn add(&mut self, node: Node) -> u32 {
        self.push(node);
        (self.len() - 1) as u32
    }
}

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MarkKey {
    /// An attribute of a span or its resource.
    Attribute(Box<[u8]>),
    /// An attribute of the root span.
    RootAttribute(Box<[u8]>),
    SpanName,
    RootSpanName,
}

impl MarkKey {
    /// `span_name`, or an attribute; both may be restricted to the root span by `root.`
    pub(super) fn parse(text: &str) -> Self {
        match (text, text.strip_prefix("root.")) {
            ("span_name", _) => Self::SpanName,
            (_, Some("span_name")) => Self::RootSpanName,
            (_, Some(attribute)) => Self::RootAttribute(attribute.as_bytes().into()),
            (attribute, None) => Self::Attribute(attribute.as_bytes().into()),
        }
    }
}

/// The values of a resource: of a key that is there several times, which nobody should write, the last one.
pub(super) fn of_resource(keys: &[MarkKey], resource: &[u8], values: &mut Single) {
    for field in Fields::new(resource) {
        if let Field { number: 1, value: Value::Len(attribute) } = field {
            of_attribute(keys, attribute, false, |value| {
                if let Some(place) = values.get_mut((value & KEY) as usize) {
                    *place = value;
                }
            });
        }
    }
}

/// The values of a span.
pub(super) fn of_span(keys: &[MarkKey], span: &[u8], root: bool, mut add: impl FnMut(u64)) {
    for field in Fields::new(span) {
        match (field.number, field.value) {
            (9, Value::Len(attribute)) => of_attribute(keys, attribute, root, &mut add),
            (5, Value::Len(name)) => {
                for (key, number) in keys.iter().zip(0..) {
                    if *key == MarkKey::SpanName || root && *key == MarkKey::RootSpanName {
                        add(hash(name, number));
                    }
                }
            }
            _ => {}
        }
    }
}

fn of_attribute(keys: &[MarkKey], attribute: &[u8], root: bool, mut add: impl FnMut(u64)) {
    let attribute = KeyValue::new(attribute);
    for (key, number) in keys.iter().zip(0..) {
        let wanted = match key {
            MarkKey::Attribute(name) => **name == *attribute.key,
            MarkKey::RootAttribute(name) => root && **name == *attribute.key,
            _ => false,
        };
        if wanted {
            add(match attribute.value {
                AnyValue::String(bytes) | AnyValue::Bytes(bytes) | AnyValue::Array(bytes) | AnyValue::KvList(bytes) => {
                    hash(bytes, number)
                }
                AnyValue::Int(value) => hash(&value.to_le_bytes(), number),
                AnyValue::Double(value) => hash(&value.to_le_bytes(), number),
                AnyValue::Bool(value) => hash(&[u8::from(value)], number),
                AnyValue::Empty => continue,
            });
        }
    }
}

/// A value of the key of this number; never 0.
fn hash(value: &[u8], key: u64) -> u64 {
    (finish(Fnv::of(value).value()) & !KEY | key).max(KEY + 1)
}

/// One number for the marks of some keys; never 0.
pub(super) fn combine(keys: &[usize], marks: &Marks) -> u64 {
    let one = |hash: u64, &key: &usize| finish(hash.rotate_left(7) ^ marks.get(key).copied().unwrap_or(0));
    keys.iter().fold(1, one).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The marks of a trace with these values of the first key, in this order; and how many nodes it takes.
    fn marks_of(values: impl IntoIterator<Item = u32>) -> (Marks, usize) {
        let (mut nodes, mut first) = (Vec::<Node>::new(), NO_NODE);
        for value in values {
            nodes.include(&mut first, hash(&value.to_le_bytes(), 0));
        }
        (nodes.marks(first), nodes.len())
    }

    /// Guarantee: traces that differ in one of many values have keys of their own, up to the most values that are told
    /// apart; and what is beyond that is told by the smallest hashes.
    #[test]
    fn sets_that_differ_in_one_value_are_told_apart() {
        for size in [1, 2, 8, 20, 30, MOST as u32 - 1, MOST as u32] {
            let mut seen = HashSet::new();
            for other in 0..200 {
                let set = (0..size - 1).chain([1000 + other]);
                assert!(seen.insert(marks_of(set).0), "{size} values, the last of which is {other}");
            }
            assert!(seen.insert(marks_of(0..size - 1).0), "one value less");
        }
        let many = |last: u32| marks_of((0..MOST as u32 * 4).chain([last])).0;
        let differ = (0..400).filter(|last| many(1000 + last) != many(5000 + last)).count();
        // Each of the two is among the smallest with one in four.
        assert!((120..240).contains(&differ), "{differ} of 400");
    }

    /// Guarantee: the order of values does not matter, nor how often they come, nor how they were distributed among
    /// requests; and memory is bounded.
    #[test]
    fn a_set_is_the_same_in_any_order_and_in_any_parts() {
        let mut rng = StdRng::seed_from_u64(7);
        for round in 0..300 {
            let size = rng.random_range(1..if round % 3 == 0 { 500 } else { 40 });
            let mut values: Vec<(u32, u64)> =
                (0..size).map(|_| (rng.random_range(0..size), rng.random_range(0..MAX_KEYS as u64))).collect();
            let (mut whole, mut first) = (Vec::<Node>::new(), NO_NODE);
            for &(value, key) in &values {
                whole.include(&mut first, hash(&value.to_le_bytes(), key));
            }
            let expected = whole.marks(first);
            let distinct: BTreeSet<_> = values.iter().copied().collect();
            assert!(whole.len() <= distinct.len().min(MOST * MAX_KEYS).div_ceil(Node::VALUES));

            values.shuffle(&mut rng);
            let (mut trace, mut first) = (Vec::<Node>::new(), NO_NODE);
            for part in values.chunks(rng.random_range(1..20)) {
                let (mut request, mut begin) = (Vec::<Node>::new(), NO_NODE);
                for &(value, key) in part {
                    request.include(&mut begin, hash(&value.to_le_bytes(), key));
                }
                let before = trace.len();
                for node in &request {
                    for &value in node.values() {
                        trace.include(&mut first, value);
                    }
                }
                assert!(trace.len() <= before + request.len(), "as much as the request's own");
            }
            assert_eq!(trace.marks(first), expected, "round {round}");
        }
    }

    #[test]
    fn keys_and_their_order_are_told_apart() {
        let mut nodes = Vec::<Node>::new();
        let (mut one, mut other) = (NO_NODE, NO_NODE);
        nodes.include(&mut one, hash(b"value", 0));
        nodes.include(&mut other, hash(b"value", 1));
        let (one, other) = (nodes.marks(one), nodes.marks(other));
        assert_ne!(combine(&[0, 1], &Marks::default()), 0);
        assert_ne!(combine(&[0, 1], &one), combine(&[0, 1], &other));
        assert_ne!(combine(&[0, 1], &one), combine(&[1, 0], &one));
        assert_eq!(combine(&[1], &one), combine(&[0], &other));
    }
}
