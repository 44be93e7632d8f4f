//! A log whose blocks are compressed, beside one whose are not.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

const CODECS: [Compression; 2] = [Compression::Lz4, Compression::Zstd];
const CONTENTS: Contents = Contents { spans: 3, root: Contents::NO_ROOT, trace_state: true, later: true };

/// A log that compresses, and the same without.
struct Pair {
    plain: Log,
    frozen: Log,
    /// The first and the last record of each trace, and what is in its records.
    traces: Vec<(Addr, Addr, Vec<Vec<u8>>)>,
    random: SmallRng,
    thawed: usize,
}

impl Pair {
    fn new(block_size: usize, codec: Compression, seed: u64) -> Self {
        Self {
            plain: Log::new(block_size, Compression::None, 0),
            frozen: Log::new(block_size, codec, 0),
            traces: Vec::new(),
            random: SmallRng::seed_from_u64(seed),
            thawed: 0,
        }
    }

    /// Words that repeat themselves and numbers that do not; or nothing but those.
    fn bytes(&mut self, len: usize, is_noise: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            if is_noise || self.random.random_bool(0.1) {
                bytes.extend_from_slice(&self.random.random::<[u8; 8]>());
            } else {
                let word = ["http.request.method", "GET", "url.path", "/api/v1/orders"][self.random.random_range(0..4)];
                bytes.extend_from_slice(word.as_bytes());
            }
        }
        bytes.truncate(len);
        bytes
    }

    fn append(&mut self, bytes: &[u8]) -> Addr {
        let addr = self.plain.append(bytes, 7, CONTENTS).unwrap();
        assert_eq!(self.frozen.append(bytes, 7, CONTENTS), Some(addr));
        addr
    }

    /// A span of a new trace, or of one that is there.
    fn add(&mut self, bytes: Vec<u8>, trace: Option<usize>) {
        let addr = self.append(&bytes);
        match trace {
            Some(trace) => {
                let (_, last, records) = &mut self.traces[trace];
                for log in [&mut self.plain, &mut self.frozen] {
                    log.link(*last, addr);
                }
                *last = addr;
                records.push(bytes);
            }
            None => {
                for log in [&mut self.plain, &mut self.frozen] {
                    log.add_first(addr);
                }
                self.traces.push((addr, addr, vec![bytes]));
            }
        }
    }

    fn drop_trace(&mut self, trace: usize) {
        let (first, ..) = self.traces.swap_remove(trace);
        for log in [&mut self.plain, &mut self.frozen] {
            log.remove_first(first);
            log.free_unused();
        }
    }

    fn freeze(&mut self) {
        if self.frozen.has_to_freeze(u64::MAX) {
            let keep = self.random.random_bool(0.5);
            self.frozen.freeze_next(keep);
        }
    }

    /// Copies what lives in the oldest block, as a shard does.
    fn compact(&mut self) {
        let (data, none) = self.plain.take_oldest();
        let (other, _) = self.frozen.take_oldest();
        assert_eq!(none, 0);
        assert!(data == other, "what was compressed is what it was");
        for index in 0..self.traces.len() {
            let (first, mut last, records) = self.traces[index].clone();
            let mut next = first;
            let mut copies = Vec::new();
            while self.plain.in_oldest(next) {
                assert!(self.frozen.in_oldest(next));
                let (record, bytes) = record::read(&data, self.plain.offset(next)).unwrap();
                copies.push(self.append(bytes));
                next = record.next;
            }
            let Some(&first_copy) = copies.first() else { continue };
            let links = copies.windows(2).map(|pair| (pair[0], pair[1]));
            let joint = (next != Addr::NONE).then_some((last, first_copy));
            for (from, to) in links.chain(joint) {
                self.plain.link(from, to);
                self.frozen.link(from, to);
            }
            let new_first = if next == Addr::NONE { first_copy } else { next };
            last = *copies.last().unwrap();
            for log in [&mut self.plain, &mut self.frozen] {
                log.remove_first(first);
                log.add_first(new_first);
            }
            // Records of one trace stand in another order now.
            let mut records = records;
            records.rotate_left(copies.len());
            self.traces[index] = (new_first, last, records);
        }
        for (log, data) in [(&mut self.plain, data), (&mut self.frozen, other)] {
            log.recycle(data);
            log.free_unused();
        }
    }

    /// What the trace's records hold is what came.
    fn check(&mut self, trace: usize) {
        let (first, last, records) = self.traces[trace].clone();
        for log in [&mut self.plain, &mut self.frozen] {
            let (mut addr, mut before) = (first, Addr::NONE);
            for expected in &records {
                self.thawed += log.thaw(addr).unwrap_or_default();
                let (record, bytes) = log.read(addr).unwrap();
                assert!(bytes == expected);
                assert_eq!((record.scope, record.contents, record.len), (7, CONTENTS, expected.len()));
                (before, addr) = (addr, record.next);
            }
            assert_eq!((before, addr), (last, Addr::NONE));
        }
    }

    /// Sums are those of what is there.
    fn check_sums(&self) {
        for log in [&self.plain, &self.frozen] {
            let blocks = || log.blocks.iter();
            assert_eq!(log.charged, blocks().map(|block| block.charged).sum::<usize>());
            let memory = |block: &Block| if block.frozen.is_some() { log.block_size } else { block.data.capacity() };
            assert_eq!(log.bytes, blocks().map(memory).sum::<usize>());
            let frozen = || blocks().filter_map(|block| block.frozen.as_deref());
            let expected = FrozenBlocks {
                count: frozen().count(),
                bytes: frozen().map(Frozen::bytes).sum(),
                raw: frozen().map(Frozen::raw_len).sum(),
            };
            assert_eq!(log.frozen, expected);
            for block in blocks().filter(|block| block.frozen.is_some()) {
                assert_eq!((block.data.capacity(), block.charged), (0, block.frozen.as_ref().unwrap().bytes()));
            }
        }
        assert_eq!(
            (self.plain.bytes(), self.plain.oldest(), self.plain.blocks()),
            (self.frozen.bytes(), self.frozen.oldest(), self.frozen.blocks())
        );
    }
}

