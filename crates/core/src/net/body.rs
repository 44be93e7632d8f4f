//! Bodies: the replies that servers send, and reading of foreign ones within bounds.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admission::Admitted;
use super::turns::{SLICE, slice};

/// A reply: as a rule it is there as a whole, at most one piece of data and then at most one set of trailers. Further
/// pieces may come over time.
#[derive(Debug, Default)]
pub struct Reply {
    data: Option<Bytes>,
    more: Option<mpsc::Receiver<Bytes>>,
    trailers: Option<Box<HeaderMap>>,
}

impl Reply {
    /// `data` and nothing else.
    #[must_use]
    pub fn new(data: Bytes) -> Self {
        Self { data: (!data.is_empty()).then_some(data), ..Self::default() }
    }

    /// `data`, followed by `trailers`.
    #[must_use]
    pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data: Some(data), trailers: Some(Box::new(trailers)), ..Self::default() }
    }

    /// What comes over `pieces` until all of its senders are gone, followed by `trailers`. It is closed when the
    /// client leaves.
    #[must_use]
    pub fn streaming(pieces: mpsc::Receiver<Bytes>, trailers: HeaderMap) -> Self {
        Self { data: None, more: Some(pieces), trailers: Some(Box::new(trailers)) }
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(more) = &mut self.more {
            if let Some(data) = ready!(more.poll_recv(context)) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.more = None;
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.more.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.more {
            None => SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Why a foreign body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is larger than the limit.
    #[error("body too large")]
    TooLarge,
    /// There is no room for it beside the requests that are in flight.
    #[error("too many bytes in flight")]
    NoRoom,
    /// The other side sent nothing for too long.
    #[error("no data for {0:?}")]
    Stalled(Duration),
    /// The other side sends, but too little.
    #[error("it comes at less than {} bytes a second", .0.bytes_per_second)]
    TooSlow(MinRate),
    /// The connection or stream broke.
    #[error("{0}")]
    Broken(String),
}

/// How long a body may make no progress.
pub const STALL: Duration = Duration::from_secs(30);

/// How fast a body has to come: each `bytes_per_second` x `grace_period` bytes may be waited for
/// `grace_period`, and no longer. So a body of known size is there, or given up, after a time that
/// the sender cannot choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Over which time: what is slower for less than this is forgiven.
    pub grace_period: Duration,
}

/// Waiting for a body that may have to keep a pace.
#[derive(Debug)]
pub struct Pace {
    rate: Option<MinRate>,
    /// What came since it was enough the last time, and how long that was waited for.
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// With `rate`, or none.
    #[must_use]
    pub fn new(rate: Option<MinRate>) -> Self {
        Self { rate, bytes: 0, waited: Duration::ZERO }
    }

    /// How long the next data may be waited for, and what to say then.
    fn patience(&self) -> (Duration, ReadError) {
        let left = self.rate.map(|rate| (rate.grace_period.saturating_sub(self.waited), rate));
        match left {
            Some((left, rate)) if left < STALL => (left, ReadError::TooSlow(rate)),
            _ => (STALL, ReadError::Stalled(STALL)),
        }
    }

    fn came(&mut self, bytes: usize, after: Duration) {
        let Some(rate) = self.rate else { return };
        self.waited += after;
        self.bytes += bytes as u64;
        let enough = rate.grace_period.as_secs_f64() * rate.bytes_per_second as f64;
        if self.bytes as f64 >= enough {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }
}

/// The next data of `body`, or `None` at its end; trailers are skipped.
///
/// # Errors
/// If the stream breaks, nothing comes for [`STALL`], or what comes does not keep `pace`.
pub async fn next_data<B>(body: &mut B, pace: &mut Pace) -> Result<Option<Bytes>, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        let mut next = pin!(body.frame());
        // Most data is there already: no clock is read for it.
        let (frame, after) = match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
            Poll::Ready(frame) => (frame, Duration::ZERO),
            Poll::Pending => {
                let (patience, refusal) = pace.patience();
                let begun = Instant::now();
                let Ok(frame) = tokio::time::timeout(patience, next).await else { return Err(refusal) };
                (frame, begun.elapsed())
            }
        };
        let Some(frame) = frame else { return Ok(None) };
        let data = frame.map_err(|error| ReadError::Broken(error.to_string()))?.into_data().unwrap_or_default();
        pace.came(data.len(), after);
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
}

