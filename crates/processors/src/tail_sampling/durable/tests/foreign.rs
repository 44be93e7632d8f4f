//! Logs that this build did not write, or that are damaged.

use super::*;

/// Scenario: records that are damaged, of a kind or version that is not known, or no request. Guarantee: the
/// start goes on with the rest.
#[tokio::test]
async fn foreign_records_do_not_stop_a_start() {
    let disk = FaultyDisk::new(5);
    let options = options(Fsync::None, 0);
    let clock = ManualClock::new(EPOCH);
    let life = Life::begin(&disk, &options, &clock, RULES).await;
    let log = &life.durable.log;
    for (kind, payload) in [
        (record::OUTCOMES, &b"\x09\0\0\0junk"[..]),
        (record::SPANS, b"short"),
        (99, b"from the future"),
        (record::REQUEST, b"\xff\xff\xff no request"),
        (record::REQUEST, b""),
    ] {
        log.append(kind, 1, EPOCH, vec![bytes::Bytes::copy_from_slice(payload)]).await.unwrap();
    }
    life.insert(vec![error(id_of(1))]).await.unwrap();
    life.insert(vec![error(id_of(2))]).await.unwrap();
    life.crash(&disk, false).await;
    let name = disk.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let mut content = disk.content(&name).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    disk.put(&name, content);

    let life = Life::begin(&disk, &options, &clock, RULES).await;
    assert_eq!(life.restored, 1);
    assert_eq!(life.durable.log.usage().corrupt_records, 1);
}

/// Guarantee: what a sampler of the first version left when it was killed is read: a trace that waits, and what became
/// of three others, of which it did not write down what had triggered the decision.
#[tokio::test]
async fn the_first_version_is_read() {
    const FIRST_VERSION: &[u8] = include_bytes!("v1/00000000000000000001.seg");
    let yaml = "
decision_wait: 1h
decision_wait_after_root_received: 1s
memory_limit_mib: 8
num_shards: 2
storage: file_storage
rules:
  - {name: errors, when: {status: ERROR}, sampling_percentage: 100}
  - {name: some, sampling_percentage: 30}
";
    let disk = FaultyDisk::new(8);
    disk.put("00000000000000000001.seg", FIRST_VERSION.to_vec());
    let (options, clock) = (options(Fsync::None, 0), ManualClock::new(EPOCH));
    let life = Life::begin(&disk, &options, &clock, yaml).await;
    let usage = life.durable.log.usage();
    assert_eq!((usage.corrupt_records, usage.torn_bytes, usage.set_aside), (0, 0, 0));
    let id = |last: u8| u128::from(last).to_be_bytes();
    let by_randomness = u128::from(u64::MAX).to_be_bytes();
    let told = |id: Id| (life.told(id).status, life.told(id).remembered);
    let remembered = |kept: bool, rule: &str, rate: f64, threshold: &str| {
        let (rule, threshold) = (Some(rule.to_owned()), Some(threshold.to_owned()));
        Some(Remembered {
            kept,
            rule,
            sub_policy: None,
            rules_changed: false,
            trigger: None,
            sampling_percentage: Some(rate),
            threshold,
        })
    };
    let some = |kept| remembered(kept, "some", 30.0, "b3333333333334");
    assert_eq!(told(id(0xa)), (Status::Undecided, None));
    assert_eq!(told(id(0xb)), (Status::Kept, remembered(true, "errors", 100.0, "00000000000000")));
    assert_eq!(told(id(0xc)), (Status::Dropped, some(false)));
    assert_eq!(told(by_randomness), (Status::Kept, some(true)));
    assert_eq!(life.restored, 1);
    life.insert(vec![error(id(0xa))]).await.unwrap();
    clock.advance(Duration::from_secs(1));
    life.decide();
    assert_eq!(life.deliver().await, BTreeMap::from([(id(0xa), 2)]), "the old span and the new one");
}
