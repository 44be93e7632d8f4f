//! The log as components see it: real files, a thread, answers that are awaited.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures_util::future::join_all;

use super::{Incoming, limits, open, record};
use crate::batch::Signal;
use crate::storage::*;

fn options(directory: &tempfile::TempDir) -> Options {
    Options { lock_timeout: Duration::ZERO, ..Options::new(directory.path().join("log")) }
}

async fn append(log: &Log, text: &str) -> Result<Position, Error> {
    log.append(1, 2, 3, vec![Bytes::copy_from_slice(text.as_bytes())]).await
}

async fn texts(log: &Log) -> Vec<String> {
    let chunk = log.read(Cursor::default(), 1 << 20).await.unwrap();
    chunk.records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn what_is_appended_is_there_after_a_restart_until_it_is_released() {
    let directory = tempfile::tempdir().unwrap();
    for fsync in [Fsync::None, Fsync::Interval(Duration::from_millis(1)), Fsync::Always] {
        let options = Options { fsync, ..options(&directory) };
        let (log, recovered) = Log::open(&options).await.unwrap();
        assert_eq!(recovered.records, 0);
        let mut appended = join_all((0..100).map(|index| {
            let log = log.clone();
            async move {
                let text = format!("{index:03}");
                (append(&log, &text).await.unwrap(), text)
            }
        }))
        .await;
        // Who comes first is nobody's promise.
        appended.sort_by_key(|(position, _)| position.sequence);
        log.release(appended[3].0.sequence);
        log.release_before(appended[2].0.sequence);
        log.close().await;
        assert_eq!(append(&log, "late").await.unwrap_err(), Error::Closed);

        let (log, recovered) = Log::open(&options).await.unwrap();
        assert_eq!((recovered.records, recovered.weight, recovered.bytes), (97, 194, 291));
        let texts = texts(&log).await;
        assert_eq!(texts.len(), 97);
        assert_eq!(texts[..2], [&*appended[2].1, &*appended[4].1]);
        let chunk = log.read(Cursor::at(appended[98].0), 1 << 20).await.unwrap();
        assert_eq!(chunk.records.len(), 2);
        // What comes later is found where reading stopped.
        let late = append(&log, "late").await.unwrap();
        let chunk = log.read(chunk.next, 1 << 20).await.unwrap();
        assert_eq!(chunk.records[0].position, late);
        log.release_before(late.sequence + 1);
        log.close().await;
        assert_eq!(log.usage().records, 0);
    }
}

#[tokio::test]
async fn two_processes_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(&options(&directory)).await.unwrap();
    let error = Log::open(&options(&directory)).await.err().unwrap();
    assert!(matches!(error, Error::Locked { .. }));
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    log.close().await;
    assert!(Log::open(&options(&directory)).await.is_ok());
}

#[tokio::test]
async fn a_dropped_log_lets_go() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(&options(&directory)).await.unwrap();
    append(&log, "kept").await.unwrap();
    drop(log);
    let patient = Options { lock_timeout: Duration::from_secs(20), ..options(&directory) };
    let (log, _) = Log::open(&patient).await.unwrap();
    assert_eq!(texts(&log).await, ["kept"]);
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(&options(&directory)).await.unwrap();
    let position = append(&log, "a").await.unwrap();
    append(&log, "b").await.unwrap();
    log.release(position.sequence);
    log.close().await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path().join("log")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["00000000000000000001.ack", "00000000000000000001.seg", "lock"]);
}

/// A bug in the log must not leave its users waiting for ever.
#[tokio::test]
async fn a_log_that_failed_says_so() {
    let disk = faulty::FaultyDisk::new(0);
    let own = disk.clone();
    let (log, _) = Log::open_with(&Options::new("memory".into()), move || Ok(own)).await.unwrap();
    disk.set_faults(faulty::Faults { panic: true, ..Default::default() });
    assert_eq!(append(&log, "a").await.unwrap_err(), Error::Closed);
    assert_eq!(append(&log, "b").await.unwrap_err(), Error::Closed);
    assert_eq!(log.read(Cursor::default(), 1).await.unwrap_err(), Error::Closed);
    log.close().await;
}

/// Waits for what the log's thread does by itself.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let done = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), done).await.is_ok(), "waited too long until {what}");
}

/// Guarantee: what waits for the log's thread is committed together, with one fsync.
#[test]
fn appends_are_committed_in_groups() {
    let disk = faulty::FaultyDisk::new(0);
    let (mut engine, _) = open(&disk, limits(Fsync::Always, 1 << 30));
    for round in 1..=3 {
        let group: Vec<Incoming> = (0..1000).map(|_| record(b"a")).collect();
        assert!(engine.append(&group).iter().all(Result::is_ok));
        assert_eq!(disk.syncs(), round);
    }
}

