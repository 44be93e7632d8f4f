//! P12: the queue on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Metadata};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Component, Extension, Extensions};
use nyquist_core::config::ComponentId;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::storage::{Error, Log, Options, Owner, Recovered, Storage};
use nyquist_core::telemetry::Entry;

use super::protocol::{Running, start_at, start_with};
use super::receiver::Receiver;
use crate::testing::*;

/// A storage extension.
#[derive(Clone)]
struct Place(PathBuf);

#[async_trait]
impl Storage for Place {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), Error> {
        assert_eq!(owner.directory_name(), "exporter_prometheus~5fremote~5fwrite__metrics");
        Log::open(&Options::new(self.0.clone())).await
    }
}

impl Component for Place {}

impl Extension for Place {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(self.clone()))
    }
}

fn in_directory(directory: &tempfile::TempDir) -> Extensions {
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(Place(directory.path().join("queue"))));
    extensions
}

async fn start(receiver: &Receiver, directory: &tempfile::TempDir, more: &str) -> Running {
    let extensions = in_directory(directory);
    let config = format!(
        "{{sending_queue: {{storage: place}}, retry_on_failure: {{initial_interval: 5ms, max_interval: 10ms, \
         max_elapsed_time: 0}}, max_samples_per_send: 3, {more}}}"
    );
    start_with(receiver, &config, &extensions).await
}

const PUSHES: i64 = 50;
/// Enough that each of the five shards, which send on their own, has some.
const SERIES: i64 = 40;

/// A point of each series.
fn all(index: i64) -> MetricsData {
    let point = |n: i64| number(index as f64, T + index, &[("n", &n.to_string())]);
    push(vec![gauge("x", "", (0..SERIES).map(point).collect())])
}

/// Scenario: the backend fails, shutdown, a new process with the backend well. Guarantee: nothing is dropped, every
/// sample arrives, each series in the order of time.
#[tokio::test]
async fn what_a_shutdown_leaves_is_sent_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (503, None, "down")).await;
    let running = start(&receiver, &directory, "").await;
    for index in 0..PUSHES {
        running.push(all(index)).await;
    }
    receiver.wait_for(|received| received.len() > 2).await;
    running.shut_down(Duration::from_secs(5)).await;
    let dropped: u64 = DropReason::ALL.iter().map(|&reason| running.ledger.dropped_count(reason)).sum();
    assert_eq!((dropped, running.ledger.held_count()), (0, PUSHES * SERIES));

    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, &directory, "").await;
    let points = PUSHES * SERIES;
    assert_eq!(running.ledger.count(Entry::Created), points as u64);
    let samples = |received: &[super::receiver::Received]| -> Vec<String> {
        let series = received.iter().flat_map(|received| received.message().timeseries);
        series.flat_map(|series| series.lines()).collect()
    };
    receiver.wait_for(|received| samples(received).len() >= points as usize).await;
    let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sample in samples(&receiver.received()) {
        let (series, sample) = sample.rsplit_once(' ').unwrap();
        arrived.entry(series.to_owned()).or_default().push(sample.to_owned());
    }
    let expected: Vec<String> = (0..PUSHES).map(|index| format!("{index}@{}", T + index)).collect();
    let in_order = (0..SERIES).map(|n| (format!(r#"x{{instance="i-1",job="shop/cart",n="{n}"}}"#), expected.clone()));
    assert_eq!(arrived, in_order.collect());
    running.shut_down(Duration::from_secs(5)).await;
    assert_eq!(running.ledger.count(Entry::Exported), points as u64);
}

/// What is on disk is OTLP with its client's metadata: after a restart it goes out as the configuration then says.
#[tokio::test]
async fn another_version_and_strategy_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (503, None, "down")).await;
    let tenants = "include_metadata_keys: [Tenant]";
    let before = start(&receiver, &directory, &format!("{tenants}, protobuf_message: prometheus.WriteRequest")).await;
    let metadata = Metadata { headers: vec![("tenant".into(), "t1".into())] };
    let data = push(vec![gauge("mem.util", "1", vec![number(0.5, T, &[])])]);
    before.push_batch(Batch::from_metrics(data).with_metadata(Arc::new(metadata))).await;
    receiver.wait_for(|received| !received.is_empty()).await;
    let sent = receiver.received().swap_remove(0);
    assert!(!sent.is_v2() && sent.message().timeseries[0].name() == "mem_util_ratio");
    before.shut_down(Duration::from_secs(5)).await;

    let receiver = Receiver::start(|_| (204, None, "")).await;
    let more = format!(
        "{tenants}, protobuf_message: io.prometheus.write.v2.Request, \
         translation_strategy: UnderscoreEscapingWithoutSuffixes"
    );
    let after = start(&receiver, &directory, &more).await;
    receiver.wait_for(|received| !received.is_empty()).await;
    let sent = receiver.received().swap_remove(0);
    assert!(sent.is_v2() && sent.message().timeseries[0].name() == "mem_util");
    assert_eq!(sent.headers["tenant"], "t1");
    after.shut_down(Duration::from_secs(5)).await;
    assert_eq!(after.ledger.count(Entry::Exported), 1);
}

/// Scenario: a resource moves from host to host, every ten pushes; the backend fails, and a new process sends what the queue
/// has kept. Guarantee: each host's `target_info` begins when the first push of it is sent, and ends as the next one begins.
#[tokio::test]
async fn target_info_is_in_order_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = "{sending_queue: {storage: place}, retry_on_failure: {initial_interval: 5ms, max_interval: 10ms, \
                  max_elapsed_time: 0}, max_samples_per_send: 3}";
    let begin = async |receiver: &Receiver| {
        start_at(receiver, config, &in_directory(&directory), Arc::new(SystemClock::default())).await
    };
    let receiver = Receiver::start(|_| (503, None, "down")).await;
    let running = begin(&receiver).await;
    for index in 0..PUSHES {
        let x = gauge("x", "", vec![number(index as f64, T + index, &[])]);
        running.push(push_from(&[SHOP, &[("host.name", &(index / 10).to_string())]].concat(), vec![x])).await;
    }
    receiver.wait_for(|received| received.len() > 2).await;
    running.shut_down(Duration::from_secs(5)).await;

    let receiver = Receiver::start(|n| (if n % 3 == 1 { 503 } else { 204 }, None, "")).await;
    let running = begin(&receiver).await;
    let lines = |received: &[super::receiver::Received]| -> Vec<String> {
        let taken = received.iter().filter(|request| request.status == 204);
        let series = taken.flat_map(|request| request.message().timeseries).flat_map(|series| series.lines());
        series.collect()
    };
    let hosts = PUSHES / 10;
    let expected = PUSHES + hosts + hosts - 1;
    receiver.wait_for(|received| lines(received).len() >= expected as usize).await;
    let arrived = lines(&receiver.received());
    assert_eq!(arrived.len(), expected as usize, "{arrived:#?}");
    for host in 0..hosts {
        let series = format!(r#"target_info{{host_name="{host}",instance="i-1",job="shop/cart"}}"#);
        let of_host = arrived.iter().filter_map(|line| line.strip_prefix(&series)).collect::<Vec<_>>();
        let (first, end) = (format!(" 1@{}", T + 10 * host), format!(" stale@{}", T + 10 * host + 10));
        let all = [first.as_str(), end.as_str()];
        assert_eq!(of_host, all[..if host + 1 < hosts { 2 } else { 1 }], "{arrived:#?}");
    }
    running.shut_down(Duration::from_secs(5)).await;
    assert_eq!(running.ledger.count(Entry::Exported), PUSHES as u64);
}
