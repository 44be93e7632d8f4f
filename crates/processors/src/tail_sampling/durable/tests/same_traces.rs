//! The ordered composite sampler on 100,000 traces, over a restart.

use super::*;
use crate::tail_sampling::tests::support::{attribute, child, text};

const COMPOSITE: &str = "
decision_wait: 10s
memory_limit_mib: 512
record: none
storage: file_storage
rules:
  - name: important
    sampling_percentage: 100
    when: {any: [{attribute: {key: user.id, values: [u1, u2]}}, {span_name: {values: [POST /pay]}}]}
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - {name: default, sampling_percentage: 5}
";

/// A span that makes its trace one of a class, and the part of that class that is kept.
fn of_class(class: u32, id: Id) -> (Span, f64) {
    let mut one = span(id);
    match class {
        0 => one.attributes.push(attribute("user.id", text("u1"))),
        1 => one.name = "POST /pay".to_owned(),
        2 => one = failed(one),
        3 => one.attributes.push(attribute("error", text("true"))),
        4 => one.end_time_unix_nano = one.start_time_unix_nano + 1_500_000_000,
        _ => return (one, 0.05),
    }
    (one, if class == 4 { 0.5 } else { 1.0 })
}

/// Scenario: traces of two spans; the process is killed between the first and the second, which says of every other
/// trace what class it is of. Guarantee: with 1 shard and with 8, compressed or not, exactly those are kept that the rules keep by
/// their words, whole, and each class at its rate within four deviations.
#[tokio::test]
async fn the_composite_sampler_keeps_the_same_traces_over_a_restart() {
    const TRACES: usize = 100_000;
    let mut random = SmallRng::seed_from_u64(23);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut expected: BTreeMap<Id, usize> = BTreeMap::new();
    let mut by_rate: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    for index in 0..TRACES {
        let id: Id = random.random();
        let class = if random.random_ratio(2, 5) { random.random_range(0..5) } else { 5 };
        let (telling, rate) = of_class(class, id);
        let (first, second) = if index % 2 == 0 { (telling, child(id)) } else { (child(id), telling) };
        before.push(first);
        after.push(second);
        let mut low = [0; 8];
        low[1..].copy_from_slice(&id[9..]);
        let is_kept = u64::from_be_bytes(low) as f64 / (1u64 << 56) as f64 >= 1.0 - rate;
        let counts = by_rate.entry((rate * 100.0) as u64).or_default();
        counts[0] += 1.0;
        if is_kept {
            expected.insert(id, 2);
            counts[1] += 1.0;
        }
    }
    for (percent, [all, kept]) in by_rate {
        let rate = percent as f64 / 100.0;
        let deviation = (all * rate * (1.0 - rate)).sqrt();
        assert!((kept - all * rate).abs() <= 4.0 * deviation, "{percent} %: {kept} of {all}");
    }
    let options = options(Fsync::None, 0);
    for (shards, compression) in [(1, "none"), (8, "none"), (1, "zstd"), (8, "lz4")] {
        let mut yaml = format!("{COMPOSITE}\nnum_shards: {shards}\ncompression: {compression}");
        if compression != "none" {
            yaml.push_str("\ncompression_delay: 0s");
        }
        let disk = FaultyDisk::new(3);
        let clock = ManualClock::new(EPOCH);
        let life = Life::begin(&disk, &options, &clock, &yaml).await;
        for chunk in before.chunks(1000) {
            life.insert(chunk.to_vec()).await.unwrap();
        }
        life.crash(&disk, false).await;

        let life = Life::begin(&disk, &options, &clock, &yaml).await;
        assert_eq!((life.restored, life.sampler.pending()), (TRACES, TRACES));
        let before = life.sampler.memory();
        life.decide();
        assert!(compression == "none" || life.sampler.memory() < before, "{shards} shards, {compression}");
        for chunk in after.chunks(1000) {
            life.insert(chunk.to_vec()).await.unwrap();
        }
        clock.advance(Duration::from_secs(11));
        life.decide();
        life.decide();
        assert!(life.deliver().await == expected, "{shards} shards, {compression}");
    }
}
