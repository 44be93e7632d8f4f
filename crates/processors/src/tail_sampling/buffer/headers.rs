//! Resource and scope headers, each stored once.
//!
//! A header is what a `ResourceSpans` or `ScopeSpans` holds beside its children, whole: schema URL
//! and unknown fields too. What is kept of a client is a header too, above its resources. It is kept as long as a block of the log may refer to it: each header
//! knows the last block that does, and a sweep that moves on with every new header removes those
//! whose block is gone. The hash is keyed, so nobody outside can make headers collide.

use super::index::Index;
use super::slab::{Slab, Slot};

/// No header: the parent of clients, and of resources whose client is not told.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Header {
    pub(super) bytes: Box<[u8]>,
    /// A scope's resource, a resource's client, or [`NONE`].
    pub(super) parent: u32,
    hash: u64,
    /// The last block of the log with a record that refers to it.
    last_used: u64,
    live: bool,
    /// Where the batch that is being assembled collects its records: valid if the batch's number
    /// is this one.
    pub(super) batch: u64,
    pub(super) group: u32,
}

impl Slot for Header {
    fn empty() -> Self {
        Self { bytes: Box::default(), parent: NONE, hash: 0, last_used: 0, live: false, batch: 0, group: 0 }
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.group
    }
}

/// What the allocator takes for a header's bytes beside them.
const ALLOCATION: usize = 16;
/// How many headers are looked at for each new one.
const SWEEP: u32 = 4;

#[derive(Debug)]
pub(super) struct Headers {
    index: Index,
    entries: Slab<Header>,
    hand: u32,
    bytes: usize,
}

impl Default for Headers {
    fn default() -> Self {
        Self { index: Index::with_capacity(0), entries: Slab::default(), hand: 0, bytes: 0 }
    }
}

impl Headers {
    /// Memory for so many more headers with so many bytes, at most.
    pub(super) const fn growth(headers: usize, bytes: usize) -> usize {
        Slab::<Header>::growth(headers) + Index::growth(headers) + headers * ALLOCATION + bytes
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.entries.bytes() + self.index.bytes()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Header> {
        self.entries.get(id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Header> {
        self.entries.get_mut(id)
    }

    /// The header with these bytes below `parent`, which stays until `block` is gone. `hash` is a
    /// keyed hash of `bytes`; blocks before `oldest_block` are gone.
    pub(super) fn intern(&mut self, bytes: &[u8], hash: u64, parent: u32, block: u64, oldest_block: u64) -> u32 {
        let hash = hash ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entries = &self.entries;
        let same = |id: u32| {
            entries
                .get(id)
                .is_some_and(|header| header.hash == hash && header.parent == parent && *header.bytes == *bytes)
        };
        if let Some(id) = self.index.find(fold(hash), same) {
            if let Some(header) = self.entries.get_mut(id) {
                header.last_used = header.last_used.max(block);
            }
            return id;
        }
        self.sweep(oldest_block, SWEEP);
        let header = Header { bytes: bytes.into(), parent, hash, last_used: block, live: true, batch: 0, group: 0 };
        self.bytes += bytes.len() + ALLOCATION;
        let id = self.entries.take(header);
        self.index.insert(fold(hash), id);
        id
    }

    /// Notes that a record in `block` refers to scope `id`.
    #[inline]
    pub(super) fn touch(&mut self, id: u32, block: u64) {
        let Some(scope) = self.entries.get_mut(id) else {
            return;
        };
        // What is above is never older than what is below it.
        if scope.last_used >= block {
            return;
        }
        scope.last_used = block;
        let mut parent = scope.parent;
        while let Some(above) = self.entries.get_mut(parent).filter(|above| above.last_used < block) {
            above.last_used = block;
            parent = above.parent;
        }
    }

    /// Looks at the next `count` headers, and removes those whose last block is gone.
    pub(super) fn sweep(&mut self, oldest_block: u64, count: u32) {
        let end = self.entries.slots().end;
        for _ in 0..count.min(end) {
            self.hand = (self.hand + 1) % end;
            let hand = self.hand;
            let Some(header) = self.entries.get(hand).filter(|header| header.live && header.last_used < oldest_block)
            else {
                continue;
            };
            self.index.remove(fold(header.hash), hand);
            self.bytes -= header.bytes.len() + ALLOCATION;
            self.entries.give_back(hand);
        }
    }
}

/// The tag of a hash.
fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}