/// The largest buffer that a server's connection reads into.
pub const MAX_READ_BUFFER: usize = 64 << 10;

/// A body that came in one piece of at least this size is kept as that slice of the read buffer;
/// a smaller one would keep more than twice its size alive, and is copied.
pub const KEEP_SLICE: usize = MAX_READ_BUFFER / 2;

/// Where the bytes of a request are counted while they are read.
pub trait Room {
    /// Makes it stand for `total` bytes; `false` if there is no room for them.
    fn grow_to(&mut self, total: usize) -> bool;

    /// How fast they have to come.
    fn min_rate(&self) -> Option<MinRate> {
        None
    }
}

impl Room for Admitted {
    fn grow_to(&mut self, total: usize) -> bool {
        Self::grow_to(self, total)
    }
}

/// A buffer for bytes of which `total` have come and `expected` were announced: what was only
/// announced takes no room, but few bytes are moved into a larger buffer more than once.
pub(crate) fn capacity_for(total: usize, expected: usize) -> usize {
    total.saturating_mul(4).max(MAX_READ_BUFFER).min(expected).max(total)
}

/// `whole`, with room for `capacity` bytes. What is there moves a slice a turn: several mebibytes into memory that nobody has
/// touched take milliseconds.
pub(crate) async fn grown(mut whole: BytesMut, capacity: usize) -> BytesMut {
    if whole.len() <= SLICE {
        whole.reserve(capacity.saturating_sub(whole.len()));
        return whole;
    }
    let mut larger = BytesMut::with_capacity(capacity);
    for part in whole.chunks(SLICE) {
        slice(|| larger.extend_from_slice(part)).await;
    }
    larger
}

