//! Against real gRPC servers; the list of backends is a file.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use nyquist_core::batch::{Batch, DropReason, Signal};
use nyquist_core::component::Extensions;
use nyquist_core::proto::trace::v1::{Span, TracesData};
use nyquist_core::telemetry::Entry;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;

use super::super::LoadBalancingConfig;
use super::super::ring::Ring;
use super::{attributes, resource_spans, span, trace_id, traces};
use crate::otlp::backend::{Backend, Rig, until};

/// Backends, and the file that lists those that are members.
struct Fleet {
    _directory: TempDir,
    path: PathBuf,
    backends: Vec<(Backend, SocketAddr, JoinHandle<()>)>,
}

impl Fleet {
    async fn start(count: usize) -> Self {
        Self::refusing(count, None).await
    }

    /// Of backends that refuse what has spans with this attribute.
    async fn refusing(count: usize, poison: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backends");
        let mut fleet = Self { _directory: directory, path, backends: Vec::new() };
        for _ in 0..count {
            let backend = Backend { poison, ..Backend::default() };
            let (address, server) = backend.serve("127.0.0.1:0", None).await;
            fleet.backends.push((backend, address, server));
        }
        fleet.members(&(0..count).collect::<Vec<_>>());
        fleet
    }

    fn members(&self, members: &[usize]) {
        let lines: Vec<String> = members.iter().map(|&index| self.backends[index].1.to_string()).collect();
        let new = self.path.with_extension("new");
        std::fs::write(&new, lines.join("\n")).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }

    fn kill(&self, index: usize) {
        self.backends[index].2.abort();
    }

    fn config(&self, otlp: &str, more: &str) -> LoadBalancingConfig {
        let yaml = format!(
            "{{resolver: {{file: {{path: '{}', interval: 10ms}}}}, protocol: {{otlp: {{tls: {{insecure: true}}, \
             retry_on_failure: {{initial_interval: 20ms, max_interval: 50ms}}, {otlp}}}}}, {more}}}",
            self.path.display()
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    /// The names of the spans at each backend, each time counted.
    fn spans(&self, index: usize) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (request, _) in self.backends[index].0.received.lock().iter() {
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                *counts.entry(span.name.clone()).or_default() += 1;
            }
        }
        counts
    }

    fn total(&self) -> usize {
        (0..self.backends.len()).map(|index| self.spans(index).values().sum::<usize>()).sum()
    }

    fn traces(&self, index: usize) -> HashSet<String> {
        self.spans(index).into_keys().filter_map(|name| Some(name.split_once('-')?.0.to_owned())).collect()
    }
}

fn backends(rig: &Rig) -> f64 {
    rig.metric("otelcol_loadbalancer_num_backends")
}

#[tokio::test]
async fn every_trace_is_at_one_backend_whole() {
    let fleet = Fleet::start(3).await;
    let rig = Rig::start(&fleet.config("", ""), None).await;
    for round in 1..=2 {
        rig.exporter.consume(traces(0..100, 3)).await.unwrap();
        until("all arrive", || fleet.total() == round * 300).await;
    }
    until("all are booked", || rig.ledger.held_count() == 0).await;
    let each: Vec<HashSet<String>> = (0..3).map(|index| fleet.traces(index)).collect();
    assert!(each.iter().all(|traces| traces.len() > 10), "{each:?}");
    assert_eq!(each.iter().map(HashSet::len).sum::<usize>(), 100, "no trace is at two");
    assert!((0..3).all(|index| fleet.spans(index).values().all(|&count| count == 2)));
    assert_eq!((rig.ledger.count(Entry::Accepted), rig.ledger.count(Entry::Exported)), (600, 600));
    assert_eq!(backends(&rig), 3.0);
    let page = rig.telemetry.render("_total");
    for name in [
        "otelcol_loadbalancer_num_resolutions_total{exporter=\"otlp\",resolver=\"file\",success=\"true\"}",
        "otelcol_loadbalancer_num_backend_updates_total{exporter=\"otlp\",resolver=\"file\"} 1",
        &format!(
            "otelcol_loadbalancer_backend_latency_count{{endpoint=\"{}\",exporter=\"otlp\"}} 2",
            fleet.backends[0].1
        ),
        &format!(
            "otelcol_loadbalancer_backend_outcome_total{{endpoint=\"{}\",exporter=\"otlp\",success=\"true\"}} 2",
            fleet.backends[0].1
        ),
        &format!("otelcol_exporter_sent_spans_total{{exporter=\"otlp/{}\"}}", fleet.backends[0].1),
    ] {
        assert!(page.contains(name), "{name} in\n{page}");
    }
}

