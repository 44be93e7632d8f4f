//! What few traces have, and few configurations ask for.

use super::marks::{NO_NODE, Node, Nodes};

/// What the spans of a trace say about its sampling in their `tracestate`: explicit randomness of 56
/// bits, or just that a sampler has been there, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given(u64);

impl Given {
    pub(crate) const NOTHING: Self = Self(u64::MAX);
    /// A threshold, without explicit randomness.
    pub(crate) const THRESHOLD: Self = Self(u64::MAX - 1);

    /// Explicit randomness.
    pub(crate) fn randomness(rv: u64) -> Self {
        Self(rv)
    }

    /// The explicit randomness.
    pub(crate) fn rv(self) -> Option<u64> {
        (self.0 < Self::THRESHOLD.0).then_some(self.0)
    }

    /// The randomness that is found first counts.
    pub(crate) fn merge(&mut self, other: Self) {
        if self.rv().is_none() {
            self.0 = self.0.min(other.0);
        }
    }
}

/// Kept beside the state of a trace, for those that need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra {
    pub(crate) given: Given,
    /// The first node of the values that adaptive rates go by; [`NO_NODE`] if there are none. (For whoever keeps extras,
    /// while this one is not in use.)
    pub(crate) values: u32,
    /// What a rule that only tries would have decided: an index into the reasons.
    pub(crate) tried: Option<u16>,
}

/// What an extra takes; part of what the README says of memory.
const _: () = assert!(size_of::<Extra>() == 16);

impl Extra {
    pub(crate) const NONE: Self = Self { given: Given::NOTHING, values: NO_NODE, tried: None };
}

/// No extra.
pub(crate) const NO_EXTRA: u32 = u32::MAX;

/// The extras of a request's runs.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    entries: Vec<Extra>,
    nodes: Vec<Node>,
}

impl Extras {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many nodes of values there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What is kept at `place`, which may be [`NO_EXTRA`].
    pub(crate) fn get(&self, place: u32) -> &Extra {
        self.entries.get(place as usize).unwrap_or(&Extra::NONE)
    }

    /// Adds to what is kept at `place`, and takes a place first if that is [`NO_EXTRA`].
    pub(crate) fn at(&mut self, place: &mut u32) -> Option<&mut Extra> {
        if *place == NO_EXTRA {
            self.entries.push(Extra::NONE);
            *place = (self.entries.len() - 1) as u32;
        }
        self.entries.get_mut(*place as usize)
    }

    /// The values of an extra: those of its first node, and so on.
    pub(crate) fn values(&self, extra: &Extra) -> impl Iterator<Item = u64> {
        let nodes = std::iter::successors(self.nodes.node(extra.values), |node| self.nodes.node(node.next));
        nodes.flat_map(Node::values).copied()
    }

    /// Adds a value to those that begin at `first`.
    pub(crate) fn add_value(&mut self, first: &mut u32, value: u64) {
        self.nodes.include(first, value);
    }

    /// Keeps the values that begin at `first`, if there are any, at `place`.
    pub(crate) fn set_values(&mut self, place: &mut u32, first: u32) {
        if first != NO_NODE
            && let Some(extra) = self.at(place)
        {
            extra.values = first;
        }
    }

    /// Forgets everything; keeps room for `keep`.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.entries.clear();
        self.entries.shrink_to(keep);
        self.nodes.clear();
        self.nodes.shrink_to(keep);
    }
}
