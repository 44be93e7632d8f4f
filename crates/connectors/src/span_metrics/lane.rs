//! What one core has counted since it was last asked.
//!
//! Each core has a lane of its own, so that a span finds its series without a lock that others wait
//! for. Only the first span of a series on a core asks the catalog; a report collects what the lanes have.

use hashbrown::HashSet;
use nyquist_core::table::Table;

use super::catalog::{Admitted, Catalog, Excess};
use super::recorder::{Exemplar, Recorder, Shape, Spell};

/// How many fingerprints without a series of their own a lane knows until the next report. Beyond that
/// the catalog is asked again and again.
const MAX_ALIASES: usize = 1 << 16;

/// One core's counts. On cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Lane {
    /// The part of each fingerprint.
    slots: Table<u32>,
    parts: Vec<Part>,
    free: Vec<u32>,
    /// The parts with something in them.
    active: Vec<u32>,
    /// Fingerprints in `slots` that lead to an overflow series.
    aliases: Vec<u64>,
}

/// What a lane has counted of a series.
struct Part {
    fingerprint: u64,
    /// The place of the series in the catalog.
    place: u32,
    excess: Option<Excess>,
    is_active: bool,
    recorder: Recorder,
}

impl Lane {
    /// The part of the series with `fingerprint`, if it was seen here.
    #[inline]
    pub(super) fn find(&self, fingerprint: u64) -> Option<u32> {
        self.slots.get(&fingerprint).copied()
    }

    /// Makes the part of the series that `admitted` says `fingerprint` belongs to.
    #[cold]
    pub(super) fn adopt(&mut self, fingerprint: u64, admitted: Admitted, shape: Option<&Shape>) -> u32 {
        let index = self.find(admitted.fingerprint).unwrap_or_else(|| {
            let part = Part {
                fingerprint: admitted.fingerprint,
                place: admitted.place,
                excess: admitted.excess,
                is_active: false,
                recorder: Recorder::new(shape),
            };
            let index = match self.free.pop() {
                Some(index) => {
                    self.parts[index as usize] = part;
                    index
                }
                None => {
                    self.parts.push(part);
                    self.parts.len() as u32 - 1
                }
            };
            self.slots.insert(admitted.fingerprint, index);
            index
        });
        if admitted.fingerprint != fingerprint && self.aliases.len() < MAX_ALIASES {
            self.aliases.push(fingerprint);
            self.slots.insert(fingerprint, index);
        }
        index
    }

    /// Counts a span in the part at `index`, with at most so many `exemplars`.
    #[inline(always)]
    pub(super) fn record(
        &mut self,
        index: u32,
        shape: &Shape,
        spell: Spell,
        exemplars: usize,
        exemplar: impl FnOnce() -> Option<Exemplar>,
    ) {
        let Some(part) = self.parts.get_mut(index as usize) else { return };
        if !part.is_active {
            part.is_active = true;
            self.active.push(index);
        }
        part.recorder.record(shape, spell);
        if exemplars > 0 && part.excess.is_none() {
            part.recorder.add_exemplar(exemplar, exemplars);
        }
    }

    /// Gives what up to `limit` parts have counted to `catalog`; `overflown` is told how much of it went
    /// to overflow series. Returns whether there is more.
    pub(super) fn collect(
        &mut self,
        catalog: &mut Catalog,
        now: std::time::Duration,
        limit: usize,
        mut overflown: impl FnMut(Excess, u64),
    ) -> bool {
        for fingerprint in self.aliases.drain(..) {
            self.slots.remove(&fingerprint);
        }
        let kept = self.active.len().saturating_sub(limit);
        for index in self.active.drain(kept..) {
            let Some(part) = self.parts.get_mut(index as usize) else { continue };
            if let Some(excess) = part.excess {
                overflown(excess, part.recorder.count);
            }
            catalog.add(part.place, &part.recorder, now);
            part.recorder.clear();
            part.is_active = false;
        }
        kept > 0
    }

    /// Forgets the series of `places`, but for those that it has counted again: these are taken out of
    /// `places`.
    pub(super) fn forget(&mut self, places: &mut HashSet<u32>) {
        let (parts, free) = (&self.parts, &mut self.free);
        self.slots.retain(|fingerprint, index| {
            let Some(part) = parts.get(*index as usize).filter(|part| places.contains(&part.place)) else {
                return true;
            };
            if part.is_active {
                places.remove(&part.place);
                return true;
            }
            if *fingerprint == part.fingerprint {
                free.push(*index);
            }
            false
        });
    }
}