/// Guarantee: pieces that wait for the same backend are sent as one request; all are there, and all are booked.
#[tokio::test]
async fn pieces_that_wait_together_are_sent_as_one() {
    let fleet = Fleet::start(3).await;
    let rig = Rig::start(&fleet.config("", ""), None).await;
    let consumed = (0..20).map(|round| rig.exporter.consume(traces(round * 100..(round + 1) * 100, 3)));
    assert!(join_all(consumed).await.iter().all(Result::is_ok));
    until("all arrive", || fleet.total() == 6000).await;
    until("all are booked", || rig.ledger.held_count() == 0).await;
    assert_eq!(rig.ledger.count(Entry::Exported), 6000);
    assert!((0..3).all(|index| fleet.spans(index).values().all(|&count| count == 1)));
    let requests: usize = fleet.backends.iter().map(|(backend, ..)| backend.received.lock().len()).sum();
    assert!(requests < 20, "{requests} requests of 60 pieces");
}

/// A span of each of these traces, which no backend takes.
fn poisoned(numbers: Range<u64>) -> Batch {
    let poisoned = |number| Span { attributes: attributes(&[("poison", "yes")]), ..span(number, 0) };
    let items = (numbers.end - numbers.start) as usize;
    let data = TracesData { resource_spans: vec![resource_spans("shop", numbers.map(poisoned).collect())] };
    Batch::from_wire(Signal::Traces, data.encode_to_vec().into(), items)
}

/// Guarantee: when a request that was made of several pieces is refused for good, each piece goes by itself, once: only
/// what is bad is dropped. With a queue in front too, where each request hears of its own pieces.
#[tokio::test]
async fn a_bad_piece_takes_no_other_down() {
    for front in ["", "sending_queue: {num_consumers: 1}"] {
        let fleet = Fleet::refusing(3, Some("poison")).await;
        let rig = Rig::start(&fleet.config("", front), None).await;
        let mut batches: Vec<Batch> = (0..20).map(|round| traces(round * 100..(round + 1) * 100, 3)).collect();
        batches.insert(7, poisoned(5000..5100));
        assert!(join_all(batches.into_iter().map(|batch| rig.exporter.consume(batch))).await.iter().all(Result::is_ok));
        until("all arrive", || fleet.total() == 6000).await;
        until("all are booked", || rig.ledger.held_count() == 0).await;
        assert!((0..3).all(|index| fleet.spans(index).values().all(|&count| count == 1)), "each once");
        assert_eq!((rig.ledger.count(Entry::Exported), rig.ledger.dropped_count(DropReason::Rejected)), (6000, 100));
        let refused: usize = fleet.backends.iter().map(|(backend, ..)| backend.refused.load(Ordering::Relaxed)).sum();
        assert!(refused > 3, "{refused} refusals: nothing was refused together");
    }
}

/// With a queue in front: what one backend refuses for good is lost, and not sent again while another one's part waits.
#[tokio::test]
async fn a_refusal_of_one_backend_is_not_that_of_another() {
    let fleet = Fleet::refusing(2, Some("poison")).await;
    let mut endpoints: Vec<(String, usize)> =
        (0..2).map(|index| (fleet.backends[index].1.to_string(), index)).collect();
    endpoints.sort();
    let ring = Ring::new(&[&endpoints[0].0, &endpoints[1].0]);
    let is_good = |number: &u64| endpoints[ring.owner(&trace_id(*number))].1 == 0;
    let spans = (0..50).map(|number| Span {
        attributes: if is_good(&number) { Vec::new() } else { attributes(&[("poison", "yes")]) },
        ..span(number, 0)
    });
    let good = (0..50).filter(is_good).count();
    let data = TracesData { resource_spans: vec![resource_spans("shop", spans.collect())] };

    fleet.kill(0);
    let forever = "retry_on_failure: {initial_interval: 20ms, max_interval: 50ms, max_elapsed_time: 0}";
    let mut config = fleet.config("", &format!("sending_queue: {{}}, {forever}"));
    config.protocol.otlp.retry_on_failure = serde_yaml::from_str("{enabled: false}").unwrap();
    let rig = Rig::start(&config, None).await;
    rig.exporter.consume(Batch::from_wire(Signal::Traces, data.encode_to_vec().into(), 50)).await.unwrap();
    let failures = format!(
        "otelcol_loadbalancer_backend_outcome{{endpoint=\"{}\",exporter=\"otlp\",success=\"false\"}}",
        fleet.backends[0].1
    );
    until("it is tried again", || rig.metric(&failures) > 3.0).await;
    assert_eq!((rig.ledger.held_count(), fleet.backends[1].0.refused.load(Ordering::Relaxed)), (50, 1));
    let (backend, address, _) = &fleet.backends[0];
    backend.serve(&address.to_string(), None).await;
    until("all are booked", || rig.ledger.held_count() == 0).await;
    assert_eq!(fleet.spans(0).len(), good);
    let rejected = rig.ledger.dropped_count(DropReason::Rejected);
    assert_eq!((rig.ledger.count(Entry::Exported), rejected), (good as u64, 50 - good as u64));
    assert_eq!(fleet.backends[1].0.refused.load(Ordering::Relaxed), 1);
}

