//! Clocks that jump: the wall clock by decades in both directions, and all time at once while the process is stopped.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::support::{Behaviour, long_run};
use super::*;

/// Shifts what the C library says of the wall clock by the seconds in a file. Monotonic time stays.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY) : -1;
    void *at = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) shift = at;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, id, now);
    if (shift && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift;
    return result;
}
"#;

struct Shift {
    directory: TempDir,
    library: PathBuf,
}

impl Shift {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (source, library) = (directory.path().join("shift.c"), directory.path().join("shift.so"));
        fs::write(&source, SHIM).unwrap();
        // Whoever links Rust has it.
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let built = built.expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let shift = Self { directory, library };
        shift.by_years(0);
        shift
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("seconds")
    }

    /// From now on; the file is written over in place, as processes have mapped it.
    fn by_years(&self, years: i64) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.file()).unwrap();
        file.write_all_at(&(years * 365 * 86_400).to_le_bytes(), 0).unwrap();
    }

    fn start(&self, config: &str) -> Gateway {
        let (library, file) = (self.library.display().to_string(), self.file().display().to_string());
        Gateway::start_with(config, &[("LD_PRELOAD", &library), ("CLOCK_SHIFT", &file)])
    }
}

/// Scenario: under load, with outages of the sink, the wall clock goes a century forward and 60 years back, across a
/// `kill -9` too; the process is stopped for a while, so that all clocks jump for it. Guarantee: everything acknowledged
/// arrives, in time; twice only what was on its way when the process was killed or stopped.
#[test]
fn clocks_jump() {
    let stopped = Duration::from_secs(if long_run() { 60 } else { 3 });
    let shift = Shift::new();
    let storage = TempDir::new().unwrap();
    let sink = Backend::start();
    let queue = format!("{ON_DISK}, batch: {{flush_timeout: 100ms}}");
    let config = config(storage.path(), &(grpc(&sink, "") + &delivery(&queue)), "otlp");
    let mut gateway = shift.start(&config);
    let sent = Arc::new(Sent::default());
    let mut before = 0;
    let mut check = |what: &str, bound: usize| {
        let doubled = sent.wait_until_all_arrived(&sink) - before;
        println!("{what}: {doubled} spans came twice");
        assert!(doubled <= bound, "{what}: {doubled} spans came twice, at most {bound} may");
        before += doubled;
    };
    // A merged request holds what came within 100 ms.
    let on_their_way = 2 * CONSUMERS * SPANS * 20;
    let mut load = Load::start(&gateway, &sent);
    let some = || {
        let from = sent.count();
        eventually("traffic flows", || if sent.count() > from + 200 { Ok(()) } else { Err(sent.count() - from) });
    };
    for (years, century) in [(100, "21"), (-60, "19"), (0, "20")] {
        sink.behave(Behaviour::Unavailable);
        some();
        shift.by_years(years);
        some();
        sink.behave(Behaviour::Accept);
        some();
        check(&format!("{years} years"), 0);
        let seen = || gateway.process.output().lines().any(|line| line.starts_with(century));
        eventually("the log has seen the jump", || if seen() { Ok(()) } else { Err(gateway.process.output()) });
    }
    // Records from the past and from the future, read by a process in the present.
    sink.behave(Behaviour::Unavailable);
    for years in [100, -60, 0] {
        shift.by_years(years);
        some();
        gateway.kill();
        load.stop();
        gateway = shift.start(&config);
        load = Load::start(&gateway, &sent);
    }
    sink.behave(Behaviour::Accept);
    check("kill -9 in other times", 0);
    some();
    gateway.process.signal("STOP");
    let began = Instant::now();
    while began.elapsed() < stopped {
        std::thread::sleep(Duration::from_millis(100));
    }
    gateway.process.signal("CONT");
    // Clients that waited for longer than they do have given up.
    load.stop();
    load = Load::start(&gateway, &sent);
    some();
    check("stopped for a while", on_their_way);
    load.stop();
    check("at the end", 0);
    assert_eq!(settled(&gateway, "otlp"), 0.0);
    assert_eq!(gateway.terminate().code, Some(0));
}
