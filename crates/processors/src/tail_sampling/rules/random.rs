//! Deciding by trace id, the same way on every gateway.

use super::extra::Given;

/// Bits of OpenTelemetry's randomness
/// (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).
const RANDOM_BITS: u32 = 56;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a 64 over some bytes, to be continued with the trace id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(FNV_OFFSET).then(bytes)
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        self
    }

    /// The hash of the bytes so far.
    pub(super) fn value(self) -> u64 {
        self.0
    }

    /// The hash of the bytes so far followed by `id`.
    pub(crate) fn hash(self, id: &[u8; 16]) -> u64 {
        self.then(id).0
    }
}

/// The largest FNV hash that the Collector's `probabilistic` policy samples at `percentage`:
/// the whole part of `percentage / 100 * (2^64 - 1)`, exactly.
pub(crate) fn fnv_threshold(percentage: f64) -> u64 {
    let ratio = percentage / 100.0;
    if ratio >= 1.0 {
        return u64::MAX;
    }
    if ratio.is_nan() || ratio <= 0.0 {
        return 0;
    }
    // ratio = mantissa * 2^-shift, so the product is exact in 128 bits.
    let bits = ratio.to_bits();
    let exponent = (bits >> 52) as u32;
    if exponent == 0 {
        return 0;
    }
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let shift = 1075 - exponent;
    let product = u128::from(mantissa) * u128::from(u64::MAX);
    u64::try_from(product.checked_shr(shift).unwrap_or(0)).unwrap_or(u64::MAX)
}

/// All randomness is below this.
pub(crate) const ALL: u64 = 1 << RANDOM_BITS;

/// The rejection threshold at `percentage`: a trace is kept if its randomness is at least this.
pub(crate) fn rejection_threshold(percentage: f64) -> u64 {
    let kept = (percentage / 100.0).clamp(0.0, 1.0) * ALL as f64;
    ALL - (kept.round() as u64).min(ALL)
}

/// The threshold of two samplers together that do not go by the same randomness.
pub(crate) fn independent(one: u64, other: u64) -> u64 {
    let kept = u128::from(ALL.saturating_sub(one)) * u128::from(ALL.saturating_sub(other)) / u128::from(ALL);
    ALL - (kept as u64).min(ALL)
}

/// The part of traces, from 0 to 1, that a rejection threshold keeps.
pub(crate) fn probability(threshold: u64) -> f64 {
    ALL.saturating_sub(threshold) as f64 / ALL as f64
}

/// Where rules take the randomness of a trace from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Randomness {
    salt: Fnv,
    always_hash: bool,
}

impl Randomness {
    /// An empty `salt` trusts ids that look random.
    pub(crate) fn new(salt: &str) -> Self {
        let seed = if salt.is_empty() { "nyquist" } else { salt };
        Self { salt: Fnv::of(seed.as_bytes()), always_hash: !salt.is_empty() }
    }

    /// 56 bits: the explicit randomness of the trace, if it has one; else the low seven bytes of its
    /// id, or a hash of all of it where those are not to be trusted.
    pub(crate) fn of(self, id: &[u8; 16], given: Given) -> u64 {
        given.rv().or_else(|| self.derived(id)).unwrap_or_else(|| low_bits(id))
    }

    /// The hash that takes the place of an id: if a salt is set, or if the low bytes are a small
    /// number, as counters are (one random id in 2^32 looks like that).
    pub(crate) fn derived(self, id: &[u8; 16]) -> Option<u64> {
        let looks_counted = low_bits(id) < 1 << 24;
        (self.always_hash || looks_counted).then(|| finish(self.salt.hash(id)) >> (64 - RANDOM_BITS))
    }
}

/// The low 56 bits of a trace id.
pub(crate) fn low_bits(id: &[u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g] = *id;
    u64::from_be_bytes([0, a, b, c, d, e, f, g])
}

/// The finalizer of SplitMix64: FNV alone hardly moves the high bits of ids that differ at the end.
pub(super) fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vectors of the Collector's hash and thresholds.
    #[test]
    fn the_hash_is_the_collectors() {
        let id = |hex: &str| <[u8; 16]>::try_from(hex::decode(hex).unwrap()).unwrap();
        let seed = Fnv::of(b"default-hash-seed");
        assert_eq!(seed.hash(&id("00000000000000000000000000000001")), 0xe195_35ee_d1bb_aa8a);
        assert_eq!(seed.hash(&id("0102030405060708090a0b0c0d0e0f10")), 0xdbcf_64d5_420f_4cad);
        assert_eq!(seed.hash(&id("4bf92f3577b34da6a3ce929d0e0e4736")), 0xa545_33ba_2e49_70b5);
        assert_eq!(seed.hash(&id("ffffffffffffffffffffffffffffffff")), 0x17be_c373_9634_fe2d);
        assert_eq!(Fnv::of(b"salt-a").hash(&id("00000000000000000000000000000001")), 0x1358_ea06_bbf3_d5ec);
        assert_eq!(fnv_threshold(10.0), 0x1999_9999_9999_99ff);
        assert_eq!(fnv_threshold(50.0), 0x7fff_ffff_ffff_ffff);
        assert_eq!(fnv_threshold(1.0), 0x028f_5c28_f5c2_8f5f);
        assert_eq!(fnv_threshold(120.0), u64::MAX);
        assert_eq!(fnv_threshold(-1.0), 0);
        assert_eq!(fnv_threshold(1e-300), 0);
    }

    #[test]
    fn thresholds_reach_both_ends() {
        assert_eq!(rejection_threshold(100.0), 0);
        assert_eq!(rejection_threshold(0.0), 1 << 56);
        assert_eq!(rejection_threshold(50.0), 1 << 55);
        assert_eq!(rejection_threshold(20.0), 0xcc_cccc_cccc_cccc);
        assert_eq!(independent(1 << 55, 1 << 55), 3 << 54);
        assert_eq!((independent(0, 7), independent(ALL, 0)), (7, ALL));
    }

    /// Ids that count up are hashed, so that a percentage of them is kept and not all or none.
    #[test]
    fn counted_ids_are_kept_by_percentage_too() {
        let randomness = Randomness::new("");
        let threshold = rejection_threshold(10.0);
        let kept = (1..=10_000u128).filter(|id| randomness.of(&id.to_be_bytes(), Given::NOTHING) >= threshold).count();
        assert!((850..1150).contains(&kept), "{kept}");
    }
}
