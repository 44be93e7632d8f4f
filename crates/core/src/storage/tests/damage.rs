//! Files that are not what they should be.

use super::*;
use crate::storage::format::{FILE_HEADER, FileKind, RECORD_HEADER};

const BIG: u64 = 1 << 30;

fn filled(disk: &FaultyDisk, payloads: &[&[u8]]) -> Engine {
    let (mut engine, _) = open(disk, limits(Fsync::None, BIG));
    let records: Vec<Incoming> = payloads.iter().map(|payload| record(payload)).collect();
    assert!(engine.append(&records).iter().all(Result::is_ok));
    engine
}

fn payloads(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|record| record.payload.as_ref()).collect()
}

/// A torn tail is cut off, wherever the write stopped.
#[test]
fn a_torn_tail_is_cut_off() {
    let disk = FaultyDisk::new(0);
    drop(filled(&disk, &[b"one", b"two", b"three"]));
    let name = FileKind::Segment.name(1);
    let whole = disk.content(&name).unwrap();
    let third = FILE_HEADER + 2 * (RECORD_HEADER + 3);
    for length in third..whole.len() {
        let disk = FaultyDisk::new(0);
        disk.put(&name, whole[..length].to_vec());
        let (mut engine, recovered) = open(&disk, limits(Fsync::None, BIG));
        assert_eq!(recovered.usage.torn_bytes, (length - third) as u64);
        assert_eq!(recovered.usage.corrupt_records, 0);
        assert_eq!(payloads(&read_all(&mut engine, 10)), [b"one", b"two"]);
        assert_eq!(disk.content(&name).unwrap().len(), third);
        // What comes next has a number of its own.
        let position = engine.append(&[record(b"four")]).remove(0).unwrap();
        assert!(position.sequence >= 3 && position.segment == position.sequence);
    }
}

/// A damaged record costs itself, and only itself, whether its header or its payload is hit.
#[test]
fn a_damaged_record_is_skipped_and_counted() {
    let disk = FaultyDisk::new(0);
    // A client that knows the format: a record inside a record.
    let inner = {
        let disk = FaultyDisk::new(1);
        drop(filled(&disk, &[b"forged"]));
        disk.content(&FileKind::Segment.name(1)).unwrap()[FILE_HEADER..].to_vec()
    };
    drop(filled(&disk, &[b"one", &inner, b"three"]));
    let name = FileKind::Segment.name(1);
    let whole = disk.content(&name).unwrap();
    let second = FILE_HEADER + RECORD_HEADER + 3;
    for at in second..second + RECORD_HEADER + inner.len() {
        let disk = FaultyDisk::new(0);
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        disk.put(&name, damaged);
        let (mut engine, recovered) = open(&disk, limits(Fsync::None, BIG));
        let records = read_all(&mut engine, 1 << 20);
        assert_eq!(payloads(&records), [b"one".as_slice(), b"three"], "byte {at}");
        assert_eq!(engine.stats.usage().corrupt_records, 1, "byte {at}");
        let in_header = at < second + RECORD_HEADER;
        assert_eq!(recovered.records, if in_header { 2 } else { 3 });
        assert_eq!(recovered.usage.torn_bytes, 0);
        assert_eq!(engine.stats.usage().records, 2);
    }
}

/// Without its header a segment cannot be trusted: it is set aside, the others are read.
#[test]
fn an_unreadable_segment_is_set_aside() {
    let disk = FaultyDisk::new(0);
    drop(filled(&disk, &[b"one"]));
    drop(filled(&disk, &[b"two"]));
    for damage in [0, 9, 17, 25, 33] {
        let disk_of = FaultyDisk::new(0);
        for name in disk.names() {
            disk_of.put(&name, disk.content(&name).unwrap());
        }
        let first = FileKind::Segment.name(1);
        let mut bytes = disk.content(&first).unwrap();
        bytes[damage] ^= 1;
        disk_of.put(&first, bytes);
        let (mut engine, recovered) = open(&disk_of, limits(Fsync::None, BIG));
        assert_eq!(recovered.usage.set_aside, 1);
        assert_eq!(payloads(&read_all(&mut engine, 10)), [b"two"]);
        assert!(disk_of.names().contains(&"00000000000000000001.corrupt".to_owned()));
        // It is left alone from now on.
        let (_, recovered) = open(&disk_of, limits(Fsync::None, BIG));
        assert_eq!(recovered.usage.set_aside, 0);
    }
}