/// An answer to a request of which these spans are not taken.
fn all_but(rejected: i64) -> Result<ExportTraceServiceResponse, Status> {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".to_owned() };
    Ok(ExportTraceServiceResponse { partial_success: Some(partial) })
}

/// Guarantee: what backends take in part is booked as that with a queue in front too, and not sent again: whether the
/// pieces went by themselves, waited and were sent as one, were merged by `batch`, or had to move from a backend that left.
#[tokio::test]
async fn what_backends_take_in_part_is_booked_as_lost() {
    let retry = "retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}";
    for (otlp, is_moved) in [("", false), ("sending_queue: {batch: {flush_timeout: 50ms}}", false), ("", true)] {
        let fleet = Fleet::start(2).await;
        if is_moved {
            fleet.kill(0);
        }
        fleet.backends.iter().for_each(|(backend, ..)| (0..100).for_each(|_| backend.answer(all_but(3))));
        let rig = Rig::start(&fleet.config(otlp, &format!("sending_queue: {{}}, {retry}")), None).await;
        let consumed = (0..10).map(|_| rig.exporter.consume(traces(0..50, 2)));
        assert!(join_all(consumed).await.iter().all(Result::is_ok));
        if is_moved {
            until("the outage is noticed", || rig.exporter.status().unwrap().last_error.is_some()).await;
            fleet.members(&[1]);
        }
        until("all are booked", || rig.ledger.held_count() == 0).await;
        assert_eq!(fleet.total(), 1000, "each once");
        let requests: usize = fleet.backends.iter().map(|(backend, ..)| backend.received.lock().len()).sum();
        let lost = 3 * requests as u64;
        assert_eq!(rig.ledger.dropped_count(DropReason::PartlyRejected), lost, "{requests} requests, {otlp}");
        assert_eq!((rig.ledger.count(Entry::Accepted), rig.ledger.count(Entry::Exported)), (1000, 1000 - lost));
    }
}

/// A backend dies with requests in its queue and in retry waits; when the resolver drops it, all of them go
/// to the others, and the account balances.
#[tokio::test]
async fn the_queue_of_a_backend_that_left_goes_to_the_others() {
    let fleet = Fleet::start(3).await;
    let mut config = fleet.config("sending_queue: {num_consumers: 2}", "");
    let hour = "{initial_interval: 1h, max_interval: 1h, max_elapsed_time: 0}";
    config.protocol.otlp.retry_on_failure = serde_yaml::from_str(hour).unwrap();
    let rig = Rig::start(&config, None).await;
    fleet.kill(1);
    for _ in 0..10 {
        rig.exporter.consume(traces(0..60, 2)).await.unwrap();
    }
    until("the outage is noticed", || rig.exporter.status().unwrap().last_error.is_some()).await;
    fleet.members(&[0, 2]);
    until("all arrive", || fleet.total() == 1200).await;
    until("all are booked", || rig.ledger.held_count() == 0).await;
    let (accepted, exported) = (rig.ledger.count(Entry::Accepted), rig.ledger.count(Entry::Exported));
    let moved = rig.ledger.count(Entry::Emitted);
    assert!(moved > 0);
    assert_eq!((accepted, exported), (1200 + moved, 1200), "nothing lost, nothing twice");
    assert_eq!(fleet.traces(0).intersection(&fleet.traces(2)).count(), 0);
    assert_eq!(backends(&rig), 2.0);
}

