//! Random work on a disk that fails, beside a model that is a map: what was answered is there after a
//! crash, in order and unchanged; what was released stays away; limits hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::Error;
use crate::storage::faulty::{Faults, for_each_seed};

/// What should be in the log.
#[derive(Default)]
struct Model {
    /// Answered with a position, by the identity in the payload.
    answered: BTreeMap<u64, u64>,
    /// Refused, or under way when the process died: may be there after a crash.
    doubtful: BTreeSet<u64>,
    /// Released, and the release was written down without a complaint.
    released: BTreeSet<u64>,
    /// Released, but the disk failed since or the power went: may come back.
    may_return: BTreeSet<u64>,
    /// Answered, but a power cut may have taken it.
    may_be_lost: BTreeSet<u64>,
    /// Gone in an earlier life, released or lost: files are written over and no release is ever synced, so it
    /// may return in a power cut.
    ghosts: BTreeSet<u64>,
}

struct Run {
    seed: u64,
    random: SmallRng,
    disk: FaultyDisk,
    limits: Limits,
    engine: Engine,
    model: Model,
    next_identity: u64,
    cursor: Cursor,
    /// What files took after the last crash: a power cut may bring back what was deleted.
    found: u64,
    /// Identities read since the log was opened.
    read: Vec<u64>,
}

fn payload(identity: u64, length: usize) -> Vec<u8> {
    let mut bytes = identity.to_le_bytes().to_vec();
    let mut random = SmallRng::seed_from_u64(identity);
    // Looks like a record now and then: nobody may be fooled by that.
    if identity.is_multiple_of(7) {
        bytes.extend_from_slice(b"NQR\x01");
    }
    bytes.extend((0..length).map(|_| random.random::<u8>()));
    bytes
}

