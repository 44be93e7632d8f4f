//! Lists of values in files (`values_file`), read again when they change.
//!
//! Conditions look values up in the list of the moment, which a thread of its own replaces; a file
//! that can no longer be read leaves the list as it was.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::Read;
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
    Stamp(Option<SystemTime>, u64),
    Failed(String),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self::Stamp(metadata.modified().ok(), metadata.len())
    }
}

impl List {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let seen = look(path)?;
        let values = read(path)?;
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
        self.check_values(&self.values.load(), most)
    }

    fn check_values(&self, values: &Values, most: usize) -> Result<(), String> {
        let bytes = bytes(values);
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
    /// memory.
    ///
    /// # Errors
    /// Once, if it can no longer be read, or is too large; the list stays as it was.
    pub(crate) fn refresh(&self, most: usize) -> Result<Option<usize>, String> {
        let mut seen = self.seen.lock();
        // Looked at before it is read: what is written meanwhile is seen the next time.
        let result = look(&self.path).and_then(|now| {
            if now == *seen {
                return Ok((now, None));
            }
            let values = read(&self.path)?;
            self.check_values(&values, most)?;
            Ok((now, Some(values)))
        });
        match result {
            Ok((_, None)) => Ok(None),
            Ok((now, Some(values))) => {
                *seen = now;
                let count = values.len();
                self.values.store(Arc::new(values));
                Ok(Some(count))
            }
            Err(error) => {
                let news = Seen::Failed(error.clone());
                let known = *seen == news;
                *seen = news;
                if known { Ok(None) } else { Err(error) }
            }
        }
    }
}

fn bytes(values: &Values) -> usize {
    // What an allocation takes beside its content, and a place of the table with the byte that marks it.
    const ALLOCATION: usize = 16;
    const PLACE: usize = size_of::<Box<[u8]>>() + 1;
    values.capacity() * PLACE * 8 / 7 + values.iter().map(|value| value.len() + ALLOCATION).sum::<usize>()
}

fn look(path: &Path) -> Result<Seen, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Seen::of(&metadata))
}

/// One value a line; blank lines and those that begin with `#` are none.
fn read(path: &Path) -> Result<Values, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{} is larger than {} MiB: shorten the list", path.display(), MAX_BYTES >> 20));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.as_bytes().into()).collect())
}

/// Looks at files until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    _stop: Sender<()>,
}

impl Watcher {
    /// `report` is told of every list that was read again: `true` if that went well. Each may take `most` bytes
    /// of memory.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn new(
        lists: Vec<Arc<List>>,
        most: usize,
        mut report: impl FnMut(bool) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PERIOD) {
                for list in &lists {
                    match list.refresh(most) {
                        Ok(None) => {}
                        Ok(Some(values)) => {
                            tracing::info!(file = %list.path.display(), values, "a list of values has changed");
                            report(true);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a list of values cannot be read again; the old one stays in use");
                            report(false);
                        }
                    }
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

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(List::open(&path).unwrap_err().contains("cannot read"));
        fs::write(&path, "# important\nu1\r\n\n  u2 \n").unwrap();
        let list = List::open(&path).unwrap();
        assert!(list.contains(b"u1") && list.contains(b"u2"));
        assert!(!list.contains(b"# important") && !list.contains(b""));
        assert_eq!(list.refresh(ANY), Ok(None));
        fs::write(&path, "u1\nu3\nu4\n").unwrap();
        assert_eq!(list.refresh(ANY), Ok(Some(3)));
        assert!(list.contains(b"u3") && !list.contains(b"u2"));
        fs::write(&path, b"u5\n\xff\xfe").unwrap();
        assert!(list.refresh(ANY).is_err(), "it is not text");
        fs::remove_file(&path).unwrap();
        assert!(list.refresh(ANY).is_err());
        assert_eq!(list.refresh(ANY), Ok(None), "it says so once");
        assert!(list.contains(b"u3"), "the old list stays");
        fs::write(&path, "u5\n").unwrap();
        assert_eq!(list.refresh(ANY), Ok(Some(1)));
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
        assert!(list.refresh(100_000).unwrap_err().contains("shorten the list"));
        assert!(list.contains(b"user-00000999") && !list.contains(b"user-00001000"));
        fs::write(&path, lines(900)).unwrap();
        assert_eq!(list.refresh(100_000), Ok(Some(900)));
    }

    #[test]
    fn the_watcher_reads_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "u1\n").unwrap();
        let list = Arc::new(List::open(&path).unwrap());
        let (reports, reported) = channel();
        let watcher = Watcher::new(vec![Arc::clone(&list)], ANY, move |ok| reports.send(ok).unwrap()).unwrap();
        fs::write(&path, "u1\nu2\n").unwrap();
        assert_eq!(reported.recv_timeout(Duration::from_secs(30)), Ok(true));
        assert!(list.contains(b"u2"));
        drop(watcher);
        assert_eq!(reported.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    }
}