#[tokio::test]
async fn who_joins_gets_a_share_and_an_empty_list_changes_nothing() {
    let fleet = Fleet::start(3).await;
    fleet.members(&[0]);
    let rig = Rig::start(&fleet.config("", ""), None).await;
    rig.exporter.consume(traces(0..100, 1)).await.unwrap();
    until("all are at the first", || fleet.spans(0).len() == 100).await;
    fleet.members(&[0, 1, 2]);
    until("they are members", || backends(&rig) == 3.0).await;
    fleet.members(&[]);
    until("the empty list was read", || {
        rig.metric("otelcol_loadbalancer_num_resolutions{exporter=\"otlp\",resolver=\"file\",success=\"false\"}") > 1.0
    })
    .await;
    rig.exporter.consume(traces(100..200, 1)).await.unwrap();
    until("all arrive", || fleet.total() == 200).await;
    assert!(!fleet.traces(1).is_empty() && !fleet.traces(2).is_empty());
}

/// With `overlap`, traces that are open stay where they are when another backend joins.
#[tokio::test]
async fn open_traces_stay_with_their_owner() {
    let fleet = Fleet::start(3).await;
    fleet.members(&[0, 1]);
    let rig = Rig::start(&fleet.config("", "overlap: 1h"), None).await;
    rig.exporter.consume(traces(0..100, 1)).await.unwrap();
    until("they arrive", || fleet.total() == 100).await;
    let before = [fleet.traces(0), fleet.traces(1)];
    fleet.members(&[0, 1, 2]);
    until("it is a member", || backends(&rig) == 3.0).await;
    rig.exporter.consume(traces(0..200, 1)).await.unwrap();
    until("they arrive", || fleet.total() == 300).await;
    let open = |index: usize| {
        let of_first = |name: &String| name.parse::<u64>().unwrap() < 100;
        fleet.traces(index).into_iter().filter(of_first).collect::<HashSet<_>>()
    };
    assert_eq!([open(0), open(1)], before);
    assert!(open(2).is_empty());
    assert!(!fleet.traces(2).is_empty(), "new traces go where the ring says");
}

/// The same when there was one backend only: what went there is remembered, too.
#[tokio::test]
async fn open_traces_of_the_only_backend_stay() {
    let fleet = Fleet::start(2).await;
    fleet.members(&[0]);
    let rig = Rig::start(&fleet.config("", "overlap: 1h"), None).await;
    rig.exporter.consume(traces(0..100, 1)).await.unwrap();
    until("they arrive", || fleet.total() == 100).await;
    fleet.members(&[0, 1]);
    until("it is a member", || backends(&rig) == 2.0).await;
    rig.exporter.consume(traces(0..200, 1)).await.unwrap();
    until("they arrive", || fleet.total() == 300).await;
    let number = |name: &String| name.parse::<u64>().unwrap();
    assert!(fleet.traces(1).iter().all(|name| number(name) >= 100) && !fleet.traces(1).is_empty());
}

/// One backend's queue is full: nothing is given to the others either, so that a retry doubles nothing.
#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let fleet = Fleet::start(2).await;
    fleet.kill(0);
    let rig = Rig::start(&fleet.config("sending_queue: {queue_size: 2}", ""), None).await;
    let mut taken = 0;
    let refusal = loop {
        match rig.exporter.consume(traces(0..50, 1)).await {
            Ok(()) => taken += 50,
            Err(refusal) => break refusal,
        }
        // The healthy one must not be the full one.
        until("the healthy one is idle", || {
            fleet.spans(1).values().sum::<usize>() == fleet.spans(1).len() * taken / 50
        })
        .await;
        assert!(taken < 1000);
    };
    assert!(refusal.is_retryable() && refusal.message().contains("queue is full"), "{refusal}");
    assert_eq!(taken, 100);
    assert_eq!(rig.ledger.count(Entry::Accepted), 100);
}

#[tokio::test]
async fn nobody_there_is_a_refusal_that_says_so() {
    let fleet = Fleet::start(0).await;
    let rig = Rig::start(&fleet.config("", ""), None).await;
    let refusal = rig.exporter.consume(traces(0..1, 1)).await.unwrap_err();
    assert!(refusal.is_retryable() && refusal.message().contains("no backend is known yet"), "{refusal}");
}

