//! The times that senders give.
//!
//! A sender's times are taken as they are where they tell its own points apart: which one is late, when its stream has
//! begun anew. Whatever is not its own alone (when a collapsed series is reported, until when one was, which streams
//! may have been counted before) has [`Capped`] ones.

use nyquist_core::wire::{Field, Fields, Value};

use crate::skew::{Capped, SkewLimit};

/// The times and flags of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// 0 if unknown.
    pub(super) start: u64,
    pub(super) time: u64,
    /// "No recorded value".
    pub(super) is_end: bool,
    /// What held when the point came.
    pub(super) limit: SkewLimit,
}

impl When {
    pub(super) fn new(limit: SkewLimit, start: u64, time: u64, flags: u32) -> Self {
        Self { start: known_start(start, time), time, is_end: flags & 1 != 0, limit }
    }

    /// Does it come after one that had `start` and `time`?
    pub(super) fn is_late(self, start: u64, time: u64) -> bool {
        self.time < time || (self.start != 0 && self.start < start)
    }

    /// Has the stream begun anew since one that had `start`?
    pub(super) fn has_restarted(self, start: u64) -> bool {
        start != 0 && self.start > start
    }

    /// The start that others' may be compared with: 0 if there is none, or if the clock it is from is wrong.
    pub(super) fn credible_start(self) -> u64 {
        if self.limit.excludes(self.time) { 0 } else { self.start }
    }

    /// Its time, for what is not its stream's alone.
    pub(super) fn capped(self) -> Capped {
        self.limit.cap(self.time)
    }

    /// Since when what it says holds, for what is not its stream's alone.
    pub(super) fn since(self) -> Capped {
        self.limit.cap(if self.start == 0 { self.time } else { self.start })
    }
}

/// Start and time of a point of any kind, as [`When`] has them.
pub(super) fn times_of(point: &[u8]) -> (u64, u64) {
    let (mut start, mut time) = (0, 0);
    for field in Fields::new(point) {
        match field {
            Field { number: 2, value: Value::Fixed64(value) } => start = value,
            Field { number: 3, value: Value::Fixed64(value) } => time = value,
            _ => {}
        }
    }
    (known_start(start, time), time)
}

/// A stream does not start when it is reported, nor later.
fn known_start(start: u64, time: u64) -> u64 {
    if start >= time { 0 } else { start }
}
