//! What a file holds, as it is or decompressed.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

/// How much is decompressed at once where nobody wants it.
const BLOCK: usize = 256 << 10;

/// A file that is read from any place on. Places are counted in what it holds once it is decompressed.
pub(super) struct Source {
    file: Arc<File>,
    gzip: Option<Box<Gzip>>,
}

impl Source {
    pub(super) fn open(path: &Path, is_gzip: bool) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        let gzip = is_gzip.then(|| Box::new(Gzip::new(&file)));
        Ok(Self { file, gzip })
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.gzip.is_some()
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Is there nothing behind `from`, as far as the file's `length` tells?
    pub(super) fn is_at_end(&self, length: u64, from: u64) -> bool {
        match &self.gzip {
            None => length == from,
            Some(gzip) => gzip.end == Some(length) && gzip.at == from,
        }
    }

    /// Nothing before `taken` will be asked for again.
    pub(super) fn forget(&mut self, taken: u64) {
        if let Some(gzip) = &mut self.gzip {
            gzip.forget(taken);
        }
    }

    /// Appends at most `most` bytes from `from` on to `bytes`; fewer at the end.
    pub(super) fn read(&mut self, from: u64, most: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
        match &mut self.gzip {
            None => read_up_to(&mut Reader { file: Arc::clone(&self.file), at: from }, most, bytes),
            Some(gzip) => gzip.read(from, most, bytes),
        }
    }

    /// How much it holds now.
    pub(super) fn length(&mut self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        let Some(gzip) = &mut self.gzip else { return Ok(length) };
        if gzip.is_stale(length) {
            **gzip = Gzip::new(&self.file);
        }
        while gzip.decompress(length, BLOCK)? == BLOCK {
            gzip.ahead.clear();
        }
        gzip.ahead.clear();
        Ok(gzip.at)
    }

    /// The beginning of the file as it is on the disk, at most `most` bytes of it.
    pub(super) fn head(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        read_up_to(&mut Reader { file: Arc::clone(&self.file), at: 0 }, most, &mut head)?;
        Ok(head)
    }
}

/// Appends at most `most` bytes to `bytes`; fewer at the end.
#[expect(clippy::disallowed_methods, reason = "bounded by take")]
fn read_up_to(reader: &mut impl Read, most: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
    reader.take(most as u64).read_to_end(bytes)
}

/// Reads a file that others read, too.
struct Reader {
    file: Arc<File>,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A gzip file, one member after the other. It may still grow.
struct Gzip {
    file: Arc<File>,
    /// Made when it is needed: it reads at once, and the file may still be empty.
    decoder: Option<MultiGzDecoder<BufReader<Reader>>>,
    /// How much has been decompressed.
    at: u64,
    /// The last of it, which may be asked for again.
    ahead: Vec<u8>,
    /// The length of the file when its end was met.
    end: Option<u64>,
}

impl Gzip {
    fn new(file: &Arc<File>) -> Self {
        Self { file: Arc::clone(file), decoder: None, at: 0, ahead: Vec::new(), end: None }
    }

    /// Where what is kept begins.
    fn begin(&self) -> u64 {
        self.at - self.ahead.len() as u64
    }

    /// Has the file grown since its end was met? The decoder does not go on from there.
    fn is_stale(&self, length: u64) -> bool {
        self.end.is_some_and(|end| end != length)
    }

    fn forget(&mut self, taken: u64) {
        let passed = usize::try_from(taken.saturating_sub(self.begin())).unwrap_or(usize::MAX);
        self.ahead.drain(..passed.min(self.ahead.len()));
    }

    fn read(&mut self, from: u64, most: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        if self.is_stale(length) || from < self.begin() {
            *self = Self::new(&self.file);
        }
        while self.at < from {
            let step = usize::try_from(from - self.at).unwrap_or(usize::MAX).min(BLOCK);
            if self.decompress(length, step)? < step {
                // It holds less than it did.
                return Ok(0);
            }
            self.forget(from);
        }
        let begin = usize::try_from(from - self.begin()).unwrap_or(usize::MAX);
        let kept = self.ahead.len().saturating_sub(begin);
        if kept < most {
            self.decompress(length, most - kept)?;
        }
        let found = self.ahead.get(begin..).unwrap_or_default();
        let found = found.get(..most).unwrap_or(found);
        bytes.extend_from_slice(found);
        Ok(found.len())
    }

    /// Decompresses `most` bytes more, fewer at the end. A member that breaks off is one that is still being
    /// written.
    fn decompress(&mut self, length: u64, most: usize) -> io::Result<usize> {
        if self.end.is_some() {
            return Ok(0);
        }
        let before = self.ahead.len();
        let begin = || MultiGzDecoder::new(BufReader::new(Reader { file: Arc::clone(&self.file), at: 0 }));
        let result = read_up_to(self.decoder.get_or_insert_with(begin), most, &mut self.ahead);
        let read = self.ahead.len() - before;
        self.at += read as u64;
        match result {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                // The decoder is of no use any more, and the file may become another one.
                *self = Self::new(&self.file);
                return Err(error);
            }
            _ if read < most => self.end = Some(length),
            _ => {}
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn append(path: &Path, bytes: &[u8]) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    proptest! {
        /// A file that comes in pieces, members and parts of members, read from any places on: always what the
        /// content is from there on, as far as it has come.
        #[test]
        fn reads_what_was_compressed(
            members in proptest::collection::vec(proptest::collection::vec(0..4_u8, 0..3000), 1..4),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
            reads in proptest::collection::vec((any::<proptest::sample::Index>(), 1..5000_usize, any::<bool>()), 1..12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.gz");
            let content = members.concat();
            let compressed: Vec<u8> = members.iter().flat_map(|content| member(content)).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(compressed.len())).collect();
            ends.push(compressed.len());
            ends.sort_unstable();
            append(&path, b"");
            let mut source = Source::open(&path, true).unwrap();
            let (mut written, mut known, mut taken) = (0, 0, 0);
            for end in ends {
                append(&path, &compressed[written..end]);
                written = end;
                for (place, most, is_taken) in &reads {
                    let from = taken + place.index(known - taken + 1);
                    let mut bytes = Vec::new();
                    let read = source.read(from as u64, *most, &mut bytes).unwrap();
                    prop_assert_eq!(read, bytes.len());
                    prop_assert_eq!(&bytes[..], &content[from..from + read]);
                    known = known.max(from + read);
                    if *is_taken {
                        taken = from;
                        source.forget(taken as u64);
                    }
                }
            }
            prop_assert_eq!(source.length().unwrap(), content.len() as u64);
            prop_assert!(source.is_at_end(compressed.len() as u64, content.len() as u64));
        }
    }

    #[test]
    fn what_is_no_gzip_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        append(&path, b"this is no gzip file");
        assert!(Source::open(&path, true).unwrap().read(0, 100, &mut Vec::new()).is_err());
    }
}
