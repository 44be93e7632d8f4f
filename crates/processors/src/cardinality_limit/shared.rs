//! What all shards share: settings, global budgets, time.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use nyquist_core::batch::Metadata;
use nyquist_core::clock::Clock;
use nyquist_core::wire::{AnyValue, KeyValue, put_len_field};
use parking_lot::Mutex;
use regex::bytes::RegexSet;

use super::config::{CardinalityLimitConfig, GaugeMode, Keep, OnExceed, TenantFrom};
use super::doorkeeper::Doorkeeper;
use super::forgotten::Forgotten;
use super::hash::{Hashes, bucket};
use super::metric::Attribute;
use super::report::Report;
use super::tenant::{Tenant, Tenants};
use super::times::When;
use crate::attributes::put_nested;
use crate::skew::{Capped, LatestOf, SkewLimit};

/// The label of overflow series, as the SDKs have it.
pub(super) const OVERFLOW: &[u8] = b"otel.metric.overflow";

/// A share of the memory limit that only collapsed series and slots may use, so that last values
/// of collapsed streams never take the room in which their sums are kept.
const RESERVED_SHARE: usize = 4;
/// What the counts of values that wait for a slot may take.
const MAX_DOORKEEPER: usize = 4 << 20;

/// No stream starts then: with this for a start, the "life" of a name that a collapsed series has had.
const ENDED: u64 = u64::MAX;

pub(super) struct Shared {
    pub(super) hashes: Hashes,
    pub(super) report: Report,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) on_exceed: OnExceed,
    pub(super) dry_run: bool,
    pub(super) gauge: GaugeMode,
    pub(super) replacement: Vec<u8>,
    /// Among how many values what is over a limit is spread; 0 for one.
    hash_buckets: u32,
    pub(super) per_resource: bool,
    tenant_from: Option<TenantFrom>,
    pub(super) tenants: Tenants,
    max_series_per_tenant: usize,
    pub(super) min_sightings: u8,
    doorkeeper: Option<Mutex<Doorkeeper>>,
    /// The hash of `otel.metric.overflow=true`.
    pub(super) overflow_hash: u64,
    /// The `KeyValue` of `otel.metric.overflow=true`.
    pub(super) overflow_attribute: Vec<u8>,
    pub(super) protected: HashSet<Vec<u8>>,
    rules: Vec<ReadyRule>,
    default: Arc<Limits>,
    max_series: usize,
    memory_limit: usize,
    /// What of it is for all but the filter of forgotten streams.
    state_limit: usize,
    series: AtomicUsize,
    bytes: AtomicUsize,
    pub(super) forgotten: Mutex<Forgotten>,
    /// Idle times are counted in epochs of this length.
    epoch_length: Duration,
    /// After so many epochs without a point something is idle.
    pub(super) idle_epochs: u16,
    /// When the choice of before a restart was taken over (Unix nanoseconds); 0 if it was not.
    restored_at: u64,
    /// Points up to this time (Unix nanoseconds) may have been counted before a restart.
    pub(super) counted_until: Capped,
    /// Series have lost their slots since the last snapshot.
    slots_were_lost: AtomicBool,
    last_sweep: AtomicU32,
    starving: AtomicBool,
    /// Collapsed series of metrics that are forgotten were not reported later than this.
    pub(super) ended_before: LatestOf,
    /// Nor were streams of them counted later than this.
    pub(super) forgotten_until: LatestOf,
}

struct ReadyRule {
    metrics: RegexSet,
    limits: Arc<Limits>,
}

/// Whose data it is.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) tenant: Arc<Tenant>,
    /// The hash of its name; 0 if tenants are not told apart.
    pub(super) hash: u64,
    /// What is to be sent along with its data, if that tells who it is.
    pub(super) metadata: Option<Arc<Metadata>>,
}

/// The budgets of one metric.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) max_series: usize,
    usual: LabelLimits,
    labels: Vec<(Vec<u8>, LabelLimits)>,
}

