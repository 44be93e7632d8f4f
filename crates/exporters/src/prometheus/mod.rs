//! The `prometheus` exporter: a page that Prometheus scrapes.
//!
//! Keeps the latest value of every series, adds up deltas, and forgets series that have no new
//! points. Values are in memory only: the store is the destination, and what reaches it counts as
//! exported.

mod config;
mod escape;
mod negotiate;
mod page;
mod pages;
mod protobuf;
mod store;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Refusal, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    BuildError, Component, Consumer, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Host, Info,
    ServerAuth, Stability, StartError, exporter,
};
use nyquist_core::net::server::{Server, Settings as ServerSettings};
use nyquist_core::net::tls::{ServerTls, ServerTlsConfig};
use nyquist_core::telemetry::{Counter, Entry, Ledger, Telemetry, UpDown};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use config::PrometheusConfig;

use crate::prometheus_mapping::{
    Family, HashSeed, Losses, LostExemplars, LostLabels, OwnedTarget, Point, Settings, Sink, Target, TargetInfo,
    Translator, Untranslatable,
};
use escape::Clashes;
use page::ScrapePage;
use pages::Pages;
use store::Store;

/// The factory of `prometheus`.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<PrometheusConfig>(Info {
        name: "prometheus",
        aliases: &[],
        signals: &[Signal::Metrics],
        stability: Stability::Beta,
    })
}

impl ExporterConfig for PrometheusConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        Ok(self.make(&context)?)
    }
}

impl PrometheusConfig {
    fn make(&self, context: &ExporterContext<'_>) -> Result<Arc<PrometheusExporter>, BuildError> {
        let auth = match &self.auth {
            Some(auth) => {
                let found = context.extensions.server_auth(&auth.authenticator);
                Some(found.map_err(|problem| BuildError::new(&["auth", "authenticator"], problem))?)
            }
            None => None,
        };
        let id = context.id.to_string();
        let settings = Arc::new(self.mapping());
        let seed = HashSeed::default();
        Ok(Arc::new(PrometheusExporter {
            stats: Arc::new(Stats::new(&context.telemetry, &id)),
            store: Arc::new(Store::new(self.bounds())),
            target_info: Mutex::new(self.target_info(&settings.namespace, &seed)),
            translators: Mutex::default(),
            settings,
            seed,
            ledger: context.ledger.clone(),
            clock: Arc::clone(&context.clock),
            config: self.clone(),
            auth,
            server: Mutex::default(),
            id,
        }))
    }

    /// The page has the latest value, as long as it has the other series of the target.
    fn target_info(&self, namespace: &str, seed: &HashSeed) -> TargetInfo {
        TargetInfo::new(namespace, seed).every(Duration::ZERO).gone_after(self.metric_expiration.0)
    }
}

/// The exporter.
struct PrometheusExporter {
    id: String,
    config: PrometheusConfig,
    settings: Arc<Settings>,
    seed: HashSeed,
    /// Translators that nobody uses now.
    translators: Mutex<Vec<Translator>>,
    target_info: Mutex<TargetInfo>,
    store: Arc<Store>,
    stats: Arc<Stats>,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    auth: Option<Arc<dyn ServerAuth>>,
    server: Mutex<Option<Server>>,
}

