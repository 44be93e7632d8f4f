//! What was decided, and why, can be told after a restart.

use super::*;
use crate::tail_sampling::tests::support::{text, value};

/// What is remembered of a decision by `rule` at its `rate`, in percent.
fn remembered(kept: bool, trigger: &str, rule: &str, (rate, threshold): (f64, &str)) -> Option<Remembered> {
    Some(Remembered {
        kept,
        rule: Some(rule.to_owned()),
        sub_policy: None,
        rules_changed: false,
        trigger: Some(trigger.to_owned()),
        sampling_percentage: Some(rate),
        threshold: Some(threshold.to_owned()),
    })
}

/// Scenario: a trace that is kept, one that is not, one that waits; then a restart. Guarantee: what became of them can
/// still be told: of decisions the rule, the rate and the trigger; with other rules, the trigger.
#[tokio::test]
async fn decisions_can_be_told_after_a_restart() {
    let disk = FaultyDisk::new(4);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let (kept, dropped, young, never) = (id_of(201), rejected(), id_of(203), id_of(204));
    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    life.insert(vec![error(kept), span(dropped)]).await.unwrap();
    life.insert(vec![error(young)]).await.unwrap();
    clock.advance(Duration::from_secs(3));
    life.insert(vec![error(young)]).await.unwrap();
    clock.advance(Duration::from_secs(2));
    life.decide();
    life.deliver().await;
    life.keeper.tick().await;
    life.crash(&disk, false).await;

    let mut life = Life::begin(&disk, &options, &clock, RULES).await;
    let status = |life: &Life| [kept, dropped, never].map(|id| life.told(id).status);
    assert_eq!(status(&life), [Status::Kept, Status::Dropped, Status::Unknown]);
    assert!(life.told(kept).decisions.is_empty(), "in short");
    assert_eq!(life.told(kept).remembered, remembered(true, "idle", "errors", (100.0, "00000000000000")));
    assert_eq!(life.told(dropped).remembered, remembered(false, "idle", "some", (30.0, "b3333333333334")));
    assert_eq!(life.told(young).undecided.map(|undecided| undecided.spans), Some(2));

    // Late spans follow the decision, and are no decision of their own.
    life.insert(vec![error(kept)]).await.unwrap();
    assert_eq!(life.deliver().await, BTreeMap::from([(kept, 1)]));
    life.keeper.tick().await;
    life.crash(&disk, false).await;
    let life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!(life.told(kept).remembered, remembered(true, "idle", "errors", (100.0, "00000000000000")));
    life.crash(&disk, false).await;

    let others = RULES.replace("name: errors", "name: failed");
    let life = Life::begin(&disk, &options, &clock, &others).await;
    assert_eq!(status(&life), [Status::Kept, Status::Dropped, Status::Unknown]);
    let told = life.told(dropped).remembered.unwrap();
    assert_eq!((told.rule, told.sampling_percentage, told.threshold), (None, None, None), "of rules that are gone");
    assert_eq!((told.rules_changed, told.trigger.as_deref()), (true, Some("idle")));
}

/// Scenario: a trace reaches its span limit and is kept; the process dies before the next stage has it. Guarantee: it
/// leaves after the restart with the trigger that decided it.
#[tokio::test]
async fn a_restored_trace_says_what_decided_it() {
    let disk = FaultyDisk::new(6);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let yaml = format!("{RULES}span_limit: 2");
    let id = id_of(7);
    let mut life = Life::begin(&disk, &options, &clock, &yaml).await;
    life.insert(vec![error(id), error(id)]).await.unwrap();
    life.keeper.tick().await;
    life.crash(&disk, false).await;

    let life = Life::begin(&disk, &options, &clock, &yaml).await;
    assert_eq!((life.restored, life.sampler.pending()), (2, 0));
    let spans = read(&life.take().unwrap().batch().into_wire());
    let said = |key: &str| spans.iter().find_map(|kept| value(&kept.span.attributes, key));
    assert_eq!(said("nyquist.sampling.rule"), Some(&text("errors")));
    assert_eq!(said("nyquist.sampling.trigger"), Some(&text("spans")));
}