/// What a label may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabelLimits {
    /// Values; 0 collapses the label always.
    pub(super) max: usize,
    /// Those with the most points keep their slots, not those seen first.
    pub(super) is_top_k: bool,
}

impl Limits {
    /// What `label` may have.
    pub(super) fn label(&self, label: &[u8]) -> LabelLimits {
        self.labels.iter().find(|(name, _)| name == label).map_or(self.usual, |(_, limits)| *limits)
    }
}

impl Shared {
    pub(super) fn new(
        config: &CardinalityLimitConfig,
        hashes: Hashes,
        report: Report,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let overflow = KeyValue { key: OVERFLOW, value: AnyValue::Bool(true) };
        let mut overflow_attribute = Vec::new();
        put_len_field(&mut overflow_attribute, 1, OVERFLOW);
        put_nested(&mut overflow_attribute, 2, |out| out.extend_from_slice(&[0x10, 1]));
        let label = |max, keep: Option<Keep>| LabelLimits { max, is_top_k: keep.unwrap_or(config.keep) == Keep::TopK };
        let default = Arc::new(Limits {
            max_series: config.default.max_series_per_metric,
            usual: label(config.default.max_values_per_label, None),
            labels: Vec::new(),
        });
        let rule = |rule: &super::config::Rule| {
            let patterns = rule.metrics.iter().map(|glob| glob_pattern(glob));
            let metrics = RegexSet::new(patterns).map_err(|error| error.to_string())?;
            let one = |(name, limit): (&String, &super::config::LabelLimit)| {
                (name.clone().into_bytes(), label(limit.max, limit.keep))
            };
            let limits = Arc::new(Limits {
                max_series: rule.max_series_per_metric.unwrap_or(default.max_series),
                usual: rule.max_values_per_label.map_or(default.usual, |max| label(max, None)),
                labels: rule.labels.iter().map(one).collect(),
            });
            Ok(ReadyRule { metrics, limits })
        };
        let rules = config.rules.iter().map(rule).collect::<Result<_, String>>()?;
        let memory_limit = config.memory_limit_mib << 20;
        // Set aside, so that remembering what was given up needs no room of its own.
        let for_forgotten = memory_limit / 16;
        let doorkeeper = (config.min_sightings > 1).then(|| Doorkeeper::new((memory_limit / 64).min(MAX_DOORKEEPER)));
        let for_doorkeeper = doorkeeper.as_ref().map_or(0, Doorkeeper::bytes);
        let usual = (config.idle_ttl.0 / 16).clamp(Duration::from_millis(100), Duration::from_secs(64));
        // Epochs are counted in 16 bits.
        let epoch_length = usual.max(config.idle_ttl.0 / 30_000);
        let idle_epochs = config.idle_ttl.0.as_nanos().div_ceil(epoch_length.as_nanos());
        Ok(Self {
            overflow_hash: hashes.attribute(&overflow),
            hashes,
            report,
            on_exceed: config.on_exceed,
            dry_run: config.dry_run,
            gauge: config.gauge,
            replacement: config.replacement.clone().into_bytes(),
            hash_buckets: if config.on_exceed == OnExceed::HashLabel { config.hash_buckets } else { 0 },
            per_resource: config.per_resource,
            tenant_from: config.tenant_from.clone(),
            tenants: Tenants::new(config.max_tenants),
            max_series_per_tenant: config.max_series_per_tenant.unwrap_or(usize::MAX),
            min_sightings: config.min_sightings,
            doorkeeper: doorkeeper.map(Mutex::new),
            overflow_attribute,
            protected: config.protect_labels.iter().map(|label| label.clone().into_bytes()).collect(),
            rules,
            default,
            max_series: config.max_series,
            memory_limit,
            state_limit: memory_limit - for_forgotten - for_doorkeeper,
            series: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            forgotten: Mutex::new(Forgotten::new(for_forgotten, clock.unix_nanos())),
            epoch_length,
            // Half of the 16-bit circle, so that "older" stays well defined.
            idle_epochs: u16::try_from(idle_epochs).unwrap_or(u16::MAX).min(u16::MAX / 2),
            restored_at: 0,
            counted_until: Capped::UNKNOWN,
            slots_were_lost: AtomicBool::new(false),
            last_sweep: AtomicU32::new(0),
            starving: AtomicBool::new(false),
            ended_before: LatestOf::default(),
            forgotten_until: LatestOf::default(),
            clock,
        })
    }

