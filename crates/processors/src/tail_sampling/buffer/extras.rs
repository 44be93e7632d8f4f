//! What few traces have beside their slot.

use super::slab::{Slab, Slot};
use crate::tail_sampling::rules::extra::{Extra, NO_EXTRA};

/// The extras of a shard's traces.
#[derive(Debug, Default)]
pub(super) struct TraceExtras(Slab<Extra>);

impl TraceExtras {
    /// By how much the memory can grow when `traces` come.
    pub(super) const fn growth(traces: usize) -> usize {
        Slab::<Extra>::growth(traces)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// What is kept at `place`, which may be [`NO_EXTRA`].
    pub(super) fn get(&self, place: u32) -> &Extra {
        if place == NO_EXTRA {
            return &Extra::NONE;
        }
        self.0.get(place).unwrap_or(&Extra::NONE)
    }

    /// What is kept at `place`; takes a place first if that is [`NO_EXTRA`].
    pub(super) fn at(&mut self, place: &mut u32) -> Option<&mut Extra> {
        if *place == NO_EXTRA {
            *place = self.0.take(Extra::NONE);
        }
        self.0.get_mut(*place)
    }

    /// Gives a place back, unless it is [`NO_EXTRA`].
    pub(super) fn remove(&mut self, place: u32) {
        if place != NO_EXTRA {
            self.0.give_back(place);
        }
    }
}

impl Slot for Extra {
    fn empty() -> Self {
        Self::NONE
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.link
    }
}