/// Without queues the sender has the answers of all backends.
#[tokio::test]
async fn without_queues_the_sender_waits() {
    let fleet = Fleet::start(2).await;
    let rig = Rig::start(&fleet.config("sending_queue: {enabled: false}", ""), None).await;
    rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    assert_eq!(fleet.total(), 50, "there before the answer");
    assert_eq!((rig.ledger.count(Entry::Exported), rig.ledger.held_count()), (50, 0));
}

/// Parts go out side by side: a backend that is down keeps no other from its part, whichever of them comes first.
#[tokio::test]
async fn parts_go_out_side_by_side() {
    for dead in [0, 1] {
        let fleet = Fleet::start(2).await;
        fleet.kill(dead);
        let rig = Rig::start(&fleet.config("sending_queue: {enabled: false}", ""), None).await;
        tokio::select! {
            answer = rig.exporter.consume(traces(0..50, 1)) => panic!("one has not answered: {answer:?}"),
            () = until("the other one has its part", || !fleet.spans(1 - dead).is_empty()) => {}
        }
    }
}

/// A queue in front keeps a batch until every backend has its part; parts that are delivered are not sent
/// again, and the account is that of the front.
#[tokio::test]
async fn a_queue_in_front_waits_for_everybody() {
    let fleet = Fleet::start(2).await;
    fleet.kill(0);
    let more = "sending_queue: {num_consumers: 1}, retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}";
    let rig = Rig::start(&fleet.config("", more), None).await;
    for _ in 0..20 {
        rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    }
    let share = |index: usize| fleet.spans(index).len();
    until("the healthy one has all of its parts", || share(1) > 0 && fleet.spans(1).values().all(|&count| count == 20))
        .await;
    assert_eq!(rig.ledger.count(Entry::Exported), 0, "no request is done");
    fleet.members(&[1]);
    until("all are done", || rig.ledger.count(Entry::Exported) == 1000).await;
    assert!(fleet.spans(1).len() == 50 && fleet.spans(1).values().all(|&count| count == 20), "each once");
    assert_eq!(rig.ledger.count(Entry::Accepted), 1000);
    assert_eq!(rig.ledger.held_count(), 0);
}

#[tokio::test]
async fn a_shutdown_sends_what_is_queued_and_what_is_moving() {
    let fleet = Fleet::start(2).await;
    let rig = Rig::start(&fleet.config("sending_queue: {num_consumers: 1}", ""), None).await;
    fleet.kill(0);
    for _ in 0..10 {
        rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    }
    fleet.members(&[1]);
    until("it has left", || backends(&rig) == 1.0).await;
    rig.exporter.shutdown(tokio::time::Instant::now() + std::time::Duration::from_secs(20)).await;
    assert_eq!(fleet.total(), 500);
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.ledger.count(Entry::Exported), 500);
}

#[tokio::test]
async fn health_is_bad_when_nobody_takes_anything() {
    let fleet = Fleet::start(2).await;
    let rig = Rig::start(&fleet.config("", ""), None).await;
    fleet.kill(0);
    rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    until("the error is known", || rig.exporter.status().unwrap().last_error.is_some()).await;
    let status = rig.exporter.status().unwrap();
    assert_eq!(status.failing_since, None);
    assert!(status.last_error.unwrap().contains(&fleet.backends[0].1.to_string()));
    let down = |name: &str| {
        let parts = rig.exporter.parts();
        let of = parts.iter().find(|(part, _)| part == name).unwrap_or_else(|| panic!("{name} in {parts:?}"));
        (of.1.failing_since.is_some(), of.1.last_error.is_some())
    };
    let names: Vec<String> = fleet.backends.iter().map(|(_, address, _)| format!("backend:{address}")).collect();
    assert_eq!((down(&names[0]), down(&names[1])), ((true, true), (false, false)));
    fleet.kill(1);
    rig.exporter.consume(traces(0..50, 1)).await.unwrap();
    until("both fail", || rig.exporter.status().unwrap().failing_since.is_some()).await;
}

#[tokio::test]
async fn an_unknown_authenticator_is_told_at_the_start() {
    let fleet = Fleet::start(1).await;
    let config = fleet.config("auth: {authenticator: nobody}", "");
    assert!(std::panic::catch_unwind(|| Rig::build(&config, None, &Extensions::default())).is_err());
}
