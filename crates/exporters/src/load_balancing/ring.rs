//! The consistent-hash ring, equal to the Collector's: balancers of both kinds in front of the same
//! backends agree on who gets what.
//!
//! A circle of [`POSITIONS`] places. Each endpoint has [`POINTS`] points on it; point `i` wants the place
//! CRC-32(endpoint, `i` as four bytes, little-endian) modulo the places, and where that is taken, the next
//! free one, at most [`PROBES`] - 1 places on. A key belongs to the endpoint of the first point at or after
//! CRC-32(key) modulo the places. CRC-32 is the IEEE one.

/// How many places the circle has.
pub(super) const POSITIONS: u32 = 131_071;
/// How many points an endpoint has.
const POINTS: u32 = 200;
/// How many places a point tries.
const PROBES: u32 = 10;

/// Who owns which place.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    /// The index of the owner of each place; empty if there are no endpoints.
    owners: Box<[u32]>,
}

impl Ring {
    /// The ring of `endpoints`; an owner is an index into them.
    pub(super) fn new<S: AsRef<str>>(endpoints: &[S]) -> Self {
        let mut candidates = Vec::with_capacity(endpoints.len() * POINTS as usize);
        for (index, endpoint) in endpoints.iter().enumerate() {
            let endpoint = endpoint.as_ref();
            let mut begun = crc32fast::Hasher::new();
            begun.update(endpoint.as_bytes());
            for point in 0..POINTS {
                let mut hasher = begun.clone();
                hasher.update(&point.to_le_bytes());
                let hash = hasher.finalize();
                candidates.push((hash % POSITIONS, hash, endpoint, index as u32));
            }
        }
        candidates.sort_unstable();
        let mut points: Vec<Option<u32>> = vec![None; POSITIONS as usize];
        for (position, _, _, owner) in candidates {
            let mut tried = (0..PROBES).map(|step| ((position + step) % POSITIONS) as usize);
            if let Some(free) = tried.find(|&place| points.get(place).is_some_and(Option::is_none))
                && let Some(point) = points.get_mut(free)
            {
                *point = Some(owner);
            }
        }
        Self { owners: fill(&points) }
    }

    /// The place of `key`.
    pub(super) fn position(key: &[u8]) -> u32 {
        crc32fast::hash(key) % POSITIONS
    }

    /// The owner of `key`; 0 if there is none.
    pub(super) fn owner(&self, key: &[u8]) -> usize {
        self.owners.get(Self::position(key) as usize).map_or(0, |&owner| owner as usize)
    }
}

/// The owner of each place: that of the first point at or after it, around the circle.
fn fill(points: &[Option<u32>]) -> Box<[u32]> {
    let Some(mut owner) = points.iter().copied().find_map(|point| point) else { return Box::default() };
    let mut owners = vec![0; points.len()];
    for (place, point) in owners.iter_mut().zip(points).rev() {
        owner = point.unwrap_or(owner);
        *place = owner;
    }
    owners.into()
}
