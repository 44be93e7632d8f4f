//! What compresses chunks of a block: lz4 or zstd, each chunk alone, with what the block begins with as a dictionary.

use zstd::zstd_safe::{CCtx, CParameter, DCtx};

use crate::tail_sampling::config::Compression;

/// Of what zstd offers, what is fast.
const LEVEL: i32 = 1;
/// The dictionary and a chunk fit into so many bits' worth of window, and a context stays small.
const WINDOW_BITS: u32 = 15;
const HASH_BITS: u32 = 13;

/// See the module's documentation.
pub(super) enum Codec {
    Lz4,
    Zstd(Box<Zstd>),
}

/// The state of zstd, which is dear to set up.
pub(super) struct Zstd {
    packer: CCtx<'static>,
    unpacker: DCtx<'static>,
    /// The most memory that both have taken.
    bytes: usize,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Lz4 => "Lz4",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Codec {
    /// `None` if nothing is to be compressed, or there is no memory for it.
    pub(super) fn new(compression: Compression) -> Option<Self> {
        match compression {
            Compression::None => None,
            Compression::Lz4 => Some(Self::Lz4),
            Compression::Zstd => {
                let (mut packer, unpacker) = (CCtx::try_create()?, DCtx::try_create()?);
                for parameter in [
                    CParameter::CompressionLevel(LEVEL),
                    CParameter::WindowLog(WINDOW_BITS),
                    CParameter::HashLog(HASH_BITS),
                    CParameter::ContentSizeFlag(false),
                ] {
                    packer.set_parameter(parameter).ok()?;
                }
                let bytes = packer.sizeof() + unpacker.sizeof();
                Some(Self::Zstd(Box::new(Zstd { packer, unpacker, bytes })))
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Lz4 => 0,
            Self::Zstd(zstd) => zstd.bytes,
        }
    }

    /// The largest that `bytes` bytes can become on the way: there has to be room for so much.
    pub(super) fn room(bytes: usize) -> usize {
        lz4_flex::block::get_maximum_output_size(bytes)
    }

    /// What is packed from now on is packed with `dictionary`. False if that cannot be.
    pub(super) fn begin(&mut self, dictionary: &[u8]) -> bool {
        match self {
            Self::Lz4 => true,
            Self::Zstd(zstd) => zstd.packer.load_dictionary(dictionary).is_ok(),
        }
    }

    /// Packs `chunk` into `out`; how many bytes it has become. `None` if it has not become smaller.
    pub(super) fn pack(&mut self, dictionary: &[u8], chunk: &[u8], out: &mut [u8]) -> Option<usize> {
        let packed = match self {
            Self::Lz4 => lz4_flex::block::compress_into_with_dict(chunk, out, dictionary).ok(),
            Self::Zstd(zstd) => {
                let packed = zstd.packer.compress2(out, chunk).ok();
                zstd.bytes = zstd.bytes.max(zstd.packer.sizeof() + zstd.unpacker.sizeof());
                packed
            }
        };
        packed.filter(|&packed| packed < chunk.len())
    }

    /// Fills `out` with what was packed. False if it was something else.
    pub(super) fn unpack(&mut self, dictionary: &[u8], packed: &[u8], out: &mut [u8]) -> bool {
        let expected = out.len();
        let unpacked = match self {
            Self::Lz4 => lz4_flex::block::decompress_into_with_dict(packed, out, dictionary).ok(),
            Self::Zstd(zstd) => zstd.unpacker.decompress_using_dict(out, packed, dictionary).ok(),
        };
        unpacked == Some(expected)
    }
}
