//! Files on a real disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nyquist_core::batch::{Batch, Refusal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Consumer, Extension, Extensions, Outputs};
use nyquist_core::config::{ByteSize, ComponentId, Duration as ConfigDuration};
use nyquist_core::otlp_json;
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::proto::trace::v1::TracesData;
use nyquist_core::runtime::Runtimes;
use nyquist_core::storage::{self, Log, Owner, Recovered};
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

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
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
    start_with(config, &Extensions::default()).await
}

async fn start_with(
    config: OtlpJsonFileConfig,
    extensions: &Extensions,
) -> (Arc<dyn Receiver>, Arc<Sink>, Arc<Telemetry>) {
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
        extensions,
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

/// A place for the offsets.
struct Place(PathBuf);

#[async_trait]
impl Storage for Place {
    async fn open(&self, owner: &Owner) -> Result<(Log, Recovered), storage::Error> {
        Log::open(&storage::Options::new(self.0.join(owner.directory_name()))).await
    }
}

impl Component for Place {}

impl Extension for Place {
    fn storage(&self) -> Option<Arc<dyn Storage>> {
        Some(Arc::new(Self(self.0.clone())))
    }
}

fn extensions(folder: &Path) -> Extensions {
    let mut extensions = Extensions::default();
    extensions.insert(&ComponentId::of("place"), Arc::new(Place(folder.to_owned())));
    extensions
}

/// Scenario: while the receiver is down, files grow, are renamed, come, and one is replaced by another that gets
/// its inode. Guarantee: with `storage` each line once; `start_at` was for the first start.
#[tokio::test]
async fn goes_on_after_a_restart() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let extensions = extensions(place.path());
    let config =
        OtlpJsonFileConfig { start_at: StartAt::End, storage: Some("place".to_owned()), ..config(folder.path()) };
    let path = |name: &str| folder.path().join(name);
    append(&path("a.json"), &format!("{}\n", line("not this")));
    let (receiver, sink, _) = start_with(config.clone(), &extensions).await;
    // What comes after the first round is read from its beginning.
    sleep(Duration::from_millis(100)).await;
    append(&path("b.json"), &format!("{}\n", line("b1")));
    sink.expect(&["b1"]).await;
    append(&path("a.json"), &format!("{}\n", line("a1")));
    sink.expect(&["b1", "a1"]).await;
    stop(receiver).await;

    append(&path("a.json"), &format!("{}\n", line("a2")));
    fs::rename(path("a.json"), path("z.json")).unwrap();
    // The same inode, but another file.
    fs::write(path("b.json"), format!("{}\n{}\n", line("c1"), line("c2"))).unwrap();
    append(&path("d.json"), &format!("{}\n", line("d1")));
    let (receiver, sink, _) = start_with(config.clone(), &extensions).await;
    let sorted = || {
        let mut names = sink.names();
        names.sort();
        names
    };
    for _ in 0..6000 {
        if sink.names().len() >= 4 {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sorted(), ["a2", "c1", "c2", "d1"]);
    stop(receiver).await;

    let (receiver, sink, _) = start_with(config, &extensions).await;
    append(&path("z.json"), &format!("{}\n", line("a3")));
    sink.expect(&["a3"]).await;
    stop(receiver).await;
}

/// Scenario: the receiver is stopped while the pipeline refuses. Guarantee: what was not accepted is offered
/// again after the restart, what was is not.
#[tokio::test]
async fn what_was_not_accepted_is_not_passed_over() {
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let extensions = extensions(place.path());
    let config = OtlpJsonFileConfig { storage: Some("place".to_owned()), ..config(folder.path()) };
    let path = folder.path().join("a.json");
    append(&path, &format!("{}\n", line("1")));
    let (receiver, sink, _) = start_with(config.clone(), &extensions).await;
    sink.expect(&["1"]).await;
    *sink.refusals.lock() = usize::MAX;
    append(&path, &format!("{}\n{}\n", line("2"), line("3")));
    for _ in 0..6000 {
        if *sink.refusals.lock() < usize::MAX {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    stop(receiver).await;
    sink.expect(&["1"]).await;
    let (receiver, sink, _) = start_with(config, &extensions).await;
    sink.expect(&["2", "3"]).await;
    stop(receiver).await;
}

/// Scenario: gzip files beside others, one of them growing by members, one damaged. Guarantee: each line once;
/// the damaged one is left alone, and is the receiver's status until it is whole.
#[tokio::test]
async fn reads_gzip() {
    let folder = tempfile::tempdir().unwrap();
    let include = vec![format!("{}/*", folder.path().display())];
    let auto = OtlpJsonFileConfig { include, compression: Compression::Auto, ..config(folder.path()) };
    let zip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let path = folder.path().join("b.json.gz");
    append(&folder.path().join("a.json"), &format!("{}\n", line("plain")));
    let (receiver, sink, _) = start(auto).await;
    sink.expect(&["plain"]).await;
    fs::write(folder.path().join("damaged.gz"), "this is no gzip").unwrap();
    fs::write(&path, zip(&format!("{}\n{}\n", line("1"), line("2")))).unwrap();
    sink.expect(&["plain", "1", "2"]).await;
    let next = zip(&format!("{}\n", line("3")));
    let (begin, end) = next.split_at(next.len() / 2);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(begin).unwrap();
    sleep(Duration::from_millis(20)).await;
    file.write_all(end).unwrap();
    sink.expect(&["plain", "1", "2", "3"]).await;
    let status = async |is_failing: bool| {
        while receiver.status().unwrap().failing_since.is_some() != is_failing {
            sleep(Duration::from_millis(5)).await;
        }
        receiver.status().unwrap().last_error
    };
    let error = status(true).await.unwrap();
    let damaged = format!("cannot read {}: ", folder.path().join("damaged.gz").display());
    assert!(error.starts_with(&damaged), "{error}");
    fs::write(folder.path().join("damaged.gz"), zip(&format!("{}\n", line("4")))).unwrap();
    sink.expect(&["plain", "1", "2", "3", "4"]).await;
    assert_eq!(status(false).await, None);
    stop(receiver).await;
}

/// Scenario: one file was changed a day ago, one now. Guarantee: `exclude_older_than` leaves the first alone.
#[test]
fn old_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = OtlpJsonFileConfig { exclude_older_than: ConfigDuration::from_secs(3600), ..config(folder.path()) };
    for (name, at) in [("new.json", 1_000_000), ("old.json", 1_000_000 - 7200)] {
        let path = folder.path().join(name);
        append(&path, &format!("{}\n", line(name)));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
    }
    let clock = ManualClock::new(1_000_000 * 1_000_000_000);
    let mut follower = Follower::new(&config, clock, None).unwrap();
    let step = follower.step();
    assert_eq!(step.lines.iter().map(|line| line.path.file_name().unwrap()).collect::<Vec<_>>(), ["new.json"]);
    assert!(follower.offsets().len() == 1);
}

#[test]
fn what_is_not_built_is_said() {
    use nyquist_core::config::from_str;
    let with = |more: &str| format!("include: [a.json]\n{more}\n");
    for (more, wanted) in [
        ("multiline: {line_end_pattern: x}", "a request is a line"),
        ("header: {pattern: x}", "`header` is not supported"),
        ("ordering_criteria: {regex: x}", "`ordering_criteria` is not supported"),
        ("delete_after_read: true", "`delete_after_read` is not supported"),
        ("acquire_fs_lock: true", "let one receiver read a file"),
        ("compression: zstd", "compression"),
        ("replay_file: true\nstart_at: beginning\nstorage: a", "`replay_file` reads files again"),
        ("fingerprint: 1kb", "fingerprint"),
    ] {
        let error = from_str::<OtlpJsonFileConfig>(&with(more)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{more}: {error}");
    }
    for more in ["fingerprint_size: 1kb", "include_file_name: true", "force_flush_period: 1s", "max_batches: 1"] {
        let (_, diagnostics) = from_str::<OtlpJsonFileConfig>(&with(more)).unwrap();
        assert!(diagnostics.to_string().contains("has no effect"), "{more}: {diagnostics}");
    }
    let (_, diagnostics) = from_str::<OtlpJsonFileConfig>(&with("delete_after_read: false\ncompression: ''")).unwrap();
    assert!(diagnostics.to_string().is_empty(), "{diagnostics}");
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
    /// The body of the fuzz target, on seeded input.
    #[test]
    fn any_document_is_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::otlp::fuzzing::document(&data);
    }

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
