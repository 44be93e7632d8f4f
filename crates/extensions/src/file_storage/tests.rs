//! The extension as its users see it, in real directories.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nyquist_core::batch::Signal;
use nyquist_core::clock::SystemClock;
use nyquist_core::component::Extensions;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::runtime::Runtimes;
use nyquist_core::storage::{Cursor, Fsync, Owner};
use nyquist_core::telemetry::Telemetry;

use super::*;

fn read(yaml: &str) -> Result<(FileStorageConfig, Vec<String>), Vec<String>> {
    let messages = |problems: Vec<nyquist_core::config::Problem>| {
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    };
    match from_str::<FileStorageConfig>(yaml) {
        Ok((config, diagnostics)) => Ok((config, messages(diagnostics.warnings))),
        Err(diagnostics) => Err(messages(diagnostics.errors)),
    }
}

async fn start(config: FileStorageConfig) -> Result<Extensions, StartError> {
    start_with(config, Telemetry::new()).await
}

async fn start_with(config: FileStorageConfig, telemetry: Arc<Telemetry>) -> Result<Extensions, StartError> {
    let clock = Arc::new(SystemClock::default());
    let id = ComponentId::of("file_storage");
    let context = ExtensionContext { id: id.clone(), telemetry: Arc::clone(&telemetry), clock: clock.clone() };
    let extension = config.build(context).unwrap();
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    extension.start(&Host { runtimes: Runtimes::current(), clock, telemetry, fatal }).await?;
    let mut extensions = Extensions::default();
    extensions.insert(&id, extension);
    Ok(extensions)
}

/// Scenario: every key of the Collector. Guarantee: read, and what has no effect says so.
#[test]
fn the_collectors_keys() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!(
        "{{directory: {:?}, timeout: 5s, create_directory: true, directory_permissions: '0700', fsync: true, max_size: \
         2147483648, recreate: true, compaction: {{on_start: true, on_rebound: true, directory: /tmp, \
         rebound_needed_threshold_mib: 100, rebound_trigger_threshold_mib: 10, max_transaction_size: 65536, \
         check_interval: 5s, cleanup_on_start: true}}}}",
        directory.path()
    );
    let (config, warnings) = read(&yaml).unwrap();
    assert_eq!(config.timeout.0, Duration::from_secs(5));
    assert_eq!(config.directory_permissions, Permissions(0o700));
    assert_eq!(config.fsync, FsyncLevel(Fsync::Always));
    assert_eq!(config.max_size.0, 2 << 30);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|text| text.starts_with("recreate: has no effect")), "{warnings:?}");
    assert!(warnings.iter().any(|text| text.starts_with("compaction: has no effect")), "{warnings:?}");
}

/// Guarantee: the three levels, by the Collector's booleans and by a duration.
#[test]
fn fsync_levels() {
    let level = |text: &str| read(&format!("{{directory: /, fsync: {text}}}")).map(|(config, _)| config.fsync.0);
    assert_eq!(level("false"), Ok(Fsync::None));
    assert_eq!(level("true"), Ok(Fsync::Always));
    assert_eq!(level("500ms"), Ok(Fsync::Interval(Duration::from_millis(500))));
    let error = level("sometimes").unwrap_err().join(" ");
    assert!(error.contains("fsync is true (always), false (never), or a duration like 1s"), "{error}");
}

#[test]
fn what_cannot_work_is_refused() {
    for (yaml, expected) in [
        ("{directory: /no/such/place}", "directory: directory must exist: /no/such/place: "),
        ("{directory: /etc/hostname, create_directory: true}", "directory: /etc/hostname is not a directory"),
        ("{directory: ''}", "directory: must not be empty"),
        ("{directory: /, directory_permissions: '0999'}", "directory_permissions: invalid permissions"),
        (
            "{directory: /, create_directory: true, directory_permissions: '0040'}",
            "directory_permissions: the owner must",
        ),
        ("{directory: /, max_size: 1000}", "max_size: `max_size` must be at least 65536 bytes"),
    ] {
        let errors = read(yaml).unwrap_err();
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{yaml}: {errors:?}");
    }
}

/// Scenario: two users, a restart. Guarantee: a directory each, made with the permissions asked for; what was
/// appended is there again.
#[tokio::test]
async fn users_do_not_see_each_other() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("queues");
    let config = FileStorageConfig {
        directory: directory.clone(),
        create_directory: true,
        directory_permissions: Permissions(0o711),
        timeout: nyquist_core::config::Duration::from_secs(10),
        ..FileStorageConfig::default()
    };
    let storage = start(config.clone()).await.unwrap().storage("file_storage").unwrap();
    let traces = Owner::exporter("otlp", "main", Signal::Traces);
    let metrics = Owner::exporter("otlp", "main", Signal::Metrics);
    let (one, _) = storage.open(&traces).await.unwrap();
    let (two, _) = storage.open(&metrics).await.unwrap();
    one.append(1, 1, 1, vec!["spans".into()]).await.unwrap();
    two.append(1, 1, 1, vec!["points".into()]).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o711);
    assert_eq!(mode(&directory.join("exporter_otlp_main_traces")), 0o700);
    drop((one, two));

    let storage = start(config).await.unwrap().storage("file_storage").unwrap();
    let (one, recovered) = storage.open(&traces).await.unwrap();
    assert_eq!(recovered.records, 1);
    assert_eq!(one.read(Cursor::default(), 100).await.unwrap().records[0].payload, "spans");
}

#[tokio::test]
async fn a_directory_that_went_missing_is_a_start_error() {
    let config = FileStorageConfig { directory: "/no/such/place".into(), ..FileStorageConfig::default() };
    let error = start(config).await.err().unwrap();
    assert!(error.to_string().contains("create_directory: true"), "{error}");
}

/// Guarantee: the limit is the users', and a full one refuses in a way that may be retried.
#[tokio::test]
async fn max_size_is_kept() {
    let parent = tempfile::tempdir().unwrap();
    let config = FileStorageConfig {
        directory: parent.path().to_owned(),
        max_size: nyquist_core::config::ByteSize(64 << 10),
        ..FileStorageConfig::default()
    };
    let telemetry = Telemetry::new();
    let storage = start_with(config, Arc::clone(&telemetry)).await.unwrap().storage("file_storage").unwrap();
    let (log, _) = storage.open(&Owner::exporter("otlp", "", Signal::Traces)).await.unwrap();
    let payload = bytes::Bytes::from(vec![0; 10_000]);
    let mut taken = 0;
    let error = loop {
        match log.append(1, 1, 1, vec![payload.clone()]).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(taken, 6);
    assert!(error.is_retryable() && error.to_string().contains("max_size"), "{error}");
    let page = telemetry.render("");
    let labels = r#"{owner="exporter_otlp__traces",storage="file_storage"}"#;
    assert!(page.contains(&format!("nyquist_storage_records{labels} 6")), "{page}");
    for name in ["bytes", "corrupt_records", "torn_bytes", "set_aside_segments", "failed_writes", "failed_syncs"] {
        assert!(page.contains(&format!("nyquist_storage_{name}{labels} ")), "{page}");
    }
}
