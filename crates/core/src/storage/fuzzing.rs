//! What holds for every file: the body of a fuzz target, which ordinary tests run too.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzz body reports")]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Engine, Incoming, Limits};
use super::faulty::FaultyDisk;
use super::format::{FileHeader, FileKind};
use super::stats::Stats;
use super::{Cursor, Fsync, Record};

/// Opens a log whose only segment, and whose ack file, are foreign bytes: as they are, behind valid
/// headers, and as damage to a segment that was written. Whatever they are: opening works, reading
/// ends, a record that is read was written by the log, and opening again finds the same.
pub fn segment_reader(data: &[u8]) {
    let (segment, acks) = data.split_at(data.len() / 2);
    check(segment.to_vec(), acks.to_vec());

    let flag = |bit: u8| data.first().is_some_and(|byte| byte >> bit & 1 == 1);
    let header = FileHeader { base: 1, salt: 0, reused: flag(0), packed: flag(1), format: 3 * u32::from(flag(2)) };
    let behind = |kind, bytes: &[u8]| [header.encode(kind).as_slice(), bytes].concat();
    check(behind(FileKind::Segment, segment), behind(FileKind::Acks, acks));

    let payloads: Vec<&[u8]> = segment.chunks(29).take(20).collect();
    let disk = FaultyDisk::new(0);
    let mut engine = open(&disk, 5);
    let records: Vec<Incoming> =
        payloads.iter().map(|payload| Incoming::new(1, 1, 1, vec![Bytes::copy_from_slice(payload)])).collect();
    assert!(engine.append(&records).iter().all(Result::is_ok));
    engine.release(2..4);
    engine.settle();
    drop(engine);
    let content = |kind: FileKind| disk.content(&kind.name(1)).unwrap_or_default();
    let (mut segment, mut ack_file) = (content(FileKind::Segment), content(FileKind::Acks));
    for edit in acks.chunks_exact(4).take(8) {
        let file = if edit[0] & 1 == 0 { &mut segment } else { &mut ack_file };
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        match edit[0] >> 1 & 3 {
            0 => file.truncate(at),
            1 if at < file.len() => _ = file.remove(at),
            2 if at < file.len() => file.insert(at, edit[3]),
            _ => file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= edit[3]),
        }
    }
    for record in check(segment, ack_file) {
        let index = usize::try_from(record.position.sequence - 1).unwrap();
        assert_eq!(payloads.get(index).copied(), Some(record.payload.as_ref()), "a record nobody wrote");
    }
}

fn open(disk: &FaultyDisk, salt: u64) -> Engine {
    let directory = PathBuf::from("memory");
    let limits = Limits { directory, max_bytes: 1 << 30, segment_bytes: 1 << 20, fsync: Fsync::None, format: 1 };
    let mut engine = Engine::new(Arc::new(disk.clone()), limits, Arc::new(Stats::default()), Box::new(move || salt));
    engine.recover().expect("a directory that can be listed can be opened");
    engine
}

fn check(segment: Vec<u8>, acks: Vec<u8>) -> Vec<Record> {
    let disk = FaultyDisk::new(0);
    disk.put(&FileKind::Segment.name(1), segment);
    disk.put(&FileKind::Acks.name(1), acks);
    let first = read_all(&mut open(&disk, 9), 100);
    let mut engine = open(&disk, 10);
    assert_eq!(read_all(&mut engine, 1 << 20), first, "opened again");
    assert_eq!(engine.stats.usage().records, first.len() as u64);
    assert!(first.is_sorted_by_key(|record| record.position.sequence));
    // It takes records again.
    let answer = engine.append(&[Incoming::new(1, 1, 1, vec![Bytes::from_static(b"new")])]);
    assert!(answer.iter().all(Result::is_ok));
    let all = read_all(&mut engine, 1 << 20);
    assert_eq!(all.len(), first.len() + 1);
    first
}

/// Everything that is not released.
pub(super) fn read_all(engine: &mut Engine, at_once: usize) -> Vec<Record> {
    let (mut records, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let chunk = engine.read(cursor, at_once).expect("the disk can be read");
        cursor = chunk.next;
        records.extend(chunk.records);
        if chunk.is_end {
            return records;
        }
    }
}