#[async_trait]
impl Consumer for PrometheusExporter {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let items = batch.items();
        let idle = self.translators.lock().pop();
        let mut translator = idle.unwrap_or_else(|| Translator::new(Arc::clone(&self.settings), self.seed.clone()));
        let now = self.clock.now();
        let mut sink =
            StoreSink { store: &self.store, stats: &self.stats, targets: Vec::new(), now, conflicting: false, lost: 0 };
        translator.translate(batch.wire(), &mut sink);
        self.put_targets(&mut sink);
        let lost = sink.lost.min(items);
        self.translators.lock().push(translator);
        self.ledger.add(Entry::Accepted, items);
        self.ledger.add(Entry::Exported, items - lost);
        self.ledger.dropped(DropReason::Untranslatable, lost);
        self.stats.sent.inc_by((items - lost) as u64);
        self.stats.failed.inc_by(lost as u64);
        self.stats.series.set(i64::try_from(self.store.len()).unwrap_or(i64::MAX));
        self.stats.bytes.set(i64::try_from(self.store.bytes()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

impl PrometheusExporter {
    fn scrape_page(&self) -> ScrapePage {
        ScrapePage {
            store: Arc::clone(&self.store),
            stats: Arc::clone(&self.stats),
            clock: Arc::clone(&self.clock),
            auth: self.auth.clone(),
            open_metrics: self.config.enable_open_metrics,
            timestamps: self.config.send_timestamps,
            response_headers: self.config.headers(),
            pages: Arc::new(Pages::new(self.config.bounds().bytes)),
        }
    }

    /// A target whose labels have changed must not be there twice.
    fn put_targets(&self, sink: &mut StoreSink<'_>) {
        let targets = std::mem::take(&mut sink.targets);
        if targets.is_empty() {
            return;
        }
        let unix_millis = i64::try_from(self.clock.unix_nanos() / 1_000_000).unwrap_or(i64::MAX);
        let mut target_info = self.target_info.lock();
        targets.iter().for_each(|target| target_info.note(&target.view(), sink.now));
        target_info.emit(sink.now, unix_millis, sink);
    }
}

#[async_trait]
impl Component for PrometheusExporter {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let mut settings = ServerSettings::new(&self.config.endpoint);
        let nonzero = |duration: Duration| (!duration.is_zero()).then_some(duration);
        settings.family = self.config.family().unwrap_or_default();
        settings.head_timeout = nonzero(self.config.read_header_timeout.0);
        settings.write_timeout = nonzero(self.config.write_timeout.0);
        settings.keepalive.max_idle = nonzero(self.config.idle_timeout.0);
        settings.reuse_http1 = self.config.keep_alives_enabled;
        settings.tls = self.config.tls.as_ref().map(server_tls).transpose()?;
        let server = Server::start(settings, Arc::new(self.scrape_page()), &host.runtimes).await;
        let server = server.map_err(|error| StartError(format!("exporter {}: {error}", self.id)))?;
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        tracing::info!(exporter = self.id, "metrics are at {scheme}://{}/metrics", server.address());
        *self.server.lock() = Some(server);
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        let server = self.server.lock().take();
        if let Some(server) = server {
            server.shutdown(deadline).await;
        }
    }
}

fn server_tls(config: &ServerTlsConfig) -> Result<Arc<ServerTls>, StartError> {
    ServerTls::new(config, &["h2", "http/1.1"]).map_err(|error| StartError(format!("tls: {error}")))
}

/// Puts what a translator finds into the store.
struct StoreSink<'a> {
    store: &'a Store,
    stats: &'a Stats,
    /// What there is to say in `target_info`.
    targets: Vec<OwnedTarget>,
    now: Duration,
    /// The current metric has the name of one with another type.
    conflicting: bool,
    /// Data points that were not stored.
    lost: usize,
}

impl Sink for StoreSink<'_> {
    fn metric(&mut self, family: &Arc<Family>, description: &[u8]) {
        self.conflicting = !self.store.admit(family, description, self.now);
    }

    fn point(&mut self, point: &Point<'_>) {
        let stored = if self.conflicting { Err(Untranslatable::TypeConflict) } else { self.store.put(point, self.now) };
        if let Err(reason) = stored {
            self.dropped(reason, point.family.name.as_bytes(), point.items);
        }
    }

    fn target(&mut self, target: &Target<'_>) {
        self.targets.push(target.into());
    }

    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize) {
        self.lost += points;
        self.stats.losses.add(reason, metric, points);
    }

    fn labels_lost(&mut self, metric: &[u8], lost: LostLabels) {
        self.stats.losses.labels(metric, lost);
    }

    fn exemplars_lost(&mut self, metric: &[u8], lost: LostExemplars) {
        self.stats.losses.exemplars(metric, lost);
    }

    fn targets_forgotten(&mut self, targets: usize) {
        self.stats.losses.targets(targets);
    }
}

/// The exporter's metrics, and a log line for the first drop of each metric.
struct Stats {
    sent: Counter,
    failed: Counter,
    series: UpDown,
    bytes: UpDown,
    /// For each page.
    clashing: Counter,
    losses: Losses,
}

impl Stats {
    fn new(telemetry: &Telemetry, exporter: &str) -> Self {
        let own = |what: &str| format!("otelcol_exporter_prometheus_{what}");
        let counter = |name: &str, help: &str| telemetry.counter(name, help, &[("exporter", exporter)]);
        Self {
            sent: counter("otelcol_exporter_sent_metric_points", "Items successfully sent to the destination."),
            failed: counter(
                "otelcol_exporter_send_failed_metric_points",
                "Items in failed attempts to send to the destination.",
            ),
            series: telemetry.gauge(&own("series"), "Series that are held.", &[("exporter", exporter)]),
            bytes: telemetry.gauge(&own("series_bytes"), "What they take, roughly.", &[("exporter", exporter)]),
            clashing: counter(
                &own("clashing_series"),
                "Series that a page was made without: escaped, another has the same name and labels.",
            ),
            losses: Losses::new(telemetry, exporter, &own("")),
        }
    }

    /// What a page was made without.
    fn clashing(&self, clashes: &Clashes) {
        for (metric, &series) in &clashes.series {
            self.clashing.inc_by(series as u64);
            let advice = "without UTF-8 names, another metric or series of the page has its name: rename one, or let                           the scraper ask for escaping=allow-utf-8";
            self.losses.say("name_clash", metric.as_bytes(), series, advice);
        }
        for (metric, &labels) in &clashes.labels {
            self.losses.labels(metric.as_bytes(), labels);
        }
    }
}