/// Guarantee: whatever is done, what is compressed is read as if it were not, each record is where it would be, and the sums
/// that the budget is charged by are true.
#[test]
fn it_reads_as_if_nothing_were_compressed() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    for round in 0..24 {
        let block_size = [4096, 16 << 10, 64 << 10, 1 << 20][round / 2 % 4];
        let mut pair = Pair::new(block_size, CODECS[round % 2], seed.wrapping_add(round as u64));
        let noise = [0.0, 0.3, 1.0][round % 3];
        let mut frozen = 0;
        for step in 0..1500 {
            match pair.random.random_range(0..100) {
                0..60 => {
                    let most = match pair.random.random_range(0..20) {
                        _ if step % 500 == 0 => block_size * 2,
                        0..12 => 500,
                        12..16 => 40,
                        _ => (block_size / 3).min(20_000),
                    };
                    let len = pair.random.random_range(1..most);
                    let is_noise = pair.random.random_bool(noise);
                    let bytes = pair.bytes(len, is_noise);
                    let trace = (!pair.traces.is_empty() && pair.random.random_bool(0.7))
                        .then(|| pair.random.random_range(0..pair.traces.len()));
                    pair.add(bytes, trace);
                }
                60..75 => pair.freeze(),
                75..80 if pair.plain.blocks() > 2 => pair.compact(),
                80..85 if !pair.traces.is_empty() => {
                    let trace = pair.random.random_range(0..pair.traces.len());
                    pair.drop_trace(trace);
                }
                _ if !pair.traces.is_empty() => {
                    let trace = pair.random.random_range(0..pair.traces.len());
                    pair.check(trace);
                }
                _ => {}
            }
            pair.check_sums();
            frozen = frozen.max(pair.frozen.frozen().count);
        }
        (0..pair.traces.len()).for_each(|trace| pair.check(trace));
        let expected = noise < 1.0 && block_size < 1 << 20;
        assert!(frozen > 0 || !expected, "round {round}: nothing was compressed");
        assert!(pair.thawed > 0 || !expected, "round {round}: nothing was read");
        while !pair.traces.is_empty() {
            pair.drop_trace(0);
        }
        pair.check_sums();
        assert_eq!(pair.frozen.frozen(), FrozenBlocks::default());
        assert!(pair.frozen.blocks() <= 1);
    }
}

/// A log of `count` records in one trace each.
fn filled(codec: Compression, count: usize, noise: bool) -> (Pair, usize) {
    let mut pair = Pair::new(64 << 10, codec, 5);
    for _ in 0..count {
        let bytes = pair.bytes(400, noise);
        pair.add(bytes, None);
    }
    let before = pair.frozen.charged();
    while pair.frozen.has_to_freeze(u64::MAX) {
        pair.frozen.freeze_next(false);
    }
    (pair, before)
}

