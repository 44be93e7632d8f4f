//! What few traces have beside their slot.

use super::slab::{Slab, Slot};
use crate::tail_sampling::rules::extra::{Extra, Extras, NO_EXTRA};
use crate::tail_sampling::rules::marks::{Marks, Node, Nodes};

/// The extras of a shard's traces, and the values that adaptive rates go by.
#[derive(Debug, Default)]
pub(super) struct TraceExtras {
    extras: Slab<Extra>,
    nodes: Slab<Node>,
}

impl TraceExtras {
    /// By how much the memory of so many shards can grow when so many extras come, with so many nodes.
    pub(super) const fn growth(shards: usize, extras: usize, nodes: usize) -> usize {
        const fn of<T: Slot>(shards: usize, slots: usize) -> usize {
            if slots == 0 { 0 } else { shards * Slab::<T>::growth(0) + Slab::<T>::growth(slots) }
        }
        of::<Extra>(shards, extras) + of::<Node>(shards, nodes)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.extras.bytes() + self.nodes.bytes()
    }

    /// What is kept at `place`, which may be [`NO_EXTRA`].
    pub(super) fn get(&self, place: u32) -> &Extra {
        if place == NO_EXTRA {
            return &Extra::NONE;
        }
        self.extras.get(place).unwrap_or(&Extra::NONE)
    }

    /// What is kept at `place`; takes a place first if that is [`NO_EXTRA`].
    pub(super) fn at(&mut self, place: &mut u32) -> Option<&mut Extra> {
        if *place == NO_EXTRA {
            *place = self.extras.take(Extra::NONE);
        }
        self.extras.get_mut(*place)
    }

    /// What adaptive rates know the trace by whose extra is at `place`.
    pub(super) fn marks(&self, place: u32) -> Marks {
        self.nodes.marks(self.get(place).values)
    }

    /// Adds to what is kept at `place` what a request has at `other`.
    pub(super) fn merge(&mut self, place: &mut u32, request: &Extras, other: u32) {
        let other = request.get(other);
        let Some(extra) = self.at(place) else {
            return;
        };
        extra.given.merge(other.given);
        let mut first = extra.values;
        for value in request.values(other) {
            self.nodes.include(&mut first, value);
        }
        if let Some(extra) = self.extras.get_mut(*place) {
            extra.values = first;
        }
    }

    /// Gives a place back, unless it is [`NO_EXTRA`].
    pub(super) fn remove(&mut self, place: u32) {
        if place == NO_EXTRA {
            return;
        }
        let mut at = self.get(place).values;
        while let Some(next) = self.nodes.get(at).map(|node| node.next) {
            self.nodes.give_back(at);
            at = next;
        }
        self.extras.give_back(place);
    }
}

impl Nodes for Slab<Node> {
    fn node(&self, at: u32) -> Option<&Node> {
        self.get(at)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node> {
        self.get_mut(at)
    }

    fn add(&mut self, node: Node) -> u32 {
        self.take(node)
    }
}

impl Slot for Extra {
    fn empty() -> Self {
        Self::NONE
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.values
    }
}

impl Slot for Node {
    fn empty() -> Self {
        Self::EMPTY
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.next
    }
}