/// Reads `body` as a whole, up to `limit` bytes, charging `room` as it comes.
///
/// # Errors
/// If it is too large, finds no room, stalls or breaks.
pub async fn read_all<B>(body: &mut B, limit: usize, room: &mut impl Room) -> Result<Bytes, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint();
    if announced.lower() > limit as u64 {
        return Err(ReadError::TooLarge);
    }
    let expected = announced.exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(limit);
    let mut pace = Pace::new(room.min_rate());
    let mut whole = BytesMut::new();
    while let Some(data) = next_data(body, &mut pace).await? {
        let total = whole.len() + data.len();
        if total > limit {
            return Err(ReadError::TooLarge);
        }
        if total > whole.capacity() {
            let capacity = capacity_for(total, expected);
            if !room.grow_to(capacity) {
                return Err(ReadError::NoRoom);
            }
            if data.len() == expected && expected >= KEEP_SLICE {
                return Ok(data);
            }
            whole = grown(whole, capacity).await;
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::Future;

    use tokio::time::Sleep;

    use super::*;
    use crate::net::admission::Admission;

    /// A body whose pieces come after pauses.
    struct Paced {
        announced: Option<u64>,
        pieces: VecDeque<(Duration, usize)>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Paced {
        fn new(announced: Option<u64>, pieces: impl IntoIterator<Item = (u64, usize)>) -> Self {
            let pieces = pieces.into_iter().map(|(millis, bytes)| (Duration::from_millis(millis), bytes)).collect();
            Self { announced, pieces, pause: None }
        }
    }

    impl http_body::Body for Paced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(&(after, bytes)) = self.pieces.front() else { return Poll::Ready(None) };
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
            if !after.is_zero() && pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
            self.pieces.pop_front();
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![7; bytes])))))
        }

        fn size_hint(&self) -> SizeHint {
            self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    struct WithRate(Admitted, MinRate);

    impl Room for WithRate {
        fn grow_to(&mut self, total: usize) -> bool {
            self.0.grow_to(total)
        }

        fn min_rate(&self) -> Option<MinRate> {
            Some(self.1)
        }
    }

    /// Reads at no less than 1000 bytes a second over 2 s.
    async fn read(pieces: impl IntoIterator<Item = (u64, usize)>) -> Result<usize, ReadError> {
        let rate = MinRate { bytes_per_second: 1000, grace_period: Duration::from_secs(2) };
        let mut room = WithRate(Admission::new(1 << 20).admit(1).expect("room"), rate);
        let read = read_all(&mut Paced::new(None, pieces), 1 << 20, &mut room).await;
        read.map(|body| body.len())
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_keep_the_pace_or_end() {
        assert!(matches!(read([(0, 100_000), (1900, 10)]).await, Ok(100_010)), "short breaks are forgiven");
        assert!(matches!(read([(1500, 2000); 50]).await, Ok(100_000)), "a slow body that keeps the pace, 75 s long");
        let dribble = [(0, 100_000)].into_iter().chain([(100, 1); 100]);
        let begun = Instant::now();
        assert!(matches!(read(dribble).await, Err(ReadError::TooSlow(_))), "what came before does not count");
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        assert!(matches!(read([(2100, 5)]).await, Err(ReadError::TooSlow(_))), "nothing at all");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_pace_only_silence_ends_a_body() {
        let admission = Admission::new(1 << 20);
        let mut room = admission.admit(1).expect("room");
        let read = read_all(&mut Paced::new(None, [(29_000, 1); 10]), 100, &mut room).await;
        assert!(matches!(read.map(|body| body.len()), Ok(10)));
        let read = read_all(&mut Paced::new(None, [(31_000, 1)]), 100, &mut room).await;
        assert!(matches!(read, Err(ReadError::Stalled(STALL))));
    }

    /// Guarantee: what is moved into a larger buffer is the same, and others run meanwhile.
    #[tokio::test]
    async fn a_buffer_grows_by_turns() {
        for len in [0, 1, SLICE, SLICE + 1, 4 << 20] {
            let bytes: Vec<u8> = (0..len).map(|number| number as u8).collect();
            let mut growing = pin!(grown(BytesMut::from(&bytes[..]), 16 << 20));
            let mut turns = 0;
            let larger = loop {
                tokio::select! {
                    biased;
                    larger = &mut growing => break larger,
                    () = tokio::task::yield_now() => turns += 1,
                }
            };
            assert!(larger == bytes && larger.capacity() >= 16 << 20, "{len}");
            assert_eq!(turns > 0, len > SLICE, "{len}");
            // It goes on when it is woken and when somebody else is.
            assert!(2 * turns + 1 >= len / SLICE, "{len}: {turns} turns");
        }
    }

    /// What is announced takes no room; what has come takes at most four times its size, or a read buffer.
    #[tokio::test]
    async fn room_is_taken_as_bytes_come() {
        let admission = Admission::new(64 << 20);
        let size = 16 << 20;
        let mut seen = Vec::new();
        for come in [0, 1, 50_000, 300_000, 3 << 20, size] {
            let pieces = [(0, come.min(size))].into_iter().chain((come < size).then_some((60_000, 1)));
            let mut body = Paced::new(Some(size as u64), pieces);
            let mut room = admission.admit(1).expect("room");
            let _ = tokio::time::timeout(Duration::from_millis(1), read_all(&mut body, size, &mut room)).await;
            let held = room.bytes();
            assert!(held >= come && held <= (come * 4).max(MAX_READ_BUFFER), "{come} came, {held} held");
            seen.push(held);
        }
        assert_eq!(seen.first(), Some(&1));
        assert_eq!(seen.last(), Some(&size), "no more than was announced");
    }
}
