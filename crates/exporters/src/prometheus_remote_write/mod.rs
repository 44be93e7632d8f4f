//! The `prometheus_remote_write` exporter: metrics to Prometheus and everything that takes its
//! remote write protocol, versions 1.0 and 2.0
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>).
//!
//! ```text
//! queue -> translate (in parallel) -> in the queue's order: hand the series to their shards
//!          shard: one request on its way, retries first      (parallel and ordered)
//! ```
//!
//! A push is acknowledged to the queue when all its parts have been dealt with.

mod answer;
mod clashes;
mod config;
mod encode;
mod last_times;
mod metadata;
mod outgoing;
mod pending;
mod protocol;
mod rows;
mod sender;
mod shards;
mod stats;
mod streams;
mod symbols;
mod targets;
mod tenant;
#[cfg(test)]
mod tests;
mod turns;
mod v1;
mod v2;
mod wal;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, NoRoom, Permits, Refusal, Room, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Consumer, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Host, Info, Stability,
    StartError, exporter,
};
use nyquist_core::delivery::{self, Attempt, BatchConfig, Delivery, Health, Outcome, Request, Status};
use nyquist_core::net::client::HttpEndpoint;
use nyquist_core::storage::Storage;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use config::{DropOutOfOrder, LeFormat, RemoteWriteConfig, RemoteWriteQueue, RemoteWriteRetry, TargetInfoConfig};
pub use wal::WalConfig;

use crate::http_client::HttpClientConfig;
use crate::prometheus_mapping::{HashSeed, OwnedTarget, Settings, TargetInfo, Translator};
use clashes::Clashes;
use encode::{EncodeScratch, SeriesSink};
use metadata::MetadataLog;
use pending::Pending;
use protocol::Negotiation;
use rows::Segment;
use sender::Sender;
use shards::Shards;
use stats::Stats;
use streams::StreamState;
use targets::Targets;
use tenant::Tenant;
use turns::{Turn, Turns};
use wal::Wal;

/// How many OTLP requests are being translated or waiting in shards at once.
const PIPELINED: usize = 256;

/// How many bytes of OTLP are being translated or waiting in shards at once.
const PIPELINED_BYTES: usize = 16 << 20;

/// Merging in the queue stops at this size, in bytes of OTLP.
const MAX_MERGED: usize = 4 << 20;

/// The factory of `prometheus_remote_write`.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<RemoteWriteConfig>(Info {
        name: "prometheus_remote_write",
        aliases: &["prometheusremotewrite"],
        signals: &[Signal::Metrics],
        stability: Stability::Beta,
    })
}

impl ExporterConfig for RemoteWriteConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let (http, path) = (self.client(), self.client_path());
        let at = |key: &[&str], problem| BuildError::new(&[path, key].concat(), problem);
        let endpoint = HttpEndpoint::parse(&http.endpoint).map_err(|problem| at(&["endpoint"], problem))?;
        let headers = http.headers.to_map().map_err(|problem| at(&["headers"], problem))?;
        let auth = http.extensions(path, context.extensions)?;
        if let Some(key) = auth.as_ref().and_then(|auth| auth.metadata_keys().into_iter().next()) {
            let problem = format!(
                "{:?} sends what it finds in the client's metadata, and this exporter sends series of several \
                 clients together: use include_metadata_keys: [{key}] instead",
                http.auth.as_ref().map_or("", |auth| &auth.authenticator)
            );
            return Err(at(&["auth", "authenticator"], problem));
        }
        let id = context.id.to_string();
        let stats = Arc::new(Stats::new(&context.telemetry, &id, self.shards()));
        let streams = StreamState::new(self, &context.telemetry, &id, &stats);
        let sender = Sender {
            uri: endpoint.uri.clone(),
            headers,
            auth,
            client: OnceLock::new(),
            timeout: self.timeout(),
            retry: self.retry(),
            retry_on_429: self.retry_on_429,
            negotiation: Negotiation::new(&self.protobuf_message),
            limits: self.limits(),
            ordered_series: self.ordered_series(),
            clock: Arc::clone(&context.clock),
            stats: Arc::clone(&stats),
            health: Health::new(id.clone(), Signal::Metrics.name(), http.endpoint.clone()),
        };
        let shards = Arc::new(Shards::new(sender, self.shards()));
        let settings = Arc::new(self.mapping());
        let seed = HashSeed::default();
        let pipeline = Pipeline {
            shards: Arc::clone(&shards),
            targets: settings
                .target_info
                .then(|| Targets::new(TargetInfo::new(&settings.namespace, &seed).every(self.target_info.interval.0))),
            streams,
            clashes: Arc::new(Clashes::new(seed.clone())),
            metadata: self.send_metadata.then(MetadataLog::new),
            metadata_keys: self.forwarded(),
            idle: Mutex::default(),
            fed: Arc::default(),
            admitted: Arc::default(),
            room: Room::new(PIPELINED_BYTES),
            clock: Arc::clone(&context.clock),
            endpoint,
            http: http.clone(),
            settings,
            seed,
            le_format: self.le_format,
            stats,
        };
        let settings = delivery::Settings {
            kind: "prometheus_remote_write",
            queue: self.pipelined_queue(context.batching.as_ref()),
            // Shards retry and watch the time, each for its own request.
            retry: delivery::RetryConfig { enabled: false, ..Default::default() },
            timeout: std::time::Duration::ZERO,
            endpoint: http.endpoint.clone(),
            max_request_bytes: MAX_MERGED,
        };
        let Some(config) = &self.wal else {
            return Ok(Arc::new(RemoteWrite {
                delivery: Delivery::new(&context, settings, pipeline)?,
                shards,
                wal: None,
            }));
        };
        let directory = config.directory(id.clone(), Arc::clone(&context.telemetry));
        let storage = Arc::clone(&directory) as Arc<dyn Storage>;
        let delivery = Delivery::in_storage(&context, settings, pipeline, storage, &["wal", "directory"])?;
        let wal = Some(Wal { exporter: id, config: config.clone(), directory });
        Ok(Arc::new(RemoteWrite { delivery, shards, wal }))
    }
}

