//! MurmurHash3 by Austin Appleby, in the public domain: `MurmurHash3_x86_32` and `MurmurHash3_x64_128`, seed 0.

/// The hash of 32 bits, in hexadecimal, little-endian.
pub(super) fn hash32(text: &[u8]) -> String {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = text.as_chunks::<4>();
    let mut hash: u32 = 0;
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    hash ^= mix(little_endian(tail) as u32);
    hash ^= text.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hex::encode((hash ^ hash >> 16).to_le_bytes())
}

/// The hash of 128 bits, as two halves in hexadecimal, each little-endian.
pub(super) fn hash128(text: &[u8]) -> String {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |half: u64| half.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |half: u64| half.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (blocks, tail) = text.as_chunks::<16>();
    let (mut one, mut two) = (0u64, 0u64);
    for block in blocks {
        let (low, high) = block.split_at(8);
        one ^= mix1(little_endian(low));
        one = one.rotate_left(27).wrapping_add(two).wrapping_mul(5).wrapping_add(0x52dc_e729);
        two ^= mix2(little_endian(high));
        two = two.rotate_left(31).wrapping_add(one).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let (low, high) = tail.split_at(tail.len().min(8));
    two ^= mix2(little_endian(high));
    one ^= mix1(little_endian(low));
    one ^= text.len() as u64;
    two ^= text.len() as u64;
    one = one.wrapping_add(two);
    two = two.wrapping_add(one);
    (one, two) = (finish(one), finish(two));
    one = one.wrapping_add(two);
    two = two.wrapping_add(one);
    hex::encode(one.to_le_bytes()) + &hex::encode(two.to_le_bytes())
}

/// Up to eight bytes as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn finish(mut half: u64) -> u64 {
    half = (half ^ half >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    half = (half ^ half >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    half ^ half >> 33
}
