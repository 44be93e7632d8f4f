//! How many different series would there be without a label?
//!
//! Exact while few, then HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007) with 1024
//! registers: a standard error of 3.25 %.

/// Beyond this many values the set becomes a sketch.
const EXACT: usize = 64;
const PRECISION: u32 = 10;
const REGISTERS: usize = 1 << PRECISION;
/// More than the largest rank.
const RANKS: usize = 64;

/// A set of 64-bit hashes that tells how many it holds.
#[derive(Debug, Clone)]
pub(super) enum Distinct {
    Exact(Vec<u64>),
    Registers(Box<[u8; REGISTERS]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Distinct {
    pub(super) fn add(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) => {
                let Err(place) = hashes.binary_search(&hash) else { return };
                if hashes.len() < EXACT {
                    return hashes.insert(place, hash);
                }
                let mut registers = Box::new([0; REGISTERS]);
                for &hash in hashes.iter().chain([&hash]) {
                    count(&mut registers, hash);
                }
                *self = Self::Registers(registers);
            }
            Self::Registers(registers) => count(registers, hash),
        }
    }

    pub(super) fn estimate(&self) -> f64 {
        let registers = match self {
            Self::Exact(hashes) => return hashes.len() as f64,
            Self::Registers(registers) => registers,
        };
        let size = REGISTERS as f64;
        let mut ranks = [0u32; RANKS];
        for &rank in registers.iter() {
            if let Some(count) = ranks.get_mut(usize::from(rank)) {
                *count += 1;
            }
        }
        let share = |(rank, &count): (i32, &u32)| f64::from(count) * 2f64.powi(-rank);
        let harmonic: f64 = (0..).zip(&ranks).map(share).sum();
        let raw = (0.7213 / (1.0 + 1.079 / size)) * size * size / harmonic;
        let empty = ranks.first().copied().unwrap_or_default();
        if raw <= 2.5 * size && empty > 0 {
            return size * (size / f64::from(empty)).ln();
        }
        raw
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Exact(hashes) => hashes.capacity() * 8,
            Self::Registers(_) => REGISTERS,
        }
    }
}

fn count(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> (64 - PRECISION)) as usize;
    // A one behind the hash's own bits bounds the rank.
    let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() as u8 + 1;
    if let Some(register) = registers.get_mut(index) {
        *register = (*register).max(rank);
    }
}
