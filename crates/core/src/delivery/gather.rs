//! Merging queued requests, behind the ack.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ticket::{Ticket, Work};
use super::{BatchConfig, Request, Sizer};
use crate::wire::SizeLimit;

/// Requests that wait for company.
#[derive(Debug)]
pub(super) struct Gather {
    sizer: Sizer,
    min_size: usize,
    max_size: usize,
    /// Merging stops short of it: what the peer takes at most.
    max_bytes: usize,
    flush_timeout: Duration,
    /// In lower case.
    keys: Vec<String>,
    /// By what there is under `keys`, all values of each; holds no empty partition, so it is bounded by the queue.
    waiting: HashMap<Vec<(String, String)>, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    work: Work,
    due: Instant,
}

impl Gather {
    pub(super) fn new(config: &BatchConfig, queue: Option<Sizer>, max_bytes: usize) -> Self {
        Self {
            sizer: config.sizer_under(queue),
            min_size: config.min_size,
            max_size: if config.max_size == 0 { usize::MAX } else { config.max_size },
            max_bytes,
            flush_timeout: config.flush_timeout.0,
            keys: config.partition.metadata_keys.iter().map(|key| key.to_ascii_lowercase()).collect(),
            waiting: HashMap::new(),
        }
    }

    /// The same with further keys, in lower case, that tell partitions apart.
    pub(super) fn partitioned_by(mut self, keys: Vec<String>) -> Self {
        for key in keys {
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
        self
    }

    /// What tells partitions apart, in lower case.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Takes a request in; what is ready to go is appended to `ready`.
    /// Returns whether something waits now that nothing waited before.
    pub(super) fn add(&mut self, request: Request, ticket: &Arc<Ticket>, ready: &mut VecDeque<Work>) -> bool {
        let was_empty = self.waiting.is_empty();
        let now = Instant::now();
        let key = self.partition_of(&request);
        let mut waiting = self.waiting.remove(&key);
        for piece in self.pieces(request) {
            if let Some(full) = waiting.take_if(|waiting| !self.fits(&waiting.work.request, &piece)) {
                ready.push_back(full.work);
            }
            let current = match waiting.take() {
                None => Waiting { work: Work::new(piece, Arc::clone(ticket)), due: now + self.flush_timeout },
                Some(mut current) => {
                    current.work.merge(piece, Arc::clone(ticket));
                    current
                }
            };
            if self.measure(&current.work.request) >= self.min_size {
                ready.push_back(current.work);
            } else {
                waiting = Some(current);
            }
        }
        if let Some(waiting) = waiting {
            self.waiting.insert(key, waiting);
        }
        was_empty && !self.waiting.is_empty()
    }

    /// `request` in pieces of which each may be sent.
    fn pieces(&self, request: Request) -> Vec<Request> {
        let (bytes, items) = match self.sizer {
            Sizer::Bytes => (self.max_size.min(self.max_bytes), usize::MAX),
            _ => (self.max_bytes, self.max_size),
        };
        request.within(SizeLimit { bytes, items })
    }

    /// When the oldest request has waited long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Moves what is due at `now` to `ready`.
    pub(super) fn flush_due(&mut self, now: Instant, ready: &mut VecDeque<Work>) {
        for (_, waiting) in self.waiting.extract_if(|_, waiting| waiting.due <= now) {
            ready.push_back(waiting.work);
        }
    }

    /// Moves everything to `ready`.
    pub(super) fn flush(&mut self, ready: &mut VecDeque<Work>) {
        ready.extend(self.waiting.drain().map(|(_, waiting)| waiting.work));
    }

    fn fits(&self, waiting: &Request, next: &Request) -> bool {
        let size = self.measure(waiting).saturating_add(self.measure(next));
        size <= self.max_size && waiting.size().saturating_add(next.size()) <= self.max_bytes
    }

    fn measure(&self, request: &Request) -> usize {
        if self.sizer == Sizer::Bytes { request.size() } else { request.items() }
    }

    fn partition_of(&self, request: &Request) -> Vec<(String, String)> {
        request.metadata().under(&self.keys).cloned().collect()
    }
}
