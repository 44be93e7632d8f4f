//! How far files have been read, over a restart (`storage`).
//!
//! The log holds one record that counts: all offsets, as JSON. A new one is appended before the old one is
//! released. A file is known by device and inode, and by its beginning: an inode is used again when its file
//! has gone.

use std::sync::Arc;

use bytes::Bytes;
use nyquist_core::clock::Clock;
use nyquist_core::component::StartError;
use nyquist_core::delivery::LogGate;
use nyquist_core::storage::{Cursor, Log, Owner, Storage};
use serde::{Deserialize, Serialize};

/// The kind of the record, which is the version of what is in it.
const KIND: u8 = 1;

/// What may be delivered again after a `kill -9`, in bytes of lines, but for the last line.
const UNSAVED: usize = 256 << 10;

/// How much of a file's beginning tells it from another.
pub(super) const HEAD: usize = 1024;

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// The beginning of a file as it is on the disk: its length, at most [`HEAD`], and its FNV-1a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) length: usize,
    hash: u64,
}

impl Head {
    pub(super) fn of(beginning: &[u8]) -> Self {
        let beginning = beginning.get(..HEAD).unwrap_or(beginning);
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self { length: beginning.len(), hash: beginning.iter().fold(0xcbf2_9ce4_8422_2325, step) }
    }

    /// Does a file that begins so begin as this one did?
    pub(super) fn fits(self, beginning: &[u8]) -> bool {
        beginning.get(..self.length).is_some_and(|beginning| Self::of(beginning) == self)
    }
}

/// How far one file has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offset {
    pub(super) file: FileId,
    pub(super) head: Head,
    pub(super) taken: u64,
    /// For people.
    pub(super) path: String,
}

/// The offsets in the log.
pub(super) struct Offsets {
    receiver: String,
    log: Log,
    clock: Arc<dyn Clock>,
    /// The record that counts.
    last: Option<u64>,
    saved: Vec<Offset>,
    /// Bytes of lines since then.
    unsaved: usize,
    failures: LogGate,
}

impl Offsets {
    /// Opens the log of the receiver `name`. `None` in place of the offsets: it has never run.
    pub(super) async fn open(
        storage: &dyn Storage,
        name: &str,
        receiver: String,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Option<Vec<Offset>>), StartError> {
        let (kind, name) = ("otlp_json_file".to_owned(), name.to_owned());
        let owner = Owner { role: "receiver", kind, name, part: String::new(), format: 1 };
        let failed = |error: nyquist_core::storage::Error| StartError(format!("storage: {error}"));
        let (log, _) = storage.open(&owner).await.map_err(failed)?;
        let (mut last, mut found) = (None, None);
        let mut cursor = Cursor::default();
        loop {
            let chunk = log.read(cursor, 1 << 20).await.map_err(failed)?;
            for record in chunk.records {
                if record.kind != KIND {
                    return Err(StartError(format!(
                        "storage: {} holds offsets of a newer version ({}), which this version cannot read",
                        owner.directory_name(),
                        record.kind
                    )));
                }
                let offsets = serde_json::from_slice::<Vec<Offset>>(&record.payload);
                found = Some(offsets.map_err(|error| StartError(format!("storage: no offsets: {error}")))?);
                last = Some(record.position.sequence);
            }
            cursor = chunk.next;
            if chunk.is_end {
                break;
            }
        }
        let saved = found.clone().unwrap_or_default();
        Ok((Self { receiver, log, clock, last, saved, unsaved: 0, failures: LogGate::default() }, found))
    }

    /// Lines of so many bytes have been delivered. Is it time to save?
    pub(super) fn delivered(&mut self, bytes: usize) -> bool {
        self.unsaved += bytes;
        // Where there are many files the record is long: it must not cost more than the lines.
        self.unsaved >= UNSAVED.max(self.saved.len() * 1024)
    }

    /// Saves them, if they have changed. What cannot be saved is said, and tried again the next time.
    pub(super) async fn save(&mut self, offsets: Vec<Offset>) {
        if self.last.is_some() && offsets == self.saved {
            return;
        }
        let payload = serde_json::to_vec(&offsets).unwrap_or_default();
        let weight = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        match self.log.append(KIND, weight, self.clock.unix_nanos(), vec![Bytes::from(payload)]).await {
            Ok(position) => {
                self.log.release_before(position.sequence);
                self.last = Some(position.sequence);
                self.saved = offsets;
                self.unsaved = 0;
            }
            Err(error) => {
                if let Some(since) = self.failures.event(0) {
                    tracing::error!(
                        receiver = self.receiver,
                        failures = since.requests,
                        %error,
                        "cannot save how far files were read: what is read now may be read again after a restart"
                    );
                }
            }
        }
    }

    pub(super) async fn close(self) {
        self.log.close().await;
    }
}
