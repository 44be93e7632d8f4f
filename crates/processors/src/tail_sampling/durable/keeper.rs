//! Writing decisions down, and letting go of what is not needed.

use std::mem;
use std::sync::Arc;

use nyquist_core::clock::Clock;

use super::record::{self, Spans};
use super::{Durable, TICK};
use crate::tail_sampling::sampler::Sampler;

/// Bytes of traces that one tick writes anew, and a trace.
const ANEW: usize = 1 << 20;
/// A log of up to this is never too large.
const SMALL: u64 = 32 << 20;
/// Traces are not written anew before this many milliseconds have passed.
const YOUNG: u64 = 5_000;

/// Milliseconds for which traces are written anew up to the same cut.
const CUT_LASTS: u64 = 1_000;

/// A line through what is on disk: traces can be written anew up to it once all before it is in the buffer.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// The number of the last record before it, in whatever shard.
    upto: u64,
    /// When it was made, or shortly before, in milliseconds.
    time: u64,
}

/// What one task does, tick by tick.
pub(in crate::tail_sampling) struct Keeper {
    durable: Arc<Durable>,
    sampler: Arc<Sampler>,
    clock: Arc<dyn Clock>,
    /// The floor at the last tick: all decisions that are not written down were made since.
    floor: u64,
    released: u64,
    cut: Option<Cut>,
    /// Where the search for old traces goes on, by shard.
    cursors: Vec<u32>,
}

impl Keeper {
    pub(in crate::tail_sampling) fn new(durable: Arc<Durable>, sampler: Arc<Sampler>, clock: Arc<dyn Clock>) -> Self {
        let cursors = vec![0; sampler.shards()];
        Self { durable, sampler, clock, floor: 0, released: 0, cut: None, cursors }
    }

    /// One tick.
    pub(in crate::tail_sampling) async fn tick(&mut self) {
        let durable = Arc::clone(&self.durable);
        // In this order: what is asked first may be older, never newer.
        let floor = durable.floor();
        let time = millis(&*self.clock) + 1;
        durable.marks.lock().add(time, floor);
        let mut notes = Vec::new();
        let mut oldest: Option<u64> = None;
        let mut live = 0;
        for shard in 0..self.sampler.shards() {
            self.sampler.visit(shard, |shard| {
                let since = shard.take_notes(&mut notes);
                live += shard.live_bytes();
                oldest = earlier(oldest, since);
            });
        }
        oldest = earlier(oldest, durable.away.lock().first_key_value().map(|(since, _)| *since));

        // A decision was made after the last tick, so all up to its floor had been seen.
        let upto = mem::replace(&mut self.floor, floor);
        durable.write(upto, &notes, &*self.clock).await;
        let low = oldest.map_or(floor, |oldest| durable.marks.lock().below(oldest).min(floor));
        if low > self.released {
            durable.log.release_before(low + 1);
            self.released = low;
        }
        let used = durable.log.usage().bytes;
        durable.metrics.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        if let Some(oldest) = oldest
            && oldest + YOUNG < time
            && is_wasteful(used, live, durable.log.check_room(used / 4).is_err())
        {
            // The oldest part: of what is there least is needed.
            let before = oldest + ((time - oldest) / 8).max(TICK.as_millis() as u64 * 2);
            self.rewrite(before, time, floor).await;
        }
    }

    /// Writes the traces anew that need what came before `before`, once all up to the cut is in the buffer; `floor` is the
    /// floor at `time`.
    pub(super) async fn rewrite(&mut self, before: u64, time: u64, floor: u64) {
        if let Some(cut) = self.cut.filter(|cut| cut.upto <= floor) {
            self.write_anew(before, cut).await;
        }
        if self.cut.is_none_or(|cut| cut.upto <= floor && cut.time + CUT_LASTS < time) {
            self.make_cut(time);
        }
    }

    /// At `time` or later.
    fn make_cut(&mut self, time: u64) {
        let durable = Arc::clone(&self.durable);
        let cuts = (0..self.sampler.shards())
            .filter_map(|shard| self.sampler.visit(shard, |shard| shard.cut(|| durable.seen())));
        self.cut = cuts.max().map(|upto| Cut { upto, time });
    }

    /// Writes the traces anew that need what came before `before` and before the cut, up to the cut.
    async fn write_anew(&mut self, before: u64, cut: Cut) {
        // What a trace needs from then on, no mark that is older lets go: its floor is before the cut.
        let before = before.min(cut.time);
        let shards = self.sampler.shards();
        let durable = Arc::clone(&self.durable);
        let now = self.clock.now();
        let wall = self.clock.unix_nanos();
        for shard in 0..shards {
            let Some(cursor) = self.cursors.get_mut(shard) else { continue };
            let found = self.sampler.visit(shard, |shard| shard.write_anew(before, ANEW / shards, cursor));
            for trace in found.unwrap_or_default() {
                let age = now.as_nanos() as u64 - (trace.arrival * 1_000_000).min(now.as_nanos() as u64);
                let message = trace.message.clone().into();
                let spans = Spans { upto: trace.upto, id: trace.id, last_seen: trace.last_seen, message };
                let arrival = wall.saturating_sub(age);
                let appended =
                    durable.log.append(record::SPANS, trace.spans, arrival, record::encode_spans(&spans)).await;
                // If there is no room, the old place is as good.
                let Ok(position) = appended else { return };
                durable.intake.lock().see(position.sequence);
                durable.metrics.anew.inc_by(u64::from(trace.spans));
                self.sampler.visit(shard, |shard| shard.written_anew(&trace, cut.time));
            }
        }
    }
}

/// Is most of what the log holds dead?
fn is_wasteful(used: u64, live: u64, is_short: bool) -> bool {
    used > 2 * live + SMALL || is_short && used > live + live / 2
}

fn earlier(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    one.into_iter().chain(two).min()
}

fn millis(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now().as_millis()).unwrap_or(u64::MAX)
}
