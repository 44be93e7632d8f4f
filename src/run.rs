//! Running a gateway from start to drain.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::clock::{Clock, SystemClock};
use nyquist_core::component::Host;
use nyquist_core::config::TelemetryConfig;
use nyquist_core::net::page::PageServer;
use nyquist_core::pipeline::{EXPLAIN_PATH, ExplainPage, Graph, Plan};
use nyquist_core::runtime::{Fault, Runtimes, use_small_pages};
use nyquist_core::telemetry::{Left, MetricsPage, Telemetry, left};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The exit code of a shutdown that was asked for, but that left data behind which is lost.
pub const LEFT_BEHIND: u8 = 3;

/// How often a drain says what is still held.
const PROGRESS: Duration = Duration::from_secs(5);

/// What a run needs beside the components.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the gateway tells of itself.
    pub telemetry: TelemetryConfig,
    /// How long a shutdown may take to deliver what is held.
    pub drain_timeout: Duration,
}

/// Builds and starts the components of `plan`, waits for SIGTERM, SIGINT or a fatal fault, then
/// drains.
///
/// # Errors
/// What kept the gateway from starting, for people.
pub fn run(plan: &Plan, settings: &Settings) -> Result<ExitCode, String> {
    let telemetry = Telemetry::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let graph = Graph::build(plan, &telemetry, &clock).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (fatal, faults) = mpsc::unbounded_channel();
    use_small_pages();
    let runtimes = Runtimes::start(workers, fatal.clone());
    let runtimes = runtimes.map_err(|error| format!("cannot start worker threads: {error}"))?;
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(|error| format!("cannot start the control runtime: {error}"))?;
    let host = Host { runtimes: Arc::clone(&runtimes), clock, telemetry, fatal };
    let graph = Arc::new(graph);
    let outcome = control.block_on(run_until_told(&graph, &host, settings, faults));
    runtimes.stop();
    outcome
}

async fn run_until_told(
    graph: &Arc<Graph>,
    host: &Host,
    settings: &Settings,
    mut faults: mpsc::UnboundedReceiver<Fault>,
) -> Result<ExitCode, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // It would end the process on the spot, and it is what the Collector reads its configuration again at.
    let mut hang_up = listen(SignalKind::hangup())?;
    let _metrics = serve_metrics(graph, host, settings).await?;
    graph.start(host).await.map_err(|error| format!("cannot start pipelines: {error}"))?;
    tracing::info!(workers = host.runtimes.workers(), "everything is ready; processing data");

    let fault = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            fault = faults.recv() => break fault,
            _ = hang_up.recv() => tracing::warn!(
                "SIGHUP: the configuration is read at the start only; restart the gateway for it to read it again"
            ),
        }
    };
    match &fault {
        Some(fault) => {
            graph.fail(fault);
            tracing::error!(%fault, "shutting down after a fault that no retry mends");
        }
        None => tracing::info!(drain_timeout = ?settings.drain_timeout, "shutting down"),
    }
    let deadline = Instant::now() + settings.drain_timeout;
    tokio::select! {
        () = graph.shutdown(deadline) => {}
        () = tell_progress(&host.telemetry, deadline) => {}
    }
    let lost = summarize(&host.telemetry);
    Ok(match (fault, lost) {
        (Some(_), _) => ExitCode::FAILURE,
        (None, 0) => ExitCode::SUCCESS,
        (None, _) => ExitCode::from(LEFT_BEHIND),
    })
}

/// Says from time to time what is still held; never ends.
async fn tell_progress(telemetry: &Telemetry, deadline: Instant) {
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let items: u64 = left(telemetry).iter().map(|left| left.kept).sum();
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
        tracing::info!(items, seconds_left = seconds, "still draining");
    }
}

/// Says what is left, account by account; gives how many items are lost.
fn summarize(telemetry: &Telemetry) -> u64 {
    let accounts = left(telemetry);
    for Left { account, signal, lost, kept } in &accounts {
        if *lost > 0 {
            tracing::error!(account, signal, items = lost, "lost: not delivered by the end of the drain");
        }
        if *kept > 0 {
            tracing::info!(account, signal, items = kept, "kept on disk: the next process goes on with it");
        }
    }
    let sum = |part: fn(&Left) -> u64| accounts.iter().map(part).sum::<u64>();
    let (lost, kept) = (sum(|left| left.lost), sum(|left| left.kept));
    if lost > 0 {
        tracing::error!(items = lost, kept, "shutdown complete, but the drain ended before these were delivered");
    } else if kept > 0 {
        tracing::info!(kept, "shutdown complete; nothing is lost, and what is on disk is sent by the next process");
    } else {
        tracing::info!("shutdown complete; nothing was left behind");
    }
    lost
}

async fn serve_metrics(graph: &Arc<Graph>, host: &Host, settings: &Settings) -> Result<Option<PageServer>, String> {
    let metrics = &settings.telemetry.metrics;
    let Some(endpoint) = &metrics.endpoint else { return Ok(None) };
    host.telemetry.target_info(&resource(&settings.telemetry));
    let page = MetricsPage::new(Arc::clone(&host.telemetry), Arc::clone(&host.clock), metrics.without_type_suffix);
    let page = page.with(EXPLAIN_PATH, Arc::new(ExplainPage(Arc::clone(graph))));
    let server = PageServer::start(&host.runtimes, endpoint, Arc::new(page)).await;
    let server = server.map_err(|error| format!("service.telemetry.metrics: {error}"))?;
    tracing::info!(component = "telemetry", endpoint = %server.address(), "listening");
    Ok(Some(server))
}

/// The attributes of this process: the defaults, with what the configuration sets or (by `null`)
/// removes.
fn resource(telemetry: &TelemetryConfig) -> Vec<(String, String)> {
    let mut attributes = BTreeMap::from([
        ("service.name".to_owned(), "nyquist".to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), format!("{:032x}", rand::random::<u128>())),
    ]);
    for (key, value) in &telemetry.resource {
        match value {
            Some(value) => attributes.insert(key.clone(), value.clone()),
            None => attributes.remove(key),
        };
    }
    attributes.into_iter().collect()
}
