use std::io::Read;

use bytes::Bytes;

use super::encode::Compression;

fn decode(compression: Compression, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let limit = 64 << 20;
    #[expect(clippy::disallowed_methods, reason = "bounded by `take`")]
    match compression {
        Compression::None => return body.to_vec(),
        Compression::Gzip => flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut plain),
        Compression::Zlib | Compression::Deflate => {
            flate2::read::ZlibDecoder::new(body).take(limit).read_to_end(&mut plain)
        }
        Compression::Zstd => zstd::stream::Decoder::new(body).unwrap().take(limit).read_to_end(&mut plain),
        Compression::Snappy => return snap::raw::Decoder::new().decompress_vec(body).unwrap(),
        Compression::SnappyFramed => snap::read::FrameDecoder::new(body).take(limit).read_to_end(&mut plain),
        Compression::Lz4 => lz4_flex::frame::FrameDecoder::new(body).take(limit).read_to_end(&mut plain),
    }
    .unwrap();
    plain
}

/// Pieces come out as one, behind what was there; a compressor that is used again has forgotten
/// what it saw.
#[test]
fn what_goes_in_comes_out() {
    let noise: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let inputs: Vec<Vec<Bytes>> = vec![
        vec![],
        vec![Bytes::new()],
        vec![Bytes::from_static(b"a")],
        vec![Bytes::from(vec![7; 1 << 20]), Bytes::from_static(b"tail")],
        vec![Bytes::from(noise.clone()), Bytes::new(), Bytes::from(noise)],
    ];
    for &compression in Compression::HTTP {
        for level in [None, Some(1), Some(6)] {
            for parts in &inputs {
                let mut out = b"head".to_vec();
                compression.encode(level, parts, &mut out).unwrap();
                let body = out.strip_prefix(b"head").unwrap();
                assert_eq!(decode(compression, body), parts.concat(), "{compression:?} {level:?}");
            }
        }
    }
}

#[test]
fn names_are_the_collectors() {
    assert_eq!(Compression::parse("", Compression::HTTP), Ok(Compression::None));
    for &compression in Compression::HTTP {
        assert_eq!(Compression::parse(compression.name(), Compression::HTTP), Ok(compression));
    }
    let error = Compression::parse("brotli", &[Compression::None, Compression::Gzip]).unwrap_err();
    assert_eq!(error, "unsupported compression type \"brotli\"; use one of none, gzip");
}
