//! What the configuration may not say, and what it says where it says nothing.

use super::support::{EVERYTHING, Rig, id_of, large_span, request, secs};
use crate::tail_sampling::config::TailSamplingConfig;

fn problem(yaml: &str) -> String {
    let config: TailSamplingConfig = serde_yaml::from_str(yaml).expect("the types are right");
    match Rig::of(&config) {
        Ok(_) => String::new(),
        Err(problems) => problems,
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (yaml, expected) in [
        ("memory_limit_percentage: 95", "memory_limit_percentage: 95 is too large: at most 90"),
        ("memory_limit_mib: 64\nmemory_limit_percentage: 10", "memory_limit_percentage: memory_limit_mib and"),
        ("memory_limit_mib: 3", "memory_limit_mib: too small"),
        ("memory_limit_mib: 8\nnum_shards: 9", "num_shards: 9 shards of at least 1 MiB do not fit into"),
        ("decision_wait: 200h", "decision_wait: too long: at most 168h"),
        ("memory_limit_mib: 8\ndecision_cache: {sampled_cache_size: 1000000}", "decision_cache: these sizes take 2"),
        ("late_errors: keep\ndecision_cache: {non_sampled_cache_size: 0}", "late_errors: keep needs"),
        ("stress: {activation_percentage: 101}", "stress.activation_percentage: it has to be from 1 to 100"),
        ("stress: {activation_percentage: 50}", "stress.deactivation_percentage: 75 is not below"),
        ("compression_delay: 1s", "compression_delay: has no meaning without compression: set compression to"),
        ("hash_salt: a\npolicies: [{name: a, type: always_sample}]", "hash_salt: this belongs to rules; a policy of"),
        (
            "policies: [{name: c, type: composite, composite: {max_total_spans_per_second: 9, composite_sub_policy: [{name: a, type: always_sample}], rate_allocation: [{policy: a, percent: 101}]}}]",
            "rate_allocation.0.percent: 101 is not between 0 and 100",
        ),
        (
            "policies: [{name: c, type: composite, composite: {max_total_spans_per_second: 9, composite_sub_policy: [{name: a, type: always_sample}], rate_allocation: [{policy: a, percent: 1}, {policy: a, percent: 2}]}}]",
            "rate_allocation.1.policy: \"a\" is listed twice",
        ),
        ("stress: {sampling_percentage: -1}", "stress.sampling_percentage: it has to be from 0 to 100"),
    ] {
        let found = problem(yaml);
        assert!(found.contains(expected), "{yaml}: {found:?}");
    }
    assert_eq!(problem("stress: {}"), "");
    for codec in ["none", "lz4", "zstd"] {
        assert_eq!(problem(&format!("compression: {codec}")), "");
    }
    assert_eq!(problem("compression: lz4\ncompression_delay: 0s"), "");
    assert_eq!(problem("memory_limit_percentage: 10\nlate_errors: keep\nspan_limit: 10000"), "");
}

/// With the least that a shard may have, requests pass.
#[test]
fn the_smallest_shards_work() {
    let rig = Rig::new("memory_limit_mib: 8\nnum_shards: 8\nrules: [{name: all, sampling_percentage: 100}]");
    for number in 0..200 {
        rig.insert(&request(vec![large_span(id_of(number), 10_000)]), secs(0));
    }
    assert_eq!(rig.finish(secs(1)).len(), 200);
}

/// Past decisions, and what can be told of them, each take a sixteenth of a small budget, not more than
/// all of it.
#[test]
fn the_caches_fit_the_budget() {
    for mebibytes in [4, 16, 64, 1024] {
        let rig = Rig::new(&format!("memory_limit_mib: {mebibytes}\nrules: []"));
        let limit = rig.sampler.memory_limit();
        assert!(rig.sampler.memory() <= limit / 8 + (1 << 20), "{} of {limit}", rig.sampler.memory());
    }
}

/// What is said of a configuration that is valid.
fn warnings(yaml: &str) -> Vec<String> {
    let read = nyquist_core::config::from_str::<TailSamplingConfig>(&format!("{EVERYTHING}{yaml}"));
    let (_, diagnostics) = read.expect("the configuration is valid");
    diagnostics.warnings.iter().map(|problem| format!("{problem:?}")).collect()
}

/// Keys that are valid and change nothing are said to be so; none is where they do.
#[test]
fn keys_without_effect_are_warned_of() {
    for (yaml, key, wanted) in [
        (
            "decision_wait: 5s\ndecision_wait_after_root_received: 5s",
            "decision_wait_after_root_received",
            "over after 5s",
        ),
        ("decision_wait_after_last_span: 1m", "decision_wait_after_last_span", "over after 30s"),
        ("dry_run: true\nstress: {}", "stress", "has no effect with dry_run"),
    ] {
        let found = warnings(yaml);
        assert!(found.len() == 1 && found[0].contains(key) && found[0].contains(wanted), "{yaml}: {found:?}");
    }
    for fine in [
        "decision_wait_after_root_received: 2s\ndecision_wait_after_last_span: 29s",
        "decision_wait_after_root_received: 0s",
        "dry_run: true",
        "stress: {}",
    ] {
        assert_eq!(warnings(fine), Vec::<String>::new(), "{fine}");
    }
}

/// Blocks that are compressed only when their traces are decided are a mistake, and said to be one; the rest is silent.
#[test]
fn compression_that_comes_too_late_is_warned_of() {
    for late in ["decision_wait: 1s", "decision_wait: 1s\ncompression_delay: 1s", "compression_delay: 1m"] {
        let found = warnings(&format!("compression: lz4\n{late}"));
        assert!(found.len() == 1 && found[0].contains("there will be nothing left to compress"), "{late}: {found:?}");
    }
    for fine in
        ["decision_wait: 1s", "compression: zstd", "compression: zstd\ndecision_wait: 1s\ncompression_delay: 999ms"]
    {
        assert_eq!(warnings(fine), Vec::<String>::new(), "{fine}");
    }
}
