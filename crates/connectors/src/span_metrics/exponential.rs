//! An exponential histogram that is recorded into: base-2 buckets whose scale falls as the range grows.
//!
//! Bucket i at scale s holds values in (2^(i / 2^s), 2^((i + 1) / 2^s)]
//! (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>). Durations are
//! never negative, so there is one side.

use std::sync::LazyLock;

/// The finest scale, with which a histogram begins.
const MAX_SCALE: i32 = 20;

/// Durations in exponential buckets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exponential {
    max_size: usize,
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    /// The index of the first bucket.
    pub(super) offset: i32,
    pub(super) counts: Vec<u64>,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Exponential {
    pub(super) fn new(max_size: usize) -> Self {
        Self {
            max_size,
            scale: MAX_SCALE,
            zero_count: 0,
            offset: 0,
            counts: Vec::new(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    /// Records a `value` of zero or more `times` over.
    pub(super) fn record(&mut self, value: f64, times: u64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if value > 0.0 {
            self.add_bucket(index(value, self.scale), self.scale, times);
        } else {
            self.zero_count += times;
        }
    }

    /// Adds what `other` has recorded.
    pub(super) fn merge(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.zero_count += other.zero_count;
        for (place, &count) in other.counts.iter().enumerate() {
            if count > 0 {
                self.add_bucket(other.offset + place as i32, other.scale, count);
            }
        }
    }

    /// Forgets what it has recorded, and is as fine as at first.
    pub(super) fn clear(&mut self) {
        self.scale = MAX_SCALE;
        self.zero_count = 0;
        self.counts.clear();
        (self.min, self.max) = (f64::INFINITY, f64::NEG_INFINITY);
    }

    /// Adds to the bucket `index` of `scale`.
    fn add_bucket(&mut self, index: i32, scale: i32, times: u64) {
        self.lower_scale_to(scale);
        let mut index = index >> (scale - self.scale);
        if self.counts.is_empty() {
            self.offset = index;
        }
        let last = self.offset + self.counts.len() as i32 - 1;
        let (low, high) = (index.min(self.offset), index.max(last));
        let mut by = 0;
        while (high >> by) - (low >> by) >= self.max_size as i32 {
            by += 1;
        }
        if by > 0 {
            self.lower_scale_to(self.scale - by);
            index >>= by;
        }
        if index < self.offset {
            let missing = (self.offset - index) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = index;
        }
        let place = (index - self.offset) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(place) {
            *count += times;
        }
    }

    /// Merges neighbouring buckets until the scale is `scale` at the most.
    fn lower_scale_to(&mut self, scale: i32) {
        if scale >= self.scale {
            return;
        }
        let by = self.scale - scale;
        let offset = self.offset >> by;
        for place in 0..self.counts.len() {
            let count = std::mem::take(&mut self.counts[place]);
            let merged = ((self.offset + place as i32) >> by) - offset;
            // Never behind the place that was just emptied.
            self.counts[merged as usize] += count;
        }
        let last = (self.offset + self.counts.len() as i32 - 1) >> by;
        self.counts.truncate((last - offset + 1).max(0) as usize);
        self.offset = offset;
        self.scale = scale;
    }
}

/// The bucket of a `value` above zero.
fn index(value: f64, scale: i32) -> i32 {
    // The smallest normal number: below it there is nothing that a duration could be.
    let bits = value.max(f64::MIN_POSITIVE).to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = bits & MANTISSA;
    if mantissa == 0 {
        // A power of two is the upper bound of its bucket.
        return if scale > 0 { (exponent << scale) - 1 } else { (exponent - 1) >> -scale };
    }
    if scale <= 0 {
        return exponent >> -scale;
    }
    if scale <= Mantissas::SCALE {
        // Buckets of a finer scale are parts of those of a coarser one.
        return ((exponent << Mantissas::SCALE) + MANTISSAS.bucket(mantissa)) >> (Mantissas::SCALE - scale);
    }
    let buckets = f64::from_bits((1023 + scale as u64) << 52);
    // Rounding must not move it beyond the powers of two around it.
    let index = (value.log2() * buckets).ceil() as i32 - 1;
    index.clamp(exponent << scale, ((exponent + 1) << scale) - 1)
}

/// The bits of a number below its exponent.
const MANTISSA: u64 = (1 << 52) - 1;

/// The buckets between two powers of two, looked up by the first bits of the mantissa.
struct Mantissas {
    /// The lower bounds of all buckets but the first, and one that no mantissa reaches.
    bounds: [u64; Mantissas::BUCKETS],
    /// How many bounds are below each cell. Cells are so narrow that there is no more than one bound in any.
    below: [u8; 2 * Mantissas::BUCKETS],
}

static MANTISSAS: LazyLock<Mantissas> = LazyLock::new(Mantissas::new);

impl Mantissas {
    /// The finest scale that is looked up: 160 buckets of it, the default, are for durations of which the
    /// longest is one and a half times the shortest.
    const SCALE: i32 = 8;
    const BUCKETS: usize = 1 << Self::SCALE;

    fn new() -> Self {
        let bounds = std::array::from_fn(|bucket| match bucket + 1 {
            Self::BUCKETS => u64::MAX,
            bucket => (bucket as f64 / Self::BUCKETS as f64).exp2().to_bits() & MANTISSA,
        });
        let below = std::array::from_fn(|cell| {
            let begin = (cell as u64) << (52 - 1 - Self::SCALE);
            bounds.iter().filter(|bound| **bound < begin).count() as u8
        });
        Self { bounds, below }
    }

    /// The bucket of a `mantissa` that is not 0.
    #[inline]
    fn bucket(&self, mantissa: u64) -> i32 {
        let cell = (mantissa >> (52 - 1 - Self::SCALE)) as usize;
        let below = self.below.get(cell).copied().unwrap_or_default();
        let bound = self.bounds.get(usize::from(below)).copied().unwrap_or(u64::MAX);
        i32::from(below) + i32::from(bound < mantissa)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound(index: i32, scale: i32) -> f64 {
        (f64::from(index) * f64::from(-scale).exp2()).exp2()
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        for scale in [-3, -1, 0, 1, 5, 20] {
            assert_eq!(bound(index(4.0, 0) + 1, 0), 4.0);
            for value in [0.25, 1.0, 2.0, 1024.0] {
                let found = index(value, scale);
                assert!(bound(found, scale) < value && value <= bound(found + 1, scale), "{value} at {scale}");
            }
        }
        assert_eq!((index(1.0, 0), index(1.5, 0), index(2.0, 0), index(2.1, 0)), (-1, 0, 0, 1));
        assert_eq!((index(1.0, -1), index(5.0, -1), index(0.1, -1)), (-1, 1, -2));
    }

    /// The table says what the logarithm says, but for the rounding of the latter next to bounds, and at every
    /// bound the upper one belongs to the bucket.
    #[test]
    fn the_table_is_the_logarithm() {
        for bucket in 0..Mantissas::BUCKETS {
            let upper = ((bucket + 1) as f64 / Mantissas::BUCKETS as f64).exp2();
            for (value, expected) in [(upper, bucket), (upper.next_up(), bucket + 1), (upper.next_down(), bucket)] {
                assert_eq!(index(value, Mantissas::SCALE), expected as i32, "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_table_is_the_logarithm_everywhere(value in 1e-9..1e15f64, scale in 1..=Mantissas::SCALE) {
            let exact = value.log2() * f64::from(scale).exp2();
            let found = f64::from(index(value, scale));
            prop_assert!(found - 1e-9 < exact && exact <= found + 1.0 + 1e-9, "{} at {}: {}", value, scale, found);
        }

        /// Every value is in a bucket around it (but for the rounding of the logarithm), none is lost, and
        /// no more buckets are used than allowed, in whatever order and parts it is recorded.
        #[test]
        fn nothing_is_lost(
            values in prop::collection::vec((prop_oneof![Just(0.0), 1e-6..1e7f64, 0.5..2.0f64], 1..5u64), 1..200),
            max_size in 2usize..40,
            split in 0usize..200,
        ) {
            let split = split.min(values.len());
            let mut parts = [Exponential::new(max_size), Exponential::new(max_size)];
            for (index, &(value, times)) in values.iter().enumerate() {
                parts[usize::from(index >= split)].record(value, times);
            }
            let [mut whole, other] = parts;
            whole.merge(&other);
            prop_assert!(whole.counts.len() <= max_size);
            let total: u64 = values.iter().map(|(_, times)| times).sum();
            prop_assert_eq!(whole.zero_count + whole.counts.iter().sum::<u64>(), total);
            for (place, &count) in whole.counts.iter().enumerate() {
                let index = whole.offset + place as i32;
                let (low, high) = (bound(index, whole.scale), bound(index + 1, whole.scale));
                let near = |value: f64, bound: f64| (value - bound).abs() <= bound * 1e-9;
                let surely: u64 = values.iter()
                    .filter(|(v, _)| *v > low && *v <= high && !near(*v, low) && !near(*v, high))
                    .map(|(_, times)| times).sum();
                let perhaps: u64 = values.iter()
                    .filter(|(v, _)| *v > 0.0 && (*v > low && *v <= high || near(*v, low) || near(*v, high)))
                    .map(|(_, times)| times).sum();
                prop_assert!(surely <= count && count <= perhaps, "{} <= {} <= {}", surely, count, perhaps);
            }
        }
    }
}
