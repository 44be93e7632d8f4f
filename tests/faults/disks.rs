//! Disks that are full, and what other versions left on them.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::support::otlp_client::UNAVAILABLE;
use super::*;

/// A small file system of its own, in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// Fails where mounting is not permitted: a drill that was not held shows nothing. Where that is known,
    /// `NYQUIST_NO_MOUNT=1` leaves it out: `None`.
    fn mount(mebibytes: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        let reason = match mounted {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => format!("there is no mount: {error}"),
        };
        let may_skip = std::env::var("NYQUIST_NO_MOUNT").is_ok_and(|value| value == "1");
        assert!(
            may_skip,
            "a small file system cannot be mounted ({}): run this as root, or set NYQUIST_NO_MOUNT=1 to leave the drill out",
            reason.trim()
        );
        eprintln!("NOT TESTED: a full disk: a small file system cannot be mounted: {}", reason.trim());
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("somebody elses");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Sends requests of 400 spans until one is refused; gives the refusal.
fn send_until_refused(gateway: &Gateway, sent: &Sent) -> support::otlp_client::Outcome {
    let mut client = gateway.client();
    loop {
        let request = traces_request("faults", trace(sent.next.fetch_add(1, Ordering::Relaxed), 400));
        let outcome = client.traces(&request);
        if outcome.status != OK {
            return outcome;
        }
        sent.acknowledged.lock().unwrap().extend(span_keys(&request));
        assert!(sent.count() < 1_000_000, "a small disk is never full");
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    fill_the_disk("otlp", |sink| grpc(sink, "") + &delivery(ON_DISK));
}

/// The same with the queue in front of the backends of `load_balancing`.
#[test]
fn a_full_disk_of_a_balancer_refuses_and_loses_nothing() {
    fill_the_disk("load_balancing", |sink| {
        format!(
            "  load_balancing:
    resolver: {{static: {{hostnames: ['127.0.0.1:{}']}}}}
    protocol:
      otlp:
        tls: {{insecure: true}}
        retry_on_failure: {{initial_interval: 50ms, max_interval: 100ms, max_elapsed_time: 0}}
    sending_queue: {{queue_size: 1000000, {ON_DISK}}}",
            sink.port
        )
    });
}

/// Scenario: the sink is down until the disk is full; `kill -9`; a start on the full disk; the sink comes back.
/// Guarantee: the client is refused so that it tries again, and told why; everything acknowledged arrives, nothing
/// twice; then there is room again.
fn fill_the_disk(name: &str, exporter: impl Fn(&Backend) -> String) {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let mut sink = Backend::stopped();
    let config = config(&disk.path().join("queues"), &exporter(&sink), name);
    let sent = Sent::default();
    let mut gateway = Gateway::start(&config);
    for _ in 0..3 {
        let refusal = send_until_refused(&gateway, &sent);
        assert_eq!(refusal.status, UNAVAILABLE, "{refusal:?}");
        assert!(refusal.message.replace("%20", " ").contains("no space left on the disk"), "{refusal:?}");
        eventually("the log says so", || {
            let output = gateway.process.output();
            if output.contains("cannot queue on disk, refusing data") { Ok(()) } else { Err(output) }
        });
        gateway.kill();
        gateway = Gateway::start(&config);
    }
    assert!(sent.count() > 10_000, "{}", sent.count());
    let account = format!("exporter/{name}");
    let labels = [("account", account.as_str()), ("entry", "created")];
    let found = gateway.metrics().sum("nyquist_ledger_items", &labels);
    assert!(found >= sent.count() as f64, "{found} of {}", sent.count());
    sink.restart();
    assert_eq!(sent.wait_until_all_arrived(&sink), 0);
    assert_eq!(settled(&gateway, name), 0.0);
    let mut client = gateway.client();
    eventually("there is room again", || sent.send(&mut client));
    assert_eq!(sent.wait_until_all_arrived(&sink), 0);
    drop(client);
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

/// Scenario: two exporters, one with its queue on a disk that somebody else fills under load, for longer than a fan-out
/// is patient. Guarantee: while it is full nothing is acknowledged that one of the two has not got; when there is room it
/// goes on by itself; both have everything that was acknowledged. What the other exporter got without an acknowledgement
/// is what was on its way when the disk filled up.
#[test]
fn a_disk_that_somebody_else_fills() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let (memory, durable) = (Backend::start(), Backend::start());
    let exporters = grpc(&memory, "") + &delivery("") + "\n" + &http(&durable, "") + &delivery(ON_DISK);
    let gateway = Gateway::start(&config(&disk.path().join("queues"), &exporters, "otlp, otlp_http"));
    let sent = Arc::new(Sent::default());
    let load = Load::start(&gateway, &sent);
    eventually("traffic flows", || if sent.count() > 500 { Ok(()) } else { Err(sent.count()) });
    let filler = disk.fill();
    let refused = || gateway.metrics().sum("otelcol_exporter_enqueue_failed_spans", &[("exporter", "otlp_http")]);
    eventually("the full disk is felt", || if refused() > 0.0 { Ok(()) } else { Err(refused()) });
    let began = Instant::now();
    // Longer than a fan-out insists.
    while began.elapsed() < Duration::from_secs(7) {
        std::thread::sleep(Duration::from_millis(100));
    }
    fs::remove_file(filler).unwrap();
    let at_removal = sent.count();
    eventually("it goes on by itself", || if sent.count() > at_removal + 200 { Ok(()) } else { Err(sent.count()) });
    load.stop();
    for (sink, exporter) in [(&memory, "otlp"), (&durable, "otlp_http")] {
        assert_eq!(sent.wait_until_all_arrived(sink), 0);
        assert_eq!(settled(&gateway, exporter), 0.0);
    }
    let unacknowledged = memory.span_count() - sent.count();
    println!("{} spans acknowledged, {unacknowledged} more reached one exporter", sent.count());
    // Two clients, each with one request on its way when the disk filled up.
    assert!(unacknowledged <= 2 * SPANS, "{unacknowledged}");
}

/// The queue that a gateway of the first version left behind, as its directory was named.
fn old_queue() -> TempDir {
    let storage = TempDir::new().unwrap();
    let queue = storage.path().join("exporter_otlp~5fhttp__traces");
    fs::create_dir(&queue).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/src/storage/tests/v1");
    for file in fs::read_dir(fixture).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), queue.join(file.file_name())).unwrap();
    }
    storage
}