impl RemoteWriteConfig {
    /// The client metadata that is sent on: each key once, in lower case.
    fn forwarded(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.include_metadata_keys.iter().map(|key| key.to_ascii_lowercase()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The queue, of which requests with other headers that are sent too are not merged.
    fn pipelined_queue(&self, pipeline_batching: Option<&BatchConfig>) -> delivery::QueueConfig {
        let mut queue = self.queue();
        // Their places are the shards'.
        queue.num_consumers = self.shards();
        if !self.include_metadata_keys.is_empty() {
            queue.batch = queue.batch.or_else(|| pipeline_batching.cloned());
            if let Some(batch) = &mut queue.batch {
                let known = &mut batch.partition.metadata_keys;
                for key in &self.include_metadata_keys {
                    if !known.iter().any(|there| there.eq_ignore_ascii_case(key)) {
                        known.push(key.clone());
                    }
                }
            }
        }
        queue
    }
}

/// The exporter.
struct RemoteWrite {
    delivery: Arc<Delivery<Pipeline>>,
    shards: Arc<Shards>,
    wal: Option<Wal>,
}

#[async_trait]
impl Consumer for RemoteWrite {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.delivery.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.delivery.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.delivery.metadata_keys()
    }
}

#[async_trait]
impl Component for RemoteWrite {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        if let Some(wal) = &self.wal {
            wal.prepare().await;
        }
        self.delivery.start(host).await
    }

    async fn shutdown(&self, deadline: Instant) {
        // First, so that what shards give up on stays in a queue on disk.
        self.delivery.begin_shutdown();
        self.shards.drain();
        self.delivery.shutdown(deadline).await;
        self.shards.close().await;
    }

    fn status(&self) -> Option<Status> {
        let wal = self.wal.as_ref().and_then(|wal| wal.directory.status()).unwrap_or_default();
        Some(self.shards.health().status().and(wal))
    }
}

/// From a request in the queue to its shards.
struct Pipeline {
    settings: Arc<Settings>,
    seed: HashSeed,
    le_format: LeFormat,
    shards: Arc<Shards>,
    /// For `target_info`, if it is asked for.
    targets: Option<Arc<Targets>>,
    /// Totals of deltas and series to end, if any of it is asked for.
    streams: Option<Arc<StreamState>>,
    clashes: Arc<Clashes>,
    metadata: Option<MetadataLog>,
    /// In lower case.
    metadata_keys: Vec<String>,
    /// Translators that nobody uses now.
    idle: Mutex<Vec<(Translator, EncodeScratch)>>,
    /// The order in which requests get room to be translated.
    admitted: Arc<Turns>,
    /// The order in which translated requests reach the shards.
    fed: Arc<Turns>,
    room: Arc<Room>,
    clock: Arc<dyn Clock>,
    endpoint: HttpEndpoint,
    http: HttpClientConfig,
    stats: Arc<Stats>,
}

/// A request with its place in both orders.
struct Queued {
    request: Request,
    admission: Mutex<Option<Turn>>,
    feeding: Mutex<Option<Turn>>,
}

/// A request, translated.
struct Translated {
    segments: Vec<Segment>,
    targets: Vec<OwnedTarget>,
    has_neighbours: bool,
    untranslatable: usize,
}

#[async_trait]
impl Attempt for Pipeline {
    type Encoded = Queued;

