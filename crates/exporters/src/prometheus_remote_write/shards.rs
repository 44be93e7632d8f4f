//! Senders: parallel over series, strictly sequential for each one.
//!
//! A shard has one request on its way, and that request's retries come before everything behind
//! it. What arrives meanwhile is collected and goes into the next request: under load requests are
//! full, without a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use nyquist_core::delivery::Health;
use nyquist_core::runtime::Runtimes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::outgoing::{Outgoing, Waiting};
use super::pending::Pending;
use super::rows::Segment;
use super::sender::{Desk, Phase, Sender};
use crate::http_client::HttpClient;

#[derive(Default)]
struct Shard {
    waiting: Mutex<VecDeque<Waiting>>,
    arrived: Notify,
}

/// All senders of an exporter.
pub(super) struct Shards {
    sender: Arc<Sender>,
    shards: Vec<Arc<Shard>>,
    phase: watch::Sender<Phase>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Shards {
    pub(super) fn new(sender: Sender, count: usize) -> Self {
        Self {
            sender: Arc::new(sender),
            shards: (0..count.max(1)).map(|_| Arc::default()).collect(),
            phase: watch::Sender::new(Phase::Running),
            tasks: Mutex::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn health(&self) -> &Health {
        &self.sender.health
    }

    /// Starts the senders, spread over the workers.
    pub(super) fn start(&self, runtimes: &Runtimes, client: HttpClient) {
        // Started once: `Component::start` is.
        let _ = self.sender.client.set(client);
        let spawn = |(index, shard): (usize, &Arc<Shard>)| {
            let (sender, shard, phase) = (Arc::clone(&self.sender), Arc::clone(shard), self.phase.subscribe());
            let run = async move { shard.run(&sender, phase).await };
            runtimes.spawn_on(index, runtimes.vital("a shard of prometheus_remote_write", run))
        };
        self.tasks.lock().extend(self.shards.iter().enumerate().map(spawn));
    }

    /// Hands over the segments of a push, one for each shard.
    pub(super) fn feed(&self, segments: Vec<Segment>, headers: &Arc<HeaderMap>, pending: &Arc<Pending>) {
        for (shard, segment) in self.shards.iter().zip(segments) {
            if !segment.chunks.is_empty() {
                shard.waiting.lock().push_back(Waiting::new(segment, Arc::clone(headers), Arc::clone(pending)));
                shard.arrived.notify_one();
            }
        }
    }

    /// From now on everything gets one attempt, and nobody waits.
    pub(super) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Ends the senders; what is left is dropped.
    pub(super) async fn close(&self) {
        self.phase.send_replace(Phase::Closed);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            let _ = timeout(Duration::from_secs(1), task).await;
        }
    }
}

impl Shard {
    /// Sends what waits, one request after the other.
    async fn run(&self, sender: &Sender, phase: watch::Receiver<Phase>) {
        let mut closing = phase.clone();
        let work = async {
            let mut desk = Desk::new(sender, phase);
            loop {
                let outgoing = Outgoing::take(&mut self.waiting.lock(), sender.limits);
                if outgoing.is_empty() {
                    self.arrived.notified().await;
                } else {
                    sender.send(outgoing, &mut desk).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = closing.wait_for(|&phase| phase == Phase::Closed) => {}
        }
    }
}
