//! What is proved here: each format decodes to what was encoded, stops at the limit, and answers
//! damaged or truncated input with an error. Memory is bounded by the limit.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::decode::{DecodeError, Encoding, decode};

const ALL: [Encoding; 6] =
    [Encoding::Gzip, Encoding::Zlib, Encoding::Zstd, Encoding::Snappy, Encoding::SnappyFramed, Encoding::Lz4];

fn encode(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Identity => data.to_vec(),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Zstd => zstd::bulk::compress(data, 1).unwrap(),
        Encoding::Snappy => snap::raw::Encoder::new().compress_vec(data).unwrap(),
        Encoding::SnappyFramed => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(data).unwrap();
            encoder.into_inner().unwrap()
        }
        Encoding::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Text that compresses like telemetry does.
fn sample(len: usize) -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("span-{} http.route=/api/{} ", n % 977, n % 13).into_bytes()).take(len).collect()
}

#[test]
fn each_format_gives_back_what_was_encoded_up_to_the_limit_exactly() {
    for encoding in ALL {
        for len in [1, 100, 16 << 10, 70_000, 3 << 20] {
            let data = sample(len);
            let encoded = encode(encoding, &data);
            let decoded = decode(encoding, &encoded, len).unwrap_or_else(|error| panic!("{encoding:?} {len}: {error}"));
            assert!(decoded == data, "{encoding:?} {len}");
            let error = decode(encoding, &encoded, len - 1).expect_err("one byte over the limit");
            assert_eq!(error, DecodeError::TooLarge { limit: len - 1 }, "{encoding:?} {len}");
        }
    }
}

#[test]
fn nothing_is_a_valid_content_of_each_format() {
    for encoding in ALL {
        assert_eq!(decode(encoding, &encode(encoding, b""), 0).as_deref(), Ok(&b""[..]), "{encoding:?}");
    }
}

#[test]
fn truncated_input_is_corrupt() {
    let data = sample(50_000);
    for encoding in ALL {
        let encoded = encode(encoding, &data);
        for cut in [0, 1, encoded.len() / 2, encoded.len() - 1] {
            // These formats may end after any frame or block: what comes out is a beginning.
            if let Ok(decoded) = decode(encoding, &encoded[..cut], data.len()) {
                let has_no_end = encoding == Encoding::SnappyFramed || encoding == Encoding::Lz4;
                assert!(has_no_end && data.starts_with(&decoded), "{encoding:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for encoding in [Encoding::Gzip, Encoding::Zlib, Encoding::Zstd, Encoding::SnappyFramed, Encoding::Lz4] {
        let bomb = encode(encoding, &zeros);
        assert_eq!(decode(encoding, &bomb, 1 << 20), Err(DecodeError::TooLarge { limit: 1 << 20 }), "{encoding:?}");
    }
    // A stream that does not say how large it becomes.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&zeros).unwrap();
    let bomb = encoder.finish().unwrap();
    assert_eq!(decode(Encoding::Zstd, &bomb, 1 << 20), Err(DecodeError::TooLarge { limit: 1 << 20 }));
}

#[test]
fn a_block_that_declares_too_much_is_refused_before_it_is_decoded() {
    let one_gib = [0x80, 0x80, 0x80, 0x80, 0x04, 0x00];
    assert_eq!(decode(Encoding::Snappy, &one_gib, 20 << 20), Err(DecodeError::TooLarge { limit: 20 << 20 }));
    // Under the limit, but more than six bytes can stand for.
    let error = decode(Encoding::Snappy, &one_gib, 2 << 30).expect_err("not decodable");
    assert!(matches!(error, DecodeError::Corrupt(_)), "{error}");
}

#[test]
fn concatenated_members_and_frames_are_one_content() {
    let (first, second) = (sample(40_000), sample(90_000));
    let both = [first.clone(), second.clone()].concat();
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let encoded = [encode(encoding, &first), encode(encoding, &second)].concat();
        assert!(decode(encoding, &encoded, both.len()).unwrap() == both, "{encoding:?}");
        assert!(decode(encoding, &encoded, both.len() - 1).is_err(), "{encoding:?}");
    }
}

#[test]
fn zstd_windows_beyond_eight_mebibytes_are_refused() {
    let data = sample(64 << 20);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.write_all(&data).unwrap();
    let error = decode(Encoding::Zstd, &encoder.finish().unwrap(), 128 << 20).expect_err("a window of 64 MiB");
    assert!(matches!(error, DecodeError::Corrupt(_)), "{error}");
}

#[test]
fn a_context_that_met_an_error_does_not_spoil_the_next_request() {
    let data = sample(10_000);
    let good = encode(Encoding::Zstd, &data);
    assert!(decode(Encoding::Zstd, &good[..good.len() - 3], 20_000).is_err());
    assert!(decode(Encoding::Zstd, b"not zstd at all", 20_000).is_err());
    assert!(decode(Encoding::Zstd, &good, 20_000).unwrap() == data);
}

#[test]
fn names_are_known_in_any_case() {
    assert_eq!(Encoding::from_name("GZip"), Some(Encoding::Gzip));
    assert_eq!(Encoding::from_name("deflate"), Some(Encoding::Zlib));
    assert_eq!(Encoding::from_name("br"), None);
}

proptest! {
    /// No input panics, and none gives more than the limit.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<prop::sample::Index>()) {
        let mut damaged = sample(2_000);
        damaged.extend_from_slice(&bytes);
        for encoding in ALL {
            let _ = decode(encoding, &bytes, 1000);
            let mut encoded = encode(encoding, &damaged);
            let at = flip.index(encoded.len());
            encoded[at] ^= 0x55;
            if let Ok(decoded) = decode(encoding, &encoded, 10_000) {
                prop_assert!(decoded.len() <= 10_000);
            }
        }
    }
}
