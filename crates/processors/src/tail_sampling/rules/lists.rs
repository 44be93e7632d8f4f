//! Lists of values in files (`values_file`), read again when they change.
//!
//! Conditions look values up in the list of the moment, which a thread of its own replaces; a file
//! that can no longer be read, or holds too much, leaves the list as it was. A file is gone through twice: what it
//! takes is known, and set aside, before any of it is kept.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
const MAX_BYTES: u64 = 64 << 20;
/// The longest line, in bytes: no attribute that is looked up is as long.
const MAX_LINE: u64 = 64 << 10;

type Values = HashSet<Box<[u8]>, foldhash::fast::RandomState>;

/// The values of one file.
#[derive(Debug)]
pub(crate) struct List {
    path: PathBuf,
    values: ArcSwap<Values>,
    seen: Mutex<Seen>,
}

/// What the file looked like when it was last looked at.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It was read then, or what it holds was found to be of no use.
    Stamp(Option<SystemTime>, u64),
    /// It could not be read.
    Failed(String),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self::Stamp(metadata.modified().ok(), metadata.len())
    }
}

/// Why a file does not become a list.
#[derive(Debug)]
enum Fault {
    /// It cannot be read: it is tried again.
    Access(String),
    /// What it holds is of no use, until it changes.
    Content(String),
    /// It is being written, or there is no room at the moment: the next time.
    NotNow,
}

impl Fault {
    fn into_message(self) -> String {
        match self {
            Self::Access(message) | Self::Content(message) => message,
            Self::NotNow => "the file changes while it is read: try again".to_owned(),
        }
    }
}

/// Who knows what lists may take, while they are read again.
pub(crate) trait Room {
    /// Sets so many bytes aside for a list that is read beside the one in use; false if they are not free.
    fn claim(&mut self, bytes: usize) -> bool;

    /// What was set aside is in use, or given back. Was a list read again: with success?
    fn settle(&mut self, read: Option<bool>);
}

impl List {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let seen = look(path)?;
        let values = Extent::of(path).and_then(|extent| extent.read(path)).map_err(Fault::into_message)?;
        Ok(Self { path: path.to_owned(), values: ArcSwap::from_pointee(values), seen: Mutex::new(seen) })
    }

    #[inline]
    pub(super) fn contains(&self, value: &[u8]) -> bool {
        self.values.load().contains(value)
    }

    /// What the values take, in bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.values.load())
    }

    /// Checks that the list takes `most` bytes of memory at most.
    ///
    /// # Errors
    /// What is to be done, if it takes more.
    pub(crate) fn check(&self, most: usize) -> Result<(), String> {
        self.check_bytes(self.bytes(), most)
    }

    fn check_bytes(&self, bytes: usize, most: usize) -> Result<(), String> {
        if bytes <= most {
            return Ok(());
        }
        Err(format!(
            "{} takes {} KiB of memory, and lists may take {} KiB each of the buffer's budget: shorten the list, or set a \
             larger memory_limit_mib",
            self.path.display(),
            bytes >> 10,
            most >> 10
        ))
    }

    /// Reads the file again if it has changed: how many values there are now. They may take `most` bytes of
    /// memory, if `room` has them.
    ///
    /// # Errors
    /// Once, if it can no longer be read, or is too large; the list stays as it was.
    pub(crate) fn refresh(&self, most: usize, room: &mut impl Room) -> Result<Option<usize>, String> {
        let mut seen = self.seen.lock();
        // Looked at before it is read: what is written meanwhile is seen the next time.
        let fault = match look(&self.path) {
            Ok(now) if now == *seen => return Ok(None),
            Ok(now) => match self.read(most, room) {
                Ok(values) => {
                    *seen = now;
                    return Ok(Some(values));
                }
                Err(Fault::Content(error)) => {
                    *seen = now;
                    return Err(error);
                }
                Err(fault) => fault,
            },
            Err(error) => Fault::Access(error),
        };
        let Fault::Access(error) = fault else { return Ok(None) };
        let news = Seen::Failed(error.clone());
        let known = *seen == news;
        *seen = news;
        if known { Ok(None) } else { Err(error) }
    }

    fn read(&self, most: usize, room: &mut impl Room) -> Result<usize, Fault> {
        let extent = Extent::of(&self.path)?;
        self.check_bytes(extent.bytes(), most).map_err(Fault::Content)?;
        if !room.claim(extent.bytes()) {
            return Err(Fault::NotNow);
        }
        let values = extent.read(&self.path)?;
        let count = values.len();
        self.values.store(Arc::new(values));
        Ok(count)
    }
}

/// What an allocation takes beside its content.
const ALLOCATION: usize = 16;
/// A place of the table, with the byte that marks it.
const PLACE: usize = size_of::<Box<[u8]>>() + 1;

fn bytes(values: &Values) -> usize {
    values.capacity() * PLACE * 8 / 7 + values.iter().map(|value| value.len() + ALLOCATION).sum::<usize>()
}