/// An ack file of another life of the segment says nothing about this one.
#[test]
fn acks_belong_to_one_segment() {
    let disk = FaultyDisk::new(0);
    let mut engine = filled(&disk, &[b"old", b"old"]);
    engine.release(1..2);
    engine.settle();
    let acks = disk.content(&FileKind::Acks.name(1)).unwrap();
    let disk = FaultyDisk::new(0);
    drop(filled(&disk, &[b"one", b"two"]));
    disk.put(&FileKind::Acks.name(1), acks);
    let (mut engine, recovered) = open(&disk, limits(Fsync::None, BIG));
    assert_eq!(recovered.records, 2);
    assert_eq!(payloads(&read_all(&mut engine, 10)), [b"one", b"two"]);
    assert!(disk.content(&FileKind::Acks.name(1)).is_none(), "it takes no room");
    // Releases are kept again.
    engine.release(2..3);
    engine.settle();
    let (mut engine, _) = open(&disk, limits(Fsync::None, BIG));
    assert_eq!(payloads(&read_all(&mut engine, 10)), [b"one"]);
}

/// A disk that cannot be read is tried again; a segment that never can does not hold up the rest.
#[test]
fn reading_fails_and_then_gives_up_on_the_segment() {
    let disk = FaultyDisk::new(0);
    drop(filled(&disk, &[b"one"]));
    let mut engine = filled(&disk, &[b"two"]);
    disk.set_faults(crate::storage::faulty::Faults { read: 100, ..Default::default() });
    assert!(engine.read(Cursor::default(), 10).is_err());
    disk.set_faults(crate::storage::faulty::Faults::default());
    assert_eq!(payloads(&read_all(&mut engine, 10)), [b"one", b"two"]);
    disk.set_faults(crate::storage::faulty::Faults { read: 100, ..Default::default() });
    let outcomes: Vec<bool> = (0..5).map(|_| engine.read(Cursor::default(), 10).is_ok()).collect();
    assert_eq!(outcomes, [false, false, false, false, true]);
    assert_eq!(engine.stats.usage().set_aside, 2);
    assert_eq!(engine.stats.usage().corrupt_records, 2);
    assert_eq!(engine.stats.usage().records, 0);
}

/// At the limit the log refuses, and room comes back with releases, even if one segment is all there is.
#[test]
fn the_limit_is_hard() {
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, 1000));
    let mut taken = 0;
    while engine.append(&[record(&[7; 60])]).remove(0).is_ok() {
        taken += 1;
    }
    assert_eq!(
        taken, 7,
        "7 records of 100 bytes, 12 each for their release, and headers of two segments and ack files"
    );
    let error = engine.append(&[record(&[7; 60])]).remove(0).unwrap_err();
    assert!(matches!(error, crate::storage::Error::Full { limit: 1000, .. }), "{error}");
    assert!(error.is_retryable());
    let error = engine.append(&[record(&[7; 1000])]).remove(0).unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    engine.release(0..u64::MAX);
    engine.settle();
    assert!(engine.append(&[record(&[7; 600])]).remove(0).is_ok());
    assert!(disk.bytes_of("") <= 1000);
}

