//! Bodies: the replies that servers send, and reading of foreign ones within bounds.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::admission::Admitted;

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
    /// The connection or stream broke.
    #[error("{0}")]
    Broken(String),
}

/// How long a body may make no progress.
pub const STALL: Duration = Duration::from_secs(30);

/// The next data of `body`, or `None` at its end; trailers are skipped.
///
/// # Errors
/// If the stream breaks, or nothing comes for [`STALL`].
pub async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, ReadError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        let frame = match tokio::time::timeout(STALL, body.frame()).await {
            Err(_) => return Err(ReadError::Stalled(STALL)),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(|error| ReadError::Broken(error.to_string()))?,
        };
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
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
}

impl Room for Admitted {
    fn grow_to(&mut self, total: usize) -> bool {
        Self::grow_to(self, total)
    }
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
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > limit {
        return Err(ReadError::TooLarge);
    }
    if !room.grow_to(expected) {
        return Err(ReadError::NoRoom);
    }
    let Some(first) = next_data(body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(ReadError::TooLarge);
    }
    if first.len() == expected && expected >= KEEP_SLICE {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(expected.max(first.len()));
    whole.extend_from_slice(&first);
    drop(first);
    while let Some(data) = next_data(body).await? {
        let total = whole.len() + data.len();
        if total > limit {
            return Err(ReadError::TooLarge);
        }
        if total > whole.capacity() && !room.grow_to(total.max(whole.capacity() * 2).min(limit)) {
            return Err(ReadError::NoRoom);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
