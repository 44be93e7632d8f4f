//! The choice of what keeps a slot, as bytes.
//!
//! A snapshot is [`Writer`]'s header, one entry for each metric, and an end. Numbers are varints but for
//! hashes, which are eight bytes, little-endian. It holds fingerprints, no values, and not what
//! collapsed series have added up: after a restart these begin anew, and their inputs set a baseline.
//! What cannot be read is no snapshot: the limiter then starts empty.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::wire::put_varint;

use super::contest::Slot;
use super::hash::{Hashes, Seed};
use super::metric::{MAX_LABELS, Metric};
use super::retired::Retired;
use super::series::{Role, Series, Stamp};
use super::shared::Shared;

const MAGIC: &[u8; 8] = b"NQCARD\x00\x01";
const METRIC: u8 = 1;
const END: u8 = 2;

const IS_INDIVIDUAL: u8 = 1;
const IS_OVERFLOW: u8 = 2;
const WAS_INDIVIDUAL: u8 = 4;

/// Writes what all snapshots begin with.
pub(super) fn put_header(out: &mut Vec<u8>, shared: &Shared) {
    out.extend_from_slice(MAGIC);
    shared.hashes.seed().iter().for_each(|part| put_hash(out, *part));
    put_hash(out, shared.hashes.check());
    put_hash(out, shared.clock.unix_nanos());
}

/// Writes what all snapshots end with.
pub(super) fn put_end(out: &mut Vec<u8>) {
    out.push(END);
}

/// Writes the choice of one metric.
pub(super) fn put_metric(out: &mut Vec<u8>, shared: &Shared, metric: &Metric) {
    let now = shared.epoch();
    let age = |seen: u16| shared.seconds(now.wrapping_sub(seen));
    out.push(METRIC);
    put_hash(out, metric.identity);
    put_text(out, &metric.name);
    put_hash(out, metric.tenant.hash);
    put_text(out, &metric.tenant.name);
    put_varint(out, metric.labels.len() as u64);
    for (label, name) in metric.labels.iter().zip(metric.names.iter()) {
        put_text(out, name);
        put_varint(out, label.collapsed.map_or(0, |since| 1 + age(since)));
        put_varint(out, label.values.len() as u64);
        for (value, slot) in &label.values {
            put_hash(out, *value);
            put_varint(out, age(slot.seen));
            put_varint(out, u64::from(slot.count));
        }
    }
    put_varint(out, metric.series.len() as u64);
    for (fingerprint, series) in &metric.series {
        put_hash(out, *fingerprint);
        put_varint(out, age(series.epoch));
        put_varint(out, metric.label_sets.labels(series.carries));
        let individual = if series.is_individual() { IS_INDIVIDUAL } else { 0 };
        let overflow = if series.is_overflow() { IS_OVERFLOW } else { 0 };
        out.push(individual | overflow | if series.role == Role::WasIndividual { WAS_INDIVIDUAL } else { 0 });
    }
    let retired = || metric.retired.iter().filter(|(_, retired)| retired.ends);
    put_varint(out, retired().count() as u64);
    for (fingerprint, retired) in retired() {
        put_hash(out, *fingerprint);
        put_varint(out, age(retired.seen));
    }
}

fn put_hash(out: &mut Vec<u8>, hash: u64) {
    out.extend_from_slice(&hash.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// The head of a snapshot, and where its metrics begin.
pub(super) struct Snapshot<'a> {
    pub(super) seed: Seed,
    /// When it was written (Unix nanoseconds).
    pub(super) written: u64,
    rest: Reader<'a>,
}

/// Reads the head of a snapshot. `None` if it is none, or one of another version.
pub(super) fn open(bytes: &[u8]) -> Option<Snapshot<'_>> {
    let mut rest = Reader(bytes);
    if rest.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let seed = [rest.hash()?, rest.hash()?];
    let check = rest.hash()?;
    let written = rest.hash()?;
    (Hashes::new(seed).check() == check).then_some(Snapshot { seed, written, rest })
}

impl Snapshot<'_> {
    /// Makes the metrics of the snapshot, and hands each to `keep` with its identity. `None` if it cannot be
    /// read to its end; what was handed over by then is to be given up.
    pub(super) fn restore(mut self, shared: &Shared, mut keep: impl FnMut(u64, Metric)) -> Option<()> {
        let away = Duration::from_nanos(shared.clock.unix_nanos().saturating_sub(self.written));
        let ages = Ages { shared, away, now: shared.epoch() };
        loop {
            match self.rest.byte()? {
                METRIC => {
                    let (identity, metric) = self.rest.metric(&ages)?;
                    keep(identity, metric);
                }
                END => return Some(()),
                _ => return None,
            }
        }
    }
}

/// From ages in the snapshot to epochs.
struct Ages<'a> {
    shared: &'a Shared,
    away: Duration,
    now: u16,
}

