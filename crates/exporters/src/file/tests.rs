//! Files on a real disk, a full one included.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nyquist_core::batch::{Batch, Code, DropReason, Refusal};
use nyquist_core::clock::{Clock, ManualClock};
use nyquist_core::component::{Exporter, ExporterConfig, Extensions, Host};
use nyquist_core::config::{ComponentId, Enabled};
use nyquist_core::net::compression::decode::{Encoding, decode};
use nyquist_core::proto::common::v1::{AnyValue, KeyValue, any_value::Value};
use nyquist_core::proto::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use prost::Message;

use super::writer::{Files, Job, Record, Target, path_of, run};
use super::*;

fn logs(text: &str, tenant: Option<&str>) -> LogsData {
    let value = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let attributes = tenant
        .map(|tenant| KeyValue { key: "tenant".to_owned(), value: value(tenant), ..Default::default() })
        .into_iter()
        .collect();
    let record = LogRecord { body: value(text), ..Default::default() };
    let resource_logs = vec![ResourceLogs {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_logs: vec![ScopeLogs { log_records: vec![record], ..Default::default() }],
        ..Default::default()
    }];
    LogsData { resource_logs }
}

struct Rig {
    exporter: Arc<dyn Exporter>,
    ledger: Ledger,
    host: Host,
}

impl Rig {
    async fn start(config: FileConfig) -> Result<Self, String> {
        Self::of(&Shared::new(config), Signal::Logs).await
    }

    async fn of(shared: &Shared, signal: Signal) -> Result<Self, String> {
        let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
        let clock: Arc<dyn Clock> = ManualClock::new(1_700_000_000_000_000_000);
        let host = Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal };
        let ledger = Ledger::detached();
        let context = ExporterContext {
            id: ComponentId::of("file"),
            signal,
            ledger: ledger.clone(),
            batching: None,
            extensions: &Extensions::default(),
            telemetry: Arc::clone(&host.telemetry),
            clock: Arc::clone(&host.clock),
        };
        let exporter = shared.build(context).map_err(|error| error.to_string())?;
        exporter.start(&host).await.map_err(|error| error.to_string())?;
        Ok(Self { exporter, ledger, host })
    }

    async fn send(&self, data: LogsData) -> Result<(), Refusal> {
        self.exporter.consume(Batch::from_logs(data)).await
    }

    async fn stop(self) {
        self.exporter.shutdown(Instant::now() + Duration::from_secs(60)).await;
        drop(self.host);
    }
}

fn config(path: &Path) -> FileConfig {
    FileConfig { path: path.display().to_string(), ..FileConfig::default() }
}

/// Scenario: a request is acknowledged. Guarantee: its line is in the file at that moment; a second
/// process empties the file, unless it is to append.
#[tokio::test]
async fn lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let rig = Rig::start(config(&path)).await.unwrap();
    rig.send(logs("one", None)).await.unwrap();
    let one = r#"{"resourceLogs":[{"resource":{},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"one"}}]}]}]}"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{one}\n"));
    rig.stop().await;

    let rig = Rig::start(FileConfig { append: true, ..config(&path) }).await.unwrap();
    rig.send(logs("two", None)).await.unwrap();
    assert_eq!(rig.ledger.count(Entry::Exported), 1);
    rig.stop().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{one}\n{}\n", one.replace("one", "two")));

    let rig = Rig::start(config(&path)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    rig.stop().await;
}

/// Each request behind its length in four bytes, the highest first; compressed one by one.
#[tokio::test]
async fn records_with_their_length() {
    let folder = tempfile::tempdir().unwrap();
    for (format, compression) in [(Format::Proto, ""), (Format::Proto, "zstd"), (Format::Json, "zstd")] {
        let path = folder.path().join(format!("{format:?}{compression}"));
        let rig =
            Rig::start(FileConfig { format, compression: compression.to_owned(), ..config(&path) }).await.unwrap();
        rig.send(logs("one", None)).await.unwrap();
        rig.send(logs("two", None)).await.unwrap();
        rig.stop().await;
        let file = fs::read(&path).unwrap();
        let mut rest = file.as_slice();
        for text in ["one", "two"] {
            let (length, after) = rest.split_first_chunk::<4>().unwrap();
            let (record, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            rest = after;
            let encoding = if compression.is_empty() { Encoding::Identity } else { Encoding::Zstd };
            let record = decode(encoding, record, 1 << 20).unwrap();
            match format {
                Format::Proto => assert_eq!(LogsData::decode(record).unwrap(), logs(text, None)),
                Format::Json => assert!(String::from_utf8(record.to_vec()).unwrap().contains(text)),
            }
        }
        assert!(rest.is_empty());
    }
}

/// Scenario: all signals of one exporter. Guarantee: they share the file, and neither empties it for
/// the other.
#[tokio::test]
async fn signals_share_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all");
    let shared = Shared::new(config(&path));
    let first = Rig::of(&shared, Signal::Logs).await.unwrap();
    first.send(logs("one", None)).await.unwrap();
    let second = Rig::of(&shared, Signal::Logs).await.unwrap();
    second.send(logs("two", None)).await.unwrap();
    first.stop().await;
    second.send(logs("three", None)).await.unwrap();
    second.stop().await;
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
}

