//! The records of the sampler's log. All integers are little-endian.
//!
//! - `REQUEST`: an export request as it came, behind a field that names its client (`client`) if something is kept of
//!   it; weight: its spans; arrival: when it came.
//! - `OUTCOMES`: what became of traces: version (4), a fingerprint of the rules (4), `upto`
//!   (8), then 20 bytes a trace: its id, outcome (0 dropped, 1 kept, 2 delivered), trigger (0: not known; version 1 has no
//!   other), reason (2; an index that holds for rules of that fingerprint). Of a trace that was dropped or delivered,
//!   no span in a record up to `upto` is needed.
//! - `SPANS`: the spans of one trace, written anew so that their old records can go: version (4),
//!   milliseconds from the first span to the last (4), `upto` (8), the trace's id (16), then
//!   an export request with all its spans that came in records up to `upto`, and no others, behind the names of their clients. (Spans
//!   without a record, of `storage_full: memory`, are in it too.) It is not needed if the trace was dropped or delivered up
//!   to there. Weight: spans; arrival: of the first span.

use bytes::{BufMut, Bytes};

use crate::tail_sampling::buffer::{Note, Outcome, Why};
use crate::tail_sampling::client;
use crate::tail_sampling::tally::Trigger;

/// The version of the storage format whose builds read all of this.
pub(super) const FORMAT: u32 = 3;

/// The kinds of records.
pub(super) const REQUEST: u8 = 1;
pub(super) const OUTCOMES: u8 = 2;
pub(super) const SPANS: u8 = 3;

/// Of outcomes; version 1 does not say what triggered them.
const OUTCOMES_VERSION: u32 = 2;
/// Of spans.
const SPANS_VERSION: u32 = 1;
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
    out.put_u32_le(OUTCOMES_VERSION);
    out.put_u32_le(rules);
    out.put_u64_le(upto);
    for note in notes {
        out.put_slice(&note.id);
        out.put_u8(match note.outcome {
            Outcome::Dropped => 0,
            Outcome::Kept => 1,
            Outcome::Delivered => 2,
        });
        out.put_u8(note.why.trigger.map_or(0, |trigger| trigger as u8 + 1));
        out.put_u16_le(note.why.reason);
    }
    out.into()
}

/// `None` if it is of no version that is known here, or not whole.
pub(super) fn decode_outcomes(payload: &[u8]) -> Option<Outcomes> {
    let (header, entries) = payload.split_first_chunk::<16>()?;
    let (words, _) = header.as_chunks::<4>();
    let [version, rules, low, high] = *words else { return None };
    let version = u32::from_le_bytes(version);
    if !(1..=OUTCOMES_VERSION).contains(&version) {
        return None;
    }
    let upto = u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << 32;
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return None;
    }
    let note = |entry: &[u8; ENTRY]| {
        let (id, rest) = entry.split_first_chunk::<16>()?;
        let [outcome, trigger, low, high] = *rest else { return None };
        let outcome = match outcome {
            0 => Outcome::Dropped,
            1 => Outcome::Kept,
            2 => Outcome::Delivered,
            _ => return None,
        };
        let trigger = match trigger.checked_sub(1) {
            None => None,
            Some(_) if version == 1 => return None,
            Some(index) => Some(*Trigger::ALL.get(usize::from(index))?),
        };
        Some(Note { id: *id, outcome, why: Why { reason: u16::from_le_bytes([low, high]), trigger } })
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
    header.put_u32_le(SPANS_VERSION);
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
    if first & u64::from(u32::MAX) != u64::from(SPANS_VERSION) {
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
        let note = |id: u8, outcome, reason, trigger| Note { id: [id; 16], outcome, why: Why { reason, trigger } };
        let notes = vec![
            note(1, Outcome::Dropped, u16::MAX, None),
            note(2, Outcome::Kept, 7, Some(Trigger::Wait)),
            note(3, Outcome::Delivered, 0x1234, Some(Trigger::Ingest)),
        ];
        let payload = encode_outcomes(0x1_0000_0002, 99, &notes);
        assert_eq!(decode_outcomes(&payload), Some(Outcomes { upto: 0x1_0000_0002, rules: 99, notes }));
        assert_eq!(payload.len(), 16 + 3 * 20);
        for cut in [0, 15, 17, payload.len() - 1] {
            assert_eq!(decode_outcomes(&payload[..cut]), None, "{cut}");
        }
        for (at, byte) in [(0, 0), (0, 1), (0, 3), (1, 1), (16 + 16, 3), (16 + 17, 11)] {
            let mut other = payload.to_vec();
            other[at] = byte;
            assert_eq!(decode_outcomes(&other), None, "another version, or none of ours: byte {at}");
        }
    }

    /// Guarantee: what triggers are on disk stays what they are; the first version had none.
    #[test]
    fn triggers_have_their_numbers() {
        let names = ["wait", "root", "idle", "memory", "count", "size", "spans", "stress", "shutdown", "ingest"];
        for (number, name) in (1u8..).zip(names) {
            let trigger = Trigger::ALL.into_iter().find(|trigger| trigger.name() == name);
            let note = Note { id: [7; 16], outcome: Outcome::Kept, why: Why { reason: 2, trigger } };
            let payload = encode_outcomes(1, 2, &[note]);
            assert_eq!(payload[16..], [&[7; 16][..], &[1, number, 2, 0]].concat(), "{name}");
        }
        let mut first = encode_outcomes(
            1,
            2,
            &[Note { id: [7; 16], outcome: Outcome::Kept, why: Why { reason: 2, trigger: None } }],
        )
        .to_vec();
        first[0] = 1;
        assert_eq!(
            decode_outcomes(&first).map(|outcomes| outcomes.notes[0].why),
            Some(Why { reason: 2, trigger: None })
        );
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