/// Guarantee: what a gateway of the first version had not delivered when it was killed is delivered, and nothing else.
#[test]
fn an_older_versions_queue_is_delivered() {
    let storage = old_queue();
    let sink = Backend::start();
    let config = config(storage.path(), &(http(&sink, "") + &delivery(ON_DISK)), "otlp_http");
    let gateway = Gateway::start(&config);
    eventually("the old spans arrive", || if sink.span_count() == 10 { Ok(()) } else { Err(sink.span_count()) });
    assert_eq!(settled(&gateway, "otlp_http"), 0.0);
    let mut names: Vec<String> = sink
        .traces()
        .iter()
        .flat_map(|request| &request.resource_spans)
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| scope.spans.iter().map(|span| span.name.clone()))
        .collect();
    names.sort();
    let expected: Vec<String> =
        (3..8).flat_map(|trace| (0..2).map(move |span| format!("old-{trace}-{span}"))).collect();
    assert_eq!(names, expected);
}

/// Scenario: the queue was left by `otlp_http`, which the configuration now spells as it once was; beside it lies a
/// queue of the Collector. Guarantee: it is found and delivered; the Collector's is named in a warning, and left alone.
#[test]
fn a_queue_is_found_by_the_old_spelling_beside_the_collectors() {
    let storage = old_queue();
    let collectors = storage.path().join("exporter_otlphttp__traces");
    fs::write(&collectors, "bbolt").unwrap();
    let sink = Backend::start();
    let exporter = (http(&sink, "") + &delivery(ON_DISK)).replace("otlp_http:", "otlphttp:");
    let gateway = Gateway::start(&config(storage.path(), &exporter, "otlphttp"));
    eventually("the old spans arrive", || if sink.span_count() == 10 { Ok(()) } else { Err(sink.span_count()) });
    let ended = gateway.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let warns = |line: &str| line.contains("WARN") && line.contains("exporter_otlphttp__traces (5 bytes)");
    assert!(ended.output.lines().any(warns), "{}", ended.output);
    assert_eq!(fs::read(&collectors).unwrap(), b"bbolt");
}

/// Guarantee: on a queue that a newer version wrote, the gateway does not start, names the file, and touches nothing.
#[test]
fn a_newer_versions_queue_is_refused_by_name() {
    let storage = old_queue();
    let sink = Backend::start();
    let path = storage.path().join("exporter_otlp~5fhttp__traces/00000000000000000007.seg");
    let mut content = fs::read(&path).unwrap();
    content[8] = 99;
    let crc = crc32c(&content[..32]);
    content[32..36].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &content).unwrap();
    let (code, output) =
        Gateway::fail_to_start(&config(storage.path(), &(http(&sink, "") + &delivery(ON_DISK)), "otlp_http"));
    assert_eq!(code, Some(1));
    let expected = "was written by a newer version of nyquist: 00000000000000000007.seg has version 99";
    assert!(output.contains(expected), "{output}");
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(sink.span_count(), 0);
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
