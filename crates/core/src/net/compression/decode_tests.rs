//! What is proved here: each format decodes to what was encoded, stops at the limit, and answers
//! damaged or truncated input with an error. Memory is bounded by the limit.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::decode::{DecodeError, Encoding, decode, decode_in_turns};
use crate::net::admission::Admission;

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

#[tokio::test]
async fn turns_come_to_the_same_and_what_is_held_is_charged() {
    let admission = Admission::new(64 << 20);
    for encoding in ALL {
        for len in [0, 1, 100, 16 << 10, 70_000, 128 << 10, 300_000, (1 << 20) - 1, 1 << 20, 5 << 20] {
            let data = sample(len);
            let encoded = bytes::Bytes::from(encode(encoding, &data));
            let mut room = admission.admit(1).expect("room");
            let decoded = decode_in_turns(encoding, encoded.clone(), len, &mut room).await;
            assert!(decoded.is_ok_and(|decoded| decoded == data), "{encoding:?} {len}");
            assert!(room.bytes() >= len, "{encoding:?} {len}: {} charged", room.bytes());
            if len > 0 {
                let error = decode_in_turns(encoding, encoded, len - 1, &mut room).await.expect_err("one over");
                assert_eq!(error, DecodeError::TooLarge { limit: len - 1 }, "{encoding:?} {len}");
            }
        }
    }
    assert_eq!(admission.used(), 0);
}

#[tokio::test]
async fn a_bomb_stops_where_there_is_no_room() {
    let zeros = vec![0; 16 << 20];
    for encoding in ALL {
        let encoded = bytes::Bytes::from(encode(encoding, &zeros));
        let admission = Admission::new(4 << 20);
        let _other = admission.admit(1 << 20).expect("room");
        let mut room = admission.admit(1).expect("room");
        let outcome = decode_in_turns(encoding, encoded, 32 << 20, &mut room).await;
        assert_eq!(outcome, Err(DecodeError::NoRoom), "{encoding:?}");
    }
}

/// Input that stands for nothing, a lot of it, takes turns too.
#[tokio::test]
async fn others_run_while_much_is_decoded() {
    let empty = |encoding: Encoding| encode(encoding, b"").repeat(200_000);
    let zeros = vec![0; 16 << 20];
    let cases = [
        (Encoding::Gzip, encode(Encoding::Gzip, &zeros)),
        (Encoding::Zlib, encode(Encoding::Zlib, &zeros)),
        (Encoding::Zstd, encode(Encoding::Zstd, &zeros)),
        (Encoding::SnappyFramed, encode(Encoding::SnappyFramed, &zeros)),
        (Encoding::Gzip, empty(Encoding::Gzip)),
        (Encoding::Zstd, empty(Encoding::Zstd)),
    ];
    for (encoding, encoded) in cases {
        let size = encoded.len();
        let mut room = Admission::new(64 << 20).admit(1).expect("room");
        let decoding = decode_in_turns(encoding, encoded.into(), 16 << 20, &mut room);
        let mut decoding = std::pin::pin!(decoding);
        let mut turns = 0;
        loop {
            tokio::select! {
                biased;
                decoded = &mut decoding => break assert!(decoded.is_ok(), "{encoding:?}: {decoded:?}"),
                () = tokio::task::yield_now() => turns += 1,
            }
        }
        assert!(turns >= 3, "{encoding:?}, {size} bytes: {turns} turns");
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