/// Guarantee: a trace goes on where its last record is compressed, and that is charged for.
#[test]
fn a_compressed_record_can_be_linked() {
    for codec in CODECS {
        let (mut pair, _) = filled(codec, 1000, false);
        pair.check(0);
        let before = pair.frozen.charged();
        for trace in 0..100 {
            let bytes = pair.bytes(30, false);
            pair.add(bytes, Some(trace));
            // Also in a copy that is there already.
            pair.check(trace);
            pair.check_sums();
        }
        let grown = pair.frozen.charged() - before;
        assert!((100 * 8..=100 * Frozen::PATCH).contains(&grown), "{grown}");
        assert!(pair.thawed > 0);
    }
}

/// Guarantee: what has no pattern stays as it is, is looked at once, and takes nothing more.
#[test]
fn what_does_not_become_smaller_stays_as_it_is() {
    for codec in CODECS {
        let (mut pair, before) = filled(codec, 1000, true);
        assert_eq!(pair.frozen.frozen(), FrozenBlocks::default());
        assert_eq!(pair.frozen.charged(), before);
        assert!(!pair.frozen.has_to_freeze(u64::MAX));
        (0..1000).for_each(|trace| pair.check(trace));
        assert_eq!(pair.thawed, 0);
    }
}

/// Guarantee: a block takes less than half of what it did, its memory is given back, and reading it in order decompresses each
/// chunk once.
#[test]
fn reading_in_order_decompresses_each_chunk_once() {
    for codec in CODECS {
        let (mut pair, before) = filled(codec, 1000, false);
        let FrozenBlocks { count, bytes, raw } = pair.frozen.frozen();
        assert_eq!(count, pair.frozen.blocks() - 1);
        assert!(bytes < raw / 2, "{bytes} of {raw}");
        assert!(pair.frozen.charged() < before - raw / 2);
        (0..1000).for_each(|trace| pair.check(trace));
        assert_eq!(pair.thawed, raw);
        assert!(pair.frozen.take_thaws() <= (raw / 4096 + count) as u64);
        // And back to one that is there.
        pair.check(999);
        assert_eq!((pair.thawed, pair.frozen.take_thaws()), (raw, 0));
    }
}

/// Guarantee: a record larger than a block, which is charged for its copies, is not compressed.
#[test]
fn what_has_a_block_of_its_own_stays_as_it_is() {
    let mut pair = Pair::new(16 << 10, Compression::Zstd, 3);
    for len in [100, 40_000, 100, 16_300, 300] {
        let bytes = pair.bytes(len, false);
        pair.add(bytes, None);
    }
    let charged = pair.frozen.charged();
    while pair.frozen.has_to_freeze(u64::MAX) {
        pair.frozen.freeze_next(false);
    }
    // Those of 100 are alone in blocks of 16 KiB each; what they do not fill is given back too.
    assert_eq!(pair.frozen.frozen().count, 3);
    assert!(pair.frozen.charged() + (30 << 10) < charged);
    (0..5).for_each(|trace| pair.check(trace));
    pair.check_sums();
}

/// Guarantee: a block is compressed when it has been full for the delay, and not much later.
#[test]
fn blocks_are_compressed_after_the_delay() {
    let mut log = Log::new(4096, Compression::Lz4, 1000);
    let fill = |log: &mut Log| {
        let addr = log.append(&[b'x'; 3000], 0, CONTENTS).unwrap();
        log.add_first(addr);
        log.current()
    };
    let old = |log: &mut Log, millis: u64| log.old(millis * 1_000_000);
    assert_eq!(old(&mut log, 10_000), 0);
    for millis in (10_000..20_000).step_by(50) {
        let current = fill(&mut log);
        let old = old(&mut log, millis);
        let age = (current - old) * 50;
        assert!(age <= 1100, "{age} at {millis}");
        assert!(old == 0 || age >= 1000, "{age} at {millis}");
    }
    // Nothing comes, and nobody has looked for long.
    let current = log.current();
    assert_eq!(old(&mut log, 100_000), current);
    // At once, without a delay.
    let mut log = Log::new(4096, Compression::Lz4, 0);
    fill(&mut log);
    let current = fill(&mut log);
    assert_eq!(log.old(0), current);
}
