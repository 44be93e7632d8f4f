//! Logs of older and newer versions.

use super::*;
use crate::storage::Error;
use crate::storage::format::{FILE_HEADER, FileHeader, FileKind, VERSION};

/// What a gateway of the first version left on disk when it was killed (its queue of 8 requests of 2 spans, of which
/// 3 had been delivered, after one restart).
const FIRST_VERSION: [(&str, &[u8]); 3] = [
    ("00000000000000000001.seg", include_bytes!("v1/00000000000000000001.seg")),
    ("00000000000000000001.ack", include_bytes!("v1/00000000000000000001.ack")),
    ("00000000000000000007.seg", include_bytes!("v1/00000000000000000007.seg")),
];

fn first_version() -> FaultyDisk {
    let disk = FaultyDisk::new(0);
    FIRST_VERSION.into_iter().for_each(|(name, content)| disk.put(name, content.to_vec()));
    disk
}

/// `content` as a version that does not exist yet would have written it.
fn of_the_future(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let crc = crc32c::crc32c(&content[..FILE_HEADER - 4]);
    content[FILE_HEADER - 4..FILE_HEADER].copy_from_slice(&crc.to_le_bytes());
    content
}

/// Guarantee: what the first version wrote is read, what it had released stays away, and writing goes on.
#[test]
fn the_first_version_is_read() {
    let disk = first_version();
    let (mut engine, recovered) = open(&disk, limits(Fsync::None, 1 << 30));
    assert_eq!((recovered.records, recovered.weight), (5, 10));
    assert_eq!((recovered.usage.corrupt_records, recovered.usage.torn_bytes, recovered.usage.set_aside), (0, 0, 0));
    let records = read_all(&mut engine, 1 << 20);
    let sequences: Vec<u64> = records.iter().map(|record| record.position.sequence).collect();
    assert_eq!(sequences, [4, 5, 6, 7, 8]);
    for (index, record) in records.iter().enumerate() {
        let name = format!("old-{}-1", index + 3);
        assert!(record.payload.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    }
    let position = engine.append(&[record(b"new")]).remove(0).unwrap();
    assert_eq!(position.sequence, 9);
    engine.release(4..9);
    engine.settle();
    drop(engine);
    let (mut engine, _) = open(&disk, limits(Fsync::None, 1 << 30));
    assert_eq!(read_all(&mut engine, 1 << 20).len(), 1);
}

/// Guarantee: a version that this one does not know is refused by the file's name, as a segment and as an ack file;
/// nothing is touched, so that the newer one finds everything as it was.
#[test]
fn a_newer_version_is_refused_by_name() {
    for (name, content) in FIRST_VERSION {
        let disk = first_version();
        disk.put(name, of_the_future(content));
        let before: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
        let mut engine =
            Engine::new(Arc::new(disk.clone()), limits(Fsync::None, 1 << 30), Arc::default(), Box::new(rand::random));
        let error = engine.recover().unwrap_err();
        assert!(matches!(&error, Error::Newer { file, .. } if file == name), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(
            error.to_string(),
            format!(
                "\"memory\" was written by a newer version of nyquist: {name} has version 4 of the storage format, and \
                 this one knows up to 3; start the newer one again until all is delivered, or name another directory"
            )
        );
        let after: Vec<_> = disk.names().into_iter().map(|name| (disk.content(&name), name)).collect();
        assert_eq!(before, after);
    }
}

/// Guarantee: damage to a version is damage, which never stops a start.
#[test]
fn a_damaged_version_is_not_a_newer_one() {
    let disk = first_version();
    let (name, content) = FIRST_VERSION[2];
    let mut damaged = content.to_vec();
    damaged[8] = 7;
    disk.put(name, damaged);
    let (mut engine, recovered) = open(&disk, limits(Fsync::None, 1 << 30));
    assert_eq!(recovered.usage.set_aside, 1);
    assert_eq!(read_all(&mut engine, 1 << 20).len(), 3);
}

/// Guarantee: an older version is kept from what it cannot read, and from nothing else.
#[test]
fn files_have_the_oldest_version_that_can_read_them() {
    let version = |header: FileHeader| header.encode(FileKind::Segment)[8];
    assert_eq!(version(FileHeader { base: 1, reused: true, ..FileHeader::default() }), 1);
    assert_eq!(version(FileHeader { base: 1, packed: true, ..FileHeader::default() }), 2);
    let header = FileHeader { base: 9, salt: 3, packed: true, ..FileHeader::default() };
    assert_eq!(FileHeader::decode(FileKind::Segment, &header.encode(FileKind::Segment)), Ok(header));
    assert_eq!(version(FileHeader { base: 1, format: 3, ..FileHeader::default() }), 3);
    let header = FileHeader { format: 3, ..header };
    assert_eq!(FileHeader::decode(FileKind::Segment, &header.encode(FileKind::Segment)), Ok(header));
}

/// Scenario: a user of the log whose payloads have changed goes on with one that is older, part of which is packed.
/// Guarantee: its segments ask for the version that can read them, also when they are packed and after a restart; ack
/// files and the segments that were there do not.
#[test]
fn payloads_ask_for_the_version_that_reads_them() {
    let disk = first_version();
    let newer = Limits { format: 3, segment_bytes: 4 << 10, ..limits(Fsync::None, 1 << 20) };
    let (mut engine, _) = open(&disk, newer.clone());
    // Two segments; what is left of the first is then packed.
    let sequences: Vec<u64> =
        (0..40).map(|_| engine.append(&[record(&[7; 160])]).remove(0).unwrap().sequence).collect();
    engine.release(sequences[1]..sequences[20]);
    engine.settle();
    drop(engine);
    let (mut engine, _) = open(&disk, newer);
    engine.make_way();
    engine.settle();
    let header = |name: &str| disk.content(name).unwrap()[8..16].to_vec();
    let versions: Vec<(u64, u8, u8)> = (disk.names().iter())
        .filter_map(|name| Some((FileKind::Segment.base(name)?, header(name)[0], header(name)[4])))
        .collect();
    assert_eq!(versions[..2], [(1, 1, 0), (7, 1, 0)], "(base, version, bits) of {versions:?}");
    let packed = versions[2..].iter().filter(|(_, _, bits)| bits & 2 == 2).count();
    assert!((1..versions.len() - 2).contains(&packed), "{versions:?}");
    assert!(versions[2..].iter().all(|(_, version, _)| *version == 3), "{versions:?}");
    let acks: Vec<_> = disk.names().into_iter().filter(|name| FileKind::Acks.base(name).is_some()).collect();
    assert!(acks.len() > 1 && acks.iter().all(|name| header(name)[0] == 1), "{acks:?}");
    assert_eq!(read_all(&mut engine, 1 << 20).len(), 5 + 40 - 19);
}
