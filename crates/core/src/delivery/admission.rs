//! Who gets into the queue.

use std::sync::Arc;

use super::{OnFull, QueueConfig, Sizer};
use crate::batch::{Batch, Code, Permit, Permits, Refusal, Room};

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
    Full(Lack),
    /// There will never be room.
    TooLarge(Refusal),
}

/// The room that a batch did not find.
#[derive(Debug)]
pub(super) struct Lack {
    sizer: Sizer,
    room: Arc<Room>,
    units: usize,
}

impl Lack {
    /// The same for whoever gives back `held`, and needs that again.
    pub(super) fn beside(self, held: &Permits) -> Self {
        let units = self.units.saturating_add(held.units_of(&self.room));
        Self { units, ..self }
    }

    /// Waits until there may be room; `on_short` as for [`Room::wait_for`].
    ///
    /// # Errors
    /// If there will never be.
    pub(super) async fn wait(&self, on_short: impl Fn()) -> Result<(), Refusal> {
        let capacity = self.room.capacity();
        if self.units > capacity {
            return Err(too_large(self.sizer, self.units, capacity));
        }
        self.room.wait_for(self.units, on_short).await;
        Ok(())
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

    /// Room for `batch`: what was reserved for it, or else what there is now.
    pub(super) fn admit(&self, batch: &Batch, reserved: &mut Permits) -> Result<Vec<Permit>, Turned> {
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
            let lack = || Turned::Full(Lack { sizer: *sizer, room: Arc::clone(room), units });
            permits.push(room.try_reserve(units).ok_or_else(lack)?);
        }
        Ok(permits)
    }

    /// Does somebody wait for room that is not there?
    pub(super) fn is_short(&self) -> bool {
        self.rooms.iter().any(|(_, room)| room.is_short())
    }
}

pub(super) fn full() -> Refusal {
    Refusal::retryable(None, "sending queue is full")
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
    let unit = match sizer {
        Sizer::Requests => "requests",
        Sizer::Items => "items",
        Sizer::Bytes => "bytes",
    };
    let message = format!(
        "element size too large: {units} {unit} do not fit into a sending queue of {capacity} {unit}; send smaller \
         requests, or raise sending_queue.queue_size (or max_bytes)"
    );
    Refusal::permanent(message).with_code(Code::InvalidArgument)
}