impl Ages<'_> {
    /// The epoch in which something was seen; `None` if that is too long ago.
    fn epoch(&self, seconds: u64) -> Option<u16> {
        let age = self.shared.epochs_of(Duration::from_secs(seconds).saturating_add(self.away));
        let seen = self.now.wrapping_sub(age?);
        (!self.shared.is_idle(seen, self.now)).then_some(seen)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn hash(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// How many entries of at least `least` bytes follow; more than there are bytes for are refused.
    fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() / least).then_some(count)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    fn metric(&mut self, ages: &Ages<'_>) -> Option<(u64, Metric)> {
        let shared = ages.shared;
        let identity = self.hash()?;
        let name = self.text()?;
        let tenant_hash = self.hash()?;
        let tenant_name = self.text()?;
        let tenant = if tenant_hash == 0 {
            Arc::clone(shared.tenants.rest())
        } else {
            shared.tenants.find(tenant_hash, tenant_name, shared.clock.unix_nanos())
        };
        let mut metric = Metric::new(shared, identity, name, tenant, ages.now);
        // Labels of which not all values keep their slots, as bits; and what index they have now.
        let mut shrunk = 0;
        let mut indexes = Vec::new();
        // Sets of labels are bits.
        let labels = self.count(3).filter(|labels| *labels <= MAX_LABELS)?;
        for _ in 0..labels {
            let name = self.text()?;
            let collapsed = self.number()?;
            let mut values = Vec::new();
            for _ in 0..self.count(10)? {
                let (value, age, count) = (self.hash()?, self.number()?, self.number()?);
                if let Some(seen) = ages.epoch(age) {
                    values.push((age, value, Slot { count: u32::try_from(count).unwrap_or(u32::MAX), seen }));
                }
            }
            let since = collapsed.checked_sub(1).and_then(|age| ages.epoch(age));
            let index = metric.tracked(shared, name);
            if !metric.restore_label(shared, index, since, values) {
                shrunk |= 1u64 << indexes.len();
            }
            indexes.push(index);
        }
        let mut series = Vec::new();
        for _ in 0..self.count(11)? {
            let (fingerprint, age, carries, flags) = (self.hash()?, self.number()?, self.number()?, self.byte()?);
            let Some(epoch) = ages.epoch(age) else { continue };
            let stays = carries & shrunk == 0;
            let carries = metric.label_sets.index(with_indexes(carries, &indexes));
            let entry = match flags {
                _ if flags & IS_INDIVIDUAL != 0 => Series::individual(Stamp::UNKNOWN, carries, epoch),
                _ if flags & IS_OVERFLOW != 0 => Series::collapsed(Role::Overflow, carries, epoch),
                _ if flags & WAS_INDIVIDUAL != 0 => Series::collapsed(Role::WasIndividual, carries, epoch),
                _ => Series::collapsed(Role::Collapsed, carries, epoch),
            };
            series.push((age, fingerprint, entry, stays));
        }
        for _ in 0..self.count(9)? {
            let (fingerprint, age) = (self.hash()?, self.number()?);
            if let Some(seen) = ages.epoch(age) {
                metric.retire_one(shared, fingerprint, Retired { seen, newest: Stamp::UNKNOWN, ends: true });
            }
        }
        // Last, as it takes slots: from here on nothing can fail.
        metric.restore_series(shared, series);
        metric.book(shared);
        Some((identity, metric))
    }
}

/// `carries` with the labels' present `indexes`; those that are not tracked any more are left out.
fn with_indexes(carries: u64, indexes: &[Option<u8>]) -> u64 {
    let present = |(index, now): (usize, &Option<u8>)| now.filter(|_| carries & (1 << index) != 0);
    indexes.iter().enumerate().filter_map(present).fold(0, |bits, now| bits | 1 << now)
}

impl Metric {
    /// Gives a label its values back: with their age in seconds, as many of the youngest as the limit
    /// allows. False if that is not all.
    fn restore_label(
        &mut self,
        shared: &Shared,
        index: Option<u8>,
        collapsed: Option<u16>,
        mut values: Vec<(u64, u64, Slot)>,
    ) -> bool {
        let bytes = self.unbooked() + values.len() * 4 * size_of::<(u64, Slot)>();
        let Some(label) = index.and_then(|index| self.labels.get_mut(usize::from(index))) else { return true };
        if !shared.fits(bytes) {
            return values.is_empty();
        }
        values.sort_unstable_by_key(|(age, value, _)| (*age, *value));
        let kept = values.len().min(label.max_values);
        label.values.extend(values.iter().take(kept).map(|(_, value, slot)| (*value, *slot)));
        label.collapsed = collapsed;
        kept == values.len()
    }

    /// Gives series their slots back, the youngest first. Those that do not `stay` have to ask again.
    fn restore_series(&mut self, shared: &Shared, mut series: Vec<(u64, u64, Series, bool)>) {
        series.sort_unstable_by_key(|(age, fingerprint, ..)| (*age, *fingerprint));
        for (_, fingerprint, entry, stays) in series {
            if stays && (entry.is_overflow() || self.has_room(shared)) {
                if !entry.is_overflow() {
                    self.used += 1;
                    shared.take_slot(&self.tenant);
                }
                self.series.insert(fingerprint, entry);
            } else if entry.is_individual() {
                let retired = Retired { seen: entry.epoch, newest: entry.newest(), ends: true };
                self.retire_one(shared, fingerprint, retired);
                shared.forget_slots([fingerprint].into_iter());
            }
        }
    }
}