fn look(path: &Path) -> Result<Seen, String> {
    let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    Ok(Seen::of(&metadata))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// What a file holds.
#[derive(Debug, Default)]
struct Extent {
    values: usize,
    /// Bytes of all values.
    length: usize,
}

impl Extent {
    fn of(path: &Path) -> Result<Self, Fault> {
        let mut extent = Self::default();
        each_value(path, |value| {
            extent.values += 1;
            extent.length += value.len();
            Ok(())
        })?;
        Ok(extent)
    }

    /// What the values take at most, in bytes of memory.
    fn bytes(&self) -> usize {
        let places = (self.values * 8).div_ceil(7).next_power_of_two().max(16);
        places * PLACE + self.length + self.values * ALLOCATION
    }

    /// The values, unless there are more of them by now.
    fn read(mut self, path: &Path) -> Result<Values, Fault> {
        let mut values = Values::with_capacity_and_hasher(self.values, foldhash::fast::RandomState::default());
        each_value(path, |value| {
            self.values = self.values.checked_sub(1).ok_or(Fault::NotNow)?;
            self.length = self.length.checked_sub(value.len()).ok_or(Fault::NotNow)?;
            values.insert(value.into());
            Ok(())
        })?;
        Ok(values)
    }
}

/// One value a line; blank lines and those that begin with `#` are none.
fn each_value(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::Access(cannot_read(path, &error));
    let too_large =
        || Fault::Content(format!("{} is larger than {} MiB: shorten the list", path.display(), MAX_BYTES >> 20));
    let file = fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut file = BufReader::with_capacity(MAX_LINE as usize, file);
    let (mut line, mut total) = (Vec::new(), 0);
    loop {
        line.clear();
        let length = file.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(failed)? as u64;
        total += length;
        match length {
            0 => return Ok(()),
            _ if total > MAX_BYTES => return Err(too_large()),
            _ if length > MAX_LINE => {
                let message = format!("{} has a line of more than {} KiB: shorten it", path.display(), MAX_LINE >> 10);
                return Err(Fault::Content(message));
            }
            _ => {}
        }
        let Ok(text) = str::from_utf8(&line) else {
            return Err(Fault::Content(format!("cannot read {}: it is not text in UTF-8", path.display())));
        };
        let value = text.trim();
        if !value.is_empty() && !value.starts_with('#') {
            take(value.as_bytes())?;
        }
    }
}

/// Looks at files until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    _stop: Sender<()>,
}

