//! The records of the sampler's log. All integers are little-endian.
//!
//! - `REQUEST`: an export request as it came, behind a field that names its client (`client`) if something is kept of
//!   it; weight: its spans; arrival: when it came.
//! - `OUTCOMES`: what became of traces: version (4), a fingerprint of the rules (4), `upto`
//!   (8), then 20 bytes a trace: its id, outcome (0 dropped, 1 kept, 2 delivered), 0, reason (2; an
//!   index that holds for rules of that fingerprint). Of a trace that was dropped or delivered, no span
//!   in a record up to `upto` is needed.
//! - `SPANS`: the spans of one trace, written anew so that their old records can go: version (4),
//!   milliseconds from the first span to the last (4), `upto` (8), the trace's id (16), then
//!   an export request with all its spans that came in records up to `upto`, behind the names of their clients. Weight: spans; arrival: of
//!   the first span.

use bytes::{BufMut, Bytes};

use crate::tail_sampling::buffer::{Note, Outcome};
use crate::tail_sampling::client;

/// The kinds of records.
pub(super) const REQUEST: u8 = 1;
pub(super) const OUTCOMES: u8 = 2;
pub(super) const SPANS: u8 = 3;

const VERSION: u32 = 1;
const ENTRY: usize = 20;
/// Traces in one record of outcomes.
pub(super) const MOST_OUTCOMES: usize = 1 << 15;

/// The request of `client`, in pieces.
pub(super) fn encode_request(client: &[u8], message: &Bytes) -> Vec<Bytes> {
    let name = client::field(client);
    let message = client::without_names(message).into_owned();
    if name.is_empty() { vec![message] } else { vec![name.into(), message] }
}

/// What became of traces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) upto: u64,
    pub(super) rules: u32,
    pub(super) notes: Vec<Note>,
}

pub(super) fn encode_outcomes(upto: u64, rules: u32, notes: &[Note]) -> Bytes {
    let mut out = Vec::with_capacity(16 + notes.len() * ENTRY);
    out.put_u32_le(VERSION);
    out.put_u32_le(rules);
    out.put_u64_le(upto);
    for note in notes {
        out.put_slice(&note.id);
        out.put_u16_le(match note.outcome {
            Outcome::Dropped => 0,
            Outcome::Kept => 1,
            Outcome::Delivered => 2,
        });
        out.put_u16_le(note.reason);
    }
    out.into()
}

/// `None` if it is of no version that is known here, or not whole.
pub(super) fn decode_outcomes(payload: &[u8]) -> Option<Outcomes> {
    let (header, entries) = payload.split_first_chunk::<16>()?;
    let (words, _) = header.as_chunks::<4>();
    let [version, rules, low, high] = *words else { return None };
    if u32::from_le_bytes(version) != VERSION {
        return None;
    }
    let upto = u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 32;
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return None;
    }
    let note = |entry: &[u8; ENTRY]| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let [outcome, 0, low, high] = *rest else { return None };
        let outcome = match outcome {
            0 => Outcome::Dropped,
            1 => Outcome::Kept,
            2 => Outcome::Delivered,
            _ => return None,
        };
        Some(Note { id: *id, outcome, reason: u16::from_le_bytes([low, high]) })
    };
    let notes = entries.iter().map(note).collect::<Option<Vec<Note>>>()?;
    Some(Outcomes { upto, rules: u32::from_le_bytes(rules), notes })
}

/// A trace that was written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spans {
    pub(super) upto: u64,
    pub(super) id: [u8; 16],
    /// Milliseconds from its first span to its last.
    pub(super) last_seen: u32,
    pub(super) message: Bytes,
}

pub(super) fn encode_spans(spans: &Spans) -> Vec<Bytes> {
    let mut header = Vec::with_capacity(SPANS_HEADER);
    header.put_u32_le(VERSION);
    header.put_u32_le(spans.last_seen);
    header.put_u64_le(spans.upto);
    header.put_slice(&spans.id);
    vec![header.into(), spans.message.clone()]
}

const SPANS_HEADER: usize = 32;

/// `None` if it is of no version that is known here, or not whole.
pub(super) fn decode_spans(payload: &Bytes) -> Option<Spans> {
    let header = payload.first_chunk::<SPANS_HEADER>()?;
    let (words, _) = header.as_chunks::<8>();
    let [first, upto, ..] = *words else { return None };
    let first = u64::from_le_bytes(first);
    if first & u64::from(u32::MAX) != u64::from(VERSION) {
        return None;
    }
    Some(Spans {
        upto: u64::from_le_bytes(upto),
        id: *header.last_chunk::<16>()?,
        last_seen: (first >> 32) as u32,
        message: payload.slice(SPANS_HEADER..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_as_they_were_written() {
        let note = |id: u8, outcome, reason| Note { id: [id; 16], outcome, reason };
        let notes =
            vec![note(1, Outcome::Dropped, u16::MAX), note(2, Outcome::Kept, 7), note(3, Outcome::Delivered, 0x1234)];
        let payload = encode_outcomes(0x1_0000_0002, 99, &notes);
        assert_eq!(decode_outcomes(&payload), Some(Outcomes { upto: 0x1_0000_0002, rules: 99, notes }));
        assert_eq!(payload.len(), 16 + 3 * 20);
        for cut in [0, 15, 17, payload.len() - 1] {
            assert_eq!(decode_outcomes(&payload[..cut]), None, "{cut}");
        }
        for (at, byte) in [(0, 2), (1, 1), (16 + 16, 3), (16 + 17, 1)] {
            let mut other = payload.to_vec();
            other[at] = byte;
            assert_eq!(decode_outcomes(&other), None, "another version, or none of ours: byte {at}");
        }
    }

    #[test]
    fn spans_come_back_as_they_were_written() {
        let spans = Spans { upto: u64::MAX - 1, id: [5; 16], last_seen: 4000, message: Bytes::from_static(b"request") };
        let payload: Bytes = encode_spans(&spans).concat().into();
        assert_eq!(decode_spans(&payload), Some(spans));
        assert_eq!(decode_spans(&payload.slice(..31)), None);
        let mut other = payload.to_vec();
        other[0] = 9;
        assert_eq!(decode_spans(&other.into()), None);
    }
}
