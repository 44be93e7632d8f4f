//! Records that stay do not keep the files of those that are gone.

use super::*;
use crate::storage::Disk;
use crate::storage::faulty::Faults;
use crate::storage::format::FileKind;

const LIMIT: u64 = 20_000;

/// A log of which each segment has had eight records, of which the third is left; its limit is reached several
/// times over.
fn pinned(disk: &FaultyDisk) -> (Engine, Vec<u64>) {
    let (mut engine, _) = open(disk, limits(Fsync::None, LIMIT));
    let mut kept = Vec::new();
    for round in 0..60u8 {
        let answers = engine.append(&(0..8).map(|_| record(&[round; 100])).collect::<Vec<_>>());
        let positions: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().sequence).collect();
        let stays = positions[2];
        positions.into_iter().filter(|sequence| *sequence != stays).for_each(|one| engine.release(one..one + 1));
        engine.settle();
        kept.push(stays);
    }
    (engine, kept)
}

fn sequences(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.position.sequence).collect()
}

/// Scenario: one record of each segment stays, for much longer than the log has room for whole segments. Guarantee:
/// the log goes on taking records, keeps its limit, and gives back what stayed, in order and unchanged, now and
/// after a restart.
#[test]
fn a_pinned_segment_is_packed() {
    let disk = FaultyDisk::new(0);
    let (mut engine, kept) = pinned(&disk);
    assert!(disk.bytes_of("") <= LIMIT);
    let records = read_all(&mut engine, 1000);
    assert_eq!(sequences(&records), kept);
    assert!(records.iter().enumerate().all(|(round, record)| record.payload == vec![round as u8; 100]));
    assert!(!disk.names().iter().any(|name| name.ends_with(".packing")), "{:?}", disk.names());

    drop(engine);
    let (mut engine, recovered) = open(&disk, limits(Fsync::None, LIMIT));
    assert_eq!((recovered.records, recovered.usage.corrupt_records, recovered.usage.torn_bytes), (60, 0, 0));
    assert_eq!(read_all(&mut engine, 1000), records);
    engine.release(0..u64::MAX);
    engine.settle();
    assert_eq!(disk.bytes_of(".seg"), 0, "{:?}", disk.names());
}

/// Scenario: a sampler's log, which holds the records of some time and lets go of the oldest, while it takes more than
/// half of its limit. Guarantee: nothing is packed: whole files come free soon.
#[test]
fn a_prefix_that_is_released_is_not_packed() {
    const LAG: u64 = 90;
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, LIMIT));
    for round in 0..1000u64 {
        let position = engine.append(&[record(&[0; 100])]).pop().unwrap().unwrap();
        let low = position.sequence.saturating_sub(LAG);
        engine.release(low.saturating_sub(3)..low);
        engine.settle();
        assert!(engine.segments.values().all(|segment| !segment.is_packed), "round {round}");
        assert!(round < LAG || engine.claimed() > LIMIT / 2, "room enough: the test means nothing");
    }
    assert_eq!(engine.live, LAG + 1);
}

/// Guarantee: a cursor goes on where it was when the file under it is replaced.
#[test]
fn a_cursor_outlives_packing() {
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, 1 << 20));
    for round in 0..30u8 {
        assert!(engine.append(&(0..200).map(|_| record(&[round; 100])).collect::<Vec<_>>()).iter().all(Result::is_ok));
    }
    let chunk = engine.read(Cursor::default(), 30_000).unwrap();
    let (read, next) = (chunk.records.len() as u64, chunk.next);
    assert!((200..400).contains(&read), "in the middle of a segment: {read}");
    let kept = |sequence: &u64| sequence.is_multiple_of(10);
    (1..=6000).filter(|sequence| !kept(sequence)).for_each(|one| engine.release(one..one + 1));
    engine.settle();
    let before = disk.bytes_of(".seg");
    engine.make_way();
    assert!(disk.bytes_of(".seg") < before / 4, "{} of {before}", disk.bytes_of(".seg"));
    let (mut found, mut cursor) = (Vec::new(), next);
    loop {
        let chunk = engine.read(cursor, 3_000).unwrap();
        found.extend(sequences(&chunk.records));
        cursor = chunk.next;
        // Packed once more, under the cursor.
        if found.len() == 100 {
            (1..4000).for_each(|one| engine.release(one..one + 1));
            engine.settle();
            engine.make_way();
        }
        if chunk.is_end {
            break;
        }
    }
    assert!(found.is_sorted() && found.iter().all(kept), "{found:?}");
    let after = |from: u64| (from..=6000).filter(kept).collect::<Vec<_>>();
    assert!(found.ends_with(&after(4000)));
    assert_eq!(found.first(), after(read + 1).first());
    assert_eq!(engine.stats.usage().corrupt_records, 0);
}

