//! Where undecided and kept traces wait: the state of one shard.
//!
//! Span bytes are copied once into a [`log::Log`] of recycled blocks; a trace is a chain of records
//! in it, found through an [`index::Index`] of its id, with its folded state in a [`slab::Slab`].
//! Resource and scope headers are interned in [`headers::Headers`]. What a trace that is dropped
//! leaves behind is never read again: blocks are freed in order, once no trace begins in the first.
//! Blocks that are full may be compressed ([`frozen`]), in a mode of its own.

mod anew;
mod assemble;
mod cache;
mod codec;
mod compact;
mod decide;
mod decisions;
mod extras;
mod fifo;
mod freeze;
mod freezer;
mod frozen;
mod headers;
mod index;
mod ingest;
mod journal;
mod log;
mod pressure;
mod record;
mod rewrite;
mod settings;
mod shard;
mod slab;
mod timers;
mod trace;
mod work;

/// Bytes of memory that so many past decisions take.
pub(super) const fn cache_bytes(entries: u64) -> u64 {
    cache::DecisionCache::bytes_for(entries)
}

pub(super) use assemble::Part;
pub(super) use decisions::{DecisionLog, Record};
pub(super) use freeze::Compressed;

pub(super) use journal::{Note, Outcome};
pub(super) use record::{Contents, LATER};
pub(super) use settings::Settings;
pub(super) use shard::{Arrival, Shard};
pub(super) use trace::Why;
