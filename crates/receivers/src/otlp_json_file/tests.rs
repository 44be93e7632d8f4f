//! Files on a real disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use nyquist_core::batch::{Batch, Refusal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Consumer, Extensions, Outputs};
use nyquist_core::config::{ByteSize, ComponentId, Duration as ConfigDuration};
use nyquist_core::otlp_json;
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::proto::trace::v1::TracesData;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;
use proptest::prelude::*;
use prost::Message;
use regex::Regex;

use super::*;

/// Keeps what comes; refuses the first `refusals` batches.
#[derive(Default)]
struct Sink {
    taken: Mutex<Vec<(Signal, Vec<u8>)>>,
    refusals: Mutex<usize>,
}

#[async_trait]
impl Consumer for Sink {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        let mut refusals = self.refusals.lock();
        if *refusals > 0 {
            *refusals -= 1;
            return Err(Refusal::retryable(None, "later"));
        }
        self.taken.lock().push((batch.signal(), batch.into_wire().to_vec()));
        Ok(())
    }
}

impl Sink {
    fn names(&self) -> Vec<String> {
        let taken = self.taken.lock();
        let spans = taken.iter().flat_map(|(_, wire)| TracesData::decode(wire.as_slice()).unwrap().resource_spans);
        let spans = spans.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        spans.map(|span| span.name).collect()
    }

    /// Waits until these spans have come, and no others.
    async fn expect(&self, names: &[&str]) {
        for _ in 0..6000 {
            if self.names().len() >= names.len() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.names(), names);
    }
}

fn line(name: &str) -> String {
    format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"5b8efff798038103d269b633813fc60c",
"spanId":"eee19b7ec3c1b174","name":"{name}"}}]}}]}}]}}"#
    )
    .replace('\n', "")
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn config(folder: &Path) -> OtlpJsonFileConfig {
    OtlpJsonFileConfig {
        include: vec![format!("{}/*.json", folder.display())],
        start_at: StartAt::Beginning,
        poll_interval: ConfigDuration::from_millis(1),
        ..OtlpJsonFileConfig::default()
    }
}

async fn start(config: OtlpJsonFileConfig) -> (Arc<dyn Receiver>, Arc<Sink>, Arc<Telemetry>) {
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let clock: Arc<dyn Clock> = ManualClock::new(0);
    let telemetry = Telemetry::new();
    let host =
        Host { runtimes: Runtimes::current(), clock: Arc::clone(&clock), telemetry: Arc::clone(&telemetry), fatal };
    let sink = Arc::new(Sink::default());
    let mut outputs = Outputs::default();
    for signal in Signal::ALL {
        outputs.set(signal, Arc::clone(&sink) as Arc<dyn Consumer>);
    }
    let context = ReceiverContext {
        id: ComponentId::of("otlp_json_file"),
        outputs,
        extensions: &Extensions::default(),
        telemetry: Arc::clone(&telemetry),
        clock,
    };
    let receiver = config.build(context).unwrap_or_else(|error| panic!("{error}"));
    receiver.start(&host).await.unwrap();
    (receiver, sink, telemetry)
}

async fn stop(receiver: Arc<dyn Receiver>) {
    receiver.shutdown(Instant::now() + Duration::from_secs(60)).await;
}

/// Scenario: a file is there, grows, is renamed away and replaced, is emptied. Guarantee: each line once.
#[tokio::test]
async fn follows_what_files_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    append(&path, &format!("{}\n", line("1")));
    let (receiver, sink, telemetry) = start(config(folder.path())).await;
    sink.expect(&["1"]).await;
    let second = line("2");
    let (begin, end) = second.split_at(40);
    append(&path, begin);
    append(&path, &format!("{end}\n\nnonsense\n{}\n", line("3")));
    sink.expect(&["1", "2", "3"]).await;
    assert_eq!(telemetry.sum("otelcol_receiver_requests", &[("outcome", "failure")]), 1);

    fs::rename(&path, folder.path().join("a.1")).unwrap();
    append(&folder.path().join("a.1"), &format!("{}\n", line("4")));
    sink.expect(&["1", "2", "3", "4"]).await;
    append(&path, &format!("{}\n", line("5")));
    sink.expect(&["1", "2", "3", "4", "5"]).await;

    fs::write(&path, "").unwrap();
    sleep(Duration::from_millis(50)).await;
    // The last line needs no line break.
    append(&path, &line("6"));
    sink.expect(&["1", "2", "3", "4", "5", "6"]).await;
    stop(receiver).await;
}

