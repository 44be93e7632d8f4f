//! One request: encoded, taken apart by group, and handed to the writer.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nyquist_core::batch::{Code, DropReason, Signal};
use nyquist_core::component::{Host, StartError};
use nyquist_core::delivery::{Attempt, Lost, Outcome, Request};
use nyquist_core::otlp_json;
use nyquist_core::wire::{AnyValue, TracesView, check, put_len_field};
use parking_lot::Mutex;

use super::config::{FileConfig, Format};
use super::writer::{Record, Writer};

/// Writes requests of one signal.
pub(super) struct FileAttempt {
    pub(super) config: Arc<FileConfig>,
    pub(super) writer: Arc<Writer>,
}

/// A request as it goes into the files.
pub(super) struct Encoded {
    /// What is not written yet: a second attempt does not write twice.
    left: Mutex<Vec<Record>>,
    /// Items whose resource has not the attribute that names the file.
    nameless: usize,
}

#[async_trait]
impl Attempt for FileAttempt {
    type Encoded = Encoded;

    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.writer.start(&self.config, host).await.map_err(StartError)
    }

    fn encode(&self, request: &Request) -> Result<Encoded, Outcome> {
        let refused = |message| Outcome::Refused { code: Code::Internal, message };
        if !self.config.group_by.enabled {
            let record = encode(&self.config, request.signal(), &request.bytes()).map_err(refused)?;
            let records = vec![Record { group: None, bytes: record }];
            return Ok(Encoded { left: Mutex::new(records), nameless: 0 });
        }
        let (groups, rest) = split(&request.bytes(), &self.config.group_by.resource_attribute);
        let mut records = Vec::new();
        for (group, message) in groups {
            let bytes = encode(&self.config, request.signal(), &message).map_err(refused)?;
            records.push(Record { group: Some(group), bytes });
        }
        let nameless = if rest.is_empty() { 0 } else { check(request.signal(), &rest).map_or(0, |rest| rest.items) };
        Ok(Encoded { left: Mutex::new(records), nameless })
    }

    async fn attempt(&self, encoded: &Encoded) -> Outcome {
        let records = encoded.left.lock().clone();
        let (written, result) = self.writer.write(records).await;
        encoded.left.lock().drain(..written);
        if let Err(error) = result {
            return outcome(&error, &self.config.path);
        }
        if encoded.nameless == 0 {
            return Outcome::Delivered;
        }
        let attribute = &self.config.group_by.resource_attribute;
        Outcome::Settled {
            lost: Lost::of(DropReason::Untranslatable, encoded.nameless),
            message: format!("resources without a text {attribute:?} (group_by.resource_attribute) were dropped"),
        }
    }
}

/// What an error of the file system means for the request.
fn outcome(error: &std::io::Error, path: &str) -> Outcome {
    let message = format!("cannot write to {path}: {error}");
    match error.kind() {
        // Of the name that a resource attribute made: no other attempt ends better.
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput | ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
            Outcome::Refused { code: Code::InvalidArgument, message }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Outcome::Retry { code: Code::ResourceExhausted, after: None, message }
        }
        _ => Outcome::Retry { code: Code::Unavailable, after: None, message },
    }
}

/// The bytes that go into the file for one message.
fn encode(config: &FileConfig, signal: Signal, message: &[u8]) -> Result<Bytes, String> {
    let mut record = Vec::with_capacity(message.len() + 4);
    if config.is_framed() {
        record.extend_from_slice(&[0; 4]);
    }
    match config.format {
        Format::Proto => record.extend_from_slice(message),
        Format::Json => otlp_json::write(signal, message, &mut record).map_err(|error| error.to_string())?,
    }
    if !config.is_framed() {
        record.push(b'\n');
        return Ok(record.into());
    }
    if config.is_compressed() {
        let content = record.get(4..).unwrap_or_default();
        let packed = zstd::bulk::compress(content, 0).map_err(|error| format!("cannot compress: {error}"))?;
        record.truncate(4);
        record.extend_from_slice(&packed);
    }
    let length = u32::try_from(record.len() - 4).map_err(|_| "the request is longer than 4 GiB".to_owned())?;
    if let Some(prefix) = record.first_chunk_mut::<4>() {
        *prefix = length.to_be_bytes();
    }
    Ok(record.into())
}

/// The resources of `message` by the value of their attribute, each group a message; and a message of
/// those that have no such text.
fn split(message: &[u8], attribute: &str) -> (BTreeMap<String, Vec<u8>>, Vec<u8>) {
    let mut groups = BTreeMap::<String, Vec<u8>>::new();
    let mut rest = Vec::new();
    // Down to the resource's attributes, the messages of the three signals look the same.
    for resource in TracesView::new(message).resource_spans() {
        let found = resource.resource_attributes().find(|pair| pair.key == attribute.as_bytes());
        let group = match found.map(|pair| pair.value) {
            Some(AnyValue::String(text)) => groups.entry(String::from_utf8_lossy(text).into_owned()).or_default(),
            _ => &mut rest,
        };
        put_len_field(group, 1, resource.bytes());
    }
    (groups, rest)
}
