//! `otlp_json_file`: reads OTLP/JSON from files, a request on each line, as the `file` exporter writes
//! them.
//!
//! A line is taken when a pipeline has accepted it. While one says "later", the receiver waits and
//! offers it again: nothing is passed over, and files do not go away. How far they have been read is kept in
//! a storage extension, if one is named.

mod config;
mod follow;
mod glob;
mod offsets;
mod source;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Host, Info, Receiver, ReceiverConfig, ReceiverContext, ReceiverFactory, Stability,
    StartError, Trouble, receiver,
};
use nyquist_core::delivery::{LogGate, Status};
use nyquist_core::net::admission::Admission;
use nyquist_core::storage::Storage;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};

pub use config::{Compression, OtlpJsonFileConfig, StartAt};

use crate::otlp::{Lane, json};
use follow::{Follower, Line, Step};
use offsets::Offsets;

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
        let storage = self.storage.as_ref().map(|storage| context.extensions.storage(storage)).transpose();
        let storage = storage.map_err(|error| BuildError::new(&["storage"], error))?;
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
            name: context.id.name,
            storage,
            clock: context.clock,
            reader: Arc::new(reader),
            trouble: Arc::default(),
            stop: watch::Sender::new(false),
            task: Mutex::new(None),
        }))
    }
}

/// The receiver.
struct OtlpJsonFile {
    config: OtlpJsonFileConfig,
    /// The name in its id.
    name: String,
    storage: Option<Arc<dyn Storage>>,
    clock: Arc<dyn Clock>,
    reader: Arc<Reader>,
    /// Files that cannot be read.
    trouble: Arc<Trouble>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[async_trait]
impl Component for OtlpJsonFile {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let (mut offsets, mut found) = (None, None);
        if let Some(storage) = &self.storage {
            let (receiver, clock) = (self.reader.receiver.clone(), Arc::clone(&self.clock));
            let (opened, known) = Offsets::open(&**storage, &self.name, receiver, clock).await?;
            (offsets, found) = (Some(opened), known);
        }
        let follower = Follower::new(&self.config, Arc::clone(&self.clock), found).map_err(StartError)?;
        let stop = self.stop.subscribe();
        let (reader, trouble) = (Arc::clone(&self.reader), Arc::clone(&self.trouble));
        let run = Run { reader, trouble, offsets, pause: self.config.poll_interval.0, stop };
        let run = run.follow(follower);
        *self.task.lock() = Some(host.runtimes.spawn(host.runtimes.vital("reading of OTLP/JSON files", run)));
        Ok(())
    }

    fn status(&self) -> Option<Status> {
        Some(self.trouble.status())
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

/// The rounds over the files.
struct Run {
    reader: Arc<Reader>,
    trouble: Arc<Trouble>,
    offsets: Option<Offsets>,
    pause: Duration,
    stop: watch::Receiver<bool>,
}

impl Run {
    /// Goes on until told to stop.
    async fn follow(mut self, mut follower: Follower) {
        while !*self.stop.borrow() {
            let Some((step, returned)) = blocking(follower, Follower::step).await else { return };
            follower = returned;
            let is_stopped = !self.deliver(&step, &mut follower).await;
            let bytes = step.lines.iter().map(|line| line.bytes.len()).sum();
            if let Some(offsets) = &mut self.offsets
                && (offsets.delivered(bytes) || step.is_round_done || is_stopped)
            {
                let Some((now, returned)) = blocking(follower, Follower::offsets).await else { return };
                follower = returned;
                offsets.save(now).await;
            }
            if is_stopped {
                break;
            }
            if step.is_round_done {
                self.trouble.set(follower.trouble());
                tokio::select! {
                    () = sleep(self.pause) => {}
                    _ = self.stop.wait_for(|stop| *stop) => {}
                }
            }
        }
        if let Some(offsets) = self.offsets {
            offsets.close().await;
        }
    }

    /// Hands on what a step gave. `false`: it was stopped in the middle.
    async fn deliver(&mut self, step: &Step, follower: &mut Follower) -> bool {
        if step.too_long > 0 {
            self.reader.bad_line("longer than max_log_size", step.too_long);
        }
        for line in &step.lines {
            if !self.reader.deliver(line, &mut self.stop).await {
                return false;
            }
            follower.taken(line.file, line.end);
        }
        true
    }
}

/// Lets `follower` do what blocks, on a thread for that.
async fn blocking<T: Send + 'static>(
    mut follower: Follower,
    work: impl FnOnce(&mut Follower) -> T + Send + 'static,
) -> Option<(T, Follower)> {
    let work = move || {
        let done = work(&mut follower);
        (done, follower)
    };
    spawn_blocking(work).await.ok()
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
                let Err(rejection) = lane.take(message.clone(), None, room, None).await else { break };
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
