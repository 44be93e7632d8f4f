//! What holds for every input: the bodies of the fuzz targets, which ordinary tests run too. Panics are findings.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::admission::Admission;
use super::compression::decode::{Encoding, decode};
use super::grpc::{HEADER_LEN, read_message};

const ENCODINGS: [Encoding; 7] = [
    Encoding::Identity,
    Encoding::Gzip,
    Encoding::Zlib,
    Encoding::Zstd,
    Encoding::Snappy,
    Encoding::SnappyFramed,
    Encoding::Lz4,
];

/// The encoding and the limit that the first two bytes choose, and what follows them.
fn choices(data: &[u8]) -> Option<(Encoding, usize, &[u8])> {
    let (&[encoding, limit], rest) = data.split_first_chunk()?;
    let encoding = *ENCODINGS.get(usize::from(encoding) % ENCODINGS.len())?;
    Some((encoding, usize::from(limit) * 64, rest))
}

/// Decodes in the encoding and with the limit that the first two bytes choose: what comes out is within the
/// limit.
pub fn decompression(data: &[u8]) {
    let Some((encoding, limit, input)) = choices(data) else { return };
    if let Ok(decoded) = decode(encoding, input, limit) {
        assert!(decoded.len() <= limit || encoding == Encoding::Identity, "{encoding:?}: {} of {limit}", decoded.len());
    }
}

/// Reads a body in pieces, whose size the third byte chooses, as the one message of a call: what comes out is
/// within the limit, and all that it takes is counted and given back.
pub fn grpc_framing(data: &[u8]) {
    let Some((encoding, limit, rest)) = choices(data) else { return };
    let Some((&size, content)) = rest.split_first() else { return };
    let mut body = Pieces(content.chunks(usize::from(size).max(1)).map(Bytes::copy_from_slice).collect::<Vec<_>>());
    body.0.reverse();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let admission = Admission::new(1 << 20);
    runtime.block_on(async {
        let Some(mut room) = admission.admit(0) else { return };
        let Ok(message) = read_message(&mut body, encoding, limit, &mut room).await else { return };
        assert!(message.len() <= limit, "{} of {limit}", message.len());
        assert!(admission.used() >= message.len(), "{} of {}", admission.used(), message.len());
        if content.first() == Some(&0) {
            assert_eq!(Some(&message[..]), content.get(HEADER_LEN..), "an uncompressed message comes as it is");
        }
    });
    assert_eq!(admission.used(), 0);
}

/// A body in pieces, the last one first.
struct Pieces(Vec<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::net::compression::encode::Compression;

    /// `content` compressed as the encoding that `index` chooses; as it is where there is no such encoder.
    fn compressed(index: u8, content: &[u8]) -> Vec<u8> {
        let encoder = match ENCODINGS[usize::from(index) % ENCODINGS.len()] {
            Encoding::Identity => Compression::None,
            Encoding::Gzip => Compression::Gzip,
            Encoding::Zlib => Compression::Zlib,
            Encoding::Zstd => Compression::Zstd,
            Encoding::Snappy => Compression::Snappy,
            Encoding::SnappyFramed => Compression::SnappyFramed,
            Encoding::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(content).expect("memory takes it");
                return encoder.finish().expect("memory takes it");
            }
        };
        if encoder == Compression::None {
            return content.to_vec();
        }
        let mut out = Vec::new();
        encoder.encode(None, &[Bytes::copy_from_slice(content)], &mut out).expect("it can be written");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn foreign_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
            decompression(&data);
            grpc_framing(&data);
        }

        /// What was compressed well, whole and with damage, with limits on both sides of its size.
        #[test]
        fn damaged_streams(
            encoding in 0..7u8,
            limit in any::<u8>(),
            pieces in any::<u8>(),
            content in prop::collection::vec(0..4u8, 0..20_000),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut body = compressed(encoding, &content);
            for (index, byte) in flips {
                if !body.is_empty() {
                    let at = index.index(body.len());
                    body[at] = byte;
                }
            }
            decompression(&[&[encoding, limit], body.as_slice()].concat());
            let header = super::super::grpc::header(encoding > 0, body.len() as u32);
            grpc_framing(&[&[encoding, limit, pieces], &header[..], body.as_slice()].concat());
        }
    }
}
