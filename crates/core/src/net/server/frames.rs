//! What an HTTP/2 client has begun and not finished.
//!
//! The HTTP/2 library waits for the rest of a frame, of a block of headers and for the client's first SETTINGS for as
//! long as the connection lives. So the reading side follows the frames (nine bytes of each) and keeps a deadline
//! for what is unfinished. A connection at rest, between frames, may be idle for ever: clients of gRPC are for hours.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of a frame's head: length (3), type, flags, stream (4).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// So much of a DATA frame counts as progress: bodies have a pace of their own to keep, and a frame of theirs may
/// take longer than a head.
const CHUNK: usize = 16 << 10;

/// Where in its frames a connection is, from behind the preface on.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of `head` that have come; all of them while the payload comes.
    filled: usize,
    /// Bytes of the payload that have not come.
    left: usize,
    has_settings: bool,
    in_headers: bool,
}

impl Frames {
    /// Nothing is unfinished.
    fn is_at_rest(&self) -> bool {
        self.has_settings && !self.in_headers && self.filled == 0
    }

    /// `bytes` have come. Was something finished, or enough of a DATA frame?
    fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_progress = false;
        while !bytes.is_empty() {
            if self.filled < HEAD {
                let (come, rest) = bytes.split_at(bytes.len().min(HEAD - self.filled));
                self.head[self.filled..self.filled + come.len()].copy_from_slice(come);
                self.filled += come.len();
                bytes = rest;
                if self.filled < HEAD {
                    break;
                }
                let [high, middle, low, ..] = self.head;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            }
            let before = self.left;
            let (come, rest) = bytes.split_at(bytes.len().min(before));
            self.left -= come.len();
            bytes = rest;
            let [.., kind, _, _, _, _, _] = self.head;
            is_progress |= kind == DATA && before / CHUNK != self.left / CHUNK;
            if self.left == 0 {
                self.end();
                is_progress |= self.is_at_rest();
            }
        }
        is_progress
    }

    /// A frame is complete.
    fn end(&mut self) {
        let [_, _, _, kind, flags, ..] = self.head;
        match kind {
            SETTINGS => self.has_settings |= flags & ACK == 0,
            HEADERS | CONTINUATION => self.in_headers = flags & END_HEADERS == 0,
            _ => {}
        }
        self.filled = 0;
    }
}

/// Frames with a deadline.
pub(super) struct Watch {
    limit: Duration,
    frames: Frames,
    /// Until when what is unfinished has to be finished.
    due: Option<Instant>,
    /// Rings at `due` or before; left alone until it has rung, since most of what is unfinished soon is not.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// What is begun must be finished within `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, frames: Frames::default(), due: None, timer: None }
    }

    /// `bytes` were read.
    pub(super) fn came(&mut self, bytes: &[u8]) {
        if self.frames.advance(bytes) {
            self.due = None;
        }
    }

    /// Nothing more is there now: ready when it was waited for too long.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.frames.is_at_rest() {
            self.timer.take_if(|timer| timer.is_elapsed());
            return Poll::Pending;
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.limit);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("small").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0xff; payload]].concat()
    }

    #[test]
    fn rest_is_between_frames_and_blocks_of_headers() {
        let mut frames = Frames::default();
        assert!(!frames.is_at_rest(), "the settings have not come");
        assert!(!frames.advance(&frame(6, 0, 8)), "a ping is no settings");
        assert!(!frames.advance(&frame(SETTINGS, ACK, 0)), "nor is an acknowledgement");
        assert!(frames.advance(&frame(SETTINGS, 0, 0)) && frames.is_at_rest());
        assert!(!frames.advance(&frame(HEADERS, 0, 20)) && !frames.is_at_rest(), "to be continued");
        assert!(!frames.advance(&frame(CONTINUATION, 0, 20)), "and continued");
        assert!(frames.advance(&frame(CONTINUATION, END_HEADERS, 0)) && frames.is_at_rest());
        assert!(!frames.advance(&frame(HEADERS, END_HEADERS, 20)[..28]) && !frames.is_at_rest(), "a byte is missing");
    }

    #[test]
    fn of_data_less_than_a_frame_is_progress() {
        let mut frames = Frames::default();
        frames.advance(&frame(SETTINGS, 0, 0));
        let data = frame(DATA, 0, 2 * CHUNK);
        assert!(!frames.advance(&data[..HEAD]));
        assert!(frames.advance(&[0]), "a chunk is begun");
        assert!(!frames.advance(&data[..CHUNK - 1]), "less than a chunk more");
        assert!(frames.advance(&[0]) && !frames.is_at_rest());
    }

    proptest! {
        /// Guarantee: however the bytes come in pieces, it is at rest exactly where a frame ends.
        #[test]
        fn pieces_do_not_matter(sizes in prop::collection::vec(0..40_usize, 1..20), cut in 1..30_usize) {
            let bytes = [frame(SETTINGS, 0, 0)].into_iter().chain(sizes.iter().map(|&size| frame(DATA, 0, size)));
            let bytes: Vec<Vec<u8>> = bytes.collect();
            let ends: Vec<usize> = bytes.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let (mut frames, mut at) = (Frames::default(), 0);
            for piece in bytes.concat().chunks(cut) {
                frames.advance(piece);
                at += piece.len();
                prop_assert_eq!(frames.is_at_rest(), ends.contains(&at));
            }
        }
    }
}
