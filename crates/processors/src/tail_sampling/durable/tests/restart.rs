//! Each trace is decided at its time, whatever happens to the process.

use super::*;

/// Scenario: traces that are not decided, one that is dropped, one that is delivered, one that is decided and
/// waits; then `kill -9`. Guarantee: after the restart each is decided when it would have been; the delivered
/// one is not sent again, late spans follow the decisions.
#[tokio::test]
async fn a_restart_goes_on_as_if_nothing_had_happened() {
    let disk = FaultyDisk::new(1);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let (delivered, waiting, dropped, young) = (id_of(101), id_of(102), rejected(), id_of(104));
    let secs = Duration::from_secs;

    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    life.insert(vec![error(delivered), error(delivered), span(dropped)]).await.unwrap();
    life.keeper.tick().await;
    clock.advance(secs(5));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(delivered, 2)]));
    life.insert(vec![error(waiting)]).await.unwrap();
    clock.advance(secs(4));
    life.decide();
    life.insert(vec![error(young)]).await.unwrap();
    life.keeper.tick().await;
    clock.advance(secs(1));
    life.keeper.tick().await;
    life.check_ledger(5, 2);
    life.crash(&disk, false).await;

    clock.advance(secs(2));
    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!(life.restored, 2);
    assert_eq!(life.deliver().await, BTreeMap::from([(waiting, 1)]), "it was decided, and is not asked again");
    life.insert(vec![span(delivered), error(dropped)]).await.unwrap();
    assert_eq!(life.deliver().await, BTreeMap::from([(delivered, 1)]), "late spans follow the decision");
    clock.advance(Duration::from_millis(990));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::new(), "its silence is not over");
    clock.advance(Duration::from_millis(20));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(young, 1)]));
    life.check_ledger(2, 3);
    clock.advance(secs(1));
    life.keeper.tick().await;
    life.keeper.tick().await;
    life.durable.log.sync().await.unwrap();
    life.crash(&disk, false).await;

    let life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!((life.restored, life.sampler.pending()), (0, 0), "nothing comes twice");
}

/// Scenario: a start reads the halves of a trace from the log, long after its time has come, while the workers
/// run. Guarantee: it is not decided on the first half.
#[tokio::test]
async fn nothing_is_decided_on_a_part_of_what_is_in_the_log() {
    let disk = FaultyDisk::new(7);
    let options = options(Fsync::None, 0);
    let yaml = &RULES.replace("memory_limit_mib: 8", "memory_limit_mib: 64");
    let clock = ManualClock::new(EPOCH);
    let life = Life::begin(&disk, &options, &clock, yaml).await;
    let id = rejected();
    // More than one chunk.
    for spans in [vec![span(id)], (0..60).map(|_| large_span(id_of(103), 100_000)).collect(), vec![error(id)]] {
        life.insert(spans).await.unwrap();
    }
    life.crash(&disk, false).await;

    clock.advance(Duration::from_secs(60));
    let life = Life::open(&disk, &options, &clock, yaml).await;
    let replay = Replay::new(Arc::clone(&life.durable), Arc::clone(&life.sampler), Arc::clone(&life.clock));
    let mut replay = std::pin::pin!(replay.run());
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        life.decide();
        replay.as_mut().poll(context).map(|restored| assert_eq!(restored.unwrap().spans, 62))
    })
    .await;
    assert!(polls > 2, "{polls}");
    life.decide();
    assert_eq!(life.deliver().await.get(&id), Some(&2));
}
