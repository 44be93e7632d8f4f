//! Random actions over a disk that fails, beside a model.

use super::*;

/// What the model knows.
#[derive(Default)]
struct Model {
    /// Spans that were acknowledged, of traces that the rules keep.
    owed: BTreeSet<[u8; 8]>,
    /// Spans of other traces, and spans that were refused.
    unwanted: BTreeSet<[u8; 8]>,
    delivered: BTreeMap<[u8; 8], usize>,
    /// Spans that may come again.
    in_flight: BTreeSet<[u8; 8]>,
    /// The record of each span.
    records: BTreeMap<[u8; 8], u64>,
}

fn span_ids(batch: Batch) -> Vec<[u8; 8]> {
    let data = TracesData::decode(batch.into_wire()).unwrap();
    let scopes = data.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.span_id.try_into().unwrap()).collect()
}

/// Random inserts, refusals, decisions, deliveries, ticks, traces written anew, writes that fail, and crashes, some in the middle of a
/// write. Guarantee: of traces that the rules keep, every acknowledged span is delivered in the end; what
/// comes twice was in flight in a crash; nothing else is delivered.
#[tokio::test]
async fn no_acknowledged_span_of_a_kept_trace_is_lost() {
    const TRACES: u64 = 600;
    let kept = kept_traces(TRACES);
    let (mut restored, mut rewritten) = (0, 0);
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let power_cuts = seed % 3 == 0;
        let fsync = if power_cuts { Fsync::Always } else { Fsync::None };
        let options = options(fsync, if seed % 4 == 0 { 96 << 10 } else { 0 });
        let disk = FaultyDisk::new(seed);
        let clock = ManualClock::new(EPOCH);
        let mut model = Model::default();
        let mut first = 0;
        // Of what a power cut or a failed write leaves, the latest releases may be missing, of any records.
        let mut may_forget = power_cuts;
        for _ in 0..4 {
            let mut life = Life::begin(&disk, &options, &clock, RULES).await;
            restored += life.restored;
            if random.random_ratio(1, 3) {
                disk.set_faults(Faults { short_write: 20, no_space: 10, ..Faults::default() });
            }
            if random.random_ratio(1, 3) {
                let left = random.random_range(100..30_000);
                disk.set_faults(Faults { die_after: Some(left), ..Faults::default() });
            }
            let durable = Arc::clone(&life.durable);
            let mut written: Vec<(Batch, Stored<'_>)> = Vec::new();
            let mut away: Vec<(Outgoing, u64)> = Vec::new();
            for _ in 0..random.random_range(20..120) {
                match random.random_range(0..13) {
                    0..4 => {
                        first = (first + random.random_range(0..4)).min(TRACES - 10);
                        let count = random.random_range(1..5);
                        let numbers: Vec<u64> = (0..count).map(|_| first + random.random_range(0..10)).collect();
                        let mut batch =
                            Life::batch(numbers.into_iter().map(|number| numbered(&mut random, number)).collect());
                        let ids = span_ids(batch.clone());
                        let traces = read(batch.wire());
                        if let Ok(stored) = durable.store(&mut batch, &[], &*life.clock).await {
                            let sequence = stored.sequence.unwrap();
                            for (id, span) in ids.iter().zip(&traces) {
                                model.records.insert(*id, sequence);
                                let owed = kept.contains(&span.id());
                                _ = if owed { model.owed.insert(*id) } else { model.unwanted.insert(*id) };
                            }
                            written.push((batch, stored));
                        } else {
                            model.in_flight.extend(ids);
                        }
                    }
                    4..7 if !written.is_empty() => {
                        let (mut batch, stored) = written.swap_remove(random.random_range(0..written.len()));
                        if random.random_ratio(1, 20) {
                            // Refused: nobody is owed anything, and nobody minds if it comes after a crash.
                            let ids = span_ids(batch.clone());
                            for id in ids {
                                model.owed.remove(&id);
                                model.in_flight.insert(id);
                            }
                            stored.refused();
                        } else {
                            life.take_in(&mut batch, &stored).unwrap();
                            drop(stored);
                        }
                    }
                    7 => clock.advance(Duration::from_millis(random.random_range(0..3000))),
                    8 => life.decide(),
                    9 => {
                        let upto = life.durable.floor();
                        if let Some(out) = life.take() {
                            for id in span_ids(out.batch()) {
                                *model.delivered.entry(id).or_default() += 1;
                            }
                            away.push((out, upto));
                        }
                    }
                    10 if !away.is_empty() => {
                        let (mut out, upto) = away.swap_remove(random.random_range(0..away.len()));
                        let ids = span_ids(out.batch());
                        let failed = life.durable.metrics.failed.get();
                        out.write_down(&*life.clock).await;
                        let is_written = life.durable.metrics.failed.get() == failed;
                        let again = |id: &&[u8; 8]| model.records.get(*id).is_none_or(|record| *record > upto);
                        let may_come: Vec<_> = ids.iter().filter(|id| !is_written || again(id)).copied().collect();
                        model.in_flight.extend(may_come);
                        out.accepted();
                    }
                    11 => {
                        // Traces are written anew that never hold the log back for long enough to be.
                        let (now, floor) = (life.clock.now().as_millis() as u64 + 1, life.durable.floor());
                        life.keeper.rewrite(u64::MAX, now, floor).await;
                    }
                    _ => life.keeper.tick().await,
                }
            }
            rewritten += life.durable.metrics.anew.get();
            for (out, _) in away {
                model.in_flight.extend(span_ids(out.batch()));
            }
            drop(written);
            may_forget |= life.durable.log.usage().failed_writes > 0;
            assert!(life.sampler.peak_memory() <= life.sampler.memory_limit());
            life.crash(&disk, power_cuts).await;
            if random.random() {
                clock.advance(Duration::from_secs(random.random_range(0..20)));
            }
        }

        let mut life = Life::begin(&disk, &options, &clock, RULES).await;
        restored += life.restored;
        clock.advance(Duration::from_secs(20));
        life.decide();
        while let Some(mut out) = life.take() {
            for id in span_ids(out.batch()) {
                *model.delivered.entry(id).or_default() += 1;
            }
            out.write_down(&*life.clock).await;
            out.accepted();
        }
        for _ in 0..2 {
            clock.advance(Duration::from_secs(1));
            life.keeper.tick().await;
        }
        life.durable.log.close().await;
        assert_eq!(life.durable.log.usage().records, 0, "seed {seed}: nothing is needed any more");

        let missing: Vec<_> = model.owed.iter().filter(|id| !model.delivered.contains_key(*id)).collect();
        assert!(missing.is_empty(), "seed {seed}: {} of {} are lost", missing.len(), model.owed.len());
        for (id, times) in &model.delivered {
            let again = *times > 1 && !model.in_flight.contains(id);
            assert!(!again || may_forget, "seed {seed}: a span came {times} times");
            assert!(!model.unwanted.contains(id), "seed {seed}: a span that the rules do not keep");
        }
    }
    assert!(restored > 500, "{restored}");
    assert!(rewritten > 500, "{rewritten}");
}
