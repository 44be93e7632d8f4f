mod damage;
mod model;
mod threads;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Engine, Incoming, Limits};
use super::faulty::FaultyDisk;
use super::stats::Stats;
use super::{Cursor, Fsync, Record, Recovered};

fn limits(fsync: Fsync, max_bytes: u64) -> Limits {
    let segment_bytes = (max_bytes / 16).clamp(600, 1 << 20);
    Limits { directory: PathBuf::from("memory"), max_bytes, segment_bytes, fsync }
}

/// Opens the log; each time with other salts.
fn open(disk: &FaultyDisk, limits: Limits) -> (Engine, Recovered) {
    let mut engine = Engine::new(Arc::new(disk.clone()), limits, Arc::new(Stats::default()), Box::new(rand::random));
    let recovered = engine.recover().expect("a directory that can be listed can be opened");
    (engine, recovered)
}

fn record(payload: &[u8]) -> Incoming {
    Incoming::new(1, 3, 7, vec![Bytes::copy_from_slice(payload)])
}

/// Everything that is not released.
fn read_all(engine: &mut Engine, at_once: usize) -> Vec<Record> {
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
