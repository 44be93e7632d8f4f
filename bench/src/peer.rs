//! The process that is measured.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program under measurement.
#[derive(Clone)]
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
}

/// It, running on cores of its own.
pub struct Running {
    child: Child,
    log: PathBuf,
    page_size: u64,
}

impl Running {
    /// Starts `program` with `config` on `cores` (as taskset writes them) and waits for `port`.
    pub fn start(program: &Program, config: &Path, cores: &str, port: u16) -> Self {
        let log = config.with_extension(format!("{}.log", program.name));
        let output = fs::File::create(&log).expect("the log can be written");
        let errors = output.try_clone().expect("the log can be written twice");
        let child = Command::new("taskset")
            .args(["-c", cores])
            .arg(&program.path)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.path.display()));
        let mut running = Self { child, log, page_size: page_size() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = running.child.try_wait().expect("a child of ours").is_some();
            assert!(!ended && Instant::now() < deadline, "{} does not listen:\n{}", program.name, running.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> Duration {
        cpu_time(&self.child.id().to_string()).unwrap_or_else(|| self.died())
    }

    /// Resident bytes.
    pub fn resident(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_else(|_| self.died());
        let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number of pages");
        pages * self.page_size
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn died(&self) -> ! {
        panic!("it ended in the middle of a measurement:\n{}", self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// User and system time of a process so far.
pub fn cpu_time(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let ticks = |index: usize| after_name.split(' ').nth(index)?.parse::<u64>().ok();
    // Fields 14 and 15; the kernel shows times in 1/100 s everywhere.
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn page_size() -> u64 {
    let output = Command::new("getconf").arg("PAGESIZE").output().expect("getconf exists");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}
