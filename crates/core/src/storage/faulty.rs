//! A directory in memory that fails as disks do: for the tests of the log, and of its users by
//! [`super::Log::open_with`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile};

/// Runs `body` with each seed below `count`, or with the one in `NYQUIST_SEED`; prints the seed that failed.
pub fn for_each_seed(count: u64, body: impl Fn(u64)) {
    let only = std::env::var("NYQUIST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let _name = NameTheSeed(seed);
        body(seed);
    }
}

struct NameTheSeed(u64);

impl Drop for NameTheSeed {
    #[allow(clippy::print_stderr, reason = "for whoever reads the output of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}; to run it alone: NYQUIST_SEED={0}", self.0);
        }
    }
}

/// How likely an operation fails, in percent, and what happens by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A write takes only some of the bytes, without an error.
    pub short_write: u32,
    /// A write takes some of the bytes and then finds the disk full.
    pub no_space: u32,
    /// fsync fails, and what was not synced is as good as lost.
    pub sync: u32,
    /// Truncating fails.
    pub truncate: u32,
    /// Deleting fails.
    pub remove: u32,
    /// Renaming fails.
    pub rename: u32,
    /// Reading fails.
    pub read: u32,
    /// A write panics: a bug in the log.
    pub panic: bool,
    /// The process dies after so many bytes of writes, in the middle of one if it happens so.
    pub die_after: Option<u64>,
}

#[derive(Default)]
struct Content {
    data: Vec<u8>,
    /// What it was when it was synced last: where it has not changed since, a power cut leaves it.
    synced: Vec<u8>,
}

/// What a power cut takes or leaves as a whole.
const SECTOR: usize = 64;

impl Content {
    /// Writes as far as the process lives.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        let end = offset + bytes.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(bytes);
    }

    fn cut_power(&mut self, random: &mut SmallRng) {
        let Self { data, synced } = self;
        let (shorter, longer) = (data.len().min(synced.len()), data.len().max(synced.len()));
        // Written over: the old or the new.
        for (new, old) in data.chunks_mut(SECTOR).zip(synced.chunks(SECTOR)) {
            if new.get(..old.len()) != Some(old) && random.random() {
                let common = old.len().min(new.len());
                new[..common].copy_from_slice(&old[..common]);
            }
        }
        // Cut off: perhaps not. Grown: perhaps not, or with zeros in place of content.
        if data.len() < synced.len() {
            data.extend_from_slice(&synced[shorter..]);
        }
        let length = random.random_range(shorter..=longer);
        data.truncate(length);
        if random.random() {
            let from = random.random_range(shorter..=length);
            data[from..].fill(0);
        }
        synced.clone_from(data);
    }
}

type Shared = Arc<Mutex<Content>>;

struct State {
    files: BTreeMap<String, Shared>,
    /// What a power cut leaves for certain of the names.
    synced_files: BTreeMap<String, Shared>,
    faults: Faults,
    random: SmallRng,
    dead: bool,
    locked: bool,
    syncs: u64,
    failed_syncs: u64,
    /// A power cut leaves the directory itself.
    place_is_synced: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

fn died() -> io::Error {
    io::Error::other("the process is dead")
}

impl State {
    fn happens(&mut self, percent: u32) -> bool {
        percent > 0 && self.random.random_range(0..100) < percent
    }

    fn fsync(&mut self) -> io::Result<()> {
        let percent = self.faults.sync;
        if self.happens(percent) {
            self.failed_syncs += 1;
            return Err(io::Error::other("fsync failed"));
        }
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(died()) } else { Ok(()) }
    }
}

impl FaultyDisk {
    /// An empty disk; `seed` decides what fails when.
    pub fn new(seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        let state = State {
            files: BTreeMap::new(),
            synced_files: BTreeMap::new(),
            faults: Faults::default(),
            random,
            dead: false,
            locked: false,
            syncs: 0,
            failed_syncs: 0,
            place_is_synced: false,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Everything blocks until what this returns is dropped.
    #[must_use]
    pub fn stall(&self) -> Stall {
        let (state, (end, ended), (tell, told)) = (Arc::clone(&self.0), mpsc::channel(), mpsc::channel());
        let holder = std::thread::spawn(move || {
            let mut state = state.lock();
            // Whoever waits for either is there until it comes.
            let _ = tell.send(());
            if let Ok(faults) = ended.recv() {
                state.faults = faults;
            }
        });
        let _ = told.recv();
        Stall { end: Some(end), holder: Some(holder) }
    }

    /// What fails from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// Has the process died (`Faults::die_after`)?
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// The process is gone, the machine is not: files are as they were written.
    pub fn kill(&self) {
        let mut state = self.0.lock();
        state.dead = false;
        state.faults = Faults::default();
    }

    /// The machine is gone: of what was not synced, anything may be there, be there as zeros, or not
    /// be there. Nothing at all is there if the directory was not.
    pub fn cut_power(&self) {
        self.kill();
        let mut state = self.0.lock();
        let State { files, synced_files, random, place_is_synced, .. } = &mut *state;
        if !*place_is_synced && random.random() {
            files.clear();
            synced_files.clear();
        }
        // What is there now has been there.
        *place_is_synced = true;
        settle_renames(files, synced_files, random);
        let mut left = BTreeMap::new();
        let names: BTreeSet<String> = files.keys().chain(synced_files.keys()).cloned().collect();
        for name in names {
            let file = match (files.get(&name), synced_files.get(&name)) {
                (Some(now), Some(synced)) if Arc::ptr_eq(now, synced) => Some(now),
                (now, synced) => {
                    if random.random() {
                        now
                    } else {
                        synced
                    }
                }
            };
            let Some(file) = file else { continue };
            file.lock().cut_power(random);
            left.insert(name, Arc::clone(file));
        }
        *files = left.clone();
        *synced_files = left;
    }

    /// How often an fsync failed.
    pub fn failed_syncs(&self) -> u64 {
        self.0.lock().failed_syncs
    }

    /// How often the content of a file was synced.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Flips a bit somewhere; returns the file, if there is any with content.
    pub fn flip_a_bit(&self) -> Option<String> {
        let mut state = self.0.lock();
        let State { files, random, .. } = &mut *state;
        let with_content: Vec<_> = files.iter().filter(|(_, file)| !file.lock().data.is_empty()).collect();
        let (name, file) = with_content.get(random.random_range(0..with_content.len().max(1)))?;
        let mut content = file.lock();
        let at = random.random_range(0..content.data.len());
        content.data[at] ^= 1 << random.random_range(0..8);
        Some((*name).clone())
    }

    /// Puts a file there, synced.
    pub fn put(&self, name: &str, data: Vec<u8>) {
        let content = Content { synced: data.clone(), data };
        let mut state = self.0.lock();
        state.files.insert(name.to_owned(), Arc::new(Mutex::new(content)));
        state.place_is_synced = true;
    }

    /// What a file holds.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.0.lock().files.get(name)?.lock().data.clone())
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().files.keys().cloned().collect()
    }

    /// What all files with this ending take.
    pub fn bytes_of(&self, ending: &str) -> u64 {
        let state = self.0.lock();
        state
            .files
            .iter()
            .filter(|(name, _)| name.ends_with(ending))
            .map(|(_, file)| file.lock().data.len() as u64)
            .sum()
    }

    fn file(&self, content: &Shared) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.clone(), content: Arc::clone(content) })
    }
}

