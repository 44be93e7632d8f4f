use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nyquist_core::batch::{Batch, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Extensions, Processor, ProcessorConfig};
use nyquist_core::telemetry::Telemetry;

use super::limiter::Limits;
use super::memory::{Linux, MemorySource};
use super::*;
use crate::test_util::{self, Sink, config, errors};

const MIB: u64 = 1 << 20;

struct Gauge(Arc<AtomicU64>);

impl MemorySource for Gauge {
    fn used(&self) -> Result<u64, String> {
        Ok(self.0.load(Ordering::SeqCst))
    }

    fn total(&self) -> Result<u64, String> {
        Ok(1000 * MIB)
    }
}

struct Tested {
    used: Arc<AtomicU64>,
    limiter: Arc<dyn Processor>,
    telemetry: Arc<Telemetry>,
    sink: Arc<Sink>,
}

fn build(yaml: &str) -> Tested {
    let used = Arc::new(AtomicU64::new(0));
    let telemetry = Telemetry::new();
    let sink = Arc::new(Sink::default());
    let config: MemoryLimiterConfig = config(yaml);
    let shared = config.limiter("tested", &telemetry, Box::new(Gauge(Arc::clone(&used)))).unwrap();
    config.shared.set(shared).unwrap();
    let extensions = Extensions::default();
    let clock = Arc::new(SystemClock::default());
    let context = test_util::context(Signal::Traces, Arc::clone(&sink) as _, &extensions, &telemetry, clock);
    Tested { used, limiter: config.build(context).unwrap(), telemetry, sink }
}

fn batch() -> Batch {
    Batch::from_wire(Signal::Traces, bytes::Bytes::new(), 3)
}

#[tokio::test(start_paused = true)]
async fn refuses_from_the_soft_limit_until_memory_is_back_below_it_with_hysteresis() {
    // Soft limit 80 MiB; it resumes below 77.5 MiB.
    let tested = build("{check_interval: 1s, limit_mib: 100}");
    tested.limiter.start(&test_util::host(&tested.telemetry, None)).await.unwrap();
    let next_check = || tokio::time::sleep(Duration::from_millis(1100));

    tested.used.store(79 * MIB, Ordering::SeqCst);
    next_check().await;
    tested.limiter.consume(batch()).await.unwrap();

    tested.used.store(80 * MIB, Ordering::SeqCst);
    next_check().await;
    let refusal = tested.limiter.consume(batch()).await.unwrap_err();
    assert!(refusal.is_retryable());
    assert_eq!(refusal.message(), "data refused due to high memory usage");

    tested.used.store(78 * MIB, Ordering::SeqCst);
    next_check().await;
    assert!(tested.limiter.consume(batch()).await.is_err());

    tested.used.store(77 * MIB, Ordering::SeqCst);
    next_check().await;
    tested.limiter.consume(batch()).await.unwrap();

    assert_eq!(tested.sink.take().len(), 2);
    let metrics = tested.telemetry.render("");
    assert!(metrics.contains("otelcol_processor_memory_limiter_accepted_spans{processor=\"tested\"} 6"), "{metrics}");
    assert!(metrics.contains("otelcol_processor_memory_limiter_refused_spans{processor=\"tested\"} 6"), "{metrics}");
    tested.limiter.shutdown(tokio::time::Instant::now()).await;
}

#[test]
fn limits_follow_the_collectors_arithmetic() {
    let limits = |yaml: &str| {
        let limits = config::<MemoryLimiterConfig>(yaml).limits(|| Ok(1000 * MIB)).unwrap();
        (limits.hard / MIB, limits.soft / MIB)
    };
    assert_eq!(limits("{check_interval: 1s, limit_mib: 100}"), (100, 80));
    assert_eq!(limits("{check_interval: 1s, limit_mib: 100, spike_limit_mib: 50}"), (100, 50));
    assert_eq!(limits("{check_interval: 1s, limit_percentage: 75, spike_limit_percentage: 20}"), (750, 550));
    assert_eq!(limits("{check_interval: 1s, limit_mib: 100, limit_percentage: 75}"), (100, 80));
    assert_eq!(Limits::new(100, 40), Limits { hard: 100, soft: 60, resume: 55 });
}

#[test]
fn garbage_collector_keys_load() {
    let config: MemoryLimiterConfig =
        config("{check_interval: 1s, limit_mib: 9, min_gc_interval_when_soft_limited: 20s}");
    assert_eq!(config.min_gc_interval_when_soft_limited.0, Duration::from_secs(20));
    let yaml = "{check_interval: 1s, limit_mib: 9, min_gc_interval_when_soft_limited: 20s}";
    let (_, findings) = nyquist_core::config::from_str::<MemoryLimiterConfig>(yaml).unwrap();
    let warnings: Vec<String> = findings.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("has no effect"), "{warnings:?}");
}

