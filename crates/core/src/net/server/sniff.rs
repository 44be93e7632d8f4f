//! Reading a connection's first bytes to see which HTTP it speaks, and giving them back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::Watch;
use crate::net::turns::{SLICE, TURN, spend};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is clear. `None` if the connection ends before.
pub(super) async fn sniff<S>(mut stream: S) -> io::Result<Option<(Protocol, Sniffed<S>)>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut start = [0; PREFACE.len()];
    let mut filled = 0;
    let protocol = loop {
        let read = stream.read(&mut start[filled..]).await?;
        if read == 0 {
            return Ok(None);
        }
        filled += read;
        if start[..filled] != PREFACE[..filled] {
            break Protocol::Http1;
        }
        if filled == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    let sniffed = Sniffed { stream, start, given: 0, filled, watch: None, write_timeout: None, stalled: None };
    Ok(Some((protocol, sniffed)))
}

/// A connection whose first bytes were read and are given again. Optionally its writes must
/// find a taker in time, and what comes must be finished in time.
pub(super) struct Sniffed<S> {
    stream: S,
    start: [u8; PREFACE.len()],
    given: usize,
    filled: usize,
    watch: Option<Watch>,
    write_timeout: Option<Duration>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Sniffed<S> {
    /// Of HTTP/2: what a client begins (its settings, a frame, a block of headers) must be finished within `limit`.
    pub(super) fn set_frame_timeout(&mut self, limit: Option<Duration>) {
        self.watch = limit.map(Watch::new);
    }

    /// Writes that wait for longer than `timeout` fail.
    pub(super) fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn check_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(timeout) = self.write_timeout else { return written };
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given < self.filled {
            let len = buffer.remaining().min(self.filled - self.given);
            buffer.put_slice(&self.start[self.given..self.given + len]);
            self.given += len;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let come = buffer.filled().get(before..).unwrap_or_default();
        // A socket that always has more would otherwise keep the worker for 128 full buffers.
        spend(come.len() / BYTES_PER_UNIT);
        if let Some(watch) = &mut self.watch {
            watch.came(come);
            if polled.is_pending() {
                ready!(watch.poll_overdue(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not go on")));
            }
        }
        polled
    }
}

/// Bytes for which a reader gives a unit of its turn: 64 KiB for all of it.
const BYTES_PER_UNIT: usize = SLICE / TURN;

impl<S: AsyncWrite + Unpin> AsyncWrite for Sniffed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.check_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.check_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.check_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
