//! A child process whose output is kept, that dies with the test, and whose output is shown when the
//! test fails.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`; `name` is what failures call it.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let output = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("piped"), output.clone());
        collect(child.stderr.take().expect("piped"), output.clone());
        Self { name: name.to_owned(), child, output }
    }

    /// Everything it printed so far, standard output and error in the order of arrival.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no thread panics with it").join("\n")
    }

    /// Sends the signal `signal` (`TERM`, `STOP`, `KILL`).
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill exists");
        assert!(status.success(), "kill -{signal} {pid} ({})", self.name);
    }

    /// Ends the listening of its socket on `port`, as nobody but the kernel could: it keeps the socket, which takes no
    /// connection any more.
    pub(crate) fn break_listener(&self, port: u16) {
        let child = rustix::process::Pid::from_child(&self.child);
        let child = rustix::process::pidfd_open(child, PidfdFlags::empty()).expect("the process lives");
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the process lives");
        let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
        let sockets = numbers.filter_map(|number| {
            let file = rustix::process::pidfd_getfd(&child, number, PidfdGetfdFlags::empty());
            Some(TcpStream::from(file.ok()?))
        });
        // Connections have the same port, and a peer.
        let is_listener =
            |socket: &TcpStream| socket.local_addr().is_ok_and(|own| own.port() == port) && socket.peer_addr().is_err();
        let mut listeners = sockets.filter(is_listener).peekable();
        assert!(listeners.peek().is_some(), "{} does not listen on {port}, or may not be looked at", self.name);
        listeners.for_each(|listener| listener.shutdown(Shutdown::Both).expect("a socket can be shut down"));
    }

    /// Its exit status, if it has ended.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end; fails after `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} still runs after {patience:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the kernel says of it: `/proc/PID/status`.
    pub(crate) fn status(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives")
    }

    /// Resident memory now and its high-water mark, in bytes.
    pub(crate) fn resident(&self) -> (u64, u64) {
        let status = self.status();
        let kilobytes = |key: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel reports it");
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
        };
        (kilobytes("VmRSS:") * 1024, kilobytes("VmHWM:") * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = &lines[lines.len().saturating_sub(200)..];
            eprintln!("--- output of {} (last {} lines)\n{}\n---", self.name, tail.len(), tail.join("\n"));
        }
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            output.lock().expect("no thread panics with it").push(line);
        }
    });
}
