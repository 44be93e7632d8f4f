//! The length-prefixed message inside a gRPC body: one flag byte (compressed or not), four bytes
//! of length, the message.

use bytes::{Bytes, BytesMut};

use crate::net::body::{KEEP_SLICE, Pace, ReadError, Room, capacity_for, grown, next_data};
use crate::net::compression::decode::{DecodeError, Encoding, decode_in_turns};

/// Bytes in front of a message.
pub const HEADER_LEN: usize = 5;

/// What comes in front of a message of `len` bytes.
#[must_use]
pub fn header(compressed: bool, len: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// `message`, uncompressed, with what comes in front of it.
///
/// For small messages: it is copied. Messages are shorter than 4 GiB; what is longer is cut.
#[must_use]
pub fn encode_message(message: &[u8]) -> Bytes {
    if message.is_empty() {
        return Bytes::from_static(&[0; HEADER_LEN]);
    }
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(HEADER_LEN + message.len());
    framed.extend_from_slice(&header(false, len));
    framed.extend_from_slice(&message[..len as usize]);
    framed.freeze()
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The message is larger than the limit, as it came.
    #[error("grpc: received message larger than max ({size} vs. {limit})")]
    TooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message is larger than the limit once it is decoded.
    #[error("grpc: received message after decompression larger than max ({} vs. {limit})", .limit.saturating_add(1))]
    TooLargeDecoded {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The flag says compressed, but no `grpc-encoding` says how.
    #[error("grpc: compressed flag set with identity or empty encoding")]
    NoEncoding,
    /// The flag is neither 0 nor 1.
    #[error("grpc: received unexpected payload format {0}")]
    Flag(u8),
    /// The body ended inside the message, or before it.
    #[error("grpc: the request ends after {received} of {expected} bytes")]
    Truncated {
        /// Bytes received.
        received: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// Something follows the message of a unary call.
    #[error("grpc: more than one message in a unary call")]
    Trailing,
    /// The message cannot be decoded.
    #[error("grpc: failed to decompress the message: {0}")]
    Decode(DecodeError),
    /// The body cannot be read.
    #[error(transparent)]
    Body(ReadError),
}

/// Reads the one message of a unary call from `body`, decoded from `encoding` when it is flagged
/// as compressed. Neither it nor its decoded form is larger than `limit` bytes; what it holds is
/// charged to `room`.
///
/// # Errors
/// If the body is not one message within the limits.
pub async fn read_message<B>(
    body: &mut B,
    encoding: Encoding,
    limit: usize,
    room: &mut impl Room,
) -> Result<Bytes, MessageError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (compressed, message) = read_frame(body, limit, room).await?;
    if !compressed {
        return Ok(message);
    }
    if encoding == Encoding::Identity {
        return Err(MessageError::NoEncoding);
    }
    decode_in_turns(encoding, message, limit, room).await.map_err(|error| match error {
        DecodeError::TooLarge { limit } => MessageError::TooLargeDecoded { limit },
        DecodeError::NoRoom => MessageError::Body(ReadError::NoRoom),
        other => MessageError::Decode(other),
    })
}

async fn read_frame<B>(body: &mut B, limit: usize, room: &mut impl Room) -> Result<(bool, Bytes), MessageError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut pace = Pace::new(room.min_rate());
    let mut data = next(body, &mut pace).await?.unwrap_or_default();
    if data.len() < HEADER_LEN {
        data = whole_header(body, data, &mut pace).await?;
    }
    let Some((&[flag, a, b, c, d], rest)) = data.split_first_chunk::<HEADER_LEN>() else {
        return Err(MessageError::Truncated { received: data.len(), expected: HEADER_LEN });
    };
    if flag > 1 {
        return Err(MessageError::Flag(flag));
    }
    let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if size > limit {
        return Err(MessageError::TooLarge { size, limit });
    }
    if rest.len() > size {
        return Err(MessageError::Trailing);
    }
    if !room.grow_to(capacity_for(rest.len(), size)) {
        return Err(MessageError::Body(ReadError::NoRoom));
    }
    let message = if rest.len() == size && size >= KEEP_SLICE {
        data.split_off(HEADER_LEN)
    } else {
        gather(body, rest, size, room, &mut pace).await?
    };
    // The end of the stream comes with the last frame or right behind it.
    if !body.is_end_stream() && next(body, &mut pace).await?.is_some() {
        return Err(MessageError::Trailing);
    }
    Ok((flag == 1, message))
}

/// Copies a message of `size` bytes together; `start` has been read, and room made for it.
async fn gather<B>(
    body: &mut B,
    start: &[u8],
    size: usize,
    room: &mut impl Room,
    pace: &mut Pace,
) -> Result<Bytes, MessageError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut message = BytesMut::with_capacity(capacity_for(start.len(), size));
    message.extend_from_slice(start);
    while message.len() < size {
        let Some(data) = next(body, pace).await? else {
            return Err(MessageError::Truncated { received: message.len(), expected: size });
        };
        let total = message.len() + data.len();
        if total > size {
            return Err(MessageError::Trailing);
        }
        if total > message.capacity() {
            let capacity = capacity_for(total, size);
            if !room.grow_to(capacity) {
                return Err(MessageError::Body(ReadError::NoRoom));
            }
            message = grown(message, capacity).await;
        }
        message.extend_from_slice(&data);
    }
    Ok(message.freeze())
}

/// Reads on until the header is complete: it may come in pieces.
async fn whole_header<B>(body: &mut B, start: Bytes, pace: &mut Pace) -> Result<Bytes, MessageError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut joined = BytesMut::from(&start[..]);
    while joined.len() < HEADER_LEN {
        let Some(data) = next(body, pace).await? else { break };
        joined.extend_from_slice(&data);
    }
    Ok(joined.freeze())
}

async fn next<B>(body: &mut B, pace: &mut Pace) -> Result<Option<Bytes>, MessageError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    next_data(body, pace).await.map_err(MessageError::Body)
}