/// Scenario: the disk is full. Guarantee: a refusal that may be retried and says so; nothing booked as
/// delivered; the status tells.
#[tokio::test]
async fn a_full_disk_is_a_refusal() {
    let rig = Rig::start(config(Path::new("/dev/full"))).await.unwrap();
    let refusal = rig.send(logs("one", None)).await.unwrap_err();
    assert!(refusal.is_retryable(), "{refusal}");
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("cannot write to /dev/full: No space left on device"), "{refusal}");
    assert_eq!(rig.ledger.count(Entry::Exported), 0);
    assert!(rig.exporter.status().unwrap().failing_since.is_some());
}

#[tokio::test]
async fn what_keeps_it_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("a.json");
    let error = Rig::start(config(&path)).await.err().unwrap();
    assert!(error.contains("cannot open") && error.contains("No such file"), "{error}");
    let rig = Rig::start(FileConfig { create_directory: true, ..config(&path) }).await.unwrap();
    rig.stop().await;
    assert!(path.exists());

    fs::write(&path, "my diary").unwrap();
    let error = Rig::start(FileConfig { append: true, ..config(&path) }).await.err().unwrap();
    assert!(error.contains("move it away"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary");
}

#[test]
fn what_is_wrong_is_said() {
    use nyquist_core::config::from_str;
    for (more, wanted) in [
        ("encoding: otlp_encoding", "encoding extensions are not supported"),
        ("format: text", "format"),
        ("compression: gzip", "\"gzip\" is not supported; zstd is"),
        ("append: true\nrotation: {}", "append and rotation"),
        ("append: true\ncompression: zstd", "append and compression"),
        ("rotation: {max_megabytes: 0}", "must be positive"),
        ("group_by: {enabled: true}", "exactly one *"),
        ("directory_permissions: '0700'", "requires create_directory"),
        ("file_permissions: '0999'", "must be an octal number up to 0777, like \"0640\""),
        ("file_permissions: '0444'", "the owner must be allowed to read and write"),
        ("flush: 1s", "flush"),
    ] {
        let error = from_str::<FileConfig>(&format!("path: a.json\n{more}\n")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{more}: {error}");
    }
}

/// Guarantee: whatever the umask, nobody else may read what was written unless that was asked for; a file that rotation
/// begins is like the first one, one that is there keeps its mode.
#[test]
fn files_are_the_owners() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.json");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let rotation = Enabled::On(Rotation { max_megabytes: 1, ..Rotation::default() });
    let begin = |more: FileConfig| Files::new(Arc::new(more), ManualClock::new(1_700_000_000_000_000_000));
    let mut files = begin(FileConfig { rotation, ..config(&path) });
    files.open_first().unwrap();
    assert_eq!(mode(&path), 0o600);
    let record = Record { group: None, bytes: Bytes::from(vec![b'x'; 600 << 10]) };
    for _ in 0..2 {
        files.write(std::slice::from_ref(&record)).1.unwrap();
    }
    let made: Vec<u32> = fs::read_dir(folder.path()).unwrap().map(|entry| mode(&entry.unwrap().path())).collect();
    assert_eq!(made, [0o600, 0o600]);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    begin(config(&path)).open_first().unwrap();
    assert_eq!(mode(&path), 0o640);
    let asked = folder.path().join("asked.json");
    begin(FileConfig { file_permissions: "0400".to_owned(), ..config(&asked) }).open_first().unwrap();
    assert_eq!(mode(&asked), 0o400);
}

/// Scenario: a crash left half a record. Guarantee: the next process goes on behind the last whole one.
#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines");
    fs::write(&lines, "{}\n{\"resou").unwrap();
    let rig = Rig::start(FileConfig { append: true, ..config(&lines) }).await.unwrap();
    rig.send(logs("x", None)).await.unwrap();
    rig.stop().await;
    let text = fs::read_to_string(&lines).unwrap();
    assert!(text.starts_with("{}\n{\"resourceLogs\"") && text.lines().count() == 2, "{text}");

    let records = folder.path().join("records");
    fs::write(&records, [0, 0, 0, 1, 7, 0, 0, 0, 9, 1]).unwrap();
    let proto = FileConfig { append: true, format: Format::Proto, ..config(&records) };
    Rig::start(proto).await.unwrap().stop().await;
    assert_eq!(fs::read(&records).unwrap(), [0, 0, 0, 1, 7]);
}

/// A file that says when it is synced.
struct Telling(std::sync::mpsc::Sender<()>);

impl Target for Telling {
    fn write(&mut self, records: &[Record]) -> (usize, std::io::Result<()>) {
        (records.len(), Ok(()))
    }

    fn sync(&mut self) {
        let _ = self.0.send(());
    }
}