/// Scenario: `start_at: end` and `exclude`. Guarantee: only what comes later, only what is wanted.
#[tokio::test]
async fn from_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    append(&path, &format!("{}\n", line("old")));
    let exclude = vec![format!("{}/b*", folder.path().display())];
    let (receiver, sink, _) =
        start(OtlpJsonFileConfig { start_at: StartAt::End, exclude, ..config(folder.path()) }).await;
    // A new file is read from its beginning, once the first round is over.
    append(&folder.path().join("b.json"), &format!("{}\n", line("excluded")));
    sleep(Duration::from_millis(100)).await;
    append(&path, &format!("{}\n", line("new")));
    sink.expect(&["new"]).await;
    append(&folder.path().join("c.json"), &format!("{}\n", line("later")));
    sink.expect(&["new", "later"]).await;
    stop(receiver).await;
}

/// Scenario: the pipeline refuses for now. Guarantee: the line is offered again, none is passed over.
#[tokio::test]
async fn waits_for_the_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.json"), &format!("{}\n{}\n", line("1"), line("2")));
    let (receiver, sink, _) = start(config(folder.path())).await;
    *sink.refusals.lock() = 1;
    sink.expect(&["1", "2"]).await;
    stop(receiver).await;
}

/// Scenario: a line beyond `max_log_size`, of one block and of many. Guarantee: it alone is left out.
#[tokio::test]
async fn long_lines_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let long = |bytes: usize| line(&"x".repeat(bytes));
    append(
        &folder.path().join("a.json"),
        &format!("{}\n{}\n{}\n{}\n{}\n", line("1"), long(2000), line("2"), long(2 << 20), line("3")),
    );
    let (receiver, sink, _) = start(OtlpJsonFileConfig { max_log_size: ByteSize(1000), ..config(folder.path()) }).await;
    sink.expect(&["1", "2", "3"]).await;
    stop(receiver).await;
}

#[tokio::test]
async fn replays() {
    let folder = tempfile::tempdir().unwrap();
    append(&folder.path().join("a.json"), &format!("{}\n", line("1")));
    let (receiver, sink, _) = start(OtlpJsonFileConfig { replay_file: true, ..config(folder.path()) }).await;
    for _ in 0..6000 {
        if sink.names().len() >= 3 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(sink.names().len() >= 3);
    stop(receiver).await;
}

/// The message as prost sees it, so that two spellings of it are equal; NaN compares as its text. Without
/// what JSON does not hold: the string indices of profiles, and ids that are none because of their length.
fn model(signal: Signal, wire: &[u8]) -> String {
    let text = match signal {
        Signal::Traces => format!("{:?}", TracesData::decode(wire).unwrap()),
        Signal::Metrics => format!("{:?}", MetricsData::decode(wire).unwrap()),
        Signal::Logs => format!("{:?}", LogsData::decode(wire).unwrap()),
    };
    let replace = |text: &str, pattern: &str, by: &str| Regex::new(pattern).unwrap().replace_all(text, by).into_owned();
    let text = replace(&text, r"Some\(StringValueStrindex\(-?\d+\)\)", "None");
    let text = replace(&text, r"key_strindex: -?\d+", "key_strindex: 0");
    let ids = Regex::new(r"(trace_id|span_id): \[([\d, ]*)\]").unwrap();
    let ids = ids.replace_all(&text, |id: &regex::Captures<'_>| {
        let length = id[2].split(", ").count();
        let is_id = length == if &id[1] == "trace_id" { 16 } else { 8 };
        format!("{}: [{}]", &id[1], if is_id { &id[2] } else { "" })
    });
    ids.into_owned()
}

proptest! {
    /// What the `file` exporter writes for a request, this receiver reads as the same request.
    #[test]
    fn what_is_written_is_read(entropy in proptest::collection::vec(any::<u8>(), 0..2000), pick in 0..3_usize) {
        use nyquist_core::wire::{check, fuzzing::{Entropy, generate}, join_split_values, without_invalid_ids};
        let signal = Signal::ALL[pick];
        let request = bytes::Bytes::from(generate(signal, &mut Entropy::new(&entropy)));
        let Ok(checked) = check(signal, &request) else { return Ok(()) };
        let mut request = if checked.split_values { join_split_values(signal, &request) } else { request };
        if checked.invalid_ids > 0 {
            request = without_invalid_ids(&request).0;
        }
        let mut written = Vec::new();
        otlp_json::write(signal, &request, &mut written).unwrap();
        prop_assert!(!written.contains(&b'\n'));
        let read = json::to_wire(signal, &written, usize::MAX);
        // serde_json does not go deeper than 128.
        if read.as_ref().is_err_and(|error| error.to_string().contains("recursion limit")) {
            return Ok(());
        }
        let read = read.unwrap();
        prop_assert_eq!(model(signal, &read), model(signal, &request));
    }
}