    /// The budgets of the metric called `name`.
    pub(super) fn limits(&self, name: &[u8]) -> Arc<Limits> {
        let rule = self.rules.iter().find(|rule| rule.metrics.is_match(name));
        Arc::clone(rule.map_or(&self.default, |rule| &rule.limits))
    }

    /// Who has sent what comes with `metadata`, as far as that tells; then its resources need not be
    /// asked.
    pub(super) fn sender(&self, metadata: &Metadata) -> Option<Sender> {
        let nobody = || Sender { tenant: Arc::clone(self.tenants.rest()), hash: 0, metadata: None };
        let name = match &self.tenant_from {
            None => return Some(nobody()),
            Some(TenantFrom::Resource(_)) => return None,
            Some(TenantFrom::Metadata(name)) => name,
        };
        let Some((_, value)) = metadata.headers.iter().find(|(header, _)| header == name) else {
            return Some(nobody());
        };
        let mut sender = self.sender_called(self.hashes.bytes(value.as_bytes()), value.as_bytes());
        sender.metadata = Some(Arc::new(Metadata { headers: vec![(name.clone(), value.clone())] }));
        Some(sender)
    }

    /// Who has sent a resource with `attributes`.
    pub(super) fn sender_of<'a>(&self, mut attributes: impl Iterator<Item = KeyValue<'a>>) -> Sender {
        let Some(TenantFrom::Resource(name)) = &self.tenant_from else {
            return Sender { tenant: Arc::clone(self.tenants.rest()), hash: 0, metadata: None };
        };
        match attributes.find(|attribute| attribute.key == name.as_bytes()) {
            Some(attribute) => {
                let hash = self.hashes.attribute(&attribute);
                match attribute.value {
                    AnyValue::String(text) => self.sender_called(hash, text),
                    AnyValue::Int(number) => self.sender_called(hash, number.to_string().as_bytes()),
                    _ => self.sender_called(hash, b"?"),
                }
            }
            None => Sender { tenant: Arc::clone(self.tenants.rest()), hash: 0, metadata: None },
        }
    }

    fn sender_called(&self, hash: u64, name: &[u8]) -> Sender {
        Sender { tenant: self.tenants.find(hash, name, self.clock.unix_nanos()), hash, metadata: None }
    }

    /// What the value of `attribute` is replaced by.
    pub(super) fn replacement_of(&self, value: &AnyValue<'_>) -> Cow<'_, [u8]> {
        if self.hash_buckets == 0 {
            return Cow::Borrowed(&self.replacement);
        }
        let mut text = self.replacement.clone();
        text.extend_from_slice(format!("-{}", bucket(value, self.hash_buckets)).as_bytes());
        Cow::Owned(text)
    }

    /// The hash of `attribute` with its value replaced; `usual` where that does not depend on the value.
    pub(super) fn replacement_hash(&self, attribute: &Attribute<'_>, usual: u64) -> u64 {
        if self.hash_buckets == 0 {
            return usual;
        }
        let value = self.replacement_of(&attribute.value);
        self.hashes.attribute(&KeyValue { key: attribute.key, value: AnyValue::String(&value) })
    }

    /// Are points over a limit counted with others?
    pub(super) fn collapses(&self) -> bool {
        matches!(self.on_exceed, OnExceed::CollapseLabel | OnExceed::HashLabel | OnExceed::OverflowSeries)
    }

    /// What is done with points over a limit, as it is called in the metrics.
    pub(super) fn action(&self) -> &'static str {
        match self.on_exceed {
            _ if self.dry_run => "dry_run",
            OnExceed::CollapseLabel => "collapse_label",
            OnExceed::HashLabel => "hash_label",
            OnExceed::OverflowSeries => "overflow_series",
            OnExceed::DropPoint => "drop_point",
            OnExceed::TagOnly => "tag_only",
        }
    }

    /// Has `value` of the metric `metric` been seen often enough to get a slot? Counts as a sighting.
    pub(super) fn is_ripe(&self, metric: u64, value: u64) -> bool {
        let Some(doorkeeper) = &self.doorkeeper else { return true };
        doorkeeper.lock().see(metric.rotate_left(17) ^ value) >= self.min_sightings
    }

    /// From now on hashes are those of a snapshot, of what was chosen before a restart. It was `written`
    /// (Unix nanoseconds) at most two `interval`s before the end.
    pub(super) fn restore(&mut self, hashes: Hashes, written: u64, interval: Duration) {
        self.overflow_hash = hashes.attribute(&KeyValue { key: OVERFLOW, value: AnyValue::Bool(true) });
        self.hashes = hashes;
        self.restored_at = self.clock.unix_nanos();
        let until = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(written);
        self.counted_until = self.skew_limit().cap(until.min(self.restored_at));
    }

    /// May a point of `time` (Unix nanoseconds) be older than one that was counted before the restart?
    pub(super) fn may_be_late(&self, time: u64) -> bool {
        time <= self.counted_until.nanos()
    }

    /// Up to when the times of points that come now are believed.
    pub(super) fn skew_limit(&self) -> SkewLimit {
        SkewLimit::now(&*self.clock)
    }

    /// May a stream that started at `start` (Unix nanoseconds; 0 if that is not known), and had no slot
    /// before the restart, have been counted with others then?
    pub(super) fn may_predate_restart(&self, start: u64) -> bool {
        start < self.restored_at
    }

    /// The identity of the stream `fingerprint` since its `start`.
    pub(super) fn life(&self, fingerprint: u64, start: u64) -> u64 {
        self.hashes.mix(&[fingerprint, start])
    }

    fn epochs(&self) -> u32 {
        (self.clock.now().as_nanos() / self.epoch_length.as_nanos().max(1)) as u32
    }

    /// The current epoch.
    pub(super) fn epoch(&self) -> u16 {
        self.epochs() as u16
    }

    /// How many seconds `epochs` are.
    pub(super) fn seconds(&self, epochs: u16) -> u64 {
        (self.epoch_length * u32::from(epochs)).as_secs()
    }

    /// How many epochs `time` is, if they can be counted.
    pub(super) fn epochs_of(&self, time: Duration) -> Option<u16> {
        u16::try_from(time.as_nanos() / self.epoch_length.as_nanos().max(1)).ok()
    }

    /// Has something last seen in the epoch `seen` been idle too long?
    pub(super) fn is_idle(&self, seen: u16, now: u16) -> bool {
        // One more epoch, as it may have been seen at the end of its own.
        now.wrapping_sub(seen) > self.idle_epochs
    }

    /// Is it time to look for what is idle? True once an epoch.
    pub(super) fn sweep_is_due(&self) -> bool {
        let now = self.epochs();
        self.last_sweep.swap(now, Ordering::Relaxed) != now
    }

    /// Is there room for one more series of `tenant`, and for one more of all?
    pub(super) fn has_slot(&self, tenant: &Tenant) -> bool {
        self.series.load(Ordering::Relaxed) < self.max_series && tenant.series() < self.max_series_per_tenant
    }

    pub(super) fn take_slot(&self, tenant: &Tenant) {
        self.series.fetch_add(1, Ordering::Relaxed);
        tenant.take_slot();
        self.report.new_series.inc();
    }

    pub(super) fn give_slots(&self, tenant: &Tenant, count: usize) {
        self.series.fetch_sub(count, Ordering::Relaxed);
        tenant.give_slots(count);
    }

    /// May `bytes` more be used for slots and collapsed series?
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.state_limit
    }

    /// May `bytes` more be used for the last values of collapsed streams?
    pub(super) fn fits_input(&self, bytes: usize) -> bool {
        self.used() + bytes <= self.state_limit - self.state_limit / RESERVED_SHARE
    }

    /// Somebody did not get memory: at the next flush others give some up.
    pub(super) fn starve(&self) {
        self.starving.store(true, Ordering::Relaxed);
    }

    /// Has somebody not got memory since this was last asked?
    pub(super) fn was_starved(&self) -> bool {
        self.starving.swap(false, Ordering::Relaxed)
    }

    /// Books that a part of the state has grown or shrunk.
    pub(super) fn resized(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Remembers streams that were counted with others, and are known no longer: their lives, and when they
    /// started (0 if that is not known).
    pub(super) fn forget_lives(&self, lives: impl Iterator<Item = (u64, u64)>) {
        let (now, limit) = (self.clock.unix_nanos(), self.skew_limit());
        let mut forgotten = self.forgotten.lock();
        for (life, start) in lives {
            forgotten.add_life(life, if start == 0 { now } else { limit.cap(start).nanos() });
        }
    }

    /// Remembers a stream that was counted with others, and started at `start` (Unix nanoseconds; 0 if that is not known).
    pub(super) fn forget_life(&self, fingerprint: u64, start: u64) {
        self.forget_lives([(self.life(fingerprint, start), start)].into_iter());
    }

    /// Remembers collapsed series that have ended, by their fingerprints.
    pub(super) fn forget_ends(&self, series: impl Iterator<Item = u64>) {
        self.forget_lives(series.map(|fingerprint| (self.life(fingerprint, ENDED), 0)));
    }

    /// May the stream of a point that was made `when` have been counted with others, or may others have been reported
    /// under its name?
    pub(super) fn may_have_been_collapsed(&self, fingerprint: u64, when: When) -> bool {
        let forgotten = self.forgotten.lock();
        forgotten.may_know_life(self.life(fingerprint, when.start), when.credible_start())
            || forgotten.holds(self.life(fingerprint, ENDED))
    }

    /// Remembers series that had slots, by their fingerprints.
    pub(super) fn forget_slots(&self, series: impl Iterator<Item = u64>) {
        let now = self.clock.unix_nanos();
        let mut forgotten = self.forgotten.lock();
        series.for_each(|fingerprint| forgotten.add_slot(fingerprint, now));
        self.lost_slots();
    }

    /// Series have lost their slots, and no snapshot knows it.
    pub(super) fn lost_slots(&self) {
        self.slots_were_lost.store(true, Ordering::Relaxed);
    }

    /// Have series lost their slots since this was last asked?
    pub(super) fn take_slots_were_lost(&self) -> bool {
        self.slots_were_lost.swap(false, Ordering::Relaxed)
    }

    /// Bytes that are booked.
    pub(super) fn used(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that all state takes.
    pub(super) fn bytes(&self) -> usize {
        let doorkeeper = self.doorkeeper.as_ref().map_or(0, |doorkeeper| doorkeeper.lock().bytes());
        self.used() + self.forgotten.lock().bytes() + doorkeeper + self.tenants.bytes()
    }

    pub(super) fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Publishes the global budgets.
    pub(super) fn publish(&self) {
        self.report.budgets(self.bytes(), self.memory_limit, self.series(), self.max_series);
    }
}

/// The regular expression of a pattern in which `*` stands for any text and `?` for one character.
fn glob_pattern(glob: &str) -> String {
    let mut pattern = "^(?s:".to_owned();
    for letter in glob.chars() {
        match letter {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            other => pattern.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern.push_str(")$");
    pattern
}
