//! P12: the queue on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Metadata};
use nyquist_core::component::{Component, Extension, Extensions};
use nyquist_core::config::ComponentId;
use nyquist_core::storage::{Error, Log, Options, Owner, Recovered, Storage};
use nyquist_core::telemetry::Entry;

use super::protocol::{Running, one, start_with};
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

async fn start(receiver: &Receiver, directory: &tempfile::TempDir, more: &str) -> Running {
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(Place(directory.path().join("queue"))));
    let config = format!(
        "{{sending_queue: {{storage: place}}, retry_on_failure: {{initial_interval: 5ms, max_interval: 10ms, \
         max_elapsed_time: 0}}, max_samples_per_send: 3, {more}}}"
    );
    start_with(receiver, &config, &extensions).await
}

const PUSHES: i64 = 50;

/// Scenario: the backend fails, shutdown, a new process with the backend well. Guarantee: nothing is dropped, every
/// sample arrives, each series in the order of time.
#[tokio::test]
async fn what_a_shutdown_leaves_is_sent_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_| (503, None, "down")).await;
    let running = start(&receiver, &directory, "").await;
    for index in 0..PUSHES {
        running.push(one(index as f64, T + index)).await;
    }
    receiver.wait_for(|received| received.len() > 2).await;
    running.shut_down(Duration::from_secs(5)).await;
    let dropped: u64 = DropReason::ALL.iter().map(|&reason| running.ledger.dropped_count(reason)).sum();
    assert_eq!((dropped, running.ledger.held_count()), (0, PUSHES));

    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, &directory, "").await;
    assert_eq!(running.ledger.count(Entry::Created), PUSHES as u64);
    let samples = |received: &[super::receiver::Received]| -> Vec<String> {
        let series = received.iter().flat_map(|received| received.message().timeseries);
        series.flat_map(|series| series.lines()).collect()
    };
    receiver.wait_for(|received| samples(received).len() >= PUSHES as usize).await;
    let expected: Vec<String> =
        (0..PUSHES).map(|index| format!(r#"x{{instance="i-1",job="shop/cart"}} {index}@{}"#, T + index)).collect();
    assert_eq!(samples(&receiver.received()), expected);
    running.shut_down(Duration::from_secs(5)).await;
    assert_eq!(running.ledger.count(Entry::Exported), PUSHES as u64);
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
