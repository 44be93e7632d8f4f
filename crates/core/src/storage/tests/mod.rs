mod damage;
mod model;
mod packing;
mod threads;
mod timer;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Engine, Incoming, Limits};
use super::faulty::FaultyDisk;
use super::fuzzing::read_all;
use super::stats::Stats;
use super::{Cursor, Fsync, Record, Recovered};

fn limits(fsync: Fsync, max_bytes: u64) -> Limits {
    let segment_bytes = (max_bytes / 16).clamp(600, 1 << 20);
    Limits { directory: PathBuf::from("memory"), max_bytes, segment_bytes, fsync, format: 1 }
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