    /// They only keep the shards supplied.
    fn in_flight(&self, _: usize) -> usize {
        PIPELINED
    }

    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let client = self.http.connect(&self.endpoint, host.runtimes.workers(), &self.clock)?;
        self.shards.start(&host.runtimes, client);
        if let Some(streams) = &self.streams {
            host.runtimes.spawn(streams.sweeps(&self.shards, &self.clashes, &self.clock));
        }
        if let Some(targets) = &self.targets {
            host.runtimes.spawn(targets.sweeps(&self.shards, &self.stats, &self.clock));
        }
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.metadata_keys.clone()
    }

    fn encode(&self, request: &Request) -> Result<Queued, Outcome> {
        let order = request.order();
        Ok(Queued {
            request: request.clone(),
            admission: Mutex::new(Some(self.admitted.take(order))),
            feeding: Mutex::new(Some(self.fed.take(order))),
        })
    }

    async fn attempt(&self, queued: &Queued) -> Outcome {
        let (admission, feeding) = (queued.admission.lock().take(), queued.feeding.lock().take());
        let (Some(admission), Some(feeding)) = (admission, feeding) else {
            return Outcome::Delivered;
        };
        // Room is given in order, so that whoever is next to feed always has it.
        admission.come().await;
        let _room = self.room.reserve(queued.request.size().min(PIPELINED_BYTES)).await;
        drop(admission);
        if self.streams.is_some() {
            // Totals need their deltas in the queue's order.
            feeding.come().await;
        }
        let tenant = Tenant::of(queued.request.metadata(), &self.metadata_keys, &self.seed);
        let translated = self.translate(&queued.request, &tenant);
        feeding.come().await;
        let (pending, untranslatable) = self.feed(translated, &tenant);
        drop(feeding);
        let result = pending.done().await;
        self.outcome(queued.request.items(), untranslatable, result)
    }
}

impl Pipeline {
    fn translate(&self, request: &Request, tenant: &Tenant) -> Translated {
        let idle = self.idle.lock().pop();
        let (mut translator, mut scratch) = idle.unwrap_or_else(|| {
            (Translator::new(Arc::clone(&self.settings), self.seed.clone()), EncodeScratch::new(self.le_format))
        });
        translator.enter(tenant.partition());
        let mut sink = self.sink(&mut scratch, tenant);
        match &self.streams {
            None => request.parts().iter().for_each(|part| translator.translate(part, &mut sink)),
            Some(streams) => streams.translate(request, &mut translator, &mut sink, self.clock.now()),
        }
        let SeriesSink { segments, targets, has_neighbours, untranslatable, series, .. } = sink;
        self.stats.translated(series);
        self.idle.lock().push((translator, scratch));
        Translated { segments, targets, has_neighbours, untranslatable }
    }

    fn sink<'a>(&'a self, scratch: &'a mut EncodeScratch, tenant: &Tenant) -> SeriesSink<'a> {
        SeriesSink {
            metadata: self.metadata.as_ref().map(|log| (log, self.clock.now())),
            partition: tenant.partition(),
            ..SeriesSink::new(self.shards.count(), scratch, &self.stats)
        }
    }

    /// Hands the series, and the `target_info` that is due, to their shards.
    fn feed(&self, translated: Translated, tenant: &Tenant) -> (Arc<Pending>, usize) {
        let Translated { mut segments, targets, has_neighbours, mut untranslatable } = translated;
        if has_neighbours {
            self.clashes.settle(&mut segments, tenant.partition(), self.clock.now(), |metric, points| {
                untranslatable += points;
                self.stats.clashing(metric, points);
            });
        }
        let mut target_info = self.targets.as_ref().map(|known| known.lock());
        if let Some(target_info) = &mut target_info {
            let mut scratch = EncodeScratch::new(self.le_format);
            let mut sink = SeriesSink { segments, ..self.sink(&mut scratch, tenant) };
            let now = self.clock.now();
            targets.iter().for_each(|target| target_info.note_of(&target.view(), tenant, now));
            target_info.emit_noted(&mut sink);
            self.stats.translated(sink.series);
            segments = sink.segments;
        }
        let chunks = segments.iter().map(|segment| segment.chunks.len()).sum();
        let pending = Arc::new(Pending::new(chunks));
        self.shards.feed(segments, tenant.headers(), &pending);
        if let Some(target_info) = &mut target_info {
            targets::end_silent(target_info, &self.shards, &self.stats, &*self.clock);
        }
        (pending, untranslatable)
    }

    fn outcome(&self, items: usize, untranslatable: usize, result: pending::Result) -> Outcome {
        let pending::Result { mut lost, loss } = result;
        let Some(loss) = loss else {
            if untranslatable > 0 {
                lost.push((DropReason::Untranslatable, untranslatable));
            }
            return Outcome::Settled { lost: lost.into_iter().collect(), message: String::new() };
        };
        let all: usize = lost.iter().map(|(_, items)| items).sum();
        if lost.len() == 1 && all >= items {
            // Nothing was delivered: the sender, if it waits, should know why.
            return match loss.reason {
                DropReason::Rejected => Outcome::Refused { code: loss.code, message: loss.message },
                _ => Outcome::Retry { code: loss.code, after: None, message: loss.message },
            };
        }
        if untranslatable > 0 {
            lost.push((DropReason::Untranslatable, untranslatable));
        }
        // The sender has logged it, with the names of the metrics.
        Outcome::Settled { lost: lost.into_iter().collect(), message: String::new() }
    }
}
