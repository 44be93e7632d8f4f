//! What is remembered of streams from push to push: totals of deltas, and series to end when they
//! have fallen silent.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::clock::Clock;
use nyquist_core::delivery::Request;
use nyquist_core::telemetry::{Telemetry, UpDown};
use parking_lot::Mutex;

use super::clashes::Clashes;
use super::config::{ACCUMULATE, LeFormat, RemoteWriteConfig};
use super::encode::{EncodeScratch, SeriesSink};
use super::pending::Pending;
use super::shards::Shards;
use super::stats::Stats;
use crate::prometheus_mapping::{Accumulator, Partition, StaleTracker, Streams, Translator};

/// A series ends at the latest this much later than it should.
const LATEST: Duration = Duration::from_secs(15);

/// The state, and how often silent streams are looked for.
pub(super) struct StreamState {
    streams: Mutex<Streams>,
    interval: Duration,
    le_format: LeFormat,
    stats: Arc<Stats>,
    totals: UpDown,
    tracked: UpDown,
    bytes: UpDown,
}

impl StreamState {
    /// What `config` asks for; `None` if that is nothing.
    pub(super) fn new(
        config: &RemoteWriteConfig,
        telemetry: &Telemetry,
        exporter: &str,
        stats: &Arc<Stats>,
    ) -> Option<Arc<Self>> {
        let max_bytes = usize::try_from(config.max_stream_state.0).unwrap_or(usize::MAX);
        let (max_stale, stale_after) = (config.delta_max_stale.0, config.stale_after.0);
        let streams = Streams {
            accumulator: (config.delta == ACCUMULATE).then(|| Accumulator::new(max_bytes, max_stale)),
            stale_tracker: (!stale_after.is_zero()).then(|| StaleTracker::new(max_bytes, stale_after)),
        };
        let shortest = if stale_after.is_zero() { max_stale } else { stale_after };
        let interval = (shortest / 4).clamp(Duration::from_millis(100), LATEST);
        if streams.is_idle() {
            return None;
        }
        let gauge = |what: &str, help: &str| {
            let name = format!("otelcol_exporter_prometheusremotewrite_{what}");
            telemetry.gauge(&name, help, &[("exporter", exporter)])
        };
        Some(Arc::new(Self {
            streams: Mutex::new(streams),
            interval,
            le_format: config.le_format,
            stats: Arc::clone(stats),
            totals: gauge("delta_streams", "Streams of delta temporality that have a total."),
            tracked: gauge("tracked_series", "Series that end when they fall silent; a histogram counts once."),
            bytes: gauge("stream_state_bytes", "What both take in memory, roughly."),
        }))
    }

    /// Translates a request whose turn has come.
    pub(super) fn translate(
        &self,
        request: &Request,
        translator: &mut Translator,
        sink: &mut SeriesSink<'_>,
        now: Duration,
    ) {
        let mut streams = self.streams.lock();
        let mut sink = streams.sink(sink, now);
        request.parts().iter().for_each(|part| translator.translate(part, &mut sink));
        if let Some((family, points)) = streams.stale_tracker.as_mut().and_then(StaleTracker::take_untracked) {
            self.stats.untracked(family.name.as_bytes(), points);
        }
    }

    /// Looks for silent streams again and again, as long as the shards exist: also when nothing is
    /// pushed any more.
    pub(super) fn sweeps(
        self: &Arc<Self>,
        shards: &Arc<Shards>,
        clashes: &Arc<Clashes>,
        clock: &Arc<dyn Clock>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (state, shards) = (Arc::clone(self), Arc::downgrade(shards));
        let (clashes, clock) = (Arc::clone(clashes), Arc::clone(clock));
        async move {
            loop {
                tokio::time::sleep(state.interval).await;
                let Some(shards) = shards.upgrade() else { return };
                state.sweep(&shards, &clashes, &*clock);
            }
        }
    }

    fn report(&self, streams: &Streams) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (mut totals, mut tracked, mut bytes) = (0, 0, 0);
        if let Some(accumulator) = &streams.accumulator {
            (totals, bytes) = (accumulator.len(), accumulator.bytes());
        }
        if let Some(tracker) = &streams.stale_tracker {
            (tracked, bytes) = (tracker.len(), bytes + tracker.bytes());
        }
        self.totals.set(signed(totals));
        self.tracked.set(signed(tracked));
        self.bytes.set(signed(bytes));
    }

    fn sweep(&self, shards: &Shards, clashes: &Clashes, clock: &dyn Clock) {
        let unix_millis = i64::try_from(clock.unix_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let mut scratch = EncodeScratch::new(self.le_format);
        let mut sink = SeriesSink::new(shards.count(), &mut scratch, &self.stats);
        // Under the lock until the shards have the markers: a series that goes on comes after them.
        let mut streams = self.streams.lock();
        streams.sweep(clock.now(), unix_millis, &mut sink);
        self.report(&streams);
        if sink.has_neighbours {
            // The points of these series were not sent, and so is not their end.
            clashes.settle(&mut sink.segments, Partition::default(), clock.now(), |_, _| {});
        }
        let chunks = sink.segments.iter().map(|segment| segment.chunks.len()).sum();
        if chunks > 0 {
            self.stats.translated(sink.series);
            // Nobody waits for them.
            shards.feed(sink.segments, &Arc::default(), &Arc::new(Pending::new(chunks)));
        }
    }
}