fn identity(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

fn is_genuine(payload: &[u8]) -> bool {
    let identity = identity(payload);
    let prefix = if identity.is_multiple_of(7) { 12 } else { 8 };
    payload == self::payload(identity, payload.len() - prefix)
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let disk = FaultyDisk::new(seed);
        let fsync = match random.random_range(0..3) {
            0 => Fsync::None,
            1 => Fsync::Interval(Duration::from_secs(1)),
            _ => Fsync::Always,
        };
        let limits = limits(fsync, random.random_range(2000..40_000));
        let (engine, _) = open(&disk, limits.clone());
        let model = Model::default();
        Self {
            seed,
            random,
            disk,
            limits,
            engine,
            model,
            next_identity: 1,
            cursor: Cursor::default(),
            found: 0,
            read: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..45 => self.append(),
            45..75 => self.release(),
            75..85 => self.read_some(),
            85..88 => self.sync(),
            88..93 => self.change_the_weather(),
            93 => self.engine.make_way(),
            94..97 => self.crash(false),
            _ => self.crash(true),
        }
        if self.disk.is_dead() {
            self.crash(false);
        }
        let (used, most) = (self.used(), self.limits.max_bytes.max(self.found));
        assert!(used <= most, "seed {}: {used} bytes of {most}: {:?}", self.seed, self.lengths());
    }

    /// All files, for whoever reads a failure.
    fn lengths(&self) -> Vec<(String, usize)> {
        let length = |name: &String| self.disk.content(name).map_or(0, |content| content.len());
        self.disk.names().into_iter().map(|name| (name.clone(), length(&name))).collect()
    }

    fn used(&self) -> u64 {
        let files = self.lengths().into_iter().filter(|(name, _)| !name.ends_with(".corrupt"));
        files.map(|(_, length)| length as u64).sum()
    }

    fn append(&mut self) {
        let mut identities = Vec::new();
        let mut records = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let length = match self.random.random_range(0..20) {
                0 => self.random.random_range(0..5000),
                _ => self.random.random_range(0..200),
            };
            let bytes = payload(self.next_identity, length);
            let cut = self.random.random_range(0..bytes.len());
            let pieces = vec![Bytes::copy_from_slice(&bytes[..cut]), Bytes::copy_from_slice(&bytes[cut..])];
            records.push(Incoming::new(2, 5, self.next_identity, pieces));
            identities.push(self.next_identity);
            self.next_identity += 1;
        }
        let answers = self.engine.append(&records);
        assert_eq!(answers.len(), records.len());
        let mut last = 0;
        for (identity, answer) in identities.into_iter().zip(answers) {
            match answer {
                Ok(position) => {
                    assert!(position.sequence > last, "seed {}", self.seed);
                    last = position.sequence;
                    let taken = self.model.answered.values().any(|&sequence| sequence == position.sequence);
                    assert!(!taken, "seed {}: a sequence number was used twice", self.seed);
                    self.model.answered.insert(identity, position.sequence);
                    if self.limits.fsync != Fsync::Always {
                        self.model.may_be_lost.insert(identity);
                    }
                }
                Err(Error::Full { .. } | Error::TooLarge { .. }) => {}
                Err(_) => _ = self.model.doubtful.insert(identity),
            }
        }
    }

    fn release(&mut self) {
        let failures = self.engine.stats.usage().failed_writes;
        let known: Vec<(u64, u64)> = self.model.answered.iter().map(|(one, two)| (*one, *two)).collect();
        let mut gone = Vec::new();
        match self.random.random_range(0..10) {
            0 => {
                // Low water.
                let Some(&(_, until)) = known.get(self.random.random_range(0..known.len().max(1))) else { return };
                self.engine.release(0..until);
                gone.extend(known.iter().filter(|(_, sequence)| *sequence < until).map(|(identity, _)| *identity));
            }
            1 => {
                let bases: Vec<u64> = self.engine.segments.keys().copied().collect();
                let Some(base) = bases.get(self.random.random_range(0..bases.len().max(1))) else { return };
                let own = self.engine.segments[base].sequences();
                self.engine.release(own.clone());
                gone.extend(known.iter().filter(|(_, sequence)| own.contains(sequence)).map(|(identity, _)| *identity));
            }
            _ => {
                for _ in 0..self.random.random_range(1..6) {
                    let Some(&(identity, sequence)) = known.get(self.random.random_range(0..known.len().max(1))) else {
                        continue;
                    };
                    self.engine.release(sequence..sequence + 1);
                    gone.push(identity);
                }
            }
        }
        self.engine.settle();
        for identity in gone {
            self.model.answered.remove(&identity);
            self.model.released.insert(identity);
        }
        if self.engine.stats.usage().failed_writes > failures || !self.engine.unsettled.is_empty() {
            self.model.may_return.extend(self.model.released.iter().copied());
        }
    }

    fn read_some(&mut self) {
        let Ok(chunk) = self.engine.read(self.cursor, self.random.random_range(0..2000)) else { return };
        self.cursor = chunk.next;
        self.note_read(chunk.records);
    }

    fn note_read(&mut self, records: Vec<Record>) {
        for record in records {
            assert!(is_genuine(&record.payload), "seed {}: a record nobody wrote", self.seed);
            let identity = identity(&record.payload);
            assert_eq!((record.kind, record.weight, record.arrival), (2, 5, identity), "seed {}", self.seed);
            assert!(!self.model.released.contains(&identity), "seed {}: {identity} is released", self.seed);
            assert!(self.model.answered.contains_key(&identity), "seed {}: {identity} was refused", self.seed);
            // What a power cut brings back may have a number of a later life.
            if !self.model.ghosts.contains(&identity) {
                assert!(self.read.last().is_none_or(|last| *last < identity), "seed {}: out of order", self.seed);
                self.read.push(identity);
            }
        }
    }

    fn sync(&mut self) {
        if self.engine.sync().is_ok() && self.engine.stats.usage().failed_syncs == 0 {
            self.model.may_be_lost.clear();
        }
    }

    fn change_the_weather(&mut self) {
        let mut percent = |most| if self.random.random() { 0 } else { self.random.random_range(0..most) };
        let mut faults = Faults {
            short_write: percent(50),
            no_space: percent(30),
            sync: percent(30),
            truncate: percent(30),
            remove: percent(50),
            rename: percent(30),
            ..Faults::default()
        };
        if self.random.random_range(0..3) == 0 {
            faults.die_after = Some(self.random.random_range(0..2000));
        }
        self.disk.set_faults(faults);
    }

    fn crash(&mut self, power: bool) {
        let what = if power { "power cut" } else { "kill" };
        if power {
            self.disk.cut_power();
        } else {
            self.disk.kill();
        }
        let (engine, recovered) = open(&self.disk, self.limits.clone());
        self.engine = engine;
        // Released records may have come back, and must be released again.
        let found = self.used().max(self.engine.claimed());
        self.found = if power { found } else { self.found.min(found) };
        self.cursor = Cursor::default();
        self.read.clear();
        let at_once = self.random.random_range(1..10_000);
        let records = read_all(&mut self.engine, at_once);
        let there: BTreeMap<u64, u64> =
            records.iter().map(|record| (identity(&record.payload), record.position.sequence)).collect();
        assert_eq!(there.len(), records.len(), "seed {}: twice", self.seed);
        if !power {
            assert_eq!(recovered.records, records.len() as u64, "seed {}", self.seed);
            assert_eq!(recovered.weight, 5 * records.len() as u64, "seed {}", self.seed);
            assert_eq!(recovered.usage.corrupt_records, 0, "seed {}", self.seed);
        }
        for identity in self.model.answered.keys() {
            let excused = power && self.model.may_be_lost.contains(identity);
            let is_there = there.contains_key(identity);
            assert!(is_there || excused, "seed {}: {identity} was lost in a {what}", self.seed);
        }
        for identity in there.keys() {
            let released = self.model.released.contains(identity);
            let excused = if released {
                power || self.model.may_return.contains(identity)
            } else {
                let is_ghost = power && self.model.ghosts.contains(identity);
                self.model.answered.contains_key(identity) || self.model.doubtful.contains(identity) || is_ghost
            };
            assert!(excused, "seed {}: {identity} came back in a {what}", self.seed);
        }
        // From here on the log is what it is.
        let mut ghosts = std::mem::take(&mut self.model.ghosts);
        ghosts.extend(self.model.released.iter().chain(&self.model.doubtful));
        ghosts.extend(self.model.answered.keys().filter(|identity| !there.contains_key(identity)));
        self.model = Model { answered: there, ghosts, ..Model::default() };
        if self.limits.fsync != Fsync::Always || !power {
            // A later power cut may take it: nothing has synced it.
            self.model.may_be_lost.extend(self.model.answered.keys().copied());
        }
        self.note_read(records);
        self.cursor = Cursor::default();
        self.read.clear();
    }
}

#[test]
fn the_log_is_a_map_that_survives() {
    let (seeds, steps) = if std::env::var_os("NYQUIST_LONG").is_some() { (20_000, 300) } else { (400, 200) };
    let packed = std::cell::Cell::new(false);
    for_each_seed(seeds, |seed| {
        let mut run = Run::new(seed);
        for _ in 0..steps {
            run.step();
            packed.set(packed.get() || run.engine.segments.values().any(|segment| segment.is_packed));
        }
        run.disk.set_faults(Faults::default());
        run.engine.release(0..u64::MAX);
        run.engine.settle();
        let usage = run.engine.stats.usage();
        assert_eq!(usage.records, 0, "seed {seed}");
        assert!(usage.segments <= 1, "seed {seed}: {usage:?}");
    });
    assert!(packed.get() || std::env::var_os("NYQUIST_SEED").is_some(), "no seed packs a segment");
}