/// Guarantee: at `fsync: true` an append is not answered before fsync has worked.
#[tokio::test]
async fn nothing_is_answered_before_it_is_synced() {
    let disk = faulty::FaultyDisk::new(0);
    let own = disk.clone();
    let options = Options { fsync: Fsync::Always, ..Options::new("memory".into()) };
    let (log, _) = Log::open_with(&options, move || Ok(own)).await.unwrap();
    append(&log, "a").await.unwrap();
    assert!(disk.syncs() > 0);
    disk.set_faults(faulty::Faults { sync: 100, ..Default::default() });
    assert!(matches!(append(&log, "b").await, Err(Error::Io { .. })), "not synced is not answered");
    assert!(log.check_room(1).is_err(), "and whoever asks is told so");
}

/// Scenario: the disk is full, then it is not; nobody appends. Guarantee: whoever asks for room is refused as long as the
/// disk is full, and let in when the log has found out by itself that it is not; nothing is left of how it did.
#[tokio::test]
async fn a_disk_that_failed_is_tried_until_it_works() {
    let disk = faulty::FaultyDisk::new(0);
    let own = disk.clone();
    let (log, _) = Log::open_with(&Options::new("memory".into()), move || Ok(own)).await.unwrap();
    disk.set_faults(faulty::Faults { no_space: 100, ..Default::default() });
    assert!(matches!(append(&log, "a").await, Err(Error::NoSpace { .. })));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(matches!(log.check_room(1), Err(Error::NoSpace { .. })), "still full");
    let freed = log.freed();
    disk.set_faults(faulty::Faults::default());
    until("the disk works", || log.check_room(1).is_ok()).await;
    freed.await;
    assert_eq!(disk.names(), Vec::<String>::new());
    append(&log, "b").await.unwrap();
}

/// Scenario: the log is full, and records are released one by one, in any order. Guarantee: whoever waits for room hears of
/// it every time, though the room is in files that other records keep, or in the one that is open.
#[tokio::test]
async fn whoever_waits_hears_of_room() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: 64 << 10, ..options(&directory) };
    let (log, _) = Log::open(&options).await.unwrap();
    let payload = || vec![Bytes::from(vec![0; 1000])];
    let mut held = Vec::new();
    let mut waits = 0;
    for _ in 0..300 {
        loop {
            let freed = log.freed();
            match log.append(1, 1, 1, payload()).await {
                Ok(position) => break held.push(position.sequence),
                Err(Error::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            waits += 1;
            let mut freed = std::pin::pin!(freed);
            loop {
                log.release(held.swap_remove(waits * 7 % held.len()));
                let patience = Duration::from_millis(if held.len() > 10 { 5 } else { 60_000 });
                let heard = tokio::time::timeout(patience, &mut freed).await.is_ok();
                assert!(heard || held.len() > 10, "nearly everything is released, and nobody says so");
                if heard {
                    break;
                }
            }
        }
    }
    assert!(waits > 10, "{waits}");
}

/// Scenario: the log is full, of records that are released one by one. Guarantee: whoever only asks is let in as soon as
/// there is room, though the room is in the segment that is still open.
#[tokio::test]
async fn asking_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { max_bytes: 64 << 10, ..options(&directory) };
    let (log, _) = Log::open(&options).await.unwrap();
    let large = vec![Bytes::from(vec![0; 60_000])];
    let position = log.append(1, 1, 1, large.clone()).await.unwrap();
    assert!(matches!(log.check_room(60_000), Err(Error::Full { .. })));
    let freed = log.freed();
    log.release(position.sequence);
    until("there is room", || log.check_room(60_000).is_ok()).await;
    freed.await;
    log.append(1, 1, 1, large).await.unwrap();
}

#[tokio::test]
async fn large_records_pass_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(&options(&directory)).await.unwrap();
    let pieces: Vec<Bytes> = (0..3000u32).map(|index| Bytes::from(vec![index as u8; 10_000])).collect();
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    log.append(1, 0, 0, pieces).await.unwrap();
    let chunk = log.read(Cursor::default(), 1).await.unwrap();
    assert_eq!(chunk.records.len(), 1);
    assert!(chunk.records[0].payload == whole);
}

#[test]
fn each_owner_has_a_directory() {
    let name = |kind: &str, name: &str| Owner::exporter(kind, name, Signal::Traces).directory_name();
    assert_eq!(name("otlp", ""), "exporter_otlp__traces");
    assert_eq!(name("otlp", "main"), "exporter_otlp_main_traces");
    assert_eq!(name("otlp_http", "a/../b"), "exporter_otlp~5fhttp_a~2f..~2fb_traces");
    assert_ne!(name("otlp", "http_x"), name("otlp_http", "x"));
    let long = name("otlp", &"x".repeat(1000));
    assert!(long.len() < 200);
    assert_ne!(long, name("otlp", &"x".repeat(1001)));
}