#[test]
fn errors_say_which_rule_and_both_values() {
    let cases = [
        ("{limit_mib: 100}", &["'check_interval' must be greater than zero"][..]),
        ("{check_interval: 1s}", &["'limit_mib' or 'limit_percentage' must be greater than zero"]),
        (
            "{check_interval: 1s, limit_mib: 100, spike_limit_mib: 200}",
            &["'spike_limit_mib' must be smaller than 'limit_mib'", "100", "200"],
        ),
        (
            "{check_interval: 1s, limit_percentage: 50, spike_limit_percentage: 60}",
            &["'spike_limit_percentage' must be smaller than 'limit_percentage'", "50", "60"],
        ),
        ("{check_interval: 1s, limit_percentage: 101}", &["less than or equal to hundred", "101"]),
    ];
    for (yaml, wanted) in cases {
        let errors = errors::<MemoryLimiterConfig>(yaml);
        assert_eq!(errors.len(), 1, "{yaml}: {errors:?}");
        for part in wanted {
            assert!(errors[0].contains(part), "{yaml}: {errors:?}");
        }
    }
}

/// A directory that looks like `/` to [`Linux`].
fn recorded(files: &[(&str, &str)]) -> (tempfile::TempDir, Linux) {
    let directory = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let root = directory.path().to_owned();
    (directory, Linux { root })
}

#[test]
fn the_total_is_the_lowest_limit_of_group_ancestors_and_host() {
    let host = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");
    /// What, the files of the group, the limit.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);
    let cases: [Case<'_>; 5] = [
        ("no control group", &[], 1000 * 1024),
        (
            "version 2, limit on the parent",
            &[
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/memory.max", "4096\n"),
            ],
            4096,
        ),
        ("version 2 in a container", &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "8192\n")], 8192),
        (
            "version 1",
            &[
                ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n"),
                ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2048\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
            2048,
        ),
        (
            "another namespace's path",
            &[("proc/self/cgroup", "0::/../../x\n"), ("sys/fs/cgroup/memory.max", "512\n")],
            512,
        ),
    ];
    for (name, files, expected) in cases {
        let (_directory, linux) = recorded(&[&[host], files].concat());
        assert_eq!(linux.total().unwrap(), expected, "{name}");
    }
}

#[test]
fn use_is_what_cannot_be_given_back() {
    let (_directory, linux) = recorded(&[("proc/self/status", "Name: x\nVmRSS:\t 20 kB\nRssAnon:\t  12 kB\n")]);
    assert_eq!(linux.used().unwrap(), 12 * 1024);
    assert!(Linux::default().used().unwrap() > 0);
}

/// Scenario: control groups of both versions, by themselves and in a container; one that is shared; one that does
/// not say. Guarantee: where the process is alone, its use is what the kernel charges the group with and could not take
/// back; else its own anonymous memory.
#[test]
fn use_is_that_of_the_control_group_if_the_process_is_alone_in_it() {
    let own = format!("{}\n", std::process::id());
    let shared = format!("1\n{own}");
    let v2 = "anon 600\ninactive_file 100\nactive_file 30\nslab 5\n";
    let v1 = "cache 7\ninactive_file 1\ntotal_inactive_file 200\ntotal_active_file 20\n";
    const RSS: u64 = 12 * 1024;
    /// What, the group's path, its folder, its files, the use.
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], u64);
    let cases: [Case<'_>; 7] = [
        (
            "version 2",
            "0::/a\n",
            "sys/fs/cgroup/a",
            &[("cgroup.procs", &own), ("memory.current", "1000\n"), ("memory.stat", v2)],
            870,
        ),
        (
            "version 2 in a container",
            "0::/../x\n",
            "sys/fs/cgroup",
            &[("cgroup.procs", &own), ("memory.current", "1000\n"), ("memory.stat", v2)],
            870,
        ),
        (
            "version 1 in a container, beside version 2",
            "0::/docker/1\n4:memory:/docker/1\n",
            "sys/fs/cgroup/memory",
            &[("cgroup.procs", &own), ("memory.usage_in_bytes", "1000\n"), ("memory.stat", v1)],
            780,
        ),
        (
            "not alone",
            "0::/a\n",
            "sys/fs/cgroup/a",
            &[("cgroup.procs", &shared), ("memory.current", "1000\n"), ("memory.stat", v2)],
            RSS,
        ),
        ("the host's root", "0::/\n", "sys/fs/cgroup", &[("cgroup.procs", &own), ("memory.stat", v2)], RSS),
        (
            "no account of files",
            "0::/a\n",
            "sys/fs/cgroup/a",
            &[("cgroup.procs", &own), ("memory.current", "1000\n"), ("memory.stat", "anon 5\n")],
            RSS,
        ),
        (
            "more files than memory: read at different times",
            "0::/a\n",
            "sys/fs/cgroup/a",
            &[("cgroup.procs", &own), ("memory.current", "100\n"), ("memory.stat", v2)],
            0,
        ),
    ];
    for (name, group, folder, files, expected) in cases {
        let mut all = vec![
            ("proc/self/status".to_owned(), "VmRSS: 20 kB\nRssAnon: 12 kB\n"),
            ("proc/self/cgroup".to_owned(), group),
        ];
        all.extend(files.iter().map(|(file, content)| (format!("{folder}/{file}"), *content)));
        let all: Vec<(&str, &str)> = all.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        let (_directory, linux) = recorded(&all);
        assert_eq!(linux.used().unwrap(), expected, "{name}");
    }
}