impl Disk for FaultyDisk {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let is_free = !std::mem::replace(&mut self.0.lock().locked, true);
        if is_free { Ok(Box::new(Unlock(self.clone()))) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock();
        state.alive()?;
        Ok(state.files.iter().map(|(name, file)| (name.clone(), file.lock().data.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.alive()?;
        let content = Shared::default();
        state.files.insert(name.to_owned(), Arc::clone(&content));
        drop(state);
        Ok(self.file(&content))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        state.alive()?;
        let content = state.files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        drop(state);
        Ok(self.file(&content))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        let percent = state.faults.rename;
        if state.happens(percent) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        let percent = state.faults.remove;
        if state.happens(percent) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.files.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.fsync()?;
        state.synced_files = state.files.clone();
        Ok(())
    }

    fn sync_place(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.fsync()?;
        state.place_is_synced = true;
        Ok(())
    }
}

/// A name that was changed since the last sync is the old one or the new one, never both.
fn settle_renames(
    files: &mut BTreeMap<String, Shared>,
    synced_files: &mut BTreeMap<String, Shared>,
    random: &mut SmallRng,
) {
    for (old, content) in synced_files.clone() {
        let is_it = |file: &Shared| Arc::ptr_eq(file, &content);
        if files.get(&old).is_some_and(is_it) {
            continue;
        }
        let Some(new) = files.iter().find(|(_, file)| is_it(file)).map(|(name, _)| name.clone()) else { continue };
        if random.random() && !files.contains_key(&old) {
            files.remove(&new);
            files.insert(old, content);
        } else {
            synced_files.remove(&old);
            synced_files.insert(new, content);
        }
    }
}

/// A disk that stands still.
pub struct Stall {
    end: Option<mpsc::Sender<Faults>>,
    holder: Option<std::thread::JoinHandle<()>>,
}

impl Stall {
    /// It moves on, with these faults from the first operation on.
    pub fn end_with(self, faults: Faults) {
        let _ = self.end.as_ref().map(|end| end.send(faults));
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.holder.take().map(std::thread::JoinHandle::join);
    }
}

struct Unlock(FaultyDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    content: Shared,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.disk.0.lock().alive()?;
        Ok(self.content.lock().data.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        let percent = state.faults.read;
        if state.happens(percent) {
            return Err(io::Error::other("input/output error"));
        }
        let content = self.content.lock();
        let rest = content.data.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&mut self, offset: u64, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        if bytes.is_empty() {
            return Ok(0);
        }
        assert!(!state.faults.panic, "a bug");
        let mut content = self.content.lock();
        if let Some(left) = state.faults.die_after {
            if bytes.len() as u64 > left {
                content.write(offset, &bytes[..left as usize]);
                state.dead = true;
                return Err(died());
            }
            state.faults.die_after = Some(left - bytes.len() as u64);
        }
        let Faults { no_space, short_write, .. } = state.faults;
        if state.happens(no_space) {
            let some = state.random.random_range(0..bytes.len());
            content.write(offset, &bytes[..some]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = if state.happens(short_write) { state.random.random_range(1..=bytes.len()) } else { bytes.len() };
        content.write(offset, &bytes[..length]);
        Ok(length)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        let percent = state.faults.truncate;
        if state.happens(percent) {
            return Err(io::Error::other("input/output error"));
        }
        let mut content = self.content.lock();
        content.data.truncate(length as usize);
        content.synced.truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.alive()?;
        state.fsync()?;
        state.syncs += 1;
        let mut content = self.content.lock();
        let Content { data, synced } = &mut *content;
        synced.clone_from(data);
        Ok(())
    }
}
