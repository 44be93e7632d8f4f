//! Who gets into the queue.

use std::sync::Arc;

use super::{OnFull, QueueConfig, Sizer};
use crate::batch::{Batch, Code, Permit, Permits, Refusal, Room, while_wanted};

/// The room of one queue: what `queue_size` counts, and bytes.
#[derive(Debug)]
pub(super) struct Admission {
    rooms: Vec<(Sizer, Arc<Room>)>,
    /// Whoever finds no room waits for it (`block_on_overflow`).
    pub(super) wait: bool,
    pub(super) on_full: OnFull,
}

/// Why a batch did not get in.
#[derive(Debug)]
pub(super) enum Turned {
    /// There is no room now.
    Full(Refusal),
    /// There will never be room.
    TooLarge(Refusal),
}

impl From<Turned> for Refusal {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Full(refusal) | Turned::TooLarge(refusal) => refusal,
        }
    }
}

impl Admission {
    pub(super) fn new(config: &QueueConfig) -> Self {
        let sizer = config.sizer();
        let mut rooms = vec![(sizer, Room::new(config.queue_size))];
        if sizer != Sizer::Bytes {
            let max_bytes = usize::try_from(config.max_bytes.0).unwrap_or(usize::MAX);
            rooms.push((Sizer::Bytes, Room::new(max_bytes)));
        }
        Self { rooms, wait: config.block_on_overflow, on_full: config.on_full }
    }

    /// What so much counts as, by each bound; `queue_size` first.
    pub(super) fn units(&self, requests: usize, items: usize, bytes: usize) -> Vec<usize> {
        let units = |sizer| match sizer {
            Sizer::Requests => requests,
            Sizer::Items => items,
            Sizer::Bytes => bytes,
        };
        self.rooms.iter().map(|(sizer, _)| units(*sizer)).collect()
    }

    /// Room for what is there already, whether or not there is any.
    pub(super) fn take(&self, units: &[usize]) -> Vec<Permit> {
        self.rooms.iter().zip(units).map(|((_, room), units)| room.take(*units)).collect()
    }

    /// Room for `batch`: what was reserved for it, or else new room; waits for it if that is
    /// configured, as long as whoever brings the batch does.
    pub(super) async fn admit(&self, batch: &Batch, reserved: &mut Permits) -> Result<Vec<Permit>, Turned> {
        let mut permits = Vec::with_capacity(self.rooms.len());
        for (sizer, room) in &self.rooms {
            if let Some(permit) = reserved.take(room) {
                permits.push(permit);
                continue;
            }
            let units = measure(*sizer, batch);
            if units > room.capacity() {
                return Err(Turned::TooLarge(too_large(*sizer, units, room.capacity())));
            }
            let permit = match room.try_reserve(units) {
                Some(permit) => permit,
                None if self.wait => while_wanted(room.reserve(units)).await.map_err(Turned::Full)?,
                None => return Err(Turned::Full(Refusal::retryable(None, "sending queue is full"))),
            };
            permits.push(permit);
        }
        Ok(permits)
    }
}

fn measure(sizer: Sizer, batch: &Batch) -> usize {
    match sizer {
        Sizer::Requests => 1,
        Sizer::Items => batch.items(),
        // What is kept of the client's headers waits with it.
        Sizer::Bytes => batch.size().saturating_add(batch.metadata().footprint()),
    }
}

fn too_large(sizer: Sizer, units: usize, capacity: usize) -> Refusal {
    let unit = if sizer == Sizer::Items { "items" } else { "bytes" };
    let message = format!(
        "element size too large: {units} {unit} do not fit into a sending queue of {capacity} {unit}; send smaller \
         requests, or raise sending_queue.queue_size (or max_bytes)"
    );
    Refusal::permanent(message).with_code(Code::InvalidArgument)
}