/// Scenario: the process dies at any byte of packing, or the power is cut just after it. Guarantee: what was not
/// released is there, once; nothing counts as damage.
#[test]
fn a_crash_while_packing_loses_nothing() {
    let original = FaultyDisk::new(0);
    let (mut engine, _) = open(&original, limits(Fsync::Always, LIMIT));
    for round in 0..20u8 {
        assert!(engine.append(&(0..4).map(|_| record(&[round; 100])).collect::<Vec<_>>()).iter().all(Result::is_ok));
    }
    let kept: Vec<u64> = (1..=80).filter(|sequence| sequence % 4 == 2).collect();
    (1..=80).filter(|sequence| !kept.contains(sequence)).for_each(|one| engine.release(one..one + 1));
    engine.settle();
    drop(engine);
    let mut packed = 0;
    for seed in 0..1000u64 {
        let disk = FaultyDisk::new(seed);
        original.names().into_iter().for_each(|name| disk.put(&name, original.content(&name).unwrap()));
        let (mut engine, _) = open(&disk, limits(Fsync::Always, LIMIT));
        disk.sync_directory().unwrap();
        disk.set_faults(Faults { die_after: Some(seed * 4), ..Faults::default() });
        engine.make_way();
        packed += usize::from(!disk.is_dead());
        drop(engine);
        if seed % 2 == 0 {
            disk.kill();
        } else {
            disk.cut_power();
        }
        let (mut engine, recovered) = open(&disk, limits(Fsync::Always, LIMIT));
        assert_eq!(recovered.usage.corrupt_records, 0, "seed {seed}");
        assert_eq!(sequences(&read_all(&mut engine, 1000)), kept, "seed {seed}");
        assert!(!disk.names().iter().any(|name| name.ends_with(".packing")), "seed {seed}");
    }
    assert!((100..900).contains(&packed), "some came to the end, some did not: {packed}");
}

/// Guarantee: letting go of records one by one at the limit does not take the files over it.
#[test]
fn ack_files_are_within_the_limit() {
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, LIMIT));
    let mut last = 0;
    while let Ok(position) = engine.append(&[record(b"")]).remove(0) {
        last = position.sequence;
    }
    assert!(last > 300);
    for parity in [0, 1] {
        for sequence in (1..=last).filter(|sequence| sequence % 2 == parity) {
            engine.release(sequence..sequence + 1);
            engine.settle();
            assert!(disk.bytes_of("") <= LIMIT, "{} bytes after {sequence}", disk.bytes_of(""));
        }
    }
    assert!(disk.names().iter().filter(|name| name.ends_with(".ack")).count() <= 1, "{:?}", disk.names());
}

/// Guarantee: a record that is damaged in a packed segment costs itself, and is counted.
#[test]
fn damage_in_a_packed_segment_is_counted() {
    let disk = FaultyDisk::new(0);
    let (engine, kept) = pinned(&disk);
    drop(engine);
    let is_packed = |name: &String| name.ends_with(".seg") && disk.content(name).unwrap()[8] == 2;
    let name = disk.names().into_iter().filter(is_packed).max_by_key(|name| disk.content(name).unwrap().len()).unwrap();
    let whole = disk.content(&name).unwrap();
    let lost_with = |damaged: Vec<u8>| {
        let copy = FaultyDisk::new(1);
        disk.names().into_iter().for_each(|name| copy.put(&name, disk.content(&name).unwrap()));
        copy.put(&name, damaged);
        let (mut engine, _) = open(&copy, limits(Fsync::None, LIMIT));
        let read = sequences(&read_all(&mut engine, 1000));
        assert!(read.iter().all(|sequence| kept.contains(sequence)));
        (kept.len() - read.len(), engine.stats.usage().corrupt_records)
    };
    for at in [40, 70, 80, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        assert_eq!(lost_with(damaged), (1, 1), "byte {at}");
    }
    assert_eq!(lost_with(whole[..whole.len() - 1].to_vec()), (1, 1), "cut off");
    assert_eq!(FileKind::Segment.base(&name).map(|base| base > 0), Some(true));
}

/// Scenario: one record stays in the segment that is open, which takes all the room there is. Guarantee: it does not
/// keep that room.
#[test]
fn the_open_segment_is_packed_too() {
    let disk = FaultyDisk::new(0);
    let limits = Limits { segment_bytes: 1 << 20, ..limits(Fsync::None, LIMIT) };
    let (mut engine, _) = open(&disk, limits);
    let first = engine.append(&[record(b"stays")]).remove(0).unwrap();
    let mut gone = 0..0;
    for _ in 0..20 {
        gone.start = gone.end;
        while let Ok(position) = engine.append(&[record(&[7; 100])]).remove(0) {
            gone.end = position.sequence + 1;
        }
        assert!(gone.end > gone.start, "no room was made");
        engine.release(first.sequence + 1..gone.end);
        engine.settle();
    }
    assert_eq!(sequences(&read_all(&mut engine, 1000)), [first.sequence]);
}
