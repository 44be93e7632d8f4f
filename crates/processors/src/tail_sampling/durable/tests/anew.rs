//! Traces that are written anew, and what else happens to them meanwhile.

use super::*;
use crate::tail_sampling::tests::support::child;

/// A child span with an id of its own.
fn numbered_child(id: Id, number: u64) -> Span {
    Span { span_id: number.to_be_bytes().to_vec(), ..child(id) }
}

/// Scenario: a trace gets spans all the time, before and after each tick, and with every tick there is a request that is in the
/// log and not yet in the buffer, while others come and go. Guarantee: the trace is written anew although it grows, the log
/// stays small, and after a crash every span of it is there once.
#[tokio::test]
async fn a_trace_that_grows_while_it_is_written_anew_comes_back_once() {
    for compression in ["", "compression: lz4, compression_delay: 0s,"] {
        let yaml = &format!(
            "{{decision_wait: 1h, decision_wait_after_root_received: 1s, memory_limit_mib: 64, num_shards: 2, \
             storage: file_storage, {compression} rules: [{{name: all, sampling_percentage: 100}}]}}"
        );
        let disk = FaultyDisk::new(2);
        // It counts as full, and is cut into segments of 256 KiB.
        let options = options(Fsync::None, 4 << 20);
        let clock = ManualClock::new(EPOCH);
        let long = id_of(1);
        let mut spans = 0..;
        let mut span_of_long = || numbered_child(long, spans.next().unwrap());
        let mut life = Life::begin(&disk, &options, &clock, yaml).await;
        for number in 0..300 {
            life.insert((0..40).map(|_| large_span(id_of(100 + number), 2000)).collect()).await.unwrap();
            clock.advance(Duration::from_secs(10));
            life.decide();
            life.deliver().await;

            life.insert(vec![span_of_long()]).await.unwrap();
            let durable = Arc::clone(&life.durable);
            let mut late = Life::batch(vec![span_of_long()]);
            let stored = durable.store(&mut late, &[], &*life.clock).await.unwrap();
            life.insert(vec![span_of_long()]).await.unwrap();
            life.keeper.tick().await;
            life.insert(vec![span_of_long()]).await.unwrap();
            life.take_in(&mut late, &stored).unwrap();
            drop(stored);
            assert!(durable.log.usage().bytes < 7 << 19, "{:?}", durable.log.usage());
        }
        assert!(life.durable.metrics.anew.get() > 300, "{} spans were written anew", life.durable.metrics.anew.get());
        life.crash(&disk, false).await;

        let life = Life::begin(&disk, &options, &clock, yaml).await;
        assert_eq!(life.restored, 1200, "every span of it, once");
        clock.advance(Duration::from_secs(3600));
        life.decide();
        let mut ids = BTreeSet::new();
        while let Some(out) = life.take() {
            let batch = out.batch().into_wire();
            ids.extend(read(&batch).into_iter().map(|kept| kept.span.span_id));
            out.accepted();
        }
        assert_eq!(ids.len(), 1200);
    }
}

/// Scenario: when a trace has been copied to be written anew, and before that is in the log, the next stage gets it; or it gets
/// spans more after that. Guarantee: after a crash only what came after the delivery comes back.
#[tokio::test]
async fn a_trace_that_is_delivered_while_it_is_written_anew_does_not_come_back() {
    for more in [0, 2] {
        let disk = FaultyDisk::new(3);
        let options = options(Fsync::None, 0);
        let clock = ManualClock::new(EPOCH);
        let id = id_of(1);
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        life.insert(vec![error(id), error(id)]).await.unwrap();
        let mut copies = Vec::new();
        for shard in 0..life.sampler.shards() {
            life.sampler.visit(shard, |shard| shard.cut(|| life.durable.seen()));
            let found = life.sampler.visit(shard, |shard| shard.write_anew(u64::MAX, 1 << 20, &mut 0));
            copies.extend(found.unwrap());
        }
        clock.advance(Duration::from_secs(10));
        life.decide();
        assert_eq!(life.deliver().await, BTreeMap::from([(id, 2)]));
        let [copy] = <[_; 1]>::try_from(copies).unwrap();
        let spans = record::Spans { upto: copy.upto, id, last_seen: copy.last_seen, message: copy.message.into() };
        life.durable.log.append(record::SPANS, 2, EPOCH, record::encode_spans(&spans)).await.unwrap();
        for _ in 0..more {
            life.insert(vec![error(id)]).await.unwrap();
        }
        life.crash(&disk, false).await;
        let life = Life::begin(&disk, &options, &clock, RULES).await;
        assert_eq!(life.restored, more);
    }
}

/// Scenario: records of a trace are moved within the buffer, to give the memory of others back, between cuts and after them.
/// Guarantee: the copy has what came before the last cut, wherever it is now, and nothing else.
#[tokio::test]
async fn a_record_stays_on_its_side_of_the_cut_when_it_is_moved() {
    let yaml = "{decision_wait: 1h, decision_wait_after_root_received: 1s, memory_limit_mib: 8, num_shards: 1, \
                storage: file_storage, rules: [{name: none, sampling_percentage: 0}]}";
    let disk = FaultyDisk::new(5);
    let clock = ManualClock::new(EPOCH);
    let life = Life::begin(&disk, &options(Fsync::None, 0), &clock, yaml).await;
    let long = id_of(1);
    let short = std::cell::Cell::new(100);
    let cut = || life.sampler.visit(0, |shard| shard.cut(|| life.durable.seen())).unwrap();
    let copy = || {
        let mut copies = life.sampler.visit(0, |shard| shard.write_anew(u64::MAX, 1 << 20, &mut 0)).unwrap();
        let ids = |message: &[u8]| read(message).iter().map(|kept| kept.span.span_id[7]).collect::<BTreeSet<u8>>();
        copies.pop().map(|copy| (copy.upto, ids(&copy.message))).unwrap()
    };
    // Many blocks of traces that go at once: what else is in these is moved to the end.
    let move_all = async || {
        for _ in 0..40 {
            short.set(short.get() + 1);
            life.insert((0..20).map(|_| large_span(id_of(short.get()), 1000)).collect()).await.unwrap();
            clock.advance(Duration::from_secs(2));
            life.decide();
        }
    };
    let insert = async |number| life.insert(vec![numbered_child(long, number)]).await.unwrap();
    insert(1).await;
    cut();
    insert(2).await;
    assert_eq!(copy().1, BTreeSet::from([1]));
    move_all().await;
    assert_eq!(copy().1, BTreeSet::from([1]), "2 is where it was not, and still behind the cut");
    let second = cut();
    insert(3).await;
    assert_eq!(copy(), (second, BTreeSet::from([1, 2])));
    move_all().await;
    insert(4).await;
    assert_eq!(copy(), (second, BTreeSet::from([1, 2])));
    move_all().await;
    assert_eq!(copy(), (second, BTreeSet::from([1, 2])));
    cut();
    assert_eq!(copy().1, BTreeSet::from([1, 2, 3, 4]));
}
