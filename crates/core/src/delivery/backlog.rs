//! What a queue on disk does not hold in memory.

use super::ranges::Ranges;
use crate::batch::Permit;
use crate::storage::{Cursor, Position};
use crate::telemetry::UpDown;

/// Requests that are on disk only: what was there at the start, and what came while memory was full or
/// others waited on disk before it.
pub(super) struct Backlog {
    unread: Ranges,
    cursor: Cursor,
    /// Records with smaller numbers have been read over.
    passed: u64,
    /// The room that they take, by the queue's bounds.
    permits: Vec<Permit>,
    requests: u64,
    items: u64,
    /// The Collector's gauge: counts what is on disk too.
    queue_size: UpDown,
    /// A task reads it back.
    pub(super) is_read: bool,
}

/// What turned out to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) requests: u64,
    pub(super) items: usize,
}

impl Backlog {
    pub(super) fn new(queue_size: UpDown) -> Self {
        Self {
            unread: Ranges::default(),
            cursor: Cursor::default(),
            passed: 0,
            permits: Vec::new(),
            requests: 0,
            items: 0,
            queue_size,
            is_read: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// What was there at the start: everything before `next_sequence`.
    pub(super) fn recover(&mut self, next_sequence: u64, requests: u64, items: u64, permits: Vec<Permit>) {
        if requests == 0 {
            return;
        }
        self.unread.insert(0, next_sequence);
        self.requests = requests;
        self.items = items;
        self.hold(permits);
    }

    /// Would the record at `position` be missed if it were added?
    pub(super) fn has_passed(&self, position: Position) -> bool {
        !self.is_empty() && position.sequence < self.passed
    }

    /// Adds the record at `position`.
    pub(super) fn push(&mut self, position: Position, items: usize, permits: Vec<Permit>) {
        if self.is_empty() {
            self.cursor = Cursor::at(position);
            self.passed = position.sequence;
        }
        self.unread.insert(position.sequence, position.sequence + 1);
        self.requests += 1;
        self.items += items as u64;
        self.hold(permits);
    }

    fn hold(&mut self, permits: Vec<Permit>) {
        self.queue_size.add(first_units(&permits));
        if self.permits.is_empty() {
            self.permits = permits;
        } else {
            self.permits.iter_mut().zip(permits).for_each(|(mine, more)| mine.merge(more));
        }
    }

    /// Where to read, and the number before which a read that begins now sees everything.
    pub(super) fn next_read(&self) -> (Cursor, u64) {
        (self.cursor, self.unread.end())
    }

    /// Takes a record out that has been read; `None` if it is not waiting here. Its permits are
    /// `units` of each bound.
    pub(super) fn take(&mut self, position: Position, items: usize, units: &[usize]) -> Option<Vec<Permit>> {
        if !self.unread.contains(position.sequence) {
            return None;
        }
        self.requests = self.requests.saturating_sub(1);
        self.items = self.items.saturating_sub(items as u64);
        let permits: Vec<Permit> =
            self.permits.iter_mut().zip(units).map(|(permit, units)| permit.split(*units)).collect();
        self.queue_size.sub(first_units(&permits));
        Some(permits)
    }

    /// A read that began at `next_read` has come to `cursor`. If nothing is left then: what should
    /// have been there and was not.
    pub(super) fn advance(&mut self, cursor: Cursor, is_end: bool, until: u64) -> Option<Missing> {
        self.cursor = cursor;
        self.passed = if is_end { cursor.sequence().max(until) } else { cursor.sequence() };
        self.unread.remove_below(self.passed);
        if !self.is_empty() {
            return None;
        }
        self.queue_size.sub(first_units(&self.permits));
        self.permits.clear();
        let missing = Missing {
            requests: std::mem::take(&mut self.requests),
            items: usize::try_from(std::mem::take(&mut self.items)).unwrap_or(usize::MAX),
        };
        (missing.requests > 0 || missing.items > 0).then_some(missing)
    }
}

fn first_units(permits: &[Permit]) -> i64 {
    permits.first().map_or(0, |permit| i64::try_from(permit.units()).unwrap_or(i64::MAX))
}
