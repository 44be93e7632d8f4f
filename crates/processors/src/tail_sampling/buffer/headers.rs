//! Resource and scope headers, each stored once.
//!
//! A header is what a `ResourceSpans` or `ScopeSpans` holds beside its children, whole: schema URL
//! and unknown fields too. It is kept as long as a block of the log may refer to it: each header
//! knows the last block that does, and a sweep that moves on with every new header removes those
//! whose block is gone. The hash is keyed, so nobody outside can make headers collide.

use hashbrown::HashTable;

/// No header: the parent of resources.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Header {
    pub(super) bytes: Box<[u8]>,
    /// A scope's resource; [`NONE`] for a resource.
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

/// What a header costs beside its bytes.
const OVERHEAD: usize = size_of::<Header>() + 16;
/// How many headers are looked at for each new one.
const SWEEP: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Headers {
    table: HashTable<u32>,
    entries: Vec<Header>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
}

impl Headers {
    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, id: u32) -> Option<&Header> {
        self.entries.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Header> {
        self.entries.get_mut(id as usize)
    }

    /// The header with these bytes below `parent`, which stays until `block` is gone. `hash` is a
    /// keyed hash of `bytes`; blocks before `oldest_block` are gone.
    pub(super) fn intern(&mut self, bytes: &[u8], hash: u64, parent: u32, block: u64, oldest_block: u64) -> u32 {
        let hash = hash ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entries = &self.entries;
        let same = |id: &u32| {
            entries
                .get(*id as usize)
                .is_some_and(|header| header.hash == hash && header.parent == parent && *header.bytes == *bytes)
        };
        if let Some(&id) = self.table.find(hash, same) {
            if let Some(header) = self.entries.get_mut(id as usize) {
                header.last_used = header.last_used.max(block);
            }
            return id;
        }
        self.sweep(oldest_block);
        let header = Header { bytes: bytes.into(), parent, hash, last_used: block, live: true, batch: 0, group: 0 };
        self.bytes += bytes.len() + OVERHEAD;
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(entry) = self.entries.get_mut(id as usize) {
                    *entry = header;
                }
                id
            }
            None => {
                self.entries.push(header);
                (self.entries.len() - 1) as u32
            }
        };
        let entries = &self.entries;
        self.table.insert_unique(hash, id, |id| entries.get(*id as usize).map_or(0, |header| header.hash));
        id
    }

    /// Notes that a record in `block` refers to scope `id`.
    #[inline]
    pub(super) fn touch(&mut self, id: u32, block: u64) {
        let Some(scope) = self.entries.get_mut(id as usize) else {
            return;
        };
        // A resource is never older than its scopes.
        if scope.last_used >= block {
            return;
        }
        scope.last_used = block;
        let parent = scope.parent;
        if let Some(resource) = self.entries.get_mut(parent as usize) {
            resource.last_used = resource.last_used.max(block);
        }
    }

    fn sweep(&mut self, oldest_block: u64) {
        for _ in 0..SWEEP.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let hand = self.hand;
            let Some(header) = self.entries.get_mut(hand) else {
                return;
            };
            if !header.live || header.last_used >= oldest_block {
                continue;
            }
            header.live = false;
            self.bytes -= header.bytes.len() + OVERHEAD;
            header.bytes = Box::default();
            let hash = header.hash;
            if let Ok(entry) = self.table.find_entry(hash, |id| *id as usize == hand) {
                entry.remove();
            }
            self.free.push(hand as u32);
        }
    }
}