impl Watcher {
    /// `room` is told of every list that was read again. Each may take `most` bytes of memory.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn new(
        lists: Vec<Arc<List>>,
        most: usize,
        mut room: impl Room + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
                for list in &lists {
                    let read = match list.refresh(most, &mut room) {
                        Ok(None) => None,
                        Ok(Some(values)) => {
                            tracing::info!(file = %list.path.display(), values, "a list of values has changed");
                            Some(true)
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a list of values cannot be read again; the old one stays in use");
                            Some(false)
                        }
                    };
                    room.settle(read);
                }
            }
        };
        thread::Builder::new().name("tail-sampling-lists".to_owned()).spawn(watch)?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: usize = usize::MAX;

    /// There is always room.
    struct Free;

    impl Room for Free {
        fn claim(&mut self, _: usize) -> bool {
            true
        }

        fn settle(&mut self, _: Option<bool>) {}
    }

    /// So much room, and what was claimed of it.
    struct Narrow(usize, Vec<usize>);

    impl Room for Narrow {
        fn claim(&mut self, bytes: usize) -> bool {
            self.1.push(bytes);
            bytes <= self.0
        }

        fn settle(&mut self, _: Option<bool>) {}
    }

    impl Room for Sender<bool> {
        fn claim(&mut self, _: usize) -> bool {
            true
        }

        fn settle(&mut self, read: Option<bool>) {
            if let Some(read) = read {
                self.send(read).unwrap();
            }
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(List::open(&path).unwrap_err().contains("cannot read"));
        fs::write(&path, "# important\nu1\r\n\n  u2 \n").unwrap();
        let list = List::open(&path).unwrap();
        assert!(list.contains(b"u1") && list.contains(b"u2"));
        assert!(!list.contains(b"# important") && !list.contains(b""));
        assert_eq!(list.refresh(ANY, &mut Free), Ok(None));
        fs::write(&path, "u1\nu3\nu4\n").unwrap();
        assert_eq!(list.refresh(ANY, &mut Free), Ok(Some(3)));
        assert!(list.contains(b"u3") && !list.contains(b"u2"));
        fs::write(&path, b"u5\n\xff\xfe").unwrap();
        assert!(list.refresh(ANY, &mut Free).is_err(), "it is not text");
        fs::remove_file(&path).unwrap();
        assert!(list.refresh(ANY, &mut Free).is_err());
        assert_eq!(list.refresh(ANY, &mut Free), Ok(None), "it says so once");
        assert!(list.contains(b"u3"), "the old list stays");
        fs::write(&path, "u5\n").unwrap();
        assert_eq!(list.refresh(ANY, &mut Free), Ok(Some(1)));
        assert!(list.contains(b"u5"));
    }

    #[test]
    fn too_large_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(List::open(&path).unwrap_err().contains("larger than 64 MiB"));
    }

    /// Guarantee: what a list takes is known, and a longer one than there is room for does not come into use.
    #[test]
    fn a_list_that_takes_too_much_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let lines = |count: usize| (0..count).map(|user| format!("user-{user:08}\n")).collect::<String>();
        fs::write(&path, lines(1000)).unwrap();
        let list = List::open(&path).unwrap();
        assert!((40_000..100_000).contains(&list.bytes()), "{}", list.bytes());
        assert!(list.check(100_000).is_ok() && list.check(10_000).unwrap_err().contains("memory_limit_mib"));
        fs::write(&path, lines(10_000)).unwrap();
        assert!(list.refresh(100_000, &mut Free).unwrap_err().contains("shorten the list"));
        assert!(list.contains(b"user-00000999") && !list.contains(b"user-00001000"));
        fs::write(&path, lines(900)).unwrap();
        assert_eq!(list.refresh(100_000, &mut Free), Ok(Some(900)));
    }

    /// Guarantee: a file that is of no use is read once, not every second, until it changes; one that cannot be read is
    /// tried again.
    #[test]
    fn a_file_that_is_of_no_use_is_not_read_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "u1\n").unwrap();
        let list = List::open(&path).unwrap();
        let long = format!("{}\n", "x".repeat(MAX_LINE as usize + 1)).into_bytes();
        let many = (0..10_000).map(|user| format!("user-{user:08}\n")).collect::<String>().into_bytes();
        for (content, reason) in [(b"u2\n\xff\xfe".to_vec(), "not text"), (long, "a line"), (many, "shorten the list")]
        {
            fs::write(&path, content).unwrap();
            let error = list.refresh(100_000, &mut Free).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(matches!(*list.seen.lock(), Seen::Stamp(..)), "it is known as it is");
            assert_eq!(list.refresh(100_000, &mut Free), Ok(None));
            assert!(list.contains(b"u1") && !list.contains(b"u2"));
        }
        fs::remove_file(&path).unwrap();
        assert!(list.refresh(100_000, &mut Free).is_err());
        assert!(matches!(*list.seen.lock(), Seen::Failed(_)));
        fs::write(&path, "u3\n").unwrap();
        assert_eq!(list.refresh(100_000, &mut Free), Ok(Some(1)));
    }

    /// Guarantee: nothing of a file is kept before there is room for all of it, and what is set aside is enough.
    #[test]
    fn a_list_is_read_when_there_is_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for count in [1, 3, 4, 7, 8, 14, 15, 28, 29, 100, 447, 448, 449, 1000, 3584, 3585] {
            fs::write(&path, "u1\n").unwrap();
            let list = List::open(&path).unwrap();
            let lines: String = (0..count).map(|user| format!("# user\nuser-{user:08}\n\n")).collect();
            fs::write(&path, lines).unwrap();
            let mut none = Narrow(0, Vec::new());
            assert_eq!(list.refresh(ANY, &mut none), Ok(None));
            assert_eq!(list.refresh(ANY, &mut none), Ok(None));
            assert!(list.contains(b"u1") && none.1.len() == 2, "it is tried again");
            assert!(list.refresh(none.1[0] - 1, &mut Free).unwrap_err().contains("shorten the list"));
            fs::write(&path, "u1\n").unwrap();
            assert_eq!(list.refresh(ANY, &mut Free), Ok(Some(1)));
            fs::write(&path, (0..count).map(|user| format!("user-{user:08}\n")).collect::<String>()).unwrap();
            assert_eq!(list.refresh(none.1[0], &mut Narrow(none.1[0], Vec::new())), Ok(Some(count)));
            assert!(list.bytes() <= none.1[0], "{count}: {} of {}", list.bytes(), none.1[0]);
            assert!(count < 8 || list.bytes() * 20 >= none.1[0] * 19, "{count}: {} of {}", list.bytes(), none.1[0]);
        }
    }

    #[test]
    fn the_watcher_reads_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "u1\n").unwrap();
        let list = Arc::new(List::open(&path).unwrap());
        let (reports, reported) = channel();
        let watcher = Watcher::new(vec![Arc::clone(&list)], ANY, reports).unwrap();
        fs::write(&path, "u1\nu2\n").unwrap();
        assert_eq!(reported.recv_timeout(Duration::from_secs(30)), Ok(true));
        assert!(list.contains(b"u2"));
        drop(watcher);
        assert_eq!(reported.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