/// Files of segments that are done are written over: of their life before, nothing comes back, neither
/// behind the last record nor in the middle of a write that was torn, and none of it counts as damage.
#[test]
fn files_are_written_over() {
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, 10_000));
    let mut names = std::collections::BTreeSet::new();
    for round in 0..20u8 {
        let answers = engine.append(&(0..4).map(|_| record(&[round; 100])).collect::<Vec<_>>());
        assert!(answers.iter().all(Result::is_ok));
        names.extend(disk.names());
        engine.release(0..u64::from(round) * 4 + 1);
        engine.settle();
    }
    assert!(names.iter().filter(|name| name.ends_with(".seg")).count() >= 15, "{names:?}");
    assert!(engine.stats.usage().segments <= 2);
    let count = engine.stats.usage().records;
    drop(engine);

    for die_after in 0..=2 * (RECORD_HEADER as u64 + 100) {
        let copy = FaultyDisk::new(0);
        disk.names().into_iter().for_each(|name| copy.put(&name, disk.content(&name).unwrap()));
        // A process dies while it writes into what was another segment.
        let (mut engine, recovered) = open(&copy, limits(Fsync::None, 10_000));
        assert_eq!((recovered.records, recovered.usage.torn_bytes), (count, 0));
        engine.release(0..u64::MAX);
        engine.settle();
        let one = engine.append(&[record(b"one")]).remove(0).unwrap();
        assert_eq!(copy.content(&FileKind::Segment.name(one.segment)).unwrap()[12], 1, "a spare file");
        copy.set_faults(crate::storage::faulty::Faults { die_after: Some(die_after), ..Default::default() });
        let answers = engine.append(&[record(&[1; 100]), record(&[2; 100])]);
        let is_whole = answers.iter().all(Result::is_ok);
        drop(engine);
        copy.kill();
        let (mut engine, recovered) = open(&copy, limits(Fsync::None, 10_000));
        let records = read_all(&mut engine, 1 << 20);
        let whole = if is_whole { 2 } else { die_after as usize / (RECORD_HEADER + 100) };
        assert_eq!(records.len(), 1 + whole, "died after {die_after}");
        assert_eq!(recovered.records, 1 + whole as u64);
        assert_eq!(engine.stats.usage().corrupt_records, 0, "died after {die_after}");
    }
}

/// At rest a log keeps no spare file, and at its limit none is in the way.
#[test]
fn spare_files_give_way() {
    let disk = FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::None, 10_000));
    for _ in 0..4 {
        assert!(engine.append(&(0..30).map(|_| record(&[7; 60])).collect::<Vec<_>>()).iter().all(Result::is_ok));
        engine.release(0..u64::MAX);
        engine.settle();
    }
    assert!(disk.bytes_of(".spare") > 1000, "{:?}", disk.names());
    while engine.append(&[record(&[7; 60])]).remove(0).is_ok() {}
    assert_eq!(disk.bytes_of(".spare"), 0);
    // 15 segments of 5 records, and one of 4; the rest is for their ack files.
    assert_eq!(disk.bytes_of(".seg"), 15 * (36 + 5 * 100) + 36 + 4 * 100);
    engine.release(0..u64::MAX);
    engine.settle();
    engine.close();
    assert_eq!(disk.bytes_of("") - disk.bytes_of(".ack"), 0, "{:?}", disk.names());
}

/// Bits flip anywhere, again and again: nothing panics, what is read is what was written.
#[test]
fn flipped_bits_never_make_records() {
    for seed in 0..300 {
        let disk = FaultyDisk::new(seed);
        let written: Vec<Vec<u8>> = (0..40u8).map(|index| vec![index; usize::from(index) * 3]).collect();
        let slices: Vec<&[u8]> = written.iter().map(Vec::as_slice).collect();
        let mut engine = filled(&disk, &slices);
        engine.release(5..9);
        engine.settle();
        drop(engine);
        for _ in 0..20 {
            disk.flip_a_bit();
            let (mut engine, _) = open(&disk, limits(Fsync::None, BIG));
            let records = read_all(&mut engine, 500);
            let mut last = None;
            for record in &records {
                assert!(written.iter().any(|payload| *payload == record.payload), "seed {seed}");
                assert!(last < Some(record.position.sequence), "seed {seed}: out of order");
                last = Some(record.position.sequence);
            }
        }
    }
}

/// The body of the fuzz target `segment_reader`, on seeded input.
#[test]
fn foreign_files_are_read_without_a_panic() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..2000 {
        let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
        let length = random.random_range(0..1500);
        let mut data: Vec<u8> = (0..length).map(|_| random.random()).collect();
        if seed % 3 == 0 {
            // Small numbers, and much that looks like the beginning of a record.
            data.iter_mut().for_each(|byte| *byte = b"NQR\x01\x00\x02"[usize::from(*byte) % 6]);
        }
        crate::storage::fuzzing::segment_reader(&data);
    }
}
