//! Recorded requests: files of OTLP data in the forms in which people have them.
//!
//! - JSON: one document, or one after the other (JSON lines, as the Collector's `file` exporter writes them);
//! - protobuf: one message; messages with their length in front, as a varint (`writeDelimitedTo`) or
//!   in four bytes, the highest first (the `file` exporter with `format: proto`);
//! - any of these compressed with gzip or zstd.
//!
//! The form is told by the bytes. Every message passes the ingress check of the receiver.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::net::compression::decode::{Encoding, decode};
use serde::de::IgnoredAny;

use super::intake::{Acceptable, checked};
use super::json;

/// What a recording holds.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The requests with spans (points, records), in order, as pipelines take them.
    pub requests: Vec<Bytes>,
    /// How many items they hold.
    pub items: usize,
    /// Items that were left out because their trace or span id is not valid.
    pub invalid: usize,
}

impl Recorded {
    fn add(&mut self, signal: Signal, message: Bytes) -> Result<(), String> {
        let Acceptable { bytes, items, invalid, .. } = checked(signal, message).map_err(|error| error.to_string())?;
        self.items += items;
        self.invalid += invalid;
        if items > 0 {
            self.requests.push(bytes);
        }
        Ok(())
    }
}

/// Reads a recording of `signal`, which may be at most `limit` bytes long once decompressed.
///
/// # Errors
/// What is wrong with it, for people.
pub fn read(signal: Signal, file: &[u8], limit: usize) -> Result<Recorded, String> {
    let encoding = match file {
        [0x1f, 0x8b, ..] => Encoding::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Encoding::Zstd,
        _ => Encoding::Identity,
    };
    let bytes = decode(encoding, file, limit).map_err(|error| error.to_string())?;
    let begin = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len());
    match bytes.get(begin) {
        None => Ok(Recorded::default()),
        Some(b'{') => read_json(signal, &bytes, limit),
        Some(b'[') => Err("a JSON list: OTLP/JSON is an object with resourceSpans, one or one after the other".into()),
        Some(_) => read_protobuf(signal, &bytes),
    }
}

fn read_json(signal: Signal, bytes: &[u8], limit: usize) -> Result<Recorded, String> {
    let mut recorded = Recorded::default();
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    let mut begin = 0;
    while let Some(document) = documents.next() {
        document.map_err(|error| match error.is_eof() {
            true => format!("cut short: the JSON document ends in the middle ({error})"),
            false => format!("not JSON: {error}"),
        })?;
        let end = documents.byte_offset();
        let line = || 1 + bytes.iter().take(begin).filter(|byte| **byte == b'\n').count();
        let body = bytes.get(begin..end).unwrap_or_default();
        let message = json::to_wire(signal, body, limit)
            .map_err(|error| format!("in the document after line {}: {error}", line()))?;
        recorded.add(signal, message.into())?;
        begin = end;
    }
    Ok(recorded)
}

/// The three forms exclude each other as far as can be told: a message that is none of an export
/// request's kind holds no items.
fn read_protobuf(signal: Signal, bytes: &Bytes) -> Result<Recorded, String> {
    let mut whole = Recorded::default();
    let outcome = whole.add(signal, bytes.clone());
    if outcome.is_ok() && whole.items + whole.invalid > 0 {
        return Ok(whole);
    }
    for length in [varint_length as Length, four_byte_length] {
        if let Some(recorded) = read_delimited(signal, bytes, length) {
            return Ok(recorded);
        }
    }
    match outcome {
        Ok(()) => Ok(whole),
        Err(error) => Err(format!("neither JSON nor an OTLP message, or several with their lengths: {error}")),
    }
}

/// Takes a length off the front of some bytes.
type Length = fn(&[u8]) -> Option<(usize, usize)>;

fn varint_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, index + 1));
        }
    }
    None
}

fn four_byte_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (length, _) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*length) as usize, 4))
}

