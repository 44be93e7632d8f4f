//! `otlp_json_file`: reads OTLP/JSON from files, a request on each line, as the `file` exporter writes
//! them.
//!
//! A line is taken when a pipeline has accepted it. While one says "later", the receiver waits and
//! offers it again: nothing is passed over, and files do not go away.

mod config;
mod follow;
mod glob;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::component::{
    BuildError, Component, Host, Info, Receiver, ReceiverConfig, ReceiverContext, ReceiverFactory, Stability,
    StartError, receiver,
};
use nyquist_core::delivery::LogGate;
use nyquist_core::net::admission::Admission;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};

pub use config::{OtlpJsonFileConfig, StartAt};

use crate::otlp::{Lane, json};
use follow::{Follower, Line};

/// The receiver's factory.
#[must_use]
pub fn factory() -> ReceiverFactory {
    receiver::<OtlpJsonFileConfig>(Info {
        name: "otlp_json_file",
        aliases: &["otlpjsonfile"],
        signals: &Signal::ALL,
        stability: Stability::Alpha,
    })
}

impl ReceiverConfig for OtlpJsonFileConfig {
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        let id = context.id.to_string();
        let lanes = Lane::all(&id, "file", &context.outputs, &context.telemetry);
        let reader = Reader {
            receiver: id,
            lanes: lanes.into_iter().flatten().collect(),
            admission: Admission::new(usize::MAX),
            bad_lines: LogGate::default(),
            longest: usize::try_from(self.max_log_size.0).unwrap_or(usize::MAX),
        };
        Ok(Arc::new(OtlpJsonFile {
            config: self.clone(),
            reader: Arc::new(reader),
            stop: watch::Sender::new(false),
            task: Mutex::new(None),
        }))
    }
}

/// The receiver.
struct OtlpJsonFile {
    config: OtlpJsonFileConfig,
    reader: Arc<Reader>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[async_trait]
impl Component for OtlpJsonFile {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let follower = Follower::new(&self.config).map_err(StartError)?;
        let stop = self.stop.subscribe();
        let run = run(Arc::clone(&self.reader), follower, self.config.poll_interval.0, stop);
        *self.task.lock() = Some(host.runtimes.spawn(host.runtimes.vital("reading of OTLP/JSON files", run)));
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        let _ = self.stop.send(true);
        let task = self.task.lock().take();
        let Some(task) = task else { return };
        if timeout_at(deadline, task).await.is_err() {
            tracing::warn!(receiver = self.reader.receiver, "a line was still being processed at the deadline");
        }
    }
}

impl Receiver for OtlpJsonFile {}

/// Rounds over the files, until told to stop.
async fn run(reader: Arc<Reader>, mut follower: Follower, pause: Duration, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let read = spawn_blocking(move || {
            let step = follower.step();
            (follower, step)
        });
        let Ok((returned, step)) = read.await else { return };
        follower = returned;
        if step.too_long > 0 {
            reader.bad_line("longer than max_log_size", step.too_long);
        }
        for line in step.lines {
            if !reader.deliver(&line, &mut stop).await {
                return;
            }
            follower.taken(line.file, line.end);
        }
        if step.is_round_done {
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
}

/// Takes lines apart and hands them on.
struct Reader {
    receiver: String,
    lanes: Vec<Arc<Lane>>,
    admission: Arc<Admission>,
    bad_lines: LogGate,
    longest: usize,
}

impl Reader {
    /// Offers `line` until it is accepted, or refused for good. `false` if that was not to be before
    /// the stop.
    async fn deliver(&self, line: &Line, stop: &mut watch::Receiver<bool>) -> bool {
        if line.bytes.iter().all(u8::is_ascii_whitespace) {
            return true;
        }
        for lane in &self.lanes {
            let message = match json::to_wire(lane.signal, &line.bytes, self.longest) {
                Ok(message) => bytes::Bytes::from(message),
                Err(error) => {
                    lane.count_failure();
                    self.bad_line(&format!("in {}, before byte {}: {error}", line.path.display(), line.end), 1);
                    return true;
                }
            };
            // A line of another signal.
            if message.is_empty() {
                continue;
            }
            loop {
                let Some(room) = self.admission.admit(message.len()) else { return false };
                let Err(rejection) = lane.take(message.clone(), None, room).await else { break };
                let Some(delay) = rejection.retry else {
                    self.bad_line(&rejection.message, 1);
                    break;
                };
                tokio::select! {
                    () = sleep(delay) => {}
                    _ = stop.wait_for(|stop| *stop) => return false,
                }
            }
        }
        true
    }

    fn bad_line(&self, error: &str, lines: usize) {
        if let Some(since) = self.bad_lines.event(lines) {
            tracing::warn!(receiver = self.receiver, lines = since.items, error, "left out lines");
        }
    }
}