/// Guarantee: what was written is synced when `flush_interval` has passed, whether nothing comes behind it or always
/// more, and not again.
#[test]
fn what_is_written_is_synced_in_time() {
    const LONG: Duration = Duration::from_secs(60);
    let (jobs, inbox) = std::sync::mpsc::channel();
    let (telling, synced) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || run(&mut Telling(telling), Duration::from_millis(20), &inbox));
    let write = || {
        let (answer, written) = tokio::sync::oneshot::channel();
        jobs.send(Job::Write(vec![Record { group: None, bytes: Bytes::new() }], answer)).unwrap();
        written.blocking_recv().unwrap().1.unwrap();
    };
    write();
    synced.recv_timeout(LONG).expect("nothing comes behind it");
    assert!(synced.recv_timeout(Duration::from_millis(100)).is_err(), "there is nothing to sync");
    let begun = std::time::Instant::now();
    while synced.try_recv().is_err() {
        write();
        assert!(begun.elapsed() < LONG, "there is always more");
    }
    write();
    drop(jobs);
    synced.recv_timeout(LONG).expect("at the end");
    thread.join().unwrap();
}

/// Scenario: more than a file may hold. Guarantee: whole records in every file, names with the time,
/// no more old files than wanted, none older than wanted.
#[test]
fn rotation_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.json");
    let rotation = Enabled::On(Rotation { max_megabytes: 1, max_backups: 2, max_days: 1, ..Rotation::default() });
    let clock = ManualClock::new(1_700_000_000_000_000_000);
    let mut files = Files::new(Arc::new(FileConfig { rotation, ..config(&path) }), clock.clone());
    files.open_first().unwrap();
    let record = Record { group: None, bytes: Bytes::from(vec![b'x'; 600 << 10]) };
    for _ in 0..5 {
        let (written, result) = files.write(std::slice::from_ref(&record));
        result.unwrap();
        assert_eq!(written, 1);
    }
    let names = || {
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // The clock stands still: names are made different. Of four, the two newest are left.
    let aside = ["data-2023-11-14T22-13-20.002.json", "data-2023-11-14T22-13-20.003.json", "data.json"];
    assert_eq!(names(), aside);
    assert_eq!(fs::metadata(&path).unwrap().len(), 600 << 10);

    clock.advance(Duration::from_secs(3 * 86_400));
    files.write(std::slice::from_ref(&record)).1.unwrap();
    assert_eq!(names(), ["data-2023-11-17T22-13-20.000.json", "data.json"]);
}

/// Scenario: somebody takes the file away, then its folder, which comes back. Guarantee: rotation begins a new file as soon
/// as it can be made; what does not fit into any is refused until then.
#[test]
fn rotation_goes_on_without_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("data.json");
    let rotation = Enabled::On(Rotation { max_megabytes: 1, ..Rotation::default() });
    let clock = ManualClock::new(1_700_000_000_000_000_000);
    let mut files = Files::new(Arc::new(FileConfig { rotation, ..config(&path) }), clock);
    files.open_first().unwrap();
    let record = Record { group: None, bytes: Bytes::from(vec![b'x'; 600 << 10]) };
    let mut write = || files.write(std::slice::from_ref(&record)).1;
    write().unwrap();
    fs::remove_file(&path).unwrap();
    write().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 600 << 10);
    fs::remove_dir_all(&inner).unwrap();
    write().unwrap_err();
    fs::create_dir(&inner).unwrap();
    write().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 600 << 10);
}

/// Scenario: `group_by`. Guarantee: a file each, also when few may be open; what has no name is booked
/// as dropped.
#[tokio::test]
async fn a_file_for_each_group() {
    let folder = tempfile::tempdir().unwrap();
    let group_by = GroupBy { enabled: true, resource_attribute: "tenant".to_owned(), max_open_files: 1 };
    let rig = Rig::start(FileConfig { group_by, ..config(&folder.path().join("t/*.json")) }).await.unwrap();
    for _ in 0..2 {
        let mut data = logs("a", Some("a"));
        data.resource_logs.extend(logs("b", Some("b/../c")).resource_logs);
        data.resource_logs.extend(logs("none", None).resource_logs);
        rig.send(data).await.unwrap();
    }
    assert_eq!(rig.ledger.count(Entry::Exported), 4);
    assert_eq!(rig.ledger.dropped_count(DropReason::Untranslatable), 2);
    rig.stop().await;
    for name in ["t/a.json", "t/b/c.json"] {
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap().lines().count(), 2, "{name}");
    }
}

#[test]
fn no_group_leaves_its_folder() {
    for (group, path) in [
        ("a", "/d/a.json"),
        ("../../etc/passwd", "/d/etc/passwd.json"),
        ("/etc/x", "/d/etc/x.json"),
        ("..", "/d/.json"),
        ("./x//y", "/d/x/y.json"),
    ] {
        assert_eq!(path_of("/d/*.json", group), Path::new(path), "{group}");
    }
}