/// `None` if the bytes are no messages with such lengths.
fn read_delimited(signal: Signal, bytes: &Bytes, length: Length) -> Option<Recorded> {
    let mut recorded = Recorded::default();
    let mut at = 0;
    while at < bytes.len() {
        let (length, prefix) = length(bytes.get(at..)?)?;
        let begin = at + prefix;
        let end = begin.checked_add(length).filter(|end| *end <= bytes.len())?;
        recorded.add(signal, bytes.slice(begin..end)).ok()?;
        at = end;
    }
    (recorded.items + recorded.invalid > 0).then_some(recorded)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nyquist_core::wire::TracesView;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;
    const GO: &[u8] = include_bytes!("../../testdata/otlp/go.traces.pb");
    const JAVASCRIPT: &[u8] = include_bytes!("../../testdata/otlp/javascript.traces.pb");

    fn document(name: &str) -> String {
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"5b8efff798038103d269b633813fc60c",
            "spanId":"eee19b7ec3c1b174","name":"{name}"}}]}}]}}]}}"#
        )
    }

    fn names(recorded: &Recorded) -> Vec<String> {
        let requests = recorded.requests.iter().flat_map(|request| TracesView::new(request).resource_spans());
        let spans = requests.flat_map(|resource| resource.scope_spans()).flat_map(|scope| scope.spans());
        spans.map(|span| String::from_utf8_lossy(span.name()).into_owned()).collect()
    }

    fn traces(file: &[u8]) -> Recorded {
        read(Signal::Traces, file, LIMIT).unwrap()
    }

    /// One document, several on lines of their own, several without any space: all are read.
    #[test]
    fn json_documents() {
        assert_eq!(names(&traces(document("a").as_bytes())), ["a"]);
        for separator in ["", "\n", "\r\n", "\n\n  "] {
            let file = [document("a"), document("b"), document("c")].join(separator);
            assert_eq!(names(&traces(format!("\n{file}\n").as_bytes())), ["a", "b", "c"]);
        }
    }

    /// The same requests in every framing of protobuf.
    #[test]
    fn protobuf_framings() {
        let one = traces(GO);
        assert_eq!(one.requests, [GO]);
        assert!(one.items > 0);
        let mut varint = Vec::new();
        let mut four_bytes = Vec::new();
        for message in [GO, JAVASCRIPT, GO] {
            nyquist_core::wire::put_varint(&mut varint, message.len() as u64);
            varint.extend_from_slice(message);
            four_bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            four_bytes.extend_from_slice(message);
        }
        for file in [varint, four_bytes] {
            assert_eq!(traces(&file).requests, [GO, JAVASCRIPT, GO]);
            // Cut short, they are nothing.
            assert!(read(Signal::Traces, &file[..file.len() - 1], LIMIT).is_err());
        }
    }

    #[test]
    fn compressed_files() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(GO).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(traces(&gzip).requests, [GO]);
        assert_eq!(traces(&zstd::bulk::compress(GO, 1).unwrap()).requests, [GO]);
        assert!(read(Signal::Traces, &gzip, GO.len() - 1).unwrap_err().contains("limit"));
    }

    /// Spans with unusable ids are left out and counted, as at the receiver.
    #[test]
    fn invalid_ids_are_left_out() {
        let file = document("a").replace("eee19b7ec3c1b174", "0000000000000000");
        let recorded = traces(format!("{file}{}", document("b")).as_bytes());
        assert_eq!((names(&recorded), recorded.items, recorded.invalid), (vec!["b".to_owned()], 1, 1));
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        for file in ["[1]", "{", "{\"resourceSpans\": 5}", "a: b", "\u{1}\u{2}\u{3}"] {
            assert!(read(Signal::Traces, file.as_bytes(), LIMIT).is_err(), "{file}");
        }
        let second = format!("{}\n{{\"resourceSpans\": 5}}", document("a"));
        let error = read(Signal::Traces, second.as_bytes(), LIMIT).unwrap_err();
        assert!(error.contains("after line 2"), "{error}");
        assert!(traces(b" \n").requests.is_empty());
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(Signal::Traces, &bytes, LIMIT);
        }
    }
}
