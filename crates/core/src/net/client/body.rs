//! A request body in pieces.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::batch::Metadata;
use crate::component::ClientAuth;

/// Bytes in pieces, sent one after the other without being copied together; and whose they are, for
/// authenticators that care. A clone shares them and starts over.
#[derive(Debug, Clone)]
pub struct Chunks {
    parts: Arc<[Bytes]>,
    next: usize,
    left: u64,
    client: Option<Arc<Metadata>>,
}

/// Pieces that are smaller on average are copied together: each is a frame of its own otherwise.
const WORTH_A_FRAME: usize = 4096;

impl Chunks {
    /// `head`, then `parts`.
    #[must_use]
    pub fn new(head: &[u8], parts: &[Bytes]) -> Self {
        let len = head.len() + parts.iter().map(Bytes::len).sum::<usize>();
        let parts: Arc<[Bytes]> = if len < WORTH_A_FRAME * (parts.len() + 1) / 2 || len < WORTH_A_FRAME {
            let mut whole = BytesMut::with_capacity(len);
            whole.extend_from_slice(head);
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            Arc::new([whole.freeze()])
        } else {
            let head = (!head.is_empty()).then(|| Bytes::copy_from_slice(head));
            head.into_iter().chain(parts.iter().filter(|part| !part.is_empty()).cloned()).collect()
        };
        Self { parts, next: 0, left: len as u64, client: None }
    }

    /// The same as data of `client`.
    #[must_use]
    pub fn of_client(self, client: &Arc<Metadata>) -> Self {
        Self { client: Some(Arc::clone(client)), ..self }
    }

    /// Adds to `headers` what `auth` has to say, on this data.
    pub fn authenticate(&self, auth: &dyn ClientAuth, headers: &mut HeaderMap) {
        match &self.client {
            Some(client) => auth.apply_for(headers, client),
            None => auth.apply(headers),
        }
    }

    /// How many bytes are still to be sent.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Is nothing left to be sent?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl From<Vec<u8>> for Chunks {
    fn from(bytes: Vec<u8>) -> Self {
        Self { left: bytes.len() as u64, parts: Arc::new([bytes.into()]), next: 0, client: None }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.get(self.next).cloned() else { return Poll::Ready(None) };
        self.next += 1;
        self.left -= part.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
