//! What is remembered of targets from push to push, for `target_info`.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::clock::Clock;
use parking_lot::{Mutex, MutexGuard};

use super::config::LeFormat;
use super::encode::{EncodeScratch, SeriesSink, empty_segments};
use super::pending::Pending;
use super::rows::Segment;
use super::shards::Shards;
use super::stats::Stats;
use super::tenant::Tenant;
use crate::prometheus_mapping::TargetInfo;

/// A silent target ends at the latest this much later than it should.
const LATEST: Duration = Duration::from_secs(15);

/// The targets of all tenants.
pub(super) struct Targets {
    info: Mutex<TargetInfo<Tenant>>,
    interval: Duration,
}

impl Targets {
    pub(super) fn new(info: TargetInfo<Tenant>) -> Arc<Self> {
        let interval = info.sweep_interval().min(LATEST);
        Arc::new(Self { info: Mutex::new(info), interval })
    }

    /// To be held until the shards have what is due: a stale marker comes after the sample before it.
    pub(super) fn lock(&self) -> MutexGuard<'_, TargetInfo<Tenant>> {
        self.info.lock()
    }

    /// Looks for silent targets again and again, as long as the shards exist: also when nothing is pushed any more.
    pub(super) fn sweeps(
        self: &Arc<Self>,
        shards: &Arc<Shards>,
        stats: &Arc<Stats>,
        clock: &Arc<dyn Clock>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (targets, shards) = (Arc::clone(self), Arc::downgrade(shards));
        let (stats, clock) = (Arc::clone(stats), Arc::clone(clock));
        async move {
            loop {
                tokio::time::sleep(targets.interval).await;
                let Some(shards) = shards.upgrade() else { return };
                end_silent(&mut targets.lock(), &shards, &stats, &*clock);
            }
        }
    }
}

/// Ends what is silent, each series with the headers of its own tenant.
pub(super) fn end_silent(info: &mut TargetInfo<Tenant>, shards: &Shards, stats: &Stats, clock: &dyn Clock) {
    let unix_millis = i64::try_from(clock.unix_nanos() / 1_000_000).unwrap_or(i64::MAX);
    // `target_info` has no bounds to format.
    let mut scratch = EncodeScratch::new(LeFormat::default());
    let mut sink = SeriesSink::new(0, &mut scratch, stats);
    let mut tenant: Option<Tenant> = None;
    info.end_silent(clock.now(), unix_millis, &mut sink, |sink, owner| {
        if tenant.as_ref() != Some(owner) {
            let before = std::mem::replace(&mut sink.segments, empty_segments(shards.count()));
            feed(before, tenant.replace(owner.clone()).as_ref(), shards);
            sink.partition = owner.partition();
        }
    });
    stats.translated(sink.series);
    feed(sink.segments, tenant.as_ref(), shards);
}

fn feed(segments: Vec<Segment>, tenant: Option<&Tenant>, shards: &Shards) {
    let chunks = segments.iter().map(|segment| segment.chunks.len()).sum();
    if let Some(tenant) = tenant.filter(|_| chunks > 0) {
        // Nobody waits for them.
        shards.feed(segments, tenant.headers(), &Arc::new(Pending::new(chunks)));
    }
}
