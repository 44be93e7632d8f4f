//! Reproducible random choices.

/// SplitMix64: a seed is a whole test case.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// Some of the choices in a random order, at least one.
    pub(crate) fn some<T: Clone>(&mut self, choices: &[T]) -> Vec<T> {
        let mut some = choices.to_vec();
        self.shuffle(&mut some);
        some.truncate(self.between(1, choices.len()));
        some
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.number() as u8)
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

/// The cases of a random test: `count` seeds, twenty times as many in the long run, or one that
/// was named.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("NYQUIST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        return seed..seed + 1;
    }
    let long = std::env::var("NYQUIST_LONG").is_ok_and(|long| long == "1");
    0..if long { count * 20 } else { count }
}
